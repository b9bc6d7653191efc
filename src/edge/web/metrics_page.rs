//! `/metrics`: counters as they grew, and the live state as it is at this moment.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::edge::clock;
use crate::edge::limits::open_files;
use crate::edge::metrics::{Picture, direction_label, operator_label};
use crate::edge::web::Web;
use crate::edge::web::health::Watcher;

/// Prometheus text format.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page.
pub(super) async fn serve(_: Watcher, State(web): State<Web>) -> impl IntoResponse {
    let mut picture = web.picture();
    // Without the store these two stay at zero, and `/readyz` says why.
    if let Ok(outbox) = web.handle.store().outbox().await {
        let age = outbox.oldest_at.map_or(0, |at| clock::now().wall_ms.saturating_sub(at.0));
        picture.outbox = (outbox.depth, u64::try_from(age).unwrap_or(0));
    }
    ([(header::CONTENT_TYPE, KIND)], web.metrics.page(&picture))
}

impl Web {
    fn picture(&self) -> Picture {
        let now = clock::now().wall_ms;
        let board = self.handle.board();
        let mut calls = BTreeMap::from([("in", 0), ("out", 0), ("bridge", 0)]);
        for call in board.calls(now) {
            *calls.entry(direction_label(call.direction)).or_default() += 1;
        }
        let states = ["available", "ringing", "talking", "wrap_up", "paused", "offline"];
        let mut operators = BTreeMap::from(states.map(|state| (state, 0)));
        for operator in board.operators(now) {
            *operators.entry(operator_label(operator.state)).or_default() += 1;
        }
        let queues = board.queues(now).into_iter();
        let queues =
            queues.map(|queue| (queue.name.to_string(), count(queue.waiting), queue.longest_wait_ms));
        let trunks = board.trunks(now).into_iter();
        let trunks =
            trunks.map(|trunk| (trunk.name.to_string(), u64::from(trunk.busy), u64::from(trunk.channels)));
        Picture {
            calls,
            queues: queues.collect(),
            operators,
            trunks: trunks.collect(),
            outbox: (0, 0),
            serving: board.node(now).role != "standby",
            open_files: open_files(),
        }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

//! The numbers that monitoring reads, under the Prometheus names of the contract.
//!
//! Invariant: no number carries a label that grows with calls, callers or strangers; labels are
//! directions, results, states, and the names of configured queues and trunks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::fact::{CallResult, Direction, Fact, OperatorState, What};
use crate::terms::{CallId, WallMs};

/// Calls whose begin is remembered until they end. The engine's own limit of calls is far below.
const CALLS_REMEMBERED: usize = 20_000;
/// Seconds from a call's begin to the first sign of life.
const SETUP_SECONDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
/// Seconds of one engine step, and of one store write.
const STEP_SECONDS: [f64; 9] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.02, 0.1, 1.0];
/// Listening quality, ITU-T G.107.
const MOS: [f64; 8] = [1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.1, 4.4];

/// What is live right now; assembled for each scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// Live calls by direction.
    pub calls: BTreeMap<&'static str, u64>,
    /// Waiting callers and the longest wait in milliseconds, by queue.
    pub queues: Vec<(String, u64, i64)>,
    /// Operators by state.
    pub operators: BTreeMap<&'static str, u64>,
    /// Busy and all channels, by trunk.
    pub trunks: Vec<(String, u64, u64)>,
    /// Messages to the order core that wait, and the age of the oldest in milliseconds.
    pub outbox: (u64, u64),
    /// Whether this node serves (single or primary).
    pub serving: bool,
    /// Open descriptors.
    pub open_files: u64,
}

/// All counters of this node. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    page: PrometheusHandle,
    begun: Arc<Mutex<BTreeMap<CallId, Begun>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// A call from `Arrived` to `Ended`.
#[derive(Debug, Clone, Copy)]
struct Begun {
    direction: Direction,
    at: WallMs,
    heard: bool,
}

impl Metrics {
    /// Counters at zero.
    ///
    /// # Errors
    /// Only if the buckets above were empty.
    pub fn new() -> Result<Self, BuildError> {
        let full = |name: &str| Matcher::Full(name.to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(full("tandem_call_setup_seconds"), &SETUP_SECONDS)?
            .set_buckets_for_metric(full("tandem_engine_handle_seconds"), &STEP_SECONDS)?
            .set_buckets_for_metric(full("tandem_store_wait_seconds"), &STEP_SECONDS)?
            .set_buckets_for_metric(full("tandem_media_mos"), &MOS)?
            .build_recorder();
        let page = recorder.handle();
        let made = Self { recorder: Arc::new(recorder), page, begun: Arc::default() };
        made.within(describe);
        Ok(made)
    }

    fn within<T>(&self, record: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(self.recorder.as_ref(), record)
    }

    /// Something happened. Facts are to be given once each, in order.
    pub fn observe(&self, fact: &Fact) {
        if let What::CardAccepted { .. } = &fact.what {
            self.order("accepted");
        } else if let What::CardDiscarded { .. } = &fact.what {
            self.order("discarded");
        } else if let What::MediaQuality { quality, .. } = &fact.what {
            self.within(|| histogram!("tandem_media_mos").record(f64::from(quality.mos)));
        } else if let Some(call) = fact.call {
            self.observe_call(call, fact.at, &fact.what);
        }
    }

    fn observe_call(&self, call: CallId, at: WallMs, what: &What) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if let What::Arrived { direction, .. } = what {
            if begun.len() < CALLS_REMEMBERED {
                begun.insert(call, Begun { direction: *direction, at, heard: false });
            }
        } else if let What::Ended { result, .. } = what {
            let direction = begun.remove(&call).map_or("unknown", |known| direction_label(known.direction));
            let result = result_label(*result);
            self.within(|| {
                counter!("tandem_calls_total", "direction" => direction, "result" => result).increment(1)
            });
        } else if is_sign_of_life(what)
            && let Some(known) = begun.get_mut(&call).filter(|known| !known.heard)
        {
            known.heard = true;
            let seconds = seconds(at.saturating_sub(known.at));
            self.within(|| histogram!("tandem_call_setup_seconds").record(seconds));
        }
    }

    fn order(&self, result: &'static str) {
        self.within(|| counter!("tandem_orders_total", "result" => result).increment(1));
    }

    /// A SIP message passed. `transport` is `udp`, `ws` or `wss`, `direction` is `in` or `out`.
    pub fn sip_message(&self, transport: &'static str, method: &'static str, direction: &'static str) {
        let name = "tandem_sip_messages_total";
        self.within(|| {
            counter!(name, "transport" => transport, "method" => method, "direction" => direction)
                .increment(1);
        });
    }

    /// A SIP message was dropped or refused.
    pub fn sip_dropped(&self, reason: &'static str) {
        self.within(|| counter!("tandem_sip_dropped_total", "reason" => reason).increment(1));
    }

    /// Failed log-ins led to a lock or ban; said in the log too.
    pub fn banned(&self, door: &'static str, ban: &crate::sip::guard::Ban) {
        let (failures, minutes) = (ban.failures, ban.left_ms.div_ceil(60_000));
        match &ban.account {
            // The name may be somebody's password in the wrong field: it is in `tandem ban list` only.
            Some(_) => tracing::warn!(
                "{door}: an account is locked for {} after {failures} failed log-ins, {minutes} min (`tandem ban list`)",
                ban.source
            ),
            None => tracing::warn!(
                "{door}: {} is banned after {failures} failed log-ins, {minutes} min (`tandem ban lift {}`)",
                ban.source,
                ban.source
            ),
        }
        let kind = if ban.account.is_some() { "account" } else { "source" };
        self.within(|| counter!("tandem_bans_total", "door" => door, "kind" => kind).increment(1));
    }

    /// A step of the engine panicked.
    pub fn engine_panic(&self) {
        self.within(|| counter!("tandem_engine_panics_total").increment(1));
    }

    /// The media workers' counts since they last said them.
    pub fn rtp(&self, packets_in: u64, packets_out: u64, lost: u64) {
        self.within(|| {
            counter!("tandem_rtp_packets_total", "direction" => "in").increment(packets_in);
            counter!("tandem_rtp_packets_total", "direction" => "out").increment(packets_out);
            counter!("tandem_rtp_lost_total").increment(lost);
        });
    }

    /// One engine step took so long.
    pub fn engine_step(&self, took: Duration) {
        self.within(|| histogram!("tandem_engine_handle_seconds").record(took.as_secs_f64()));
    }

    /// One write of the store took so long, waiting included.
    pub fn store_wait(&self, took: Duration) {
        self.within(|| histogram!("tandem_store_wait_seconds").record(took.as_secs_f64()));
    }

    /// Counts what the histograms were told since the last time. A page does it as well; where nobody
    /// reads one, they would keep every single value.
    pub fn tidy_up(&self) {
        self.page.run_upkeep();
    }

    /// The page that Prometheus reads.
    pub fn page(&self, picture: &Picture) -> String {
        self.within(|| show(picture));
        self.page.run_upkeep();
        self.page.render()
    }
}

fn show(picture: &Picture) {
    for (direction, count) in &picture.calls {
        gauge!("tandem_calls_active", "direction" => *direction).set(float(*count));
    }
    for (queue, waiting, longest_wait_ms) in &picture.queues {
        gauge!("tandem_queue_waiting", "queue" => queue.clone()).set(float(*waiting));
        gauge!("tandem_queue_longest_wait_seconds", "queue" => queue.clone()).set(seconds(*longest_wait_ms));
    }
    for (state, count) in &picture.operators {
        gauge!("tandem_operators", "state" => *state).set(float(*count));
    }
    for (trunk, busy, channels) in &picture.trunks {
        gauge!("tandem_trunk_channels", "trunk" => trunk.clone(), "state" => "busy").set(float(*busy));
        let free = channels.saturating_sub(*busy);
        gauge!("tandem_trunk_channels", "trunk" => trunk.clone(), "state" => "free").set(float(free));
    }
    gauge!("tandem_outbox_depth").set(float(picture.outbox.0));
    gauge!("tandem_outbox_oldest_seconds").set(float(picture.outbox.1) / 1_000.0);
    gauge!("tandem_ha_role").set(if picture.serving { 1.0 } else { 0.0 });
    gauge!("tandem_ha_lag_records").set(0.0);
    gauge!("tandem_open_fds").set(float(picture.open_files));
}

fn describe() {
    describe_gauge!("tandem_calls_active", "Live calls");
    describe_counter!("tandem_calls_total", "Ended calls");
    describe_histogram!(
        "tandem_call_setup_seconds",
        Unit::Seconds,
        "From a call's begin to its first ring, sound, queue place or answer"
    );
    describe_counter!("tandem_sip_messages_total", "SIP messages");
    describe_counter!("tandem_sip_dropped_total", "SIP messages dropped or refused");
    describe_counter!("tandem_bans_total", "Locks of an account for a source, and bans of a source");
    describe_counter!("tandem_engine_panics_total", "Steps of the engine that failed; each cost one call");
    // From the start at 0: an alert on a number that is not there never fires.
    counter!("tandem_engine_panics_total").increment(0);
    describe_counter!("tandem_rtp_packets_total", "RTP packets");
    describe_counter!("tandem_rtp_lost_total", "RTP packets lost on the way to us");
    describe_histogram!("tandem_media_mos", "Estimated listening quality of legs, 1 to 4.5");
    describe_gauge!("tandem_queue_waiting", "Callers who wait");
    describe_gauge!(
        "tandem_queue_longest_wait_seconds",
        Unit::Seconds,
        "Longest wait of a caller who waits now"
    );
    describe_gauge!("tandem_operators", "Operators by state");
    describe_gauge!("tandem_trunk_channels", "Channels of trunks");
    describe_gauge!("tandem_outbox_depth", "Messages that wait for the order core");
    describe_gauge!("tandem_outbox_oldest_seconds", Unit::Seconds, "Age of the oldest of them");
    describe_counter!("tandem_orders_total", "Order cards by result");
    describe_gauge!("tandem_ha_role", "1 while this node serves");
    describe_gauge!("tandem_ha_lag_records", "Records the standby has not confirmed");
    describe_gauge!("tandem_open_fds", "Open file descriptors");
    describe_histogram!("tandem_engine_handle_seconds", Unit::Seconds, "One step of the engine");
    describe_histogram!("tandem_store_wait_seconds", Unit::Seconds, "One write of the store");
    // Counters without labels are there from the first scrape, so that an alert on their rate works.
    counter!("tandem_rtp_lost_total").absolute(0);
}

/// The first ring, sound, queue place or answer: from here on the caller hears that somebody cares.
fn is_sign_of_life(what: &What) -> bool {
    matches!(
        what,
        What::Ringing { .. }
            | What::EarlyMedia { .. }
            | What::Greeting { .. }
            | What::Queued { .. }
            | What::Assigned { .. }
            | What::Answered { .. }
    )
}

/// The value of the label `direction`.
pub fn direction_label(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Bridge => "bridge",
    }
}

/// The value of the label `state`.
pub fn operator_label(state: OperatorState) -> &'static str {
    match state {
        OperatorState::Available => "available",
        OperatorState::Ringing => "ringing",
        OperatorState::Talking => "talking",
        OperatorState::WrapUp => "wrap_up",
        OperatorState::Paused => "paused",
        OperatorState::Offline => "offline",
    }
}

fn result_label(result: CallResult) -> &'static str {
    match result {
        CallResult::Answered => "answered",
        CallResult::Abandoned => "abandoned",
        CallResult::NoAnswer => "no_answer",
        CallResult::Busy => "busy",
        CallResult::Failed => "failed",
        CallResult::Overflow => "overflow",
        CallResult::Transferred => "transferred",
        CallResult::Rejected => "rejected",
        CallResult::Lost => "lost",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts stay far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a duration stays far below 2^52 ms")]
fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fact::Cause;
    use crate::terms::{CardId, Epoch, Number};

    fn fact(call: u128, at: WallMs, what: What) -> Fact {
        Fact { seq: 1, epoch: Epoch(1), at, call: Some(CallId(uuid::Uuid::from_u128(call))), what }
    }

    fn arrived() -> What {
        What::Arrived {
            direction: Direction::In,
            caller: Number::new("+380671234567"),
            called: Number::default(),
            line: Number::default(),
            trunk: None,
            operator: None,
        }
    }

    #[test]
    fn calls_are_counted_by_direction_and_result_and_numbers_never_show() {
        let metrics = Metrics::new().unwrap();
        metrics.observe(&fact(1, 0, arrived()));
        metrics.observe(&fact(1, 300, What::Queued { queue: "orders".into(), priority: 0 }));
        let cause = Cause::default();
        let ended =
            What::Ended { result: CallResult::Abandoned, cause, by: "caller".into(), wait_ms: 0, talk_ms: 0 };
        metrics.observe(&fact(1, 900, ended));
        let page = metrics.page(&Picture::default());
        assert!(page.contains("tandem_calls_total{direction=\"in\",result=\"abandoned\"} 1"), "{page}");
        assert!(page.contains("tandem_call_setup_seconds_bucket{le=\"0.5\"} 1"), "{page}");
        assert!(page.contains("tandem_call_setup_seconds_bucket{le=\"0.25\"} 0"), "{page}");
        assert!(!page.contains("38067"));
        assert!(metrics.begun.lock().unwrap().is_empty());
    }

    #[test]
    fn every_name_of_the_contract_is_on_the_page() {
        let metrics = Metrics::new().unwrap();
        metrics.observe(&fact(1, 0, arrived()));
        metrics.observe(&fact(1, 300, What::Queued { queue: "orders".into(), priority: 0 }));
        let cause = Cause::default();
        let ended =
            What::Ended { result: CallResult::Lost, cause, by: "system".into(), wait_ms: 0, talk_ms: 0 };
        metrics.observe(&fact(1, 900, ended));
        let leg = crate::terms::LegId(1);
        metrics.observe(&fact(1, 1, What::MediaQuality { leg, quality: crate::fact::Quality::default() }));
        metrics.observe(&fact(1, 1, What::CardAccepted { card: CardId(uuid::Uuid::nil()) }));
        metrics.sip_message("udp", "INVITE", "in");
        metrics.sip_dropped("not_sip");
        metrics.rtp(1, 2, 3);
        metrics.engine_step(Duration::from_micros(40));
        metrics.store_wait(Duration::from_millis(4));
        let page = metrics.page(&Picture {
            calls: BTreeMap::from([("in", 1)]),
            queues: vec![("orders".into(), 1, 500)],
            operators: BTreeMap::from([("paused", 1)]),
            trunks: vec![("gsm-1".into(), 2, 8)],
            outbox: (1, 2_000),
            serving: true,
            open_files: 9,
        });
        for line in [
            "tandem_calls_active{direction=\"in\"} 1",
            "tandem_calls_total{direction=\"in\",result=\"lost\"} 1",
            "tandem_call_setup_seconds_count 1",
            "tandem_sip_messages_total{transport=\"udp\",method=\"INVITE\",direction=\"in\"} 1",
            "tandem_sip_dropped_total{reason=\"not_sip\"} 1",
            "tandem_engine_handle_seconds_bucket{le=\"0.00005\"} 1",
            "tandem_store_wait_seconds_bucket{le=\"0.005\"} 1",
            "tandem_rtp_packets_total{direction=\"in\"} 1",
            "tandem_rtp_lost_total 3",
            "tandem_media_mos_count 1",
            "tandem_queue_waiting{queue=\"orders\"} 1",
            "tandem_queue_longest_wait_seconds{queue=\"orders\"} 0.5",
            "tandem_operators{state=\"paused\"} 1",
            "tandem_trunk_channels{trunk=\"gsm-1\",state=\"free\"} 6",
            "tandem_outbox_depth 1",
            "tandem_outbox_oldest_seconds 2",
            "tandem_orders_total{result=\"accepted\"} 1",
            "tandem_ha_role 1",
            "tandem_ha_lag_records 0",
            "tandem_open_fds 9",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
    }
}

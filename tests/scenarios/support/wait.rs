//! Waiting for something to become true, never for time to pass.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// When a condition is given up: far above anything that a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Looks until there is something; fails with `what` when patience ends.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl FnMut() -> F) -> T {
    until_within(PATIENCE, what, look).await
}

/// The same with another patience.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", patience.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks again and again while `lasting` goes on; fails as soon as it finds something.
pub async fn never<T: std::fmt::Debug, F: Future<Output = Option<T>>>(
    lasting: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) {
    let deadline = Instant::now() + lasting;
    while Instant::now() < deadline {
        if let Some(found) = look().await {
            panic!("{what}: {found:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

//! Counts how much of a message reading it walks over, so that a test can show that no input costs more
//! than its length deserves. Outside tests it is nothing.
//!
//! Invariant: whatever loops over octets of a message or over its headers says so here.

/// So many octets or headers were looked at.
#[inline]
pub(super) fn walked(steps: usize) {
    #[cfg(test)]
    STEPS.with(|sum| sum.set(sum.get().saturating_add(steps)));
    #[cfg(not(test))]
    let _ = steps;
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Steps of this thread since the last time this was asked.
#[cfg(test)]
pub(super) fn taken() -> usize {
    STEPS.with(|sum| sum.replace(0))
}

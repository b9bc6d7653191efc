//! Places where a test makes the program panic. They do not exist in the shipped build.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static ARMED: RefCell<BTreeMap<&'static str, u32>> = const { RefCell::new(BTreeMap::new()) };
}

/// The next `times` passes of `point` on this thread panic.
pub(crate) fn arm(point: &'static str, times: u32) {
    ARMED.with(|armed| armed.borrow_mut().insert(point, times));
}

/// How many panics are still to come at `point`.
pub(crate) fn left(point: &'static str) -> u32 {
    ARMED.with(|armed| armed.borrow().get(point).copied().unwrap_or(0))
}

/// Panics if a test armed this point.
pub(crate) fn pass(point: &'static str) {
    let hit = ARMED.with(|armed| {
        let mut armed = armed.borrow_mut();
        let left = armed.get_mut(point).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    });
    assert!(!hit, "a test armed {point}");
}

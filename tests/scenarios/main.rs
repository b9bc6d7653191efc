//! Scenes from a call centre: the real program on real sockets, with gateways, phones, browsers and order
//! cores of others. Where a peer's program is missing a scene says so and is left out, unless
//! `TANDEM_PEERS=required` is set; then it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod carrier;
mod desk;
mod dialogs;
mod flood;
mod orders;
mod start;
mod stock;
mod strangers;
mod support;

/// Not a test: the order core of the scenes in `orders` is this program again, in a process of its own.
#[test]
fn the_order_core_of_other_scenes() {
    support::core::be_core_if_asked();
}

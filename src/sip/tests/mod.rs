//! Whole calls: two machines over a bad wire, and browsers and gateways spoken by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod attacks;
mod browser;
mod calls;
mod forks;
mod gateway;
mod hand;
mod linear;
mod provider;
mod refer;
mod reliable;
mod strangers;
mod timers;
mod torture_tests;
mod world;

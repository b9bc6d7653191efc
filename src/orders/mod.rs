//! Orders, as far as telephony knows them: the card on the desk, the letters to the order core, and the
//! order in which letters go out.
//!
//! Invariant: an order leaves a desk only when it is durable, and reaches the core under one key however
//! often it is sent.

pub mod card;
pub mod core;
pub mod outbox;
pub mod word;

pub use card::Cards;
pub use word::{Answer, Input, Kept, KeptState, Open, Output, Refusal, Submit};

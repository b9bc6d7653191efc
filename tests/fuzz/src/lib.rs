//! The walls of the house that hold no I/O, from the product's own source.
#![allow(dead_code, missing_docs, reason = "the edge, which uses the rest, is not here")]

#[path = "../../../src/dialplan/mod.rs"]
pub mod dialplan;
#[path = "../../../src/fact.rs"]
pub mod fact;
#[path = "../../../src/media/mod.rs"]
pub mod media;
#[path = "../../../src/record.rs"]
pub mod record;
#[path = "../../../src/sdp/mod.rs"]
pub mod sdp;
#[path = "../../../src/sip/mod.rs"]
pub mod sip;
#[path = "../../../src/terms.rs"]
pub mod terms;

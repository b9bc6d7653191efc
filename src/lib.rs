#![doc = include_str!("ARCHITECTURE.md")]

pub mod acd;
pub mod call;
pub mod command;
pub mod config;
pub mod dialplan;
pub mod edge;
pub mod engine;
pub mod fact;
pub mod media;
pub mod orders;
pub mod record;
pub mod report;
pub mod sdp;
pub mod sip;
pub mod terms;
pub mod ua;

#![doc = include_str!("ARCHITECTURE.md")]

pub mod fact;
pub mod record;
pub mod terms;

//! The commands of `tandem`, one file each.

pub mod assemble;
pub mod ban;
pub mod check;
pub mod demo;
pub mod health;
pub mod node;
pub mod run;
pub mod setup;
pub mod status;
pub mod try_number;
pub mod user;

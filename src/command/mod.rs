//! The commands of `tandem`, one file each.

pub mod assemble;
pub mod check;
pub mod demo;
pub mod node;
pub mod run;
pub mod try_number;

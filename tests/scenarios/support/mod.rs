//! What scenes are made of: the real program, real peers, and the patience to wait for them.

pub mod baresip;
pub mod browser;
pub mod core;
pub mod desk;
pub mod peers;
pub mod phone;
pub mod ports;
pub mod proxy;
pub mod rtp;
pub mod sip;
pub mod sipp;
pub mod sound;
pub mod tandem;
pub mod wait;

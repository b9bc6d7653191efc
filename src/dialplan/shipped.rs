//! The dialplans and sounds that come with Tandem: what is used where no folder `dialplans` is found.

/// `(name, text)` in the order they are read.
pub const FILES: [(&str, &str); 3] = [
    ("incoming.toml", include_str!("../../dialplans/incoming.toml")),
    ("internal.toml", include_str!("../../dialplans/internal.toml")),
    ("outgoing.toml", include_str!("../../dialplans/outgoing.toml")),
];

/// `(name, WAV)`.
pub const SOUNDS: [(&str, &[u8]); 3] = [
    ("hold.wav", include_bytes!("../../dialplans/sounds/hold.wav")),
    ("sorry.wav", include_bytes!("../../dialplans/sounds/sorry.wav")),
    ("welcome.wav", include_bytes!("../../dialplans/sounds/welcome.wav")),
];

//! Ports of this machine that nobody uses, in blocks that no two tests share.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range that the system gives out by itself.
const FIRST: u32 = 11_000;
const LAST: u32 = 31_999;

/// How far this process has got.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Consecutive ports.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    first: u16,
    size: u16,
}

impl Block {
    /// `size` consecutive ports, free for UDP and TCP; the first is even.
    pub fn of(size: u16) -> Self {
        // Test programs that run at the same time begin at different places.
        let begin = std::process::id().wrapping_mul(977);
        for _ in 0..1_000 {
            let step = NEXT.fetch_add(u32::from(size) + 2, Ordering::Relaxed);
            let first = (FIRST + begin.wrapping_add(step) % (LAST - FIRST)) & !1;
            if first + u32::from(size) > LAST {
                continue;
            }
            let block = Self { first: u16::try_from(first).unwrap(), size };
            if block.is_free() {
                return block;
            }
        }
        panic!("no {size} free ports in a row");
    }

    /// The port at this place of the block.
    pub fn at(self, index: u16) -> u16 {
        assert!(index < self.size);
        self.first + index
    }

    /// From the port at `index` to the end of the block, as a configuration writes it.
    pub fn from(self, index: u16) -> String {
        format!("{}-{}", self.at(index), self.at(self.size - 1))
    }

    fn is_free(self) -> bool {
        let local = |port: u16| ("127.0.0.1", port);
        (self.first..self.first + self.size)
            .all(|port| UdpSocket::bind(local(port)).is_ok() && TcpListener::bind(local(port)).is_ok())
    }
}

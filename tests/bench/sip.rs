//! What reading and writing a SIP message costs, in time and allocations.
//!
//! `cargo bench --bench sip`. Prints a table; never passes or fails.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tandem::sip::message::Message;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "a counting allocator can only be written so; it forwards every call")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds of [`EACH`] runs; the fastest is told, because the machine is shared.
const ROUNDS: usize = 21;
const EACH: u32 = 2_000;

/// Nanoseconds and allocations of one run.
fn measure(mut run: impl FnMut()) -> (f64, f64) {
    let mut best = f64::INFINITY;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
        let began = Instant::now();
        for _ in 0..EACH {
            run();
        }
        best = best.min(began.elapsed().as_nanos() as f64 / f64::from(EACH));
    }
    let runs = ROUNDS as f64 * f64::from(EACH);
    (best, (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / runs)
}

fn main() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sip/jssip/");
    println!("{:44} {:>7} {:>11} {:>11}", "message", "octets", "ns", "allocations");
    for name in [
        "op1-with-gateway/05-in-INVITE-sendrecv.sip",
        "op1-caller/08-out-INVITE-sendrecv-withauth.sip",
        "op1-caller/03-out-REGISTER-withauth.sip",
        "op1-caller/33-out-BYE.sip",
    ] {
        let bytes = Bytes::from(std::fs::read(format!("{folder}{name}")).unwrap());
        let (ns, allocations) = measure(|| drop(black_box(Message::read_datagram(&bytes)).unwrap()));
        println!("read  {:38} {:7} {ns:11.0} {allocations:11.1}", short(name), bytes.len());
        let message = Message::read_datagram(&bytes).unwrap();
        let (ns, allocations) = measure(|| drop(black_box(message.to_bytes())));
        println!("write {:38} {:7} {ns:11.0} {allocations:11.1}", short(name), bytes.len());
    }
}

fn short(name: &str) -> &str {
    name.split('/').next_back().unwrap()
}

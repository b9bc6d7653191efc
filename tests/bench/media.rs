//! What a relayed packet costs, beside rtpengine in the same run, in turns.
//!
//! `cargo bench --bench media -- [calls,…] [seconds]`, for instance `-- 10,100,500 8`. Both relays are
//! fed by the generator in here, which speaks for all parties over loopback: RTP ↔ RTP, then RTP ↔ SRTP
//! (for us a browser's leg with ICE and DTLS; for rtpengine keys in SDP). What is compared is the time
//! that the relay's threads spend on a CPU for each packet they forwarded. Prints a table with the ratio;
//! never passes or fails. At most 1,000 calls and 30 seconds a turn; talks to 127.0.0.1 only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a bench"
)]

#[path = "media/rtpengine.rs"]
mod rtpengine;
#[path = "media/tandem.rs"]
mod switch;
#[path = "media/wire.rs"]
mod wire;

use std::time::Duration;

use crate::rtpengine::Rtpengine;
use crate::switch::Tandem;
use crate::wire::{Generator, Side};

/// Turns of each relay; the median is told.
const TURNS: usize = 2;
const MAX_CALLS: usize = 1_000;
const MAX_SECONDS: u64 = 30;
/// The beginning of a turn that is not measured.
const WARM_UP: Duration = Duration::from_millis(1_500);

/// A relay with calls set up.
trait Relay {
    /// Where each call's packets of the plain side and of the other side go, and what protects the latter.
    fn set_up(&mut self, generator: &mut Generator, calls: usize, secure: bool);
    /// Nanoseconds that its packet threads have spent on a CPU.
    fn cpu_ns(&self) -> u64;
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let calls = given.first().map_or("10,100,500", String::as_str);
    let seconds = given.get(1).map_or(6, |word| word.parse().unwrap());
    let seconds = Duration::from_secs(u64::min(seconds, MAX_SECONDS));
    println!("{} cores, load {}", std::thread::available_parallelism().unwrap(), wire::load());
    if Rtpengine::version().is_none() {
        println!("rtpengine is missing (Debian: rtpengine-daemon): Tandem is measured alone");
    }
    println!(
        "{:>18} {:>6} {:>10} {:>12} {:>9} {:>9} {:>9}",
        "legs", "calls", "relay", "CPU µs/packet", "loss %", "p50 µs", "p99 µs"
    );
    for secure in [false, true] {
        for calls in calls.split(',').map(|word| word.parse().unwrap()) {
            compare(usize::min(calls, MAX_CALLS), secure, seconds);
        }
    }
}

fn compare(calls: usize, secure: bool, seconds: Duration) {
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for _ in 0..TURNS {
        if let Some(mut peer) = Rtpengine::start() {
            theirs.push(turn("rtpengine", &mut peer, calls, secure, seconds));
        }
        ours.push(turn("tandem", &mut Tandem::start(), calls, secure, seconds));
    }
    if !theirs.is_empty() {
        println!("{:>18} {calls:>6} {:>10} {:>12.2}", legs(secure), "ratio", median(ours) / median(theirs));
    }
}

fn legs(secure: bool) -> &'static str {
    if secure { "RTP-SRTP" } else { "RTP-RTP" }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2])
}

/// CPU µs a forwarded packet.
fn turn(name: &str, relay: &mut impl Relay, calls: usize, secure: bool, seconds: Duration) -> f64 {
    let mut generator = Generator::new(calls);
    relay.set_up(&mut generator, calls, secure);
    generator.run(WARM_UP);
    generator.forget();
    let before = relay.cpu_ns();
    generator.run(seconds);
    let spent = relay.cpu_ns() - before;
    // What is still on its way counts as heard.
    generator.settle();
    let heard = generator.heard(Side::Plain) + generator.heard(Side::Other);
    let sent = generator.sent();
    let cost = spent as f64 / 1_000.0 / heard.max(1) as f64;
    let loss = 100.0 * (sent.saturating_sub(heard)) as f64 / sent.max(1) as f64;
    let (p50, p99) = generator.delays_us();
    println!("{:>18} {calls:>6} {name:>10} {cost:>12.2} {loss:>9.3} {p50:>9} {p99:>9}", legs(secure));
    cost
}

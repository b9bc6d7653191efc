//! What memory reading a message takes: counted, so that no input makes it more than its length deserves.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use tandem::sip::message::{MAX_MESSAGE, Message};

struct Counting;

thread_local! {
    /// Allocations of this thread, and their octets.
    static TAKEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn note(octets: usize) {
    // A thread that ends may have no counter any more.
    let count_in = |taken: &Cell<(u64, u64)>| {
        let (count, sum) = taken.get();
        taken.set((count + 1, sum + octets as u64));
    };
    TAKEN.try_with(count_in).unwrap_or_default();
}

#[expect(unsafe_code, reason = "a counting allocator can only be written so; it forwards every call")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations, and octets allocated, for each octet of the message.
fn cost(message: Vec<u8>) -> (f64, f64) {
    let message = Bytes::from(message);
    TAKEN.set((0, 0));
    drop(Message::read_datagram(&message));
    let (count, sum) = TAKEN.get();
    (count as f64 / message.len() as f64, sum as f64 / message.len() as f64)
}

fn invite() -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sip/jssip/");
    std::fs::read(format!("{folder}op1-with-gateway/05-in-INVITE-sendrecv.sip")).unwrap()
}

#[test]
fn an_invite_takes_at_most_45_allocations() {
    let invite = invite();
    let (each, _) = cost(invite.clone());
    let count = each * invite.len() as f64;
    assert!((1.0..=45.0).contains(&count), "{count}");
}

#[test]
fn the_worst_64_kb_take_no_more_memory_an_octet_than_ten_times_an_ordinary_message() {
    let (count, octets) = cost(invite());
    let head = "INVITE sip:1@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
        Max-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:1@example.com>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n";
    let table = [
        ("", "A", ""),
        ("", "\r\n", ""),
        (head, "a:\r\n", "\r\n"),
        (head, "Subject: a\r\n b\r\n", "\r\n"),
        (head, "Subject: a\r\n", "\r\n"),
        ("Subject: a", "\r\n b", "\r\n\r\n"),
        ("From: ", "\"", "\r\n\r\n"),
        ("To: <sip:a@b>", ";a", "\r\n\r\n"),
        ("To: <sip:a@b>", ";a=b", "\r\n\r\n"),
        ("Via: a", ",SIP/2.0/UDP a", "\r\n\r\n"),
        ("Content-Length: ", "1", "\r\n\r\n"),
    ];
    for (before, piece, after) in table {
        let before = if before.contains("SIP/2.0") || before.is_empty() {
            before.to_owned()
        } else {
            format!("{head}{before}")
        };
        let room = MAX_MESSAGE - before.len() - after.len();
        let message = format!("{before}{}{after}", piece.repeat(room / piece.len()));
        let (worst_count, worst_octets) = cost(message.into_bytes());
        assert!(
            worst_count <= 10.0 * count,
            "{piece:?}: {worst_count} allocations an octet, ordinary {count}"
        );
        assert!(
            worst_octets <= 10.0 * octets,
            "{piece:?}: {worst_octets} octets an octet, ordinary {octets}"
        );
    }
}

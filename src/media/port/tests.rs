#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use super::*;
use crate::fact::Flow;
use crate::media::dtmf::Telephone;
use crate::media::g711::{decode, transcode};
use crate::media::outbox::Component;
use crate::media::rtcp;
use crate::media::rtp::{self, HEADER_LEN, Header};
use crate::media::tone::strength;

const MS: u64 = 1_000;
const PARTY: &str = "192.0.2.1:4000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn connect(law: Law) -> Connect {
    Connect {
        remote: Remote::Plain {
            rtp: address(PARTY),
            rtcp: address("192.0.2.1:4001"),
            may_latch: true,
            also: None,
        },
        law,
        payload_type: law.payload_type(),
        telephone_event: Some(101),
        comfort_noise: None,
        ptime_ms: 20,
        send: true,
        receive: true,
    }
}

/// A port whose party has not described itself yet.
fn fresh(number: u32) -> Port {
    let line = Line { ssrc: 1_000 + number, seq: 100, ts: 5_000, cname: "desk".into() };
    let alarms = Alarms { silence_ms: 2_000, dead_ms: 10_000 };
    Port::plain(PortId(u64::from(number)), number, &line, alarms, 0)
}

fn port(number: u32, connect: Connect) -> Port {
    let mut port = fresh(number);
    port.connect(connect, 0);
    port
}

fn packet(payload_type: u8, seq: u16, ts: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    rtp::write(&mut bytes, false, payload_type, seq, ts, 7).unwrap();
    bytes.extend_from_slice(payload);
    bytes
}

/// What lies in the box, as RTP: (header, payload); emptied.
fn sent(out: &mut Outbox) -> Vec<(Header, Vec<u8>)> {
    let packets = out
        .parcels()
        .filter(|(parcel, _)| parcel.component == Component::Rtp)
        .map(|(_, bytes)| {
            let header = rtp::read(bytes).unwrap();
            (header.clone(), bytes[header.payload].to_vec())
        })
        .collect();
    out.clear();
    packets
}

fn events(port: &mut Port) -> Vec<Event> {
    std::iter::from_fn(|| port.poll()).collect()
}

/// One packet of the first port's party through the bridge.
fn carry(from: &mut Port, to: &mut Port, bytes: &[u8], now_us: u64, out: &mut Outbox) {
    let mut datagram = bytes.to_vec();
    if let Some(heard) = from.handle(&mut datagram, address(PARTY), Component::Rtp, now_us, out) {
        to.relay(&heard, 1, now_us, out);
    }
}

/// Lets the port's own clock run to `until_us`, collecting what it sends with the time.
fn run(port: &mut Port, until_us: u64, out: &mut Outbox) -> Vec<(u64, Header, Vec<u8>)> {
    let mut all = Vec::new();
    while port.next_timeout() <= until_us {
        let now_us = port.next_timeout();
        port.handle_timeout(now_us, out);
        all.extend(sent(out).into_iter().map(|(header, payload)| (now_us, header, payload)));
    }
    all
}

#[test]
fn the_same_law_is_relayed_octet_by_octet_in_our_line() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    let payload: Vec<u8> = (0..160).collect();
    for step in 0..3u16 {
        let now_us = u64::from(step) * 20 * MS;
        carry(&mut a, &mut b, &packet(8, 500 + step, 160 * u32::from(step), &payload), now_us, &mut out);
    }
    let got = sent(&mut out);
    assert_eq!(got.len(), 3);
    for (step, (header, relayed)) in got.iter().enumerate() {
        assert_eq!(relayed, &payload);
        assert_eq!((header.ssrc, header.payload_type), (1_002, 8));
        assert_eq!((header.seq, header.ts), (100 + step as u16, 5_000 + 160 * step as u32));
        assert_eq!(header.marker, step == 0);
    }
    assert_eq!(out.counts.relayed, 3);
    assert!(events(&mut a).contains(&Event::FirstPacket { port: PortId(1) }));
}

#[test]
fn the_other_law_goes_through_the_table() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcmu)), Outbox::default());
    let payload: Vec<u8> = (0..160).collect();
    carry(&mut a, &mut b, &packet(8, 500, 0, &payload), 0, &mut out);
    let (header, relayed) = sent(&mut out).remove(0);
    let mut expected = vec![0; 160];
    transcode(Law::Pcma, &payload, &mut expected);
    assert_eq!((header.payload_type, relayed), (0, expected));
}

#[test]
fn a_gateway_that_changes_the_law_without_a_word_is_understood() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    carry(&mut a, &mut b, &packet(0, 500, 0, &[0xff; 160]), 0, &mut out);
    let (header, relayed) = sent(&mut out).remove(0);
    assert_eq!((header.payload_type, relayed), (8, vec![0xd5; 160]));
}

#[test]
fn a_lost_packet_stays_a_gap_and_an_unwanted_payload_does_not_become_one() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    for (seq, kind) in [(500, 8), (502, 8), (503, 13), (504, 96), (505, 8)] {
        carry(&mut a, &mut b, &packet(kind, seq, 160 * u32::from(seq), &[1; 160]), 0, &mut out);
    }
    let numbers: Vec<u16> = sent(&mut out).iter().map(|(header, _)| header.seq).collect();
    // Comfort noise was not agreed (left out, no gap); type 96 nobody knows (a gap, as it came).
    assert_eq!(numbers, [100, 102, 104]);
}

#[test]
fn digits_are_relayed_under_the_other_type_and_reported_once() {
    let mut b_side = connect(Law::Pcma);
    b_side.telephone_event = Some(96);
    let (mut a, mut b, mut out) = (port(1, connect(Law::Pcma)), port(2, b_side), Outbox::default());
    for (step, (end, duration)) in
        [(false, 160), (false, 320), (true, 480), (true, 480), (true, 480)].iter().enumerate()
    {
        let event = Telephone { code: 5, end: *end, duration: *duration }.write();
        carry(&mut a, &mut b, &packet(101, 500 + step as u16, 777, &event), step as u64 * 20 * MS, &mut out);
    }
    let got = sent(&mut out);
    assert_eq!(got.len(), 5);
    assert!(got.iter().all(|(header, _)| header.payload_type == 96 && header.ts == got[0].0.ts));
    let digits: Vec<Event> =
        events(&mut a).into_iter().filter(|event| matches!(event, Event::Digit { .. })).collect();
    assert_eq!(digits, [Event::Digit { port: PortId(1), digit: '5', duration_ms: 60 }]);
}

#[test]
fn a_party_without_telephone_events_gets_none() {
    let mut b_side = connect(Law::Pcma);
    b_side.telephone_event = None;
    let (mut a, mut b, mut out) = (port(1, connect(Law::Pcma)), port(2, b_side), Outbox::default());
    let event = Telephone { code: 5, end: true, duration: 480 }.write();
    carry(&mut a, &mut b, &packet(8, 499, 0, &[1; 160]), 0, &mut out);
    carry(&mut a, &mut b, &packet(101, 500, 160, &event), 0, &mut out);
    carry(&mut a, &mut b, &packet(8, 501, 160, &[1; 160]), 0, &mut out);
    let numbers: Vec<u16> = sent(&mut out).iter().map(|(header, _)| header.seq).collect();
    assert_eq!(numbers, [100, 101]);
}

/// A packet from there at this time; whether it is heard.
fn comes(port: &mut Port, from: &str, packet: &[u8], ms: u64, out: &mut Outbox) -> bool {
    port.handle(&mut packet.to_vec(), address(from), Component::Rtp, ms * MS, out).is_some()
}

#[test]
fn an_expected_party_is_heard_before_it_describes_itself_and_nothing_is_sent_to_it() {
    let (mut a, mut desk, mut out) = (fresh(1), port(2, connect(Law::Pcma)), Outbox::default());
    let sound = |seq: u16| packet(8, seq, 160 * u32::from(seq), &[1; 160]);
    assert!(!comes(&mut a, "192.0.2.1:7000", &sound(1), 0, &mut out), "nobody was offered this port");
    a.expect(address(PARTY).ip());
    assert!(!comes(&mut a, "192.0.2.9:7000", &sound(1), 0, &mut out), "a stranger");
    assert!(events(&mut a).is_empty());
    for (kind, seq, heard) in [(8, 2, true), (0, 3, true), (13, 4, true), (101, 5, false), (96, 6, false)] {
        assert_eq!(
            comes(&mut a, "192.0.2.1:7000", &packet(kind, seq, 0, &[1; 160]), 20, &mut out),
            heard,
            "{kind}"
        );
    }
    assert_eq!(
        events(&mut a),
        [Event::Connected { port: PortId(1) }, Event::FirstPacket { port: PortId(1) }]
    );
    // One source only, and the stranger moves nothing.
    assert!(!comes(&mut a, "192.0.2.9:7000", &sound(7), 40, &mut out));
    assert!(!comes(&mut a, "192.0.2.1:7002", &sound(7), 40, &mut out));
    assert!(comes(&mut a, "192.0.2.1:7000", &sound(7), 40, &mut out));
    // What the operator says, tones and reports stay here.
    carry(&mut desk, &mut a, &sound(8), 60 * MS, &mut out);
    a.play(Arc::new(Track::new(&[9_000; 320])), true, 44, 60 * MS);
    run(&mut a, 6_000 * MS, &mut out);
    assert_eq!(out.len(), 0);
}

#[test]
fn a_description_that_names_another_address_or_law_aims_the_expecting_port_anew() {
    let (mut a, mut out) = (fresh(1), Outbox::default());
    a.expect(IpAddr::from([198, 51, 100, 7]));
    let sound = |seq: u16| packet(8, seq, 160 * u32::from(seq), &[1; 160]);
    assert!(comes(&mut a, "198.51.100.7:7000", &sound(1), 0, &mut out));
    a.connect(connect(Law::Pcmu), 100 * MS);
    assert!(comes(&mut a, PARTY, &packet(0, 900, 0, &[1; 160]), 120, &mut out));
    assert!(!comes(&mut a, "198.51.100.7:7000", &sound(2), 140, &mut out), "its place is known now");
    // A change of the INVITE's way comes too late to open the port to another address.
    a.expect(IpAddr::from([198, 51, 100, 8]));
    assert!(!comes(&mut a, "198.51.100.8:7000", &sound(3), 2_000, &mut out));
    a.press("1", 2_000 * MS);
    let frames = run(&mut a, 2_040 * MS, &mut out);
    assert!(!frames.is_empty(), "now it is spoken to");
}

#[test]
fn a_stranger_is_neither_heard_nor_answered() {
    let (mut a, mut out) = (port(1, connect(Law::Pcma)), Outbox::default());
    for from in ["192.0.2.9:4000", "198.51.100.1:5060"] {
        let mut bytes = packet(8, 500, 0, &[1; 160]);
        assert_eq!(a.handle(&mut bytes, address(from), Component::Rtp, 0, &mut out), None);
    }
    assert_eq!((out.counts.stray, out.len()), (2, 0));
    assert!(events(&mut a).is_empty());
}

#[test]
fn our_own_packets_that_come_back_are_not_heard() {
    let (mut a, mut out) = (port(1, connect(Law::Pcma)), Outbox::default());
    let mut bytes = packet(8, 500, 0, &[1; 160]);
    bytes[8..12].copy_from_slice(&1_001u32.to_be_bytes());
    assert_eq!(a.handle(&mut bytes, address(PARTY), Component::Rtp, 0, &mut out), None);
    assert_eq!(out.counts.unwanted, 1);
}

#[test]
fn stun_and_dtls_on_a_plain_port_and_rubbish_are_counted() {
    let (mut a, mut out) = (port(1, connect(Law::Pcma)), Outbox::default());
    for mut bytes in [vec![0, 1, 0, 0], vec![22, 254, 253], vec![200, 1], vec![], vec![128, 8, 0]] {
        assert_eq!(a.handle(&mut bytes, address(PARTY), Component::Rtp, 0, &mut out), None);
    }
    assert_eq!((out.counts.malformed, out.len()), (5, 0));
}

#[test]
fn a_prompt_wins_over_the_bridge_and_the_line_goes_on_behind_it() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    carry(&mut a, &mut b, &packet(8, 500, 0, &[1; 160]), 0, &mut out);
    sent(&mut out);
    b.play(Arc::new(Track::new(&[9_000; 320])), false, 44, 20 * MS);
    carry(&mut a, &mut b, &packet(8, 501, 160, &[1; 160]), 21 * MS, &mut out);
    assert!(sent(&mut out).is_empty());
    let prompt = run(&mut b, 60 * MS, &mut out);
    assert_eq!(prompt.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [20 * MS, 40 * MS]);
    assert_eq!(prompt.iter().map(|(_, header, _)| header.seq).collect::<Vec<_>>(), [101, 102]);
    assert!(prompt[0].1.marker && !prompt[1].1.marker);
    assert!(decode(Law::Pcma, prompt[1].2[159]) > 8_000);
    assert!(events(&mut b).contains(&Event::PlayEnded { port: PortId(2), token: 44 }));
    carry(&mut a, &mut b, &packet(8, 503, 480, &[1; 160]), 60 * MS, &mut out);
    let (header, _) = sent(&mut out).remove(0);
    assert_eq!((header.seq, header.ts, header.marker), (103, 5_000 + 480, true));
}

#[test]
fn a_repeating_tone_is_425_hz_at_20_ms_until_it_is_stopped() {
    let (mut a, mut out) = (port(1, connect(Law::Pcmu)), Outbox::default());
    let cycle = crate::media::tone::cycle(&crate::media::command::Sound::Ringback).unwrap();
    a.play(Arc::new(Track::new(&cycle)), true, 1, 0);
    let frames = run(&mut a, 999 * MS, &mut out);
    assert_eq!(frames.len(), 50);
    let sound: Vec<i16> =
        frames.iter().flat_map(|(_, _, octets)| octets).map(|octet| decode(Law::Pcmu, *octet)).collect();
    assert!(strength(&sound, 425.0) > 0.15);
    let steps: Vec<u32> = frames.windows(2).map(|pair| pair[1].1.ts - pair[0].1.ts).collect();
    assert!(steps.iter().all(|step| *step == 160));
    assert_eq!(run(&mut a, 9_999 * MS, &mut out).len(), 450);
    a.stop();
    // After the tone: a pause, then comfort silence.
    let rest = run(&mut a, 10_500 * MS, &mut out);
    assert!(
        rest.iter().all(|(at, _, octets)| *at >= 10_180 * MS && octets.iter().all(|octet| *octet == 0xff))
    );
}

#[test]
fn digits_of_ours_are_events_with_three_ends_and_ninety_seconds_of_talk_follow_in_one_line() {
    let (mut a, mut out) = (port(1, connect(Law::Pcma)), Outbox::default());
    a.press("1#", 0);
    let got = run(&mut a, 299 * MS, &mut out);
    let events: Vec<(u32, Telephone)> = got
        .iter()
        .filter(|(_, header, _)| header.payload_type == 101)
        .map(|(_, header, payload)| (header.ts, Telephone::read(payload).unwrap()))
        .collect();
    assert_eq!(events.len(), 2 * 7);
    assert_eq!(events.iter().filter(|(_, event)| event.end).count(), 6);
    assert!(events[..7].iter().all(|(ts, event)| *ts == events[0].0 && event.code == 1));
    assert!(events[7..].iter().all(|(ts, event)| *ts == events[7].0 && event.code == 11));
    assert!(events[7].0 - events[0].0 >= 8 * 140, "the clock of the line runs through the digit");
    let numbers: Vec<u16> = got.iter().map(|(_, header, _)| header.seq).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn a_held_party_hears_nothing_and_what_plays_waits() {
    let mut held = connect(Law::Pcma);
    held.send = false;
    let (mut a, mut out) = (port(1, held), Outbox::default());
    a.play(Arc::new(Track::new(&[9_000; 160])), false, 7, 0);
    assert!(run(&mut a, 1_000 * MS, &mut out).is_empty());
    a.connect(connect(Law::Pcma), 1_000 * MS);
    let frames = run(&mut a, 1_019 * MS, &mut out);
    assert_eq!(frames.len(), 1);
    assert!(events(&mut a).contains(&Event::PlayEnded { port: PortId(1), token: 7 }));
}

#[test]
fn comfort_silence_begins_after_a_pause_and_ends_with_the_first_sound() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    carry(&mut a, &mut b, &packet(8, 500, 0, &[1; 160]), 0, &mut out);
    sent(&mut out);
    let silence = run(&mut b, 1_000 * MS, &mut out);
    assert!((35..=40).contains(&silence.len()), "{}", silence.len());
    assert!(silence[0].0 > 200 * MS && silence[0].0 <= 310 * MS);
    carry(&mut a, &mut b, &packet(8, 501, 8_000, &[1; 160]), 1_001 * MS, &mut out);
    assert_eq!(sent(&mut out).len(), 1);
    assert!(run(&mut b, 1_200 * MS, &mut out).is_empty());
}

#[test]
fn a_silent_party_is_named_once_and_so_is_its_return() {
    let (mut a, mut out) = (port(1, connect(Law::Pcma)), Outbox::default());
    run(&mut a, 2_500 * MS, &mut out);
    let silent = Event::Silent { port: PortId(1), flow: Flow::In, cause: "no packets".into() };
    assert_eq!(events(&mut a), [silent]);
    let mut bytes = packet(8, 500, 0, &[1; 160]);
    a.handle(&mut bytes, address(PARTY), Component::Rtp, 2_600 * MS, &mut out);
    run(&mut a, 2_800 * MS, &mut out);
    let got = events(&mut a);
    assert!(got.contains(&Event::Recovered { port: PortId(1), flow: Flow::In }), "{got:?}");
    run(&mut a, 13_000 * MS, &mut out);
    assert!(events(&mut a).contains(&Event::Dead { port: PortId(1) }));
}

#[test]
fn reports_go_both_ways_and_give_round_trip_and_loss() {
    let (mut a, mut out) = (port(1, connect(Law::Pcma)), Outbox::default());
    let mut report = None;
    let mut now_us = 0;
    while report.is_none() {
        now_us = a.next_timeout();
        a.handle_timeout(now_us, &mut out);
        report =
            out.parcels().find(|(parcel, _)| parcel.component == Component::Rtcp).map(|(parcel, bytes)| {
                assert_eq!(parcel.to, address("192.0.2.1:4001"));
                bytes.to_vec()
            });
        out.clear();
        assert!(now_us < 6_000 * MS);
    }
    let ours = rtcp::read(&report.unwrap(), 0).unwrap();
    assert_eq!(ours.ssrc, 1_001);
    let block = rtcp::Block {
        ssrc: 1_001,
        fraction_lost: 64,
        last_sr: ours.middle_ntp.unwrap(),
        delay: 0,
        ..rtcp::Block::default()
    };
    let mut answer = [0; rtcp::MAX_COMPOUND];
    let len = rtcp::write(&mut answer, 7, None, Some(&block), "gw").unwrap();
    a.handle(&mut answer[..len], address("192.0.2.1:4001"), Component::Rtcp, now_us + 30 * MS, &mut out);
    a.handle(&mut packet(8, 1, 0, &[1; 160]), address(PARTY), Component::Rtp, now_us, &mut out);
    a.close(now_us, &mut out);
    let last = events(&mut a).pop().unwrap();
    let Event::Quality { quality, .. } = last else { panic!("{last:?}") };
    assert!((quality.rtt_ms - 30.0).abs() < 0.1 && (quality.loss_out - 0.25).abs() < 0.001, "{quality:?}");
}

#[test]
fn a_goodbye_in_rtcp_ends_nothing() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    carry(&mut a, &mut b, &packet(8, 500, 0, &[1; 160]), 0, &mut out);
    let mut bye = [0; 64];
    let len = rtcp::write(&mut bye, 7, None, None, "gw").unwrap();
    bye[len..len + 8].copy_from_slice(&[0x81, 203, 0, 1, 0, 0, 0, 7]);
    a.handle(&mut bye[..len + 8], address("192.0.2.1:4001"), Component::Rtcp, 1, &mut out);
    carry(&mut a, &mut b, &packet(8, 501, 160, &[1; 160]), 20 * MS, &mut out);
    assert_eq!(sent(&mut out).len(), 2);
}

#[test]
fn progress_is_told_only_by_ports_that_moved() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    a.progress();
    b.progress();
    carry(&mut a, &mut b, &packet(8, 500, 0, &[1; 160]), 0, &mut out);
    assert_eq!(a.progress().unwrap().received, Some((7, 500)));
    let progress = b.progress().unwrap();
    assert_eq!((progress.sent_index, progress.sent_ts), (100, 5_000));
    assert_eq!(progress.address, Some(address(PARTY)));
    assert_eq!((a.progress(), b.progress()), (None, None));
}

#[test]
fn a_caller_who_changes_in_mid_call_is_heard_at_once() {
    // Another SSRC, a jump of sequence and clock, markers, CSRCs and an extension.
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcma)), Outbox::default());
    carry(&mut a, &mut b, &packet(8, 500, 0, &[1; 160]), 0, &mut out);
    let mut other = packet(8, 40_000, 3_000_000_000, &[0; 60 + 4]);
    other[0] = 0x80 | 0x10 | 15;
    other[8..12].copy_from_slice(&99u32.to_be_bytes());
    other.extend_from_slice(&[2; 160]);
    carry(&mut a, &mut b, &other, 20 * MS, &mut out);
    let got = sent(&mut out);
    assert_eq!(got[1].1, [2; 160]);
    assert_eq!((got[1].0.seq, got[1].0.ts, got[1].0.marker), (101, 5_160, true));
}

#[test]
fn no_datagram_whatever_hurts_a_port() {
    let (mut a, mut b, mut out) =
        (port(1, connect(Law::Pcma)), port(2, connect(Law::Pcmu)), Outbox::default());
    let mut state = 88_172_645_463_325_252u64;
    let mut dice = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let begins =
        [[128, 8], [144, 101], [175, 8], [160, 13], [128, 200], [129, 201], [159, 201], [0, 1], [22, 254]];
    for round in 0..20_000u64 {
        let len = (dice() % 200) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| dice() as u8).collect();
        for (to, octet) in bytes.iter_mut().zip(begins[(dice() % begins.len() as u64) as usize]) {
            *to = octet;
        }
        carry(&mut a, &mut b, &bytes, round * MS, &mut out);
        for port in [&mut a, &mut b] {
            if port.next_timeout() <= round * MS {
                port.handle_timeout(round * MS, &mut out);
            }
            events(port);
        }
        if out.is_nearly_full() {
            assert!(out.parcels().all(|(parcel, _)| parcel.to.ip() == address(PARTY).ip()));
            out.clear();
        }
    }
    assert!(out.counts.relayed > 100 && out.counts.malformed > 100);
}

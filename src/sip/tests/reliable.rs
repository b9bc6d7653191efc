//! Provisional answers that must arrive (RFC 3262), from both sides.

use bytes::Bytes;

use super::hand::{Hand, reply, udp, within, ws};
use super::world::{Badness, Side, World, bye, sdp};
use crate::sip::Path;
use crate::sip::message::{Message, Method, Name, Request, Response};
use crate::sip::{Command, Event};
use crate::terms::LegId;

const GATEWAY: &str = "203.0.113.9:5062";
const PEER: &str = "192.0.2.70:5060";
const OFFER: &str = "v=0 theirs\r\n";

fn invited(hand: &mut Hand, branch: &str, wish: &str, body: &str) -> LegId {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let text = format!(
        "INVITE sip:+380441234567@tandem.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK{branch};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+380671234567@tandem.test>;tag=g{branch}\r\nTo: <sip:+380441234567@tandem.test>\r\n\
         Call-ID: call-{branch}\r\nCSeq: 1 INVITE\r\nContact: <sip:peer@192.0.2.70:5060>\r\n{kind}{wish}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(hand.ask(udp(PEER), &text).code, 100);
    let Some(Event::Invited(invited)) = hand.events.last() else { panic!("{:?}", hand.events) };
    hand.sent.clear();
    invited.leg
}

fn responses(hand: &Hand) -> Vec<Response> {
    let response = |(_, message): &(Path, Message)| match message {
        Message::Response(response) => Some(response.clone()),
        Message::Request(_) => None,
    };
    hand.sent.iter().filter_map(response).collect()
}

fn told(hand: &mut Hand, command: Command) -> Vec<Response> {
    hand.sent.clear();
    hand.tell(command);
    responses(hand)
}

/// A PRACK for `ringing`, its number moved by `off`.
fn prack(ringing: &Response, cseq: u32, off: u32, body: &str) -> String {
    let rseq = ringing.headers.rseq().unwrap().unwrap() + off;
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    within(ringing, "PRACK", cseq, &format!("RAck: {rseq} 1 INVITE\r\n{kind}\r\n{body}"))
        .replace("SIP/2.0/WS x.invalid", "SIP/2.0/UDP 10.0.0.9:5060")
}

#[test]
fn ringing_that_must_arrive_is_repeated_until_its_prack_and_a_wrong_one_gets_481() {
    for wish in ["Require: 100rel\r\n", "Supported: timer, 100rel\r\n"] {
        let mut hand = Hand::new();
        let leg = invited(&mut hand, "a", wish, OFFER);
        let ringing = told(&mut hand, Command::Ring { leg }).pop().unwrap();
        assert!(ringing.code == 180 && ringing.headers.lists(&Name::Require, "100rel"), "{ringing:?}");
        hand.sent.clear();
        hand.run(3_600);
        // After 0.5, 1.5 and 3.5 s.
        let repeats = responses(&hand);
        assert_eq!(repeats.len(), 3);
        assert!(repeats.iter().all(|one| *one == ringing));
        for wrong in [
            prack(&ringing, 2, 1, ""),
            prack(&ringing, 3, 0, "").replace("1 INVITE", "2 INVITE"),
            prack(&ringing, 4, 0, "").replace("1 INVITE\r\n", "1 UPDATE\r\n"),
        ] {
            assert_eq!(hand.ask(udp(PEER), &wrong).code, 481, "{wrong}");
        }
        assert_eq!(hand.ask(udp(PEER), &prack(&ringing, 5, 0, "")).code, 200);
        assert_eq!(hand.ask(udp(PEER), &prack(&ringing, 6, 0, "")).code, 481, "it was confirmed before");
        hand.sent.clear();
        hand.run(60_000);
        assert!(hand.sent.is_empty(), "{:?}", hand.sent);
        assert_eq!(
            told(&mut hand, Command::Answer { leg, sdp: Bytes::from_static(b"v=0\r\n") })[0].code,
            200
        );
    }
}

#[test]
fn a_caller_who_knows_no_prack_gets_plain_ringing_once() {
    let mut hand = Hand::new();
    let leg = invited(&mut hand, "b", "Supported: timer\r\n", OFFER);
    let ringing =
        told(&mut hand, Command::Progress { leg, sdp: Bytes::from_static(b"v=0\r\n") }).pop().unwrap();
    assert_eq!(
        (ringing.code, ringing.headers.has(&Name::Require), ringing.headers.has(&Name::RSeq)),
        (183, false, false)
    );
    hand.sent.clear();
    hand.run(60_000);
    assert!(hand.sent.is_empty());
}

#[test]
fn a_second_one_and_an_answer_that_hangs_on_the_first_wait_for_its_prack() {
    let mut hand = Hand::new();
    let leg = invited(&mut hand, "c", "Require: 100rel\r\n", OFFER);
    let sdp = Bytes::from_static(b"v=0 sound\r\n");
    let first = told(&mut hand, Command::Ring { leg }).pop().unwrap();
    assert!(told(&mut hand, Command::Progress { leg, sdp: sdp.clone() }).is_empty());
    hand.say(udp(PEER), &prack(&first, 2, 0, ""));
    let [ok, second] = &responses(&hand)[..] else { panic!("{:?}", hand.sent) };
    assert_eq!((ok.code, second.code), (200, 183));
    assert_eq!(second.headers.rseq().unwrap(), first.headers.rseq().unwrap().map(|rseq| rseq + 1));
    assert!(
        told(&mut hand, Command::Answer { leg, sdp: sdp.clone() }).is_empty(),
        "the description is not confirmed"
    );
    hand.say(udp(PEER), &prack(second, 3, 0, ""));
    let codes: Vec<u16> = responses(&hand).iter().map(|one| one.code).collect();
    assert_eq!(codes, [200, 200]);
    let answer = responses(&hand).pop().unwrap();
    assert_eq!((answer.headers.cseq().unwrap().1, &answer.body), (Method::Invite, &sdp));
    // Ringing without a description does not hold the answer up, and its PRACK may come late.
    let leg = invited(&mut hand, "d", "Require: 100rel\r\n", OFFER);
    let ringing = told(&mut hand, Command::Ring { leg }).pop().unwrap();
    assert_eq!(told(&mut hand, Command::Answer { leg, sdp })[0].code, 200);
    assert_eq!(hand.ask(udp(PEER), &prack(&ringing, 2, 0, "")).code, 200);
}

#[test]
fn ringing_that_is_never_confirmed_ends_the_call_after_32_seconds() {
    let mut hand = Hand::new();
    let leg = invited(&mut hand, "e", "Require: 100rel\r\n", OFFER);
    told(&mut hand, Command::Progress { leg, sdp: Bytes::from_static(b"v=0\r\n") });
    hand.run(31_900);
    assert!(responses(&hand).iter().all(|one| one.code == 183));
    hand.run(200);
    assert_eq!(responses(&hand).pop().unwrap().code, 504);
    assert!(matches!(hand.events.last(), Some(Event::Ended { by_peer: true, .. })));
    hand.run(40_000);
    assert_eq!(hand.sip.counts(), crate::sip::Counts::default());
}

#[test]
fn an_offer_in_a_prack_is_answered_in_its_200() {
    let mut hand = Hand::new();
    let leg = invited(&mut hand, "f", "Supported: 100rel\r\n", OFFER);
    let sound =
        told(&mut hand, Command::Progress { leg, sdp: Bytes::from_static(b"v=0 1\r\n") }).pop().unwrap();
    assert!(hand.say(udp(PEER), &prack(&sound, 2, 0, "v=0 other\r\n")).is_empty());
    assert_eq!(
        hand.events.last(),
        Some(&Event::Offered { leg, sdp: Some(Bytes::from_static(b"v=0 other\r\n")) })
    );
    let sdp = Bytes::from_static(b"v=0 2\r\n");
    let done = told(&mut hand, Command::AnswerChange { leg, sdp: sdp.clone() });
    assert_eq!((done[0].code, done[0].headers.cseq().unwrap().1, &done[0].body), (200, Method::Prack, &sdp));
    // Now that offer and answer have passed, UPDATE may change them before the answer (RFC 3311).
    let update = within(&sound, "UPDATE", 3, "Content-Type: application/sdp\r\n\r\nv=0 third\r\n")
        .replace("SIP/2.0/WS x.invalid", "SIP/2.0/UDP 10.0.0.9:5060");
    assert!(hand.say(udp(PEER), &update).is_empty());
    let done = told(&mut hand, Command::AnswerChange { leg, sdp: Bytes::from_static(b"v=0 3\r\n") });
    assert_eq!((done[0].code, done[0].headers.cseq().unwrap().1), (200, Method::Update));
}

#[test]
fn our_offer_in_a_provisional_answer_is_answered_in_the_prack_and_not_made_again() {
    let mut hand = Hand::new();
    let leg = invited(&mut hand, "g", "Supported: 100rel\r\n", "");
    let ours = Bytes::from_static(b"v=0 ours\r\n");
    let sound = told(&mut hand, Command::Progress { leg, sdp: ours.clone() }).pop().unwrap();
    assert_eq!((sound.code, &sound.body), (183, &ours));
    assert_eq!(hand.ask(udp(PEER), &prack(&sound, 2, 0, "v=0 yours\r\n")).code, 200);
    assert_eq!(
        hand.events.last(),
        Some(&Event::PreAnswered { leg, sdp: Bytes::from_static(b"v=0 yours\r\n") })
    );
    let answer = told(&mut hand, Command::Answer { leg, sdp: ours }).pop().unwrap();
    assert_eq!((answer.code, answer.body.len()), (200, 0));
    let ack = within(&answer, "ACK", 1, "").replace("SIP/2.0/WS x.invalid", "SIP/2.0/UDP 10.0.0.9:5060");
    assert!(hand.say(udp(PEER), &ack).is_empty());
    assert_eq!(hand.events.last(), Some(&Event::Confirmed { leg, sdp: None }));
    // To a caller without PRACK an offer cannot be made before the answer: he only hears that it rings.
    let leg = invited(&mut hand, "h", "", "");
    let ringing =
        told(&mut hand, Command::Progress { leg, sdp: Bytes::from_static(b"v=0\r\n") }).pop().unwrap();
    assert_eq!((ringing.code, ringing.body.len()), (180, 0));
}

#[test]
fn after_a_take_over_the_old_number_goes_on_and_no_new_one_is_given() {
    let mut hand = Hand::new();
    let leg = invited(&mut hand, "i", "Require: 100rel\r\n", OFFER);
    let ringing = told(&mut hand, Command::Ring { leg }).pop().unwrap();
    hand.die();
    hand.sent.clear();
    hand.run(600);
    assert_eq!(responses(&hand), std::slice::from_ref(&ringing));
    assert_eq!(hand.ask(udp(PEER), &prack(&ringing, 2, 0, "")).code, 200);
    let sdp = Bytes::from_static(b"v=0\r\n");
    assert!(told(&mut hand, Command::Progress { leg, sdp: sdp.clone() }).is_empty());
    // The predecessor may have sent the next one and died before it could write it down.
    assert_eq!(hand.ask(udp(PEER), &prack(&ringing, 3, 1, "")).code, 200);
    assert_eq!(told(&mut hand, Command::Answer { leg, sdp })[0].code, 200);
}

/// What a gateway says while it rings.
fn ringing(hand: &mut Hand, invite: &Request, code: u16, tag: &str, rseq: u32, body: &str) -> Vec<Request> {
    let more = format!("Require: 100rel\r\nRSeq: {rseq}\r\nContact: <sip:gw-{tag}@203.0.113.9:5062>\r\n");
    hand.say(udp(GATEWAY), &reply(invite, code, tag, &more, body));
    hand.requests(&Method::Prack).into_iter().map(|(_, prack)| prack).collect()
}

#[test]
fn each_reliable_answer_gets_its_prack_in_order_and_others_are_ignored() {
    let mut hand = Hand::new();
    let (leg, invite) = hand.call_gsm(udp(GATEWAY));
    assert!(invite.headers.lists(&Name::Supported, "100rel") && !invite.headers.has(&Name::Require));
    let pracks = ringing(&mut hand, &invite, 183, "t", 5, "v=0 early\r\n");
    assert_eq!(pracks[0].headers.text(&Name::RAck), Some("5 1 INVITE"));
    assert_eq!(&pracks[0].uri[..], b"sip:gw-t@203.0.113.9:5062");
    assert_eq!(
        hand.events.last(),
        Some(&Event::EarlyMedia { leg, sdp: Bytes::from_static(b"v=0 early\r\n") })
    );
    let before = hand.events.len();
    assert!(ringing(&mut hand, &invite, 183, "t", 5, "v=0 early\r\n").is_empty(), "a repeat");
    assert!(ringing(&mut hand, &invite, 180, "t", 7, "").is_empty(), "one is missing before it");
    assert!(ringing(&mut hand, &invite, 180, "t", 4, "").is_empty(), "an old one");
    assert_eq!(hand.events.len(), before);
    let pracks = ringing(&mut hand, &invite, 180, "t", 6, "");
    assert_eq!(pracks[0].headers.text(&Name::RAck), Some("6 1 INVITE"));
    assert_eq!(pracks[0].headers.cseq().unwrap().0, 3);
    assert_eq!(hand.events.last(), Some(&Event::Rang { leg }));
    // A gateway that refuses its own PRACK does not cost the call.
    hand.say(udp(GATEWAY), &reply(&pracks[0], 481, "t", "", ""));
    hand.say(udp(GATEWAY), &reply(&invite, 200, "t", "Contact: <sip:gw@203.0.113.9:5062>\r\n", ""));
    assert_eq!(hand.events.last(), Some(&Event::Answered { leg, sdp: Bytes::from_static(b"v=0 early\r\n") }));
}

#[test]
fn a_change_by_update_before_the_answer_is_taken_once_offer_and_answer_have_passed() {
    let mut hand = Hand::new();
    let (leg, invite) = hand.call_gsm(udp(GATEWAY));
    let sdp = "Content-Type: application/sdp\r\nContact: <sip:gw@203.0.113.9:5062>\r\n";
    let update = |tag: &str, cseq: u32| {
        let to = String::from_utf8_lossy(invite.headers.first(&Name::From).unwrap()).into_owned();
        let from = String::from_utf8_lossy(invite.headers.first(&Name::To).unwrap()).into_owned();
        format!(
            "UPDATE sip:tandem@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5062;branch=z9hG4bKu{cseq};rport\r\nMax-Forwards: 70\r\n\
             From: {from};tag={tag}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} UPDATE\r\n{sdp}Content-Length: 12\r\n\r\nv=0 other\r\n\r\n",
            invite.headers.call_id().unwrap()
        )
    };
    hand.say(udp(GATEWAY), &reply(&invite, 183, "t", sdp, "v=0 early\r\n"));
    assert_eq!(
        hand.ask(udp(GATEWAY), &update("t", 1)).code,
        491,
        "an unreliable description settles nothing"
    );
    ringing(&mut hand, &invite, 183, "t", 1, "v=0 early\r\n");
    assert!(hand.say(udp(GATEWAY), &update("t", 2)).is_empty());
    assert!(matches!(hand.events.last(), Some(Event::Offered { leg: one, sdp: Some(_) }) if *one == leg));
    assert_eq!(
        told(&mut hand, Command::AnswerChange { leg, sdp: Bytes::from_static(b"v=0\r\n") })[0].code,
        200
    );
}

#[test]
fn a_browser_is_never_asked_for_prack() {
    let mut hand = Hand::new();
    assert_eq!(hand.register_as(ws(1), "op1", "secret", 600, 1).code, 200);
    let (_, _, invite) = hand.call_op1();
    assert!(!invite.headers.lists(&Name::Supported, "100rel") && !invite.headers.has(&Name::Require));
}

#[test]
fn two_machines_confirm_each_others_ringing_over_a_bad_wire_and_over_deaths() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.badness = Badness { loss: if seed < 10 { 0 } else { 20 }, doubling: 15, jitter_ms: 60 };
        world.mortal = seed % 4 == 3;
        let a = world.call();
        for _ in 0..100 {
            world.run(100);
            if world.incoming(Side::B).is_some() {
                break;
            }
        }
        if world.ends(Side::A, a) == 1 {
            continue;
        }
        let Some(b) = world.incoming(Side::B) else { continue };
        world.tell(Side::B, Command::Progress { leg: b, sdp: sdp("early") });
        world.tell(Side::B, Command::Ring { leg: b });
        world.tell(Side::B, Command::Answer { leg: b, sdp: sdp("answer") });
        world.run(45_000);
        let answers = world.count(Side::A, |event| matches!(event, Event::Answered { .. }));
        assert_eq!(answers, 1, "seed {seed}\n{}", world.ladder.join("\n"));
        assert!(world.lines("PRACK") >= 1 || world.mortal, "seed {seed}");
        world.tell(Side::A, Command::HangUp { leg: a, cause: bye() });
        world.run(45_000);
        assert_eq!((world.ends(Side::A, a), world.ends(Side::B, b)), (1, 1));
        world.assert_clean();
    }
}

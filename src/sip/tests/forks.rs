//! One INVITE, several phones: early dialogs, late answers, and which sound is heard.

use bytes::Bytes;

use super::hand::{Hand, reply, udp};
use crate::sip::message::{Message, Method, Name, Request};
use crate::sip::{Event, Path};

const GATEWAY: &str = "203.0.113.9:5062";

/// What the fork `tag` answers; what we send then.
fn says(hand: &mut Hand, invite: &Request, code: u16, tag: &str, more: &str, body: &str) -> Vec<Request> {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let more = format!("Contact: <sip:{tag}@203.0.113.9:5062>\r\n{kind}{more}");
    let sent = hand.say(udp(GATEWAY), &reply(invite, code, tag, &more, body));
    let request = |(_, message): &(Path, Message)| match message {
        Message::Request(request) => Some(request.clone()),
        Message::Response(_) => None,
    };
    sent.iter().filter_map(request).collect()
}

fn tag_of(request: &Request) -> String {
    request.headers.to().unwrap().tag().unwrap_or_default().to_owned()
}

fn sound(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn of_two_answers_one_is_kept_and_the_other_gets_ack_and_bye() {
    let mut hand = Hand::new();
    let (leg, invite) = hand.call_gsm(udp(GATEWAY));
    says(&mut hand, &invite, 180, "a", "", "");
    says(&mut hand, &invite, 180, "b", "", "");
    let acks = says(&mut hand, &invite, 200, "b", "", "v=0 b\r\n");
    assert_eq!((acks[0].method.clone(), tag_of(&acks[0])), (Method::Ack, "b".into()));
    let sent = says(&mut hand, &invite, 200, "a", "", "v=0 a\r\n");
    let methods: Vec<_> = sent.iter().map(|one| (one.method.clone(), tag_of(one))).collect();
    assert_eq!(methods, [(Method::Ack, "a".to_owned()), (Method::Bye, "a".to_owned())]);
    assert_eq!(&sent[1].uri[..], b"sip:a@203.0.113.9:5062");
    hand.say(udp(GATEWAY), &reply(&sent[1], 200, "", "", ""));
    // Only the one that was kept is a call.
    let answers = hand.events.iter().filter(|event| matches!(event, Event::Answered { .. })).count();
    assert_eq!(answers, 1);
    assert!(hand.events.contains(&Event::Answered { leg, sdp: sound("v=0 b\r\n") }));
    hand.run(10_000);
    assert!(!hand.events.iter().any(|event| matches!(event, Event::Ended { .. } | Event::Failed { .. })));
    let again = says(&mut hand, &invite, 200, "b", "", "v=0 b\r\n");
    assert_eq!(again, acks, "its ACK was lost");
}

#[test]
fn the_sound_of_one_phone_is_never_taken_for_anothers() {
    let mut hand = Hand::new();
    let (leg, invite) = hand.call_gsm(udp(GATEWAY));
    says(&mut hand, &invite, 183, "a", "", "v=0 a\r\n");
    says(&mut hand, &invite, 183, "b", "", "v=0 b\r\n");
    says(&mut hand, &invite, 183, "a", "", "v=0 a\r\n");
    let early: Vec<_> =
        hand.events.iter().filter(|event| matches!(event, Event::EarlyMedia { .. })).collect();
    let heard = |text| Event::EarlyMedia { leg, sdp: sound(text) };
    assert_eq!(early, [&heard("v=0 a\r\n"), &heard("v=0 b\r\n")], "a repeat moves nothing");
    // The answer without a description is that of the phone which gave one before: not the newest.
    says(&mut hand, &invite, 200, "a", "", "");
    assert_eq!(hand.events.last(), Some(&Event::Answered { leg, sdp: sound("v=0 a\r\n") }));
    // Neither a late 180 of the same nor one of the other moves the call back.
    let before = hand.events.len();
    for tag in ["a", "b"] {
        assert!(says(&mut hand, &invite, 180, tag, "", "").is_empty());
        assert!(says(&mut hand, &invite, 183, tag, "", "v=0 late\r\n").is_empty());
    }
    assert_eq!(hand.events.len(), before);
}

#[test]
fn a_phone_without_any_description_does_not_answer_with_anothers() {
    let mut hand = Hand::new();
    let (_, invite) = hand.call_gsm(udp(GATEWAY));
    says(&mut hand, &invite, 183, "a", "", "v=0 a\r\n");
    let sent = says(&mut hand, &invite, 200, "b", "", "");
    let methods: Vec<_> = sent.iter().map(|one| (one.method.clone(), tag_of(one))).collect();
    assert_eq!(methods, [(Method::Ack, "b".to_owned()), (Method::Bye, "b".to_owned())]);
    assert!(matches!(hand.events.last(), Some(Event::Failed { code: 488, .. })));
}

#[test]
fn an_answer_may_describe_its_sound_otherwise_than_the_ringing_did() {
    for tag in ["a", "b"] {
        let mut hand = Hand::new();
        let (leg, invite) = hand.call_gsm(udp(GATEWAY));
        says(&mut hand, &invite, 183, "a", "", "v=0 ring\r\n");
        says(&mut hand, &invite, 200, tag, "", "v=0 talk\r\n");
        assert_eq!(hand.events.last(), Some(&Event::Answered { leg, sdp: sound("v=0 talk\r\n") }));
    }
}

#[test]
fn each_fork_has_its_own_numbers_also_over_a_take_over() {
    let mut hand = Hand::new();
    let (leg, invite) = hand.call_gsm(udp(GATEWAY));
    let one = "Require: 100rel\r\nRSeq: 1\r\n";
    for (tag, dies) in [("a", false), ("b", true)] {
        let pracks = says(&mut hand, &invite, 183, tag, one, "v=0\r\n");
        assert_eq!((pracks.len(), tag_of(&pracks[0])), (1, tag.to_owned()));
        assert_eq!(pracks[0].headers.text(&Name::RAck), Some("1 1 INVITE"));
        if dies {
            hand.die();
        }
    }
    let two = "Require: 100rel\r\nRSeq: 2\r\n";
    let pracks = says(&mut hand, &invite, 180, "a", two, "");
    assert_eq!(tag_of(&pracks[0]), "a");
    assert!(says(&mut hand, &invite, 180, "b", one, "").is_empty(), "a repeat");
    says(&mut hand, &invite, 200, "b", "", "");
    assert_eq!(hand.events.last(), Some(&Event::Answered { leg, sdp: sound("v=0\r\n") }));
}

#[test]
fn one_phone_that_gives_up_leaves_the_others_ringing() {
    let mut hand = Hand::new();
    let (leg, invite) = hand.call_gsm(udp(GATEWAY));
    says(&mut hand, &invite, 180, "a", "", "");
    says(&mut hand, &invite, 180, "b", "", "");
    let text = |name: &Name| String::from_utf8_lossy(invite.headers.first(name).unwrap()).into_owned();
    let leaves = |tag: &str, cseq: u32| {
        format!(
            "BYE sip:tandem@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5062;branch=z9hG4bKy{tag};rport\r\nMax-Forwards: 70\r\n\
             From: {};tag={tag}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} BYE\r\nContent-Length: 0\r\n\r\n",
            text(&Name::To),
            text(&Name::From),
            text(&Name::CallId)
        )
    };
    assert_eq!(hand.ask(udp(GATEWAY), &leaves("a", 1)).code, 200);
    assert!(!hand.events.iter().any(|event| matches!(event, Event::Ended { .. })));
    assert_eq!(hand.ask(udp(GATEWAY), &leaves("nobody", 1)).code, 481);
    says(&mut hand, &invite, 200, "b", "", "v=0\r\n");
    assert_eq!(hand.events.last(), Some(&Event::Answered { leg, sdp: sound("v=0\r\n") }));
}

#[test]
fn forks_are_bounded_and_one_too_many_is_still_sent_away() {
    let mut hand = Hand::new();
    let (leg, invite) = hand.call_gsm(udp(GATEWAY));
    for number in 0..20 {
        says(&mut hand, &invite, 183, &format!("t{number}"), "", &format!("v=0 {number}\r\n"));
    }
    let early = hand.events.iter().filter(|event| matches!(event, Event::EarlyMedia { .. })).count();
    assert_eq!(early, 9, "the first and eight more");
    assert!(hand.dropped.contains(&"too many forks"));
    says(&mut hand, &invite, 200, "t19", "", "v=0 19\r\n");
    assert_eq!(hand.events.last(), Some(&Event::Answered { leg, sdp: sound("v=0 19\r\n") }));
}

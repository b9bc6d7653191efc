//! REFER, NOTIFY, Replaces and 302 on the wire.

use bytes::Bytes;

use super::hand::{Hand, reply, udp, within, ws};
use crate::sip::message::{Message, Method, Name, Request, Response};
use crate::sip::{Command, Event, Path, Way};
use crate::terms::LegId;

const GATEWAY: &str = "203.0.113.9:5062";

/// A REFER of the browser whose call `made` is.
fn refer(made: &Response, cseq: u32, target: &str) -> String {
    within(made, "REFER", cseq, &format!("Contact: <sip:op1@x.invalid;transport=ws>\r\n{target}"))
}

fn sent_requests(sent: &[(Path, Message)]) -> Vec<Request> {
    let request = |(_, message): &(Path, Message)| match message {
        Message::Request(request) => Some(request.clone()),
        Message::Response(_) => None,
    };
    sent.iter().filter_map(request).collect()
}

fn told(hand: &mut Hand, command: Command) -> Vec<(Path, Message)> {
    hand.sent.clear();
    hand.tell(command);
    hand.sent.clone()
}

fn referred(hand: &Hand) -> Option<(LegId, String, Option<LegId>)> {
    match hand.events.last() {
        Some(Event::Referred { leg, to, replaces }) => Some((*leg, to.clone(), *replaces)),
        _ => None,
    }
}

#[test]
fn a_refer_is_taken_with_202_and_told_what_became_of_it_by_notify() {
    let mut hand = Hand::new();
    let (leg, made) = hand.browser_call();
    let text = refer(&made, 7100, "Refer-To: <sip:%2B380671234567@tandem.test>\r\n");
    assert!(hand.say(ws(1), &text).is_empty());
    assert_eq!(referred(&hand), Some((leg, "+380671234567".to_owned(), None)));
    assert_eq!(hand.ask(ws(1), &refer(&made, 7101, "Refer-To: <sip:1@tandem.test>\r\n")).code, 491);
    let sent = told(&mut hand, Command::AnswerRefer { leg, code: 202 });
    assert!(matches!(&sent[0].1, Message::Response(response) if response.code == 202));
    let notify = sent_requests(&sent).pop().unwrap();
    assert_eq!(notify.method, Method::Notify);
    assert_eq!(notify.headers.text(&Name::Event), Some("refer;id=7100"));
    assert!(notify.headers.text(&Name::SubscriptionState).unwrap().starts_with("active;"));
    assert_eq!(&notify.body[..], b"SIP/2.0 100 Trying\r\n");
    let sent = told(&mut hand, Command::ReferProgress { leg, code: 486 });
    let last = sent_requests(&sent).pop().unwrap();
    assert_eq!(last.headers.text(&Name::SubscriptionState), Some("terminated;reason=noresource"));
    assert_eq!(&last.body[..], b"SIP/2.0 486 Busy Here\r\n");
    assert!(last.headers.cseq().unwrap().0 > notify.headers.cseq().unwrap().0);
    // It is over; the next one may come.
    assert!(told(&mut hand, Command::ReferProgress { leg, code: 200 }).is_empty());
    hand.say(ws(1), &refer(&made, 7102, "Refer-To: <tel:+380671234568>\r\n"));
    assert_eq!(referred(&hand), Some((leg, "+380671234568".to_owned(), None)));
    hand.die();
    let sent = told(&mut hand, Command::AnswerRefer { leg, code: 403 });
    assert!(sent.is_empty(), "the socket went with the process");
}

#[test]
fn a_refer_leads_nowhere_but_to_us() {
    let mut hand = Hand::new();
    let (_, made) = hand.browser_call();
    for (cseq, (target, code)) in [
        ("Refer-To: <sip:+380671234567@evil.example>\r\n", 403),
        ("Refer-To: <sip:+380671234567@169.254.169.254>\r\n", 403),
        ("Refer-To: <sip:127.0.0.1:22>\r\n", 403),
        ("Refer-To: <http://169.254.169.254/latest>\r\n", 416),
        ("Refer-To: <sip:tandem.test>\r\n", 403),
        ("", 400),
        ("Refer-To: <sip:1@tandem.test>\r\nRefer-To: <sip:2@tandem.test>\r\n", 400),
        ("Refer-To: <sip:1@tandem.test?Replaces=nobody%3Bto-tag%3Da%3Bfrom-tag%3Db>\r\n", 481),
        ("Refer-To: <sip:1@tandem.test?Replaces=nobody>\r\n", 400),
    ]
    .into_iter()
    .enumerate()
    {
        let cseq = u32::try_from(cseq).unwrap() + 7100;
        assert_eq!(hand.ask(ws(1), &refer(&made, cseq, target)).code, code, "{target}");
        assert_eq!(referred(&hand), None, "{target}");
    }
}

#[test]
fn a_stranger_refers_nobody() {
    let mut hand = Hand::new();
    let (_, made) = hand.browser_call();
    let text = refer(&made, 7100, "Refer-To: <sip:+380671234567@tandem.test>\r\n");
    assert_eq!(hand.ask(udp("198.51.100.66:5060"), &text).code, 481);
    let outside = text.split("To: ").next().unwrap().to_owned()
        + "To: <sip:1@tandem.test>\r\nCall-ID: none\r\nCSeq: 1 REFER\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(hand.ask(udp("198.51.100.66:5060"), &outside).code, 401);
    assert_eq!(referred(&hand), None);
}

/// `Replaces` of a call as its browser sees it: our tag is the far one.
fn replaces(made: &Response) -> String {
    let tag = |name: &Name| {
        let text = made.headers.first(name).unwrap();
        crate::sip::header::NameAddr::read(text).unwrap().tag().unwrap().to_owned()
    };
    format!("{};to-tag={};from-tag={}", made.headers.call_id().unwrap(), tag(&Name::To), tag(&Name::From))
}

#[test]
fn only_a_leg_of_ones_own_is_replaced() {
    let mut hand = Hand::new();
    let (leg, made) = hand.browser_call();
    let other = |user: &str, flow: u64, text: &str| {
        format!(
            "INVITE sip:1@tandem.test SIP/2.0\r\nVia: SIP/2.0/WS x.invalid;branch=z9hG4bKo{user}{flow}{}\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@tandem.test>;tag=o{user}\r\nTo: <sip:1@tandem.test>\r\nCall-ID: o{user}{flow}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:{user}@x.invalid;transport=ws>\r\nReplaces: {text}\r\nRequire: replaces\r\nContent-Length: 0\r\n\r\n",
            text.len()
        )
    };
    assert_eq!(hand.ask(ws(1), &other("op1", 1, "nobody;to-tag=a;from-tag=b")).code, 481);
    assert_eq!(hand.ask(ws(1), &other("op1", 1, "nobody")).code, 400);
    assert_eq!(hand.register_as(ws(2), "op2", "secret", 600, 1).code, 200);
    assert_eq!(hand.ask(ws(2), &other("op2", 2, &replaces(&made))).code, 481, "not his");
    assert_eq!(hand.ask(ws(1), &other("op1", 1, &replaces(&made))).code, 100);
    let Some(Event::Invited(invited)) = hand.events.last() else { panic!() };
    assert_eq!(invited.replaces, Some(leg));
    // And he may name that second call when he refers the first.
    let second = invited.leg;
    hand.sent.clear();
    hand.tell(Command::Answer { leg: second, sdp: Bytes::from_static(b"v=0\r\n") });
    let Some((_, Message::Response(made_second))) = hand.sent.first().cloned() else { panic!() };
    let named = replaces(&made_second).replace(';', "%3B").replace('=', "%3D");
    let text = refer(&made, 7100, &format!("Refer-To: <sip:1@tandem.test?Replaces={named}>\r\n"));
    hand.say(ws(1), &text);
    assert_eq!(referred(&hand), Some((leg, "1".to_owned(), Some(second))));
}

#[test]
fn of_a_302_only_the_digits_are_taken() {
    for (contact, to) in [
        ("<sip:+380671234568@evil.example>", Some("+380671234568")),
        ("<sip:0671234568@203.0.113.9>;q=1, <sip:2@x>;q=0.5", Some("0671234568")),
        ("<sip:operator@203.0.113.9>", None),
        ("<sip:203.0.113.9>", None),
        ("<http://169.254.169.254/>", None),
    ] {
        let mut hand = Hand::new();
        let (leg, invite) = hand.call_gsm(udp(GATEWAY));
        hand.say(udp(GATEWAY), &reply(&invite, 302, "t", &format!("Contact: {contact}\r\n"), ""));
        let told: Vec<_> = hand.events.iter().rev().take(2).cloned().collect();
        assert!(matches!(told[0], Event::Failed { code: 302, way: Way::Way, .. }), "{told:?}");
        let redirect = match &told[1] {
            Event::Redirected { leg: one, to } if *one == leg => Some(to.as_str()),
            _ => None,
        };
        assert_eq!(redirect, to, "{contact}");
        assert!(
            hand.requests(&Method::Invite).is_empty(),
            "whether it is followed is the call centre's matter"
        );
    }
}

//! Gateways, peers, strangers and garbage, spoken by hand; and a take-over in the middle.

use bytes::Bytes;

use super::hand::{Hand, register, reply, udp, within, ws};
use super::world::bye;
use crate::fact::Party;
use crate::sip::dialog::CSEQ_GAP;
use crate::sip::message::{Message, Method, Name, Request, Response};
use crate::sip::transaction::RESTORE_GAP;
use crate::sip::{Command, Event};

const GATEWAY: &str = "203.0.113.9:5062";
const PEER: &str = "192.0.2.70:5060";

fn invite(branch: &str, more: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let kind = if more.contains("Content-Type") { "" } else { kind };
    format!(
        "INVITE sip:+380441234567@tandem.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK{branch};rport\r\n\
         Max-Forwards: 70\r\nFrom: \"Ann\" <sip:+380671234567@tandem.test>;tag=g{branch}\r\nTo: <sip:+380441234567@tandem.test>\r\n\
         Call-ID: call-{branch}\r\nCSeq: 1 INVITE\r\nContact: <sip:gsm-1@10.0.0.9:5060>\r\n{kind}{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn udp_within(made: &Response, method: &str, cseq: u32, more: &str) -> String {
    within(made, method, cseq, more).replace("SIP/2.0/WS x.invalid", "SIP/2.0/UDP 10.0.0.9:5060")
}

/// A call from the peer that is answered; its ACK is still due.
fn answered(hand: &mut Hand, branch: &str, body: &str) -> (crate::terms::LegId, Response) {
    assert_eq!(hand.ask(udp(PEER), &invite(branch, "", body)).code, 100);
    let Some(Event::Invited(invited)) = hand.events.last() else { panic!() };
    let leg = invited.leg;
    hand.sent.clear();
    hand.tell(Command::Answer { leg, sdp: Bytes::from_static(b"v=0 ours\r\n") });
    let [(_, Message::Response(made))] = hand.sent.as_slice() else { panic!("{:?}", hand.sent) };
    (leg, made.clone())
}

#[test]
fn what_cannot_be_served_is_answered_as_the_rfc_says() {
    let base = invite("a", "", "v=0\r\n");
    let other = |method: &str| {
        base.replace("INVITE sip", &format!("{method} sip")).replace("1 INVITE", &format!("1 {method}"))
    };
    for (text, code) in [
        (base.clone(), 401),
        (base.replace("INVITE sip:+380441234567@tandem.test", "INVITE urn:service:sos"), 416),
        (base.replace("Max-Forwards: 70", "Max-Forwards: 0"), 483),
        (base.replace("Max-Forwards: 70", "Max-Forwards: 70\r\nRequire: precondition"), 420),
        (base.replace("application/sdp", "application/isup"), 415),
        (base.replacen("SIP/2.0\r\n", "SIP/7.0\r\n", 1), 505),
        (base.replace("1 INVITE", "1 BYE"), 400),
        (other("OPTIONS"), 200),
        (other("BYE"), 481),
        (other("UPDATE"), 481),
        (other("INFO"), 481),
        (other("CANCEL"), 481),
        (other("MESSAGE"), 401),
        (other("REFER"), 401),
        (other("SUBSCRIBE"), 401),
        (other("PUBLISH"), 401),
        (other("NOTIFY"), 401),
        (other("FROBNICATE"), 501),
        (
            base.replace(
                "To: <sip:+380441234567@tandem.test>",
                "To: <sip:+380441234567@tandem.test>;tag=1.2",
            ),
            481,
        ),
    ] {
        let mut hand = Hand::new();
        let response = hand.ask(udp("198.51.100.9:5060"), &text);
        assert_eq!(response.code, code, "{text}");
        let counts = hand.sip.counts();
        assert_eq!((counts.transactions, counts.legs, counts.timers), (0, 0, 0));
        assert!(response.to_bytes().len() <= 3 * text.len());
    }
    for (method, code) in [("MESSAGE", 405), ("SUBSCRIBE", 489), ("REFER", 405)] {
        assert_eq!(Hand::new().ask(udp(PEER), &other(method)).code, code);
    }
    let unsupported = Hand::new().ask(udp(PEER), &invite("b", "Require: precondition, timer\r\n", ""));
    assert_eq!(unsupported.headers.text(&Name::Unsupported), Some("precondition"));
}

#[test]
fn garbage_and_keep_alives_are_not_answered() {
    let mut hand = Hand::new();
    for text in ["\r\n\r\n", "\0", "hello", "SIP/2.0 200\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        assert!(hand.say(udp("198.51.100.9:5060"), text).is_empty(), "{text:?}");
    }
    assert!(!hand.dropped.is_empty());
    // An ACK and a response to nothing are swallowed.
    assert!(hand.say(udp(PEER), &invite("a", "", "").replace("INVITE", "ACK")).is_empty());
    assert_eq!(hand.sip.counts().transactions, 0);
}

#[test]
fn a_gateway_is_known_by_digest_then_by_its_address_and_called_there() {
    let mut hand = Hand::new();
    let fenced = udp("198.51.100.9:5062");
    assert_eq!(hand.register_as(fenced, "gsm-1", "gsm", 120, 1).code, 403);
    assert_eq!(hand.register_as(udp(GATEWAY), "gsm-1", "gsm", 120, 1).code, 200);
    assert!(
        matches!(hand.events.last(), Some(Event::Registered { who: Party::Trunk(name), .. }) if name.as_str() == "gsm")
    );
    assert_eq!(hand.ask(udp(GATEWAY), &invite("a", "", "v=0\r\n")).code, 100);
    assert!(
        matches!(hand.events.last(), Some(Event::Invited(invited)) if invited.from == Party::Trunk("gsm".into()) && invited.display == "Ann")
    );
    // Another port of the same address is nobody yet.
    assert_eq!(hand.ask(udp("203.0.113.9:9999"), &invite("b", "", "v=0\r\n")).code, 401);
    let leg = hand.sip.new_leg();
    hand.sent.clear();
    hand.tell(Command::Invite {
        leg,
        to: Party::Trunk("gsm".into()),
        number: crate::terms::Number::new("0671234567"),
        show: Default::default(),
        display: String::new(),
        headers: vec![],
        sdp: Bytes::from_static(b"v=0\r\n"),
        ring_ms: 20_000,
    });
    let (path, sent) = hand.requests(&Method::Invite).pop().unwrap();
    assert_eq!(path, udp(GATEWAY));
    assert_eq!(&sent.uri[..], b"sip:0671234567@10.0.0.9:5060");
    assert_eq!(sent.headers.text(&Name::Privacy), Some("id"));
    // 422 asks for a longer session: the same call again.
    hand.say(udp(GATEWAY), &reply(&sent, 422, "x", "Min-SE: 3600\r\n", ""));
    let again = hand.requests(&Method::Invite).pop().unwrap().1;
    assert_eq!(again.headers.text(&Name::SessionExpires), Some("3600"));
    assert_eq!(
        (again.headers.cseq().unwrap().0, again.headers.call_id(), &again.body),
        (2, sent.headers.call_id(), &sent.body)
    );
    hand.say(udp(GATEWAY), &reply(&again, 486, "y", "", ""));
    assert!(matches!(hand.events.last(), Some(Event::Failed { code: 486, .. })));
}

#[test]
fn registrations_are_bounded_in_time_and_number_and_only_for_oneself() {
    let mut hand = Hand::new();
    assert_eq!(hand.register_as(udp(GATEWAY), "gsm-1", "gsm", 30, 1).code, 423);
    let long = hand.register_as(udp(GATEWAY), "gsm-1", "gsm", 100_000, 3);
    assert!(long.headers.text(&Name::Contact).unwrap().ends_with("expires=3600"));
    let browser = hand.register_as(ws(1), "op1", "secret", 100_000, 1);
    assert!(browser.headers.text(&Name::Contact).unwrap().contains("expires=600"));
    hand.run(5);
    let other = register(ws(1), "op1", 600, 9, "").replace("To: <sip:op1@", "To: <sip:op2@");
    let challenged = hand.ask(ws(1), &other);
    let credentials = super::hand::answer(&challenged, "op1", "secret", &Method::Register, "sip:tandem.test");
    let hijack = register(ws(1), "op1", 600, 10, &credentials).replace("To: <sip:op1@", "To: <sip:op2@");
    assert_eq!(hand.ask(ws(1), &hijack).code, 403);
    let gone = hand.register_as(udp(GATEWAY), "gsm-1", "gsm", 0, 12);
    assert_eq!((gone.code, gone.headers.has(&Name::Contact)), (200, false));
    assert!(matches!(hand.events.last(), Some(Event::Unregistered { why: "removed", .. })));
}

#[test]
fn repeats_are_answered_again_and_a_merged_request_is_refused() {
    let mut hand = Hand::new();
    let text = invite("a", "", "v=0\r\n");
    assert_eq!(hand.ask(udp(PEER), &text).code, 100);
    assert_eq!(hand.ask(udp(PEER), &text).code, 100);
    assert_eq!(hand.events.iter().filter(|event| matches!(event, Event::Invited(_))).count(), 1);
    assert_eq!(hand.ask(udp(PEER), &text.replace("z9hG4bKa", "z9hG4bKz")).code, 482);
}

#[test]
fn answers_go_back_to_the_source_with_what_rport_asks_for() {
    let mut hand = Hand::new();
    let trying = hand.ask(udp(PEER), &invite("a", "", "v=0\r\n"));
    assert_eq!(
        trying.headers.text(&Name::Via),
        Some("SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKa;rport=5060;received=192.0.2.70")
    );
}

#[test]
fn a_cancel_counts_only_from_where_the_invite_came() {
    let mut hand = Hand::new();
    let text = invite("a", "", "v=0\r\n");
    hand.say(udp(PEER), &text);
    let cancel = text.split("Content-Type").next().unwrap().replace("INVITE", "CANCEL") + "\r\n";
    assert_eq!(hand.ask(udp("198.51.100.1:5060"), &cancel).code, 481);
    assert_eq!(hand.events.len(), 1);
    let sent = hand.say(udp(PEER), &cancel);
    let codes: Vec<u16> = sent
        .iter()
        .map(|(_, message)| match message {
            Message::Response(response) => response.code,
            Message::Request(_) => 0,
        })
        .collect();
    assert_eq!(codes, [200, 487]);
    assert!(matches!(hand.events.last(), Some(Event::Ended { by_peer: true, .. })));
    // Its ACK ends the transaction, and nothing is left.
    let ack = cancel.replace("CANCEL", "ACK");
    assert!(hand.say(udp(PEER), &ack).is_empty());
    hand.run(6_000);
    assert_eq!(hand.sip.counts(), Default::default());
}

#[test]
fn an_invite_without_offer_gets_ours_and_answers_in_its_ack() {
    let mut hand = Hand::new();
    let (leg, made) = answered(&mut hand, "a", "");
    assert_eq!(&made.body[..], b"v=0 ours\r\n");
    hand.say(udp(PEER), &udp_within(&made, "ACK", 1, "Content-Type: application/sdp\r\n\r\nv=0 theirs"));
    assert_eq!(
        hand.events.last(),
        Some(&Event::Confirmed { leg, sdp: Some(Bytes::from_static(b"v=0 theirs")) })
    );
    // An empty re-INVITE does the same within the call.
    hand.say(udp(PEER), &udp_within(&made, "INVITE", 2, "Contact: <sip:x@192.0.2.70>\r\n"));
    assert_eq!(hand.events.last(), Some(&Event::Offered { leg, sdp: None }));
    hand.tell(Command::AnswerChange { leg, sdp: Bytes::from_static(b"v=0 again\r\n") });
    hand.say(udp(PEER), &udp_within(&made, "ACK", 2, "Content-Type: application/sdp\r\n\r\nv=0 final"));
    assert_eq!(
        hand.events.last(),
        Some(&Event::ChangeAnswered { leg, sdp: Bytes::from_static(b"v=0 final") })
    );
}

#[test]
fn within_a_call_order_and_origin_count() {
    let mut hand = Hand::new();
    let (_, made) = answered(&mut hand, "a", "v=0\r\n");
    // Before the ACK no change; BYE of the caller is his right.
    assert_eq!(
        hand.ask(udp(PEER), &udp_within(&made, "INVITE", 2, "Content-Type: application/sdp\r\n\r\nv=0 new"))
            .code,
        500
    );
    assert!(hand.say(udp(PEER), &udp_within(&made, "ACK", 1, "")).is_empty());
    assert_eq!(hand.ask(udp(PEER), &udp_within(&made, "OPTIONS", 10, "")).code, 200);
    assert_eq!(hand.ask(udp(PEER), &udp_within(&made, "INFO", 9, "")).code, 500);
    assert_eq!(hand.ask(udp(PEER), &udp_within(&made, "REFER", 11, "Refer-To: <sip:x@y>\r\n")).code, 403);
    assert_eq!(
        hand.ask(udp(PEER), &udp_within(&made, "INFO", 12, "Content-Type: text/x\r\n\r\nx")).code,
        415
    );
    assert_eq!(hand.ask(udp("198.51.100.3:5060"), &udp_within(&made, "BYE", 13, "")).code, 481);
    // The same description again is a refresh and reaches nobody.
    let before = hand.events.len();
    let refreshed =
        hand.ask(udp(PEER), &udp_within(&made, "INVITE", 14, "Content-Type: application/sdp\r\n\r\nv=0\r\n"));
    assert_eq!((refreshed.code, &refreshed.body[..], hand.events.len()), (200, &b"v=0 ours\r\n"[..], before));
    assert_eq!(
        hand.ask(udp(PEER), &udp_within(&made, "BYE", 15, "Reason: Q.850;cause=31;text=\"line\"\r\n")).code,
        200
    );
    assert!(
        matches!(hand.events.last(), Some(Event::Ended { cause, by_peer: true, .. }) if cause.q850 == 31 && cause.words == "line")
    );
    assert_eq!(hand.ask(udp(PEER), &udp_within(&made, "BYE", 16, "")).code, 481);
}

#[test]
fn a_failed_refresh_ends_the_call_only_with_481() {
    for (code, lives) in
        [(488, true), (405, true), (500, true), (422, true), (491, true), (481, false), (408, true)]
    {
        let mut hand = Hand::new();
        let (leg, made) = answered(&mut hand, "a", "v=0\r\n");
        hand.say(udp(PEER), &udp_within(&made, "ACK", 1, ""));
        hand.sent.clear();
        // The peer knows no timers and no UPDATE: we refresh by re-INVITE, the description unchanged.
        hand.run(900_000);
        let (_, refresh) = hand.requests(&Method::Invite).remove(0);
        assert_eq!(&refresh.body[..], b"v=0 ours\r\n");
        hand.say(udp(PEER), &reply(&refresh, code, "", "Min-SE: 2000\r\n", ""));
        let over =
            hand.events.iter().any(|event| matches!(event, Event::Ended { leg: ended, .. } if *ended == leg));
        assert_eq!(over, !lives, "{code}");
        assert_eq!(hand.requests(&Method::Bye).len(), usize::from(!lives), "{code}");
        if lives {
            hand.run(1_000_100);
            assert!(!hand.requests(&Method::Invite).is_empty(), "{code}: it tries again");
        }
    }
}

#[test]
fn over_the_limit_callers_are_told_to_wait_before_anything_is_kept() {
    let mut hand = Hand::new();
    for n in 0..8 {
        assert_eq!(hand.ask(udp(PEER), &invite(&format!("n{n}"), "", "v=0\r\n")).code, 100);
    }
    let full = hand.ask(udp(PEER), &invite("n8", "", "v=0\r\n"));
    assert_eq!((full.code, full.headers.text(&Name::RetryAfter)), (503, Some("5")));
    assert_eq!(hand.sip.counts().legs, 8);
}

#[test]
fn after_a_take_over_everything_is_answered_as_before() {
    let mut hand = Hand::new();
    let text = invite("ringing", "", "v=0\r\n");
    hand.say(udp(PEER), &text);
    let Some(Event::Invited(ringing)) = hand.events.last().cloned() else { panic!() };
    hand.tell(Command::Ring { leg: ringing.leg });
    let (leg, made) = answered(&mut hand, "up", "v=0\r\n");
    hand.say(udp(PEER), &udp_within(&made, "ACK", 1, ""));
    let (_, made_other) = answered(&mut hand, "unacked", "v=0\r\n");
    let (browser_leg, browser) = hand.browser_call();
    hand.tell(Command::HangUp { leg: browser_leg, cause: bye() });
    hand.die();
    hand.sent.clear();
    // The repeated INVITE gets the last answer again.
    assert_eq!(hand.ask(udp(PEER), &text).code, 180);
    // The unacknowledged 200 is repeated until its ACK comes.
    hand.run(600);
    assert!(
        hand.sent
            .iter()
            .any(|(_, message)| matches!(message, Message::Response(response) if response.code == 200))
    );
    hand.say(udp(PEER), &udp_within(&made_other, "ACK", 1, ""));
    assert!(matches!(hand.events.last(), Some(Event::Confirmed { .. })));
    // A change is offered, and our own numbers have jumped.
    hand.say(udp(PEER), &udp_within(&made, "INVITE", 2, "Content-Type: application/sdp\r\n\r\nv=0 new"));
    assert!(matches!(hand.events.last(), Some(Event::Offered { .. })));
    hand.tell(Command::AnswerChange { leg, sdp: Bytes::from_static(b"v=0 ok") });
    hand.say(udp(PEER), &udp_within(&made, "ACK", 2, ""));
    hand.sent.clear();
    hand.tell(Command::HangUp { leg, cause: bye() });
    let (path, request) = hand.requests(&Method::Bye).remove(0);
    assert_eq!(path, udp(PEER));
    assert!(request.headers.cseq().unwrap().0 > 100);
    // CANCEL finds its INVITE.
    let cancel = text.split("Content-Type").next().unwrap().replace("INVITE", "CANCEL") + "\r\n";
    assert_eq!(hand.say(udp(PEER), &cancel).len(), 2);
    // The browser's BYE waits for its phone.
    assert!(hand.requests(&Method::Bye).iter().all(|(path, _)| path.flow().is_none()));
    hand.register_as(ws(77), "op1", "secret", 600, 50);
    assert!(hand.requests(&Method::Bye).iter().any(|(path, _)| *path == ws(77)));
    assert_eq!(hand.ask(ws(77), &within(&browser, "BYE", 7300, "")).code, 200);
    let fresh = hand.sip.new_leg();
    assert!(fresh.0 > browser_leg.0 + 900);
}

/// The number that a transaction of ours wrote into its branch.
fn transaction_of(request: &Request) -> u64 {
    let via = request.headers.text(&Name::Via).unwrap();
    let branch = via.split("branch=z9hG4bK").nth(1).unwrap();
    u64::from_str_radix(branch.split('.').next().unwrap(), 16).unwrap()
}

#[test]
fn after_a_take_over_no_number_is_used_twice() {
    let mut hand = Hand::new();
    let mut legs = Vec::new();
    for (name, cseq) in [("before", 2), ("after", 2)] {
        let (leg, made) = answered(&mut hand, name, "v=0\r\n");
        hand.say(udp(PEER), &udp_within(&made, "ACK", 1, ""));
        hand.tell(Command::Offer { leg, sdp: Bytes::from_static(b"v=0 held") });
        let (_, change) = hand.requests(&Method::Invite).pop().unwrap();
        assert_eq!(change.headers.cseq().unwrap().0 + 1, cseq, "our first request in {name}");
        hand.say(udp(PEER), &reply(&change, 200, "", "", "v=0\r\n"));
        legs.push(leg);
    }
    hand.tell(Command::HangUp { leg: legs[0], cause: bye() });
    let (_, before) = hand.requests(&Method::Bye).pop().unwrap();
    assert_eq!(before.headers.cseq().unwrap().0, 2);
    let last_leg = hand.sip.new_leg();
    hand.die();
    hand.sent.clear();
    hand.tell(Command::HangUp { leg: legs[1], cause: bye() });
    let (_, after) = hand.requests(&Method::Bye).pop().unwrap();
    // What the writer sent after its last record is passed over: CSeq of the dialog, branches, legs.
    assert_eq!(after.headers.cseq().unwrap().0, 2 + CSEQ_GAP);
    assert_eq!(transaction_of(&after), transaction_of(&before) + 1 + RESTORE_GAP);
    assert!(hand.sip.new_leg().0 > last_leg.0 + RESTORE_GAP - 2);
}

#[test]
fn damaged_messages_never_panic_and_leave_at_most_what_a_call_leaves() {
    let mut hand = Hand::new();
    let (_, made) = answered(&mut hand, "a", "v=0\r\n");
    hand.say(udp(PEER), &udp_within(&made, "ACK", 1, ""));
    let texts = [
        invite(
            "m",
            "Session-Expires: 90\r\nSupported: timer\r\nRecord-Route: <sip:192.0.2.70;lr>\r\n",
            "v=0\r\n",
        ),
        udp_within(&made, "UPDATE", 30, "Session-Expires: 90\r\n"),
        udp_within(&made, "INFO", 31, "Content-Type: application/dtmf-relay\r\n\r\nSignal=5\r\nDuration=160"),
        register(
            udp(GATEWAY),
            "gsm-1",
            600,
            1,
            "Authorization: Digest username=\"gsm-1\", realm=\"tandem.test\", nonce=\"00\"\r\n",
        ),
        String::from_utf8_lossy(&made.to_bytes()).into_owned(),
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize % limit
    };
    for round in 0..3_000 {
        let mut bytes = texts[round % texts.len()].clone().into_bytes();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, b"\r\n;,<>\"="[random(8)]),
                _ => bytes.extend_from_within(at..),
            }
        }
        let path = if random(2) == 0 { udp(PEER) } else { udp("198.51.100.9:5060") };
        hand.say(path, &String::from_utf8_lossy(&bytes));
        assert!(hand.sent.len() <= 2);
    }
    assert!(hand.sip.counts().legs <= 8);
    hand.run(2_000_000);
}

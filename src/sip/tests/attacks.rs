//! Guessing, spraying, spoofing and flooding, spoken by hand.

use std::net::IpAddr;

use bytes::Bytes;

use super::hand::{Hand, answer, register, udp, ws};
use crate::sip::message::{Message, Method, Name};
use crate::sip::{Command, Event, Path};

/// Nobody we know lives here.
const STRANGER: &str = "198.51.100.66:5060";
const PEER: &str = "192.0.2.70:5060";
const GATEWAY: &str = "203.0.113.9:5062";
/// `limits.ban` of the tests, milliseconds.
const BAN_MS: u64 = 15 * 60_000;

fn bans(hand: &Hand) -> usize {
    hand.events.iter().filter(|event| matches!(event, Event::Banned(_))).count()
}

/// Tries to register; the code of the answer.
fn tries(hand: &mut Hand, path: Path, user: &str, password: &str, round: u32) -> u16 {
    hand.register_as(path, user, password, 600, 2 * round + 1).code
}

fn invite_by(from: &str, branch: &str, more: &str) -> String {
    format!(
        "INVITE sip:+380441234567@tandem.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK{branch};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{from}@tandem.test>;tag=g{branch}\r\nTo: <sip:+380441234567@tandem.test>\r\n\
         Call-ID: call-{branch}\r\nCSeq: 1 INVITE\r\nContact: <sip:{from}@10.0.0.9:5060>\r\n{more}\
         Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"
    )
}

#[test]
fn five_wrong_passwords_lock_that_account_for_that_source_and_nobody_else() {
    let mut hand = Hand::new();
    for round in 0..5 {
        assert_eq!(tries(&mut hand, udp(STRANGER), "op1", "guess", round), 403);
    }
    assert_eq!(bans(&hand), 1);
    assert_eq!(tries(&mut hand, udp(STRANGER), "op1", "secret", 10), 403, "not even the right one is told");
    assert_eq!(tries(&mut hand, ws(1), "op1", "secret", 11), 200, "the honest one at home registers");
    assert_eq!(tries(&mut hand, udp(STRANGER), "op2", "secret", 12), 200, "his neighbour registers");
    hand.run(BAN_MS);
    assert_eq!(tries(&mut hand, udp(STRANGER), "op1", "secret", 20), 200, "it ends");
}

#[test]
fn an_unknown_user_is_locked_like_one_who_exists() {
    let mut hand = Hand::new();
    let mut answers = Vec::new();
    for user in ["op1", "nobody"] {
        for round in 0..7 {
            let response = hand.register_as(udp(STRANGER), user, "guess", 600, 2 * round + 1);
            let names: Vec<_> = response.headers.iter().map(|header| header.name().to_string()).collect();
            answers.push((user, response.code, names));
        }
    }
    let of = |user: &str| {
        answers.iter().filter(|one| one.0 == user).map(|one| (one.1, &one.2)).collect::<Vec<_>>()
    };
    assert_eq!(of("op1"), of("nobody"));
    assert_eq!(bans(&hand), 2);
}

#[test]
fn a_source_that_tries_many_accounts_is_banned_as_a_whole() {
    let mut hand = Hand::new();
    for user in 0..50 {
        tries(&mut hand, udp(STRANGER), &format!("user{user}"), "guess", 0);
    }
    let Some(Event::Banned(ban)) =
        hand.events.iter().rev().find(|event| matches!(event, Event::Banned(_))).cloned()
    else {
        panic!("no ban")
    };
    assert_eq!((ban.source, ban.account.as_deref()), ("198.51.100.66".parse::<IpAddr>().unwrap(), None));
    assert_eq!(tries(&mut hand, udp(STRANGER), "op1", "secret", 0), 403);
    assert_eq!(tries(&mut hand, udp("198.51.100.67:5060"), "op1", "secret", 0), 200);
    let now = crate::terms::Now { mono_ms: 1_200, wall_ms: 0 };
    assert_eq!(hand.sip.bans(now).len(), 1);
    assert_eq!(hand.sip.lift_bans(ban.source, now), 1);
    assert_eq!(tries(&mut hand, udp(STRANGER), "op2", "secret", 0), 200);
}

#[test]
fn a_trunks_address_is_never_banned_whoever_guesses_from_there() {
    let mut hand = Hand::new();
    for user in 0..60 {
        tries(&mut hand, udp(GATEWAY), &format!("user{user}"), "guess", 0);
    }
    assert_eq!(bans(&hand), 0);
    assert_eq!(tries(&mut hand, udp(GATEWAY), "gsm-1", "gsm", 0), 200);
}

#[test]
fn letters_with_anothers_address_ban_nobody() {
    let mut hand = Hand::new();
    let challenged = hand.ask(udp(STRANGER), &register(udp(STRANGER), "op1", 600, 1, ""));
    let wrong = answer(&challenged, "op1", "guess", &Method::Register, "sip:tandem.test");
    let victim = udp("198.51.100.77:5060");
    for cseq in 2..60 {
        // The attacker never sees what the victim is answered, so he has no nonce of the victim's.
        hand.ask(victim, &register(victim, "op1", 600, cseq, &wrong));
    }
    assert_eq!(bans(&hand), 0);
    assert_eq!(tries(&mut hand, victim, "op1", "secret", 40), 200);
}

#[test]
fn a_new_log_in_forgives_what_the_browser_tried_with_the_old_one() {
    let mut hand = Hand::new();
    for round in 0..9 {
        tries(&mut hand, ws(1), "op1", "of an ended session", round);
    }
    assert_eq!(tries(&mut hand, ws(1), "op1", "secret", 10), 403);
    let ha1 = crate::sip::digest::Ha1::new("op1", "tandem.test", "of a new session");
    hand.tell(Command::Phone { operator: "op1".into(), key: "new".into(), ha1 });
    assert_eq!(tries(&mut hand, ws(1), "op1", "of a new session", 11), 200);
}

#[test]
fn an_invite_of_a_stranger_is_challenged_whatever_it_claims_to_be() {
    let claims = [
        ("op1", ""),
        ("gsm-1", ""),
        ("+380671234567", "P-Asserted-Identity: <sip:op1@tandem.test>\r\n"),
        ("op1", "Route: <sip:192.0.2.70;lr>\r\n"),
        ("op1", "Replaces: call-x;from-tag=a;to-tag=b\r\n"),
        ("op1", "Remote-Party-ID: <sip:gsm-1@tandem.test>;screen=yes\r\n"),
        ("op1", "Referred-By: <sip:op1@tandem.test>\r\n"),
    ];
    let mut hand = Hand::new();
    for (number, (from, more)) in claims.into_iter().enumerate() {
        let text = invite_by(from, &format!("claim{number}"), more);
        for text in [
            text.clone(),
            text.replace(
                "sip:+380441234567@tandem.test SIP",
                "sip:+380441234567@192.0.2.70;maddr=192.0.2.70 SIP",
            ),
            text.replace(
                "sip:+380441234567@tandem.test SIP",
                "sip:+380441234567@tandem.test;transport=tls SIP",
            ),
        ] {
            let code = hand.ask(udp(STRANGER), &text).code;
            assert!(matches!(code, 401 | 403), "{code} to {text}");
        }
    }
    assert!(hand.events.iter().all(|event| matches!(event, Event::Stranger { .. })), "{:?}", hand.events);
    assert_eq!(hand.sip.counts().legs + hand.sip.counts().transactions, 0, "strangers leave nothing behind");
}

#[test]
fn before_anybody_is_known_answers_are_few_and_short() {
    let mut hand = Hand::new();
    let mut asked = vec![register(udp(STRANGER), "op1", 600, 1, ""), invite_by("op1", "a", "")];
    for method in [
        "OPTIONS",
        "MESSAGE",
        "SUBSCRIBE",
        "NOTIFY",
        "PUBLISH",
        "REFER",
        "INFO",
        "UPDATE",
        "BYE",
        "CANCEL",
        "X",
    ] {
        // As short as a request can be.
        asked.push(format!(
            "{method} sip:t SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bK{method}\r\nf: <sip:a@t>;tag=1\r\nt: <sip:b@t>\r\ni: {method}\r\n\
             CSeq: 1 {method}\r\nl: 0\r\n\r\n"
        ));
    }
    for text in asked {
        let sent = hand.say(udp(STRANGER), &text);
        assert!(sent.len() <= 1, "{sent:?}");
        let answered: usize = sent
            .iter()
            .map(|(_, message)| match message {
                Message::Response(response) => response.to_bytes().len(),
                Message::Request(request) => panic!("{request:?}"),
            })
            .sum();
        assert!(answered <= 3 * text.len(), "{answered} octets for {}:\n{text}", text.len());
        hand.sent.clear();
        hand.run(64_000);
        assert!(hand.sent.is_empty(), "an answer to a stranger is not repeated: {:?}", hand.sent);
    }
}

#[test]
fn a_hundred_contacts_leave_ten_and_wrong_ones_none() {
    let mut hand = Hand::new();
    for number in 0..100 {
        let path = udp(STRANGER);
        hand.run(2);
        let plain =
            register(path, "op1", 600, 1, "").replace("10.0.0.9:5060>", &format!("10.0.1.{number}:5060>"));
        let plain = plain.replace("Call-ID: reg-op1", &format!("Call-ID: reg-{number}"));
        let plain = plain.replace("branch=z9hG4bKr", &format!("branch=z9hG4bKx{number}"));
        let challenged = hand.ask(path, &plain);
        let credentials = answer(&challenged, "op1", "secret", &Method::Register, "sip:tandem.test");
        let text =
            plain.replace("CSeq: 1 ", "CSeq: 2 ").replace("Contact: ", &format!("{credentials}Contact: "));
        let text = text.replace("branch=z9hG4bKx", "branch=z9hG4bKy");
        let sent = hand.say(path, &text);
        assert!(
            matches!(sent.first(), Some((_, Message::Response(response))) if response.code == 200),
            "{sent:?}"
        );
    }
    assert_eq!(hand.sip.counts().registrations, 10);
    hand.run(2);
    // `*` together with a time is nonsense, and changes nothing.
    let star = register(udp(STRANGER), "op1", 600, 500, "")
        .replace("<sip:op1@10.0.0.9:5060>;expires=600", "*\r\nExpires: 60");
    let challenged = hand.ask(udp(STRANGER), &star);
    let credentials = answer(&challenged, "op1", "secret", &Method::Register, "sip:tandem.test");
    let star =
        star.replace("CSeq: 500", "CSeq: 501").replace("Contact: ", &format!("{credentials}Contact: "));
    assert_eq!(hand.ask(udp(STRANGER), &star.replace("z9hG4bKrop1500", "z9hG4bKrop1501")).code, 400);
    assert_eq!(hand.sip.counts().registrations, 10);
}

#[test]
fn a_second_socket_does_not_get_a_phone_without_its_password() {
    let mut hand = Hand::new();
    hand.register_as(ws(1), "op1", "secret", 600, 1);
    // The same address of record and instance, from another socket.
    assert_eq!(hand.ask(ws(2), &register(ws(2), "op1", 600, 9, "")).code, 401);
    let leg = hand.sip.new_leg();
    hand.tell(Command::Invite {
        leg,
        to: crate::fact::Party::Operator("op1".into()),
        number: Default::default(),
        show: Default::default(),
        display: String::new(),
        headers: vec![],
        sdp: Bytes::from_static(b"v=0\r\n"),
        ring_ms: 1_000,
    });
    let (to, _) = hand.sent.last().unwrap();
    assert_eq!(to.flow(), ws(1).flow(), "calls still go to the first");
}

#[test]
fn calls_that_are_never_acknowledged_are_bounded_and_leave_nothing() {
    let mut hand = Hand::new();
    let mut full = 0;
    for number in 0..2_000 {
        let sent = hand.say(udp(PEER), &invite_by("+380671234567", &format!("flood{number}"), ""));
        let Some((_, Message::Response(first))) = sent.first() else { panic!("{sent:?}") };
        if first.code == 503 {
            full += 1;
            assert!(first.headers.has(&Name::RetryAfter));
        } else if let Some(Event::Invited(invited)) = hand.events.last() {
            let leg = invited.leg;
            hand.tell(Command::Answer { leg, sdp: Bytes::from_static(b"v=0\r\n") });
        }
        assert!(hand.sip.counts().legs <= 8);
    }
    assert_eq!(full, 1_992);
    hand.run(64_000);
    let left = hand.sip.counts();
    assert_eq!((left.legs, left.transactions, left.timers), (0, 0, 0));
}

#[test]
fn every_request_seven_times_in_any_order_is_one_call() {
    let mut hand = Hand::new();
    let invite = invite_by("+380671234567", "seven", "");
    for _ in 0..7 {
        hand.say(udp(PEER), &invite);
    }
    let Some(Event::Invited(invited)) = hand.events.last() else { panic!("{:?}", hand.events) };
    let leg = invited.leg;
    hand.sent.clear();
    hand.tell(Command::Answer { leg, sdp: Bytes::from_static(b"v=0\r\n") });
    let Some((_, Message::Response(made))) = hand.sent.last().cloned() else { panic!() };
    let of_peer = |method: &str, cseq| {
        super::hand::within(&made, method, cseq, "")
            .replace("SIP/2.0/WS x.invalid", "SIP/2.0/UDP 10.0.0.9:5060")
    };
    let (ack, info, bye) = (of_peer("ACK", 1), of_peer("UPDATE", 2), of_peer("BYE", 3));
    for text in
        [&ack, &invite, &ack, &info, &invite, &info, &bye, &ack, &info, &bye, &bye, &invite, &bye, &bye]
    {
        hand.say(udp(PEER), text);
    }
    let count = |fits: fn(&Event) -> bool| hand.events.iter().filter(|event| fits(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Invited(_))), 1);
    assert_eq!(count(|event| matches!(event, Event::Confirmed { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Ended { .. })), 1);
    hand.run(64_000);
    assert_eq!(hand.sip.counts().legs, 0);
}

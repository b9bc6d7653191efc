//! Calls between two machines: answered, refused, cancelled, changed, refreshed, over good and bad wires.

use super::world::{Badness, Side, World, bye, sdp};
use crate::fact::Cause;
use crate::sip::{Command, Event, Way};

const BAD: Badness = Badness { loss: 20, doubling: 15, jitter_ms: 60 };

#[test]
fn a_call_rings_is_answered_and_ended_by_either_side() {
    for ends in [Side::A, Side::B] {
        let mut world = World::new(1);
        let (a, b) = world.connected();
        assert_eq!(world.count(Side::A, |event| matches!(event, Event::Rang { .. })), 1);
        let Some(Event::Answered { sdp: answer, .. }) =
            world.events[0].iter().find(|e| matches!(e, Event::Answered { .. }))
        else {
            panic!()
        };
        assert_eq!(*answer, sdp("answer"));
        let leg = if ends == Side::A { a } else { b };
        world.tell(ends, Command::HangUp { leg, cause: Cause { q850: 17, sip: 0, words: "busy".into() } });
        world.run(2_000);
        assert_eq!((world.ends(Side::A, a), world.ends(Side::B, b)), (1, 1));
        let other = &world.events[ends.other() as usize];
        let Some(Event::Ended { cause, by_peer, .. }) = other.last() else { panic!() };
        assert_eq!((cause.q850, cause.words.as_str(), *by_peer), (17, "busy", true));
        world.assert_clean();
    }
}

#[test]
fn the_callee_learns_all_that_says_who_calls() {
    let mut world = World::new(2);
    world.call();
    world.run(50);
    let Some(Event::Invited(invited)) = world.events[1].first() else { panic!() };
    assert_eq!((invited.to_user.as_str(), invited.dialled.as_str()), ("+380441234567", "+380441234567"));
    assert_eq!((invited.display.as_str(), invited.private), ("Desk", false));
    let named: Vec<_> =
        invited.identities.iter().map(|one| (one.header.as_str(), one.user.as_str())).collect();
    assert_eq!(named, [("From", "+380671112233"), ("P-Asserted-Identity", "+380671112233")]);
    assert_eq!(invited.sdp, sdp("offer"));
}

#[test]
fn a_hundred_calls_over_a_bad_wire_all_come_up_and_end_once() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        world.badness = BAD;
        let (a, b) = world.connected();
        world.run(500);
        let (side, leg) = if seed % 2 == 0 { (Side::A, a) } else { (Side::B, b) };
        world.tell(side, Command::HangUp { leg, cause: bye() });
        world.run(40_000);
        assert_eq!(
            (world.ends(Side::A, a), world.ends(Side::B, b)),
            (1, 1),
            "seed {seed}\n{}",
            world.ladder.join("\n")
        );
        world.assert_clean();
    }
}

#[test]
fn machines_that_die_between_all_steps_still_complete_calls() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        world.mortal = true;
        world.badness = if seed < 10 { Badness::default() } else { BAD };
        let (a, b) = world.connected();
        world.run(500);
        world.tell(Side::A, Command::Offer { leg: a, sdp: sdp("hold") });
        for _ in 0..100 {
            world.run(200);
            if world.count(Side::B, |event| matches!(event, Event::Offered { .. })) == 1 {
                break;
            }
        }
        world.tell(Side::B, Command::AnswerChange { leg: b, sdp: sdp("held") });
        world.run(30_000);
        assert_eq!(
            world.count(Side::A, |event| matches!(event, Event::ChangeAnswered { .. })),
            1,
            "seed {seed}\n{}",
            world.ladder.join("\n")
        );
        world.tell(Side::B, Command::HangUp { leg: b, cause: bye() });
        world.run(40_000);
        assert_eq!(
            (world.ends(Side::A, a), world.ends(Side::B, b)),
            (1, 1),
            "seed {seed}\n{}",
            world.ladder.join("\n")
        );
        world.assert_clean();
    }
}

#[test]
fn a_refusal_says_whether_a_person_or_the_way_failed() {
    for (code, q850, way) in [
        (486, 17, Way::Person),
        (603, 21, Way::Person),
        (503, 34, Way::Way),
        (480, 20, Way::Person),
        (500, 41, Way::Way),
    ] {
        let mut world = World::new(3);
        world.badness = Badness { doubling: 30, loss: 10, jitter_ms: 20 };
        let a = world.call();
        world.run(3_000);
        let leg = world.incoming(Side::B).unwrap();
        world.tell(
            Side::B,
            Command::Reject { leg, code, cause: Cause { q850, sip: 0, words: String::new() } },
        );
        world.run(40_000);
        let failed = world.events[0].iter().find_map(|event| match event {
            Event::Failed { leg, code, cause, way } if *leg == a => Some((*code, cause.q850, *way)),
            _ => None,
        });
        assert_eq!(failed, Some((code, q850, way)));
        assert_eq!((world.ends(Side::A, a), world.ends(Side::B, leg)), (1, 1));
        world.assert_clean();
    }
}

#[test]
fn a_cancel_that_crosses_the_answer_leaves_no_ghost() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        world.badness = Badness { jitter_ms: 30, loss: if seed > 30 { 15 } else { 0 }, doubling: 10 };
        let a = world.call();
        for _ in 0..100 {
            world.run(100);
            if world.incoming(Side::B).is_some() {
                break;
            }
        }
        let Some(b) = world.incoming(Side::B) else { continue };
        world.tell(Side::B, Command::Ring { leg: b });
        world.run(300);
        if seed % 2 == 0 {
            world.tell(Side::A, Command::HangUp { leg: a, cause: bye() });
            world.run(seed % 20);
            world.tell(Side::B, Command::Answer { leg: b, sdp: sdp("answer") });
        } else {
            world.tell(Side::B, Command::Answer { leg: b, sdp: sdp("answer") });
            world.run(seed % 20);
            world.tell(Side::A, Command::HangUp { leg: a, cause: bye() });
        }
        world.run(70_000);
        assert_eq!(
            (world.ends(Side::A, a), world.ends(Side::B, b)),
            (1, 1),
            "seed {seed}\n{}",
            world.ladder.join("\n")
        );
        world.assert_clean();
    }
}

#[test]
fn nobody_at_all_is_tried_for_four_seconds_and_nobody_who_answers_for_the_ring_time() {
    let mut world = World::new(5);
    world.badness = Badness { loss: 100, ..Badness::default() };
    let a = world.call();
    world.run(3_900);
    assert_eq!(world.ends(Side::A, a), 0);
    world.run(200);
    assert!(matches!(world.events[0].last(), Some(Event::Failed { code: 408, way: Way::Way, .. })));
    world.assert_clean();
    let mut world = World::new(6);
    let a = world.call();
    world.run(59_000);
    assert_eq!(world.ends(Side::A, a), 0);
    world.run(2_000);
    assert!(matches!(world.events[0].last(), Some(Event::Failed { code: 408, way: Way::Person, .. })));
    assert!(matches!(world.events[1].last(), Some(Event::Ended { by_peer: true, .. })));
    assert!(world.lines("CANCEL") >= 1 && world.lines("487") >= 1);
    world.assert_clean();
}

#[test]
fn an_answer_without_ack_is_repeated_and_ends_the_call_after_32_seconds() {
    let mut world = World::new(7);
    world.call();
    world.run(50);
    let b = world.incoming(Side::B).unwrap();
    world.badness.loss = 100;
    world.tell(Side::B, Command::Answer { leg: b, sdp: sdp("answer") });
    world.run(31_900);
    assert!(world.lines("200 OK") >= 9, "{}", world.ladder.join("\n"));
    assert_eq!(world.ends(Side::B, b), 0);
    world.run(200);
    assert_eq!(world.ends(Side::B, b), 1);
    assert!(world.lines("BYE") >= 1);
}

#[test]
fn each_repeated_200_gets_its_ack_again() {
    let mut world = World::new(8);
    world.connected();
    world.badness = Badness { doubling: 100, ..Badness::default() };
    let a = world.call();
    world.run(50);
    let b = world.incoming(Side::B).unwrap();
    let before = world.lines("ACK");
    world.tell(Side::B, Command::Answer { leg: b, sdp: sdp("answer") });
    world.run(400);
    assert_eq!(world.lines("ACK") - before, 2);
    assert_eq!(world.count(Side::A, |e| matches!(e, Event::Answered { leg, .. } if *leg == a)), 1);
}

#[test]
fn both_leave_at_once_and_each_hears_it_once() {
    let mut world = World::new(9);
    let (a, b) = world.connected();
    world.tell(Side::A, Command::HangUp { leg: a, cause: bye() });
    world.tell(Side::B, Command::HangUp { leg: b, cause: bye() });
    world.run(1_000);
    assert_eq!((world.ends(Side::A, a), world.ends(Side::B, b)), (1, 1));
    // To PRACK, INVITE and both BYE.
    assert_eq!(world.lines("200 OK"), 4);
    world.assert_clean();
}

#[test]
fn a_change_is_offered_answered_and_refused() {
    let mut world = World::new(10);
    let (a, b) = world.connected();
    world.tell(Side::A, Command::Offer { leg: a, sdp: sdp("hold") });
    world.run(100);
    assert!(matches!(world.events[1].last(), Some(Event::Offered { sdp: Some(_), .. })));
    world.tell(Side::B, Command::AnswerChange { leg: b, sdp: sdp("held") });
    world.run(100);
    assert_eq!(world.events[0].last(), Some(&Event::ChangeAnswered { leg: a, sdp: sdp("held") }));
    world.tell(Side::B, Command::Offer { leg: b, sdp: sdp("other") });
    world.run(100);
    world.tell(Side::A, Command::RefuseChange { leg: a, code: 488 });
    world.run(100);
    assert_eq!(world.events[1].last(), Some(&Event::ChangeRefused { leg: b, code: 488 }));
    assert_eq!((world.ends(Side::A, a), world.ends(Side::B, b)), (0, 0));
}

#[test]
fn changes_that_meet_settle_within_ten_seconds() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let (a, b) = world.connected();
        world.tell(Side::A, Command::Offer { leg: a, sdp: sdp("from a") });
        world.tell(Side::B, Command::Offer { leg: b, sdp: sdp("from b") });
        let mut answered = [0, 0];
        for _ in 0..100 {
            world.run(100);
            for (at, side, leg) in [(0, Side::A, a), (1, Side::B, b)] {
                let offered = world.count(side, |event| matches!(event, Event::Offered { .. }));
                if offered > answered[at] {
                    answered[at] = offered;
                    world.tell(side, Command::AnswerChange { leg, sdp: sdp("ok") });
                }
            }
        }
        assert!(world.lines("491") >= 2, "{}", world.ladder.join("\n"));
        for side in [Side::A, Side::B] {
            assert_eq!(
                world.count(side, |event| matches!(event, Event::ChangeAnswered { .. })),
                1,
                "seed {seed}"
            );
        }
    }
}

#[test]
fn a_long_call_is_refreshed_by_update_and_outlives_every_timer() {
    let mut world = World::new(11);
    let (a, b) = world.connected();
    world.run(7_200_000);
    assert_eq!((world.ends(Side::A, a), world.ends(Side::B, b)), (0, 0), "{}", world.ladder.join("\n"));
    assert!((7..=8).contains(&world.lines("UPDATE")));
    world.badness.loss = 100;
    world.run(1_900_000);
    assert_eq!((world.ends(Side::A, a), world.ends(Side::B, b)), (1, 1));
    world.assert_clean();
}

#[test]
fn digits_go_by_info() {
    let mut world = World::new(12);
    let (a, b) = world.connected();
    world.tell(Side::A, Command::SendDigit { leg: a, digit: '#', duration_ms: 120 });
    world.run(100);
    assert_eq!(world.events[1].last(), Some(&Event::Digit { leg: b, digit: '#', duration_ms: 120 }));
}

#[test]
fn sound_before_the_answer_is_told_once_for_each_description() {
    let mut world = World::new(13);
    let a = world.call();
    world.run(50);
    let b = world.incoming(Side::B).unwrap();
    world.tell(Side::B, Command::Progress { leg: b, sdp: sdp("early") });
    world.tell(Side::B, Command::Progress { leg: b, sdp: sdp("early") });
    world.tell(Side::B, Command::Ring { leg: b });
    world.run(50);
    let told: Vec<_> = world.events[0].clone();
    let [Event::InviteSent { leg, to }, told @ ..] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*leg, *to), (a, std::net::IpAddr::from([192, 0, 2, 2])));
    assert_eq!(told, [Event::EarlyMedia { leg: a, sdp: sdp("early") }, Event::Rang { leg: a }]);
}

#[test]
fn nothing_is_asked_of_a_leg_that_is_over() {
    let mut world = World::new(14);
    let (a, b) = world.connected();
    world.tell(Side::A, Command::HangUp { leg: a, cause: bye() });
    world.tell(Side::A, Command::Offer { leg: a, sdp: sdp("late") });
    world.tell(Side::A, Command::SendDigit { leg: a, digit: '1', duration_ms: 100 });
    world.tell(Side::A, Command::HangUp { leg: a, cause: bye() });
    world.run(1_000);
    assert_eq!((world.ends(Side::A, a), world.ends(Side::B, b)), (1, 1));
    assert_eq!((world.lines("INVITE"), world.lines("INFO"), world.lines("BYE")), (1, 0, 1));
}

//! The board, told stories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]
use super::*;
use crate::fact::OperatorState as State;
use crate::fact::{CallResult, Cause, Fields, Flow, LegState, Party, What};
use crate::report::shape::{CallState, CardState};
use crate::report::testing::{Told, board, call, cause, operator};
use crate::terms::{LegId, Number};

const DAY_MS: i64 = 86_400_000;

#[test]
fn callers_stand_in_a_queue_by_priority_then_by_time() {
    let mut told = Told::new();
    for (n, priority) in [(1, 5), (2, 0), (3, 0)] {
        told.arrives(n);
        told.at(n, What::Queued { queue: "orders".into(), priority });
    }
    let queue = told.board.queue(&"orders".into(), told.now + 10_000).unwrap();
    let places: Vec<_> = queue.callers.iter().map(|caller| (caller.call, caller.place)).collect();
    assert_eq!(places, [(call(2), 1), (call(3), 2), (call(1), 3)]);
    assert_eq!((queue.waiting, queue.today.offered), (3, 3));
    assert!(queue.longest_wait_ms >= 10_000);
}

#[test]
fn a_queue_counts_each_caller_once_whatever_happens_on_the_way() {
    let mut told = Told::new();
    told.at(0, operator("anna", State::Available, None));
    // Answered in time, after a desk that did not answer.
    told.arrives(1);
    told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
    told.at(1, What::Assigned { queue: "orders".into(), operator: "boris".into() });
    assert_eq!(told.call(1).operator, Some("boris".into()));
    told.at(
        1,
        What::Unassigned { queue: "orders".into(), operator: "boris".into(), why: "no_answer".into() },
    );
    assert_eq!((told.call(1).state, told.call(1).operator), (CallState::Queued, None));
    assert_eq!(told.orders().waiting, 1);
    told.at(1, What::Assigned { queue: "orders".into(), operator: "anna".into() });
    told.answered(1, "anna", 12_000);
    assert_eq!(told.orders().waiting, 0);
    // Abandoned after a while, told twice: by the queue and by the end.
    told.arrives(2);
    told.at(2, What::Queued { queue: "orders".into(), priority: 0 });
    told.now += 60_000;
    told.at(2, What::LeftQueue { queue: "orders".into(), why: "abandoned".into() });
    told.ends(2, CallResult::Abandoned, 0);
    // Abandoned at once.
    told.arrives(3);
    told.at(3, What::Queued { queue: "orders".into(), priority: 0 });
    told.ends(3, CallResult::Abandoned, 0);
    told.ends(1, CallResult::Answered, 30_000);
    let today = told.orders().today;
    assert_eq!((today.offered, today.answered, today.abandoned, today.short_abandoned), (3, 1, 2, 1));
    assert_eq!((today.service_level, today.asa_ms, today.aht_ms), (Some(0.5), 12_000, 30_000));
}

#[test]
fn wrap_up_counts_into_the_handling_time_and_talking_into_the_operators_day() {
    let mut told = Told::new();
    told.at(0, operator("anna", State::Available, None));
    told.arrives(1);
    told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
    told.answered(1, "anna", 1_000);
    told.at(0, operator("anna", State::Talking, Some(call(1))));
    told.now += 30_000;
    told.ends(1, CallResult::Answered, 30_000);
    told.at(0, operator("anna", State::WrapUp, None));
    told.now += 10_000;
    told.at(0, operator("anna", State::Available, None));
    let aht_ms = told.orders().today.aht_ms;
    assert!((40_000..40_100).contains(&aht_ms), "{aht_ms}");
    let anna = told.board.operator(&"anna".into(), told.now).unwrap();
    assert_eq!(anna.calls_today, 1);
    assert!((30_000..30_100).contains(&anna.talk_ms_today), "{}", anna.talk_ms_today);
    assert_eq!(told.orders().operators.available, 1);
}

#[test]
fn today_begins_anew_at_local_midnight_even_before_the_first_fact() {
    let mut told = Told::new();
    told.arrives(1);
    told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
    assert_eq!(told.orders().today.offered, 1);
    let tomorrow = told.now + DAY_MS;
    assert_eq!(told.board.queue(&"orders".into(), tomorrow).unwrap().today.offered, 0);
    told.now = tomorrow;
    told.arrives(2);
    assert_eq!(told.orders().today.offered, 0);
    assert_eq!(told.orders().waiting, 1, "whoever waits over midnight still waits");
}

#[test]
fn an_ended_call_leaves_the_board_and_stays_readable_a_while() {
    let mut told = Told::new();
    for n in 1..=MAX_RECENT as u128 + 5 {
        told.arrives(n);
        told.ends(n, CallResult::Abandoned, 0);
    }
    assert_eq!(told.board.calls(told.now), []);
    assert_eq!(told.board.call(call(1), told.now), None);
    let last = told.board.call(call(105), told.now).unwrap();
    assert_eq!((last.state, last.result), (CallState::Ended, Some(CallResult::Abandoned)));
    assert_eq!(told.board.node(told.now).calls, 0);
}

#[test]
fn silence_shows_on_the_leg_and_at_the_operators_microphone() {
    let mut told = Told::new();
    told.arrives(1);
    let leg = |id, party| What::Leg {
        leg: LegId(id),
        party,
        number: Number::default(),
        state: LegState::Up,
        codec: "PCMA".into(),
    };
    told.at(1, leg(1, Party::Trunk("gsm-1".into())));
    told.at(1, leg(2, Party::Operator("anna".into())));
    told.at(0, operator("anna", State::Talking, Some(call(1))));
    let microphone = |told: &Told| told.board.operator(&"anna".into(), told.now).unwrap().microphone;
    assert_eq!(microphone(&told), Microphone::Ok);
    told.at(1, What::MediaSilent { leg: LegId(2), flow: Flow::In, cause: "muted".into() });
    told.now += 2_000;
    assert_eq!(microphone(&told), Microphone::Silent);
    let shape = told.call(1);
    assert!(shape.legs[1].silent_in_ms.unwrap() >= 2_000 && shape.legs[0].silent_in_ms.is_none());
    told.at(1, What::MediaRecovered { leg: LegId(2), flow: Flow::In });
    assert_eq!((microphone(&told), told.call(1).legs[1].silent_in_ms), (Microphone::Ok, None));
    assert_eq!(told.board.calls_of(&"anna".into(), told.now).len(), 1);
    assert!(told.board.took_part(&"anna".into(), call(1)) && !told.board.took_part(&"boris".into(), call(1)));
    told.at(1, What::LegEnded { leg: LegId(2), cause: Cause::default() });
    assert_eq!((microphone(&told), told.call(1).legs.len()), (Microphone::None, 1));
}

#[test]
fn a_trunk_is_down_up_or_full_and_counts_its_outgoing_calls() {
    let mut told = Told::new();
    let trunk = |told: &Told| told.board.trunk(&"gsm-1".into(), told.now).unwrap();
    assert_eq!(trunk(&told).state, TrunkState::Down);
    told.at(0, What::TrunkUp { trunk: "gsm-1".into(), from: "192.0.2.7:5060".into() });
    told.at(0, What::TrunkLoad { trunk: "gsm-1".into(), busy: 2 });
    assert_eq!((trunk(&told).state, trunk(&told).busy), (TrunkState::Full, 2));
    told.at(0, What::TrunkLoad { trunk: "gsm-1".into(), busy: 1 });
    assert_eq!((trunk(&told).state, trunk(&told).asr), (TrunkState::Up, None));
    told.at(1, What::TrunkFailed { trunk: "gsm-1".into(), cause: cause(503, "no channel") });
    told.dials(1, "anna");
    told.answered(1, "anna", 5_000);
    told.ends(1, CallResult::Answered, 9_000);
    let shape = trunk(&told);
    assert_eq!((shape.asr, shape.last_error.as_str(), shape.false_answers), (Some(0.5), "no channel", 0));
    told.dials(2, "anna");
    told.ends(2, CallResult::Busy, 0);
    told.dials(3, "anna");
    let (party, number) = (Party::Trunk("gsm-1".into()), Number::default());
    told.at(3, What::Leg { leg: LegId(9), party, number, state: LegState::Up, codec: String::new() });
    told.answered(3, "anna", 5_000);
    told.at(3, What::MediaSilent { leg: LegId(9), flow: Flow::In, cause: "nothing comes".into() });
    told.ends(3, CallResult::Answered, 9_000);
    assert_eq!((trunk(&told).asr, trunk(&told).false_answers), (Some(0.5), 1));
    told.at(0, What::TrunkDown { trunk: "gsm-1".into(), why: "registration ran out".into() });
    assert_eq!(
        (trunk(&told).state, trunk(&told).last_error.as_str()),
        (TrunkState::Down, "registration ran out")
    );
}

#[test]
fn a_card_goes_from_desk_to_desk_and_away() {
    let mut told = Told::new();
    told.arrives(1);
    told.card(1, "anna");
    let id = CardId(call(1).0);
    told.at(1, What::CardMoved { card: id, operator: "boris".into() });
    assert_eq!(
        (told.board.cards_of(&"anna".into()).len(), told.board.cards_of(&"boris".into()).len()),
        (0, 1)
    );
    told.at(1, What::CardCustomer { card: id, customer: r#"{"name":"Olena"}"#.into() });
    let fields: Fields = [("pickup".to_owned(), "Main st. 1".to_owned())].into();
    told.at(1, What::CardSubmitted { card: id, operator: "boris".into(), fields });
    assert_eq!(told.board.card(id).unwrap().state, CardState::Saving);
    told.at(1, What::CardAccepted { card: id });
    told.board.set_order(id, "17");
    assert_eq!(told.board.cards(), []);
    let card = told.board.card(id).unwrap();
    assert_eq!((card.state, card.order.as_deref()), (CardState::Accepted, Some("17")));
    assert_eq!(card.customer.unwrap()["name"], "Olena");
    assert_eq!(told.call(1).card, Some(id));
}

#[test]
fn a_new_configuration_keeps_what_is_alive() {
    let mut told = Told::new();
    told.arrives(1);
    told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
    let mut roster = board().roster;
    roster.queues.push(QueueKnown { name: "seniors".into(), service_level_ms: 1, short_abandon_ms: 1 });
    roster.trunks.clear();
    told.board.reload(roster);
    let waiting: Vec<usize> = told.board.queues(told.now).iter().map(|queue| queue.waiting).collect();
    assert_eq!((waiting, told.board.trunks(told.now)), (vec![1, 0], vec![]));
}

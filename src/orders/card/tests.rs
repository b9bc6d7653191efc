//! Cards, asked and told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
use super::*;
use uuid::Uuid;

const NOW: Now = Now { mono_ms: 10, wall_ms: 1_000 };

fn card(n: u128) -> CardId {
    CardId(Uuid::from_u128(n))
}

fn call(n: u128) -> CallId {
    CallId(Uuid::from_u128(1_000 + n))
}

fn open(n: u128, operator: &str) -> Input {
    Input::Open(Open {
        card: card(n),
        call: call(n),
        caller: Number::new("+380671234567"),
        line: Number::new("+380441234567"),
        trunk: Some("gsm-1".into()),
        queue: Some("orders".into()),
        operator: operator.into(),
    })
}

fn fields(pickup: &str) -> Fields {
    [("pickup".to_owned(), pickup.to_owned())].into()
}

fn drain(cards: &mut Cards) -> (Vec<What>, Vec<Answer>) {
    let (mut facts, mut answers) = (Vec::new(), Vec::new());
    while let Some(output) = cards.poll() {
        match output {
            Output::Fact { what, .. } => facts.push(what),
            Output::Answer { answer, .. } => answers.push(answer),
            Output::Record(_) => {}
        }
    }
    (facts, answers)
}

fn submit(n: u128, operator: &str, fields: Option<Fields>) -> Input {
    Input::Submit(Submit { request: RequestId(1), card: card(n), operator: operator.into(), fields })
}

fn discard(n: u128, reason: &str) -> Input {
    Input::Discard { request: RequestId(2), card: card(n), operator: "anna".into(), reason: reason.into() }
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Refused(refusal) => refusal.status,
        Answer::Ok | Answer::Saving | Answer::Accepted => 200,
    }
}

fn opened() -> Cards {
    let mut cards = Cards::new();
    cards.handle(open(1, "anna"), NOW);
    drain(&mut cards);
    cards
}

#[test]
fn a_submitted_card_is_accepted_only_when_its_fact_is_durable() {
    let mut cards = opened();
    cards.handle(submit(1, "anna", Some(fields("Main st. 1"))), NOW);
    let (facts, answers) = drain(&mut cards);
    assert!(matches!(facts.as_slice(), [What::CardSubmitted { .. }]));
    assert_eq!(answers, [Answer::Saving]);
    cards.handle(Input::Numbered { card: card(1), seq: 7 }, NOW);
    cards.handle(Input::Stored { seq: 6 }, NOW);
    assert_eq!(drain(&mut cards).0, []);
    cards.handle(Input::Stored { seq: 9 }, NOW);
    assert_eq!(drain(&mut cards).0, [What::CardAccepted { card: card(1) }]);
    cards.handle(Input::Stored { seq: 10 }, NOW);
    assert_eq!(drain(&mut cards).0, []);
}

#[test]
fn the_same_submit_again_gets_the_same_answer_and_no_second_fact() {
    let mut cards = opened();
    cards.handle(submit(1, "anna", Some(fields("A"))), NOW);
    drain(&mut cards);
    cards.handle(submit(1, "anna", Some(fields("A"))), NOW);
    assert_eq!(drain(&mut cards), (vec![], vec![Answer::Saving]));
    cards.handle(Input::Numbered { card: card(1), seq: 1 }, NOW);
    cards.handle(Input::Stored { seq: 1 }, NOW);
    drain(&mut cards);
    cards.handle(submit(1, "anna", None), NOW);
    assert_eq!(drain(&mut cards), (vec![], vec![Answer::Accepted]));
    cards.handle(submit(1, "anna", Some(fields("B"))), NOW);
    assert_eq!(status(&drain(&mut cards).1[0]), 409);
}

#[test]
fn questions_that_do_not_fit_are_refused_in_words() {
    let long = fields(&"x".repeat(MAX_FIELD_CHARS + 1));
    let odd: Fields = [("colour".to_owned(), "red".to_owned())].into();
    let table = [
        (submit(9, "anna", Some(fields("A"))), 404, "unknown_card"),
        (submit(1, "boris", Some(fields("A"))), 403, "not_your_card"),
        (submit(1, "anna", Some(long)), 422, "field_too_long"),
        (submit(1, "anna", Some(odd)), 422, "unknown_field"),
        (submit(1, "anna", Some(fields("  "))), 422, "empty_card"),
        (discard(1, "bored"), 422, "unknown_reason"),
        (discard(1, ABANDONED), 422, "unknown_reason"),
    ];
    for (input, status, code) in table {
        let mut cards = opened();
        cards.handle(input.clone(), NOW);
        let (facts, answers) = drain(&mut cards);
        let Answer::Refused(refusal) = &answers[0] else { panic!("{input:?} was not refused") };
        assert_eq!((refusal.status, refusal.code, facts.len()), (status, code, 0), "{input:?}");
        assert!(!refusal.words.is_empty());
    }
}

#[test]
fn a_discarded_card_is_not_submitted_and_discarding_again_is_the_same() {
    let mut cards = opened();
    cards.handle(discard(1, "fake"), NOW);
    assert_eq!(drain(&mut cards).1, [Answer::Ok]);
    cards.handle(discard(1, "fake"), NOW);
    assert_eq!(drain(&mut cards), (vec![], vec![Answer::Ok]));
    cards.handle(submit(1, "anna", Some(fields("A"))), NOW);
    assert_eq!(status(&drain(&mut cards).1[0]), 409);
}

#[test]
fn an_abandoned_call_takes_only_an_untouched_card_with_it() {
    let mut cards = opened();
    cards.handle(open(2, "anna"), NOW);
    let typed = Input::Update {
        request: RequestId(3),
        card: card(2),
        operator: "anna".into(),
        fields: fields("Main st. 1"),
    };
    cards.handle(typed, NOW);
    drain(&mut cards);
    for n in [1, 2] {
        cards.handle(Input::CallEnded { call: call(n), abandoned: true }, NOW);
    }
    assert_eq!(drain(&mut cards).0, [What::CardDiscarded { card: card(1), reason: ABANDONED.into() }]);
    assert_eq!(cards.on_desk(&"anna".into()), [card(2)]);
}

#[test]
fn a_call_has_one_card_which_follows_it_to_the_next_desk() {
    let mut cards = opened();
    let Input::Open(mut again) = open(1, "boris") else { unreachable!() };
    again.card = card(77);
    cards.handle(Input::Open(again), NOW);
    assert_eq!(drain(&mut cards).0, [What::CardMoved { card: card(1), operator: "boris".into() }]);
    assert_eq!(cards.of_call(call(1)), Some(card(1)));
    cards.handle(submit(1, "anna", Some(fields("A"))), NOW);
    assert_eq!(status(&drain(&mut cards).1[0]), 403);
}

#[test]
fn a_successor_records_a_card_again_that_was_being_saved() {
    let mut cards = opened();
    cards.handle(submit(1, "anna", Some(fields("A"))), NOW);
    let mut records = Vec::new();
    while let Some(output) = cards.poll() {
        if let Output::Record(record) = output {
            records.push(record);
        }
    }
    records.push(Record::put("call/other", &1, NOW));
    let mut next = Cards::restore(&records).unwrap();
    let (facts, _) = drain(&mut next);
    assert!(matches!(facts.as_slice(), [What::CardSubmitted { .. }]));
    next.handle(Input::Stored { seq: 1_000 }, NOW);
    assert_eq!(drain(&mut next).0, []);
    next.handle(Input::Numbered { card: card(1), seq: 1_001 }, NOW);
    next.handle(Input::Stored { seq: 1_001 }, NOW);
    assert_eq!(drain(&mut next).0.len(), 1);
    assert_eq!(next.records(NOW).len(), 1);
}

#[test]
fn after_a_restart_drafts_come_back_and_closed_cards_still_answer() {
    let kept = |n: u128, state| Kept {
        card: card(n),
        call: call(n),
        caller: Number::default(),
        line: Number::default(),
        trunk: None,
        queue: None,
        operator: "anna".into(),
        fields: fields("A"),
        state,
    };
    let states = [KeptState::Accepted, KeptState::Discarded { reason: "fake".into() }, KeptState::Draft];
    let kept = states.into_iter().zip(1..).map(|(state, n)| kept(n, state)).collect();
    let mut cards = Cards::resume(kept, NOW);
    let (facts, _) = drain(&mut cards);
    assert!(matches!(facts.as_slice(), [What::CardOpened { .. }, What::CardUpdated { .. }]), "{facts:?}");
    let answers: Vec<Answer> = (1..=3)
        .map(|n| {
            cards.handle(submit(n, "anna", Some(fields("A"))), NOW);
            drain(&mut cards).1.remove(0)
        })
        .collect();
    assert_eq!((&answers[0], status(&answers[1]), &answers[2]), (&Answer::Accepted, 409, &Answer::Saving));
    assert_eq!(cards.records(NOW).len(), 3);
}

#[test]
fn closed_cards_are_forgotten_in_the_end_with_a_tombstone() {
    let mut cards = Cards::new();
    for n in 0..=MAX_CLOSED as u128 {
        cards.handle(open(n, "anna"), NOW);
        cards.handle(Input::CallEnded { call: call(n), abandoned: true }, NOW);
    }
    let mut gone = Vec::new();
    while let Some(output) = cards.poll() {
        if let Output::Record(Record { key, value: None }) = output {
            gone.push(key);
        }
    }
    assert_eq!(gone, [key(card(0))]);
    assert_eq!(cards.of_call(call(0)), None);
}

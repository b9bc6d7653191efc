#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::fact::OperatorState;

pub(super) fn call(number: u64) -> CallId {
    CallId(Uuid::from_u128(u128::from(number)))
}

pub(super) fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_700_000_000_000 + ms as i64 }
}

/// A floor with a clock, and what it said since the last look.
struct Stage {
    floor: Floor,
    now_ms: u64,
}

impl Stage {
    fn new(queues: Vec<QueueConfig>) -> Self {
        Self { floor: Floor::new(queues), now_ms: 1_000 }
    }

    fn tell(&mut self, input: FloorInput) -> Vec<FloorEvent> {
        self.floor.handle(input, at(self.now_ms));
        self.said()
    }

    fn said(&mut self) -> Vec<FloorEvent> {
        let floor = &mut self.floor;
        std::iter::from_fn(|| floor.poll())
            .filter(|event| !matches!(event, FloorEvent::Operator(_)))
            .collect()
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, ms: u64) -> Vec<FloorEvent> {
        let end = self.now_ms + ms;
        let mut said = Vec::new();
        while let Some(next) = self.floor.next_timeout().filter(|next| *next <= end) {
            self.now_ms = next;
            self.floor.handle_timeout(at(next));
            said.extend(self.said());
            assert!(self.floor.next_timeout().is_none_or(|again| again > next), "a timer that does not go");
        }
        self.now_ms = end;
        said
    }

    /// An operator with a phone who is available for `orders`.
    fn on_shift(&mut self, name: &str) -> Vec<FloorEvent> {
        let operator = OperatorName::from(name);
        self.tell(FloorInput::Serves { operator: operator.clone(), queues: vec!["orders".into()] });
        self.tell(FloorInput::Phone { operator, phone: Phone::Registered });
        self.wants(name, Wanted::Available)
    }

    fn wants(&mut self, name: &str, wanted: Wanted) -> Vec<FloorEvent> {
        self.tell(FloorInput::Ask { operator: name.into(), wanted, reason: String::new() })
    }

    fn waits(&mut self, number: u64) -> Vec<FloorEvent> {
        self.waits_as(number, "", 0, None)
    }

    fn waits_as(
        &mut self,
        number: u64,
        caller: &str,
        priority: i32,
        wait_ms: Option<u64>,
    ) -> Vec<FloorEvent> {
        let (call, caller) = (call(number), Number::new(caller));
        self.tell(FloorInput::Enqueue {
            call,
            queue: "orders".into(),
            caller,
            priority,
            wait_ms,
            since: None,
        })
    }

    fn answers(&mut self, number: u64, name: &str) -> Vec<FloorEvent> {
        self.tell(FloorInput::Answered { call: call(number), operator: name.into() })
    }

    fn hangs_up(&mut self, number: u64, name: &str) -> Vec<FloorEvent> {
        self.tell(FloorInput::CallEnded { call: call(number), operator: name.into() })
    }

    fn refuses(&mut self, number: u64, name: &str, why: NotAnswered) -> Vec<FloorEvent> {
        self.tell(FloorInput::Refused { call: call(number), operator: name.into(), why })
    }

    fn state(&self, name: &str) -> OperatorState {
        self.floor.operator(&name.into()).unwrap().state
    }
}

fn assigned(number: u64, name: &str) -> FloorEvent {
    FloorEvent::Assigned { call: call(number), queue: "orders".into(), operator: name.into() }
}

fn unassigned(number: u64, name: &str, why: NotAnswered) -> FloorEvent {
    FloorEvent::Unassigned { call: call(number), queue: "orders".into(), operator: name.into(), why }
}

fn left(number: u64, why: LeftWhy) -> FloorEvent {
    FloorEvent::Left { call: call(number), queue: "orders".into(), why }
}

fn not_queued(number: u64, why: NotQueuedWhy) -> FloorEvent {
    FloorEvent::NotQueued { call: call(number), queue: "orders".into(), why }
}

fn orders(change: impl FnOnce(&mut QueueConfig)) -> Stage {
    let mut queue = QueueConfig::default();
    change(&mut queue);
    Stage::new(vec![queue])
}

#[test]
fn a_call_goes_through_ringing_talking_and_wrap_up() {
    let mut stage = orders(|_| {});
    assert_eq!(stage.on_shift("anna"), []);
    assert_eq!(stage.waits(1), [assigned(1, "anna")]);
    assert_eq!(stage.state("anna"), OperatorState::Ringing);
    assert_eq!(stage.answers(1, "anna"), []);
    assert_eq!(stage.state("anna"), OperatorState::Talking);
    assert!(stage.floor.ticket(call(1)).is_none());
    stage.pass(60_000);
    stage.hangs_up(1, "anna");
    let standing = stage.floor.operator(&"anna".into()).unwrap();
    assert_eq!(standing.state, OperatorState::WrapUp);
    assert_eq!(standing.wrap_up_until, Some(at(stage.now_ms + 10_000).wall_ms));
    assert_eq!(standing.since, at(stage.now_ms).wall_ms);
    assert_eq!(stage.waits(2), [], "nobody is given a call in the wrap-up");
    assert_eq!(stage.pass(9_999), []);
    assert_eq!(stage.pass(1), [assigned(2, "anna")]);
}

#[test]
fn whoever_has_been_idle_for_longest_is_next() {
    let mut stage = orders(|queue| queue.wrap_up_ms = 0);
    for name in ["anna", "boris", "vera"] {
        stage.pass(100);
        stage.on_shift(name);
    }
    assert_eq!(stage.waits(1), [assigned(1, "anna")]);
    stage.answers(1, "anna");
    stage.pass(100);
    stage.hangs_up(1, "anna");
    assert_eq!(stage.waits(2), [assigned(2, "boris")]);
    assert_eq!(stage.waits(3), [assigned(3, "vera")]);
    assert_eq!(stage.waits(4), [assigned(4, "anna")]);
}

#[test]
fn callers_are_served_by_priority_and_then_by_time() {
    let mut stage = orders(|queue| queue.wrap_up_ms = 0);
    stage.waits_as(1, "", 0, None);
    stage.pass(10);
    stage.waits_as(2, "", 5, None);
    stage.pass(10);
    stage.waits_as(3, "", -5, None);
    stage.pass(10);
    stage.waits_as(4, "", 0, None);
    let line: Vec<CallId> = stage.floor.line(&"orders".into()).iter().map(|ticket| ticket.call).collect();
    assert_eq!(line, [3, 1, 4, 2].map(call));
    assert_eq!(stage.floor.place(call(4)).unwrap().place, 3);
    assert_eq!(stage.on_shift("anna"), [assigned(3, "anna")]);
    for (now, next) in [(3, 1), (1, 4), (4, 2)] {
        stage.answers(now, "anna");
        assert_eq!(stage.hangs_up(now, "anna"), [assigned(next, "anna")]);
    }
}

#[test]
fn a_weightier_queue_is_served_first() {
    let vip = QueueConfig { weight: 1, ..QueueConfig::named("vip") };
    let mut stage = Stage::new(vec![QueueConfig::default(), vip]);
    stage.waits(1);
    let (queue, caller) = (QueueName::from("vip"), Number::default());
    stage.tell(FloorInput::Enqueue {
        call: call(2),
        queue: queue.clone(),
        caller,
        priority: 0,
        wait_ms: None,
        since: None,
    });
    stage.tell(FloorInput::Serves { operator: "anna".into(), queues: vec!["orders".into(), queue.clone()] });
    stage.tell(FloorInput::Phone { operator: "anna".into(), phone: Phone::Registered });
    let said = stage.wants("anna", Wanted::Available);
    assert_eq!(said, [FloorEvent::Assigned { call: call(2), queue, operator: "anna".into() }]);
}

#[test]
fn a_caller_who_was_not_answered_keeps_his_place_and_is_offered_to_somebody_else() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.pass(10);
    stage.on_shift("boris");
    stage.waits(1);
    stage.pass(5);
    stage.waits(2);
    stage.refuses(2, "boris", NotAnswered::Rejected);
    let said = stage.pass(15_000 - 5);
    // Boris rests after his refusal until second 5, then takes caller 2 again; anna's ring runs out at 15.
    assert_eq!(said[0], assigned(2, "boris"));
    assert_eq!(said[1], unassigned(1, "anna", NotAnswered::NoAnswer));
    assert_eq!(said[2], assigned(1, "anna"), "only anna is free");
    assert_eq!(stage.floor.line(&"orders".into())[0].call, call(1));
}

#[test]
fn another_operator_is_asked_first_while_one_is_free() {
    let mut stage = orders(|_| {});
    for name in ["anna", "boris"] {
        stage.on_shift(name);
        stage.pass(10);
    }
    assert_eq!(stage.waits(1), [assigned(1, "anna")]);
    assert_eq!(stage.pass(15_000), [unassigned(1, "anna", NotAnswered::NoAnswer), assigned(1, "boris")]);
    assert_eq!(stage.pass(15_000), [unassigned(1, "boris", NotAnswered::NoAnswer), assigned(1, "anna")]);
}

#[test]
fn two_calls_without_an_answer_pause_an_operator() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    stage.pass(30_000);
    let standing = stage.floor.operator(&"anna".into()).unwrap();
    assert_eq!((standing.state, standing.reason.as_str()), (OperatorState::Paused, "no answer"));
    assert_eq!(stage.wants("anna", Wanted::Available), [assigned(1, "anna")]);
    // An answer in between begins the count again.
    stage.pass(15_000);
    stage.answers(1, "anna");
    stage.hangs_up(1, "anna");
    stage.waits(2);
    assert_eq!(stage.pass(10_000), [assigned(2, "anna")]);
    stage.pass(15_000);
    assert_eq!(stage.state("anna"), OperatorState::Ringing);
}

#[test]
fn with_never_nobody_is_paused() {
    let mut stage = orders(|queue| queue.no_answer = NoAnswer::Never);
    stage.on_shift("anna");
    stage.waits(1);
    stage.pass(150_000);
    assert_eq!(stage.state("anna"), OperatorState::Ringing);
}

#[test]
fn a_phone_that_is_lost_while_it_rings_gives_the_caller_back_and_does_not_pause() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    let lost = FloorInput::Phone { operator: "anna".into(), phone: Phone::Lost };
    assert_eq!(stage.tell(lost), [unassigned(1, "anna", NotAnswered::Unreachable)]);
    let standing = stage.floor.operator(&"anna".into()).unwrap();
    assert_eq!((standing.state, standing.phone), (OperatorState::Available, Phone::Lost));
    assert_eq!(stage.pass(60_000), [], "nobody is called whose phone is lost");
    let back = FloorInput::Phone { operator: "anna".into(), phone: Phone::Registered };
    assert_eq!(stage.tell(back), [assigned(1, "anna")]);
}

#[test]
fn an_operator_who_refuses_is_left_alone_for_a_moment() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    assert_eq!(
        stage.refuses(1, "anna", NotAnswered::Rejected),
        [unassigned(1, "anna", NotAnswered::Rejected)]
    );
    assert_eq!(stage.pass(REST_MS - 1), []);
    assert_eq!(stage.pass(1), [assigned(1, "anna")]);
    // Unless he says that he is there, or his phone is a new one.
    stage.refuses(1, "anna", NotAnswered::Rejected);
    assert_eq!(stage.wants("anna", Wanted::Available), [assigned(1, "anna")]);
    stage.refuses(1, "anna", NotAnswered::Unreachable);
    let phone = |phone| FloorInput::Phone { operator: "anna".into(), phone };
    assert_eq!(stage.tell(phone(Phone::Registered)), [], "it only registered again");
    stage.tell(phone(Phone::Lost));
    assert_eq!(stage.tell(phone(Phone::Registered)), [assigned(1, "anna")]);
}

#[test]
fn what_is_asked_for_during_a_call_shows_after_it() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    stage.answers(1, "anna");
    stage.wants("anna", Wanted::Paused);
    assert_eq!(stage.state("anna"), OperatorState::Talking);
    stage.hangs_up(1, "anna");
    assert_eq!(stage.state("anna"), OperatorState::WrapUp);
    stage.waits(2);
    assert_eq!(stage.pass(10_000), []);
    assert_eq!(stage.state("anna"), OperatorState::Paused);
    stage.wants("anna", Wanted::Available);
    stage.answers(2, "anna");
    stage.wants("anna", Wanted::Offline);
    stage.hangs_up(2, "anna");
    assert_eq!(stage.state("anna"), OperatorState::Offline);
}

#[test]
fn available_pressed_in_the_wrap_up_ends_it() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    stage.answers(1, "anna");
    stage.hangs_up(1, "anna");
    stage.waits(2);
    assert_eq!(stage.wants("anna", Wanted::Available), [assigned(2, "anna")]);
}

#[test]
fn an_operator_who_dials_is_busy_and_comes_back_to_where_he_was() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.wants("anna", Wanted::Paused);
    assert!(stage.floor.can_dial(&"anna".into()));
    stage.tell(FloorInput::OwnCall { operator: "anna".into(), call: call(9) });
    assert!(!stage.floor.can_dial(&"anna".into()));
    assert_eq!(stage.state("anna"), OperatorState::Ringing);
    stage.answers(9, "anna");
    assert_eq!(stage.state("anna"), OperatorState::Talking);
    stage.wants("anna", Wanted::Available);
    assert_eq!(stage.waits(1), []);
    assert_eq!(stage.hangs_up(9, "anna"), [assigned(1, "anna")], "no wrap-up after his own call");
    stage.tell(FloorInput::OwnCall { operator: "anna".into(), call: call(10) });
    assert_eq!(stage.floor.ignored(), 1);
}

#[test]
fn a_caller_waits_no_longer_than_the_step_says() {
    let mut stage = orders(|_| {});
    stage.waits_as(1, "", 0, Some(90_000));
    stage.waits_as(2, "", 0, None);
    stage.waits_as(3, "", 0, Some(0));
    assert_eq!(stage.pass(89_999), []);
    assert_eq!(stage.pass(1), [left(1, LeftWhy::Timeout)]);
    assert_eq!(stage.pass(300_000), [left(2, LeftWhy::Timeout)]);
    assert!(stage.floor.ticket(call(3)).is_some());
}

#[test]
fn a_ringing_call_is_not_taken_away_when_the_wait_ends() {
    let mut stage = orders(|_| {});
    stage.waits_as(1, "", 0, Some(20_000));
    stage.pass(10_000);
    stage.on_shift("anna");
    assert_eq!(stage.pass(14_999), []);
    assert_eq!(stage.pass(1), [unassigned(1, "anna", NotAnswered::NoAnswer), left(1, LeftWhy::Timeout)]);
}

#[test]
fn a_caller_who_leaves_frees_the_operator_whose_phone_rang() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    stage.waits(2);
    let said = stage.tell(FloorInput::Leave { call: call(1), abandoned: true });
    assert_eq!(said, [unassigned(1, "anna", NotAnswered::CallerGone), assigned(2, "anna")]);
}

#[test]
fn who_is_back_soon_has_his_place_again() {
    let mut stage = orders(|_| {});
    stage.waits_as(1, "+380671234567", 0, None);
    stage.pass(20_000);
    stage.waits_as(2, "+380501234567", 0, None);
    stage.tell(FloorInput::Leave { call: call(1), abandoned: true });
    stage.pass(30_000);
    stage.waits_as(3, "+380671234567", 0, None);
    assert_eq!(stage.floor.place(call(3)).unwrap().place, 1);
    // The place is kept once, and not for ever.
    stage.waits_as(4, "+380671234567", 0, None);
    assert_eq!(stage.floor.place(call(4)).unwrap().place, 3);
    stage.tell(FloorInput::Leave { call: call(2), abandoned: true });
    stage.pass(60_000);
    stage.waits_as(5, "+380501234567", 0, None);
    assert_eq!(stage.floor.place(call(5)).unwrap().place, 3);
}

#[test]
fn a_full_or_empty_queue_lets_nobody_in() {
    let mut stage = orders(|queue| queue.max_length = 1);
    stage.waits(1);
    assert_eq!(stage.waits(2), [not_queued(2, NotQueuedWhy::Full)]);
    let mut stage = orders(|queue| queue.join_empty = false);
    assert_eq!(stage.waits(1), [not_queued(1, NotQueuedWhy::Empty)]);
    stage.on_shift("anna");
    stage.wants("anna", Wanted::Paused);
    assert_eq!(stage.waits(2), [], "paused is on shift");
    let mut stage = Stage::new(vec![]);
    assert_eq!(stage.waits(1), [not_queued(1, NotQueuedWhy::Unknown)]);
}

#[test]
fn callers_leave_when_the_last_operator_goes_home_if_the_queue_says_so() {
    let mut stage = orders(|queue| queue.leave_empty = true);
    stage.on_shift("anna");
    stage.wants("anna", Wanted::Paused);
    stage.waits(1);
    assert_eq!(stage.wants("anna", Wanted::Offline), [left(1, LeftWhy::Empty)]);
}

#[test]
fn a_queue_that_is_not_configured_any_more_lets_its_callers_go() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    stage.waits(2);
    let said = stage.tell(FloorInput::SetQueues(vec![QueueConfig::named("other")]));
    assert_eq!(said, [left(2, LeftWhy::Closed)], "a ringing call may still be answered");
    stage.answers(1, "anna");
    stage.hangs_up(1, "anna");
    assert_eq!(stage.state("anna"), OperatorState::Available);
}

#[test]
fn the_expected_wait_follows_from_what_calls_took() {
    let mut stage = orders(|queue| queue.wrap_up_ms = 10_000);
    stage.on_shift("anna");
    stage.waits(1);
    stage.answers(1, "anna");
    stage.pass(50_000);
    stage.waits(2);
    assert_eq!(stage.floor.place(call(2)).unwrap().expected_wait_ms, None);
    stage.hangs_up(1, "anna");
    assert_eq!(stage.floor.place(call(2)).unwrap(), Place { place: 1, expected_wait_ms: Some(60_000) });
}

#[test]
fn every_change_of_an_operator_is_said_once() {
    let mut floor = Floor::new(vec![QueueConfig::default()]);
    let serves = FloorInput::Serves { operator: "anna".into(), queues: vec!["orders".into()] };
    floor.handle(serves.clone(), at(0));
    let Some(FloorEvent::Operator(standing)) = floor.poll() else { panic!("nothing said") };
    assert_eq!(standing, floor.operator(&"anna".into()).unwrap());
    floor.handle(serves, at(5));
    assert_eq!(floor.poll(), None, "nothing changed");
    floor.handle(FloorInput::AutoAnswer { operator: "anna".into(), on: false }, at(9));
    let Some(FloorEvent::Operator(standing)) = floor.poll() else { panic!("nothing said") };
    assert_eq!((standing.auto_answer, standing.since), (false, at(0).wall_ms));
}

#[test]
fn a_restored_floor_goes_on_with_the_time_that_was_left() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    stage.pass(5_000);
    stage.waits(2);
    let mut book = Book::default();
    book.write(&mut stage.floor, at(stage.now_ms));
    // Half a second later, in a process whose clock has just begun.
    let now = Now { mono_ms: 7, wall_ms: at(stage.now_ms + 500).wall_ms };
    let mut floor = book.read(vec![QueueConfig::default()], now);
    assert_eq!(floor.next_timeout(), Some(7 + 15_000 - 5_000 - 500));
    let line: Vec<CallId> = floor.line(&"orders".into()).iter().map(|ticket| ticket.call).collect();
    assert_eq!(line, [1, 2].map(call));
    floor.handle(FloorInput::Answered { call: call(1), operator: "anna".into() }, now);
    assert_eq!(floor.operator(&"anna".into()).unwrap().state, OperatorState::Talking);
}

#[test]
fn records_that_contradict_each_other_leave_the_caller_waiting_and_the_operator_free() {
    let mut stage = orders(|_| {});
    stage.on_shift("anna");
    stage.waits(1);
    let mut book = Book::default();
    book.write(&mut stage.floor, at(stage.now_ms));
    for missing in ["acd/ticket/", "acd/operator/"] {
        let mut book = book.clone();
        book.0.retain(|key, _| !key.starts_with(missing));
        let floor = book.read(vec![QueueConfig::default()], at(stage.now_ms));
        assert!(floor.operators().all(|one| one.state == OperatorState::Available));
        assert!(floor.line(&"orders".into()).iter().all(|ticket| ticket.offered.is_none()));
    }
}

#[test]
fn a_damaged_record_is_refused() {
    let mut stage = orders(|_| {});
    stage.waits(1);
    let records = stage.floor.records(at(0));
    assert_eq!(stage.floor.records(at(0)), [], "a batch is handed over once");
    let bytes = records[0].value.clone().unwrap();
    let restore = |key: &str, bytes: &[u8]| Floor::restore(vec![], [(key, bytes)], at(0)).map(drop);
    assert!(restore(&records[0].key, &bytes).is_ok());
    assert!(matches!(restore(&records[0].key, &bytes[..bytes.len() / 2]), Err(RestoreError::Record { .. })));
    assert!(matches!(restore("call/1", &bytes), Err(RestoreError::Key(_))));
}

/// What a standby holds: the records by key.
#[derive(Default, Clone)]
pub(super) struct Book(BTreeMap<String, Vec<u8>>);

impl Book {
    pub(super) fn write(&mut self, floor: &mut Floor, now: Now) {
        for record in floor.records(now) {
            match record.value {
                Some(bytes) => self.0.insert(record.key, bytes),
                None => self.0.remove(&record.key),
            };
        }
    }

    pub(super) fn read(&self, queues: Vec<QueueConfig>, now: Now) -> Floor {
        Floor::restore(queues, self.0.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice())), now)
            .unwrap()
    }
}

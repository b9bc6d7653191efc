//! The floor's laws, under random inputs, time and crashes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::acd::operator::{Operator, Work};
use crate::acd::tests::{Book, at, call};
use crate::acd::{
    Floor, FloorEvent, FloorInput, NoAnswer, NotAnswered, QueueConfig, Standing, Ticket, Wanted,
};
use crate::fact::Phone;
use crate::terms::{CallId, Now, Number, OperatorName, QueueName};

/// Something random.
#[derive(Debug, Clone)]
enum Chance {
    Tell(FloorInput),
    Pass(u64),
    /// The call of this operator goes on as calls do: it is answered, or it ends.
    Answer(usize),
    End(usize),
    /// Crash; so many of the last batches did not reach the standby.
    Restore {
        lost: usize,
        clock_ms: u64,
        gap_ms: u64,
    },
}

const QUEUES: [&str; 2] = ["orders", "vip"];

fn configs(strict: bool) -> Vec<QueueConfig> {
    let vip = QueueConfig {
        weight: 1,
        max_length: 3,
        join_empty: !strict,
        leave_empty: strict,
        no_answer: NoAnswer::Never,
        ..QueueConfig::named("vip")
    };
    vec![QueueConfig::default(), vip]
}

fn chance() -> impl Strategy<Value = Chance> {
    let operator = prop::sample::select(vec!["anna", "boris", "vera"]).prop_map(OperatorName::from);
    let queue = prop::sample::select(QUEUES.to_vec()).prop_map(QueueName::from);
    let a_call = (0_u64..8).prop_map(call);
    let own_call = (100_u64..103).prop_map(call);
    let wanted =
        prop::sample::select(vec![Wanted::Available, Wanted::Available, Wanted::Paused, Wanted::Offline]);
    let phone = prop::sample::select(vec![Phone::Registered, Phone::Registered, Phone::Lost, Phone::None]);
    let why = prop::sample::select(vec![
        NotAnswered::NoAnswer,
        NotAnswered::Rejected,
        NotAnswered::Unreachable,
        NotAnswered::CallerGone,
    ]);
    let caller = prop::sample::select(vec!["", "+380671234567"]).prop_map(Number::new);
    let any_call = prop_oneof![a_call.clone(), own_call.clone()];
    let tell = prop_oneof![
        (operator.clone(), prop::collection::vec(queue.clone(), 0..3))
            .prop_map(|(operator, queues)| FloorInput::Serves { operator, queues }),
        (operator.clone(), wanted).prop_map(|(operator, wanted)| FloorInput::Ask {
            operator,
            wanted,
            reason: "lunch".into()
        }),
        (operator.clone(), phone).prop_map(|(operator, phone)| FloorInput::Phone { operator, phone }),
        (a_call.clone(), queue, caller, -1_i32..2, prop::option::of(0_u64..60_000)).prop_map(
            |(call, queue, caller, priority, wait_ms)| FloorInput::Enqueue {
                call,
                queue,
                caller,
                priority,
                wait_ms,
                since: None
            }
        ),
        (a_call.clone(), any::<bool>()).prop_map(|(call, abandoned)| FloorInput::Leave { call, abandoned }),
        (any_call.clone(), operator.clone())
            .prop_map(|(call, operator)| FloorInput::Answered { call, operator }),
        (any_call.clone(), operator.clone())
            .prop_map(|(call, operator)| FloorInput::CallEnded { call, operator }),
        (a_call, operator.clone(), why).prop_map(|(call, operator, why)| FloorInput::Refused {
            call,
            operator,
            why
        }),
        (own_call, operator).prop_map(|(call, operator)| FloorInput::OwnCall { operator, call }),
        any::<bool>().prop_map(|strict| FloorInput::SetQueues(configs(strict))),
        Just(FloorInput::SetQueues(vec![QueueConfig::default()])),
    ];
    prop_oneof![
        12 => tell.prop_map(Chance::Tell),
        4 => (0_u64..20_000).prop_map(Chance::Pass),
        2 => (0_usize..3).prop_map(Chance::Answer),
        2 => (0_usize..3).prop_map(Chance::End),
        1 => (0_usize..3, 0_u64..1_000_000, 0_u64..3_000)
            .prop_map(|(lost, clock_ms, gap_ms)| Chance::Restore { lost, clock_ms, gap_ms }),
    ]
}

/// What the call of the operator with this number says next, if he has one.
fn goes_on(floor: &Floor, chance: &Chance) -> Option<FloorInput> {
    let his = |index: usize| floor.operators().nth(index).and_then(|one| Some((one.call?, one.operator)));
    match chance {
        Chance::Answer(index) => his(*index).map(|(call, operator)| FloorInput::Answered { call, operator }),
        Chance::End(index) => his(*index).map(|(call, operator)| FloorInput::CallEnded { call, operator }),
        Chance::Tell(_) | Chance::Pass(_) | Chance::Restore { .. } => None,
    }
}

/// A morning: everybody is on shift for both queues.
fn morning() -> Vec<FloorInput> {
    let begins = |name: &str| {
        let operator = OperatorName::from(name);
        let queues = QUEUES.map(QueueName::from).to_vec();
        [
            FloorInput::Serves { operator: operator.clone(), queues },
            FloorInput::Phone { operator: operator.clone(), phone: Phone::Registered },
            FloorInput::Ask { operator, wanted: Wanted::Available, reason: String::new() },
        ]
    };
    ["anna", "boris", "vera"].into_iter().flat_map(begins).collect()
}

/// A floor, what a listener knows of it, and what the standby holds.
struct World {
    floor: Floor,
    now: Now,
    queues: Vec<QueueConfig>,
    heard: BTreeMap<OperatorName, Standing>,
    ringing: BTreeMap<CallId, OperatorName>,
    books: Vec<Book>,
}

impl World {
    fn step(&mut self, chance: Chance) {
        match chance {
            Chance::Tell(input) => {
                if let FloorInput::SetQueues(queues) = &input {
                    self.queues.clone_from(queues);
                }
                // A call that somebody talks in is not queued: the engine never does that.
                let talked = |number: &CallId| self.floor.operators().any(|one| one.call == Some(*number));
                if matches!(&input, FloorInput::Enqueue { call, .. } | FloorInput::OwnCall { call, .. } if talked(call))
                {
                    return;
                }
                self.floor.handle(input, self.now);
                self.listen();
            }
            Chance::Pass(ms) => self.pass(ms),
            Chance::Answer(_) | Chance::End(_) => {
                if let Some(input) = goes_on(&self.floor, &chance) {
                    self.floor.handle(input, self.now);
                    self.listen();
                }
            }
            Chance::Restore { lost, clock_ms, gap_ms } => self.crash(lost, clock_ms, gap_ms),
        }
        self.check();
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while let Some(next) = self.floor.next_timeout().filter(|next| *next <= end) {
            self.go_to(next.max(self.now.mono_ms));
            self.floor.handle_timeout(self.now);
            self.listen();
            self.check();
            assert!(self.floor.next_timeout().is_none_or(|again| again > self.now.mono_ms));
        }
        self.go_to(end);
    }

    fn go_to(&mut self, mono_ms: u64) {
        self.now.wall_ms += (mono_ms - self.now.mono_ms) as i64;
        self.now.mono_ms = mono_ms;
    }

    fn crash(&mut self, lost: usize, clock_ms: u64, gap_ms: u64) {
        let kept = self.books.len().saturating_sub(lost).max(1);
        self.books.truncate(kept);
        self.now = Now { mono_ms: clock_ms, wall_ms: self.now.wall_ms + gap_ms as i64 };
        self.floor = self.books.last().unwrap().read(self.queues.clone(), self.now);
        self.heard = self.floor.operators().map(|standing| (standing.operator.clone(), standing)).collect();
        let offered = |ticket: &Ticket| Some((ticket.call, ticket.offered.clone()?));
        self.ringing = self.floor.tickets.values().filter_map(offered).collect();
        self.floor.handle_timeout(self.now);
        self.listen();
    }

    /// Follows the events as the engine would, and ships the records.
    fn listen(&mut self) {
        while let Some(event) = self.floor.poll() {
            match event {
                FloorEvent::Assigned { call, operator, .. } => {
                    assert_eq!(self.ringing.insert(call, operator), None, "assigned twice");
                }
                FloorEvent::Unassigned { call, operator, .. } => {
                    assert_eq!(self.ringing.remove(&call), Some(operator), "unassigned from somebody else");
                }
                FloorEvent::Left { call, .. } => {
                    assert!(!self.ringing.contains_key(&call), "left while ringing");
                }
                FloorEvent::NotQueued { .. } => {}
                FloorEvent::Operator(standing) => {
                    let before = self.heard.insert(standing.operator.clone(), standing.clone());
                    assert_ne!(before, Some(standing), "no news");
                }
            }
        }
        let mut book = self.books.last().unwrap().clone();
        book.write(&mut self.floor, self.now);
        self.books.push(book);
        self.ringing.retain(|call, _| self.floor.tickets.contains_key(call));
    }

    fn check(&self) {
        let floor = &self.floor;
        let heard: Vec<Standing> = self.heard.values().cloned().collect();
        assert_eq!(floor.operators().collect::<Vec<_>>(), heard, "said and true differ");
        for ticket in floor.tickets.values() {
            assert_eq!(self.ringing.get(&ticket.call), ticket.offered.as_ref(), "heard and true differ");
            let talks = |one: &&Operator| one.call() == Some(ticket.call);
            let with: Vec<_> = floor.operators.values().filter(talks).map(|one| &one.name).collect();
            assert_eq!(with, ticket.offered.iter().collect::<Vec<_>>(), "a ticket is in one place");
        }
        for operator in floor.operators.values() {
            if let Work::Offered { call, .. } = &operator.work {
                assert_eq!(floor.tickets[call].offered.as_ref(), Some(&operator.name));
                assert_eq!(operator.phone, Phone::Registered, "called without a phone");
            }
            let idle = operator.is_eligible();
            for ticket in floor.tickets.values().filter(|ticket| ticket.offered.is_none()) {
                let could = idle && operator.queues.contains(&ticket.queue);
                assert!(!could, "{:?} waits while {} is free", ticket.call, operator.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_whatever_happens_and_after_every_restore(
        chances in prop::collection::vec(chance(), 1..120)
    ) {
        let queues = configs(false);
        let mut world = World {
            floor: Floor::new(queues.clone()),
            now: at(50_000),
            queues,
            heard: BTreeMap::new(),
            ringing: BTreeMap::new(),
            books: vec![Book::default()],
        };
        for chance in morning().into_iter().map(Chance::Tell).chain(chances) {
            world.step(chance);
        }
    }

    #[test]
    fn the_whole_state_is_in_the_records(chances in prop::collection::vec(chance(), 1..80)) {
        let mut floor = Floor::new(configs(false));
        let mut book = Book::default();
        let mut now = at(0);
        let mut queues = configs(false);
        for chance in morning().into_iter().map(Chance::Tell).chain(chances) {
            match chance {
                Chance::Tell(input) => {
                    if let FloorInput::SetQueues(new) = &input {
                        queues.clone_from(new);
                    }
                    floor.handle(input, now);
                }
                Chance::Pass(ms) => {
                    now = at(now.mono_ms + ms);
                    floor.handle_timeout(now);
                }
                Chance::Answer(_) | Chance::End(_) => {
                    if let Some(input) = goes_on(&floor, &chance) {
                        floor.handle(input, now);
                    }
                }
                Chance::Restore { .. } => {}
            }
            book.write(&mut floor, now);
            let again = book.read(queues.clone(), now);
            prop_assert_eq!(&again.tickets, &floor.tickets);
            prop_assert_eq!(&again.operators, &floor.operators);
            let memory = |floor: &Floor| -> Vec<_> {
                floor.queues.values().map(|queue| queue.memory.clone()).collect()
            };
            prop_assert_eq!(memory(&again), memory(&floor));
            prop_assert_eq!(again.next_timeout(), floor.next_timeout());
        }
    }
}

//! After a panic in the engine: the call that it touched ends, everything else goes on.
//!
//! The engine is made again from its own records, so it stands where it stood before the step that
//! panicked; the input that did it is kept as a replay and not given again. Should ending the call panic
//! too, the call is ended by its record alone; should the records not restore at all, the node goes on
//! with an empty engine rather than not at all.
//!
//! Invariant: recovery ends, whatever panics in it: each way is tried once.

use std::any::Any;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use tracing::{error, warn};

use super::Driver;
use crate::edge::clock;
use crate::engine::{Engine, Input, Setup, Touched};
use crate::media::command::Event as MediaEvent;
use crate::record::Record;
use crate::sip;
use crate::terms::{CallId, Now, RequestId};

/// How long timers rest after a first panic, and at most after many, milliseconds: a timer that panics
/// must not become a loop.
const FIRST_REST_MS: u64 = 500;
const LAST_REST_MS: u64 = 30_000;
/// Two panics within this time are more than one bad input.
const PANIC_PAIR_MS: u64 = 60_000;
/// Messages that made a step panic and are not given again: their sender will repeat them.
const MAX_POISONS: usize = 64;
/// Of what a panic says, so much is kept.
const MAX_WORDS: usize = 300;

/// What an input was, for the replay of a step that panics.
#[derive(Debug)]
pub(in crate::edge) enum Witness {
    /// A SIP message.
    Sip { path: sip::Path, bytes: Bytes },
    /// Anything else, in words.
    Said(Cow<'static, str>),
}

impl Witness {
    pub(super) fn said(words: &'static str) -> Self {
        Self::Said(Cow::Borrowed(words))
    }

    /// Cheap enough for every input: bytes are shared, words are made of the rare ones only.
    pub(super) fn of(input: &Input) -> Self {
        if let Input::Sip(sip::Input::Received { path, bytes }) = input {
            Self::Sip { path: *path, bytes: bytes.clone() }
        } else if let Input::Media(MediaEvent::Progress(_) | MediaEvent::Counts(_)) = input {
            Self::said("counts of a media worker")
        } else if let Input::Stored { .. } = input {
            Self::said("facts are stored")
        } else if let Input::Reload(_) = input {
            Self::said("a reload of the configuration")
        } else if let Input::Customer { card, .. } = input {
            Self::Said(format!("the customer of card {card}").into())
        } else {
            Self::Said(format!("{input:?}").into())
        }
    }
}

/// What is remembered from one panic to the next.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    last_panic_ms: Option<u64>,
    /// After a panic timers rest until here: the same timer may be due again in the engine made anew.
    timers_rest_until_ms: u64,
    timers_rest_ms: u64,
    poisons: VecDeque<u64>,
}

impl Recovery {
    /// The earliest time at which a timer that is due at `at` may run.
    pub(super) fn rested(&self, at: u64) -> u64 {
        at.max(self.timers_rest_until_ms)
    }

    /// Whether this message made a step panic before.
    pub(super) fn is_poison(&self, input: &Input) -> bool {
        let Input::Sip(sip::Input::Received { bytes, .. }) = input else { return false };
        !self.poisons.is_empty() && self.poisons.contains(&mark(bytes))
    }

    fn remember(&mut self, witness: &Witness) {
        if let Witness::Sip { bytes, .. } = witness {
            if self.poisons.len() >= MAX_POISONS {
                self.poisons.pop_front();
            }
            self.poisons.push_back(mark(bytes));
        }
    }

    /// Lets timers rest, longer with each panic that follows soon; whether this is such a one.
    fn rest(&mut self, now: u64) -> bool {
        let again = self.last_panic_ms.is_some_and(|at| now.saturating_sub(at) < PANIC_PAIR_MS);
        self.timers_rest_ms =
            if again { self.timers_rest_ms.saturating_mul(2).min(LAST_REST_MS) } else { FIRST_REST_MS };
        self.timers_rest_until_ms = now.saturating_add(self.timers_rest_ms);
        self.last_panic_ms = Some(now);
        again
    }
}

fn mark(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
    words.chars().take(MAX_WORDS).collect()
}

/// The value, or nothing when making it panics.
fn guarded<T>(make: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(make)).ok()
}

/// How the engine is made again; each way is tried when the one before it panics.
enum Way {
    /// From all records; the call that was touched ends as calls do.
    EndCall,
    /// Without the call's record; it is ended by what that says.
    Bury(CallId),
    /// From all records, and nothing is ended: whatever it is, it is not that call.
    AsItWas,
}

impl Driver {
    /// The step on `witness` panicked.
    pub(super) fn recover(&mut self, witness: &Witness, panic: &(dyn Any + Send)) {
        let now = clock::now();
        let again = self.recovery.rest(now.mono_ms);
        self.recovery.remember(witness);
        let touched = self.engine.touched();
        let call = self.rebuild(touched, now);
        let kept = self.outlets.replays.keep(witness, call, &words_of(panic), now);
        let file =
            kept.map_or("nowhere (see the warning above)".to_owned(), |file| file.display().to_string());
        let ended = call.map_or("no call was touched".to_owned(), |call| format!("call {call} was ended"));
        error!(
            "the engine failed on one input: {ended}, all others go on; the input is kept in {file}: \
             send that file with this log to the makers"
        );
        if again {
            error!("that was the second failure within a minute: restart the node when its calls allow");
        }
        self.outlets.metrics.engine_panic();
        self.greet_again(now);
    }

    /// Puts an engine in the place of the broken one; which call it cost.
    fn rebuild(&mut self, touched: Touched, now: Now) -> Option<CallId> {
        let put = |(key, value): (&String, &Vec<u8>)| Record { key: key.clone(), value: Some(value.clone()) };
        let records: Vec<Record> = self.records.iter().map(put).collect();
        let of_record = touched.call_of(&records);
        let ways = std::iter::once(Way::EndCall)
            .chain(of_record.map(Way::Bury))
            .chain(std::iter::once(Way::AsItWas));
        for way in ways {
            let setup = self.setup.clone();
            match guarded(|| make(&way, setup, (self.seed)(), &records, touched, now)) {
                Some(Ok((engine, call))) => {
                    self.engine = engine;
                    return call;
                }
                Some(Err(why)) => {
                    error!("the records do not restore: {why}");
                    break;
                }
                None => warn!("making the engine again failed as well: the next way is tried"),
            }
        }
        error!("no way led back: all calls of this node are lost, new ones are taken");
        // Facts go on where they stood: a number is never given twice.
        let last_seq = self.last_seq.max(self.setup.last_seq);
        let setup = Setup { last_seq, ..self.setup.clone() };
        self.engine = Engine::new(setup, (self.seed)(), now);
        self.records.clear();
        None
    }

    /// What an engine made again cannot know: phones' keys, which sockets they sit on, and questions.
    fn greet_again(&mut self, now: Now) {
        // Desks ask again, with the same idempotency key where it matters.
        self.questions.clear();
        // A closed socket makes a phone come back and register, which says where it is.
        self.shared.flows.clear();
        for (key, (asker, ask)) in self.sessions.clone() {
            let request = RequestId(self.next_request);
            self.next_request = self.next_request.saturating_add(1);
            let engine = &mut self.engine;
            if guarded(|| engine.handle(Input::Desk { request, asker, ask }, now)).is_none() {
                error!("the log-in of {} cannot be told to the engine: he must log in again", key.0);
                self.sessions.remove(&key);
                self.rebuild(Touched::default(), now);
            }
        }
    }
}

fn make(
    way: &Way,
    setup: Setup,
    seed: [u8; 32],
    records: &[Record],
    touched: Touched,
    now: Now,
) -> Result<(Engine, Option<CallId>), String> {
    match way {
        Way::EndCall => {
            let mut engine = Engine::restore_in_place(setup, seed, records, now)?;
            let call = engine.break_off(touched, now);
            Ok((engine, call))
        }
        Way::Bury(call) => {
            Engine::restore_without(setup, seed, records, *call, now).map(|engine| (engine, Some(*call)))
        }
        Way::AsItWas => Engine::restore_in_place(setup, seed, records, now).map(|engine| (engine, None)),
    }
}

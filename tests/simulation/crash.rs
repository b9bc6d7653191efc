//! The node dies before, between and after the outputs of one incoming and one outgoing call, with the
//! newest batches of records lost or not. Another engine, of another seed and on another clock, is made
//! from bytes only, and the call goes on or ends cleanly.

use std::panic::AssertUnwindSafe;

use tandem::call::Stage;
use tandem::fact::{LegState, What};

use crate::agent::{Said, State};
use crate::phone;
use crate::world::{Do, Kill, Shape, World};

/// When the call begins.
const BEGIN_MS: u64 = 3_000;
/// When the node must have come back and the parties must talk again.
const TALK_MS: u64 = 14_900;
/// When one of them hangs up.
const END_MS: u64 = 15_000;
/// When everything must have come to rest.
const REST_MS: u64 = END_MS + 150_000;

/// Which call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Incoming,
    Outgoing,
}

/// Who ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Gateway,
    Phone,
}

fn world(script: Script, kill: Option<Kill>, lag_ms: u64) -> World {
    let shape = Shape {
        gateways: 1,
        operators: 1,
        callers: 0,
        loss_per_cent: 0,
        duplicate_per_cent: 0,
        faults: false,
        crashes: true,
        close_ms: END_MS,
        long: false,
    };
    let mut world = World::new(7, shape);
    world.scripted = true;
    world.kill = kill;
    world.store.lag_ms = lag_ms;
    world.plan(100, Do::Register(0));
    phone::begin_shift(&mut world, 0);
    match script {
        Script::Incoming => world.plan(BEGIN_MS, Do::Call { gateway: 0 }),
        Script::Outgoing => world.plan(BEGIN_MS, Do::DeskDials(0)),
    }
    world
}

/// The first and last output of the call, when nobody dies.
fn outputs(script: Script, ends: Ends, lag_ms: u64) -> Result<(usize, usize), String> {
    let mut world = world(script, None, lag_ms);
    world.run(BEGIN_MS - 1)?;
    let first = world.outputs;
    finish(&mut world, ends)?;
    let answered = world.facts.iter().filter(|fact| matches!(fact.what, What::Answered { .. })).count();
    if answered != 1 || world.store.outbox.len() != 1 || world.laws.accepted.len() != 1 {
        return Err(format!(
            "the script itself fails: {answered} answers, {} orders",
            world.store.outbox.len()
        ));
    }
    Ok((first, world.outputs))
}

/// Up to the talk, the hang-up, and home.
fn finish(world: &mut World, ends: Ends) -> Result<(), String> {
    world.run(TALK_MS)?;
    let mut talks = talks(world);
    let strict = world.lost == 0;
    if strict && !talks && (world.kills == 0 || !world.carried_and_alive().is_empty()) {
        return Err(format!("the call does not go on: {:?}", world.carried_and_alive()));
    }
    world.run(END_MS)?;
    let agent = match ends {
        Ends::Gateway => 0,
        Ends::Phone => 1,
    };
    let up = |world: &World, agent: usize| {
        world.agents[agent]
            .legs
            .iter()
            .filter(|(_, leg)| leg.state == State::Up)
            .map(|(id, _)| *id)
            .collect::<Vec<u64>>()
    };
    for leg in up(world, agent) {
        world.act(Do::HangUp(agent, leg));
    }
    let kills = world.kills;
    world.run(END_MS + 2_000)?;
    if world.kills > kills {
        // It died of the hang-up itself: what the browser said on its way out is lost with its socket.
        talks = false;
    }
    let answers: Vec<u16> = world
        .heard
        .iter()
        .filter_map(|(_, said)| match said {
            Said::ByeAnswered { code, .. } => Some(*code),
            _ => None,
        })
        .collect();
    if talks && answers != [200] {
        return Err(format!("BYE in a live call is answered {answers:?}"));
    }
    if strict && world.kills == kills && answers.iter().any(|code| *code != 200) {
        return Err(format!("BYE is answered {answers:?} although no record was lost"));
    }
    if talks && world.agents.iter().any(|agent| agent.alive() != 0) {
        return Err("the other side was not told of the end".to_owned());
    }
    // A side whose call the node does not know any more finds out when it hangs up itself.
    world.act(Do::EverybodyLeaves);
    world.closing = true;
    world.run(REST_MS)?;
    world.rest()?;
    orders_and_records(world, world.lost == 0)
}

/// Whether one call is up and both sides are in it.
fn talks(world: &World) -> bool {
    let Some(engine) = &world.engine else { return false };
    let up =
        |agent: usize| world.agents[agent].legs.values().filter(|leg| leg.state == State::Up).count() == 1;
    let mut calls = engine.calls().all();
    let talking = calls.next().is_some_and(|call| {
        matches!(call.stage, Stage::Talking)
            && call.legs().count() == 2
            && call.legs().all(|leg| leg.state == LegState::Up)
    });
    talking && calls.next().is_none() && up(0) && up(1)
}

fn orders_and_records(world: &World, strict: bool) -> Result<(), String> {
    if world.store.outbox.len() > 1 {
        return Err(format!("{} orders came of one call", world.store.outbox.len()));
    }
    if strict {
        let mut ended: Vec<_> = world
            .facts
            .iter()
            .filter(|fact| matches!(fact.what, What::Ended { .. }))
            .map(|fact| fact.call)
            .collect();
        let all = ended.len();
        ended.dedup();
        if ended.len() != all {
            return Err("a call ended twice".to_owned());
        }
    }
    for call in &world.carried {
        if !world.store.cdr.contains_key(call) {
            return Err(format!("call {call} was carried on and has no record"));
        }
    }
    Ok(())
}

fn die_everywhere(script: Script, ends: Ends, loses: &[usize], lag_ms: u64) {
    let (first, last) = outputs(script, ends, lag_ms).unwrap();
    assert!(last - first > 60, "a call has more outputs than {}", last - first);
    let mut failed = Vec::new();
    for at_output in first..last {
        for &lose in loses {
            let mut world = world(script, Some(Kill { at_output, lose }), lag_ms);
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| finish(&mut world, ends)));
            let result = done.unwrap_or_else(|_| Err("panic, see above".to_owned()));
            if let Err(words) = result {
                if std::env::var("TANDEM_TRACE").is_ok() && failed.is_empty() {
                    for line in &world.trace {
                        println!("{line}");
                    }
                }
                failed.push(format!("{script:?} ended by {ends:?}, killed at output {at_output} with {lose} batches and {lag_ms} ms of facts lost: {words}"));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} deaths:\n{}",
        failed.len(),
        (last - first) * loses.len(),
        failed[..failed.len().min(12)].join("\n")
    );
}

#[test]
fn an_incoming_call_survives_a_death_at_any_output() {
    die_everywhere(Script::Incoming, Ends::Gateway, &[0], 0);
}

#[test]
fn an_incoming_call_ends_cleanly_when_the_newest_records_are_lost_too() {
    die_everywhere(Script::Incoming, Ends::Phone, &[0, 1, 2, 3], 0);
}

#[test]
fn an_outgoing_call_survives_a_death_at_any_output() {
    die_everywhere(Script::Outgoing, Ends::Phone, &[0], 0);
}

#[test]
fn an_outgoing_call_ends_cleanly_when_the_newest_records_are_lost_too() {
    die_everywhere(Script::Outgoing, Ends::Gateway, &[0, 1, 2, 3], 0);
}

#[test]
fn a_call_has_one_record_also_when_its_first_facts_died_with_the_node() {
    // The store is slow: what the engine told in the last moments never reached it.
    for lag_ms in [200, 1_500] {
        die_everywhere(Script::Incoming, Ends::Gateway, &[0, 2], lag_ms);
        die_everywhere(Script::Outgoing, Ends::Phone, &[0, 2], lag_ms);
    }
}

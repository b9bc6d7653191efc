//! Browser phones and the people at them: answer, ignore, hold, dial, fill in cards, take breaks.

use tandem::engine::Answer;
use tandem::fact::{Fact, OperatorState, What};
use tandem::terms::OperatorName;

use crate::agent::Said;
use crate::world::{Do, Question, World};

/// What the phone's agent says.
pub fn hear(world: &mut World, agent: usize, said: Said) {
    match said {
        Said::Registered => world.plan(60_000, Do::Register(agent)),
        Said::RegisterFailed(_) => world.plan(2_000, Do::Register(agent)),
        Said::Invited { leg, auto } => rings(world, agent, leg, auto),
        Said::Answered { leg } if !world.scripted => talks(world, agent, leg),
        Said::Answered { .. }
        | Said::Rang { .. }
        | Said::Failed { .. }
        | Said::Ended { .. }
        | Said::Changed { .. }
        | Said::ByeAnswered { .. } => {}
    }
}

fn rings(world: &mut World, agent: usize, leg: u64, auto: bool) {
    world.plan(20, Do::Ring(agent, leg));
    if world.scripted {
        return world.plan(400, Do::Accept(agent, leg));
    }
    match world.dice.range(0, 10) {
        0 => {
            let wait = world.dice.range(30, 3_000);
            world.plan(wait, Do::Reject(agent, leg, 486));
        }
        1 | 2 if !auto => {}
        _ => {
            let wait = if auto { world.dice.range(40, 300) } else { world.dice.range(400, 4_500) };
            world.plan(wait, Do::Accept(agent, leg));
            talks(world, agent, leg);
        }
    }
}

/// What may happen in a talk; nothing of it does if the call does not live so long.
fn talks(world: &mut World, agent: usize, leg: u64) {
    if world.dice.chance(60) {
        let wait = world.dice.range(4_000, if world.shape.long { 200_000 } else { 20_000 });
        world.plan(wait, Do::HangUp(agent, leg));
    }
    if world.dice.chance(20) {
        let wait = world.dice.range(3_000, 8_000);
        world.plan(wait, Do::Hold(agent, leg, true));
        world.plan(wait + 2_000, Do::Hold(agent, leg, false));
    }
    if world.dice.chance(20) {
        let wait = world.dice.range(2_000, 9_000);
        world.plan(wait, Do::Update(agent, leg));
    }
}

/// The operator dials in the phone itself.
pub fn phone_dials(world: &mut World, operator: usize) {
    let agent = world.phone(operator);
    if world.closing || !world.agents[agent].connected {
        return;
    }
    let now = world.now;
    let leg = world.agents[agent].call("+380501112233", None, now);
    let patience = world.dice.range(1_000, 30_000);
    world.plan(patience, Do::HangUp(agent, leg));
}

fn number_of(operator: &OperatorName) -> Option<usize> {
    operator.as_str().strip_prefix("op")?.parse().ok()
}

/// What a desk sees happen.
pub fn read_fact(world: &mut World, fact: &Fact) {
    match (&fact.what, fact.call) {
        (What::CardOpened { card, operator, .. } | What::CardMoved { card, operator }, Some(call)) => {
            if let Some(desk) = number_of(operator) {
                world.cards.insert(call, (*card, desk));
            }
        }
        (What::Answered { operator: Some(_), .. }, Some(call)) => {
            let Some((card, desk)) = world.cards.get(&call).copied() else { return };
            if world.scripted {
                return world.plan(800, Do::Submit(desk, card));
            }
            fill_in(world, desk, card);
            if world.dice.chance(10) {
                let wait = world.dice.range(500, 5_000);
                world.plan(wait, Do::DeskHold(desk, call, true));
                world.plan(wait + 1_500, Do::DeskHold(desk, call, false));
            }
            if world.dice.chance(10) {
                let wait = world.dice.range(500, 5_000);
                world.plan(wait, Do::Digits(desk, call));
            }
            if world.dice.chance(15) {
                let wait = world.dice.range(500, 8_000);
                world.plan(wait, Do::DeskTransfer(desk, call));
            }
            if world.dice.chance(20) {
                let wait = world.dice.range(1_000, 12_000);
                world.plan(wait, Do::DeskHangUp(desk, call));
            }
        }
        (What::Operator { operator, state: OperatorState::Paused, reason, .. }, _)
            if reason == "no answer" =>
        {
            if let Some(desk) = number_of(operator) {
                world.plan(3_000, Do::State(desk, OperatorState::Available));
            }
        }
        _ => {}
    }
}

fn fill_in(world: &mut World, desk: usize, card: tandem::terms::CardId) {
    let wait = world.dice.range(300, 6_000);
    match world.dice.range(0, 10) {
        0 | 1 => world.plan(wait, Do::Discard(desk, card)),
        2 => {}
        _ => {
            world.plan(wait / 2, Do::Save(desk, card));
            world.plan(wait, Do::Submit(desk, card));
            if world.dice.chance(30) {
                world.plan(wait + 5, Do::Submit(desk, card));
            }
        }
    }
}

/// What a desk is answered.
pub fn read_answer(world: &mut World, question: &Question, answer: &Answer) {
    if let (Answer::Call(call), false) = (answer, world.scripted) {
        let wait = world.dice.range(2_000, 25_000);
        world.plan(wait, Do::DeskHangUp(question.desk, *call));
    }
}

/// A day at one desk.
pub fn begin_shift(world: &mut World, operator: usize) {
    let phone = world.phone(operator);
    let wait = world.dice.range(10, 900);
    world.plan(wait, Do::Reconnect(phone));
    let wait = world.dice.range(1_000, 2_500);
    world.plan(wait, Do::State(operator, OperatorState::Available));
    if world.scripted {
        return;
    }
    let close = world.shape.close_ms;
    if world.dice.chance(60) {
        world.plan(950, Do::AnswersHimself(operator));
    }
    if world.dice.chance(50) {
        let at = world.dice.range(5_000, close);
        world.plan(at, Do::State(operator, OperatorState::Paused));
        world.plan(at + 4_000, Do::State(operator, OperatorState::Available));
    }
    if world.dice.chance(40) {
        let at = world.dice.range(3_000, close);
        world.plan(at, Do::DeskDials(operator));
    }
    if world.dice.chance(25) {
        let at = world.dice.range(3_000, close);
        world.plan(at, Do::PhoneDials(operator));
    }
    if world.shape.faults && world.dice.chance(60) {
        let at = world.dice.range(3_000, close);
        world.plan(at, Do::Cut(phone));
    }
    if world.dice.chance(15) {
        let at = world.dice.range(3_000, close);
        world.plan(at, Do::LogOut(operator));
        world.plan(at + 3_000, Do::LogIn(operator));
        world.plan(at + 5_000, Do::Register(phone));
        world.plan(at + 6_000, Do::State(operator, OperatorState::Available));
    }
}

//! GSM gateways and a peer: callers who call and lose patience, numbers that answer, ring out, are busy.

use crate::agent::Said;
use crate::world::{Do, World};

/// Our line.
pub const LINE: &str = "+380441110001";

/// A caller calls in, and will go after a while whatever happens.
pub fn place_call(world: &mut World, gateway: usize) {
    if world.closing {
        return;
    }
    let caller = match world.dice.range(0, 8) {
        0 => "anonymous".to_owned(),
        one => format!("+38067000000{one}"),
    };
    let now = world.now;
    let leg = world.agents[gateway].call(LINE, Some(&caller), now);
    if !world.scripted {
        let patience = match (world.dice.chance(15), world.shape.long) {
            (true, _) => world.dice.range(50, 3_000),
            (false, false) => world.dice.range(3_000, 45_000),
            (false, true) => world.dice.range(3_000, 250_000),
        };
        world.plan(patience, Do::HangUp(gateway, leg));
    }
}

/// What the gateway's agent says.
pub fn hear(world: &mut World, agent: usize, said: Said) {
    match said {
        Said::Registered => world.plan(30_000, Do::Register(agent)),
        Said::RegisterFailed(_) => world.plan(2_000, Do::Register(agent)),
        Said::Invited { leg, .. } if !world.scripted => called(world, agent, leg),
        Said::Invited { leg, .. } => {
            world.plan(300, Do::Progress(agent, leg));
            world.plan(1_500, Do::Accept(agent, leg));
        }
        Said::Rang { .. }
        | Said::Answered { .. }
        | Said::Failed { .. }
        | Said::Ended { .. }
        | Said::Changed { .. }
        | Said::ByeAnswered { .. } => {}
    }
}

/// An operator's call goes out over this gateway.
fn called(world: &mut World, agent: usize, leg: u64) {
    let alert = world.dice.range(100, 1_500);
    match world.dice.range(0, 20) {
        0 => world.plan(alert, Do::Reject(agent, leg, 486)),
        1 => world.plan(alert, Do::Reject(agent, leg, 503)),
        2 => world.plan(alert, Do::Reject(agent, leg, 500)),
        3 => world.plan(alert, Do::Ring(agent, leg)),
        choice => {
            let ring = if choice.is_multiple_of(2) { Do::Ring(agent, leg) } else { Do::Progress(agent, leg) };
            world.plan(alert, ring);
            let answer = alert + world.dice.range(50, 6_000);
            world.plan(answer, Do::Accept(agent, leg));
            if world.dice.chance(60) {
                let talk = world.dice.range(500, 15_000);
                world.plan(answer + talk, Do::HangUp(agent, leg));
            }
        }
    }
}

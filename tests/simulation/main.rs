//! The call centre, simulated: the production engine in seeded worlds, with laws checked after every
//! step, and killed between any two of its outputs.
//!
//! `TANDEM_SEEDS=5000` runs more worlds, `TANDEM_SEED=17` repeats one and prints what happened.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod agent;
mod crash;
mod dice;
mod gateway;
mod laws;
mod phone;
mod plane;
mod store;
mod world;

use std::panic::AssertUnwindSafe;

use dice::Dice;
use world::{Do, Kill, Shape, Tally, World};

/// Worlds in an ordinary run.
const SEEDS: u64 = 1_000;
/// How long after closing time everything must have come to rest.
const REST_MS: u64 = 200_000;
/// How long a request without an answer may last after that.
const ASKED_MS: u64 = 64_000;

/// The world of a seed.
fn world_of(seed: u64) -> World {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let calm = dice.chance(25);
    let long = dice.chance(6);
    let shape = Shape {
        gateways: dice.range(2, 5) as usize,
        operators: dice.range(1, 4) as usize,
        callers: dice.range(3, 9) as usize,
        loss_per_cent: if calm { 0 } else { dice.range(0, 12) },
        duplicate_per_cent: if calm { 0 } else { dice.range(0, 6) },
        faults: !calm,
        crashes: dice.chance(33),
        close_ms: if long { 260_000 } else { 40_000 },
        long,
    };
    let mut world = World::new(seed, shape);
    for gateway in 0..world.shape.gateways {
        if world::gateway_account(gateway).registers {
            let at = world.dice.range(0, 800);
            world.plan(at, Do::Register(gateway));
        }
    }
    for operator in 0..world.shape.operators {
        phone::begin_shift(&mut world, operator);
    }
    for _ in 0..world.shape.callers {
        let gateway = world.dice.range(0, world.shape.gateways as u64) as usize;
        let at = world.dice.range(500, world.shape.close_ms - 5_000);
        world.plan(at, Do::Call { gateway });
    }
    if world.shape.crashes {
        for _ in 0..world.dice.range(1, 4) {
            let at = world.dice.range(2_000, world.shape.close_ms);
            let keep_records = world.dice.chance(80);
            let lose = if world.dice.chance(50) { 0 } else { world.dice.range(1, 4) as usize };
            world.plan(at, Do::Crash { keep_records, lose });
        }
        if world.dice.chance(50) {
            let at_output = world.dice.range(30, 900) as usize;
            let lose = world.dice.range(0, 3) as usize;
            world.kill = Some(Kill { at_output, lose });
        }
    }
    trouble(&mut world);
    let close = world.shape.close_ms;
    for wait in [0, 4_000, 12_000, 30_000] {
        world.plan(close + wait, Do::EverybodyLeaves);
    }
    if world.dice.chance(50) {
        for operator in 0..world.shape.operators {
            world.plan(close + 60_000, Do::LogOut(operator));
        }
    }
    world
}

/// What else can go wrong or be done in a day.
fn trouble(world: &mut World) {
    let close = world.shape.close_ms;
    let gateways = world.shape.gateways;
    if world.shape.faults && world.dice.chance(25) {
        let at = world.dice.range(3_000, close);
        let gateway = world.dice.range(0, gateways as u64) as usize;
        if world::gateway_account(gateway).registers {
            world.plan(at, Do::Reboot(gateway));
        }
    }
    if world.shape.faults && world.dice.chance(20) {
        let at = world.dice.range(3_000, close);
        let gateway = world.dice.range(0, gateways as u64) as usize;
        let lasts = world.dice.range(1_000, 40_000);
        world.plan(at, Do::Part(gateway, true));
        world.plan(at + lasts, Do::Part(gateway, false));
    }
    if world.dice.chance(20) {
        let at = world.dice.range(3_000, close);
        let queues = world.dice.range(1, 3) as usize;
        let gateways = gateways - usize::from(world.dice.chance(30));
        world.plan(at, Do::Reload { queues, gateways });
    }
    if world.dice.chance(25) {
        let at = world.dice.range(2_000, close + 3_000);
        world.plan(at, Do::Panic);
    }
    if world.dice.chance(10) {
        let at = world.dice.range(close / 2, close);
        world.plan(at, Do::Drain);
    }
}

/// Runs one world; in words what was broken.
fn live(seed: u64, trace: bool) -> Result<Tally, String> {
    let mut world = world_of(seed);
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let until = world.shape.close_ms + REST_MS;
        world.run(until)?;
        // Trunks are asked how they are all the time, also at this moment: that is no left-over.
        let mut until = until;
        while world.asks() && until < world.shape.close_ms + REST_MS + ASKED_MS {
            until += 100;
            world.run(until)?;
        }
        world.rest()?;
        Ok(world.tally)
    }));
    let result = done.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        Err(words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    });
    if trace {
        for line in &world.trace {
            println!("{line}");
        }
    }
    result
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn many_worlds_keep_the_laws() {
    if let Some(seed) = number("TANDEM_SEED") {
        let result = live(seed, true);
        assert!(result.is_ok(), "seed {seed}: {}", result.unwrap_err());
        return;
    }
    let seeds = number("TANDEM_SEEDS").unwrap_or(SEEDS);
    let half = |odd: u64| {
        let mut failed = Vec::new();
        let mut all = Tally::default();
        for seed in (0..seeds).filter(|seed| seed % 2 == odd) {
            match live(seed, false) {
                Ok(one) => all.add(one),
                Err(words) => failed.push((seed, words)),
            }
            if failed.len() >= 10 {
                break;
            }
        }
        (all, failed)
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        (half(0), other.join().unwrap())
    });
    let mut all = one.0;
    all.add(other.0);
    println!("{seeds} worlds: {all:?}");
    let failed: Vec<(u64, String)> = one.1.into_iter().chain(other.1).collect();
    let words: Vec<String> = failed
        .iter()
        .map(|(seed, words)| format!("seed {seed}: {words}\n  repeat: TANDEM_SEED={seed} cargo test --test simulation many_worlds -- --nocapture"))
        .collect();
    assert!(failed.is_empty(), "{}", words.join("\n"));
    // A law that nothing can break proves nothing.
    assert!(
        all.answered * 4 > all.arrived && all.orders * 5 > all.arrived && all.carried * 20 > seeds,
        "too little happens: {all:?}"
    );
}

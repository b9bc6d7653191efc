//! Two machines that are each other's trunk, and a wire between them that loses, doubles and reorders.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::fact::{Cause, Party};
use crate::record::Record;
use crate::sip::{Command, Config, Event, Input, Output, Path, Prefix, Sip, TrunkAccount, TrunkKind};
use crate::terms::{LegId, Now, Number};

/// Which machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    A,
    B,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn address(self) -> SocketAddr {
        match self {
            Self::A => "192.0.2.1:5060".parse().unwrap(),
            Self::B => "192.0.2.2:5060".parse().unwrap(),
        }
    }
}

/// How bad the wire is, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Badness {
    pub(super) loss: u64,
    pub(super) doubling: u64,
    pub(super) jitter_ms: u64,
}

pub(super) struct World {
    machines: [Option<Sip>; 2],
    kept: [BTreeMap<String, Vec<u8>>; 2],
    pub(super) now: u64,
    seed: u64,
    wire: BTreeMap<(u64, u64), (Side, Bytes)>,
    sent: u64,
    pub(super) badness: Badness,
    /// Whether each machine dies and is restored after every step.
    pub(super) mortal: bool,
    pub(super) events: [Vec<Event>; 2],
    /// First lines of all that was sent.
    pub(super) ladder: Vec<String>,
}

pub(super) fn sdp(text: &str) -> Bytes {
    Bytes::from(format!("v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns={text}\r\n"))
}

pub(super) fn bye() -> Cause {
    Cause { q850: 16, sip: 0, words: "call ended".into() }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self {
            machines: [None, None],
            kept: [BTreeMap::new(), BTreeMap::new()],
            now: 1_000,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            wire: BTreeMap::new(),
            sent: 0,
            badness: Badness::default(),
            mortal: false,
            events: [Vec::new(), Vec::new()],
            ladder: Vec::new(),
        };
        for side in [Side::A, Side::B] {
            let seed = world.entropy();
            world.machines[side as usize] = Some(Sip::new(world.config(side), seed));
            world.acquaint(side);
        }
        world
    }

    fn config(&self, side: Side) -> Config {
        Config { udp: side.address(), ..Config::default() }
    }

    fn acquaint(&mut self, side: Side) {
        let peer = side.other().address();
        let account = TrunkAccount {
            name: "peer".into(),
            kind: TrunkKind::Peer { server: Some(peer) },
            accept_from: vec![Prefix { address: peer.ip(), bits: 32 }],
            digest: Vec::new(),
            health: crate::sip::Health::default(),
            prack: true,
            profile: crate::sip::Profile::default(),
        };
        let now = self.at();
        self.machines[side as usize]
            .as_mut()
            .unwrap()
            .handle(Input::Command(Command::Trunks(vec![account])), now);
    }

    fn random(&mut self, limit: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        if limit == 0 { 0 } else { self.seed % limit }
    }

    fn entropy(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random(u64::MAX).to_be_bytes());
        }
        bytes
    }

    fn at(&self) -> Now {
        Now { mono_ms: self.now, wall_ms: 1_700_000_000_000 + self.now as i64 }
    }

    pub(super) fn sip(&mut self, side: Side) -> &mut Sip {
        self.machines[side as usize].as_mut().unwrap()
    }

    /// A command, and all that follows at once.
    pub(super) fn tell(&mut self, side: Side, command: Command) {
        let now = self.at();
        self.sip(side).handle(Input::Command(command), now);
        self.drain(side);
    }

    fn drain(&mut self, side: Side) {
        while let Some(output) = self.sip(side).poll() {
            match output {
                Output::Send { path, bytes } => {
                    assert_eq!(path.remote(), side.other().address());
                    let line =
                        String::from_utf8_lossy(bytes.split(|b| *b == b'\r').next().unwrap()).into_owned();
                    self.ladder.push(format!("{} {side:?} {line}", self.now));
                    self.put_on_wire(side.other(), bytes);
                }
                // Who can be called is not what these calls are about.
                Output::Event(Event::TrunkUp { .. } | Event::TrunkDown { .. }) => {}
                Output::Event(event) => self.events[side as usize].push(event),
                Output::Dropped(_) => {}
            }
        }
        let now = self.at();
        for Record { key, value } in self.sip(side).records(now) {
            match value {
                Some(value) => self.kept[side as usize].insert(key, value),
                None => self.kept[side as usize].remove(&key),
            };
        }
        if self.mortal {
            let kept = self.kept[side as usize].iter();
            let records: Vec<Record> =
                kept.map(|(key, value)| Record { key: key.clone(), value: Some(value.clone()) }).collect();
            let seed = self.entropy();
            self.machines[side as usize] = Some(Sip::restore(self.config(side), seed, &records, now));
            self.acquaint(side);
        }
    }

    fn put_on_wire(&mut self, to: Side, bytes: Bytes) {
        let copies = if self.random(100) < self.badness.doubling { 2 } else { 1 };
        for _ in 0..copies {
            if self.random(100) < self.badness.loss {
                continue;
            }
            let at = self.now + 5 + self.random(self.badness.jitter_ms);
            self.sent += 1;
            self.wire.insert((at, self.sent), (to, bytes.clone()));
        }
    }

    /// Lets time pass, everything in order.
    pub(super) fn run(&mut self, for_ms: u64) {
        let end = self.now + for_ms;
        loop {
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let wakes =
                [Side::A, Side::B].map(|side| self.machines[side as usize].as_ref().unwrap().next_timeout());
            let next = wakes.iter().flatten().copied().chain(arrival).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (side, bytes)) = self.wire.pop_first().unwrap();
                let path = Path::Udp { remote: side.other().address(), local: side.address() };
                let now = self.at();
                self.sip(side).handle(Input::Received { path, bytes }, now);
                self.drain(side);
                continue;
            }
            for (side, wake) in [Side::A, Side::B].into_iter().zip(wakes) {
                if wake.is_some_and(|at| at <= self.now) {
                    let now = self.at();
                    self.sip(side).handle_timeout(now);
                    self.drain(side);
                }
            }
        }
        self.now = end;
    }

    /// A calls B; the call rings nowhere yet.
    pub(super) fn call(&mut self) -> LegId {
        let leg = self.sip(Side::A).new_leg();
        self.tell(
            Side::A,
            Command::Invite {
                leg,
                to: Party::Trunk("peer".into()),
                number: Number::new("+380441234567"),
                show: Number::new("+380671112233"),
                display: "Desk".into(),
                headers: vec![("X-Tandem-Call".into(), "42".into())],
                sdp: sdp("offer"),
                ring_ms: 60_000,
            },
        );
        leg
    }

    /// The leg of the last call that came in at `side`.
    pub(super) fn incoming(&self, side: Side) -> Option<LegId> {
        self.events[side as usize].iter().rev().find_map(|event| match event {
            Event::Invited(invited) => Some(invited.leg),
            _ => None,
        })
    }

    /// A call that is up at both ends.
    pub(super) fn connected(&mut self) -> (LegId, LegId) {
        let mut a = self.call();
        for _ in 0..300 {
            self.run(100);
            if self.incoming(Side::B).is_some() && self.ends(Side::A, a) == 0 {
                break;
            }
            // Four seconds of bad luck: the next way, which here is the same.
            if self.ends(Side::A, a) == 1 {
                self.run(40_000);
                self.events = [Vec::new(), Vec::new()];
                a = self.call();
            }
        }
        let b = self.incoming(Side::B).expect("the INVITE never came");
        self.tell(Side::B, Command::Ring { leg: b });
        self.run(1_000);
        self.tell(Side::B, Command::Answer { leg: b, sdp: sdp("answer") });
        for _ in 0..300 {
            self.run(100);
            if self.count(Side::A, |event| matches!(event, Event::Answered { .. })) == 1
                && self.count(Side::B, |event| matches!(event, Event::Confirmed { .. })) == 1
            {
                return (a, b);
            }
        }
        panic!("no call:\n{}", self.ladder.join("\n"));
    }

    pub(super) fn count(&self, side: Side, fits: impl Fn(&Event) -> bool) -> usize {
        self.events[side as usize].iter().filter(|event| fits(event)).count()
    }

    /// How often a leg was said to be over.
    pub(super) fn ends(&self, side: Side, leg: LegId) -> usize {
        self.count(side, |event| {
            matches!(event, Event::Ended { leg: one, .. } | Event::Failed { leg: one, .. } if *one == leg)
        })
    }

    /// How many lines of the ladder hold this.
    pub(super) fn lines(&self, what: &str) -> usize {
        self.ladder.iter().filter(|line| line.contains(what)).count()
    }

    /// Nothing is left behind.
    pub(super) fn assert_clean(&mut self) {
        self.run(70_000);
        for side in [Side::A, Side::B] {
            let counts = self.sip(side).counts();
            assert_eq!(counts, crate::sip::Counts::default(), "{side:?}\n{}", self.ladder.join("\n"));
            let stays = |key: &&String| *key != "sip/next_leg" && !key.starts_with("sip/trunk/");
            let left: Vec<_> = self.kept[side as usize].keys().filter(stays).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

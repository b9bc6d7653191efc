//! The agent against the switch's own SIP machine, over a wire that loses and doubles.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]
use std::collections::BTreeMap;

use super::*;
use crate::sip::digest::Ha1;
use crate::sip::{Command, Config, Event, Input, Output, Path, Sip, TrunkAccount, TrunkKind};
use crate::terms::{LegId, Now, Number};

const SDP: &[u8] =
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";

fn sdp() -> Bytes {
    Bytes::from_static(SDP)
}

struct World {
    agent: Agent,
    switch: Sip,
    now: u64,
    wire: BTreeMap<(u64, u64), (bool, Bytes)>,
    sent: u64,
    noise: u64,
    loss: u64,
    heard: Vec<AgentEvent>,
    events: Vec<Event>,
    ladder: Vec<String>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    fn new(password: &str, digest: Vec<Algorithm>, loss: u64, seed: u8) -> Self {
        let agent = Agent::new(AgentConfig {
            user: "gw1".into(),
            password: Secret::new(password.into()),
            domain: "tandem.test".into(),
            carrier: Carrier::Udp(at("127.0.0.1:5070")),
            expires_s: 60,
            digest: None,
            seed: [seed; 32],
        });
        let config = Config { domain: "tandem.test".into(), udp: at("127.0.0.1:5060"), ..Config::default() };
        let mut switch = Sip::new(config, [seed + 100; 32]);
        let account = TrunkAccount {
            name: "kyivstar".into(),
            kind: TrunkKind::Gateway { username: "gw1".into(), ha1: Ha1::new("gw1", "tandem.test", "right") },
            accept_from: Vec::new(),
            digest,
            health: crate::sip::Health::default(),
            prack: true,
            profile: crate::sip::Profile::default(),
        };
        let now = Now { mono_ms: 1_000, wall_ms: 1_700_000_001_000 };
        switch.handle(Input::Command(Command::Trunks(vec![account])), now);
        Self {
            agent,
            switch,
            now: 1_000,
            wire: BTreeMap::new(),
            sent: 0,
            noise: u64::from(seed) * 77 + 1,
            loss,
            heard: Vec::new(),
            events: Vec::new(),
            ladder: Vec::new(),
        }
    }

    fn at(&self) -> Now {
        Now { mono_ms: self.now, wall_ms: 1_700_000_000_000 + i64::try_from(self.now).unwrap() }
    }

    fn chance(&mut self) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        self.noise % 100
    }

    fn carry(&mut self, to_switch: bool, bytes: Bytes) {
        let line = String::from_utf8_lossy(bytes.split(|b| *b == b'\r').next().unwrap()).into_owned();
        self.ladder.push(format!("{} {} {line}", self.now, if to_switch { "->" } else { "<-" }));
        let copies = if self.chance() < self.loss / 2 { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance() >= self.loss {
                self.sent += 1;
                self.wire.insert((self.now + 5, self.sent), (to_switch, bytes.clone()));
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.agent.poll() {
            match output {
                AgentOutput::Send(bytes) => self.carry(true, bytes),
                AgentOutput::Event(event) => self.heard.push(event),
            }
        }
        while let Some(output) = self.switch.poll() {
            match output {
                Output::Send { bytes, .. } => self.carry(false, bytes),
                Output::Event(event) => self.events.push(event),
                Output::Dropped(_) => {}
            }
        }
    }

    fn run(&mut self, for_ms: u64) {
        self.drain();
        let end = self.now + for_ms;
        loop {
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let wakes = [self.agent.next_timeout(), self.switch.next_timeout(), arrival];
            let Some(next) = wakes.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= self.now) {
                let (_, (to_switch, bytes)) = self.wire.pop_first().unwrap();
                if to_switch {
                    let path = Path::Udp { remote: at("127.0.0.1:5070"), local: at("127.0.0.1:5060") };
                    let now = self.at();
                    self.switch.handle(Input::Received { path, bytes }, now);
                } else {
                    self.agent.handle(&bytes, self.now);
                }
            } else {
                self.agent.handle_timeout(self.now);
                let now = self.at();
                self.switch.handle_timeout(now);
            }
            self.drain();
        }
        self.now = end;
    }

    fn registered(&mut self) {
        self.agent.register(self.now);
        self.run(20_000);
        assert!(
            self.heard.iter().any(|event| matches!(event, AgentEvent::Registered { .. })),
            "{}",
            self.ladder()
        );
    }

    fn ladder(&self) -> String {
        self.ladder.join("\n")
    }

    fn tell(&mut self, command: Command) {
        let now = self.at();
        self.switch.handle(Input::Command(command), now);
        self.drain();
    }

    fn ends(&self) -> usize {
        self.heard
            .iter()
            .filter(|event| matches!(event, AgentEvent::Ended { .. } | AgentEvent::Failed { .. }))
            .count()
    }

    /// The switch calls the agent.
    fn called(&mut self) -> LegId {
        let leg = self.switch.new_leg();
        let who = self.events.iter().find_map(|event| match event {
            Event::Registered { who, .. } => Some(who.clone()),
            _ => None,
        });
        self.tell(Command::Invite {
            leg,
            to: who.expect("nobody registered"),
            number: Number::new("+380441112233"),
            show: Number::new("+380671234567"),
            display: String::new(),
            headers: vec![("X-Tandem-Call".into(), "7".into())],
            sdp: sdp(),
            ring_ms: 60_000,
        });
        leg
    }

    fn incoming(&self) -> Option<CallNo> {
        self.heard.iter().find_map(|event| match event {
            AgentEvent::Invited { call, .. } => Some(*call),
            _ => None,
        })
    }
}

#[test]
fn it_registers_with_either_digest_and_refreshes() {
    for digest in [vec![Algorithm::Md5], vec![Algorithm::Sha256], vec![Algorithm::Sha256, Algorithm::Md5]] {
        let mut world = World::new("right", digest, 0, 1);
        world.agent.register(world.now);
        world.run(100);
        let granted = world.heard.iter().find_map(|event| match event {
            AgentEvent::Registered { expires_s } => Some(*expires_s),
            _ => None,
        });
        assert!(granted.is_some(), "{}", world.ladder());
        let count = |world: &World| {
            world.heard.iter().filter(|event| matches!(event, AgentEvent::Registered { .. })).count()
        };
        let before = count(&world);
        world.run(u64::from(granted.unwrap()) * 600);
        assert!(count(&world) > before, "{}", world.ladder());
        world.agent.unregister(world.now);
        world.run(100);
        assert!(matches!(world.heard.last(), Some(AgentEvent::Unregistered)), "{}", world.ladder());
        assert_eq!(world.switch.counts().registrations, 0);
    }
}

#[test]
fn a_wrong_password_is_told_and_not_hammered() {
    let mut world = World::new("wrong", vec![Algorithm::Md5], 0, 1);
    world.agent.register(world.now);
    world.run(1_000);
    assert!(matches!(world.heard[..], [AgentEvent::NotRegistered { .. }]), "{}", world.ladder());
    let asked = world.ladder.iter().filter(|line| line.contains("-> REGISTER")).count();
    assert!(asked <= 2, "{}", world.ladder());
}

#[test]
fn calls_both_ways_survive_a_lossy_wire_and_leave_nothing_behind() {
    for seed in 1..12 {
        let mut world = World::new("right", vec![Algorithm::Md5], if seed == 1 { 0 } else { 20 }, seed);
        world.registered();
        let call = world.agent.call("+380800500500", Some("+380501112233"), &[], sdp(), world.now);
        world.run(3_000);
        let invited = world.events.iter().find_map(|event| match event {
            Event::Invited(invited) => Some(invited.clone()),
            _ => None,
        });
        let Some(invited) = invited else {
            // All of the first seconds lost: the call fails later, once.
            world.run(40_000);
            assert!(world.ends() <= 1, "{}", world.ladder());
            continue;
        };
        assert_eq!(
            (invited.to_user.as_str(), invited.identities[0].user.as_str()),
            ("+380800500500", "+380501112233")
        );
        world.tell(Command::Answer { leg: invited.leg, sdp: sdp() });
        world.run(20_000);
        assert!(
            world
                .heard
                .iter()
                .any(|event| matches!(event, AgentEvent::Answered { call: one, .. } if *one == call)),
            "seed {seed}\n{}",
            world.ladder()
        );
        world.agent.hang_up(call, world.now);
        world.run(40_000);
        assert_eq!(world.ends(), 1, "seed {seed}\n{}", world.ladder());
        let ended = world.events.iter().filter(|event| matches!(event, Event::Ended { .. })).count();
        assert_eq!(ended, 1, "seed {seed}\n{}", world.ladder());
        assert!(world.agent.calls.is_empty() && world.switch.counts().legs == 0);
    }
}

#[test]
fn a_call_to_it_rings_with_sound_is_answered_and_ended_by_the_switch() {
    let mut through = 0;
    for seed in 1..12 {
        let mut world = World::new("right", vec![Algorithm::Sha256], if seed == 1 { 0 } else { 15 }, seed);
        world.registered();
        let leg = world.called();
        world.run(3_500);
        let Some(call) = world.incoming() else { continue };
        through += 1;
        world.agent.ring(call, sdp());
        world.run(1_000);
        world.agent.answer(call, sdp(), world.now);
        world.run(20_000);
        let confirmed =
            world.heard.iter().filter(|event| matches!(event, AgentEvent::Confirmed { .. })).count();
        assert_eq!(confirmed, 1, "seed {seed}\n{}", world.ladder());
        assert!(world.events.iter().any(|event| matches!(event, Event::Answered { .. })));
        world.tell(Command::HangUp { leg, cause: Default::default() });
        world.run(40_000);
        let by_peer = world.heard.iter().any(|event| {
            matches!(event, AgentEvent::Ended { call: one, by_peer: true, reason: Some(_) } if *one == call)
        });
        assert!(by_peer, "seed {seed}\n{}", world.ladder());
        assert!(world.agent.calls.is_empty());
    }
    assert!(through >= 8, "{through} of 11 calls came");
}

#[test]
fn a_refusal_and_a_cancel_end_once() {
    let mut world = World::new("right", vec![Algorithm::Md5], 0, 1);
    world.registered();
    world.called();
    world.run(100);
    let call = world.incoming().unwrap();
    world.agent.reject(call, 486);
    world.run(1_000);
    assert!(
        world.events.iter().any(|event| matches!(event, Event::Failed { code: 486, .. })),
        "{}",
        world.ladder()
    );
    let out = world.agent.call("2", None, &[], sdp(), world.now);
    world.run(100);
    world.agent.hang_up(out, world.now);
    world.run(1_000);
    assert!(
        world
            .heard
            .iter()
            .any(|event| matches!(event, AgentEvent::Failed { call, code: 487 } if *call == out)),
        "{}",
        world.ladder()
    );
    assert_eq!(world.ends(), 2);
    assert_eq!(world.switch.counts().legs, 0);
}

#[test]
fn a_switch_that_is_silent_is_given_up_after_32_seconds() {
    let mut world = World::new("right", Vec::new(), 100, 1);
    let call = world.agent.call("2", None, &[], sdp(), world.now);
    world.run(31_000);
    assert!(world.heard.is_empty());
    world.run(2_000);
    assert!(matches!(world.heard[..], [AgentEvent::Failed { call: one, code: 408 }] if one == call));
    assert_eq!(world.ladder.len(), 7, "RFC 3261: 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s\n{}", world.ladder());
    assert_eq!(world.agent.next_timeout(), None);
}

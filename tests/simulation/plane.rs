//! The media plane of a world: ports that open, meet their party, play and close, and that say so.
//! It keeps account of every command that makes no sense.

use std::collections::{BTreeMap, BTreeSet};

use tandem::media::command::{Command, Connect, Event, Keys, Open, Remote};
use tandem::terms::{PortId, Secret};

use crate::dice::Dice;

/// How long a prompt lasts.
const PROMPT_MS: u64 = 1_500;
/// Without anything from the party for so long its port is told dead.
const DEAD_MS: u64 = 20_000;

#[derive(Debug, Clone)]
pub struct Port {
    pub browser: bool,
    pub remote: Option<Connect>,
    pub joined: Option<PortId>,
    pub playing: Option<(u64, bool)>,
    met: bool,
    /// When the party was last there.
    seen_ms: u64,
    dead: bool,
}

#[derive(Debug, Default)]
pub struct Plane {
    pub ports: BTreeMap<PortId, Port>,
    closed: BTreeSet<PortId>,
    udp: BTreeMap<u16, PortId>,
    /// What the plane will say, by time.
    pub later: Vec<(u64, Event)>,
    pub wrong: Vec<String>,
}

impl Plane {
    /// A new process: no port is open.
    pub fn crash(&mut self) {
        *self = Self::default();
    }

    pub fn tell(&mut self, command: Command, faults: bool, dice: &mut Dice, now: u64) {
        match command {
            Command::Open { port, open, .. } => {
                self.open(port, &open, now);
                if faults && dice.chance(1) {
                    self.later.push((now + 3, Event::OpenFailed { port, why: "address in use".to_owned() }));
                }
            }
            Command::Close { port } => {
                if self.ports.contains_key(&port) {
                    self.part(port);
                    self.ports.remove(&port);
                    self.udp.retain(|_, owner| *owner != port);
                    self.closed.insert(port);
                } else {
                    self.wrong.push(format!("port {port} is closed although it is not open"));
                }
            }
            Command::Join { a, b } => self.join(a, b),
            other => self.change(other, faults, dice, now),
        }
    }

    fn open(&mut self, id: PortId, open: &Open, now: u64) {
        if self.ports.contains_key(&id) || self.closed.contains(&id) {
            self.wrong.push(format!("port {id} is opened twice"));
        }
        if let Open::Rtp { local } = open
            && let Some(owner) = self.udp.insert(local.port(), id)
        {
            self.wrong.push(format!("port {id} takes UDP {} of port {owner}", local.port()));
        }
        let browser = matches!(open, Open::WebRtc { .. });
        let port = Port {
            browser,
            remote: None,
            joined: None,
            playing: None,
            met: false,
            seen_ms: now,
            dead: false,
        };
        self.ports.insert(id, port);
    }

    fn join(&mut self, a: PortId, b: PortId) {
        if !self.ports.contains_key(&a) || !self.ports.contains_key(&b) {
            return self.wrong.push(format!("ports {a} and {b} are joined, but not both are open"));
        }
        self.part(a);
        self.part(b);
        if let Some(port) = self.ports.get_mut(&a) {
            port.joined = Some(b);
        }
        if let Some(port) = self.ports.get_mut(&b) {
            port.joined = Some(a);
        }
    }

    fn part(&mut self, a: PortId) {
        let partner = self.ports.get_mut(&a).and_then(|port| port.joined.take());
        if let Some(partner) = partner.and_then(|partner| self.ports.get_mut(&partner)) {
            partner.joined = None;
        }
    }

    fn change(&mut self, command: Command, faults: bool, dice: &mut Dice, now: u64) {
        let id = command.port();
        let Some(port) = self.ports.get_mut(&id) else {
            return self.wrong.push(format!("{command:?} for a port that is not open"));
        };
        match command {
            Command::Expect { .. } => {
                if port.remote.is_some() || port.browser {
                    self.wrong.push(format!("port {id} is told to expect a party that it knows"));
                } else if dice.chance(20) {
                    // Sound before the carrier describes itself.
                    self.later.push((now + dice.range(1, 400), Event::FirstPacket { port: id }));
                }
            }
            Command::Connect { remote, .. } => {
                let first = !std::mem::replace(&mut port.met, true);
                port.remote = Some(remote);
                if first {
                    let at = now + dice.range(40, 300);
                    if port.browser {
                        let key = || Secret::new(vec![7; 28]);
                        let keys = Keys { profile: 7, local: key(), remote: key() };
                        self.later.push((at, Event::Secured { port: id, keys }));
                    }
                    self.later.push((at, Event::Connected { port: id }));
                    self.later.push((at + 20, Event::FirstPacket { port: id }));
                    if faults && dice.chance(5) {
                        self.later.push((at + 900, Event::Digit { port: id, digit: '5', duration_ms: 100 }));
                    }
                    if faults && dice.chance(1) {
                        self.later
                            .push((at + 500, Event::Failed { port: id, why: "certificate".to_owned() }));
                    }
                }
            }
            Command::Play { token, repeat, .. } => {
                port.playing = Some((token, repeat));
                if !repeat {
                    self.later.push((now + PROMPT_MS, Event::PlayEnded { port: id, token }));
                }
            }
            Command::Stop { .. } => port.playing = None,
            Command::Part { .. } => self.part(id),
            Command::Restart { .. } | Command::Digits { .. } => {}
            Command::Open { .. } | Command::Close { .. } | Command::Join { .. } => {}
        }
    }

    /// The next thing that is due, unless it came to nothing meanwhile.
    pub fn due(&mut self, now: u64) -> Option<Event> {
        let due =
            (0..self.later.len()).filter(|at| self.later[*at].0 <= now).min_by_key(|at| self.later[*at].0)?;
        let (_, event) = self.later.remove(due);
        let alive = match &event {
            Event::PlayEnded { port, token } => match self.ports.get_mut(port) {
                Some(open) if open.playing == Some((*token, false)) => {
                    open.playing = None;
                    true
                }
                Some(_) | None => false,
            },
            Event::Secured { port, .. }
            | Event::Connected { port }
            | Event::FirstPacket { port }
            | Event::Digit { port, .. }
            | Event::OpenFailed { port, .. }
            | Event::Failed { port, .. } => self.ports.contains_key(port),
            _ => false,
        };
        alive.then_some(event)
    }

    /// Looks whether the parties are still there; says once of each that is not.
    pub fn watch(&mut self, now: u64, is_there: impl Fn(&Remote) -> bool) -> Vec<Event> {
        let mut dead = Vec::new();
        for (id, port) in &mut self.ports {
            let there = port.remote.as_ref().is_some_and(|connect| is_there(&connect.remote));
            if there {
                port.seen_ms = now;
                port.dead = false;
            } else if now.saturating_sub(port.seen_ms) >= DEAD_MS && port.remote.is_some() && !port.dead {
                port.dead = true;
                dead.push(Event::Dead { port: *id });
            }
        }
        dead
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.later.iter().map(|(at, _)| *at).min()
    }
}

//! Requests within a dialog: whose they are, whether they come in order, what they want.
//!
//! Invariant: a request acts on a leg only when Call-ID and both tags fit and it comes from the leg's own
//! party (same address, or a socket that proved to be his); everything else gets 481 and changes nothing.

use bytes::Bytes;

use super::auth::Login;
use super::cause;
use super::leg::Stage;
use super::message::{Headers, Method, Name, Request};
use super::reply::{ALLOW, SDP, SUPPORTED};
use super::transaction::{Heard, Purpose};
use super::{Event, Path, Sip};
use crate::fact::Party;
use crate::terms::{LegId, Now};

/// How long a digit lasts when its INFO does not say, milliseconds.
const DIGIT_MS: u32 = 250;
/// The longest digit, milliseconds.
const MAX_DIGIT_MS: u32 = 10_000;

/// Whose a request within a dialog is.
enum Whose {
    /// This leg's.
    Leg(LegId),
    /// This leg's, if he proves it: it came over a socket that nobody registered on.
    Unproved(LegId),
    /// Nobody's.
    Nobody,
}

impl Sip {
    /// The leg that a request names by Call-ID and tags.
    fn named(&self, headers: &Headers) -> Option<LegId> {
        let (from, to) = (headers.from().ok()?, headers.to().ok()?);
        let tag = to.tag()?;
        let (id, _) = tag.split_once('.')?;
        let id = LegId(u64::from_str_radix(id, 16).ok()?);
        let leg = self.legs.get(id)?;
        let dialog = &leg.dialog;
        let fits = dialog.local_tag == tag
            && Ok(dialog.call_id.as_str()) == headers.call_id()
            && leg.has_tag(from.tag().unwrap_or_default());
        fits.then_some(id)
    }

    fn whose(&self, headers: &Headers, path: &Path) -> Whose {
        let Some(id) = self.named(headers) else { return Whose::Nobody };
        let Some(leg) = self.legs.get(id) else { return Whose::Nobody };
        let own = match path {
            Path::Udp { remote, .. } => {
                leg.home.flow().is_none()
                    && (leg.home.remote().ip() == remote.ip() || self.is_of_party(&leg.party, path))
            }
            Path::Ws { flow, .. } => match self.registrar.on_flow(*flow) {
                Some((who, _)) => *who == leg.party,
                // The socket on which the call began, without a registration (digest proved it then).
                None if leg.home == *path && !leg.lost => true,
                None if leg.home.flow().is_some() => return Whose::Unproved(id),
                None => false,
            },
        };
        if own { Whose::Leg(id) } else { Whose::Nobody }
    }

    fn is_of_party(&self, party: &Party, path: &Path) -> bool {
        match party {
            Party::Trunk(name) => {
                self.trunks.owns(name, path.remote().ip()) || self.registrar.gateway_at(path) == Some(party)
            }
            Party::Operator(_) => false,
        }
    }

    /// A peer with several addresses is sent to the one that its Contact or Record-Route names, as long as
    /// that is one of its own: anything else would let it aim our packets at others.
    pub(crate) fn follow_route(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Party::Trunk(name) = &leg.party else { return };
        let Some(ip) = leg.dialog.next_hop().and_then(|hop| hop.host.ip().map(|ip| (ip, hop.port))) else {
            return;
        };
        let own = self.trunks.owns(name, ip.0) && self.trunks.owns(name, leg.home.remote().ip());
        if let (true, Path::Udp { local, .. }) = (own, leg.home) {
            let remote = std::net::SocketAddr::new(ip.0, ip.1.unwrap_or(5060));
            leg.home = Path::Udp { remote, local };
        }
    }

    /// A request with a To tag.
    pub(crate) fn within(&mut self, request: &Request, key: String, path: Path, now: Now) {
        let id = match self.whose(&request.headers, &path) {
            Whose::Leg(id) => id,
            Whose::Unproved(id) => match self.proved(request, &path, id, now) {
                Some(id) => id,
                None => return,
            },
            Whose::Nobody => return self.refuse(request, &path, 481),
        };
        let Some(leg) = self.legs.get_mut(id) else { return };
        // A peer's proxies speak from several addresses; what it says in Contact and Record-Route counts.
        let is_peer = match &leg.party {
            Party::Trunk(name) => self.trunks.owns(name, path.remote().ip()),
            Party::Operator(_) => false,
        };
        if !is_peer && leg.home != path {
            leg.home = path;
            leg.lost = false;
        }
        let tag = request.headers.from().ok().and_then(|from| from.tag().map(str::to_owned));
        if tag.as_ref().is_some_and(|tag| *tag != leg.dialog.remote_tag) {
            leg.turn_to(&tag.unwrap_or_default());
        }
        let number = request.headers.cseq().map_or(0, |(number, _)| number);
        let server = self.wire.tx.accept(request, key, path, Some(id));
        if !leg.dialog.sequence(number) {
            // RFC 3261 section 12.2.2.
            return self.wire.answer_plainly(leg, server, 500, now);
        }
        self.act(id, server, request, now);
    }

    /// A browser that came back may speak before its REGISTER is through: it is asked who it is.
    fn proved(&mut self, request: &Request, path: &Path, id: LegId, now: Now) -> Option<LegId> {
        match self.login(request, path, now) {
            Login::Proved { who, .. } => {
                if self.legs.get(id).is_some_and(|leg| leg.party == who) {
                    return Some(id);
                }
                self.refuse(request, path, 481);
            }
            Login::Challenge { stale } => self.challenge(request, path, stale, now),
            Login::Refused { why, guessed } => self.stranger(request, path, why, guessed),
        }
        None
    }

    fn act(&mut self, id: LegId, server: u64, request: &Request, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        match request.method {
            Method::Bye => self.bye_came(id, server, request, now),
            Method::Invite | Method::Update => self.change_asked(id, server, request, now),
            Method::Info => self.info_came(id, server, request, now),
            Method::Options => {
                let Some(mut response) = self.wire.response(leg, server, 200) else { return };
                response.headers.push(Name::Allow, ALLOW);
                response.headers.push(Name::Accept, SDP);
                response.headers.push(Name::Supported, SUPPORTED);
                self.wire.answer(leg, server, &response, now);
            }
            Method::Refer => self.refer_came(id, server, request, now),
            Method::Notify | Method::Subscribe | Method::Publish => {
                self.wire.answer_plainly(leg, server, 489, now)
            }
            Method::Prack => self.prack_came(id, server, request, now),
            Method::Cancel => self.wire.answer_plainly(leg, server, 481, now),
            Method::Message | Method::Register => {
                let Some(mut response) = self.wire.response(leg, server, 405) else { return };
                response.headers.push(Name::Allow, ALLOW);
                self.wire.answer(leg, server, &response, now);
            }
            Method::Ack => {}
            Method::Other(_) => self.wire.answer_plainly(leg, server, 501, now),
        }
    }

    fn bye_came(&mut self, id: LegId, server: u64, request: &Request, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        self.wire.answer_plainly(leg, server, 200, now);
        let why = cause::of_headers(&request.headers, 0, 16);
        match leg.stage {
            // RFC 3261 section 15.1.2: pending requests of the dialog get 487.
            Stage::Invited { .. } => self.reject(id, 487, why, true, now),
            // One of several phones gives up; the others ring on.
            Stage::Calling { .. } if !leg.forks.is_empty() => leg.forget_fork(),
            Stage::Up | Stage::Calling { .. } => {
                // A callee leaves by BYE only a call that it answered (RFC 3261 section 15): its 200 was lost
                // with a predecessor, and no other answer will come.
                if let Stage::Calling { client, .. } = leg.stage {
                    self.wire.tx.abandon(client);
                }
                self.wire.drop_their_change(leg, now);
                self.wire.end(leg, why, true);
                self.remove(id);
            }
            // Both left at once: our own BYE finds its end by itself.
            Stage::Leaving => {}
        }
    }

    fn info_came(&mut self, id: LegId, server: u64, request: &Request, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let kind = request.headers.text(&Name::ContentType).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let code = match kind.as_str() {
            "application/dtmf-relay" | "application/dtmf" => match digit_of(&kind, &request.body) {
                Some((digit, duration_ms)) => {
                    if leg.is_up() {
                        self.wire.tell(Event::Digit { leg: id, digit, duration_ms });
                    }
                    200
                }
                None => 400,
            },
            // RFC 6086 section 4.2.2: an INFO without a body is only a sign of life.
            "" if request.body.is_empty() => 200,
            _ => 415,
        };
        self.wire.answer_plainly(leg, server, code, now);
    }

    /// An ACK that no transaction knows: to a 200 of ours.
    pub(crate) fn ack_came(&mut self, request: &Request, path: &Path, now: Now) {
        let id = match self.whose(&request.headers, path) {
            // An ACK cannot be challenged (RFC 3261 section 22.1); it can do no more than confirm.
            Whose::Leg(id) | Whose::Unproved(id) => id,
            Whose::Nobody => return,
        };
        let number = request.headers.cseq().map_or(0, |(number, _)| number);
        self.acknowledged(id, number, &request.body, now);
    }

    /// What became of a request of ours.
    pub(crate) fn heard(&mut self, (client, leg, purpose, heard): (u64, LegId, Purpose, Heard), now: Now) {
        if let Heard::Response(response) = &heard
            && purpose != Purpose::Invite
            && self.prove(client, leg, purpose, response, now)
        {
            return;
        }
        match purpose {
            Purpose::Register | Purpose::Ping => self.trunk_heard(client, purpose, &heard, now),
            Purpose::Invite => self.invite_heard(leg, client, heard, now),
            Purpose::Change => self.change_heard(leg, client, heard, now),
            Purpose::End => {
                let over = match heard {
                    Heard::Response(response) => response.code >= 200,
                    Heard::TimeOut => true,
                };
                // 481 to our BYE is as good as 200: the peer has no such call.
                if over && self.legs.get(leg).is_some_and(|leg| leg.stage == Stage::Leaving) {
                    self.remove(leg);
                }
            }
            // RFC 3262 section 4: a PRACK that fails changes nothing; the call's own answer will come.
            Purpose::Info | Purpose::Prack => {}
        }
    }

    /// A digit by INFO.
    pub(crate) fn send_digit(&mut self, id: LegId, digit: char, duration_ms: u32, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if !leg.is_up() || !is_digit(digit) {
            return;
        }
        let mut info = self.wire.request(leg, Method::Info);
        info.headers.push(Name::ContentType, "application/dtmf-relay");
        info.body = Bytes::from(format!("Signal={digit}\r\nDuration={duration_ms}\r\n"));
        self.wire.ask(leg, info, Purpose::Info, now);
    }
}

fn is_digit(digit: char) -> bool {
    matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D')
}

/// `Signal=5\r\nDuration=160`, or a bare `5`.
fn digit_of(kind: &str, body: &Bytes) -> Option<(char, u32)> {
    let text = std::str::from_utf8(body).ok()?;
    let mut signal = None;
    let mut duration_ms = DIGIT_MS;
    for line in text.lines() {
        match line.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("Signal") => signal = Some(value.trim()),
            Some((name, value)) if name.trim().eq_ignore_ascii_case("Duration") => {
                duration_ms = value.trim().parse().unwrap_or(DIGIT_MS);
            }
            Some(_) => {}
            None if kind == "application/dtmf" => signal = signal.or(Some(line.trim())),
            None => {}
        }
    }
    let digit = match signal? {
        // Some gateways number the two keys as RFC 4733 does.
        "10" => '*',
        "11" => '#',
        one => {
            let mut chars = one.chars();
            let digit = chars.next()?.to_ascii_uppercase();
            if chars.next().is_some() {
                return None;
            }
            digit
        }
    };
    is_digit(digit).then_some((digit, duration_ms.clamp(1, MAX_DIGIT_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_is_read_in_every_way_that_gateways_write_it() {
        let (relay, plain) = ("application/dtmf-relay", "application/dtmf");
        for (kind, body, expected) in [
            (relay, "Signal=5\r\nDuration=160", Some(('5', 160))),
            (relay, "Signal= # \nDuration= 99999", Some(('#', 10_000))),
            (relay, "signal=10\r\n", Some(('*', 250))),
            (relay, "Signal=a", Some(('A', 250))),
            (plain, "7", Some(('7', 250))),
            (plain, "Signal=7\r\nDuration=100\r\n", Some(('7', 100))),
            (relay, "7", None),
            (relay, "Signal=77", None),
            (relay, "Signal=x", None),
            (plain, "", None),
        ] {
            assert_eq!(digit_of(kind, &Bytes::from_static(body.as_bytes())), expected, "{body:?}");
        }
    }
}

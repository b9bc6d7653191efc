//! What we asked and wait for: client transactions, with digest.
//!
//! Invariant: an entry leaves by its final answer or by its time, never otherwise.

use bytes::Bytes;

use super::calls::Word;
use super::{Agent, AgentEvent, CallNo, GIVE_UP_MS, MAX_AT_ONCE, RING_MS, T1_MS, T2_MS};
use crate::sip::digest::{Algorithm, choose, is_stale};
use crate::sip::header::{Challenge, Via};
use crate::sip::message::{Method, Name, Request, Response};
use crate::terms::MonoMs;

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Register,
    Invite(CallNo),
    /// A re-INVITE.
    Change(CallNo),
    /// BYE or CANCEL: the call is over whatever the answer.
    Leave,
}

/// One request that waits for its final answer.
pub(super) struct Ask {
    branch: String,
    pub(super) request: Request,
    pub(super) purpose: Purpose,
    repeat_at: Option<MonoMs>,
    wait_ms: u64,
    give_up_at: MonoMs,
    /// Credentials were shown, with this nonce.
    shown: Option<String>,
}

impl Ask {
    pub(super) fn next_timeout(&self) -> MonoMs {
        self.repeat_at.map_or(self.give_up_at, |at| at.min(self.give_up_at))
    }

    fn is_invite(&self) -> bool {
        self.request.method == Method::Invite
    }
}

impl Agent {
    /// Sends a request and waits for its answer.
    pub(super) fn ask(&mut self, request: Request, purpose: Purpose, now: MonoMs) {
        let branch = format!("z9hG4bK{}", self.word());
        self.ask_with(request, purpose, branch, None, now);
    }

    fn ask_with(
        &mut self,
        request: Request,
        purpose: Purpose,
        branch: String,
        shown: Option<String>,
        now: MonoMs,
    ) {
        let mut sent = request.clone();
        sent.headers.push_front(Name::Via, self.via(&branch));
        if self.asks.len() < MAX_AT_ONCE {
            let repeat_at = (!self.is_reliable()).then_some(now + T1_MS);
            let give_up_at = now + GIVE_UP_MS;
            self.asks.push(Ask { branch, request, purpose, repeat_at, wait_ms: T1_MS, give_up_at, shown });
        }
        self.send(sent.to_bytes());
    }

    pub(super) fn via(&self, branch: &str) -> String {
        let transport = if self.is_reliable() { "WS" } else { "UDP" };
        Via::new(transport, self.host.0.clone(), self.host.1, branch).to_string()
    }

    /// CANCEL of an INVITE that rings: it has the INVITE's branch (RFC 3261 section 9.1).
    pub(super) fn cancel(&mut self, call: CallNo, now: MonoMs) {
        let Some(ask) = self.asks.iter().find(|ask| ask.purpose == Purpose::Invite(call)) else { return };
        let (branch, invite) = (ask.branch.clone(), &ask.request);
        let mut cancel = Request::new(Method::Cancel, invite.uri.clone());
        for name in [Name::MaxForwards, Name::From, Name::To, Name::CallId] {
            if let Some(value) = invite.headers.first(&name) {
                cancel.headers.push(name, Bytes::copy_from_slice(value));
            }
        }
        let number = invite.headers.cseq().map_or(1, |(number, _)| number);
        cancel.headers.push(Name::CSeq, format!("{number} CANCEL"));
        self.ask_with(cancel, Purpose::Leave, branch, None, now);
    }

    /// A response came.
    pub(super) fn answered(&mut self, response: Response, now: MonoMs) {
        let branch = response.headers.via_top().ok().and_then(|via| via.branch().map(str::to_owned));
        let method = response.headers.cseq().map(|(_, method)| method);
        let (Some(branch), Ok(method)) = (branch, method) else { return };
        let found = self.asks.iter().position(|ask| ask.branch == branch && ask.request.method == method);
        let Some(at) = found else {
            return self.answered_again(&branch, &response);
        };
        if response.code < 200 {
            return self.provisional(at, &response, now);
        }
        let ask = self.asks.swap_remove(at);
        if ask.is_invite() && response.code >= 300 {
            self.ack_refusal(&ask, &response);
        }
        if matches!(response.code, 401 | 407) && self.prove(&ask, &response, now) {
            return;
        }
        match ask.purpose {
            Purpose::Register => self.registered(&response, now),
            Purpose::Invite(call) if response.code < 300 => {
                self.call_heard(call, &Word::Accepted(branch, response), now);
            }
            Purpose::Invite(call) => self.call_heard(call, &Word::Refused(response.code), now),
            Purpose::Change(call) if response.code < 300 => self.change_heard(call, Ok((branch, response))),
            Purpose::Change(call) => self.change_heard(call, Err(response.code)),
            Purpose::Leave => {}
        }
    }

    fn provisional(&mut self, at: usize, response: &Response, now: MonoMs) {
        let Some(ask) = self.asks.get_mut(at) else { return };
        if ask.is_invite() {
            ask.repeat_at = None;
            ask.give_up_at = now + RING_MS;
        } else {
            ask.wait_ms = T2_MS;
        }
        if let Purpose::Invite(call) = ask.purpose {
            self.call_heard(call, &Word::Progress(response.clone()), now);
        }
    }

    /// The final answer once more: its ACK once more.
    fn answered_again(&mut self, branch: &str, response: &Response) {
        if response.code >= 200
            && let Some(ack) = self.kept(&format!("ack {branch}"))
        {
            self.send(ack);
        }
    }

    /// RFC 3261 section 17.1.1.3: within the transaction, with its branch.
    fn ack_refusal(&mut self, ask: &Ask, response: &Response) {
        let mut ack = Request::new(Method::Ack, ask.request.uri.clone());
        ack.headers.push(Name::Via, self.via(&ask.branch));
        for (name, from) in [
            (Name::MaxForwards, &ask.request.headers),
            (Name::From, &ask.request.headers),
            (Name::To, &response.headers),
            (Name::CallId, &ask.request.headers),
        ] {
            if let Some(value) = from.first(&name) {
                ack.headers.push(name, Bytes::copy_from_slice(value));
            }
        }
        let number = ask.request.headers.cseq().map_or(1, |(number, _)| number);
        ack.headers.push(Name::CSeq, format!("{number} ACK"));
        let bytes = ack.to_bytes();
        self.keep(format!("ack {}", ask.branch), bytes.clone());
        self.send(bytes);
    }

    /// Asks again with credentials; `false` when there is nothing (more) to show.
    fn prove(&mut self, ask: &Ask, response: &Response, now: MonoMs) -> bool {
        let (asked, shown) = if response.code == 407 {
            (Name::ProxyAuthenticate, Name::ProxyAuthorization)
        } else {
            (Name::WwwAuthenticate, Name::Authorization)
        };
        let ours = self.config.digest;
        let fits = |challenge: &Challenge| ours.is_none_or(|ours| is_of(challenge, ours));
        let Some(challenge) = choose(response.headers.challenges(&asked).filter(fits)) else { return false };
        let nonce = challenge.text("nonce").unwrap_or_default();
        // The same nonce refused, or a fresh one that is not said to replace a stale one: the password is wrong.
        if ask.shown.is_some() && !is_stale(&challenge) {
            return false;
        }
        let uri = String::from_utf8_lossy(&ask.request.uri).into_owned();
        let cnonce = self.word();
        let Some(answer) = self.login.answer(&challenge, &ask.request.method, &uri, &cnonce, 1) else {
            return false;
        };
        let mut request = ask.request.clone();
        request.headers.remove_all(&shown);
        request.headers.push(shown, answer.to_string());
        let Ok((number, method)) = request.headers.cseq() else { return false };
        let number = number + 1;
        request.headers.set(Name::CSeq, format!("{number} {method}"));
        match ask.purpose {
            Purpose::Register => self.registration.cseq = number,
            Purpose::Invite(call) | Purpose::Change(call) => self.renumber(call, number),
            Purpose::Leave => {}
        }
        let branch = format!("z9hG4bK{}", self.word());
        self.ask_with(request, ask.purpose, branch, Some(nonce), now);
        true
    }

    /// Repeats and gives up.
    pub(super) fn repeat_asks(&mut self, now: MonoMs) {
        let mut again = Vec::new();
        let mut over = Vec::new();
        for ask in &mut self.asks {
            if ask.give_up_at <= now {
                over.push(ask.purpose);
            } else if ask.repeat_at.is_some_and(|at| at <= now) {
                let longest = if ask.is_invite() { GIVE_UP_MS } else { T2_MS };
                ask.wait_ms = (2 * ask.wait_ms).min(longest);
                ask.repeat_at = Some(now + ask.wait_ms);
                again.push((ask.branch.clone(), ask.request.clone()));
            }
        }
        self.asks.retain(|ask| ask.give_up_at > now);
        for (branch, mut request) in again {
            request.headers.push_front(Name::Via, self.via(&branch));
            self.send(request.to_bytes());
        }
        for purpose in over {
            match purpose {
                Purpose::Register => {
                    self.registration.retry(now);
                    self.tell(AgentEvent::NotRegistered { code: 408 });
                }
                Purpose::Invite(call) => self.call_heard(call, &Word::Refused(408), now),
                Purpose::Change(call) => self.change_heard(call, Err(408)),
                Purpose::Leave => {}
            }
        }
    }
}

fn is_of(challenge: &Challenge, wanted: Algorithm) -> bool {
    // RFC 7616 section 3.3: MD5 when not said.
    let named = challenge.text("algorithm").unwrap_or_else(|| "MD5".to_owned());
    named.eq_ignore_ascii_case(wanted.as_str())
}

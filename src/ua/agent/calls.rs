//! The calls of an agent: what it begins, answers and ends.

use bytes::Bytes;

use super::ask::Purpose;
use super::{Agent, AgentEvent, CallNo, GIVE_UP_MS, MAX_AT_ONCE, Names, T1_MS, T2_MS, with_sdp};
use crate::sip::message::{Method, Name, Request, Response};
use crate::terms::MonoMs;

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// We call; CANCEL waits for the first provisional answer.
    Calling { heard: bool, cancelled: bool },
    /// It rings here.
    Ringing,
    /// It was answered.
    Up,
}

/// A 200 that waits for its ACK.
pub(super) struct Unacked {
    pub(super) bytes: Bytes,
    at: MonoMs,
    wait_ms: u64,
    until: MonoMs,
}

/// One dialog.
pub(super) struct Call {
    pub(super) no: CallNo,
    pub(super) call_id: String,
    /// Our From or To, with tag.
    pub(super) local: String,
    /// Theirs, with tag once known.
    pub(super) remote: String,
    /// Where requests of ours go: their Contact.
    pub(super) target: String,
    pub(super) cseq: u32,
    pub(super) stage: Stage,
    /// The INVITE (or re-INVITE) that waits for our answer.
    pub(super) invite: Option<Request>,
    pub(super) unacked: Option<Unacked>,
}

impl Call {
    pub(super) fn next_timeout(&self) -> Option<MonoMs> {
        self.unacked.as_ref().map(|unacked| unacked.at.min(unacked.until))
    }

    fn names(&self) -> Names<'_> {
        Names { from: &self.local, to: &self.remote, call_id: &self.call_id, cseq: self.cseq }
    }
}

/// What a call hears about its INVITE.
pub(super) enum Word {
    Progress(Response),
    /// The branch of the INVITE, and the 2xx.
    Accepted(String, Response),
    Refused(u16),
}

impl Agent {
    /// Calls a number; `shown` is the user of From (a gateway shows its caller's number, a phone itself), and
    /// `extra` are further headers. The number of the call; its first event tells what became of it.
    pub fn call(
        &mut self,
        number: &str,
        shown: Option<&str>,
        extra: &[(&str, &str)],
        sdp: Bytes,
        now: MonoMs,
    ) -> CallNo {
        let no = self.new_call();
        let domain = self.config.domain.clone();
        let shown = shown.unwrap_or(&self.config.user).to_owned();
        let local = format!("<sip:{shown}@{domain}>;tag={}", self.word());
        let remote = format!("<sip:{number}@{domain}>");
        let call_id = self.word();
        let call = Call {
            no,
            call_id,
            local,
            remote,
            target: format!("sip:{number}@{domain}"),
            cseq: 1,
            stage: Stage::Calling { heard: false, cancelled: false },
            invite: None,
            unacked: None,
        };
        if self.calls.len() >= MAX_AT_ONCE {
            self.tell(AgentEvent::Failed { call: no, code: 503 });
            return no;
        }
        let mut invite = self.request(Method::Invite, &call.target, &call.names());
        for (name, value) in extra {
            invite.headers.push(Name::read(name.as_bytes()), (*value).to_owned());
        }
        with_sdp(&mut invite, sdp);
        self.calls.push(call);
        self.ask(invite, Purpose::Invite(no), now);
        no
    }

    pub(super) fn new_call(&mut self) -> CallNo {
        let no = self.next_call;
        self.next_call += 1;
        no
    }

    pub(super) fn find(&mut self, no: CallNo) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.no == no)
    }

    pub(super) fn remove(&mut self, no: CallNo) -> Option<Call> {
        let at = self.calls.iter().position(|call| call.no == no)?;
        Some(self.calls.swap_remove(at))
    }

    /// The INVITE was sent again with credentials.
    pub(super) fn renumber(&mut self, no: CallNo, cseq: u32) {
        if let Some(call) = self.find(no) {
            call.cseq = cseq;
        }
    }

    /// What became of our INVITE.
    pub(super) fn call_heard(&mut self, no: CallNo, word: &Word, now: MonoMs) {
        match word {
            Word::Progress(response) => self.progressed(no, response, now),
            Word::Accepted(branch, response) => self.accepted(no, branch, response, now),
            Word::Refused(code) => {
                if self.remove(no).is_some() {
                    self.tell(AgentEvent::Failed { call: no, code: *code });
                }
            }
        }
    }

    fn progressed(&mut self, no: CallNo, response: &Response, now: MonoMs) {
        let Some(call) = self.find(no) else { return };
        let Stage::Calling { heard, cancelled } = &mut call.stage else { return };
        let first = !std::mem::replace(heard, true);
        if *cancelled {
            if first {
                self.cancel(no, now);
            }
        } else if !response.body.is_empty() {
            self.tell(AgentEvent::EarlyMedia { call: no, sdp: response.body.clone() });
        } else if response.code == 180 {
            self.tell(AgentEvent::Rang { call: no });
        }
    }

    fn accepted(&mut self, no: CallNo, branch: &str, response: &Response, now: MonoMs) {
        let Some(call) = self.find(no) else { return };
        if let Some(to) = response.headers.text(&Name::To) {
            call.remote = to.to_owned();
        }
        let contact =
            response.headers.contacts().ok().and_then(|all| all.first().map(|one| one.uri.to_string()));
        call.target = contact.unwrap_or(std::mem::take(&mut call.target));
        let gone = matches!(call.stage, Stage::Calling { cancelled: true, .. });
        call.stage = Stage::Up;
        self.acknowledge(no, branch);
        if gone {
            // Our CANCEL crossed the answer.
            self.leave(no, now);
            return self.tell(AgentEvent::Failed { call: no, code: 487 });
        }
        self.tell(AgentEvent::Answered { call: no, sdp: response.body.clone() });
    }

    /// RFC 3261 section 13.2.2.4: the ACK of a 2xx is a request of its own, with the INVITE's number.
    fn acknowledge(&mut self, no: CallNo, branch: &str) {
        let fresh = format!("z9hG4bK{}", self.word());
        let via = self.via(&fresh);
        let Some(call) = self.calls.iter().find(|call| call.no == no) else { return };
        let mut ack = self.request(Method::Ack, &call.target, &call.names());
        ack.headers.push_front(Name::Via, via);
        let bytes = ack.to_bytes();
        self.keep(format!("ack {branch}"), bytes.clone());
        self.send(bytes);
    }

    /// A re-INVITE with our offer, in a call that is up.
    pub fn offer(&mut self, no: CallNo, sdp: Bytes, now: MonoMs) {
        let Some(call) = self.find(no).filter(|call| call.stage == Stage::Up) else { return };
        call.cseq += 1;
        let Some(call) = self.calls.iter().find(|call| call.no == no) else { return };
        let mut invite = self.request(Method::Invite, &call.target, &call.names());
        with_sdp(&mut invite, sdp);
        self.ask(invite, Purpose::Change(no), now);
    }

    /// What became of it: the branch of the re-INVITE with the 2xx, or the refusal.
    pub(super) fn change_heard(&mut self, no: CallNo, answer: Result<(String, Response), u16>) {
        if self.find(no).is_none() {
            return;
        }
        match answer {
            Ok((branch, response)) => {
                self.acknowledge(no, &branch);
                self.tell(AgentEvent::ChangeAnswered { call: no, sdp: response.body });
            }
            Err(code) => self.tell(AgentEvent::ChangeRefused { call: no, code }),
        }
    }

    /// Ends a call, whatever its state: CANCEL, a refusal, or BYE.
    pub fn hang_up(&mut self, no: CallNo, now: MonoMs) {
        let Some(call) = self.find(no) else { return };
        match &mut call.stage {
            Stage::Calling { heard, cancelled } => {
                let (heard, again) = (*heard, std::mem::replace(cancelled, true));
                if heard && !again {
                    self.cancel(no, now);
                }
            }
            Stage::Ringing => self.reject(no, 486),
            Stage::Up => {
                self.leave(no, now);
                self.tell(AgentEvent::Ended { call: no, by_peer: false, reason: None });
            }
        }
    }

    fn leave(&mut self, no: CallNo, now: MonoMs) {
        let Some(mut call) = self.remove(no) else { return };
        call.cseq += 1;
        let bye = self.request(Method::Bye, &call.target, &call.names());
        self.ask(bye, Purpose::Leave, now);
    }

    /// A final refusal of a call that rings here.
    pub fn reject(&mut self, no: CallNo, code: u16) {
        let Some(call) = self.remove(no) else { return };
        if let Some(invite) = &call.invite {
            self.respond(invite, code, &call.local, Bytes::new());
        }
        self.tell(AgentEvent::Ended { call: no, by_peer: false, reason: None });
    }

    /// 180, or 183 with sound.
    pub fn ring(&mut self, no: CallNo, sdp: Bytes) {
        let Some(call) = self.find(no) else { return };
        let (Some(invite), local) = (call.invite.clone(), call.local.clone()) else { return };
        let code = if sdp.is_empty() { 180 } else { 183 };
        self.respond(&invite, code, &local, sdp);
    }

    /// 200 to a call that rings here, with our answer.
    pub fn answer(&mut self, no: CallNo, sdp: Bytes, now: MonoMs) {
        let Some(call) = self.find(no) else { return };
        call.stage = Stage::Up;
        self.accept(no, sdp, now);
    }

    /// 200 to the change that [`AgentEvent::Offered`] told of.
    pub fn answer_change(&mut self, no: CallNo, sdp: Bytes, now: MonoMs) {
        self.accept(no, sdp, now);
    }

    /// Refuses it; the call goes on as it was.
    pub fn refuse_change(&mut self, no: CallNo, code: u16) {
        let Some(call) = self.find(no) else { return };
        if let (Some(invite), local) = (call.invite.take(), call.local.clone()) {
            self.respond(&invite, code, &local, Bytes::new());
        }
    }

    fn accept(&mut self, no: CallNo, sdp: Bytes, now: MonoMs) {
        let Some(call) = self.find(no) else { return };
        let (Some(invite), local) = (call.invite.take(), call.local.clone()) else { return };
        let bytes = self.respond(&invite, 200, &local, sdp);
        if let Some(call) = self.find(no) {
            call.unacked = Some(Unacked { bytes, at: now + T1_MS, wait_ms: T1_MS, until: now + GIVE_UP_MS });
        }
    }

    /// 200s whose ACK has not come (RFC 3261 section 13.3.1.4: over any transport).
    pub(super) fn repeat_answers(&mut self, now: MonoMs) {
        let mut again = Vec::new();
        let mut over = Vec::new();
        for call in &mut self.calls {
            let Some(unacked) = &mut call.unacked else { continue };
            if unacked.until <= now {
                over.push(call.no);
            } else if unacked.at <= now {
                unacked.wait_ms = (2 * unacked.wait_ms).min(T2_MS);
                unacked.at = now + unacked.wait_ms;
                again.push(unacked.bytes.clone());
            }
        }
        for bytes in again {
            self.send(bytes);
        }
        for no in over {
            self.leave(no, now);
            self.tell(AgentEvent::Ended { call: no, by_peer: false, reason: Some("no ACK".to_owned()) });
        }
    }
}

//! What the switch asks of us.
//!
//! Invariant: every request but ACK gets an answer, and the same one when it comes again.

use bytes::Bytes;

use super::calls::{Call, Stage};
use super::{ALLOW, Agent, AgentEvent, MAX_AT_ONCE};
use crate::sip::message::{Method, Name, Request, Response};

impl Agent {
    pub(super) fn asked(&mut self, request: Request) {
        let key = key(&request, &request.method);
        if let Some(bytes) = self.kept(&key) {
            return self.send(bytes);
        }
        match request.method {
            Method::Invite => self.invited(request),
            Method::Ack => self.acknowledged(&request),
            Method::Cancel => self.cancelled(&request),
            Method::Bye => self.left(&request),
            Method::Options | Method::Info | Method::Notify => {
                self.respond(&request, 200, "", Bytes::new());
            }
            Method::Register
            | Method::Prack
            | Method::Update
            | Method::Refer
            | Method::Subscribe
            | Method::Message
            | Method::Publish
            | Method::Other(_) => {
                self.respond(&request, 405, "", Bytes::new());
            }
        }
    }

    /// Answers, and keeps the answer for repetitions. `to` is our To with its tag, if the call has one.
    pub(super) fn respond(&mut self, request: &Request, code: u16, to: &str, sdp: Bytes) -> Bytes {
        let mut response = Response::new(code);
        for via in request.headers.all(&Name::Via) {
            response.headers.push(Name::Via, via.clone());
        }
        for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
            let value = request.headers.first(&name).map(Bytes::copy_from_slice);
            let value =
                if name == Name::To && !to.is_empty() { Some(Bytes::from(to.to_owned())) } else { value };
            response.headers.push(name, value.unwrap_or_default());
        }
        if request.method == Method::Invite && (101..300).contains(&code) {
            response.headers.push(Name::Contact, self.contact());
        }
        response.headers.push(Name::Allow, ALLOW);
        if !sdp.is_empty() {
            response.headers.push(Name::ContentType, "application/sdp");
            response.body = sdp;
        }
        let bytes = response.to_bytes();
        self.keep(key(request, &request.method), bytes.clone());
        self.send(bytes.clone());
        bytes
    }

    fn by_dialog(&mut self, request: &Request) -> Option<&mut Call> {
        let call_id = request.headers.call_id().ok()?;
        self.calls.iter_mut().find(|call| call.call_id == call_id)
    }

    fn invited(&mut self, request: Request) {
        let tag = self.word();
        let Ok(to) = request.headers.to() else { return };
        if to.tag().is_some() {
            return self.offered(request);
        }
        if self.calls.len() >= MAX_AT_ONCE {
            self.respond(&request, 486, "", Bytes::new());
            return;
        }
        let contact =
            request.headers.contacts().ok().and_then(|all| all.first().map(|one| one.uri.to_string()));
        let (Some(target), Some(from), Ok(call_id)) =
            (contact, request.headers.text(&Name::From), request.headers.call_id())
        else {
            self.respond(&request, 400, "", Bytes::new());
            return;
        };
        let no = self.next_call;
        let call = Call {
            no,
            call_id: call_id.to_owned(),
            local: to.with_tag(&tag).to_string(),
            remote: from.to_owned(),
            target,
            cseq: 0,
            stage: Stage::Ringing,
            invite: Some(request.clone()),
            unacked: None,
        };
        self.new_call();
        self.respond(&request, 100, "", Bytes::new());
        self.calls.push(call);
        self.tell(AgentEvent::Invited { call: no, invite: Box::new(request) });
    }

    /// A re-INVITE.
    fn offered(&mut self, request: Request) {
        let Some(call) = self.by_dialog(&request) else {
            self.respond(&request, 481, "", Bytes::new());
            return;
        };
        let (no, sdp) = (call.no, request.body.clone());
        call.invite = Some(request);
        self.tell(AgentEvent::Offered { call: no, sdp });
    }

    fn acknowledged(&mut self, request: &Request) {
        let Some(call) = self.by_dialog(request) else { return };
        if call.unacked.take().is_some() {
            let call = call.no;
            self.tell(AgentEvent::Confirmed { call });
        }
    }

    fn cancelled(&mut self, request: &Request) {
        let ringing = self.by_dialog(request).filter(|call| call.stage == Stage::Ringing).map(|call| call.no);
        let Some(no) = ringing else {
            self.respond(request, 481, "", Bytes::new());
            return;
        };
        self.respond(request, 200, "", Bytes::new());
        if let Some(call) = self.remove(no)
            && let Some(invite) = &call.invite
        {
            self.respond(invite, 487, &call.local, Bytes::new());
        }
        self.tell(AgentEvent::Ended { call: no, by_peer: true, reason: reason(request) });
    }

    fn left(&mut self, request: &Request) {
        let Some(no) = self.by_dialog(request).map(|call| call.no) else {
            self.respond(request, 481, "", Bytes::new());
            return;
        };
        self.respond(request, 200, "", Bytes::new());
        self.remove(no);
        self.tell(AgentEvent::Ended { call: no, by_peer: true, reason: reason(request) });
    }
}

/// Names a server transaction: branch and method (RFC 3261 section 17.2.3).
fn key(request: &Request, method: &Method) -> String {
    let via = request.headers.via_top().ok();
    let branch = via.as_ref().and_then(|via| via.branch()).unwrap_or_default();
    format!("{method} {branch}")
}

fn reason(request: &Request) -> Option<String> {
    request.headers.text(&Name::Reason).map(str::to_owned)
}

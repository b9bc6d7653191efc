//! How the agent answers an INVITE and everything else it is asked.

use super::*;

impl Agent {
    pub(super) fn response(&self, request: &Request, id: Option<u64>, code: u16) -> Response {
        let mut response = Response::new(code);
        for name in [Name::Via, Name::From, Name::CallId, Name::CSeq, Name::RecordRoute] {
            for value in request.headers.all(&name) {
                response.headers.push(name.clone(), value.clone());
            }
        }
        let mut to =
            String::from_utf8_lossy(request.headers.first(&Name::To).unwrap_or_default()).into_owned();
        if code > 100 && !to.contains("tag=") {
            let tag =
                id.and_then(|id| self.legs.get(&id)).map_or("nobody".to_owned(), |leg| leg.local_tag.clone());
            to.push_str(&format!(";tag={tag}"));
        }
        response.headers.push(Name::To, to);
        if (101..300).contains(&code) && request.method != Method::Bye {
            response.headers.push(Name::Contact, self.contact());
        }
        response
    }

    pub(super) fn answer(&mut self, request: &Request, response: &Response) {
        let bytes = response.to_bytes();
        let key = key(request);
        if response.code >= 200
            && request.method == Method::Invite
            && response.code >= 300
            && !self.reliable()
        {
            self.refused
                .insert(key.0.clone(), (bytes.clone(), self.now + T1_MS, T1_MS, self.now + GIVE_UP_MS));
        }
        self.answered.insert(key, (bytes.clone(), self.now + GIVE_UP_MS));
        self.send(bytes);
    }

    pub(super) fn provisional(&mut self, id: u64, code: u16, with_sound: bool, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.state == State::Ringing).cloned() else { return };
        let Some(invite) = &leg.invite else { return };
        let mut response = self.response(invite, Some(id), code);
        if with_sound && let Some(text) = self.answer_text(&leg, &invite.body) {
            response.headers.push(Name::ContentType, "application/sdp");
            response.body = Bytes::from(text);
        }
        if invite.headers.lists(&Name::Supported, "100rel") && self.account.timers {
            let rseq = leg.rseq + 1;
            response.headers.push(Name::Require, "100rel");
            response.headers.push(Name::RSeq, rseq.to_string());
            self.legs.get_mut(&id).expect("leg").rseq = rseq;
        }
        self.answer(invite, &response);
    }

    pub fn ring(&mut self, id: u64, now: u64) {
        self.provisional(id, 180, false, now);
    }

    pub fn progress(&mut self, id: u64, now: u64) {
        self.provisional(id, 183, true, now);
    }

    pub(super) fn answer_text(&self, leg: &Leg, offer: &[u8]) -> Option<String> {
        let offer = sdp::read_offer(offer).ok()?;
        sdp::answer(&offer, &self.local(leg), &LAWS).ok().map(|(_, text)| text)
    }

    pub fn accept(&mut self, id: u64, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.state == State::Ringing).cloned() else { return };
        let Some(invite) = leg.invite.clone() else { return };
        let Some(text) = self.answer_text(&leg, &invite.body) else { return self.reject(id, 488, now) };
        self.answer_invite(id, &invite, text);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.state = State::Up;
        }
    }

    pub(super) fn answer_invite(&mut self, id: u64, invite: &Request, text: String) {
        let mut response = self.response(invite, Some(id), 200);
        response.headers.push(Name::Supported, "timer");
        if let Some(timer) = invite.headers.session_expires().ok().flatten().filter(|_| self.account.timers) {
            response.headers.push(Name::Require, "timer");
            response.headers.push(Name::SessionExpires, format!("{};refresher=uac", timer.secs));
        }
        response.headers.push(Name::ContentType, "application/sdp");
        response.body = Bytes::from(text);
        self.answer(invite, &response);
        let number = invite.headers.cseq().map_or(0, |(number, _)| number);
        let now = self.now;
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.unacked = Some((response.to_bytes(), number, now + T1_MS, T1_MS, now + GIVE_UP_MS));
        }
    }

    pub fn reject(&mut self, id: u64, code: u16, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.state == State::Ringing) else { return };
        leg.state = State::Gone;
        let invite = leg.invite.clone();
        if let Some(invite) = invite {
            let response = self.response(&invite, Some(id), code);
            self.answer(&invite, &response);
        }
        self.said.push_back(Said::Ended { leg: id, by_peer: false });
    }

    pub(super) fn gone(&mut self, id: u64, by_peer: bool) {
        if let Some(leg) = self.legs.get_mut(&id)
            && leg.state != State::Gone
        {
            leg.state = State::Gone;
            leg.unacked = None;
            self.said.push_back(Said::Ended { leg: id, by_peer });
        }
    }
}

//! What a peer sends to the agent: requests and answers, as RFC 3261 has them handled.

use super::*;

impl Agent {
    pub fn receive(&mut self, bytes: &Bytes, now: u64) {
        self.now = now;
        match Message::read_datagram(bytes) {
            Ok(Message::Request(request)) => self.request_came(request),
            Ok(Message::Response(response)) => self.response_came(&response),
            Err(error) => panic!("Tandem sent something unreadable: {error}"),
        }
    }

    pub(super) fn leg_of(&self, request: &Request) -> Option<u64> {
        let tag = request.headers.to().ok()?.tag()?.to_owned();
        let call_id = request.headers.call_id().ok()?;
        self.legs.iter().find(|(_, leg)| leg.local_tag == tag && leg.call_id == call_id).map(|(id, _)| *id)
    }

    pub(super) fn request_came(&mut self, request: Request) {
        if request.method == Method::Ack {
            let branch = request
                .headers
                .via_top()
                .ok()
                .and_then(|via| via.branch().map(str::to_owned))
                .unwrap_or_default();
            self.refused.remove(&branch);
            if let Some(id) = self.leg_of(&request)
                && let Some(leg) = self.legs.get_mut(&id)
                && leg
                    .unacked
                    .as_ref()
                    .is_some_and(|one| Ok(one.1) == request.headers.cseq().map(|(number, _)| number))
            {
                leg.unacked = None;
            }
            return;
        }
        let key = key(&request);
        if let Some((bytes, _)) = self.answered.get(&key) {
            let bytes = bytes.clone();
            return self.send(bytes);
        }
        let within = request.headers.to().is_ok_and(|to| to.tag().is_some());
        match (&request.method, self.leg_of(&request)) {
            (Method::Invite, None) if !within => self.invited(request),
            (Method::Cancel, _) => self.cancelled(&request),
            (Method::Options, None) if !within => {
                let response = self.response(&request, None, 200);
                self.answer(&request, &response);
            }
            (_, Some(id)) => self.within(id, &request),
            (_, None) => {
                let response = self.response(&request, None, 481);
                self.answer(&request, &response);
            }
        }
    }

    pub(super) fn invited(&mut self, request: Request) {
        let call_id = request.headers.call_id().unwrap_or_default().to_owned();
        let from = request.headers.from().expect("From");
        let id = self.next_leg;
        self.next_leg += 1;
        let remote_tag = from.tag().unwrap_or_default().to_owned();
        let mut remote = from;
        remote.params.remove("tag");
        let leg = Leg {
            state: State::Ringing,
            outgoing: false,
            call_id,
            local: String::from_utf8_lossy(request.headers.first(&Name::To).unwrap_or_default()).into_owned(),
            local_tag: self.dice.word(),
            remote: remote.to_string(),
            remote_tag,
            target: contact_of(&request.headers).expect("an INVITE has a Contact"),
            cseq: 0,
            remote_cseq: request.headers.cseq().map_or(0, |(number, _)| number),
            invite: Some(request.clone()),
            heard: true,
            cancel_wanted: false,
            unacked: None,
            ack: None,
            media: self.fresh_media(),
            version: 1,
            held: false,
            change_out: false,
            rseq: 0,
        };
        self.legs.insert(id, leg);
        let trying = self.response(&request, Some(id), 100);
        self.answer(&request, &trying);
        let auto = request
            .headers
            .iter()
            .any(|header| String::from_utf8_lossy(header.value()).contains("answer-after"));
        self.said.push_back(Said::Invited { leg: id, auto });
    }

    pub(super) fn cancelled(&mut self, request: &Request) {
        let branch = key(request).0;
        let found = self.legs.iter().find(|(_, leg)| {
            leg.state == State::Ringing && leg.invite.as_ref().is_some_and(|invite| key(invite).0 == branch)
        });
        let id = found.map(|(id, _)| *id);
        let known = self.answered.contains_key(&(branch, "INVITE".to_owned()));
        let response = self.response(request, id, if known { 200 } else { 481 });
        self.answer(request, &response);
        if let Some(id) = id {
            let invite = self.legs.get(&id).and_then(|leg| leg.invite.clone());
            if let Some(invite) = invite {
                let response = self.response(&invite, Some(id), 487);
                self.answer(&invite, &response);
            }
            self.gone(id, true);
        }
    }

    pub(super) fn within(&mut self, id: u64, request: &Request) {
        let number = request.headers.cseq().map_or(0, |(number, _)| number);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.state == State::Gone {
            let code = if request.method == Method::Bye { 200 } else { 481 };
            let response = self.response(request, Some(id), code);
            return self.answer(request, &response);
        }
        assert!(number != leg.remote_cseq, "CSeq {number} of {:?} was used before", request.method);
        if number < leg.remote_cseq {
            // Overtaken on the way (RFC 3261 section 12.2.2).
            let response = self.response(request, Some(id), 500);
            return self.answer(request, &response);
        }
        leg.remote_cseq = number;
        if let Some(target) = contact_of(&request.headers) {
            leg.target = target;
        }
        let leg = leg.clone();
        match request.method {
            Method::Bye => {
                let response = self.response(request, Some(id), 200);
                self.answer(request, &response);
                self.gone(id, true);
            }
            Method::Invite if leg.change_out || leg.unacked.is_some() => {
                let response = self.response(request, Some(id), 491);
                self.answer(request, &response);
            }
            Method::Invite => match self.answer_text(&leg, &request.body) {
                Some(text) => self.answer_invite(id, request, text),
                None => {
                    let response = self.response(request, Some(id), 488);
                    self.answer(request, &response);
                }
            },
            _ => {
                let mut response = self.response(request, Some(id), 200);
                if let Some(timer) = request.headers.first(&Name::SessionExpires) {
                    response.headers.push(Name::SessionExpires, timer.to_vec());
                }
                self.answer(request, &response);
            }
        }
    }

    pub(super) fn response_came(&mut self, response: &Response) {
        let Ok(via) = response.headers.via_top() else { return };
        let branch = via.branch().unwrap_or_default().to_owned();
        let method = response.headers.cseq().map(|(_, method)| method).expect("CSeq");
        let tx = if method == Method::Cancel { format!("{branch}/cancel") } else { branch };
        let Some(asked) = self.asked.get_mut(&tx) else { return };
        if response.code < 200 {
            asked.provisional = true;
            asked.end = self.now + 180_000;
            let leg = asked.leg;
            if method == Method::Invite
                && let Some(id) = leg
            {
                self.progressed(id, response);
            }
            return;
        }
        let asked = asked.clone();
        if method == Method::Invite {
            self.invite_answered(&tx, asked, response);
            return;
        }
        self.asked.remove(&tx);
        if response.code == 401 && !asked.tried_login {
            return self.login(asked, response);
        }
        match (method, asked.leg) {
            (Method::Register, _) if response.code < 300 => self.said.push_back(Said::Registered),
            (Method::Register, _) => self.said.push_back(Said::RegisterFailed(response.code)),
            (Method::Bye, Some(id)) => {
                self.said.push_back(Said::ByeAnswered { leg: id, code: response.code });
                self.gone(id, false);
            }
            (Method::Update, Some(id)) if matches!(response.code, 408 | 481) => self.hang_up(id, self.now),
            _ => {}
        }
    }

    pub(super) fn progressed(&mut self, id: u64, response: &Response) {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.state == State::Calling) else { return };
        leg.heard = true;
        let wanted = leg.cancel_wanted;
        if response.code > 100 {
            self.said.push_back(Said::Rang { leg: id });
        }
        if wanted {
            self.cancel(id);
        }
    }

    pub(super) fn invite_answered(&mut self, tx: &str, asked: Asked, response: &Response) {
        let Some(id) = asked.leg else { return };
        let number = asked.request.headers.cseq().map_or(0, |(number, _)| number);
        if response.code >= 300 {
            self.asked.remove(tx);
            self.acknowledge_refusal(&asked.request, response);
            if response.code == 401 && !asked.tried_login {
                return self.login(asked, response);
            }
            let Some(leg) = self.legs.get_mut(&id) else { return };
            leg.change_out = false;
            match leg.state {
                State::Calling => {
                    leg.state = State::Gone;
                    self.said.push_back(Said::Failed { leg: id, code: response.code });
                }
                State::Up => {
                    self.said.push_back(Said::Changed { leg: id, code: response.code });
                    // RFC 3261 section 12.2.1.2.
                    if matches!(response.code, 408 | 481) {
                        self.hang_up(id, self.now);
                    }
                }
                State::Ringing | State::Leaving | State::Gone => {}
            }
            return;
        }
        // A 200 is acknowledged each time it comes; the transaction stays to see repeats.
        if let Some(asked) = self.asked.get_mut(tx) {
            asked.next = u64::MAX;
            asked.end = self.now + GIVE_UP_MS;
            asked.provisional = true;
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some((acked, bytes)) = &leg.ack
            && *acked == number
        {
            let bytes = bytes.clone();
            return self.send(bytes);
        }
        if let Some(target) = contact_of(&response.headers) {
            leg.target = target;
        }
        let first = leg.state == State::Calling;
        if let Some(tag) =
            response.headers.to().ok().and_then(|to| to.tag().map(str::to_owned)).filter(|_| first)
        {
            leg.remote_tag = tag;
        }
        let leg_now = leg.clone();
        let (via, _) = self.via();
        let mut ack = Request::new(Method::Ack, leg_now.target.clone());
        ack.headers.push(Name::Via, via);
        ack.headers.push(Name::From, format!("{};tag={}", leg_now.local, leg_now.local_tag));
        ack.headers.push(Name::To, format!("{};tag={}", leg_now.remote, leg_now.remote_tag));
        ack.headers.push(Name::CallId, leg_now.call_id.clone());
        ack.headers.push(Name::CSeq, format!("{number} ACK"));
        ack.headers.push(Name::MaxForwards, "70");
        if asked.request.body.is_empty() {
            // Tandem's offer stood in its answer: ours goes into the ACK.
            let text = self.answer_text(&leg_now, &response.body).expect("an offer that can be answered");
            let text = if leg_now.held { text.replace("a=sendrecv", "a=sendonly") } else { text };
            ack.headers.push(Name::ContentType, "application/sdp");
            ack.body = Bytes::from(text);
        }
        let bytes = ack.to_bytes();
        self.send(bytes.clone());
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.ack = Some((number, bytes));
        leg.change_out = false;
        match leg.state {
            State::Calling => {
                leg.state = State::Up;
                if leg.cancel_wanted {
                    self.hang_up(id, self.now);
                } else {
                    self.said.push_back(Said::Answered { leg: id });
                }
            }
            State::Up => self.said.push_back(Said::Changed { leg: id, code: 200 }),
            State::Ringing | State::Leaving | State::Gone => {}
        }
    }

    /// RFC 3261 section 17.1.1.3.
    pub(super) fn acknowledge_refusal(&mut self, invite: &Request, response: &Response) {
        let mut ack = Request::new(Method::Ack, invite.uri.clone());
        for name in [Name::Via, Name::From, Name::CallId] {
            let value = invite.headers.first(&name).unwrap_or_default().to_vec();
            ack.headers.push(name, value);
        }
        ack.headers.push(Name::To, response.headers.first(&Name::To).unwrap_or_default().to_vec());
        let number = invite.headers.cseq().map_or(0, |(number, _)| number);
        ack.headers.push(Name::CSeq, format!("{number} ACK"));
        ack.headers.push(Name::MaxForwards, "70");
        self.send(ack.to_bytes());
    }

    pub(super) fn login(&mut self, asked: Asked, response: &Response) {
        let Some(challenge) = digest::choose(response.headers.challenges(&Name::WwwAuthenticate)) else {
            return;
        };
        let nonce = challenge.text("nonce").unwrap_or_default();
        let count = self.nonce_counts.entry(nonce).or_default();
        *count += 1;
        let login =
            Login { user: self.account.user.clone(), password: Secret::new(self.account.password.clone()) };
        let mut request = asked.request;
        let uri = String::from_utf8_lossy(&request.uri).into_owned();
        let cnonce = self.dice.word();
        let shown =
            login.answer(&challenge, &request.method, &uri, &cnonce, *count).expect("answerable challenge");
        request.headers.remove_all(&Name::Via);
        request.headers.set(Name::Authorization, shown.to_string());
        let (number, method) = request.headers.cseq().expect("CSeq");
        let number = match asked.leg {
            Some(id) => {
                let leg = self.legs.get_mut(&id).expect("leg");
                leg.cseq = leg.cseq.max(number) + 1;
                leg.cseq
            }
            None => {
                self.register_cseq += 1;
                self.register_cseq
            }
        };
        request.headers.set(Name::CSeq, format!("{number} {}", method.as_str()));
        if method == Method::Invite
            && let Some(leg) = asked.leg.and_then(|id| self.legs.get_mut(&id))
            && leg.state == State::Calling
        {
            leg.invite = Some(request.clone());
        }
        self.ask(request, asked.leg, true);
    }
}

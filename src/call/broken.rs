//! The end of a call in which the program itself failed: both parties are let go, everything that the
//! call held is given back, and its record says why.
//!
//! Invariant: whatever else is wrong with it, a broken call ends with one `Ended` fact.

use crate::call::call::Call;
use crate::call::ports::Local;
use crate::call::words::cause;
use crate::call::{Calls, Ending, Next, Output, Room};
use crate::fact::{CallResult, Cause, Party, What};
use crate::media::command::Command as MediaCommand;
use crate::record::{self, Record};
use crate::sip;
use crate::terms::{CallId, Now};

/// Why a broken call ended: Q.850 41, temporary failure.
pub fn broken_off() -> Cause {
    cause(41, 500, "Tandem met an internal error in this call and ended it; other calls went on")
}

impl Calls {
    /// Ends the call in the ordinary way; `false` when there is none of this id.
    pub fn break_off(&mut self, id: CallId, now: Now) -> bool {
        let known = self.calls.contains_key(&id);
        self.with(id, now, |_, _| {
            Next::Over(Ending { result: CallResult::Failed, cause: broken_off(), by: "system" })
        });
        known
    }

    /// Ends a call that cannot be taken in any more, by what its record says: no step of it is run.
    /// `false` when there is no such record or it does not decode.
    pub fn bury(&mut self, id: CallId, records: &[Record], now: Now) -> bool {
        let key = format!("call/{id}");
        let bytes = records.iter().find(|record| record.key == key).and_then(|record| record.value.as_ref());
        let Some(Ok((written, mut call))) = bytes.map(|bytes| record::decode::<Call>(bytes)) else {
            return false;
        };
        call.rebase(record::shift_ms(written, now));
        call.let_go(&mut self.room, now);
        self.touched.insert(id);
        true
    }
}

impl Call {
    /// Everything that it held is given back, and its end is told.
    fn let_go(&mut self, room: &mut Room, now: Now) {
        for leg in self.legs() {
            room.sip(sip::Command::HangUp { leg: leg.id, cause: broken_off() });
            if let Some(port) = &leg.port {
                room.media(self.worker, MediaCommand::Close { port: port.id });
                if let Local::Rtp { port: number, .. } = port.local {
                    room.ports.hold(number);
                }
                room.ports.close(port, now.mono_ms);
            }
            room.fact(self.id, What::LegEnded { leg: leg.id, cause: broken_off() });
            if let Party::Trunk(trunk) = &leg.party {
                room.count(trunk, 0);
            }
        }
        self.leave_floor(room);
        let (wait_ms, talk_ms) = (self.wait_ms(now.mono_ms), self.talk_ms(now.mono_ms));
        let (result, by) = (CallResult::Failed, "system".to_owned());
        room.fact(self.id, What::Ended { result, cause: broken_off(), by, wait_ms, talk_ms });
        room.out.push_back(Output::Over { call: self.id, answered: self.answered_ms.is_some() });
    }
}

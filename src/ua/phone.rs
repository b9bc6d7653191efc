//! The hand on a running user agent: what can be asked of it and what it reports.
//!
//! Invariant: a report that nobody takes is dropped and counted, never waited for: the sound goes on.

mod body;
mod leg;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(crate) use self::body::{Body, Style};
pub use super::agent::CallNo;
use super::speech::Speak;
use super::tone_meter::Window;
use super::voice::Heard;
use crate::media::dtls::DtlsParty;
use crate::sdp::Direction;
use crate::sdp::negotiate::Codec;
use crate::sip::digest::Algorithm;
use crate::terms::{MonoMs, Secret};

/// Reports that wait to be taken.
const MAX_REPORTS: usize = 8_192;
/// Orders that wait to be carried out.
const MAX_ORDERS: usize = 256;

/// Tells the time: the edge's monotonic clock.
pub type Clock = Arc<dyn Fn() -> MonoMs + Send + Sync>;

/// What a phone does when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Rings, then answers.
    After {
        /// How long it rings, milliseconds.
        ring_ms: u64,
        /// Whether it rings with sound (183 and 425 Hz), as gateways do, or says 180.
        early_media: bool,
    },
    /// Rings for ever (180).
    Never,
    /// Refuses with this status.
    Refuse(u16),
}

/// What both roles must know.
#[derive(Clone)]
pub struct PhoneConfig {
    /// Digest user.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
    /// The switch's SIP domain.
    pub domain: String,
    /// Where sound comes and goes: an address of this machine.
    pub address: IpAddr,
    /// Laws, the preferred one first.
    pub codecs: Vec<Codec>,
    /// What it says in calls.
    pub talk: Speak,
    /// What it does when it is called.
    pub answer: Answer,
    /// How long registrations are asked for, seconds.
    pub expires_s: u32,
    /// Answer only challenges of this algorithm; `None`: the strongest offered.
    pub digest: Option<Algorithm>,
    /// Whether each window of sound is a [`Report::Heard`]; a load run reads [`Phone::sound`] instead.
    pub report_windows: bool,
    /// Entropy, from the OS or fixed.
    pub seed: [u8; 32],
    /// The time.
    pub clock: Clock,
}

/// What a phone reports, each with the time of its clock.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The WebSocket stands (browser role).
    Connected,
    /// The WebSocket is gone; it is opened again by itself.
    Disconnected,
    /// Registered.
    Registered {
        /// For how long, seconds.
        expires_s: u32,
    },
    /// The registration was taken away on request.
    Unregistered,
    /// Not registered; tried again after 2 s.
    NotRegistered {
        /// SIP status; 408 if nothing answered.
        code: u16,
    },
    /// A call came in.
    Invited {
        /// Which.
        call: CallNo,
        /// User of the request URI: the number to call, for a gateway.
        number: String,
        /// User of From.
        caller: String,
        /// All headers, in order.
        headers: Vec<(String, String)>,
    },
    /// The far phone rings without sound.
    Rang {
        /// Which.
        call: CallNo,
    },
    /// The far phone rings with sound.
    EarlyMedia {
        /// Which.
        call: CallNo,
    },
    /// Our call was answered, or we answered.
    Answered {
        /// Which.
        call: CallNo,
    },
    /// The switch has our answer.
    Confirmed {
        /// Which.
        call: CallNo,
    },
    /// DTLS is done and the switch's certificate is the promised one (browser role).
    Secured {
        /// Which.
        call: CallNo,
    },
    /// There will be no sound.
    NoSound {
        /// Which.
        call: CallNo,
        /// In words.
        why: String,
    },
    /// The session was changed (hold, resume, ICE restart), by whichever side.
    Changed {
        /// Which.
        call: CallNo,
    },
    /// Our change was refused; the call goes on as it was.
    ChangeRefused {
        /// Which.
        call: CallNo,
        /// SIP status.
        code: u16,
    },
    /// 200 ms of sound.
    Heard {
        /// Which.
        call: CallNo,
        /// How loud it was at each tone.
        window: Window,
    },
    /// The switch pressed a digit (RFC 4733).
    Digit {
        /// In which call.
        call: CallNo,
        /// `0-9 * # A-D`.
        digit: char,
    },
    /// Our call did not come up.
    Failed {
        /// Which.
        call: CallNo,
        /// SIP status.
        code: u16,
    },
    /// A call is over.
    Ended {
        /// Which.
        call: CallNo,
        /// Whether the switch ended it.
        by_peer: bool,
        /// The Reason header.
        reason: Option<String>,
    },
}

/// How a call sounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// How the packets came.
    pub heard: Heard,
    /// The last window.
    pub last: Option<Window>,
    /// SRTP packets that failed authentication (browser role).
    pub refused: u64,
}

/// What can be asked.
pub(crate) enum Order {
    Call {
        number: String,
        shown: Option<String>,
        headers: Vec<(String, String)>,
        reply: oneshot::Sender<CallNo>,
    },
    HangUp(CallNo),
    Say(CallNo, Speak),
    Press(CallNo, String),
    Change(CallNo, Direction, bool),
    Answering(Answer),
    Sound(CallNo, oneshot::Sender<Option<Sound>>),
    Unregister,
    Reconnect,
    Stop,
}

/// A running user agent. Dropping the last one stops it without a word to the switch.
#[derive(Clone)]
pub struct Phone {
    orders: mpsc::Sender<Order>,
    lost: Arc<AtomicU64>,
}

impl Phone {
    pub(crate) fn pair() -> (Self, Reports, mpsc::Receiver<Order>, Teller) {
        let (orders, inbox) = mpsc::channel(MAX_ORDERS);
        let (reports, outbox) = mpsc::channel(MAX_REPORTS);
        let lost = Arc::new(AtomicU64::new(0));
        let teller = Teller { reports, lost: Arc::clone(&lost) };
        (Self { orders, lost }, Reports(outbox), inbox, teller)
    }

    /// Calls a number; `shown` is the user of From (for a gateway the caller's number; else the phone itself),
    /// `headers` are added to the INVITE. `None` when the phone has stopped or has no socket left.
    pub async fn call(&self, number: &str, shown: Option<&str>, headers: &[(&str, &str)]) -> Option<CallNo> {
        let (reply, answer) = oneshot::channel();
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (number, shown) = (number.to_owned(), shown.map(str::to_owned));
        self.orders.send(Order::Call { number, shown, headers, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Ends a call, whatever its state.
    pub async fn hang_up(&self, call: CallNo) {
        self.order(Order::HangUp(call)).await;
    }

    /// From now on the call hears this.
    pub async fn say(&self, call: CallNo, speak: Speak) {
        self.order(Order::Say(call, speak)).await;
    }

    /// Presses digits (RFC 4733), 100 ms each.
    pub async fn press(&self, call: CallNo, digits: &str) {
        self.order(Order::Press(call, digits.to_owned())).await;
    }

    /// Holds (`SendOnly`) or resumes (`SendRecv`) by a re-INVITE, as stock phones do.
    pub async fn direct(&self, call: CallNo, direction: Direction) {
        self.order(Order::Change(call, direction, false)).await;
    }

    /// Restarts ICE by a re-INVITE, as a browser does whose network changed (browser role).
    pub async fn restart_ice(&self, call: CallNo) {
        self.order(Order::Change(call, Direction::SendRecv, true)).await;
    }

    /// What it does with calls that come from now on.
    pub async fn answering(&self, answer: Answer) {
        self.order(Order::Answering(answer)).await;
    }

    /// How a call sounds, or sounded (the last 64 calls are remembered).
    pub async fn sound(&self, call: CallNo) -> Option<Sound> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Sound(call, reply)).await;
        answer.await.ok().flatten()
    }

    /// Takes the registration away.
    pub async fn unregister(&self) {
        self.order(Order::Unregister).await;
    }

    /// Closes the WebSocket and opens another (browser role); calls go on.
    pub async fn reconnect(&self) {
        self.order(Order::Reconnect).await;
    }

    /// Ends its calls and stops.
    pub async fn stop(&self) {
        self.order(Order::Stop).await;
    }

    /// Reports that were dropped because nobody took them.
    pub fn lost_reports(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// A phone that has stopped does nothing: its reports end.
    async fn order(&self, order: Order) {
        self.orders.send(order).await.ok();
    }
}

/// What a phone reports, in order.
pub struct Reports(mpsc::Receiver<(MonoMs, Report)>);

impl Reports {
    /// The next report and its time; `None` when the phone has stopped.
    pub async fn next(&mut self) -> Option<(MonoMs, Report)> {
        self.0.recv().await
    }

    /// A report that is there already.
    pub fn try_next(&mut self) -> Option<(MonoMs, Report)> {
        self.0.try_recv().ok()
    }

    /// The first report that `wanted` accepts, within `wait_ms`; those before it are dropped.
    pub async fn wait_for(
        &mut self,
        wait_ms: u64,
        mut wanted: impl FnMut(&Report) -> bool,
    ) -> Option<(MonoMs, Report)> {
        let search = async {
            loop {
                let found = self.next().await?;
                if wanted(&found.1) {
                    return Some(found);
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(wait_ms), search).await.ok().flatten()
    }

    /// Whether the call hears this tone, above `level`, within `wait_ms`: the time of the first such window.
    pub async fn hears(&mut self, call: CallNo, hz: f64, level: f64, wait_ms: u64) -> Option<MonoMs> {
        let loud = |report: &Report| matches!(report, Report::Heard { call: one, window } if *one == call && window.level(hz) >= level);
        self.wait_for(wait_ms, loud).await.map(|(at, _)| at)
    }
}

/// The driver's side of [`Reports`].
pub(crate) struct Teller {
    reports: mpsc::Sender<(MonoMs, Report)>,
    lost: Arc<AtomicU64>,
}

impl Teller {
    pub(crate) fn tell(&self, now: MonoMs, report: Report) {
        if self.reports.try_send((now, report)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What kind of end it is.
#[derive(Clone)]
pub(crate) enum Role {
    Gateway,
    Browser(DtlsParty),
}

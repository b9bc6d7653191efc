//! `tandem demo --check`: the demonstration without a person. A built-in WebRTC operator takes a call and
//! makes one; what each side hears is judged by tones in the RTP that arrives at its own sockets.
//!
//! Invariant: every line of the report is something that was observed from outside the engine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::desk::Desk;
use super::{CALLER_HZ, CALLERS, Demo, LINE, random};
use crate::edge::{certificate, clock};
use crate::media::dtls::{DtlsParty, Identity};
use crate::sdp::negotiate::Codec;
use crate::ua::browser::{self, BrowserConfig};
use crate::ua::phone::{Answer, CallNo, Phone, PhoneConfig, Report, Reports};
use crate::ua::speech::Speak;

/// By this tone the operator is known.
const OPERATOR_HZ: f64 = 1_000.0;
/// The carrier's ring-back.
const RINGBACK_HZ: f64 = 425.0;
/// A tone is heard above this amplitude (it is sent with a quarter of full scale).
const HEARD: f64 = 0.1;
/// And not heard below this one.
const SILENT: f64 = 0.02;
/// Windows of 200 ms in a row that must be without the tone.
const SILENT_WINDOWS: u32 = 4;
/// How long anything may take, milliseconds. Generous: a slow machine is not a broken product.
const WAIT_MS: u64 = 20_000;
/// What the operator dials.
const DIALLED: &str = "+380509998877";

/// Runs the check; `say` shows each line of the report as it becomes true.
///
/// # Errors
/// The first thing that did not come true, in words.
pub async fn check(say: impl Fn(&str) -> Result<()>) -> Result<()> {
    let demo = Demo::start(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
    say("gateway registered over SIP with digest")?;
    let mut run = Run::start(demo, &say).await?;
    let done = async {
        run.incoming(&say).await.context("the incoming call")?;
        run.outgoing(&say).await.context("the outgoing call")
    };
    let done = done.await;
    run.phone.stop().await;
    run.demo.stop().await;
    done?;
    say("everything works")
}

struct Run {
    demo: Demo,
    desk: Desk,
    phone: Phone,
    heard: Reports,
}

impl Run {
    async fn start(demo: Demo, say: &impl Fn(&str) -> Result<()>) -> Result<Self> {
        let desk = Desk::log_in(demo.node.web, "anna", &demo.password).await?;
        let (phone, mut heard) = browser::start(browser_config(&demo, &desk)?)?;
        expect(&mut heard, "the browser's phone registers", |report| {
            matches!(report, Report::Registered { .. })
        })
        .await?;
        say("operator's browser registered over WebSocket")?;
        desk.ask(Method::PUT, "/me/state", Some(json!({"state": "available"}))).await?;
        Ok(Self { demo, desk, phone, heard })
    }

    /// A caller rings, is answered, talks, is held, and an order is made.
    async fn incoming(&mut self, say: &impl Fn(&str) -> Result<()>) -> Result<()> {
        let (number, _) = CALLERS.first().copied().unwrap_or_default();
        let call = self.demo.gateway.call(LINE, Some(number), &[]).await.context("the gateway stopped")?;
        let at_desk = invited(&mut self.heard).await?;
        say("incoming call rang at the operator's browser")?;
        self.both_hear(at_desk, call).await?;
        say("caller and operator hear each other")?;
        let live = self.live_call("talking").await?;
        let id = text(&live, "/id")?;
        self.hold(&id, at_desk).await?;
        say("on hold the operator hears silence, and the caller again after it")?;
        self.order(&id, number).await?;
        say("the order card was submitted, and one order is in the order core")?;
        self.demo.gateway.hang_up(call).await;
        ended(&mut self.heard, at_desk).await?;
        self.nothing_left().await?;
        say("the caller hung up, and nothing is left of the call")
    }

    /// The operator dials, hears the carrier ring, then the far end, and makes an order.
    async fn outgoing(&mut self, say: &impl Fn(&str) -> Result<()>) -> Result<()> {
        self.desk.ask(Method::PUT, "/me/state", Some(json!({"state": "available"}))).await?;
        let begun = self.desk.ask(Method::POST, "/calls", Some(json!({"to": DIALLED}))).await?;
        let id = text(&begun, "/id")?;
        let at_desk = invited(&mut self.heard).await?;
        self.hears(at_desk, RINGBACK_HZ, "the carrier's ring-back").await?;
        let live = self.live_call("ringing").await.context("the call rings and is not answered yet")?;
        if live.pointer("/answered_at").is_some_and(|at| !at.is_null()) {
            bail!("the talk time began before the far end answered");
        }
        say("operator dialled and hears the carrier's early media before the answer")?;
        let reports = &mut self.demo.reports;
        let answered = |report: &Report| matches!(report, Report::Answered { .. });
        let far = expect(reports, "the far end answers", answered).await?;
        let Report::Answered { call: far } = far else { bail!("the far end did not answer") };
        self.both_hear(at_desk, far).await?;
        say("the far end answered, and both hear each other")?;
        self.order(&id, DIALLED).await?;
        say("the order of the outgoing call is in the order core, once")?;
        self.desk.ask(Method::POST, &format!("/calls/{id}/hangup"), Some(json!({}))).await?;
        ended(&mut self.heard, at_desk).await?;
        ended(&mut self.demo.reports, far).await?;
        self.nothing_left().await?;
        say("the operator hung up, and nothing is left of the call")
    }

    async fn both_hear(&mut self, at_desk: CallNo, at_gateway: CallNo) -> Result<()> {
        self.hears(at_desk, CALLER_HZ, "the caller").await?;
        let heard = self.demo.reports.hears(at_gateway, OPERATOR_HZ, HEARD, WAIT_MS).await;
        heard.context("the caller does not hear the operator (1000 Hz)")?;
        Ok(())
    }

    async fn hears(&mut self, call: CallNo, hz: f64, who: &str) -> Result<()> {
        let heard = self.heard.hears(call, hz, HEARD, WAIT_MS).await;
        heard.with_context(|| format!("the operator does not hear {who} ({hz} Hz)"))?;
        Ok(())
    }

    async fn hold(&mut self, id: &str, at_desk: CallNo) -> Result<()> {
        self.desk.ask(Method::POST, &format!("/calls/{id}/hold"), Some(json!({}))).await?;
        let mut quiet = 0;
        let silent = |report: &Report| {
            if let Report::Heard { call, window } = report
                && *call == at_desk
            {
                quiet = if window.level(CALLER_HZ) < SILENT { quiet + 1 } else { 0 };
            }
            quiet >= SILENT_WINDOWS
        };
        self.heard.wait_for(WAIT_MS, silent).await.context("on hold the operator still hears the caller")?;
        self.desk.ask(Method::POST, &format!("/calls/{id}/resume"), Some(json!({}))).await?;
        self.hears(at_desk, CALLER_HZ, "the caller after the hold").await
    }

    /// Types and submits the card of a call twice, and finds one order in the core.
    async fn order(&self, call: &str, number: &str) -> Result<()> {
        let card = self.card_of(call).await?;
        let fields =
            json!({"fields": {"pickup": "Khreshchatyk 22", "destination": "Airport", "comment": call}});
        self.desk.ask(Method::PUT, &format!("/cards/{card}"), Some(fields.clone())).await?;
        for _ in 0..2 {
            let answer =
                self.desk.ask(Method::POST, &format!("/cards/{card}/submit"), Some(fields.clone())).await?;
            let state = text(&answer, "/state")?;
            if state != "accepted" {
                bail!("a submitted card is {state}, not accepted");
            }
        }
        let path = format!("/orders?phone=%2B{}", number.trim_start_matches('+'));
        let orders = |answer: &Value| {
            let orders = answer.pointer("/orders")?.as_array()?;
            (!orders.is_empty()).then_some(orders.len())
        };
        let count = self.desk.until(&path, "the order reaches the core", orders).await?;
        if count != 1 {
            bail!("{count} orders instead of one");
        }
        Ok(())
    }

    async fn card_of(&self, call: &str) -> Result<String> {
        let found = |answer: &Value| Some(answer.pointer("/card")?.as_str()?.to_owned());
        self.desk.until(&format!("/calls/{call}"), "the call has an order card", found).await
    }

    async fn live_call(&self, state: &str) -> Result<Value> {
        let found = |answer: &Value| {
            let calls = answer.as_array()?;
            calls.iter().find(|call| call.pointer("/state").is_some_and(|is| is == state)).cloned()
        };
        self.desk.until("/calls", &format!("a call is {state}"), found).await
    }

    async fn nothing_left(&self) -> Result<()> {
        let empty = |answer: &Value| answer.as_array()?.is_empty().then_some(());
        self.desk.until("/calls", "no call is left on the desk", empty).await
    }
}

fn browser_config(demo: &Demo, desk: &Desk) -> Result<BrowserConfig> {
    let folder = demo.folder.path().join("browser");
    std::fs::create_dir(&folder)?;
    let own = certificate::dtls(&folder)?;
    let identity = Identity { certificate: own.certificate, key: own.key };
    let now = clock::mono_ms();
    let (user, password, domain) = desk.phone.clone();
    Ok(BrowserConfig {
        phone: PhoneConfig {
            user,
            password,
            domain,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            talk: Speak::Tone(OPERATOR_HZ),
            answer: Answer::After { ring_ms: 200, early_media: false },
            expires_s: 120,
            digest: None,
            report_windows: true,
            seed: random()?,
            clock: Arc::new(clock::mono_ms),
        },
        url: format!("ws://{}/sip", demo.node.web),
        headers: Vec::new(),
        dtls: DtlsParty::new(&identity, clock::instant_of(now).into_std(), now)?,
    })
}

async fn expect(reports: &mut Reports, what: &str, wanted: impl FnMut(&Report) -> bool) -> Result<Report> {
    let found = reports.wait_for(WAIT_MS, wanted).await;
    Ok(found.with_context(|| format!("{what}: not within {} s", WAIT_MS / 1_000))?.1)
}

async fn invited(reports: &mut Reports) -> Result<CallNo> {
    let came = |report: &Report| matches!(report, Report::Invited { .. });
    let report = expect(reports, "the call comes to the operator's browser", came).await?;
    let Report::Invited { call, .. } = report else { bail!("{report:?} instead of a call") };
    Ok(call)
}

async fn ended(reports: &mut Reports, call: CallNo) -> Result<()> {
    let over = |report: &Report| matches!(report, Report::Ended { call: one, .. } if *one == call);
    expect(reports, "the call ends", over).await?;
    Ok(())
}

fn text(value: &Value, path: &str) -> Result<String> {
    let found = value.pointer(path).and_then(Value::as_str);
    Ok(found.with_context(|| format!("the answer has no {path}: {value}"))?.to_owned())
}

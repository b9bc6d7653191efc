//! Calls driven from outside: inputs in, outputs looked at.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::dialplan::{Choose, Known, Plan, Ways};
use crate::fact::{CallResult, ToneKind};
use crate::media::command::{Line, PortProgress};
use crate::sdp::Direction as Sends;
use crate::sdp::negotiate::{self as sdp, Codec};
use crate::sdp::webrtc::{Fingerprint, Ours, Setup as Role};
use crate::sip::Way;
use crate::terms::{FlowId, Secret};

const PLAN: &str = r#"
[[route]]
name = "in"
when = { from = "trunk:*" }
do = [ { queue = "orders", wait = "10s" }, { hang_up = "normal" } ]
[[route]]
name = "out"
when = { from = "operators", number = "any" }
do = [ { dial = "dialled", over = ["a", "b"] } ]
"#;

/// Two trunks that are always up, one queue, and the plan above.
pub(crate) fn setup() -> Setup {
    let trunks = ["a", "b"].map(TrunkName::from);
    let known = Known {
        queues: vec!["orders".into()],
        trunks: trunks.to_vec(),
        groups: Vec::new(),
        sounds: Vec::new(),
    };
    let plan = Plan::read(&[("plan.toml".to_owned(), PLAN.to_owned())], &known).unwrap();
    let trunk = |name: &TrunkName| Trunk {
        name: name.clone(),
        channels: 2,
        caller_from: vec!["From".to_owned()],
        account: String::new(),
        number_rules: Vec::new(),
        dial_rules: Vec::new(),
        codecs: vec![Codec::Pcma, Codec::Pcmu],
        redirects: true,
        unproved: false,
        line: Some("+380441110001".to_owned()),
    };
    let queue = Queue { name: "orders".into(), music: String::new() };
    Setup {
        domain: "tandem.local".to_owned(),
        trunks: trunks.iter().map(|name| (name.clone(), trunk(name))).collect(),
        queues: BTreeMap::from([(queue.name.clone(), queue)]),
        plan: Arc::new(plan),
        numbers: Vec::new(),
        media: MediaSetup {
            rtp_ports: vec![20_000, 20_002, 20_004],
            webrtc_ports: vec![10_000],
            address: None,
            fallback: IpAddr::from([10, 0, 0, 1]),
            fingerprint: [9; 32],
        },
        limits: Limits {
            calls: 10,
            calls_per_second: 10,
            emergency: vec!["112".to_owned()],
            call_duration_ms: 0,
            destinations: Vec::new(),
            operator_calls_per_minute: 10,
        },
        zone: jiff::tz::TimeZone::UTC,
        time_is_up: "sorry.wav".to_owned(),
    }
}

fn now() -> Now {
    Now { mono_ms: 1_000, wall_ms: 1_000 }
}

/// Ann's browser.
fn browser() -> sdp::Local {
    sdp::Local::WebRtc(Box::new(Ours {
        at: SocketAddr::from(([10, 0, 2, 1], 50_000)),
        session_id: 7,
        version: 1,
        ufrag: "abcd".to_owned(),
        pwd: Secret::new("apasswordoftwentytwochars".to_owned()),
        fingerprint: Fingerprint([4; 32]),
        setup: Role::Active,
        ice_lite: false,
        mid: "0".to_owned(),
        ssrc: 5,
        cname: "ann".to_owned(),
    }))
}

fn carrier() -> sdp::Local {
    sdp::Local::Plain {
        address: IpAddr::from([10, 0, 1, 1]),
        port: 30_000,
        session_id: 8,
        version: 1,
        mux: false,
    }
}

fn answer(local: &sdp::Local, offer: &[u8]) -> Bytes {
    let offer = sdp::read_offer(offer).unwrap();
    Bytes::from(sdp::answer(&offer, local, &[Codec::Pcma]).unwrap().1)
}

/// A line without `telephone-event`, as old gateways write it.
fn without_events(sdp: &Bytes) -> Bytes {
    let text = String::from_utf8(sdp.to_vec()).unwrap();
    let lines = text.split_inclusive("\r\n").filter(|line| !line.contains(":101 "));
    Bytes::from(lines.collect::<String>().replace("RTP/AVP 8 101", "RTP/AVP 8"))
}

/// The calls, and a counter of legs.
struct House {
    calls: Calls,
    next_leg: u64,
}

impl House {
    fn new(setup: Setup) -> Self {
        let trunks: Vec<TrunkName> = setup.trunks.keys().cloned().collect();
        let mut house = Self { calls: Calls::new(setup, [1; 32]), next_leg: 100 };
        let path = sip::Path::Ws {
            flow: FlowId(1),
            remote: SocketAddr::from(([10, 0, 2, 1], 40_000)),
            local: SocketAddr::from(([10, 0, 0, 1], 8080)),
            secure: false,
        };
        let remote = SocketAddr::from(([10, 0, 1, 1], 5060));
        let to_trunks = sip::Path::Udp { remote, local: SocketAddr::from(([10, 0, 0, 1], 5060)) };
        for trunk in trunks {
            house.sip(sip::Event::TrunkUp { trunk, path: to_trunks });
        }
        let who = Party::Operator("ann".into());
        house.sip(sip::Event::Registered { who, instance: "browser".to_owned(), path, expires_s: 60 });
        house
    }

    fn give(&mut self, input: Input) -> (Result<Option<CallId>, Denied>, Vec<Output>) {
        let next = &mut self.next_leg;
        self.calls.supply_legs(|| {
            *next += 1;
            LegId(*next)
        });
        let result = self.calls.handle(input, now());
        (result, std::iter::from_fn(|| self.calls.poll()).collect())
    }

    fn sip(&mut self, event: sip::Event) -> Vec<Output> {
        self.give(Input::Sip(event)).1
    }

    fn dial(&mut self, to: &str) -> (Result<Option<CallId>, Denied>, Vec<Output>) {
        self.give(Input::Dial { operator: "ann".into(), to: to.to_owned(), trunk: None })
    }

    /// Ann dials and her own phone answers: her leg, and the leg and offer to the carrier.
    fn dialled(&mut self) -> (CallId, LegId, LegId, Bytes) {
        let (call, out) = self.dial("+380671234567");
        let (own, sdp) = invite(&out);
        let sdp = answer(&browser(), &sdp);
        let out = self.sip(sip::Event::Answered { leg: own, sdp });
        let (far, sdp) = invite(&out);
        (call.unwrap().unwrap(), own, far, sdp)
    }

    /// A caller waits in the queue.
    fn caller(&mut self) -> (CallId, LegId) {
        let leg = LegId(1);
        let out = self.invited(leg, Bytes::from(sdp::offer(&carrier(), &[Codec::Pcma], Sends::SendRecv)));
        (waits(&out).expect("he waits"), leg)
    }

    /// A call comes in over the trunk `a`.
    fn invited(&mut self, leg: LegId, sdp: Bytes) -> Vec<Output> {
        self.sip(sip::Event::Invited(Box::new(sip::Invited {
            leg,
            from: Party::Trunk("a".into()),
            path: sip::Path::Udp {
                remote: SocketAddr::from(([10, 0, 1, 1], 5060)),
                local: SocketAddr::from(([10, 0, 0, 1], 5060)),
            },
            to_user: "+380441110001".to_owned(),
            dialled: "+380441110001".to_owned(),
            display: String::new(),
            identities: Vec::new(),
            private: false,
            replaces: None,
            sdp,
        })))
    }
}

fn waits(out: &[Output]) -> Option<CallId> {
    out.iter().find_map(|output| match output {
        Output::Wait { call, .. } => Some(*call),
        _ => None,
    })
}

fn invite(out: &[Output]) -> (LegId, Bytes) {
    let invite = out.iter().find_map(|output| match output {
        Output::Sip(sip::Command::Invite { leg, sdp, .. }) => Some((*leg, sdp.clone())),
        _ => None,
    });
    invite.unwrap_or_else(|| panic!("no INVITE in {out:?}"))
}

fn facts(out: &[Output]) -> Vec<&What> {
    out.iter()
        .filter_map(|output| match output {
            Output::Fact { what, .. } => Some(what),
            _ => None,
        })
        .collect()
}

fn opened(out: &[Output]) -> PortId {
    let open = out.iter().find_map(|output| match output {
        Output::Media { command: MediaCommand::Open { port, .. }, .. } => Some(*port),
        _ => None,
    });
    open.expect("a port is opened")
}

fn ended(out: &[Output]) -> Option<(CallResult, u16)> {
    facts(out).into_iter().find_map(|what| match what {
        What::Ended { result, cause, .. } => Some((*result, cause.q850)),
        _ => None,
    })
}

fn failed(leg: LegId, q850: u16, code: u16, way: Way) -> sip::Event {
    let cause = Cause { q850, sip: code, words: String::new() };
    sip::Event::Failed { leg, code, cause, way }
}

#[test]
fn a_browser_that_we_called_may_hold_by_sip_and_restart_ice() {
    let mut house = House::new(setup());
    let (_, own, ..) = house.dialled();
    let offer = sdp::offer(&browser(), &[Codec::Pcma], Sends::SendOnly).replace("abcd", "efgh");
    let out = house.sip(sip::Event::Offered { leg: own, sdp: Some(Bytes::from(offer)) });
    let answered = out.iter().find_map(|output| match output {
        Output::Sip(sip::Command::AnswerChange { sdp, .. }) => {
            Some(String::from_utf8_lossy(sdp).into_owned())
        }
        _ => None,
    });
    assert!(answered.unwrap().contains("a=setup:passive"));
    let restart =
        |output: &Output| matches!(output, Output::Media { command: MediaCommand::Restart { .. }, .. });
    assert_eq!(out.iter().filter(|output| restart(output)).count(), 1);
}

#[test]
fn an_offer_that_is_refused_leaves_the_ice_credentials_as_they_were() {
    let mut house = House::new(setup());
    let (call, own, ..) = house.dialled();
    let before = house.calls.call(call).unwrap().first.port.clone();
    let offer = sdp::offer(&browser(), &[Codec::Pcma], Sends::SendRecv)
        .replace("abcd", "efgh")
        .replace("actpass", "passive");
    let out = house.sip(sip::Event::Offered { leg: own, sdp: Some(Bytes::from(offer)) });
    assert!(matches!(out.as_slice(), [Output::Sip(sip::Command::RefuseChange { code: 488, .. })]), "{out:?}");
    assert_eq!(house.calls.call(call).unwrap().first.port, before);
}

#[test]
fn a_caller_who_waited_long_enough_leaves_the_queue_once_and_has_not_abandoned() {
    let mut house = House::new(setup());
    let (call, _) = house.caller();
    let (_, out) = house.give(Input::WaitedOut { call, why: "timeout" });
    let left: Vec<&str> = facts(&out)
        .into_iter()
        .filter_map(|what| match what {
            What::LeftQueue { why, .. } => Some(why.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(left, ["timeout"]);
    assert!(!out.iter().any(|output| matches!(output, Output::Left { .. })));
    assert_eq!(ended(&out), Some((CallResult::Overflow, 16)));
}

#[test]
fn a_dial_at_the_desk_counts_against_the_houses_limit_and_an_emergency_passes_it() {
    let mut full = setup();
    full.limits.calls = 0;
    let mut house = House::new(full);
    assert_eq!(house.dial("+380671234567").0.unwrap_err().status, 503);
    assert!(house.calls.is_empty());
    assert!(house.dial("112").0.is_ok());
}

#[test]
fn a_media_port_that_cannot_be_opened_is_a_failed_way_and_no_channel_is_lost() {
    let mut house = House::new(setup());
    let (_, out) = house.dial("+380671234567");
    let (own, sdp) = invite(&out);
    let out = house.sip(sip::Event::Answered { leg: own, sdp: answer(&browser(), &sdp) });
    let why = "address in use".to_owned();
    let (_, out) = house.give(Input::Media(MediaEvent::OpenFailed { port: opened(&out), why }));
    let (second, _) = invite(&out);
    let load = |house: &House| ["a", "b"].map(|name| house.calls.room.load[&TrunkName::from(name)]);
    assert_eq!(load(&house), [0, 1]);
    let out = house.sip(failed(second, 17, 486, Way::Person));
    assert_eq!(load(&house), [0, 0]);
    assert_eq!(ended(&out), None, "the operator hears why first");
    assert_eq!(house.calls.len(), 1);
}

#[test]
fn a_desk_whose_media_port_fails_while_it_rings_costs_the_caller_nothing() {
    let mut house = House::new(setup());
    let (call, _) = house.caller();
    let (queue, operator) = ("orders".into(), "ann".into());
    let (_, out) = house.give(Input::Assigned { call, queue, operator, auto_answer: true });
    let why = "no such address".to_owned();
    let (_, out) = house.give(Input::Media(MediaEvent::OpenFailed { port: opened(&out), why }));
    assert!(out.iter().any(|output| matches!(output, Output::Declined { refused: false, .. })));
    assert!(matches!(house.calls.call(call).unwrap().stage, Stage::Waiting { .. }));
}

#[test]
fn the_record_says_busy_even_when_the_operator_hangs_up_during_the_tone() {
    for by_desk in [true, false] {
        let mut house = House::new(setup());
        let (call, own, far, _) = house.dialled();
        house.sip(failed(far, 17, 486, Way::Person));
        let out = if by_desk {
            house.give(Input::HangUp { call, by: "ann".into() }).1
        } else {
            let cause = Cause { q850: 16, sip: 0, words: String::new() };
            house.sip(sip::Event::Ended { leg: own, cause, by_peer: true })
        };
        assert_eq!(ended(&out), Some((CallResult::Busy, 17)));
        assert!(house.calls.is_empty());
    }
}

#[test]
fn early_media_that_cannot_be_read_does_not_keep_our_ring_back_away() {
    let mut house = House::new(setup());
    let (_, _, far, _) = house.dialled();
    house.sip(sip::Event::EarlyMedia { leg: far, sdp: Bytes::from_static(b"v=0\r\n") });
    let out = house.sip(sip::Event::Rang { leg: far });
    let rings = |what: &&What| matches!(what, What::Tone { tone: ToneKind::Ringback, local: true });
    assert_eq!(facts(&out).iter().filter(|what| rings(what)).count(), 1);
}

#[test]
fn a_carrier_that_promises_sound_and_sends_none_is_rung_for_by_us() {
    let mut house = House::new(setup());
    let (call, _, far, sdp) = house.dialled();
    let rings = |out: &[Output]| {
        let rings = |what: &&What| matches!(what, What::Tone { tone: ToneKind::Ringback, local: true });
        facts(out).iter().filter(|what| rings(what)).count()
    };
    house.sip(sip::Event::EarlyMedia { leg: far, sdp: answer(&carrier(), &sdp) });
    assert_eq!(rings(&house.sip(sip::Event::Rang { leg: far })), 1);
    assert_eq!(rings(&house.sip(sip::Event::Rang { leg: far })), 0, "it rings already");
    let port = house.calls.call(call).unwrap().second.as_ref().unwrap().port.as_ref().unwrap().id;
    house.give(Input::Media(MediaEvent::FirstPacket { port })).0.unwrap();
    assert_eq!(rings(&house.sip(sip::Event::Rang { leg: far })), 0, "the carrier is heard");
}

fn joins(out: &[Output]) -> usize {
    let joins = |out: &&Output| matches!(out, Output::Media { command: MediaCommand::Join { .. }, .. });
    out.iter().filter(joins).count()
}

#[test]
fn sound_before_any_description_is_early_media_and_ends_our_ring_back() {
    let mut house = House::new(setup());
    let (call, _, far, sdp) = house.dialled();
    let port = house.calls.call(call).unwrap().second.as_ref().unwrap().port.as_ref().unwrap().id;
    let carrier_is = IpAddr::from([10, 0, 1, 1]);
    let out = house.sip(sip::Event::InviteSent { leg: far, to: carrier_is });
    let expected = out.iter().find_map(|output| match output {
        Output::Media { command: MediaCommand::Expect { port, from }, .. } => Some((*port, *from)),
        _ => None,
    });
    assert_eq!((expected, joins(&out)), (Some((port, carrier_is)), 1), "{out:?}");
    assert!(
        facts(&house.sip(sip::Event::Rang { leg: far }))
            .contains(&&What::Tone { tone: ToneKind::Ringback, local: true })
    );
    let (_, out) = house.give(Input::Media(MediaEvent::FirstPacket { port }));
    assert!(facts(&out).contains(&&What::EarlyMedia { trunk: "a".into() }), "{out:?}");
    assert!(out.iter().any(|out| matches!(out, Output::Media { command: MediaCommand::Stop { .. }, .. })));
    // Told once; the description only aims the port.
    let out = house.sip(sip::Event::EarlyMedia { leg: far, sdp: answer(&carrier(), &sdp) });
    assert!(facts(&out).is_empty(), "{out:?}");
    assert!(out.iter().any(|out| matches!(out, Output::Media { command: MediaCommand::Connect { .. }, .. })));
    assert!(facts(&house.sip(sip::Event::Rang { leg: far })).is_empty(), "the carrier rings");
    assert!(house.calls.call(call).unwrap().answered_ms.is_none());
}

#[test]
fn a_restored_dial_expects_the_carriers_sound_again() {
    let mut house = House::new(setup());
    let (call, _, far, _) = house.dialled();
    house.sip(sip::Event::InviteSent { leg: far, to: IpAddr::from([10, 0, 1, 1]) });
    let records = house.calls.records(now());
    let mut restored = Calls::restore(setup(), [2; 32], &records, false, now()).unwrap();
    let out: Vec<Output> = std::iter::from_fn(|| restored.poll()).collect();
    assert_eq!(restored.call(call).unwrap().second.as_ref().unwrap().source, Some([10, 0, 1, 1].into()));
    let expects = |out: &Output| matches!(out, Output::Media { command: MediaCommand::Expect { .. }, .. });
    assert_eq!((out.iter().filter(|out| expects(out)).count(), joins(&out)), (1, 1), "{out:?}");
}

#[test]
fn early_media_without_packets_rings_as_long_as_the_plan_says() {
    let mut house = House::new(setup());
    let (call, _, far, sdp) = house.dialled();
    house.sip(sip::Event::EarlyMedia { leg: far, sdp: answer(&carrier(), &sdp) });
    let port = house.calls.call(call).unwrap().second.as_ref().unwrap().port.as_ref().unwrap().id;
    house.give(Input::Media(MediaEvent::Dead { port })).0.unwrap();
    assert!(matches!(house.calls.call(call).unwrap().stage, Stage::Dialling(_)));
}

#[test]
fn digits_go_by_info_to_a_trunk_that_takes_no_events() {
    for events in [true, false] {
        let mut house = House::new(setup());
        let (call, _, far, sdp) = house.dialled();
        let sdp = answer(&carrier(), &sdp);
        let sdp = if events { sdp } else { without_events(&sdp) };
        house.sip(sip::Event::Answered { leg: far, sdp });
        let port = house.calls.call(call).unwrap().first.port.as_ref().unwrap().id;
        let (_, out) = house.give(Input::Media(MediaEvent::Digit { port, digit: '5', duration_ms: 100 }));
        let sent = out.iter().any(|output| {
            matches!(output, Output::Sip(sip::Command::SendDigit { leg, digit: '5', .. }) if *leg == far)
        });
        assert_eq!(sent, !events);
    }
}

#[test]
fn a_phone_that_holds_by_sip_is_not_resumed_by_the_desk() {
    let mut house = House::new(setup());
    let (call, own, far, sdp) = house.dialled();
    house.sip(sip::Event::Answered { leg: far, sdp: answer(&carrier(), &sdp) });
    house.give(Input::Hold { call, on: true }).0.unwrap();
    let hold = Bytes::from(sdp::offer(&browser(), &[Codec::Pcma], Sends::Inactive));
    house.sip(sip::Event::Offered { leg: own, sdp: Some(hold) });
    let (denied, out) = house.give(Input::Hold { call, on: false });
    assert_eq!(denied.unwrap_err().status, 409);
    assert!(out.is_empty(), "{out:?}");
    let back = Bytes::from(sdp::offer(&browser(), &[Codec::Pcma], Sends::SendRecv));
    house.sip(sip::Event::Offered { leg: own, sdp: Some(back) });
    let (_, out) = house.give(Input::Hold { call, on: false });
    assert!(
        out.iter().any(|output| matches!(output, Output::Media { command: MediaCommand::Join { .. }, .. }))
    );
}

#[test]
fn a_call_without_a_description_is_offered_ours_and_the_plan_waits_for_the_answer_in_the_ack() {
    for answers in [true, false] {
        let mut house = House::new(setup());
        let leg = LegId(1);
        let out = house.invited(leg, Bytes::new());
        assert_eq!(waits(&out), None, "nobody knows yet where sound is to go");
        let ours = out.iter().find_map(|output| match output {
            Output::Sip(sip::Command::Answer { sdp, .. }) => Some(sdp.clone()),
            _ => None,
        });
        let sdp = answers.then(|| answer(&carrier(), &ours.expect("an answer with our offer")));
        let out = house.sip(sip::Event::Confirmed { leg, sdp });
        assert_eq!(waits(&out).is_some(), answers);
        let connects =
            |out: &Output| matches!(out, Output::Media { command: MediaCommand::Connect { .. }, .. });
        assert_eq!(out.iter().any(connects), answers);
        assert_eq!(ended(&out), (!answers).then_some((CallResult::Failed, 79)));
    }
}

#[test]
fn a_change_without_a_description_is_answered_with_an_offer_and_may_end_in_hold() {
    let mut house = House::new(setup());
    let (call, own, far, sdp) = house.dialled();
    house.sip(sip::Event::Answered { leg: far, sdp: answer(&carrier(), &sdp) });
    for (leg, local) in [(far, carrier()), (own, browser())] {
        let out = house.sip(sip::Event::Offered { leg, sdp: None });
        let [Output::Sip(sip::Command::AnswerChange { sdp: ours, .. })] =
            &out.iter().filter(|out| matches!(out, Output::Sip(_))).collect::<Vec<_>>()[..]
        else {
            panic!("{out:?}")
        };
        assert!(sdp::read_offer(ours).is_ok());
        let held = String::from_utf8(answer(&local, ours).to_vec()).unwrap().replace("sendrecv", "sendonly");
        let out = house.sip(sip::Event::ChangeAnswered { leg, sdp: Bytes::from(held) });
        assert!(facts(&out).contains(&&What::Held), "{out:?}");
        let out = house.sip(sip::Event::ChangeAnswered { leg, sdp: answer(&local, ours) });
        assert!(facts(&out).contains(&&What::Resumed), "{out:?}");
    }
    assert!(matches!(house.calls.call(call).unwrap().stage, Stage::Talking));
}

#[test]
fn another_process_repeats_no_description_version_and_no_packet_number() {
    let version = |out: &[Output]| {
        let offer = out.iter().find_map(|output| match output {
            Output::Sip(sip::Command::AnswerChange { sdp, .. } | sip::Command::Offer { sdp, .. }) => {
                Some(String::from_utf8_lossy(sdp).into_owned())
            }
            _ => None,
        });
        let origin = offer.unwrap().lines().find(|line| line.starts_with("o=")).unwrap().to_owned();
        origin.split(' ').nth(2).unwrap().parse::<u64>().unwrap()
    };
    let hold = || Some(Bytes::from(sdp::offer(&browser(), &[Codec::Pcma], Sends::SendOnly)));
    let mut house = House::new(setup());
    let (call, own, far, sdp) = house.dialled();
    house.sip(sip::Event::Answered { leg: far, sdp: answer(&carrier(), &sdp) });
    let port = |house: &House, first: bool| {
        let call = house.calls.call(call).unwrap();
        let leg = if first { &call.first } else { call.second.as_ref().unwrap() };
        leg.port.clone().unwrap()
    };
    let (moved, quiet) = (port(&house, true), port(&house, false));
    let progress = PortProgress {
        port: moved.id,
        sent_index: 65_536 + 900,
        sent_ts: 77_000,
        sent_rtcp_index: 0,
        received: None,
        received_rtcp_index: 0,
        address: None,
    };
    house.give(Input::Media(MediaEvent::Progress(vec![progress]))).0.unwrap();
    let records = house.calls.records(now());
    // What the writer still said after its last record is lost.
    let last = version(&house.sip(sip::Event::Offered { leg: own, sdp: hold() }));
    for media_lives in [true, false] {
        let mut calls = Calls::restore(setup(), [2; 32], &records, media_lives, now()).unwrap();
        let lines: BTreeMap<PortId, Line> = std::iter::from_fn(|| calls.poll())
            .filter_map(|output| match output {
                Output::Media { command: MediaCommand::Open { port, line, .. }, .. } => Some((port, line)),
                _ => None,
            })
            .collect();
        let mut next = House { calls, next_leg: 200 };
        assert!(version(&next.sip(sip::Event::Offered { leg: own, sdp: hold() })) > last + 50);
        if media_lives {
            assert!(lines.is_empty(), "the workers carry the ports already");
            continue;
        }
        // The one whose progress is known goes on beyond it, the other beyond its beginning.
        assert_eq!((lines[&moved.id].seq, lines[&moved.id].ts), (900 + 256, 77_000 + 256 * 160));
        assert_eq!(lines[&quiet.id].seq, quiet.line.seq + 256);
        assert_eq!(lines[&moved.id].ssrc, moved.line.ssrc);
        // And again, when that one dies before its workers told anything.
        let records = next.calls.records(now());
        let mut third = Calls::restore(setup(), [3; 32], &records, false, now()).unwrap();
        let again = std::iter::from_fn(|| third.poll()).find_map(|output| match output {
            Output::Media { command: MediaCommand::Open { port, line, .. }, .. } if port == moved.id => {
                Some(line)
            }
            _ => None,
        });
        assert_eq!(again.unwrap().seq, 900 + 512);
    }
}

#[test]
fn a_call_that_a_draining_node_refuses_is_told_to_the_log() {
    let mut house = House::new(setup());
    house.give(Input::Drain).0.unwrap();
    let out = house.invited(LegId(1), Bytes::from(sdp::offer(&carrier(), &[Codec::Pcma], Sends::SendRecv)));
    let [Output::Refused { from, called, cause }, Output::Sip(sip::Command::Reject { code: 503, .. })] =
        out.as_slice()
    else {
        panic!("{out:?}")
    };
    assert_eq!((from, called.reveal()), (&Party::Trunk("a".into()), "+380441110001"));
    assert!(cause.words.contains("drained"), "{cause:?}");
}

#[test]
fn the_trunk_with_the_smallest_part_of_its_channels_in_use_is_tried_first() {
    let mut setup = setup();
    setup.trunks.get_mut(&TrunkName::from("b")).unwrap().channels = 4;
    let mut house = House::new(setup);
    let trunks = ["a", "b"].map(TrunkName::from).to_vec();
    let ways = Ways { name: "g".into(), trunks, choose: Choose::LeastUsed, shares: Vec::new() };
    for (on_a, on_b, first) in [(0, 0, "a"), (1, 1, "b"), (1, 2, "a"), (1, 3, "a"), (2, 3, "b")] {
        house.calls.room.load = BTreeMap::from([("a".into(), on_a), ("b".into(), on_b)]);
        let order = house.calls.room.choose(std::slice::from_ref(&ways));
        assert_eq!((order[0].as_str(), order.len()), (first, 2), "{on_a} {on_b}");
    }
}

impl House {
    /// A caller of the queue talks with Ann: the call, his leg, hers.
    fn talking(&mut self) -> (CallId, LegId, LegId) {
        let (call, caller) = self.caller();
        let (queue, operator) = ("orders".into(), "ann".into());
        let (_, out) = self.give(Input::Assigned { call, queue, operator, auto_answer: true });
        let (own, sdp) = invite(&out);
        self.sip(sip::Event::Answered { leg: own, sdp: answer(&browser(), &sdp) });
        (call, caller, own)
    }

    fn registers(&mut self, name: &str) {
        let path = sip::Path::Ws {
            flow: FlowId(9),
            remote: SocketAddr::from(([10, 0, 2, 2], 40_000)),
            local: SocketAddr::from(([10, 0, 0, 1], 8080)),
            secure: false,
        };
        let who = Party::Operator(name.into());
        self.sip(sip::Event::Registered { who, instance: name.to_owned(), path, expires_s: 60 });
    }

    fn refers(&mut self, leg: LegId, to: &str, replaces: Option<LegId>) -> Vec<Output> {
        self.sip(sip::Event::Referred { leg, to: to.to_owned(), replaces })
    }
}

/// What a leg was told of its REFER: the answer, then each NOTIFY.
fn refer_codes(out: &[Output]) -> Vec<u16> {
    out.iter()
        .filter_map(|output| match output {
            Output::Sip(
                sip::Command::AnswerRefer { code, .. } | sip::Command::ReferProgress { code, .. },
            ) => Some(*code),
            _ => None,
        })
        .collect()
}

fn hung_up(out: &[Output]) -> Vec<LegId> {
    out.iter()
        .filter_map(|output| match output {
            Output::Sip(sip::Command::HangUp { leg, .. }) => Some(*leg),
            _ => None,
        })
        .collect()
}

fn gone(leg: LegId) -> sip::Event {
    sip::Event::Ended { leg, cause: Cause { q850: 16, sip: 0, words: String::new() }, by_peer: true }
}

fn released(out: &[Output]) -> Vec<String> {
    out.iter()
        .filter_map(|output| match output {
            Output::Released { operator, .. } => Some(operator.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_caller_is_handed_to_a_number_and_the_operator_is_free_when_it_answers() {
    for stays in [true, false] {
        let mut house = House::new(setup());
        let (call, caller, own) = house.talking();
        let out = house.refers(own, "+380671234567", None);
        assert_eq!(refer_codes(&out), [202]);
        let (far, sdp) = invite(&out);
        if !stays {
            // Many phones hang up as soon as the REFER is taken.
            let out = house.sip(gone(own));
            assert_eq!((ended(&out), released(&out)), (None, vec!["ann".to_owned()]));
        }
        house.sip(sip::Event::Rang { leg: far });
        let out = house.sip(sip::Event::Answered { leg: far, sdp: answer(&carrier(), &sdp) });
        assert_eq!(joins(&out), 1);
        assert_eq!(refer_codes(&out), if stays { vec![200] } else { vec![] });
        assert_eq!(hung_up(&out), if stays { vec![own] } else { vec![] });
        assert_eq!(released(&out).len(), usize::from(stays));
        assert!(facts(&out).iter().any(|what| matches!(what, What::Transferred { .. })));
        let live = house.calls.call(call).unwrap();
        assert_eq!((live.legs().count(), live.operator.clone()), (2, None));
        let out = house.sip(gone(caller));
        assert_eq!(ended(&out), Some((CallResult::Transferred, 16)));
        assert_eq!(hung_up(&out), [far]);
        assert!(house.calls.room.load.values().all(|load| *load == 0), "{:?}", house.calls.room.load);
    }
}

#[test]
fn a_transfer_to_a_busy_number_gives_the_operator_his_caller_back() {
    let mut house = House::new(setup());
    let (call, caller, own) = house.talking();
    let out = house.refers(own, "+380671234567", None);
    let (far, _) = invite(&out);
    let out = house.sip(failed(far, 17, 486, Way::Person));
    assert_eq!((refer_codes(&out), joins(&out), ended(&out)), (vec![486], 1, None));
    assert!(matches!(house.calls.call(call).unwrap().stage, Stage::Talking));
    // And he may try again.
    let out = house.refers(own, "+380671234568", None);
    assert_eq!(refer_codes(&out), [202]);
    let out = house.sip(gone(caller));
    assert_eq!(ended(&out), Some((CallResult::Answered, 16)));
    assert_eq!(hung_up(&out).len(), 2);
    assert_eq!(released(&out), ["ann"]);
}

#[test]
fn a_caller_whose_operator_left_and_whose_target_is_busy_is_not_lost() {
    // He came by a queue: he waits there again, ahead of the others.
    let mut house = House::new(setup());
    let (_, _, own) = house.talking();
    let (far, _) = invite(&house.refers(own, "+380671234567", None));
    house.sip(gone(own));
    let out = house.sip(failed(far, 17, 486, Way::Person));
    assert!(out.iter().any(|output| matches!(output, Output::Wait { priority: -1, .. })), "{out:?}");
    assert_eq!(ended(&out), None);
    // He was called by the operator: that one is called back, and if nobody is there the call ends once.
    for answers in [true, false] {
        let mut house = House::new(setup());
        let (call, own, far, sdp) = house.dialled();
        house.sip(sip::Event::Answered { leg: far, sdp: answer(&carrier(), &sdp) });
        let (third, _) = invite(&house.refers(own, "+380671234568", None));
        house.sip(gone(own));
        let out = house.sip(failed(third, 17, 486, Way::Person));
        let (again, sdp) = invite(&out);
        assert_eq!(ended(&out), None);
        if answers {
            let out = house.sip(sip::Event::Answered { leg: again, sdp: answer(&browser(), &sdp) });
            assert_eq!(joins(&out), 1);
            assert_eq!(house.calls.call(call).unwrap().operator, Some("ann".into()));
        } else {
            let out = house.sip(failed(again, 19, 480, Way::Person));
            assert_eq!(released(&out), ["ann"]);
            assert!(matches!(house.calls.call(call).unwrap().stage, Stage::Farewell { .. }));
            assert!(ended(&house.sip(gone(far))).is_some());
        }
    }
}

#[test]
fn a_caller_is_handed_to_a_colleague_who_is_in_the_call_from_the_ringing_on() {
    let mut house = House::new(setup());
    house.registers("bob");
    let (call, caller, own) = house.talking();
    let (_, out) = house.give(Input::Transfer { call, by: "ann".into(), to: "bob".to_owned() });
    assert!(refer_codes(&out).is_empty(), "the desk did not ask by SIP");
    let (bobs, sdp) = invite(&out);
    assert!(house.calls.call(call).unwrap().concerns(&"bob".into()));
    let out = house.sip(sip::Event::Answered { leg: bobs, sdp: answer(&browser(), &sdp) });
    assert_eq!((hung_up(&out), released(&out)), (vec![own], vec!["ann".to_owned()]));
    assert_eq!(house.calls.call(call).unwrap().operator, Some("bob".into()));
    // To him who is in a call nobody is handed.
    let busy = house.give(Input::Transfer { call, by: "bob".into(), to: "bob".to_owned() }).0;
    assert_eq!(busy.unwrap_err().status, 409);
    assert_eq!(ended(&house.sip(gone(caller))), Some((CallResult::Transferred, 16)));
}

#[test]
fn nothing_is_handed_where_the_operator_may_not_call_and_nothing_by_a_trunk() {
    let mut strict = setup();
    strict.limits.destinations = vec!["+380".to_owned()];
    let mut house = House::new(strict);
    let (call, caller, own) = house.talking();
    for (leg, to, code) in [
        (own, "+19001234567", 403),
        (own, "nobody", 404),
        (own, "", 404),
        (caller, "+380671234567", 403),
        (LegId(999), "+380671234567", 404),
    ] {
        let out = house.refers(leg, to, None);
        let refused = if code == 404 && leg == LegId(999) { 403 } else { code };
        assert_eq!(refer_codes(&out), [refused], "{leg} {to}");
        assert!(!out.iter().any(|out| matches!(out, Output::Sip(sip::Command::Invite { .. }))));
    }
    assert!(matches!(house.calls.call(call).unwrap().stage, Stage::Talking));
}

/// Ann holds her caller by her phone and calls a number: her second call, her leg in it, the far one.
fn consults(house: &mut House, own: LegId) -> (CallId, LegId, LegId) {
    let hold = Bytes::from(sdp::offer(&browser(), &[Codec::Pcma], Sends::SendOnly));
    house.sip(sip::Event::Offered { leg: own, sdp: Some(hold) });
    let leg = LegId(50);
    let path = sip::Path::Ws {
        flow: FlowId(1),
        remote: SocketAddr::from(([10, 0, 2, 1], 40_000)),
        local: SocketAddr::from(([10, 0, 0, 1], 8080)),
        secure: false,
    };
    let out = house.sip(sip::Event::Invited(Box::new(sip::Invited {
        leg,
        from: Party::Operator("ann".into()),
        path,
        to_user: "+380671234568".to_owned(),
        dialled: "+380671234568".to_owned(),
        display: String::new(),
        identities: Vec::new(),
        private: false,
        sdp: Bytes::from(sdp::offer(&browser(), &[Codec::Pcma], Sends::SendRecv)),
        replaces: None,
    })));
    assert!(!out.iter().any(|out| matches!(out, Output::Engaged { .. } | Output::Dialled { .. })));
    let (far, sdp) = invite(&out);
    house.sip(sip::Event::Answered { leg: far, sdp: answer(&carrier(), &sdp) });
    (house.calls.by_leg[&leg], leg, far)
}

#[test]
fn he_who_asked_a_colleague_first_connects_both_and_is_free() {
    let mut house = House::new(setup());
    let (call, caller, own) = house.talking();
    let (second, leg, far) = consults(&mut house, own);
    let out = house.refers(own, "+380671234568", Some(leg));
    assert_eq!(refer_codes(&out), [202, 200]);
    assert_eq!(ended(&out), Some((CallResult::Transferred, 16)), "his second call is over");
    let mut left = hung_up(&out);
    left.sort();
    assert_eq!(left, [leg, own]);
    assert_eq!((released(&out), joins(&out)), (vec!["ann".to_owned()], 1));
    assert!(house.calls.call(second).is_none());
    let legs: Vec<LegId> = house.calls.call(call).unwrap().legs().map(|leg| leg.id).collect();
    assert_eq!(legs, [caller, far]);
    let out = house.sip(gone(far));
    assert_eq!((ended(&out), hung_up(&out)), (Some((CallResult::Transferred, 16)), vec![caller]));
    assert!(house.calls.room.load.values().all(|load| *load == 0), "{:?}", house.calls.room.load);
}

#[test]
fn without_holding_his_caller_nobody_makes_a_second_call_and_a_third_is_refused() {
    let mut house = House::new(setup());
    let (_, _, own) = house.talking();
    assert_eq!(house.dial("+380671234567").0.unwrap_err().status, 409);
    let (_, _, _) = consults(&mut house, own);
    assert_eq!(house.dial("+380671234567").0.unwrap_err().status, 409);
    assert_eq!(house.calls.len(), 2);
}

#[test]
fn another_phone_of_the_operator_takes_the_place_of_the_first() {
    let mut house = House::new(setup());
    let (call, caller, own) = house.talking();
    let new = LegId(60);
    let path = sip::Path::Udp {
        remote: SocketAddr::from(([10, 0, 2, 7], 5060)),
        local: SocketAddr::from(([10, 0, 0, 1], 5060)),
    };
    let out = house.sip(sip::Event::Invited(Box::new(sip::Invited {
        leg: new,
        from: Party::Operator("ann".into()),
        path,
        to_user: "ann".to_owned(),
        dialled: "ann".to_owned(),
        display: String::new(),
        identities: Vec::new(),
        private: false,
        sdp: Bytes::from(sdp::offer(&carrier(), &[Codec::Pcma], Sends::SendRecv)),
        replaces: Some(own),
    })));
    assert!(
        out.iter().any(|out| matches!(out, Output::Sip(sip::Command::Answer { leg, .. }) if *leg == new))
    );
    assert_eq!((joins(&out), hung_up(&out), ended(&out)), (1, vec![own], None));
    let legs: Vec<LegId> = house.calls.call(call).unwrap().legs().map(|leg| leg.id).collect();
    assert_eq!(legs, [caller, new]);
}

#[test]
fn a_way_may_send_a_call_on_over_the_plans_trunks_where_the_toll_guard_lets_and_not_for_ever() {
    let redirected = |house: &mut House, leg: LegId, to: &str| {
        house.sip(sip::Event::Redirected { leg, to: to.to_owned() });
        house.sip(failed(leg, 23, 302, Way::Way))
    };
    let number = |out: &[Output]| {
        out.iter().find_map(|output| match output {
            Output::Sip(sip::Command::Invite { to, number, .. }) => {
                Some((to.clone(), number.reveal().to_owned()))
            }
            _ => None,
        })
    };
    let first = Party::Trunk("a".into());
    let mut strict = setup();
    strict.limits.destinations = vec!["+380".to_owned()];
    // Ports that are given back rest for a while.
    strict.media.rtp_ports = (0..20).map(|number| 20_000 + 2 * number).collect();
    let mut house = House::new(strict.clone());
    let (_, _, mut far, _) = house.dialled();
    for last in 1..=3 {
        let to = format!("+38067123456{last}");
        let out = redirected(&mut house, far, &to);
        assert_eq!(number(&out), Some((first.clone(), to)));
        far = invite(&out).0;
    }
    // The fourth is not followed; neither is a costly number, nor one that was called before.
    let out = redirected(&mut house, far, "+380671234569");
    assert_eq!(number(&out).map(|(trunk, _)| trunk), Some(Party::Trunk("b".into())), "only the next way");
    for to in ["+19001234567", "+380671234567", "anonymous", ""] {
        let mut house = House::new(strict.clone());
        let (_, _, far, _) = house.dialled();
        let out = redirected(&mut house, far, to);
        assert_eq!(number(&out), Some((Party::Trunk("b".into()), "+380671234567".to_owned())), "{to}");
    }
    strict.trunks.get_mut(&TrunkName::from("a")).unwrap().redirects = false;
    let mut house = House::new(strict);
    let (_, _, far, _) = house.dialled();
    let out = redirected(&mut house, far, "+380671234561");
    assert_eq!(number(&out).map(|(trunk, _)| trunk), Some(Party::Trunk("b".into())));
}

#[test]
fn hold_in_each_form_is_answered_rightly_and_resumed() {
    let attribute = |text: &str, name: &str| text.replace("a=sendrecv", &format!("a={name}"));
    let old = |text: &str| text.replace("c=IN IP4 10.0.1.1", "c=IN IP4 0.0.0.0");
    let mut house = House::new(setup());
    let (call, own, far, sdp) = house.dialled();
    house.sip(sip::Event::Answered { leg: far, sdp: answer(&carrier(), &sdp) });
    let plain = |local: &sdp::Local| sdp::offer(local, &[Codec::Pcma], Sends::SendRecv);
    for (leg, local) in [(far, carrier()), (own, browser())] {
        let mut forms = vec![
            (attribute(&plain(&local), "sendonly"), "a=recvonly"),
            (attribute(&plain(&local), "inactive"), "a=inactive"),
        ];
        if leg == far {
            forms.push((old(&plain(&local)), "a=recvonly"));
        }
        for (held, expected) in forms {
            let before =
                house.calls.call(call).unwrap().legs().find(|one| one.id == leg).unwrap().agreed.clone();
            let mut change = |text: &str| {
                let sdp = Some(Bytes::from(text.to_owned()));
                house.sip(sip::Event::Offered { leg, sdp })
            };
            let answered = |out: &[Output]| {
                out.iter()
                    .find_map(|output| match output {
                        Output::Sip(sip::Command::AnswerChange { sdp, .. }) => {
                            Some(String::from_utf8_lossy(sdp).into_owned())
                        }
                        _ => None,
                    })
                    .expect("an answer")
            };
            let out = change(&held);
            assert!(answered(&out).contains(expected), "{held}: {}", answered(&out));
            assert!(facts(&out).contains(&&What::Held), "{held}");
            let out = change(&plain(&local));
            assert!(answered(&out).contains("a=sendrecv"), "{held}");
            assert!(facts(&out).contains(&&What::Resumed), "{held}");
            let after =
                house.calls.call(call).unwrap().legs().find(|one| one.id == leg).unwrap().agreed.clone();
            let target = |agreed: Option<sdp::Agreed>| match agreed.expect("agreed").remote {
                sdp::Remote::Plain { rtp, .. } => rtp.to_string(),
                sdp::Remote::WebRtc(theirs) => theirs.ufrag.clone(),
            };
            assert_eq!(target(before), target(after), "sound goes where it went");
        }
    }
}

#[test]
fn talk_time_is_counted_by_the_clock_that_never_jumps() {
    for jump_ms in [3_600_000_i64, -3_600_000] {
        let mut house = House::new(setup());
        let (_, caller, _) = house.talking();
        let then = Now { mono_ms: now().mono_ms + 60_000, wall_ms: now().wall_ms + jump_ms };
        house.calls.handle(Input::Sip(gone(caller)), then).unwrap();
        let out: Vec<Output> = std::iter::from_fn(|| house.calls.poll()).collect();
        let talked = facts(&out).into_iter().find_map(|what| match what {
            What::Ended { talk_ms, .. } => Some(*talk_ms),
            _ => None,
        });
        assert_eq!(talked, Some(60_000), "{jump_ms}");
    }
}

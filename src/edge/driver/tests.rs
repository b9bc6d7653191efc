//! The engine's task over real sockets, made to fail on purpose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;
use crate::call::failpoint;
use crate::dialplan::{Known, Plan};
use crate::edge::media::{DSCP_EF, MediaConfig, Sounds};
use crate::edge::metrics::Picture;
use crate::edge::store::{Store, StoreConfig};
use crate::media::dtls::Identity;
use crate::report::{Board, Roster};
use crate::sip::message::{Message, Method, Name};
use crate::sip::{Prefix, TrunkAccount, TrunkKind};
use crate::terms::{Epoch, Secret};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(20);
const PLAN: &str = r#"
[[route]]
name = "in"
when = { from = "trunk:*" }
do = [ { queue = "orders", wait = "2s" }, { hang_up = "normal" } ]
"#;
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n";

/// A whole node but for its web, and a gateway that speaks by hand.
struct House {
    folder: TempDir,
    store: Store,
    metrics: Metrics,
    node: SocketAddr,
    gateway: UdpSocket,
    driver: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl House {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("t.db").display());
        let config = StoreConfig { url, data_dir: folder.path().to_owned(), max_pages: 0 };
        let store = Store::open(&config).await.unwrap();
        let (writer, write) = store.writer();
        tokio::spawn(write);
        let metrics = Metrics::new().unwrap();
        let udp = Arc::new(Udp::bind(LOCAL, metrics.clone()).unwrap());
        let gateway = UdpSocket::bind(LOCAL).await.unwrap();
        let setup = setup(gateway.local_addr().unwrap());
        let board = Board::new(Roster::default(), Arc::new(|at| at / 86_400_000), 0);
        let (handle, ends) = connect(board, Epoch(1), store.clone(), writer.health());
        tokio::spawn(Arc::clone(&udp).run(handle.clone()));
        let node = udp.local();
        let outlets = Outlets {
            plane: plane(),
            udp: Some(udp),
            writer,
            file: None,
            metrics: metrics.clone(),
            replays: Replays::below(folder.path(), 5),
        };
        let engine = Engine::new(setup.clone(), [1; 32], clock::now());
        let driver = Driver::new(engine, setup, &handle, ends.inbox, outlets, || [2; 32]);
        let (stop, stopped) = watch::channel(false);
        let driver = tokio::spawn(driver.run(stopped));
        Self { folder, store, metrics, node, gateway, driver, stop }
    }

    async fn say(&self, text: &str) {
        self.gateway.send_to(text.as_bytes(), self.node).await.unwrap();
    }

    /// The next message that fits; others are passed over.
    async fn hear(&self, fits: impl Fn(&Message) -> bool) -> Message {
        let mut buffer = [0; 4_000];
        let mut others = Vec::new();
        let heard = async {
            loop {
                let length = self.gateway.recv(&mut buffer).await.unwrap();
                let message = Message::read_datagram(&Bytes::copy_from_slice(&buffer[..length])).unwrap();
                if fits(&message) {
                    return message;
                }
                others.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        };
        let heard = tokio::time::timeout(PATIENCE, heard).await;
        heard.unwrap_or_else(|_| panic!("nothing of that kind is said:\n{}", others.join("\n")))
    }

    /// A call that is answered and waits in the queue: the To of its 200.
    async fn call(&self, name: &str) -> String {
        let own = self.gateway.local_addr().unwrap();
        self.say(&request("INVITE", name, 1, own, "<sip:+380441110001@127.0.0.1>", SDP)).await;
        let made = self.hear(|message| is_answer(message, name, 200)).await;
        let Message::Response(made) = made else { panic!() };
        let to = made.headers.text(&Name::To).unwrap().to_owned();
        self.say(&request("ACK", name, 1, own, &to, "")).await;
        // Messages are taken in their order: with this answer the ACK has been taken too.
        let probe = format!("{name}-probe");
        self.say(&request("OPTIONS", &probe, 1, own, "<sip:127.0.0.1>", "")).await;
        self.hear(|message| is_answer(message, &probe, 200)).await;
        to
    }

    async fn within(&self, method: &str, name: &str, cseq: u32, to: &str) -> String {
        let text = request(method, name, cseq, self.gateway.local_addr().unwrap(), to, "");
        self.say(&text).await;
        text
    }

    /// Waits for our BYE to this call and answers it; its Reason.
    async fn let_go(&self, name: &str) -> String {
        let bye = self.hear(|message| is_request(message, name, &Method::Bye)).await;
        let Message::Request(bye) = bye else { panic!() };
        let text = |name: &Name| bye.headers.text(name).unwrap().to_owned();
        let (via, from, to, cseq) = (text(&Name::Via), text(&Name::From), text(&Name::To), text(&Name::CSeq));
        self.say(&format!(
            "SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {name}\r\nCSeq: {cseq}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        text(&Name::Reason)
    }

    /// Result and words of every call's record, oldest first.
    async fn records(&self, count: usize) -> Vec<(String, String)> {
        let wanted = async {
            loop {
                let records = self.store.results_for_test().await;
                if records.len() >= count {
                    return records;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wanted).await.expect("a record is missing")
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.page(&Picture::default()).lines().any(|known| known == line)
    }

    fn replays(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path().join("replays"));
        files.map_or(Vec::new(), |files| {
            files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
        })
    }

    async fn close(self) {
        assert!(!self.driver.is_finished(), "the driver's task lives");
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.driver).await.expect("it stops").unwrap();
    }
}

fn setup(gateway: SocketAddr) -> Setup {
    let mut calls = crate::call::tests::setup();
    let known =
        Known { queues: vec!["orders".into()], trunks: vec!["a".into(), "b".into()], ..Known::default() };
    calls.plan = Arc::new(Plan::read(&[("plan.toml".to_owned(), PLAN.to_owned())], &known).unwrap());
    calls.media.address = Some(Ipv4Addr::LOCALHOST.into());
    calls.media.rtp_ports = (0..4).map(|n| 23_456 + 2 * n).collect();
    let account = TrunkAccount {
        name: "a".into(),
        kind: TrunkKind::Peer { server: Some(gateway) },
        accept_from: vec![Prefix { address: gateway.ip(), bits: 32 }],
        digest: Vec::new(),
        health: sip::Health { every_ms: 3_600_000, timeout_ms: 4_000 },
        prack: false,
        profile: sip::Profile::Generic,
    };
    Setup {
        node_name: "test".to_owned(),
        version: "0".to_owned(),
        epoch: Epoch(1),
        last_seq: 0,
        sip: sip::Config::default(),
        accounts: vec![account],
        calls,
        queues: vec![crate::acd::QueueConfig::named("orders")],
        cards: Vec::new(),
    }
}

fn plane() -> MediaPlane {
    let made = rcgen::generate_simple_self_signed(vec!["tandem".to_owned()]).unwrap();
    let key = Secret::new(made.signing_key.serialize_der());
    let (events, _) = mpsc::channel(1_024);
    let config = MediaConfig {
        workers: 1,
        webrtc_port: 0,
        address: Ipv4Addr::LOCALHOST.into(),
        dscp: DSCP_EF,
        silence_alarm_ms: 60_000,
        dead_after_ms: 0,
        identity: Identity { certificate: made.cert.der().to_vec(), key },
        sounds: Sounds::default(),
    };
    MediaPlane::start(config, events).unwrap()
}

fn request(method: &str, name: &str, cseq: u32, own: SocketAddr, to: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:+380441110001@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{name}{method}{cseq};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+380671234567@{own}>;tag=g{name}\r\nTo: {to}\r\nCall-ID: {name}\r\n\
         CSeq: {cseq} {method}\r\nContact: <sip:gsm@{own}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn is_answer(message: &Message, name: &str, code: u16) -> bool {
    matches!(message, Message::Response(response)
        if response.code == code && response.headers.text(&Name::CallId) == Some(name))
}

fn is_request(message: &Message, name: &str, method: &Method) -> bool {
    matches!(message, Message::Request(request)
        if request.method == *method && request.headers.text(&Name::CallId) == Some(name))
}

#[tokio::test]
async fn a_panic_costs_the_call_it_touched_and_no_other_however_its_end_fails() {
    // The step; the end of the call as well; taking the call in again as well.
    for (also, times) in [("call/step", 1), ("call/finish", 1), ("call/adopt", 1)] {
        let house = House::open().await;
        let (touched, _) = (house.call("touched").await, house.call("other").await);
        failpoint::arm("call/step", 1);
        failpoint::arm(also, times);
        let bad = house.within("BYE", "touched", 2, &touched).await;
        let reason = house.let_go("touched").await;
        assert!(reason.contains("cause=41"), "{also}: {reason}");
        assert_eq!((failpoint::left("call/step"), failpoint::left(also)), (0, 0));
        assert!(house.counted("tandem_engine_panics_total 1"), "{also}");
        // Its sender repeats what made the step fail: it is not given again.
        house.say(&bad).await;
        // The other waits on and is hung up by its own timer, two seconds after it came.
        let reason = house.let_go("other").await;
        assert!(reason.contains("cause=16"), "{also}: {reason}");
        assert!(house.counted("tandem_sip_dropped_total{reason=\"poison\"} 1"), "{also}");
        let records = house.records(2).await;
        assert_eq!((records[0].0.as_str(), records[1].0.as_str()), ("failed", "overflow"), "{also}");
        assert!(records[0].1.contains("internal error"), "{also}: {records:?}");
        let replays = house.replays();
        assert!(replays.len() == 1 && replays[0].contains("BYE sip:"), "{replays:?}");
        assert!(replays[0].contains("a test armed call/step"), "{replays:?}");
        // Nothing is left behind: both channels take calls again.
        house.call("third").await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_node_whose_records_cannot_be_taken_in_goes_on_with_new_calls() {
    let house = House::open().await;
    let to = house.call("lost").await;
    house.call("another").await;
    failpoint::arm("call/step", 1);
    failpoint::arm("call/adopt", 1_000);
    house.within("BYE", "lost", 2, &to).await;
    // The engine that is made anew knows no such call.
    house.within("INFO", "lost", 3, &to).await;
    house.hear(|message| is_answer(message, "lost", 481)).await;
    failpoint::arm("call/adopt", 0);
    assert!(house.counted("tandem_engine_panics_total 1"));
    house.call("new").await;
    house.close().await;
}

#[tokio::test]
async fn a_timer_that_fails_again_and_again_ends_its_call_and_rests() {
    let house = House::open().await;
    house.call("touched").await;
    // The queue's time-out of two seconds panics, and ending the call as well.
    failpoint::arm("call/step", 2);
    let reason = house.let_go("touched").await;
    assert!(reason.contains("cause=41"), "{reason}");
    assert!(house.counted("tandem_engine_panics_total 1"));
    assert!(house.replays()[0].contains("a timer"));
    house.close().await;
}

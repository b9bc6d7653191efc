//! Whoever is not one of us, and whatever is not SIP.

use std::time::Duration;

use crate::support::phone::{Manner, Phone, Stand};
use crate::support::sip::{Message, Wire, fresh};
use crate::support::tandem::{House, Tandem};
use crate::support::wait::until;
use serde_json::json;

const LINE: &str = "sip:+380441234567@tandem.local";
const GATEWAY: &str =
    "name = \"gsm-1\"\nkind = \"gateway\"\npassword = \"right\"\ndigest = [\"MD5\"]\nchannels = 4\n";

fn sdp(formats: &str, maps: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP {formats}\r\n{maps}"
    )
}

fn pcma() -> String {
    sdp("8", "a=rtpmap:8 PCMA/8000\r\n")
}

const IS_SDP: &str = "Content-Type: application/sdp\r\n";

/// An answer without what differs from request to request.
fn shape(answer: &Message) -> (u16, Vec<String>) {
    (answer.status(), answer.headers.iter().map(|(name, _)| name.clone()).collect())
}

#[tokio::test]
async fn a_stranger_gets_401_or_403_and_nothing_else_and_cannot_tell_who_exists() {
    let tandem = {
        let mut tandem = Tandem::prepare(House::new().trunk(GATEWAY), 20);
        tandem.users("supervisor", &["chief"]);
        tandem.up().await;
        tandem
    };
    let chief = tandem.log_in("chief").await;
    let wire = Wire::to(tandem.sip).await;
    // Neither with the name of a trunk in From, nor with a name that nobody has.
    let mut shapes = Vec::new();
    for from in ["nobody", "+380671112233"] {
        let call = fresh("stranger");
        let answer = wire.ask(&wire.request("INVITE", LINE, from, &call, 1, IS_SDP, &pcma())).await;
        assert_eq!(answer.status(), 401, "{}", answer.start);
        shapes.push(shape(&answer));
    }
    assert_eq!(shapes[0], shapes[1]);
    for (user, password) in [("gsm-1", "wrong"), ("nobody", "right")] {
        let answer = wire.register(user, password).await;
        assert_eq!(answer.status(), 403, "{user}: {}", answer.start);
    }
    for method in ["MESSAGE", "REFER", "SUBSCRIBE"] {
        let answer = wire.ask(&wire.request(method, LINE, "nobody", &fresh("odd"), 1, "", "")).await;
        assert!([401, 403].contains(&answer.status()), "{method}: {}", answer.start);
    }
    assert_eq!(chief.calls().await, Vec::<serde_json::Value>::new());
    assert_eq!(chief.get("/history").await["total"], 0);
    let trunks = chief.get("/trunks").await;
    assert_eq!(trunks[0]["state"], "down", "{trunks}");
    // The twin: the right password registers, and then the same INVITE is a call.
    assert_eq!(wire.register("gsm-1", "right").await.status(), 200);
    until("the trunk is up", || async { (chief.get("/trunks").await[0]["state"] == "up").then_some(()) })
        .await;
    let answer =
        wire.ask(&wire.request("INVITE", LINE, "+380671112233", &fresh("known"), 1, IS_SDP, &pcma())).await;
    assert_eq!(answer.status(), 200, "{}", answer.start);
    chief.call_in("greeting").await;
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_as_the_rfc_says_and_nonsense_is_dropped() {
    let mut tandem = Tandem::prepare(House::new().trunk(GATEWAY), 20);
    tandem.users("supervisor", &["chief"]);
    tandem.up().await;
    let wire = Wire::to(tandem.sip).await;
    assert_eq!(wire.register("gsm-1", "right").await.status(), 200);
    for nonsense in [
        &b"\0\0\0\0"[..],
        b"INVITE",
        b"GET / HTTP/1.1\r\n\r\n",
        b"INVITE sip:x SIP/2.0\r\nVia: \r\n\r\n",
        &[0xff; 2_000],
    ] {
        wire.send(nonsense).await;
        wire.is_answered().await;
    }
    let ask = |method: &'static str, more: &'static str, body: String| {
        let wire = &wire;
        async move {
            wire.ask(&wire.request(method, LINE, "+380671112233", &fresh("bad"), 1, more, &body))
                .await
                .status()
        }
    };
    assert_eq!(ask("JUMP", "", String::new()).await, 501, "an unknown method");
    assert_eq!(ask("BYE", "", String::new()).await, 481, "BYE for nothing");
    assert_eq!(ask("CANCEL", "", String::new()).await, 481, "CANCEL for nothing");
    assert_eq!(ask("INVITE", "Require: teleport\r\nContent-Type: application/sdp\r\n", pcma()).await, 420);
    assert_eq!(ask("INVITE", "Content-Type: text/plain\r\n", "hello".to_owned()).await, 415);
    let g729 = sdp("18", "a=rtpmap:18 G729/8000\r\n");
    assert_eq!(ask("INVITE", IS_SDP, g729).await, 488, "no common codec");
    assert_eq!(ask("INVITE", IS_SDP, "v=0\r\nnonsense".to_owned()).await, 488, "no SDP at all");
    // The twin: the same INVITE with a codec that we speak is a call.
    let (call, answer) = answered(&wire, "+380671112233").await;
    assert_eq!(hang_up(&wire, &answer, &call, "+380671112233").await.status(), 200);
    wire.is_answered().await;
    assert!(tandem.is_running());
    let chief = tandem.log_in("chief").await;
    let results: Vec<_> = chief.history(2).await.iter().map(|call| call["result"].clone()).collect();
    assert_eq!(results, [json!("abandoned"), json!("rejected")]);
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_no_call_behind_wherever_his_call_stands() {
    let mut tandem = Tandem::prepare(House::new().trunk(GATEWAY), 40);
    tandem.users("supervisor", &["chief"]);
    tandem.users("operator", &["anna"]);
    tandem.up().await;
    let chief = tandem.log_in("chief").await;
    let wire = Wire::to(tandem.sip).await;
    assert_eq!(wire.register("gsm-1", "right").await.status(), 200);

    // CANCEL crosses the 200: the call was answered, the CANCEL comes too late, BYE ends it.
    let call = fresh("cross");
    let invite = wire.request("INVITE", LINE, "+380671110001", &call, 1, IS_SDP, &pcma());
    let cancel = cancel_of(&invite);
    wire.send(invite.as_bytes()).await;
    wire.send(cancel.as_bytes()).await;
    let (mut invited, mut cancelled) = (None, None);
    while invited.is_none() || cancelled.is_none() {
        let answer = wire.hear(Duration::from_secs(20)).await.expect("both requests are answered");
        match (answer.status(), answer.method()) {
            (100..200, _) => {}
            (_, "INVITE") => invited = Some(answer),
            (_, "CANCEL") => cancelled = Some(answer),
            _ => panic!("{answer:?}"),
        }
    }
    let (invited, cancelled) = (invited.unwrap(), cancelled.unwrap());
    assert!([200, 481].contains(&cancelled.status()), "{}", cancelled.start);
    match invited.status() {
        200 => {
            acknowledge(&wire, &invited, &call, LINE).await;
            assert_eq!(hang_up(&wire, &invited, &call, "+380671110001").await.status(), 200);
        }
        status => assert_eq!(status, 487, "{}", invited.start),
    }
    assert_eq!(chief.history(1).await[0]["result"], "abandoned");

    // He hangs up while he waits in the queue: nobody is there.
    let (call, answer) = answered(&wire, "+380671110002").await;
    chief.call_in("queued").await;
    assert_eq!(hang_up(&wire, &answer, &call, "+380671110002").await.status(), 200);
    assert_eq!(chief.history(2).await[0]["result"], "abandoned");

    // He hangs up while the operator's phone rings: it stops ringing.
    let anna = tandem.log_in("anna").await;
    let phone = Phone::start(tandem.web, &anna, Manner::Ring).await;
    anna.put("/me/state", json!({"state": "available"})).await;
    let (call, answer) = answered(&wire, "+380671110003").await;
    let rings = phone.last_is(Stand::Ringing).await;
    assert!(rings.invite.header("From").contains("+380671110003"), "{:?}", rings.invite);
    assert_eq!(rings.invite.header("X-Tandem-Queue"), "orders");
    chief.call_in("ringing").await;
    assert_eq!(hang_up(&wire, &answer, &call, "+380671110003").await.status(), 200);
    phone.last_is(Stand::Over).await;
    let last = chief.history(3).await[0].clone();
    assert_eq!(
        (&last["result"], &last["id"]),
        (&json!("abandoned"), &json!(rings.invite.header("X-Tandem-Call")))
    );
    // The twin: one who waits is answered, and his BYE ends the operator's leg.
    let (call, answer) = answered(&wire, "+380671110004").await;
    phone.last_is(Stand::Ringing).await;
    phone.answer();
    phone.last_is(Stand::Up).await;
    chief.call_in("talking").await;
    assert_eq!(hang_up(&wire, &answer, &call, "+380671110004").await.status(), 200);
    phone.last_is(Stand::Over).await;
    let last = chief.history(4).await[0].clone();
    assert_eq!((&last["result"], &last["operator"]), (&json!("answered"), &json!("anna")));
    chief.no_calls().await;
}

fn cancel_of(invite: &str) -> String {
    let text = invite.replacen("INVITE", "CANCEL", 1).replace("CSeq: 1 INVITE", "CSeq: 1 CANCEL");
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let keep = |line: &&str| !line.starts_with("Content-") && !line.starts_with("Contact");
    head.split("\r\n").filter(keep).map(|line| format!("{line}\r\n")).collect::<String>()
        + "Content-Length: 0\r\n\r\n"
}

/// A call of the gateway, answered (by the greeting) and acknowledged.
async fn answered(wire: &Wire, from: &str) -> (String, Message) {
    let call = fresh("call");
    let answer = wire.ask(&wire.request("INVITE", LINE, from, &call, 1, IS_SDP, &pcma())).await;
    assert_eq!(answer.status(), 200, "{}", answer.start);
    acknowledge(wire, &answer, &call, from).await;
    (call, answer)
}

async fn acknowledge(wire: &Wire, answer: &Message, call: &str, from: &str) {
    wire.send(within(wire, "ACK", 1, answer, call, from).as_bytes()).await;
}

async fn hang_up(wire: &Wire, answer: &Message, call: &str, from: &str) -> Message {
    wire.ask(&within(wire, "BYE", 2, answer, call, from)).await
}

/// A request inside the dialog that `answer` made.
fn within(wire: &Wire, method: &str, cseq: u32, answer: &Message, call: &str, from: &str) -> String {
    let target = answer.uri_of("Contact");
    let text = wire.request(method, &target, from, call, cseq, "", "");
    let replaced = text.split("\r\n").map(|line| match line {
        line if line.starts_with("To:") => format!("To: {}", answer.header("To")),
        line if line.starts_with("From:") => format!("From: {}", answer.header("From")),
        line => line.to_owned(),
    });
    replaced.collect::<Vec<_>>().join("\r\n")
}

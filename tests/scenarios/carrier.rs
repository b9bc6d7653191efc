//! Calls that the operator makes: what he hears and reads of the carrier.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use crate::support::browser::{Browser, can_browse};
use crate::support::peers::{need, stage};
use crate::support::ports::Block;
use crate::support::rtp::{Tone, wanted_at};
use crate::support::sip::{Message, Wire, fresh};
use crate::support::sipp::Sipp;
use crate::support::sound::write_alaw;
use crate::support::tandem::{House, Tandem};
use crate::support::wait::never;

const RINGING_HZ: u32 = 425;
const FAR_END_HZ: u32 = 700;

#[tokio::test]
async fn the_operator_hears_the_carrier_before_the_answer_and_busy_in_words_and_tone() {
    if !(can_browse() && need(&["sipp"])) {
        return;
    }
    let _place = stage().await;
    let at = Block::of(2).at(0);
    let carrier = format!(
        "name = \"carrier\"\nkind = \"peer\"\nserver = \"127.0.0.1:{at}\"\naccept_from = [\"127.0.0.1/32\"]\nchannels = 4\n"
    );
    let mut tandem = Tandem::prepare(House::new().trunk(&carrier), 60);
    tandem.users("supervisor", &["chief"]);
    tandem.users("operator", &["anna"]);
    tandem.up().await;
    write_alaw(&tandem.path("early.alaw"), f64::from(RINGING_HZ), 20_000);
    write_alaw(&tandem.path("voice.alaw"), f64::from(FAR_END_HZ), 20_000);
    let chief = tandem.log_in("chief").await;
    let events = chief.events().await;
    let mut anna = Browser::start(&tandem).await;
    anna.starts_shift(&format!("http://{}", tandem.web), "anna").await;

    // 183 with the carrier's own tone; the answer comes after 8 s, when it was heard long ago.
    let far = Sipp::wait_for_calls(&tandem, "carrier_early", at, &["-m", "1", "-d", "8000"]);
    anna.fill("Number to call", "+380671234567").await;
    anna.click("Call").await;
    anna.hears(RINGING_HZ).await;
    let call = chief.calls().await[0].clone();
    assert_eq!((&call["state"], &call["answered_at"]), (&json!("ringing"), &json!(null)), "{call}");
    anna.reads("region", "Call", "Dialling").await;
    events.wait("call.early_media", |_| true).await;
    anna.hears(FAR_END_HZ).await;
    anna.reads("region", "Call", "Talking").await;
    let call = chief.call_in("talking").await;
    assert!(call["answered_at"].is_string(), "{call}");
    anna.click("Hang up").await;
    far.succeeds(30).await;
    let record = chief.history(1).await[0].clone();
    assert_eq!((&record["result"], &record["direction"]), (&json!("answered"), &json!("out")), "{record}");

    // 486: busy in words and as a tone, and then the line is free by itself.
    let far = Sipp::wait_for_calls(&tandem, "carrier_busy", at, &["-m", "1"]);
    anna.fill("Number to call", "+380671234568").await;
    anna.click("Call").await;
    anna.reads("region", "Call", "Carrier: busy").await;
    // 425 Hz again, now in pieces: no announcement and no voice.
    events.wait("tone", |event| event.to_string().contains("busy")).await;
    let heard = anna.order(json!({"do": "cadence", "hz": RINGING_HZ})).await;
    assert!(heard["on"].as_u64() >= Some(2) && heard["off"].as_u64() >= Some(2), "{heard}");
    far.succeeds(30).await;
    anna.gone("button", "Hang up").await;
    chief.no_calls().await;
    let record = chief.history(2).await[0].clone();
    assert_eq!((&record["result"], &record["cause"]["q850"]), (&json!("busy"), &json!(17)), "{record}");
    assert_eq!(record["answered_at"], json!(null), "{record}");
    anna.close().await;
}

/// A carrier's next request of this kind; others are answered, repeats passed over.
async fn asked(wire: &Wire, method: &str) -> Message {
    loop {
        let message = wire.hear(Duration::from_secs(30)).await.expect("a request of Tandem");
        if message.status() == 0 && message.method() == method {
            return message;
        }
        if message.status() == 0 && message.method() == "OPTIONS" {
            wire.send(message.answer("200 OK", "", "", "").as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn a_carrier_that_sounds_after_a_bare_180_is_heard_and_nobody_else_is() {
    if !can_browse() {
        return;
    }
    let _place = stage().await;
    let at = Block::of(2).at(0);
    let carrier = format!(
        "name = \"carrier\"\nkind = \"peer\"\nserver = \"127.0.0.1:{at}\"\naccept_from = [\"127.0.0.1/32\"]\nchannels = 4\n"
    );
    let mut tandem = Tandem::prepare(House::new().trunk(&carrier), 60);
    tandem.users("supervisor", &["chief"]);
    tandem.users("operator", &["anna"]);
    tandem.up().await;
    let wire = Wire::from_port(at, tandem.sip).await;
    let chief = tandem.log_in("chief").await;
    let events = chief.events().await;
    let mut anna = Browser::start(&tandem).await;
    anna.starts_shift(&format!("http://{}", tandem.web), "anna").await;
    anna.fill("Number to call", "+380671234567").await;
    anna.click("Call").await;
    let invite = asked(&wire, "INVITE").await;
    let (tag, contact) = (fresh("far"), format!("Contact: <sip:far@{}>\r\n", wire.own));
    wire.send(invite.answer("180 Ringing", &tag, &contact, "").as_bytes()).await;
    events.wait("call.ringing", |_| true).await;

    // Somebody else sends to the port that the carrier was offered.
    let stranger = Tone::play(1_300, IpAddr::from([127, 0, 0, 2]), wanted_at(&invite)).await;
    let early = || async { events.find("call.early_media", |_| true) };
    never(Duration::from_secs(2), "a stranger is taken for the carrier", early).await;
    let heard = anna.order(json!({"do": "cadence", "hz": 1_300})).await;
    assert_eq!(heard["on"], json!(0), "a stranger is heard: {heard}");

    // The carrier, without any description; the stranger goes on and changes nothing.
    let voice = Tone::play(FAR_END_HZ, IpAddr::from([127, 0, 0, 1]), wanted_at(&invite)).await;
    anna.hears(FAR_END_HZ).await;
    events.wait("call.early_media", |_| true).await;
    let call = chief.calls().await[0].clone();
    assert_eq!((&call["state"], &call["answered_at"]), (&json!("ringing"), &json!(null)), "{call}");

    let busy = invite.answer("486 Busy Here", &tag, "", "");
    wire.send(busy.as_bytes()).await;
    asked(&wire, "ACK").await;
    anna.reads("region", "Call", "Carrier: busy").await;
    drop((stranger, voice));
    anna.click("Hang up").await;
    chief.no_calls().await;
    anna.close().await;
}

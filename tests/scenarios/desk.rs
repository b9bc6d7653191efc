//! An operator's working day at the real desk in a real browser, a GSM gateway on the other side.

use serde_json::json;

use crate::support::baresip::{Baresip, CALLER_HZ};
use crate::support::browser::{Browser, OPERATOR_HZ, can_browse};
use crate::support::peers::{need, stage};
use crate::support::proxy::Cable;
use crate::support::sound::story;
use crate::support::tandem::{House, Tandem};
use crate::support::wait::until;

// baresip 1.0.0 gives up at a SHA-256 challenge that stands before the one it could answer.
const GATEWAY: &str = "
    name = \"gsm-1\"
    kind = \"gateway\"
    password = \"gsm-secret\"
    digest = [\"MD5\"]
    channels = 4
    numbers = [\"+380441234567\"]
    caller_from = [\"P-Asserted-Identity\", \"From\"]
";
/// What callers hear of the house: the greeting, and the music of the queue and of hold.
const GREETING_HZ: u32 = 850;
const MUSIC_HZ: u32 = 600;
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number")]
const VOICE_HZ: u32 = OPERATOR_HZ as u32;

fn house() -> House {
    at(House::new().outside())
}

/// The same with a gateway as behind NAT: baresip writes an address into its description that its sound
/// does not come from.
fn house_behind_nat() -> House {
    at(House::new())
}

fn at(house: House) -> House {
    house.trunk(GATEWAY).tone("welcome.wav", f64::from(GREETING_HZ), 1_200).tone(
        "hold.wav",
        f64::from(MUSIC_HZ),
        20_000,
    )
}

async fn opened(house: House) -> Tandem {
    let mut tandem = Tandem::prepare(house, 60);
    tandem.users("supervisor", &["chief"]);
    tandem.users("operator", &["anna"]);
    tandem.up().await;
    tandem
}

#[tokio::test]
async fn a_call_is_greeted_queued_answered_heard_held_and_becomes_an_order() {
    if !(can_browse() && need(&["baresip"])) {
        return;
    }
    let _place = stage().await;
    let tandem = opened(house()).await;
    let chief = tandem.log_in("chief").await;
    let mut gateway = Baresip::start(&tandem, "gsm-1", "gsm-secret").await;
    let up = || async { (chief.get("/trunks").await[0]["state"] == "up").then_some(()) };
    until("the gateway is registered", up).await;

    // Nobody is at a desk yet: greeting, then music.
    gateway.dial("+380441234567").await;
    gateway.told("CALL_ESTABLISHED", 1).await;
    chief.call_in("queued").await;
    let mut anna = Browser::start(&tandem).await;
    anna.starts_shift(&format!("http://{}", tandem.web), "anna").await;
    anna.reads("region", "Call", "Talking").await;
    let call = chief.call_in("talking").await;
    assert_eq!(call["operator"], "anna", "{call}");
    anna.hears(CALLER_HZ).await;

    // Hold: the operator's ear is silent, the caller has music; resume: both are back.
    anna.click("Hold").await;
    chief.call_in("held").await;
    anna.hears_nothing().await;
    anna.click("Resume").await;
    chief.call_in("talking").await;
    anna.hears(CALLER_HZ).await;
    let stats = anna.stats().await;
    assert!(stats["received"].as_u64().unwrap() > 50 && stats["lost"] == 0, "{stats}");

    // The card is there since the phone rang; it is filled and saved while they talk, and goes.
    anna.fill("Pickup", "Khreshchatyk 1").await;
    anna.fill("Destination", "Boryspil").await;
    anna.order(json!({"do": "double", "role": "button", "name": "Save order"})).await;
    anna.gone("region", "Order").await;
    assert!(anna.there("button", "Hang up").await, "the call goes on");

    // The operator hangs up.
    anna.click("Hang up").await;
    gateway.told("CALL_CLOSED", 1).await;
    anna.hears_nothing().await;
    let record = chief.history(1).await[0].clone();
    assert_eq!(
        (&record["result"], &record["ended_by"]),
        (&json!("answered"), &json!("operator")),
        "{record}"
    );
    chief.outbox_empty().await;
    assert!(chief.history(1).await[0]["order"].is_string());
    let heard = story(&gateway.recording(0), &[GREETING_HZ, MUSIC_HZ, VOICE_HZ, CALLER_HZ]);
    let heard: Vec<u32> = heard.into_iter().filter(|hz| *hz != 0).collect();
    assert_eq!(heard, [GREETING_HZ, MUSIC_HZ, VOICE_HZ, MUSIC_HZ, VOICE_HZ], "what the caller heard");

    // The second call: she waits at the desk, it is answered by itself; the caller hangs up.
    anna.reads("region", "Call", "Available").await;
    gateway.dial("+380441234567").await;
    anna.reads("region", "Call", "Talking").await;
    anna.hears(CALLER_HZ).await;
    assert!(anna.there("region", "Order").await);
    gateway.hang_up().await;
    anna.gone("button", "Hang up").await;
    let record = chief.history(2).await[0].clone();
    assert_eq!((&record["result"], &record["ended_by"]), (&json!("answered"), &json!("caller")), "{record}");
    assert_eq!(record["order"], json!(null), "a card that nobody saved is no order");
    anna.close().await;
}

#[tokio::test]
async fn a_pulled_cable_takes_no_sound_and_the_end_of_the_call_still_arrives() {
    if !(can_browse() && need(&["baresip"])) {
        return;
    }
    let _place = stage().await;
    // The gateway stands behind NAT here, the other scene's does not.
    let tandem = opened(house_behind_nat()).await;
    let chief = tandem.log_in("chief").await;
    let mut gateway = Baresip::start(&tandem, "gsm-1", "gsm-secret").await;
    let cable = Cable::to(tandem.web).await;
    let mut anna = Browser::start(&tandem).await;
    anna.starts_shift(&format!("http://{}", cable.address), "anna").await;
    until("the gateway is registered", || async {
        (chief.get("/trunks").await[0]["state"] == "up").then_some(())
    })
    .await;
    gateway.dial("+380441234567").await;
    anna.reads("region", "Call", "Talking").await;
    anna.hears(CALLER_HZ).await;
    let before = anna.stats().await;
    let id = chief.call_in("talking").await["id"].clone();
    let events = chief.events().await;

    cable.pull();
    events
        .wait("operator.state", |event| event["operator"]["phone"] == "lost" || event["phone"] == "lost")
        .await;
    anna.hears(CALLER_HZ).await;
    let after = anna.stats().await;
    assert!(
        after["received"].as_u64() > before["received"].as_u64() && after["lost"] == 0,
        "{before} {after}"
    );
    assert_eq!(after["connections"], before["connections"], "the sound is the same connection as before");
    for light in ["Data", "Phone"] {
        anna.reads("status", light, "ok").await;
    }
    assert_eq!(chief.call_in("talking").await["id"], id);

    // The gateway's BYE reaches the phone by its new line.
    gateway.hang_up().await;
    anna.gone("button", "Hang up").await;
    anna.hears_nothing().await;
    let record = chief.history(1).await[0].clone();
    assert_eq!((&record["result"], &record["id"]), (&json!("answered"), &id), "{record}");
    anna.close().await;
}

//! JsSIP as it comes, with its session timers: the family of calls that are cut in their second minute.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::baresip::{Baresip, CALLER_HZ};
use crate::support::browser::{Browser, OPERATOR_HZ, can_browse};
use crate::support::peers::{need, stage};
use crate::support::sound::is_tone;
use crate::support::tandem::{House, PASSWORD, Tandem};
use crate::support::wait::{until, until_within};

/// JsSIP asks at 45 s; unanswered it would hang up at 77 s, and a forgotten refresh ends a call at 66 or 90 s.
const LONG: Duration = Duration::from_secs(130);

#[tokio::test]
async fn a_call_of_130_seconds_with_stock_jssip_is_still_heard_both_ways() {
    if !(can_browse() && need(&["baresip"])) {
        return;
    }
    // baresip takes calls only to the user that it is registered as.
    let house = House::new().outside().trunk(
        "name = \"gsm-1\"\nkind = \"gateway\"\nusername = \"380671234567\"\npassword = \"gsm-secret\"\ndigest = [\"MD5\"]\nchannels = 4\n",
    );
    let mut tandem = Tandem::prepare(house, 60);
    tandem.users("supervisor", &["chief"]);
    tandem.users("operator", &["anna"]);
    tandem.up().await;
    let chief = tandem.log_in("chief").await;
    let (gateway, mut page) = {
        let _place = stage().await;
        (Baresip::start(&tandem, "380671234567", "gsm-secret").await, Browser::start(&tandem).await)
    };
    page.open(&format!("http://{}/healthz", tandem.web)).await;
    page.order(json!({"do": "stock"})).await;
    let log_in = json!({"username": "anna", "password": PASSWORD}).to_string();
    let state = json!({"state": "available"}).to_string();
    let post = |method: &str, path: &str, body: &str| {
        format!(
            "fetch('/api/v1{path}', {{method: '{method}', headers: {{'content-type': 'application/json'}}, body: {body:?}}}).then((a) => a.status)"
        )
    };
    assert_eq!(page.run(&post("POST", "/session", &log_in)).await, 200);
    assert_eq!(page.run("stock.start()").await, json!(true), "JsSIP is registered");
    assert_eq!(page.run(&post("PUT", "/me/state", &state)).await.as_u64().unwrap() / 100, 2);
    until("the gateway is registered", || async {
        (chief.get("/trunks").await[0]["state"] == "up").then_some(())
    })
    .await;
    // Whoever calls asks for the timer: JsSIP wants 90 s and refreshes by itself after 45.
    page.run("stock.call('+380671234567')").await;
    let id = chief.call_in("talking").await["id"].clone();
    let began = Instant::now();
    page.hears(CALLER_HZ).await;
    let gone = |call: &serde_json::Value| call["state"] != "talking" || call["id"] != id;
    until_within(LONG + Duration::from_secs(60), "130 s of talk", || async {
        let calls = chief.calls().await;
        assert!(calls.len() == 1 && !gone(&calls[0]), "cut after {:?}: {calls:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
        (calls[0]["talk_ms"].as_u64() >= u64::try_from(LONG.as_millis()).ok()).then_some(())
    })
    .await;
    page.hears(CALLER_HZ).await;
    // Its UPDATE was answered, at 45 s at the latest.
    let updates = page.run("stock.seen.updates").await;
    assert!(updates.as_array().unwrap().contains(&json!(200)), "{updates}");
    assert_eq!(page.run("stock.seen.ended").await, json!([]));
    let stats = page.stats().await;
    assert!(stats["received"].as_u64() > Some(6_000) && stats["lost"] == 0, "{stats}");
    page.run("stock.hangUp()").await;
    gateway.told("CALL_CLOSED", 1).await;
    let heard = gateway.recording(0);
    let end = &heard[heard.len() - 8_000 * 4..heard.len() - 8_000 * 2];
    let tone = end.chunks_exact(800).filter(|window| is_tone(window, OPERATOR_HZ)).count();
    assert!(tone >= 17, "{tone} of 20 windows before the end hold the operator's voice");
    let record = chief.history(1).await[0].clone();
    assert_eq!(
        (&record["result"], &record["ended_by"]),
        (&json!("answered"), &json!("operator")),
        "{record}"
    );
    page.close().await;
}

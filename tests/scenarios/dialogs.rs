//! What SIP can do within a call, with SIPp at both ends.

use serde_json::json;

use crate::support::peers::{need, stage};
use crate::support::sip::Wire;
use crate::support::sipp::Sipp;
use crate::support::tandem::{House, PASSWORD, Tandem};

const PLAN: &str = "
    [[route]]
    name = \"Straight on\"
    when = { from = \"trunk:gsm-1\" }
    do = [{ dial = \"+380671234567\", over = [\"carrier\"] }]
    [[route]]
    name = \"Out\"
    when = { from = \"operators\", number = \"any\" }
    do = [{ dial = \"dialled\", over = [\"carrier\"] }]
";

const QUEUE: &str = "
    [[route]]
    name = \"Order line\"
    when = { from = \"trunk:gsm-1\" }
    do = [{ queue = \"orders\", music = \"hold.wav\" }]
    [[route]]
    name = \"Out\"
    when = { from = \"operators\", number = \"any\" }
    do = [{ dial = \"dialled\", over = [\"carrier\"] }]
";

/// A house between the gateway `gsm-1` and a carrier at the port that it says.
fn house(plan: &str) -> (House, u16) {
    let at = crate::support::ports::Block::of(2).at(0);
    let house = House::new()
        .trunk("name = \"gsm-1\"\nkind = \"gateway\"\npassword = \"secret\"\ndigest = [\"MD5\"]\nchannels = 4\n")
        .trunk(&format!(
            "name = \"carrier\"\nkind = \"peer\"\nserver = \"127.0.0.1:{at}\"\naccept_from = [\"127.0.0.1/32\"]\nchannels = 4\n"
        ))
        .dialplan(plan);
    (house, at)
}

async fn gateway(tandem: &Tandem) -> u16 {
    let at = tandem.ports.at(0);
    let words = ["-m", "1", "-s", "gsm-1", "-au", "gsm-1", "-ap", "secret"];
    Sipp::start(tandem, "register", at, &words).succeeds(30).await;
    at
}

fn talks(ms: &str) -> [&str; 8] {
    ["-m", "1", "-d", ms, "-s", "gsm-1", "-key", "prefix"]
}

#[tokio::test]
async fn ringing_is_confirmed_by_prack_and_a_call_may_come_without_an_offer() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let (house, carrier_at) = house(PLAN);
    let mut tandem = Tandem::prepare(house, 60);
    tandem.users("supervisor", &["chief"]);
    tandem.up().await;
    let at = gateway(&tandem).await;
    for caller in ["gateway_call", "gateway_late_offer"] {
        let carrier = Sipp::wait_for_calls(&tandem, "carrier_prack", carrier_at, &["-m", "1"]);
        Sipp::start(&tandem, caller, at, &[&talks("1000")[..], &["67"]].concat()).succeeds(40).await;
        carrier.succeeds(20).await;
    }
    let chief = tandem.log_in("chief").await;
    chief.no_calls().await;
    assert_eq!(chief.count("answered").await, 2);
}

#[tokio::test]
async fn of_two_phones_that_answer_one_is_kept_and_a_moved_number_is_called_over_our_own_trunk() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let (house, carrier_at) = house(PLAN);
    let mut tandem = Tandem::prepare(house, 60);
    tandem.users("supervisor", &["chief"]);
    tandem.up().await;
    let at = gateway(&tandem).await;
    let carrier = Sipp::wait_for_calls(&tandem, "carrier_forks", carrier_at, &["-m", "1"]);
    Sipp::start(&tandem, "gateway_call", at, &[&talks("1500")[..], &["67"]].concat()).succeeds(40).await;
    carrier.succeeds(20).await;
    let chief = tandem.log_in("chief").await;
    chief.no_calls().await;
    assert_eq!(chief.get("/history").await["total"], 1, "one call, one record");
    // 302 with a Contact at another machine: only the digits count, and only our trunk is called.
    let carrier = Sipp::wait_for_calls(&tandem, "carrier_moved", carrier_at, &["-m", "2"]);
    Sipp::start(&tandem, "gateway_call", at, &[&talks("1500")[..], &["68"]].concat()).succeeds(40).await;
    carrier.succeeds(20).await;
    assert_eq!(chief.count("answered").await, 2);
}

#[tokio::test]
async fn a_telephone_hands_its_caller_over_by_refer() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let (house, carrier_at) = house(QUEUE);
    let mut tandem = Tandem::prepare(house, 60);
    tandem.users("supervisor", &["chief"]);
    tandem.sip_phones(&["petro"]);
    tandem.up().await;
    let (at, phone_at) = (gateway(&tandem).await, tandem.ports.at(5));
    let wire = Wire::from_port(phone_at, tandem.sip).await;
    assert_eq!(wire.register("petro", PASSWORD).await.status(), 200);
    drop(wire);
    let chief = tandem.log_in("chief").await;
    let events = chief.events().await;
    chief.put("/operators/petro/state", json!({"state": "available"})).await;
    let phone = Sipp::wait_for_calls(&tandem, "phone_refers", phone_at, &["-m", "1"]);
    let carrier = Sipp::wait_for_calls(&tandem, "carrier_prack", carrier_at, &["-m", "1"]);
    let caller = Sipp::start(&tandem, "gateway_call", at, &[&talks("6000")[..], &["67"]].concat());
    events.wait("call.transferred", |_| true).await;
    phone.succeeds(30).await;
    // The operator is free while his caller talks on.
    assert_eq!(chief.calls().await.len(), 1);
    caller.succeeds(40).await;
    carrier.succeeds(20).await;
    let record = chief.history(1).await[0].clone();
    assert_eq!(record["result"], json!("transferred"), "{record}");
}

#[tokio::test]
async fn a_call_of_three_minutes_from_a_plain_old_gateway_is_refreshed_and_not_cut() {
    if !need(&["sipp"]) {
        return;
    }
    let (house, carrier_at) = house(PLAN);
    // SIPp sends no sound here: that alone would end the call after a minute.
    let mut tandem = Tandem::prepare(house.set("media.dead_after", "\"300s\""), 60);
    tandem.users("supervisor", &["chief"]);
    let (caller, carrier) = {
        let _place = stage().await;
        tandem.up().await;
        let at = gateway(&tandem).await;
        let carrier = Sipp::wait_for_calls(&tandem, "carrier_answers", carrier_at, &["-m", "1"]);
        let words = [&talks("20000")[..], &["67"]].concat();
        (Sipp::start(&tandem, "gateway_three_minutes", at, &words), carrier)
    };
    caller.succeeds(260).await;
    carrier.succeeds(20).await;
    let chief = tandem.log_in("chief").await;
    chief.no_calls().await;
    let record = chief.history(1).await[0].clone();
    assert_eq!(record["result"], json!("answered"), "{record}");
    assert!(record["talk_ms"].as_u64() >= Some(180_000), "{record}");
}

//! Many calls, and calls over a bad line: SIPp is the gateway.

use serde_json::json;

use crate::support::peers::{need, stage};
use crate::support::phone::{Manner, Phone, Stand};
use crate::support::sip::Wire;
use crate::support::sipp::Sipp;
use crate::support::tandem::{House, PASSWORD, Tandem};

fn gateway(name: &str) -> String {
    format!(
        "name = \"{name}\"\nkind = \"gateway\"\npassword = \"secret-{name}\"\ndigest = [\"MD5\"]\nchannels = 40\n"
    )
}

const STRAIGHT_TO_THE_QUEUE: &str = "
    [[route]]
    name = \"Order line\"
    when = { from = \"trunk:*\" }
    do = [{ queue = \"orders\", music = \"hold.wav\" }]
";

async fn register(tandem: &Tandem, name: &str, port: u16) {
    register_with(tandem, name, &format!("secret-{name}"), port).await;
}

async fn register_with(tandem: &Tandem, name: &str, password: &str, port: u16) {
    Sipp::start(tandem, "register", port, &["-m", "1", "-s", name, "-au", name, "-ap", password])
        .succeeds(30)
        .await;
}

/// A house with this many operators whose phones answer.
async fn staffed(house: House, rtp: u16, operators: &[&str], manner: Manner) -> (Tandem, Vec<Phone>) {
    let mut tandem = Tandem::prepare(house, rtp);
    tandem.users("supervisor", &["chief"]);
    tandem.users("operator", operators);
    tandem.up().await;
    let mut phones = Vec::new();
    for name in operators {
        let desk = tandem.log_in(name).await;
        phones.push(Phone::start(tandem.web, &desk, manner).await);
        desk.put("/me/state", json!({"state": "available"})).await;
    }
    (tandem, phones)
}

#[tokio::test]
async fn a_thousand_calls_to_sip_phones_leave_a_thousand_records() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    // SIPp answers the first challenge only, and knows MD5.
    let house = House::new()
        .trunk(&gateway("gsm-1"))
        .trunk(&gateway("gsm-2"))
        .queue("wrap_up", "\"0s\"")
        .set("sip.digest", "[\"MD5\"]")
        .set("log.level", "\"info\"")
        .dialplan(STRAIGHT_TO_THE_QUEUE);
    let operators = ["op-1", "op-2", "op-3", "op-4", "op-5", "op-6", "op-7", "op-8"];
    let mut tandem = Tandem::prepare(house, 2_000);
    tandem.users("supervisor", &["chief"]);
    tandem.sip_phones(&operators);
    tandem.up().await;
    let (one, two, phones) = (tandem.ports.at(0), tandem.ports.at(1), tandem.ports.at(2));
    register(&tandem, "gsm-1", one).await;
    register(&tandem, "gsm-2", two).await;
    let chief = tandem.log_in("chief").await;
    for name in operators {
        register_with(&tandem, name, PASSWORD, phones).await;
        chief.put(&format!("/operators/{name}/state"), json!({"state": "available"})).await;
    }
    let phones = Sipp::wait_for_calls(&tandem, "phone_ends", phones, &["-m", "1000", "-d", "150"]);
    let common = ["-m", "500", "-r", "10", "-l", "30", "-max_retrans", "20"];
    let words = [&common[..], &["-s", "gsm-1", "-key", "prefix", "67"]].concat();
    let first = Sipp::start(&tandem, "gateway_hears_bye", one, &words);
    let words = [&common[..], &["-s", "gsm-2", "-key", "prefix", "68"]].concat();
    let second = Sipp::start(&tandem, "gateway_hears_bye", two, &words);
    first.succeeds(240).await;
    second.succeeds(240).await;
    phones.succeeds(30).await;
    chief.no_calls().await;
    assert_eq!(chief.count("answered").await, 1_000);
    assert_eq!(chief.get("/history").await["total"], 1_000);
    // Each of them worked, and each call is on one of them.
    let mut taken = 0;
    for name in operators {
        let his = chief.get(&format!("/history?operator={name}")).await["total"].as_u64().unwrap();
        assert!(his > 50, "{name} took {his} of 1,000");
        taken += his;
    }
    assert_eq!(taken, 1_000);
    let trunks = chief.get("/trunks").await;
    assert!(trunks.as_array().unwrap().iter().all(|trunk| trunk["busy"] == 0), "{trunks}");
    chief.outbox_empty().await;
}

#[tokio::test]
async fn callers_who_leave_and_callers_who_are_hung_up_on_each_leave_one_record() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let house = House::new()
        .trunk(&gateway("gsm-1"))
        .trunk(&gateway("gsm-2"))
        .queue("wrap_up", "\"0s\"")
        .set("log.level", "\"info\"")
        .dialplan(STRAIGHT_TO_THE_QUEUE);
    let names = ["op-1", "op-2", "op-3", "op-4", "op-5", "op-6", "op-7", "op-8"];
    let (tandem, phones) = staffed(house, 600, &names, Manner::AnswerAndEnd("+38068")).await;
    let (one, two) = (tandem.ports.at(0), tandem.ports.at(1));
    register(&tandem, "gsm-1", one).await;
    register(&tandem, "gsm-2", two).await;
    let common = ["-m", "150", "-r", "10", "-l", "30", "-aa", "-max_retrans", "20"];
    // The callers of one gateway hang up by themselves, those of the other are hung up on.
    let words = [&common[..], &["-d", "600", "-s", "gsm-1", "-key", "prefix", "67"]].concat();
    let first = Sipp::start(&tandem, "gateway_call", one, &words);
    let words = [&common[..], &["-s", "gsm-2", "-key", "prefix", "68"]].concat();
    let second = Sipp::start(&tandem, "gateway_hears_bye", two, &words);
    first.succeeds(240).await;
    second.succeeds(240).await;
    let chief = tandem.log_in("chief").await;
    chief.no_calls().await;
    let total = chief.history(300).await.len();
    assert_eq!(total, 100, "a page has 100 records");
    let (answered, abandoned) = (chief.count("answered").await, chief.count("abandoned").await);
    assert_eq!(answered + abandoned, 300);
    // Whoever is hung up on was answered; the others may have left before.
    assert!((150..=300).contains(&answered), "{answered}");
    assert_eq!(chief.get("/history?number=%2B38068&result=abandoned").await["total"], 0);
    // No phone thinks that it still talks, and none was rung for nothing more often than callers left.
    let rung: Vec<_> = phones.iter().flat_map(Phone::calls).collect();
    assert!(rung.iter().all(|call| call.stand == Stand::Over));
    let rung = u64::try_from(rung.len()).unwrap();
    assert!(rung >= answered && rung <= 300, "{rung} INVITEs to phones, {answered} answered calls");
    let trunks = chief.get("/trunks").await;
    assert!(trunks.as_array().unwrap().iter().all(|trunk| trunk["busy"] == 0), "{trunks}");
    chief.outbox_empty().await;
}

#[tokio::test]
async fn calls_over_a_line_that_loses_messages_are_each_answered_once() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let house =
        House::new().trunk(&gateway("gsm-1")).queue("wrap_up", "\"0s\"").dialplan(STRAIGHT_TO_THE_QUEUE);
    let (tandem, _phones) =
        staffed(house, 300, &["anna", "boris", "vira"], Manner::AnswerAndEnd("+38068")).await;
    let port = tandem.ports.at(0);
    register(&tandem, "gsm-1", port).await;
    let words = ["-m", "40", "-r", "8", "-l", "10", "-s", "gsm-1", "-key", "prefix", "68", "-lost", "12"];
    Sipp::start(&tandem, "gateway_hears_bye", port, &words).ends(120).await;
    let chief = tandem.log_in("chief").await;
    chief.no_calls().await;
    // SIPp counts a call as failed when it lost the last word of it; Tandem must know every one, once.
    let page = chief.history(40).await;
    let mut ids: Vec<_> = page.iter().map(|call| call["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40);
    assert!(page.iter().all(|call| call["result"] == "answered"), "{page:#?}");
}

#[tokio::test]
async fn an_operator_with_an_ordinary_sip_phone_takes_calls() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let house =
        House::new().trunk(&gateway("gsm-1")).queue("wrap_up", "\"0s\"").dialplan(STRAIGHT_TO_THE_QUEUE);
    let mut tandem = Tandem::prepare(house, 100);
    tandem.users("supervisor", &["chief"]);
    tandem.sip_phones(&["petro"]);
    tandem.up().await;
    let (gateway_at, phone_at) = (tandem.ports.at(0), tandem.ports.at(5));
    register(&tandem, "gsm-1", gateway_at).await;
    // SIPp would answer the first challenge only, which is SHA-256, and cannot: it takes calls after this.
    let wire = Wire::from_port(phone_at, tandem.sip).await;
    assert_eq!(wire.register("petro", "wrong").await.status(), 403);
    assert_eq!(wire.register("petro", PASSWORD).await.status(), 200);
    drop(wire);
    let phone = Sipp::wait_for_calls(&tandem, "phone_answers", phone_at, &["-m", "6"]);
    let chief = tandem.log_in("chief").await;
    chief.put("/operators/petro/state", json!({"state": "available"})).await;
    let words = ["-m", "6", "-l", "1", "-s", "gsm-1", "-key", "prefix", "67", "-d", "1500"];
    Sipp::start(&tandem, "gateway_call", gateway_at, &words).succeeds(60).await;
    phone.succeeds(30).await;
    let calls = chief.history(6).await;
    assert!(
        calls.iter().all(|call| call["result"] == "answered" && call["operator"] == "petro"),
        "{calls:#?}"
    );
}

#[tokio::test]
async fn a_caller_who_leaves_while_the_carrier_rings_takes_the_second_leg_down() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let carrier_at = crate::support::ports::Block::of(2).at(0);
    let house = House::new()
        .trunk(&gateway("gsm-1"))
        .trunk(&format!(
            "name = \"carrier\"\nkind = \"peer\"\nserver = \"127.0.0.1:{carrier_at}\"\naccept_from = [\"127.0.0.9/32\"]\nchannels = 4\n"
        ))
        .dialplan(
            "
            [[route]]
            name = \"Passed on\"
            when = { from = \"trunk:gsm-1\" }
            do = [{ dial = \"+380509998877\", over = [\"carrier\"], ring = \"60s\" }]
            ",
        );
    let (tandem, _) = staffed(house, 40, &[], Manner::Answer).await;
    let port = tandem.ports.at(0);
    register(&tandem, "gsm-1", port).await;
    let carrier = Sipp::wait_for_calls(&tandem, "carrier_rings", carrier_at, &["-m", "1"]);
    let words = ["-m", "1", "-s", "gsm-1", "-key", "prefix", "67", "-d", "1500"];
    Sipp::start(&tandem, "gateway_call", port, &words).succeeds(40).await;
    carrier.succeeds(40).await;
    let chief = tandem.log_in("chief").await;
    let call = chief.history(1).await[0].clone();
    assert_eq!(call["result"], "abandoned", "{call}");
    // The twin: where the far end is busy it is Tandem that ends the call.
    let carrier = Sipp::wait_for_calls(&tandem, "carrier_busy", carrier_at, &["-m", "1"]);
    Sipp::start(&tandem, "gateway_hears_bye", port, &words).succeeds(40).await;
    carrier.succeeds(40).await;
    let call = chief.history(2).await[0].clone();
    assert_eq!(call["result"], "busy", "{call}");
}

//! An order reaches the core exactly once, whatever happens to Tandem, to the core, and to people's fingers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::core::{Core, TOKEN};
use crate::support::desk::Desk;
use crate::support::phone::{Manner, Phone, Stand};
use crate::support::sip::{Message, Wire, fresh};
use crate::support::tandem::{House, Tandem};
use crate::support::wait::{never, until};

const LINE: &str = "sip:+380441234567@tandem.local";
const GATEWAY: &str = "name = \"gsm-1\"\nkind = \"gateway\"\npassword = \"right\"\ndigest = [\"MD5\"]\nchannels = 8\nnumbers = [\"+380441234567\"]\n";
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n";

/// A gateway that can place a call, one operator who answers it, and somebody who may look at everything.
struct Scene {
    tandem: Tandem,
    chief: Desk,
    anna: Desk,
    phone: Phone,
    wire: Wire,
}

impl Scene {
    async fn with(house: House) -> Self {
        let mut tandem = Tandem::prepare(house.trunk(GATEWAY).queue("wrap_up", "\"0s\""), 60);
        tandem.users("supervisor", &["chief"]);
        tandem.users("operator", &["anna"]);
        tandem.up().await;
        Self::of(tandem).await
    }

    async fn of(tandem: Tandem) -> Self {
        let (chief, anna) = (tandem.log_in("chief").await, tandem.log_in("anna").await);
        let phone = Phone::start(tandem.web, &anna, Manner::Answer).await;
        anna.put("/me/state", json!({"state": "available"})).await;
        let wire = Wire::to(tandem.sip).await;
        assert_eq!(wire.register("gsm-1", "right").await.status(), 200);
        Self { tandem, chief, anna, phone, wire }
    }

    /// A call that is talked; the caller hangs up. Returns the call and its card.
    async fn call(&self, from: &str) -> (String, String) {
        let (sip, answer) = self.talks(from).await;
        let call = self.chief.call_in("talking").await;
        assert_eq!(call["caller"], from, "{call}");
        self.ends(&sip, &answer).await;
        (call["id"].as_str().unwrap().to_owned(), call["card"].as_str().expect("a card").to_owned())
    }

    async fn talks(&self, from: &str) -> (String, Message) {
        let more = "Content-Type: application/sdp\r\n";
        let sip = fresh("order");
        let answer = self.wire.ask(&self.wire.request("INVITE", LINE, from, &sip, 1, more, SDP)).await;
        assert_eq!(answer.status(), 200, "{}", answer.start);
        self.wire.send(self.within("ACK", 1, &sip, &answer).as_bytes()).await;
        self.phone.last_is(Stand::Up).await;
        (sip, answer)
    }

    async fn ends(&self, sip: &str, answer: &Message) {
        assert_eq!(self.wire.ask(&self.within("BYE", 2, sip, answer)).await.status(), 200);
        self.phone.last_is(Stand::Over).await;
        self.chief.no_calls().await;
    }

    fn within(&self, method: &str, cseq: u32, sip: &str, answer: &Message) -> String {
        let text = self.wire.request(method, &answer.uri_of("Contact"), "x", sip, cseq, "", "");
        let line = |line: &str| match line.split(':').next().unwrap_or_default() {
            "To" => format!("To: {}", answer.header("To")),
            "From" => format!("From: {}", answer.header("From")),
            _ => line.to_owned(),
        };
        text.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n")
    }

    async fn submit(&self, card: &str, pickup: &str) -> (u16, Value) {
        let fields = json!({"fields": {"pickup": pickup, "destination": "Airport"}});
        self.anna.post(&format!("/cards/{card}/submit"), fields).await
    }
}

fn at(core: &Core) -> House {
    House::new()
        .set("orders.core", &core.base())
        .set("orders.token", &format!("\"{TOKEN}\""))
        .set("orders.timeout", "\"1s\"")
}

#[tokio::test]
async fn a_card_becomes_one_order_however_often_it_is_submitted() {
    let folder = tempfile::tempdir().unwrap();
    let mut core = Core::new(folder.path());
    core.up().await;
    let scene = Scene::with(at(&core)).await;
    let (call, card) = scene.call("+380671110001").await;
    // A double click, and a third one later.
    let (first, second) =
        tokio::join!(scene.submit(&card, "Khreshchatyk 1"), scene.submit(&card, "Khreshchatyk 1"));
    for (status, body) in [&first, &second] {
        assert_eq!((*status, &body["state"]), (200, &json!("accepted")), "{body}");
    }
    until("the core has the order", || async { (!core.orders().is_empty()).then_some(()) }).await;
    let (again, body) = scene.submit(&card, "Khreshchatyk 2").await;
    assert!(again == 200 || again == 404 || again == 409, "{again} {body}");
    scene.chief.outbox_empty().await;
    let orders = core.orders();
    assert_eq!(orders.len(), 1, "{orders:#?}");
    let order = &orders[0];
    assert_eq!(order["key"], json!(card), "the key is the card");
    assert_eq!(order["body"]["call_id"], json!(call));
    assert_eq!(order["body"]["caller"], "+380671110001");
    assert_eq!(order["body"]["operator"], "anna");
    assert_eq!(order["body"]["fields"]["pickup"], "Khreshchatyk 1");
    assert_eq!(core.events_of(&call), ["arrived", "answered", "ended"]);
    assert_eq!(scene.chief.history(1).await[0]["order"], order["id"]);
    // The twin: a card that nobody submits is no order.
    let (call, _) = scene.call("+380671110002").await;
    until("the core heard of the second call", || async { (core.events_of(&call).len() == 3).then_some(()) })
        .await;
    scene.chief.outbox_empty().await;
    assert_eq!(core.orders().len(), 1);
}

#[tokio::test]
async fn a_core_that_dies_and_comes_back_while_cards_are_submitted_gets_each_order_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut core = Core::new(folder.path());
    core.up().await;
    let scene = Scene::with(at(&core)).await;
    let mut cards = Vec::new();
    for number in 0..8 {
        let (_, card) = scene.call(&format!("+38067222000{number}")).await;
        // Now it is there, now it is not: killed in the middle of what it does.
        if number % 3 == 1 {
            core.down();
        }
        let (status, body) = scene.submit(&card, &format!("Street {number}")).await;
        assert_eq!(
            (status, &body["state"]),
            (200, &json!("accepted")),
            "the card leaves the desk all the same: {body}"
        );
        if number % 3 == 2 {
            core.up().await;
        }
        cards.push(card);
    }
    // It was killed before card 7 was submitted, and comes back now.
    assert!(scene.chief.get("/outbox").await["depth"].as_u64().unwrap() > 0);
    core.up().await;
    scene.chief.outbox_empty().await;
    let mut keys: Vec<String> =
        core.orders().iter().map(|order| order["key"].as_str().unwrap().to_owned()).collect();
    keys.sort();
    cards.sort();
    assert_eq!(keys, cards);
}

#[tokio::test]
async fn a_core_that_is_down_for_the_whole_call_loses_nothing_and_delays_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut core = Core::new(folder.path());
    let scene = Scene::with(at(&core)).await;
    let (call, card) = scene.call("+380671110001").await;
    assert_eq!(scene.submit(&card, "Podil 5").await.0, 200);
    let outbox = scene.chief.get("/outbox").await;
    assert!(outbox["depth"].as_u64().unwrap() >= 4, "three events and an order wait: {outbox}");
    assert_eq!(core.book(), Vec::<Value>::new());
    core.up().await;
    scene.chief.outbox_empty().await;
    assert_eq!(core.events_of(&call), ["arrived", "answered", "ended"]);
    assert_eq!(core.orders().len(), 1);
}

#[tokio::test]
async fn a_tandem_killed_between_submit_and_delivery_delivers_after_its_restart_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut core = Core::new(folder.path());
    let mut scene = Scene::with(at(&core)).await;
    let (call, card) = scene.call("+380671110001").await;
    // A second call is in the middle when the process dies.
    scene.talks("+380671110002").await;
    assert_eq!(scene.submit(&card, "Obolon 7").await.0, 200);
    scene.tandem.kill();
    core.up().await;
    never(Duration::from_millis(300), "nobody is there who could deliver", || async { core.book().pop() })
        .await;
    scene.tandem.up().await;
    let scene = Scene::of(scene.tandem).await;
    scene.chief.outbox_empty().await;
    let orders = core.orders();
    assert_eq!(orders.len(), 1, "{orders:#?}");
    assert_eq!(
        (&orders[0]["key"], &orders[0]["body"]["fields"]["pickup"]),
        (&json!(card), &json!("Obolon 7"))
    );
    assert_eq!(core.events_of(&call), ["arrived", "answered", "ended"]);
    // The call that died with the process says so, and has ended for the core too.
    let history = scene.chief.history(2).await;
    let lost =
        history.iter().find(|entry| entry["result"] == "lost").unwrap_or_else(|| panic!("{history:#?}"));
    let id = lost["id"].as_str().unwrap();
    assert_eq!(core.events_of(id), ["arrived", "answered", "ended"]);
    // A submit that is sent once more after the restart makes no second order.
    let (status, body) = scene.submit(&card, "Obolon 8").await;
    assert!([200, 404, 409].contains(&status), "{status} {body}");
    // And the next call goes as ever.
    let (_, card) = scene.call("+380671110003").await;
    assert_eq!(scene.submit(&card, "Troieshchyna 9").await.0, 200);
    until("the core has both orders", || async { (core.orders().len() == 2).then_some(()) }).await;
}

#[tokio::test]
async fn the_embedded_core_serves_the_same_and_a_full_disk_for_the_log_of_events_touches_no_call() {
    let scene = Scene::with(House::new().set("log.events", "\"/dev/full\"")).await;
    let (_, card) = scene.call("+380671110001").await;
    let (one, two) = tokio::join!(scene.submit(&card, "Lvivska 1"), scene.submit(&card, "Lvivska 1"));
    assert_eq!((one.0, two.0), (200, 200));
    scene.chief.outbox_empty().await;
    let customer = scene.anna.get("/orders?phone=%2B380671110001").await;
    let orders = customer["orders"].as_array().unwrap();
    assert_eq!(orders.len(), 1, "{customer}");
    assert_eq!(orders[0]["fields"]["pickup"], "Lvivska 1");
    assert_eq!(scene.anna.get("/orders?phone=%2B380671110009").await["orders"], json!([]));
    let log = scene.tandem.log();
    assert!(log.contains("events"), "the disk is spoken of: {log}");
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::terms::Number;

fn known() -> Known {
    Known {
        queues: ["orders", "seniors"].map(Into::into).to_vec(),
        trunks: ["gsm-1", "gsm-2", "sip-1"].map(Into::into).to_vec(),
        groups: Vec::new(),
        sounds: ["welcome.wav", "hold.wav", "sorry.wav"].map(str::to_owned).to_vec(),
    }
}

fn fixture(name: &str) -> (String, String) {
    let path = format!("{}/fixtures/dialplans/{name}", env!("CARGO_MANIFEST_DIR"));
    (name.to_owned(), std::fs::read_to_string(path).unwrap())
}

fn mistakes(name: &str) -> Vec<String> {
    let found = Plan::read(&[fixture(name)], &known()).unwrap_err();
    found.iter().map(ToString::to_string).collect()
}

fn plan(text: &str) -> Plan {
    Plan::read(&[("a.toml".to_owned(), text.to_owned())], &known()).unwrap()
}

fn taken(plan: &Plan, from: &str, number: &str, caller: &str, at: &str, share: u8) -> Option<String> {
    let from = if from == "operators" { Origin::Operators } else { Origin::Trunk(from.into()) };
    let (number, caller) = (Number::new(number), Number::new(caller));
    let at = LocalTime::parse(at).unwrap();
    plan.route(&Attempt { from, number: &number, caller: &caller, at, share }).map(|route| route.name.clone())
}

/// Files of a folder of fixtures with this extension.
fn names(folder: &str) -> Vec<String> {
    let path = format!("{}/fixtures/dialplans/{folder}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        files.filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned())).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

#[test]
fn every_mistake_of_a_bad_dialplan_is_said_with_its_line() {
    for name in names("bad") {
        let (_, expected) = fixture(&format!("bad/{name}.txt"));
        let found = mistakes(&format!("bad/{name}.toml")).join("\n");
        assert_eq!(found.trim(), expected.trim(), "bad/{name}.toml");
    }
}

#[test]
fn a_good_dialplan_is_read_and_what_is_odd_in_it_is_said() {
    for name in names("good") {
        let plan = Plan::read(&[fixture(&format!("good/{name}.toml"))], &known()).unwrap();
        let found: Vec<String> = plan.warnings().iter().map(ToString::to_string).collect();
        let (_, expected) = fixture(&format!("good/{name}.txt"));
        assert_eq!(found.join("\n").trim(), expected.trim(), "good/{name}.toml");
    }
}

#[test]
fn the_first_route_that_fits_is_taken() {
    let plan = Plan::read(&[fixture("good/week.toml")], &known()).unwrap();
    let table = [
        ("gsm-1", "+380441234567", "+1", "mon 05:59", 50, Some("Closed")),
        ("gsm-1", "+380441234567", "+1", "mon 06:00", 50, Some("Order line")),
        ("gsm-1", "+380441234567", "+1", "mon 01:59", 50, Some("Order line")),
        ("gsm-1", "+380441234567", "+1", "mon 06:00", 9, Some("A tenth to the new queue")),
        ("gsm-1", "+380441234567", "+1", "mon 06:00", 10, Some("Order line")),
        ("gsm-1", "+380447654321", "+1", "mon 06:00", 9, Some("Order line")),
        ("gsm-1", "+380441111111", "+1", "mon 06:00", 50, None),
        ("gsm-1", "+380441111111", "", "mon 06:00", 50, Some("Hidden callers")),
        ("sip-1", "+380441234567", "", "mon 06:00", 50, None),
        ("sip-1", "+380441234567", "", "sat 07:59", 50, Some("Closed")),
        ("operators", "+380441234567", "+1", "mon 06:00", 50, None),
    ];
    for (from, number, caller, at, share, name) in table {
        assert_eq!(
            taken(&plan, from, number, caller, at, share).as_deref(),
            name,
            "{from} {number} {at} {share}"
        );
    }
}

#[test]
fn steps_are_read_as_they_are_written() {
    let plan = Plan::read(&[fixture("good/week.toml")], &known()).unwrap();
    let route = plan.routes().last().unwrap();
    assert_eq!(
        (route.name.as_str(), route.at.as_str(), route.steps.len()),
        ("Order line", "good/week.toml:18", 6)
    );
    let queue = Step::Queue {
        queue: "orders".into(),
        wait_ms: Some(90_000),
        music: Some("hold.wav".into()),
        priority: -1,
        tell_place_every_ms: None,
        record: None,
    };
    assert_eq!(route.steps[1], queue);
    let dial = Step::Dial {
        number: DialNumber::Fixed(Number::new("+380671234567")),
        over: vec![
            Ways::in_order("gsm-2", vec!["gsm-2".into()]),
            Ways::in_order("gsm-*", vec!["gsm-1".into()]),
        ],
        ring_ms: Some(25_000),
        show: Some(Number::new("+380441234567")),
    };
    assert_eq!(route.steps[3], dial, "a pattern adds the trunks that are not named yet, in their order");
    assert_eq!(route.steps[5], Step::HangUp { why: HangUpWhy::Busy });
}

#[test]
fn files_are_tried_in_the_order_given() {
    let route = |name: &str| format!("[[route]]\nname = \"{name}\"\ndo = [{{ queue = \"orders\" }}]\n");
    let files = [("a.toml".to_owned(), route("first")), ("b.toml".to_owned(), route("second"))];
    let plan = Plan::read(&files, &known()).unwrap();
    assert_eq!(taken(&plan, "operators", "1", "", "mon 00:00", 0).as_deref(), Some("first"));
    assert_eq!(plan.warnings()[0].file, "b.toml", "the second is never reached");
}

#[test]
fn a_route_survives_a_record() {
    let plan =
        plan("[[route]]\nname = 'a'\ndo = [{ dial = 'dialled', over = 'gsm-1' }, { hang_up = 'busy' }]\n");
    let route = plan.routes().next().unwrap();
    let bytes = rmp_serde::to_vec_named(route).unwrap();
    assert_eq!(&rmp_serde::from_slice::<Route>(&bytes).unwrap(), route);
}

#[test]
fn too_much_is_refused() {
    let big = "#".repeat(plan::MAX_FILE_BYTES + 1);
    assert!(Plan::read(&[("big.toml".into(), big)], &known()).is_err());
    let many = "[[route]]\nname = 'a'\ndo = [{ play = 'hold.wav' }]\n".repeat(plan::MAX_ROUTES + 1);
    assert!(Plan::read(&[("many.toml".into(), many)], &known()).is_err());
}

#[test]
fn a_dial_goes_over_groups_and_each_trunk_stands_once() {
    let trunks = ["sip-1", "gsm-1"].map(Into::into).to_vec();
    let group = Ways { name: "cheap".into(), trunks, choose: Choose::Share, shares: vec![70, 30] };
    let dial = |over: &str| {
        let text = format!("[[route]]\nname = 'a'\ndo = [{{ dial = '+380671112233', over = {over} }}]\n");
        Plan::read(&[("t.toml".to_owned(), text)], &Known { groups: vec![group.clone()], ..known() })
    };
    let over = |plan: Plan| match plan.routes().next().map(|route| route.steps[0].clone()) {
        Some(Step::Dial { over, .. }) => over,
        other => panic!("{other:?}"),
    };
    assert_eq!(over(dial("'cheap'").unwrap()), std::slice::from_ref(&group));
    let behind = over(dial("['gsm-1', 'cheap', '*']").unwrap());
    let names = |ways: &Ways| ways.trunks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(behind.iter().map(names).collect::<Vec<_>>(), ["gsm-1", "sip-1", "gsm-2"]);
    assert_eq!(behind[1].shares, [70]);
    let wrong = dial("'chaep'").unwrap_err()[0].to_string();
    assert_eq!(wrong, "t.toml:3: over: unknown trunk or group 'chaep' (did you mean 'cheap'?)");
}

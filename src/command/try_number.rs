//! `tandem try NUMBER`: the way a call would take, step by step, without calling anybody.

use crate::config::{Config, Trunk};
use crate::dialplan::{
    Attempt, Choose, DialNumber, LocalTime, Origin, Plan, Route, Rule, Step, Ways, caller, dial_string,
    normalise,
};
use crate::terms::{Number, TrunkName};

/// A call that is only thought of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// What is dialled.
    pub number: &'a str,
    /// `trunk:NAME` or `operators`.
    pub from: &'a str,
    /// Who calls; empty is withheld.
    pub caller: &'a str,
    /// When.
    pub at: LocalTime,
}

/// The way of the call in lines of text. Where routes take shares of the calls, each way is shown.
///
/// # Errors
/// In words, if the number or the origin is none.
pub fn try_number(config: &Config, plan: &Plan, question: &Question<'_>) -> Result<Vec<String>, String> {
    let trunk = origin(config, question.from)?;
    let rules = trunk.map_or_else(|| config.numbers.rules.clone(), |trunk| config.caller_rules(trunk));
    let number = normalise(question.number, &config.numbers.rules)
        .map_err(|why| format!("'{}': {why}", question.number))?;
    let caller =
        caller(question.caller, &rules).ok_or_else(|| format!("'{}' is no number", question.caller))?;
    let mut lines = vec![headline(question, trunk, &number)];
    if trunk.is_none() && !config.limits.allow(&number) {
        lines.push("refused: [limits] destinations does not allow this number".into());
        return Ok(lines);
    }
    let from = trunk.map_or(Origin::Operators, |trunk| Origin::Trunk(trunk.name.clone()));
    let ways = ways(plan, &Attempt { from, number: &number, caller: &caller, at: question.at, share: 0 });
    let alone = ways.len() == 1;
    for (percent, route) in ways {
        if !alone {
            lines.push(format!("{percent} % of the calls:"));
        }
        match route {
            Some(route) => lines.extend(way(config, route, &number)),
            None => lines.push("no route fits: the call is refused".into()),
        }
    }
    Ok(lines)
}

/// The trunk, or `None` for operators.
fn origin<'c>(config: &'c Config, from: &str) -> Result<Option<&'c Trunk>, String> {
    if from == "operators" {
        return Ok(None);
    }
    let name =
        from.strip_prefix("trunk:").ok_or_else(|| format!("'{from}' is neither operators nor trunk:NAME"))?;
    let trunk = config.trunks.iter().find(|trunk| trunk.name.as_str() == name);
    trunk.map(Some).ok_or_else(|| {
        let known: Vec<&str> = config.trunks.iter().map(|trunk| trunk.name.as_str()).collect();
        let known = if known.is_empty() { "none (no --config?)".to_owned() } else { known.join(", ") };
        format!("there is no trunk '{name}'; configured are: {known}")
    })
}

fn headline(question: &Question<'_>, trunk: Option<&Trunk>, number: &Number) -> String {
    let from = trunk.map_or("operators".to_owned(), |trunk| format!("trunk {}", trunk.name));
    let typed = if number.reveal() == question.number {
        String::new()
    } else {
        format!(" (written {})", question.number)
    };
    format!("{}{typed} from {from}, {}", number.reveal(), question.at)
}

/// The routes that calls take, with the share of the calls that takes each.
fn ways<'p>(plan: &'p Plan, attempt: &Attempt<'_>) -> Vec<(u8, Option<&'p Route>)> {
    let mut ways: Vec<(u8, Option<&Route>)> = Vec::new();
    for share in 0..100 {
        let route = plan.route(&Attempt { share, ..attempt.clone() });
        match ways.iter_mut().find(|(_, known)| *known == route) {
            Some((percent, _)) => *percent += 1,
            None => ways.push((1, route)),
        }
    }
    ways
}

fn way(config: &Config, route: &Route, number: &Number) -> Vec<String> {
    let mut lines = vec![format!("route '{}' ({})", route.name, route.at)];
    for (step, count) in route.steps.iter().zip(1..) {
        lines.push(format!("  {count}. {}", words(config, step, number)));
    }
    let ends = route.steps.iter().any(|step| matches!(step, Step::HangUp { .. }));
    if !ends {
        lines.push("  then the call ends".into());
    }
    lines
}

fn words(config: &Config, step: &Step, number: &Number) -> String {
    match step {
        Step::Play { file } => format!("play {file}"),
        Step::HangUp { why } => format!("hang up: {} (SIP {}, Q.850 {})", why.word(), why.sip(), why.q850()),
        Step::Queue { queue, wait_ms, music, priority, tell_place_every_ms: _, record: _ } => {
            let its = config.queues.iter().find(|known| known.name == *queue);
            let wait_ms = wait_ms.or(its.map(|its| its.max_wait_ms)).unwrap_or(0);
            let music = music.as_deref().or(its.map(|its| its.music.as_str())).unwrap_or("nothing");
            let priority = if *priority == 0 { String::new() } else { format!(", priority {priority}") };
            format!("queue {queue}, {}, hears {music}{priority}", at_most("waits", wait_ms))
        }
        Step::Dial { number: which, over, ring_ms, show } => {
            let number = match which {
                DialNumber::Dialled => number,
                DialNumber::Fixed(fixed) => fixed,
            };
            let over: Vec<String> = over.iter().map(|ways| over_ways(config, ways, number)).collect();
            let over = if over.is_empty() { "no trunk at all".to_owned() } else { over.join(", then ") };
            let ring = ring_ms.map_or(String::new(), |ring_ms| format!(", {}", at_most("rings", ring_ms)));
            let show = show.as_ref().map_or(String::new(), |show| format!(", shows {}", show.reveal()));
            format!("dial {} over {over}{ring}{show}", number.reveal())
        }
    }
}

fn at_most(does: &str, ms: u64) -> String {
    match ms {
        0 => format!("{does} for ever"),
        ms if ms % 1_000 == 0 => format!("{does} at most {} s", ms / 1_000),
        ms => format!("{does} at most {ms} ms"),
    }
}

/// The trunks of a dial that stand for one another, and how one of them is chosen.
fn over_ways(config: &Config, ways: &Ways, number: &Number) -> String {
    let each = ways.trunks.iter().map(|trunk| over_trunk(config, trunk, number));
    let (name, choose) = (&ways.name, ways.choose);
    match choose {
        Choose::Order => each.collect::<Vec<_>>().join(", then "),
        Choose::LeastUsed => format!("the least used of {name} ({})", each.collect::<Vec<_>>().join(", ")),
        Choose::Share => {
            let shares = ways.shares.iter().map(|share| format!("{share} % "));
            let each: Vec<String> = shares.zip(each).map(|(share, trunk)| share + &trunk).collect();
            format!("{name} by share ({})", each.join(", "))
        }
    }
}

/// `gsm-1 as 380671234567`, if the trunk wants it written in another way.
fn over_trunk(config: &Config, name: &TrunkName, number: &Number) -> String {
    let none: &[Rule] = &[];
    let trunk = config.trunks.iter().find(|trunk| trunk.name == *name);
    match dial_string(number, trunk.map_or(none, |trunk| &trunk.dial_rules)) {
        Ok(dialled) if dialled == number.reveal() => name.to_string(),
        Ok(dialled) => format!("{name} as {dialled}"),
        Err(why) => format!("{name} (cannot: {why})"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::dialplan::{Known, shipped};

    fn house() -> Config {
        let mut config =
            Config { trunks: vec![Trunk::named("gsm-1"), Trunk::named("gsm-2")], ..Config::default() };
        config.numbers.rules = vec![Rule { strip: "0".into(), add: "+380".into() }];
        config.trunks[1].dial_rules = vec![Rule { strip: "+380".into(), add: "0".into() }];
        let all = || vec!["gsm-1".into(), "gsm-2".into()];
        config.groups = vec![
            Ways { name: "lot".into(), trunks: all(), choose: Choose::Share, shares: vec![70, 30] },
            Ways { name: "idle".into(), trunks: all(), choose: Choose::LeastUsed, shares: Vec::new() },
        ];
        config
    }

    fn plan(files: &[(&str, &str)]) -> Plan {
        let files: Vec<_> =
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let known = Known {
            queues: vec!["orders".into()],
            trunks: vec!["gsm-1".into(), "gsm-2".into()],
            groups: house().groups,
            sounds: shipped::SOUNDS.map(|(name, _)| name.to_owned()).to_vec(),
        };
        Plan::read(&files, &known).unwrap()
    }

    fn ask(config: &Config, plan: &Plan, number: &str, from: &str) -> Result<Vec<String>, String> {
        let at = LocalTime::parse("sat 03:00").unwrap();
        try_number(config, plan, &Question { number, from, caller: "", at })
    }

    #[test]
    fn the_way_of_a_call_from_outside_is_told_step_by_step() {
        let lines = ask(&house(), &plan(&shipped::FILES), "+380441234567", "trunk:gsm-1").unwrap();
        assert_eq!(
            lines,
            [
                "+380441234567 from trunk gsm-1, sat 03:00",
                "route 'Order line' (incoming.toml:12)",
                "  1. play welcome.wav",
                "  2. queue orders, waits at most 300 s, hears hold.wav",
                "  3. play sorry.wav",
                "  4. hang up: normal (SIP 480, Q.850 16)",
            ]
        );
    }

    #[test]
    fn the_way_of_an_operators_call_names_trunks_and_what_they_are_told() {
        let lines = ask(&house(), &plan(&shipped::FILES), "067 123-45-67", "operators").unwrap();
        assert_eq!(lines[0], "+380671234567 (written 067 123-45-67) from operators, sat 03:00");
        assert_eq!(
            lines[2],
            "  1. dial +380671234567 over gsm-1 as 380671234567, then gsm-2 as 0671234567, rings at most 60 s"
        );
        let emergency = ask(&house(), &plan(&shipped::FILES), "112", "operators").unwrap();
        assert!(emergency[1].starts_with("route 'Emergency'"), "{emergency:?}");
        assert_eq!(emergency[2..], ["  1. dial 112 over gsm-1, then gsm-2", "  then the call ends"]);
    }

    #[test]
    fn a_forbidden_destination_is_refused_and_an_emergency_is_not() {
        let mut config = house();
        config.limits.destinations = vec!["+380".into()];
        let plan = plan(&shipped::FILES);
        assert!(ask(&config, &plan, "+882161234567", "operators").unwrap()[1].starts_with("refused"));
        assert!(ask(&config, &plan, "112", "operators").unwrap()[1].starts_with("route"));
        assert!(ask(&config, &plan, "+882161234567", "trunk:gsm-1").unwrap()[1].starts_with("route"));
    }

    #[test]
    fn shares_show_each_way() {
        let text = "[[route]]\nname = 'new'\nwhen = { share = '10%' }\ndo = [{ queue = 'orders' }]\n";
        let lines = ask(&house(), &plan(&[("a.toml", text)]), "1234567", "trunk:gsm-1").unwrap();
        assert_eq!(lines[1], "10 % of the calls:");
        assert_eq!(lines[5..], ["90 % of the calls:", "no route fits: the call is refused"]);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let (config, plan) = (house(), plan(&shipped::FILES));
        for (number, from) in [("alice", "operators"), ("112", "trunk:none"), ("112", "nobody")] {
            assert!(!ask(&config, &plan, number, from).unwrap_err().is_empty());
        }
    }

    #[test]
    fn a_group_says_how_its_trunks_are_chosen() {
        let text = "[[route]]\nname = \"out\"\nwhen = { from = \"operators\" }\n\
                    do = [{ dial = \"dialled\", over = [\"lot\"] }, { dial = \"dialled\", over = \"idle\" }]\n";
        let at = LocalTime::parse("mon 12:00").unwrap();
        let question = Question { number: "0671234567", from: "operators", caller: "", at };
        let lines = try_number(&house(), &plan(&[("t.toml", text)]), &question).unwrap();
        assert_eq!(
            lines[2],
            "  1. dial +380671234567 over lot by share (70 % gsm-1 as 380671234567, 30 % gsm-2 as 0671234567)"
        );
        assert_eq!(
            lines[3],
            "  2. dial +380671234567 over the least used of idle (gsm-1 as 380671234567, gsm-2 as 0671234567)"
        );
    }
}

//! The text of dialplans → the plan, or every mistake in it.

use std::collections::BTreeSet;

use crate::dialplan::hours::Hours;
use crate::dialplan::numbers::normalise;
use crate::dialplan::parse::{Mistake, Page, Table, did_you_mean, duration_ms, word};
use crate::dialplan::pattern::{NumberPattern, name_fits};
use crate::dialplan::plan::{
    DialNumber, HangUpWhy, Known, MAX_FILE_BYTES, MAX_ROUTES, MAX_STEPS, Plan, Route, Step, Ways,
};
use crate::dialplan::route::{From, When};
use crate::dialplan::shadow::shadows;
use crate::terms::{Number, QueueName, TrunkName};

/// Reads one kind of step.
type StepReader = fn(Table<'_>, &Known) -> Option<Step>;
/// What a step begins with.
const VERBS: [(&str, StepReader); 5] = [
    ("play", read_play),
    ("queue", read_queue),
    ("dial", read_dial),
    ("hang_up", read_hang_up),
    ("menu", refuse_menu),
];
/// The word for the number that was dialled.
const DIALLED: &str = "dialled";
/// Nobody is told his place more often.
const MIN_TELL_MS: u64 = 10_000;

/// A route and where it stands.
struct Placed {
    file: String,
    line: usize,
    when: When,
    route: Route,
}

pub(crate) fn read(files: &[(String, String)], known: &Known) -> Result<Plan, Vec<Mistake>> {
    let (mut mistakes, mut warnings, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    for (name, text) in files {
        let page = Page::new(name, text);
        if text.len() > MAX_FILE_BYTES {
            page.wrong(0, format!("longer than {MAX_FILE_BYTES} bytes"));
        } else {
            routes.extend(read_page(&page, known));
        }
        let (wrong, odd) = page.found();
        mistakes.extend(wrong);
        warnings.extend(odd);
    }
    if routes.len() > MAX_ROUTES {
        let file = routes.get(MAX_ROUTES).map(|placed| placed.file.clone()).unwrap_or_default();
        mistakes.push(Mistake { file, line: 0, text: format!("more than {MAX_ROUTES} routes in all files") });
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    warnings.extend(unreachable_routes(&routes));
    Ok(Plan { routes: routes.into_iter().map(|placed| (placed.when, placed.route)).collect(), warnings })
}

fn read_page(page: &Page<'_>, known: &Known) -> Vec<Placed> {
    let tree = page.tree();
    let root = Table::new(page, "", 1, Some(tree.get_ref()));
    let routes =
        root.tables("route", "[[route]]").into_iter().filter_map(|table| read_route(table, known)).collect();
    root.finish();
    routes
}

fn read_route(table: Table<'_>, known: &Known) -> Option<Placed> {
    let (page, line) = (table.page(), table.line());
    let name = table.maybe("name", not_empty);
    if table.value("name").is_none() {
        page.wrong(line, "this route needs a name: name = \"…\"");
    }
    let when = read_when(table.table("when", "when = { … }").titled("when"), known);
    let steps = read_steps(&table, known);
    let from_trunk = when.from.as_ref().is_none_or(|from| !from.trunks.is_empty());
    let redials = steps.iter().any(|step| matches!(step, Step::Dial { number: DialNumber::Dialled, .. }));
    if from_trunk && redials {
        page.warn(
            line,
            "a call that comes from a trunk is dialled out again at your cost; say from = \"operators\"",
        );
    }
    table.finish();
    let route = Route { name: name?, at: format!("{}:{line}", page.file()), steps };
    Some(Placed { file: page.file().to_owned(), line, when, route })
}

fn not_empty(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("is empty".into()) } else { Ok(text.to_owned()) }
}

fn read_when(table: Table<'_>, known: &Known) -> When {
    let when = When {
        from: read_from(&table, known),
        number: table.one_or_more("number", NumberPattern::parse),
        caller: table.one_or_more("caller", NumberPattern::parse),
        hours: table.maybe("hours", Hours::parse),
        except_hours: table.maybe("except_hours", Hours::parse),
        share: table.maybe("share", share),
    };
    table.finish();
    when
}

/// `10%`.
fn share(text: &str) -> Result<u8, String> {
    let share = text.strip_suffix('%').and_then(|number| number.trim().parse::<u8>().ok());
    share
        .filter(|share| (1..=100).contains(share))
        .ok_or_else(|| format!("'{text}' is no share; write \"1%\" to \"100%\""))
}

/// `operators`, `trunk:NAME`, `trunk:gsm-*`.
fn read_from(table: &Table<'_>, known: &Known) -> Option<From> {
    let line = table.value("from")?.line;
    let mut from = From::default();
    let origins = table.one_or_more("from", |text| {
        let Some(pattern) = text.strip_prefix("trunk:") else {
            return if text == "operators" {
                Ok(None)
            } else {
                let hint = did_you_mean(text, ["operators", "trunk:"]);
                Err(format!("'{text}' is neither operators nor trunk:NAME{hint}"))
            };
        };
        trunks(pattern, known).map(|found| Some((pattern.to_owned(), found)))
    })?;
    for origin in origins {
        match origin {
            None => from.operators = true,
            Some((pattern, found)) => {
                if found.is_empty() {
                    table.page().warn(line, format!("no trunk is called like '{pattern}' yet"));
                }
                from.trunks.extend(found);
            }
        }
    }
    Some(from)
}

/// The trunks that a name or pattern means, in the order of the configuration. A pattern may mean none.
fn trunks(pattern: &str, known: &Known) -> Result<Vec<TrunkName>, String> {
    let found: Vec<_> =
        known.trunks.iter().filter(|trunk| name_fits(pattern, trunk.as_str())).cloned().collect();
    if found.is_empty() && !pattern.contains('*') {
        return Err(unknown("trunk", pattern, known.trunks.iter().map(TrunkName::as_str)));
    }
    Ok(found)
}

fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    format!("unknown {what} '{name}'{}", did_you_mean(name, known))
}

fn read_steps(table: &Table<'_>, known: &Known) -> Vec<Step> {
    let tables = table.tables("do", "do = [ { … }, … ]");
    if table.value("do").is_none_or(|value| value.value.as_array().is_some_and(|steps| steps.is_empty())) {
        table.page().wrong(table.line(), "this route does nothing: do = [ { … }, … ]");
    }
    if tables.len() > MAX_STEPS {
        table.page().wrong(table.line(), format!("{} steps; a route has at most {MAX_STEPS}", tables.len()));
    }
    tables.into_iter().filter_map(|step| read_step(step, known)).collect()
}

fn read_step(table: Table<'_>, known: &Known) -> Option<Step> {
    let here = |(verb, _): &(&str, StepReader)| table.keys().any(|key| key == *verb);
    let verbs: Vec<(&str, StepReader)> = VERBS.into_iter().filter(here).collect();
    match verbs.as_slice() {
        [] => {
            let names = VERBS.map(|(verb, _)| verb);
            let hint = table.keys().map(|key| did_you_mean(key, names)).find(|hint| !hint.is_empty());
            let hint = hint.unwrap_or_default();
            table.page().wrong(table.line(), format!("a step is one of play, queue, dial, hang_up{hint}"));
            None
        }
        [(verb, reader)] => reader(table.titled(format!("a {verb} step")), known),
        [(first, _), (second, _), ..] => {
            table.page().wrong(table.line(), format!("{first} and {second} in one step; write two steps"));
            None
        }
    }
}

fn refuse_menu(table: Table<'_>, _known: &Known) -> Option<Step> {
    table.page().wrong(table.line(), "menu comes with a later release; use play and queue");
    None
}

fn read_play(table: Table<'_>, known: &Known) -> Option<Step> {
    let step = table.maybe("play", |name| sound(name, known)).map(|file| Step::Play { file });
    table.finish();
    step
}

fn read_hang_up(table: Table<'_>, _known: &Known) -> Option<Step> {
    let whys = [
        HangUpWhy::Normal,
        HangUpWhy::Busy,
        HangUpWhy::Congestion,
        HangUpWhy::NotAllowed,
        HangUpWhy::NotFound,
    ];
    let step = table
        .maybe("hang_up", |text| word(text, &whys.map(|why| (why.word(), why))))
        .map(|why| Step::HangUp { why });
    table.finish();
    step
}

fn read_queue(table: Table<'_>, known: &Known) -> Option<Step> {
    let queue = table.maybe("queue", |name| {
        let queue = known.queues.iter().find(|queue| queue.as_str() == name).cloned();
        queue.ok_or_else(|| unknown("queue", name, known.queues.iter().map(QueueName::as_str)))
    });
    let wait_ms = table.maybe("wait", duration_ms);
    let music = table.maybe("music", |name| sound(name, known));
    let tell_place_every_ms = table.maybe("tell_place_every", |text| {
        duration_ms(text).and_then(|ms| {
            if ms >= MIN_TELL_MS { Ok(ms) } else { Err(format!("'{text}' is shorter than 10s")) }
        })
    });
    let record = table.value("record").map(|_| table.flag("record", true));
    for (key, set) in [("tell_place_every", tell_place_every_ms.is_some()), ("record", record.is_some())] {
        if set {
            table.page().warn(table.line(), format!("{key} comes with a later release and does nothing yet"));
        }
    }
    let priority = table.whole("priority", 0, -1_000..=1_000);
    table.finish();
    Some(Step::Queue { queue: queue?, wait_ms, music, priority, tell_place_every_ms, record })
}

fn read_dial(table: Table<'_>, known: &Known) -> Option<Step> {
    let number = table.maybe("dial", |text| {
        if text == DIALLED {
            return Ok(DialNumber::Dialled);
        }
        fixed(text).map(DialNumber::Fixed).map_err(|why| format!("{why}{}", did_you_mean(text, [DIALLED])))
    });
    let over = read_over(&table, known);
    let ring_ms = table.maybe("ring", duration_ms).filter(|ring_ms| *ring_ms > 0);
    let show = table.maybe("show", fixed);
    table.finish();
    Some(Step::Dial { number: number?, over, ring_ms, show })
}

fn read_over(table: &Table<'_>, known: &Known) -> Vec<Ways> {
    let line = table.value("over").map_or(table.line(), |value| value.line);
    let Some(all) = table.one_or_more("over", |text| ways(text, known)) else {
        table.page().wrong(line, "dial needs trunks: over = [\"gsm-1\", \"gsm-*\"]");
        return Vec::new();
    };
    let mut seen: BTreeSet<TrunkName> = BTreeSet::new();
    let mut over = Vec::new();
    for mut ways in all {
        if ways.trunks.is_empty() {
            table.page().warn(line, format!("no trunk is called like '{}' yet", ways.name));
        }
        let fresh: Vec<bool> = ways.trunks.iter().map(|trunk| seen.insert(trunk.clone())).collect();
        keep(&mut ways.trunks, &fresh);
        keep(&mut ways.shares, &fresh);
        if !ways.trunks.is_empty() {
            over.push(ways);
        }
    }
    over
}

/// Keeps those whose place says so; a trunk is tried where it is named first.
fn keep<T>(all: &mut Vec<T>, fresh: &[bool]) {
    let mut places = fresh.iter();
    all.retain(|_| places.next().copied().unwrap_or(true));
}

/// A group, a trunk, or all trunks that a pattern means.
fn ways(text: &str, known: &Known) -> Result<Ways, String> {
    if let Some(group) = known.groups.iter().find(|group| group.name == text) {
        return Ok(group.clone());
    }
    match trunks(text, known) {
        Ok(found) => Ok(Ways::in_order(text, found)),
        Err(_) => {
            let groups = known.groups.iter().map(|group| group.name.as_str());
            let what = if known.groups.is_empty() { "trunk" } else { "trunk or group" };
            Err(unknown(what, text, known.trunks.iter().map(TrunkName::as_str).chain(groups)))
        }
    }
}

/// A number that the dialplan itself names; it is written as it is to be used.
fn fixed(text: &str) -> Result<Number, String> {
    normalise(text, &[]).map_err(|why| format!("'{text}': {why}"))
}

fn sound(name: &str, known: &Known) -> Result<String, String> {
    if known.sounds.iter().any(|sound| sound == name) {
        return Ok(name.to_owned());
    }
    Err(unknown("sound", name, known.sounds.iter().map(String::as_str)))
}

fn unreachable_routes(routes: &[Placed]) -> Vec<Mistake> {
    let mut warnings = Vec::new();
    for (position, later) in routes.iter().enumerate() {
        let earlier = routes.iter().take(position).find(|earlier| shadows(&earlier.when, &later.when));
        if let Some(earlier) = earlier {
            let text = format!(
                "route '{}' is never reached: '{}' ({}) takes every call that would fit",
                later.route.name, earlier.route.name, earlier.route.at
            );
            warnings.push(Mistake { file: later.file.clone(), line: later.line, text });
        }
    }
    warnings
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;

use super::read::read;
use super::values::SecretSource;
use super::*;
use crate::dialplan::Ways;

const SHIPPED: &str = include_str!("../../config/tandem.toml");
const DEV: &str = include_str!("../../config/dev.toml");

fn vault(source: &SecretSource<'_>) -> Result<String, String> {
    match source {
        SecretSource::Text(text) => Ok((*text).to_owned()),
        SecretSource::Env(name) if name.starts_with("NO") => Err(format!("{name} is not set")),
        SecretSource::Env(name) => Ok(format!("env {name}")),
        SecretSource::File(path) => Ok(format!("file {path}")),
    }
}

fn good(text: &str) -> Config {
    read("t.toml", text, &vault).unwrap().config
}

fn mistakes(text: &str) -> Vec<String> {
    read("t.toml", text, &vault).unwrap_err().iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> String {
    read("t.toml", text, &vault).unwrap().warnings.iter().map(|warning| format!("{warning}\n")).collect()
}

/// The shipped file with its example of a trunk switched on.
fn shipped_with_trunk() -> String {
    let switched_on = |line: &str| {
        let code = line.strip_prefix("# ").filter(|code| {
            let key = code.split(" = ").next().unwrap_or_default();
            *code == "[[trunk]]"
                || *code == "[[group]]"
                || (*code != key && key.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_'))
        });
        code.unwrap_or(line).to_owned() + "\n"
    };
    SHIPPED.lines().map(switched_on).collect()
}

#[test]
fn without_a_file_everything_has_a_default() {
    assert_eq!(good(""), Config::default());
    assert_eq!(Config::load(None).unwrap(), Config::default());
}

#[test]
fn the_shipped_file_says_what_the_defaults_are() {
    assert_eq!(good(SHIPPED), Config::default());
    let example = Trunk { password: Secret::new("env GSM1_PASSWORD".into()), ..Trunk::named("gsm-1") };
    let switched_on = good(&shipped_with_trunk());
    assert_eq!(switched_on.trunks, [example]);
    assert_eq!(switched_on.groups, [Ways::in_order("gsm", vec!["gsm-1".into()])]);
}

#[test]
fn the_shipped_file_has_every_key() {
    // A key that cannot exist makes the reader name all keys of its table.
    let text: String =
        shipped_with_trunk()
            .lines()
            .map(|line| {
                if line.starts_with('[') {
                    format!("{line}\nzzzzzzzzzzzz = 1\n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
    let found = mistakes(&text);
    assert_eq!(found.len(), 15, "{found:?}");
    for mistake in found {
        let line: usize = mistake.split(':').nth(1).unwrap().parse().unwrap();
        let table = text.lines().skip(line).take_while(|line| !line.starts_with('['));
        let written: BTreeSet<&str> = table.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        let (_, known) = mistake.split_once("keys are ").unwrap();
        for key in known.split(", ") {
            assert!(written.contains(key), "{key} is missing: {mistake}");
        }
    }
}

#[test]
fn the_file_for_development_is_good() {
    let config = good(DEV);
    assert_eq!(config.trunks[0].password.expose(), "gsm-1-dev");
    assert_eq!(config.trunks[0].username, "gsm-1");
    assert_eq!(warnings(DEV), "");
}

#[test]
fn every_mistake_is_said_with_its_line() {
    let table: [(&str, &[&str]); 28] = [
        (
            "[sip]\ntls = '0.0.0.0:5061'",
            &["t.toml:2: SIP over TLS comes with a later release: leave tls empty"],
        ),
        ("[media]\nptime = '30ms'", &["t.toml:2: ptime: '30ms' comes with a later release: write 20ms"]),
        (
            "[orders]\ncreate_on = 'arrived'",
            &["t.toml:2: create_on: 'arrived' comes with a later release: write submit"],
        ),
        ("[web]\nlisen = 'x'", &["t.toml:2: unknown key 'lisen' in [web] (did you mean 'listen'?)"]),
        ("[wep]\nlisten = 'x'", &["t.toml:1: unknown key 'wep' (did you mean 'web'?)"]),
        ("web = 3", &["t.toml:1: 'web' is a table: write [web]"]),
        (
            "[node]\ndrain = '60'",
            &["t.toml:2: drain: '60' is no duration; write for instance 500ms, 30s, 15m, 2h or 90d"],
        ),
        ("[node]\ndrain = 60", &["t.toml:2: 'drain' is a text: write it in quotes"]),
        (
            "[node]\ntimezone = 'Kyiv'",
            &["t.toml:2: timezone: 'Kyiv' is no time zone; write local or a name such as Europe/Kyiv"],
        ),
        ("[sip]\nmin_se = '60s'", &["t.toml:2: min_se is at least 90s (RFC 4028 section 5)"]),
        ("[sip]\nsession_expires = '80s'", &["t.toml:2: session_expires is shorter than min_se"]),
        (
            "[sip]\nudp = '5060'",
            &["t.toml:2: udp: '5060' is no address and port; write for instance 0.0.0.0:5060"],
        ),
        ("[web]\ntls_cert = 'c.pem'", &["t.toml:1: tls_cert and tls_key belong together"]),
        (
            "[web]\ntrusted_proxies = ['10.0.0.0/40']",
            &[
                "t.toml:2: trusted_proxies: '10.0.0.0/40' is no address range; write for instance 192.0.2.0/24",
            ],
        ),
        ("[media]\nwebrtc_port = 20000", &["t.toml:2: webrtc_port lies inside rtp_ports"]),
        ("[media]\ndscp = 64", &["t.toml:2: 'dscp' is a whole number from 0 to 63"]),
        (
            "[store]\nurl = 'postgres://u:p@h/d'",
            &["t.toml:2: this release keeps its store in SQLite: write url = \"sqlite:PATH\""],
        ),
        ("[redis]\nurl = 'redis://h'", &["t.toml:2: Redis comes with a later release: leave url empty"]),
        ("[ha]\nmode = 'pair'", &["t.toml:2: mode: 'pair' comes with a later release: write single"]),
        (
            "[orders]\ncore = ['embedded', 'http://h']",
            &["t.toml:2: core is [\"embedded\"] or a list of http(s) addresses"],
        ),
        (
            "[orders]\ncreate_on = 'submitted'",
            &[
                "t.toml:2: create_on: 'submitted' is not one of submit, answered, arrived (did you mean 'submit'?)",
            ],
        ),
        ("[orders]\ntoken = '${env:NO_TOKEN}'", &["t.toml:2: token: NO_TOKEN is not set"]),
        ("[orders]\ntoken = '${vault:x}'", &["t.toml:2: token: write ${env:NAME} or ${file:PATH}"]),
        (
            "[numbers]\nrules = [{ strip = 'x', ad = '+' }]",
            &[
                "t.toml:2: strip: 'x' is no beginning of a number",
                "t.toml:2: unknown key 'ad' in { strip = \"…\", add = \"…\" } (did you mean 'add'?)",
            ],
        ),
        (
            "[[queue]]\nname = 'orders'\nstrategy = 'ring_all'\n\n[[queue]]\nname = 'orders'",
            &[
                "t.toml:3: strategy: 'ring_all' comes with a later release: write longest_idle",
                "t.toml:5: two queues 'orders'",
            ],
        ),
        ("[[queue]]\nring = '15s'", &["t.toml:1: name is missing: name = \"…\""]),
        (
            "[[queue]]\nname = 'a b'\nring = '15s'",
            &["t.toml:2: name: 'a b' is no name; use letters, digits, - _ . and at most 64 of them"],
        ),
        (
            "[[queue]]\nname = 'a'\nring = '0'\nno_answer = 'pause'",
            &[
                "t.toml:3: ring is at least 1s",
                "t.toml:4: no_answer: 'pause' is neither never nor pause_after:N",
            ],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(mistakes(text), expected, "{text}");
    }
}

#[test]
fn a_trunk_has_what_its_kind_needs() {
    let table: [(&str, &[&str]); 6] = [
        ("", &["t.toml:1: g: a gateway needs a password"]),
        (
            "kind = 'provider'",
            &[
                "t.toml:1: g: a provider needs server, where we register",
                "t.toml:1: g: a provider needs a password",
            ],
        ),
        (
            "kind = 'peer'",
            &[
                "t.toml:1: g: a peer needs server, where its calls are sent",
                "t.toml:1: g: a peer needs accept_from, where its calls come from",
            ],
        ),
        (
            "kind = 'peer'\nserver = 'host:x'\naccept_from = ['192.0.2.1']",
            &[
                "t.toml:1: g: a peer needs server, where its calls are sent",
                "t.toml:4: server: 'host:x': 'x' is no port",
            ],
        ),
        (
            "password = 'p'\ndtmf = 'info'\ncodecs = []\ntransport = 'tcp'\nanswer = 'early_media'",
            &[
                "t.toml:1: g: codecs is empty",
                "t.toml:4: dtmf: 'info' comes with a later release: write rfc4733",
                "t.toml:6: transport: 'tcp' comes with a later release: write udp",
                "t.toml:7: answer: 'early_media' comes with a later release: write at_once",
            ],
        ),
        ("password = 'p'\nusername = 'a\" b'", &["t.toml:4: username: 'a\" b' cannot be a username"]),
    ];
    for (text, expected) in table {
        assert_eq!(mistakes(&format!("[[trunk]]\nname = 'g'\n{text}")), expected, "{text}");
    }
    let two = "[[trunk]]\nname = 'a'\npassword = 'p'\n";
    assert_eq!(mistakes(&two.repeat(2)), ["t.toml:4: two trunks 'a'"]);
    let same_user = "[[trunk]]\nname = 'b'\npassword = 'p'\nusername = 'a'\n";
    assert_eq!(mistakes(&format!("{two}{same_user}")), ["t.toml:4: two gateways with the username 'a'"]);
}

#[test]
fn the_servers_of_a_provider_are_a_text_a_list_or_both() {
    for text in ["'a.example.net, b.example.net:5070'", "['a.example.net', 'b.example.net:5070']"] {
        let text = format!("[[trunk]]\nname = 'g'\nkind = 'provider'\npassword = 'p'\nserver = {text}\n");
        let trunk = good(&text).trunks.remove(0);
        assert_eq!(trunk.servers, ["a.example.net", "b.example.net:5070"]);
        assert_eq!((trunk.kind, trunk.username.as_str()), (TrunkKind::Provider, "g"));
    }
    let wrong = "[[trunk]]\nname = 'g'\nkind = 'provider'\npassword = 'p'\nserver = 'a, b:x'\nexpires = '10s'\n\
                 health_every = '1s'\nhealth_timeout = '0s'\nrealm = \"a\\nb\"\n";
    let found = mistakes(wrong).join("\n");
    for text in [
        "t.toml:5: server: 'a, b:x'",
        "expires is at least 1m",
        "health_every is at least 5s",
        "health_timeout is at least 1s",
        "cannot be a realm",
    ] {
        assert!(
            found.contains(text) || found.contains(&text.replace("'a, b:x'", "'b:x'")),
            "{text}: {found}"
        );
    }
}

#[test]
fn secrets_are_fetched_and_never_printed() {
    let config =
        good("[orders]\ntoken = '${file:/run/token}'\n[[trunk]]\nname = 'g'\npassword = '${env:PW}'\n");
    assert_eq!(config.orders.token.expose(), "file /run/token");
    assert_eq!(config.trunks[0].password.expose(), "env PW");
    let printed = format!("{config:?}");
    assert!(!printed.contains("/run/token") && !printed.contains("env PW"));
}

#[test]
fn a_secret_in_a_file_has_no_line_end() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, config) = (folder.path().join("token"), folder.path().join("tandem.toml"));
    std::fs::write(&secret, "s3cret\n").unwrap();
    std::fs::write(&config, format!("[orders]\ntoken = '${{file:{}}}'\n", secret.display())).unwrap();
    assert_eq!(Config::load(Some(&config)).unwrap().orders.token.expose(), "s3cret");
    std::fs::remove_file(&secret).unwrap();
    let mistake = Config::load(Some(&config)).unwrap_err().remove(0);
    assert_eq!(mistake.line, 2);
    assert!(!mistake.text.contains("s3cret"));
}

#[test]
fn what_has_no_effect_or_is_risky_is_warned_about() {
    let shown = warnings("[web]\nlisten = '0.0.0.0:8080'\n[orders]\ncore = ['http://core']\n");
    for text in [
        "t.toml:2: browsers give a microphone",
        "t.toml:3: the order core is asked without a token",
        "recording comes",
    ] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    assert!(shown.contains("any number may be dialled"));
}

#[test]
fn emergency_numbers_pass_every_fence() {
    let limits = good("[limits]\ndestinations = ['+380']").limits;
    for (number, allowed) in [("+380671234567", true), ("+48221234567", false), ("112", true), ("113", false)]
    {
        assert_eq!(limits.allow(&Number::new(number)), allowed, "{number}");
    }
    assert!(Limits::default().allow(&Number::new("113")));
}

#[test]
fn a_trunks_own_rules_come_before_everybodys() {
    let config = good(
        "[numbers]\nrules = [{ strip = '0', add = '+380' }]\n[[trunk]]\nname = 'g'\npassword = 'p'\nnumber_rules = [{ strip = '380', add = '+380' }]\n",
    );
    let rules = config.caller_rules(&config.trunks[0]);
    for presented in ["380671234567", "0671234567"] {
        let number = crate::dialplan::caller(presented, &rules).unwrap();
        assert_eq!(number.reveal(), "+380671234567");
    }
}

#[test]
fn a_group_names_trunks_that_are_there_and_shares_that_make_a_hundred() {
    let trunks: String = ["gsm-1", "gsm-2", "sip"]
        .map(|name| format!("[[trunk]]\nname = '{name}'\npassword = 'p'\n"))
        .concat();
    let group = |text: &str| format!("{trunks}[[group]]\nname = 'g'\n{text}\n");
    let shared = good(&group("trunks = ['sip', 'gsm-*']\nchoose = 'share'\nshares = ['60%', '40%']")).groups;
    assert_eq!((shared[0].trunks.len(), shared[0].shares.as_slice()), (3, &[60, 20, 20][..]));
    assert_eq!(good(&group("trunks = ['*']\nchoose = 'share'")).groups[0].shares, [33, 33, 33]);
    for (text, expected) in [
        ("trunks = ['gms-1']", "t.toml:12: trunks: unknown trunk 'gms-1' (did you mean 'gsm-1'?)"),
        ("trunks = []", "t.toml:10: g: a group needs trunks = [\"gsm-1\", \"gsm-*\"]"),
        ("trunks = ['sip']\nchoose = 'lest_used'", "t.toml:13: choose: unknown word 'lest_used'"),
        (
            "trunks = ['sip']\nchoose = 'share'\nshares = ['60%']",
            "t.toml:10: g: the shares make 100 % together",
        ),
        ("trunks = ['sip']\nchoose = 'share'\nshares = ['6']", "'6' is no share"),
        ("trunks = ['*']\nshares = ['100%']", "t.toml:10: g: shares go with choose = \"share\""),
        ("trunks = ['*']\nchoose = 'share'\nshares = ['50%', '50%']", "one share for each entry"),
    ] {
        let found = mistakes(&group(text)).join("\n");
        assert!(
            found.contains(expected) || found.contains("did you mean 'least_used'"),
            "{expected}: {found}"
        );
    }
    let same = format!("{trunks}[[group]]\nname = 'sip'\ntrunks = ['sip']\n");
    assert_eq!(mistakes(&same), ["t.toml:10: sip: a trunk has this name"]);
}

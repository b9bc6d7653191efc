//! The messages of RFC 4475 and RFC 5118, and thousands made by seed, at the machine: each gets the verdict that the
//! RFC asks for, and after each the machine answers as ever.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use bytes::Bytes;

use super::hand::{Hand, udp};
use crate::fact::Cause;
use crate::sip::message::{Message, Method, Name, ReadError};
use crate::sip::{Command, Event};

/// A trunk that need not say a password, so that nothing hides behind a challenge.
const PEER: &str = "192.0.2.70:5060";

fn fixtures(folder: &str) -> BTreeMap<String, Bytes> {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sip/torture").join(folder);
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let sip = entries.filter(|path| path.extension().is_some_and(|ext| ext == "sip"));
    sip.map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, Bytes::from(std::fs::read(path).unwrap()))
    })
    .collect()
}

fn all() -> BTreeMap<String, Bytes> {
    let mut all = fixtures("valid");
    all.extend(fixtures("invalid"));
    all
}

/// Everything that comes back is an answer to it; the last final one, or a provisional one, or 0 for silence.
fn verdict(hand: &mut Hand, text: &[u8]) -> u16 {
    hand.events.clear();
    let answers = hand.octets(udp(PEER), text);
    let code = |answer: &Bytes| String::from_utf8_lossy(&answer[8..11]).parse::<u16>().unwrap();
    assert!(answers.iter().all(|answer| answer.starts_with(b"SIP/2.0 ")), "{answers:?}");
    answers.last().map_or(0, code)
}

/// Ends what a message may have begun.
fn hang_up(hand: &mut Hand) {
    let cause = Cause { q850: 16, sip: 0, words: "over".into() };
    for event in std::mem::take(&mut hand.events) {
        if let Event::Invited(invited) = event {
            hand.tell(Command::Reject { leg: invited.leg, code: 486, cause: cause.clone() });
        }
    }
}

fn options(number: usize) -> String {
    format!(
        "OPTIONS sip:tandem.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.70:5060;branch=z9hG4bKafter{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:after@192.0.2.70>;tag=after\r\nTo: <sip:tandem.test>\r\n\
         Call-ID: after-{number}\r\nCSeq: {} OPTIONS\r\nContent-Length: 0\r\n\r\n",
        number + 1
    )
}

fn is_well(hand: &mut Hand, number: usize, after: &[u8]) {
    hang_up(hand);
    let response = hand.ask(udp(PEER), &options(number));
    assert_eq!(response.code, 200, "after {}", String::from_utf8_lossy(after));
    assert_eq!(response.headers.call_id().unwrap(), format!("after-{number}"));
}

/// RFC 4475 section 3, each file with what its section lets an endpoint do; 0 is silence. Where a section leaves a
/// choice, ours stands here with its reason.
const RFC_4475: [(&str, u16); 49] = [
    // 3.1.1 valid
    ("wsinv", 481), // a To tag that is none of ours
    ("intmeth", 501),
    ("esc01", 100),
    ("escnull", 401), // read, and asked who it is as every REGISTER is
    ("esc02", 501),
    ("lwsdisp", 200),
    ("longreq", 100),
    ("dblreq", 401), // the first is a REGISTER; the second is dropped, not answered
    ("semiuri", 200),
    ("transports", 200),
    ("mpart01", 405),
    ("unreason", 0), // answers to nothing of ours
    ("noreason", 0),
    // 3.1.2 invalid
    ("badinv01", 400),
    ("clerr", 400),
    ("ncl", 400),
    ("scalar02", 400),
    ("scalarlg", 0), // an answer: dropped
    ("quotbal", 400),
    ("ltgtruri", 400),
    ("lwsruri", 400),
    ("lwsstart", 400),
    ("trws", 400),
    ("escruri", 400),
    ("baddate", 100),  // "may ignore": Date means nothing to us
    ("regbadct", 401), // the registrar's part, behind the question who it is
    ("badaspec", 200), // "may infer" the missing brackets
    ("baddn", 200),    // "may be liberal"
    ("badvers", 505),
    ("mismatch01", 400),
    ("mismatch02", 400),
    ("bigcode", 0), // an answer: dropped
    // 3.2 transaction layer
    ("badbranch", 200),
    // 3.3 application layer
    ("insuf", 0), // "ideally 400": without From, To and Call-ID nobody can match it
    ("unkscm", 416),
    ("novelsc", 416),
    ("unksm2", 401),
    ("bext01", 420),
    ("invut", 415),
    ("regaut01", 401),
    ("multi01", 400),
    ("mcl01", 400),
    ("bcast", 0),
    ("zeromf", 483),
    ("cparam01", 401),
    ("cparam02", 401),
    ("regescrt", 401),
    ("sdp01", 100), // "could" be 406; a caller who takes no SDP by his own words takes it in fact
    // 3.4
    ("inv2543", 400), // read, but without Contact nobody could end the call (RFC 3261 section 8.1.1.8)
];

#[test]
fn the_messages_of_rfc_4475_get_the_verdict_of_their_section() {
    let all = all();
    let mut wrong = Vec::new();
    for (number, (name, expected)) in RFC_4475.into_iter().enumerate() {
        let text = all.get(name).unwrap_or_else(|| panic!("no {name}"));
        let mut hand = Hand::new();
        let got = verdict(&mut hand, text);
        if got != expected {
            wrong.push(format!("{name}: {got} instead of {expected}"));
        }
        is_well(&mut hand, number, text);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// RFC 5118 section 4, made after its text. The machine looks at the bytes and at the source of the datagram only.
#[test]
fn the_messages_of_rfc_5118_get_the_verdict_of_their_section() {
    let request = |method: &str, uri: &str, via: &str, more: &str, body: &str| {
        format!(
            "{method} {uri} SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\nFrom: <sip:user@example.com>;tag=81x2\r\n\
             To: <sip:user@example.com>\r\nCall-ID: SSG9559905523997077\r\nCSeq: 98176 {method}\r\n{more}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let via = "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111";
    let contact = "Contact: \"Caller\" <sip:caller@[2001:db8::1]>\r\n";
    let two_families = "v=0\r\no=bob 280744730 28977631 IN IP4 host.example.com\r\ns=\r\nt=0 0\r\n\
        m=audio 22334 RTP/AVP 0 8\r\nc=IN IP4 192.0.2.1\r\nm=video 6024 RTP/AVP 107\r\nc=IN IP6 2001:db8::1\r\n";
    let sdp = "v=0\r\no=assistant 971731711378798081 0 IN IP6 2001:db8::20\r\ns=Live\r\n\
        c=IN IP6 2001:db8::20\r\nt=3338481189 3370017201\r\nm=audio 6000 RTP/AVP 8\r\n";
    let kind = format!("{contact}Content-Type: application/sdp\r\n");
    for (number, (section, text, expected)) in [
        ("4.1 bracketed", request("REGISTER", "sip:[2001:db8::10]", via, contact, ""), 401),
        ("4.2 unbracketed", request("REGISTER", "sip:2001:db8::10", via, contact, ""), 400),
        ("4.3 port or not", request("REGISTER", "sip:[2001:db8::10:5070]", via, contact, ""), 401),
        ("4.4 port", request("REGISTER", "sip:[2001:db8::10]:5070", via, contact, ""), 401),
        (
            "4.5 received in brackets",
            request("OPTIONS", "sip:[2001:db8::10]", &format!("{via};received=[2001:db8::9:255]"), "", ""),
            200,
        ),
        (
            "4.5 received without",
            request("OPTIONS", "sip:[2001:db8::10]", &format!("{via};received=2001:db8::9:255"), "", ""),
            200,
        ),
        ("4.6 in SDP", request("INVITE", "sip:user@[2001:db8::10]", via, &kind, sdp), 100),
        (
            "4.7 both families in headers",
            request(
                "OPTIONS",
                "sip:user@host.example.net",
                &format!(
                    "{via}\r\nVia: SIP/2.0/TCP [2001:db8::2]:5060;branch=z9hG4bK2, SIP/2.0/UDP 192.0.2.3"
                ),
                "",
                "",
            ),
            200,
        ),
        (
            "4.8 both families in SDP",
            request("INVITE", "sip:user@[2001:db8::10]", via, &kind, two_families),
            100,
        ),
        (
            "4.9 mapped",
            request(
                "INVITE",
                "sip:user@[::ffff:192.0.2.10]:19823",
                &via.replace("2001:db8::9:1", "::ffff:192.0.2.2"),
                &kind,
                sdp,
            ),
            100,
        ),
        ("4.10 three colons", request("OPTIONS", "sip:user@[2001:db8:::192.0.2.1]", via, "", ""), 400),
    ]
    .into_iter()
    .enumerate()
    {
        let mut hand = Hand::new();
        assert_eq!(verdict(&mut hand, text.as_bytes()), expected, "{section}");
        // Section 4.5: what a client writes into `received` is never where the answer goes.
        is_well(&mut hand, number, text.as_bytes());
    }
    let (_, text) =
        ("", request("OPTIONS", "sip:[2001:db8::10]", &format!("{via};received=[2001:db8::9:255]"), "", ""));
    let answer = Hand::new().ask(udp(PEER), &text);
    assert_eq!(answer.headers.via_top().unwrap().received(), Some("192.0.2.70".parse().unwrap()));
    let ambiguous = crate::sip::uri::Uri::read(b"sip:[2001:db8::10:5070]").unwrap();
    assert_eq!((ambiguous.host.ip(), ambiguous.port), (Some("2001:db8::10:5070".parse().unwrap()), None));
}

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// A request in pieces: line, header lines as name and value, body.
struct Pieces {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Pieces {
    fn new(dice: &mut Dice, number: usize) -> Self {
        let method = dice.pick(&["OPTIONS", "INVITE", "MESSAGE", "REGISTER", "INFO"]);
        let body = dice.pick(&["", "v=0\r\n", "hello"]).to_owned();
        let header = |name: &str, value: String| (name.to_owned(), value);
        let headers = vec![
            header("Via", format!("SIP/2.0/UDP 192.0.2.70:5060;branch=z9hG4bKp{number};rport")),
            header("Via", "SIP/2.0/TCP far.example.com;branch=z9hG4bKfar".into()),
            header("Max-Forwards", "70".into()),
            header("From", format!("\"Ann, \\\"A\\\"\" <sip:ann@example.com;x=1>;tag=f{number}")),
            header("To", "<sip:+380441234567@tandem.test>".into()),
            header("Call-ID", format!("p{number}@example.com")),
            header("CSeq", format!("{} {method}", number + 1)),
            header("Contact", "<sip:ann@192.0.2.70:5060>;q=0.5".into()),
            header("Subject", "a:b, c;d".into()),
        ];
        Self { line: format!("{method} sip:+380441234567@tandem.test SIP/2.0"), headers, body }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{text}Content-Length: {}\r\n\r\n{}", self.body.len(), self.body)
    }

    fn find(&mut self, name: &str) -> &mut (String, String) {
        self.headers.iter_mut().find(|(known, _)| known == name).unwrap()
    }

    /// One change that means nothing (RFC 3261 sections 7.3.1, 7.3.3, 25.1).
    fn rework(&mut self, dice: &mut Dice) {
        let at = dice.below(self.headers.len());
        match dice.below(9) {
            0 => self.headers[at].0 = self.headers[at].0.to_uppercase(),
            1 => self.headers[at].0 = self.headers[at].0.to_lowercase(),
            2 => self.headers[at].0.push_str(dice.pick(&[" ", "\t", " \t "])),
            3 => self.headers[at].1.insert_str(0, dice.pick(&["  ", "\t", "\r\n ", "\r\n\t  "])),
            4 => self.headers[at].1.push_str(dice.pick(&["  ", "\t", "\r\n "])),
            5 => {
                let compact = [
                    ("Via", "v"),
                    ("From", "f"),
                    ("To", "t"),
                    ("Call-ID", "i"),
                    ("Contact", "m"),
                    ("Subject", "s"),
                ];
                let short = compact.iter().find(|(long, _)| *long == self.headers[at].0);
                if let Some((_, short)) = short {
                    self.headers[at].0 = (*short).to_owned();
                }
            }
            6 => {
                let odd = dice.pick(&["X-Odd", "NewFangled!'~", "P-x.y"]).to_owned();
                let value =
                    dice.pick(&["", ";;,,;;,;", "\u{442}\u{435}\u{441}\u{442}", "\"a\\\"b\"", "a: b: c"]);
                let end = self.headers.len();
                self.headers.insert(at.max(2).min(end), (odd, value.to_owned()));
            }
            7 => {
                let max = self.headers.iter_mut().find(|(name, _)| name == "Max-Forwards");
                if let Some((_, value)) = max {
                    *value = format!("00{}", value.trim());
                }
            }
            _ => {
                // Vias keep their order among themselves; everything else may move.
                let other = dice.below(self.headers.len());
                let is_via = |name: &str| matches!(name.trim().to_lowercase().as_str(), "via" | "v");
                if !is_via(&self.headers[at].0) && !is_via(&self.headers[other].0) {
                    self.headers.swap(at, other);
                }
            }
        }
    }
}

type Meaning = (Method, String, Vec<String>, Vec<Option<String>>, String, (u32, Method), Option<u32>, Bytes);

fn meaning(text: &str) -> Meaning {
    let message = Message::read_datagram(&Bytes::copy_from_slice(text.as_bytes()));
    let Ok(Message::Request(request)) = message else { panic!("{message:?}\n{text}") };
    let headers = &request.headers;
    let tag = |address: crate::sip::header::NameAddr| address.tag().map(str::to_owned);
    (
        request.method.clone(),
        String::from_utf8_lossy(&request.uri).into_owned(),
        headers.vias().unwrap().iter().map(ToString::to_string).collect(),
        vec![tag(headers.from().unwrap()), tag(headers.to().unwrap())],
        headers.call_id().unwrap().to_owned(),
        headers.cseq().unwrap(),
        headers.max_forwards().unwrap(),
        request.body.clone(),
    )
}

#[test]
fn two_thousand_reworked_messages_mean_what_they_meant_and_get_the_same_answer() {
    let mut dice = Dice(4475);
    for number in 0..2_000 {
        let mut pieces = Pieces::new(&mut dice, number);
        let plain = pieces.text();
        for _ in 0..1 + dice.below(12) {
            pieces.rework(&mut dice);
        }
        let reworked = pieces.text();
        assert_eq!(meaning(&reworked), meaning(&plain), "{number}\n{reworked}");
        if number % 8 == 0 {
            let (mut one, mut other) = (Hand::new(), Hand::new());
            let code = verdict(&mut one, plain.as_bytes());
            assert_eq!(verdict(&mut other, reworked.as_bytes()), code, "{number}\n{reworked}");
            assert_ne!(code, 400, "{plain}");
            is_well(&mut other, number, reworked.as_bytes());
        }
    }
}

/// The negative twin: one thing broken, said with 400 (or 505, or dropped where nothing can be answered).
#[test]
fn a_thousand_messages_with_one_thing_broken_are_refused() {
    let mut dice = Dice(3261);
    let mut seen = BTreeMap::<u16, usize>::new();
    for number in 0..1_000 {
        let mut pieces = Pieces::new(&mut dice, number);
        let mut expected = 400;
        let mut broken = None;
        match dice.below(14) {
            0 => pieces.find("CSeq").1 = format!("{} SUBSCRIBE", number),
            1 => pieces.find("CSeq").1 = "4294967296 INVITE".into(),
            2 => pieces.find("Max-Forwards").1 = dice.pick(&["x", "-1", "70 70", "7e1"]).into(),
            3 => pieces.find("From").1 = "\"Ann <sip:ann@example.com>;tag=1".into(),
            4 => {
                let again = (dice.pick(&["From", "To", "Call-ID", "CSeq"])).to_owned();
                let value = pieces.find(&again).1.clone();
                pieces.headers.push((again, value));
            }
            5 => pieces.line = pieces.line.replace("sip:", "<sip:").replace(" SIP/", "> SIP/"),
            6 => pieces.line = pieces.line.replace("tandem.test", "tandem.test?Subject=x"),
            7 => {
                pieces.line = pieces
                    .line
                    .replace("tandem.test", dice.pick(&["", ":5060", "a b", "2001:db8::1", "h:99999"]))
            }
            8 => pieces.line.push(' '),
            9 => pieces.headers.push(("Bad Name".into(), "x".into())),
            10 => broken = Some(pieces.text().replace("Content-Length: ", "Content-Length: 9")),
            11 => broken = Some(pieces.text().replace("Content-Length: ", "Content-Length: -")),
            12 => {
                pieces.line = pieces.line.replace("SIP/2.0", "SIP/7.0");
                expected = 505;
            }
            _ => {
                let name = dice.pick(&["From", "To", "Call-ID", "CSeq"]);
                pieces.headers.retain(|(known, _)| known != name);
                expected = 0;
            }
        }
        let text = broken.unwrap_or_else(|| pieces.text());
        let mut hand = Hand::new();
        assert_eq!(verdict(&mut hand, text.as_bytes()), expected, "{number}\n{text}");
        *seen.entry(expected).or_default() += 1;
        if number % 8 == 0 {
            is_well(&mut hand, number, text.as_bytes());
        }
    }
    assert!(seen[&400] > 500 && seen[&505] > 20 && seen[&0] > 20, "{seen:?}");
}

/// What PROTOS c07 puts into fields: long runs, format strings, bad escapes, numbers, addresses, octets.
fn anomalies() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for unit in [
        "a", "/", "%", ":", ";", "@", "<", "\"", "(", " ", "\t", "=", ",", ".", "[", "%s", "%n", "%00", "\\",
        "\u{fffd}",
    ] {
        all.extend([0, 1, 2, 16, 127, 255, 1_024, 4_096].map(|times| unit.repeat(times).into_bytes()));
    }
    for text in [
        "%",
        "%4",
        "%zz",
        "%00",
        "%0d%0a",
        "%s%s%s%n",
        "-1",
        "0",
        "00000000000000000001",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1e9",
        "0x10",
        "+1",
        "1 2",
        "999.999.999.999",
        "1.2.3",
        "1.2.3.4.5",
        "0.0.0.0",
        "255.255.255.255",
        "[::1",
        "::1]",
        "[:::]",
        "[1:2:3:4:5:6:7:8:9]",
        "[::ffff:1.2.3.4]",
        "SIP/2.0",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP :5060",
        "SIP/2.0/UDP h:0",
        "SIP/2.0/UDP h:65536",
        "sip:",
        "sip:@",
        "sip:a@",
        "sip:a@b:",
        "sip:a@b;",
        "sip:a@b?",
        "sip:a@b;tag",
        "<sip:a@b",
        "sip:a@b>",
        "<>",
        "\"\"<sip:a@b>",
        "<sip:a@b>;tag=",
        "Digest",
        "Digest ",
        "Digest realm",
        "Digest realm=\"",
        "Digest username=\"a\",,,",
        "1 INVITE INVITE",
        "INVITE 1",
        "INVITE",
        "application/",
        "/sdp",
        "application/sdp;",
        "multipart/mixed",
        "*",
        "\r",
        "a\rb",
        "\r\n",
        "\n\n",
        "a\0b",
    ] {
        all.push(text.as_bytes().to_vec());
    }
    all.extend((0..=31).chain(127..=159).map(|octet| vec![b'a', octet, b'b']));
    all.push(b"\x16UD~PTo :::]".to_vec());
    all
}

const FIELDS: [&str; 24] = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Max-Forwards",
    "Contact",
    "Content-Length",
    "Content-Type",
    "Route",
    "Record-Route",
    "Require",
    "Supported",
    "Expires",
    "Authorization",
    "Session-Expires",
    "Min-SE",
    "Accept",
    "Content-Encoding",
    "Replaces",
    "P-Asserted-Identity",
    "Reason",
    "RAck",
    "Date",
];

/// Every anomaly in every field of an INVITE (in place of it, behind it, and as a header once more) and in each part of
/// its request line; an OPTIONS after each.
#[test]
fn after_each_of_twenty_thousand_bad_headers_an_options_is_answered() {
    let mut cases = 0;
    let mut codes = BTreeMap::<u16, usize>::new();
    let mut hand = Hand::new();
    let mut attack = |head: &[u8], fields: &[(&str, Vec<u8>)]| {
        if cases % 256 == 0 {
            hand = Hand::new();
        }
        let mut text = [head, b"\r\n"].concat();
        for (name, value) in fields {
            text.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        text.extend_from_slice(b"\r\nv=0\r\n");
        *codes.entry(verdict(&mut hand, &text)).or_default() += 1;
        is_well(&mut hand, cases, &text);
        cases += 1;
    };
    let line = b"INVITE sip:+380441234567@tandem.test SIP/2.0";
    let good = |number: usize| -> Vec<(&str, Vec<u8>)> {
        FIELDS[..9]
            .iter()
            .map(|name| {
                let value = match *name {
                    "Via" => format!("SIP/2.0/UDP 192.0.2.70:5060;branch=z9hG4bKx{number}"),
                    "From" => format!("<sip:a@192.0.2.70>;tag=x{number}"),
                    "To" => "<sip:+380441234567@tandem.test>".into(),
                    "Call-ID" => format!("x{number}"),
                    "CSeq" => "1 INVITE".into(),
                    "Max-Forwards" => "70".into(),
                    "Contact" => "<sip:a@192.0.2.70:5060>".into(),
                    "Content-Length" => "5".into(),
                    _ => "application/sdp".into(),
                };
                (*name, value.into_bytes())
            })
            .collect()
    };
    let mut number = 0;
    for anomaly in anomalies() {
        for field in FIELDS {
            for kind in 0..3 {
                number += 1;
                let mut fields = good(number);
                let at = fields.iter().position(|(name, _)| *name == field);
                match (kind, at) {
                    (0, Some(at)) => fields[at].1 = anomaly.clone(),
                    (1, Some(at)) => fields[at].1.extend_from_slice(&anomaly),
                    (0 | 2, _) => fields.push((field, anomaly.clone())),
                    (_, None) => fields.extend([(field, anomaly.clone()), (field, anomaly.clone())]),
                    _ => unreachable!(),
                }
                attack(line, &fields);
            }
        }
        for head in [
            [&anomaly[..], b" sip:a@tandem.test SIP/2.0"].concat(),
            [b"INVITE ", &anomaly[..], b" SIP/2.0"].concat(),
            [b"INVITE sip:", &anomaly[..], b"@tandem.test SIP/2.0"].concat(),
            [b"INVITE sip:a@", &anomaly[..], b" SIP/2.0"].concat(),
            [b"INVITE sip:a@tandem.test;", &anomaly[..], b" SIP/2.0"].concat(),
            [b"INVITE sip:a@tandem.test ", &anomaly[..]].concat(),
            [b"SIP/2.0 ", &anomaly[..], b" OK"].concat(),
        ] {
            number += 1;
            attack(&head, &good(number));
        }
    }
    assert!(cases > 20_000, "{cases}");
    assert!(codes[&400] > cases / 4 && codes.contains_key(&100), "{codes:?}");
    assert!(codes.keys().all(|code| *code < 500 || matches!(code, 501 | 505)), "{codes:?}");
}

fn asked(more: &str, body: &str) -> String {
    format!(
        "{{m}} sip:+380441234567@tandem.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.70:5060;branch=z9hG4bKq\r\nMax-Forwards: 70\r\n\
         From: <sip:a@192.0.2.70>;tag=q\r\nTo: <sip:+380441234567@tandem.test>\r\nCall-ID: q\r\nCSeq: 1 {{m}}\r\n\
         Contact: <sip:a@192.0.2.70:5060>\r\n{more}\r\n{body}"
    )
}

#[test]
fn named_attacks_on_headers_get_their_answer() {
    let of = |method: &str, more: &str, body: &str| asked(more, body).replace("{m}", method);
    let many = "Accept: application/sdp\r\n".repeat(200);
    let huge = format!("X-Huge: {}\r\n", "x".repeat(66_000));
    let parts = format!("Content-Type: multipart/mixed;boundary=b\r\n{}", "");
    let body = "--b\r\nContent-Type: multipart/mixed;boundary=b\r\n\r\n".repeat(100);
    for (number, (text, expected)) in [
        // OpenSIPS audit 2022: a Via of control octets.
        (
            of("INVITE", "", "")
                .replace("SIP/2.0/UDP 192.0.2.70:5060;branch=z9hG4bKq", "SIP/2.0/\x16UD~PTo :::]"),
            0,
        ),
        // CVE-2023-28098: credentials that end inside a name.
        (of("INVITE", "Authorization: Digest username=\"a\", rea\r\n", ""), 100),
        // GHSA-358f-935m-7p9c: a Request-URI without a host.
        (of("INVITE", "", "").replace("@tandem.test SIP", "@:5060 SIP"), 400),
        (of("INVITE", "", "").replace("sip:+380441234567@tandem.test SIP", "sip: SIP"), 400),
        // CVE-2026-45084: PUBLISH without a type.
        (of("PUBLISH", "Event: presence\r\n", "x"), 489),
        (of("PUBLISH", "Event: presence\r\nContent-Type:\r\n", "x"), 489),
        // Numbers beyond their octets.
        (of("INVITE", "", "").replace("CSeq: 1", "CSeq: 4294967296"), 400),
        (of("INVITE", "Content-Length: -1\r\n", ""), 400),
        (of("INVITE", "Content-Length: 4294967328\r\n", "v=0\r\n"), 400),
        (of("INVITE", "Content-Length: 5\r\nContent-Length: 6\r\n", "v=0\r\n\r\n"), 400),
        // Headers without end.
        (of("SUBSCRIBE", &many, ""), 400),
        (of("INVITE", &huge, ""), 0),
        (of("INVITE", &"X: y\r\n".repeat(10_000), ""), 400),
        // Bodies in bodies: refused by their type, never opened.
        (of("INVITE", &parts, &body), 415),
        (of("INVITE", "Content-Type: multipart/mixed;boundary=\r\n", "--\r\n"), 415),
        (of("INVITE", "Content-Type: multipart/mixed\r\n", "--\r\n"), 415),
        (
            of("INVITE", "Content-Type: multipart/mixed;boundary=b\r\n", &"--b\r\n\r\nx\r\n".repeat(5_000)),
            415,
        ),
        // What two readers would read differently.
        (of("INVITE", "X-Internal\0: v\r\n", ""), 400),
        (of("INVITE", "X-A: v\rX-Internal: v\r\n", ""), 400),
        (of("INVITE", "X-A: v\0X-Internal: v\r\n", ""), 400),
        (of("INVITE", "From: <sip:b@c>;tag=2\r\n", ""), 400),
        (of("INVITE", "To: <sip:b@c>\r\n", ""), 400),
        (of("INVITE", " X-Internal: v\r\n", ""), 400),
    ]
    .into_iter()
    .enumerate()
    {
        let mut hand = Hand::new();
        assert_eq!(
            verdict(&mut hand, text.as_bytes()),
            expected,
            "{number} {}",
            &text[..text.len().min(900)]
        );
        is_well(&mut hand, number, text.as_bytes());
    }
}

/// A peer's own headers never reach the other side of a call, in whatever spelling (GHSA CVE-2020-28361): an
/// INVITE of ours is written from nothing.
#[test]
fn no_header_of_a_caller_is_on_the_way_to_a_phone() {
    for spelled in [
        "X-Tandem-Call: evil",
        "X-Tandem-Call : evil",
        "x-tandem-call\t:\r\n evil",
        "Call-Info:evil\r\nX-TANDEM-CALL: evil",
    ] {
        let mut hand = Hand::new();
        assert_eq!(hand.register_as(super::hand::ws(1), "op1", "secret", 600, 1).code, 200);
        let text = asked(&format!("{spelled}\r\n"), "").replace("{m}", "INVITE");
        assert_eq!(verdict(&mut hand, text.as_bytes()), 100);
        let (_, _, invite) = hand.call_op1();
        assert!(!String::from_utf8_lossy(&invite.to_bytes()).contains("evil"), "{spelled}");
        assert!(invite.headers.has(&Name::CallInfo));
    }
}

/// Damage from a seed to everything that was recorded or typed, a hundred thousand times.
#[test]
fn a_hundred_thousand_damaged_messages_are_read_or_refused() {
    let mut dice = Dice(1);
    let seeds: Vec<Bytes> = all().into_values().collect();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..100_000 {
        let mut text = seeds[dice.below(seeds.len())].to_vec();
        for _ in 0..1 + dice.below(6) {
            let at = dice.below(text.len().max(1)).min(text.len().saturating_sub(1));
            match dice.below(5) {
                0 => text[at] ^= 1 << dice.below(8),
                1 => text.insert(at, b"\r\n\";,<>=: \0%@[]"[dice.below(15)]),
                2 if text.len() > 1 => drop(text.remove(at)),
                3 => {
                    let end = (at + dice.below(40)).min(text.len());
                    let piece = text[at..end].to_vec();
                    let to = dice.below(text.len());
                    text.splice(to..to, piece);
                }
                _ => {
                    let other = &seeds[dice.below(seeds.len())];
                    let from = dice.below(other.len());
                    text.truncate(at.max(1));
                    text.extend_from_slice(&other[from..]);
                }
            }
        }
        match Message::read_datagram(&Bytes::from(text)) {
            Ok(message) => {
                read += 1;
                let written = message.to_bytes();
                assert_eq!(Message::read_datagram(&written).unwrap().to_bytes(), written);
            }
            Err(
                ReadError::Bad { .. }
                | ReadError::Unanswerable(_)
                | ReadError::KeepAlive
                | ReadError::TooLong,
            ) => {
                refused += 1;
            }
        }
    }
    assert!(read > 1_000 && refused > 1_000, "{read} read, {refused} refused");
}

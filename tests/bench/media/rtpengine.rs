//! The peer: Debian's rtpengine in user space, one thread, told what to do over its `ng` protocol.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tandem::media::command::Keys;
use tandem::media::srtp::{Profile, Srtp};
use tandem::terms::Secret;

use crate::Relay;
use crate::wire::{Generator, Shield, cpu_ns};

const NG: u16 = 22_223;
const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";

pub(crate) struct Rtpengine {
    process: Child,
    socket: UdpSocket,
    cookie: u64,
}

/// What `ng` messages are made of.
enum Word<'a> {
    Text(&'a str),
    List(&'a [&'a str]),
}

impl Rtpengine {
    /// What it says of itself, where it is installed.
    pub(crate) fn version() -> Option<String> {
        let told = Command::new("rtpengine").arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&told.stdout).into_owned())
    }

    pub(crate) fn start() -> Option<Self> {
        let mut command = Command::new("rtpengine");
        command.args(["--config-file=none", "--foreground", "--table=-1", "--interface=127.0.0.1"]);
        command.args(["--log-stderr", "--log-level=2", "--port-min=30000", "--port-max=38999"]);
        command.args(["--timeout=120", "--num-threads=1"]).arg(format!("--listen-ng=127.0.0.1:{NG}"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", NG)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut made = Self { process, socket, cookie: 0 };
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(100));
            if made.ask(&[("command", Word::Text("ping"))]).is_some() {
                return Some(made);
            }
        }
        panic!("rtpengine does not answer");
    }

    /// Sends a dictionary (its keys must be sorted) and returns the answer's text.
    fn ask(&mut self, words: &[(&str, Word<'_>)]) -> Option<String> {
        self.cookie += 1;
        let mut text = format!("{} d", self.cookie);
        let put = |text: &mut String, word: &str| text.push_str(&format!("{}:{word}", word.len()));
        for (key, word) in words {
            put(&mut text, key);
            match word {
                Word::Text(word) => put(&mut text, word),
                Word::List(list) => {
                    text.push('l');
                    list.iter().for_each(|word| put(&mut text, word));
                    text.push('e');
                }
            }
        }
        text.push('e');
        self.socket.send(text.as_bytes()).ok()?;
        let mut buffer = [0; 65_536];
        loop {
            let len = self.socket.recv(&mut buffer).ok()?;
            let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if let Some((cookie, body)) = answer.split_once(' ')
                && cookie == self.cookie.to_string()
            {
                return Some(body.to_owned());
            }
        }
    }

    fn describe(&mut self, command: &str, call: &str, sdp: &str, transport: &str) -> String {
        let plain =
            [("DTLS", Word::Text("off")), ("ICE", Word::Text("remove")), ("call-id", Word::Text(call))];
        let named = [("command", Word::Text(command)), ("flags", Word::List(&["trust-address"]))];
        let from = [("from-tag", Word::Text("a"))];
        let replaced = [("replace", Word::List(&["origin", "session-connection"])), ("sdp", Word::Text(sdp))];
        let to = (command == "answer").then_some(("to-tag", Word::Text("b")));
        let over = [("transport-protocol", Word::Text(transport))];
        let words = plain.into_iter().chain(named).chain(from).chain(replaced).chain(to).chain(over);
        let answer = self.ask(&words.collect::<Vec<_>>()).expect("rtpengine answers");
        let (_, sdp) = answer.split_once("3:sdp").expect("an answer with a description");
        let (_, sdp) = sdp.split_once(':').unwrap();
        sdp.to_owned()
    }
}

fn sdp(port: u16, transport: &str, more: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} {transport} 0\r\n\
         a=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n{more}"
    )
}

fn port_of(sdp: &str) -> u16 {
    let (_, rest) = sdp.split_once("m=audio ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// Tag and key of the suite that both understand.
fn crypto_of(sdp: &str) -> (String, Vec<u8>) {
    let line = sdp.lines().find(|line| line.starts_with("a=crypto:") && line.contains(SUITE)).unwrap();
    let tag = line["a=crypto:".len()..].split(' ').next().unwrap().to_owned();
    let (_, key) = line.split_once("inline:").unwrap();
    let key = key.split(['|', ' ']).next().unwrap();
    let unpadded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(key.trim_end_matches('='));
    (tag, unpadded.unwrap())
}

impl Relay for Rtpengine {
    fn set_up(&mut self, generator: &mut Generator, calls: usize, secure: bool) {
        let ours: Vec<u8> = (1..=30).collect();
        for call in 0..calls {
            let name = format!("bench-{call}");
            let pair = &mut generator.parties[call];
            let (a, b) = (pair[0].address().port(), pair[1].address().port());
            let transport = if secure { "RTP/SAVP" } else { "RTP/AVP" };
            let offered = self.describe("offer", &name, &sdp(a, "RTP/AVP", ""), transport);
            pair[1].to.set_port(port_of(&offered));
            let answer = if secure {
                let (tag, theirs) = crypto_of(&offered);
                let keys = Keys {
                    profile: Profile::Aes128CmSha1_80.iana(),
                    local: Secret::new(ours.clone()),
                    remote: Secret::new(theirs),
                };
                pair[1].shield = Shield::Srtp(Box::new(Srtp::new(&keys).unwrap()));
                let line = format!("a=crypto:{tag} {SUITE} inline:{}\r\n", STANDARD.encode(&ours));
                sdp(b, transport, &line)
            } else {
                sdp(b, transport, "")
            };
            let answered = self.describe("answer", &name, &answer, "RTP/AVP");
            pair[0].to.set_port(port_of(&answered));
        }
    }

    fn cpu_ns(&self) -> u64 {
        cpu_ns(self.process.id(), |_| true)
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

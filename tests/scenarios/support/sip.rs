//! SIP as text, by hand: what a peer that shares no code with the switch reads and writes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use md5::{Digest as _, Md5};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long an answer may take; a request is repeated meanwhile.
const ANSWER: Duration = Duration::from_millis(1_500);
const REPEATS: u32 = 12;

/// A word that this process has not used yet.
pub fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A message, split into its parts.
#[derive(Debug, Clone)]
pub struct Message {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Message {
    pub fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        Self { start, headers, body: body.to_owned() }
    }

    /// The first header of this name, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The status; 0 for a request.
    pub fn status(&self) -> u16 {
        let rest = self.start.strip_prefix("SIP/2.0 ").unwrap_or_default();
        rest.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The method of a request, or of the request that is answered.
    pub fn method(&self) -> &str {
        match self.status() {
            0 => self.start.split(' ').next().unwrap_or_default(),
            _ => self.header("CSeq").split(' ').nth(1).unwrap_or_default(),
        }
    }

    /// An answer to this request.
    pub fn answer(&self, status: &str, tag: &str, more: &str, body: &str) -> String {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            match lower.as_str() {
                "via" | "from" | "call-id" | "cseq" | "record-route" => {
                    text += &format!("{name}: {value}\r\n")
                }
                "to" if value.contains("tag=") || tag.is_empty() => text += &format!("To: {value}\r\n"),
                "to" => text += &format!("To: {value};tag={tag}\r\n"),
                _ => {}
            }
        }
        text + more + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    /// The address inside the angle brackets of a header.
    pub fn uri_of(&self, header: &str) -> String {
        let value = self.header(header);
        let inner = value.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        inner.map_or(value, |(uri, _)| uri).to_owned()
    }
}

fn md5(text: &str) -> String {
    hex::encode(Md5::digest(text.as_bytes()))
}

/// `Authorization` for a challenge (RFC 2617, MD5, qop=auth).
pub fn authorization(challenge: &str, user: &str, password: &str, method: &str, uri: &str) -> String {
    let part = |name: &str| -> String {
        let begin = format!("{name}=\"");
        challenge
            .split_once(&begin)
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("", |(value, _)| value)
            .to_owned()
    };
    let (realm, nonce) = (part("realm"), part("nonce"));
    let ha1 = md5(&format!("{user}:{realm}:{password}"));
    let ha2 = md5(&format!("{method}:{uri}"));
    let response = md5(&format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
    format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", \
         algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c0ffee\""
    )
}

/// A UDP socket that writes SIP to Tandem.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
    pub own: SocketAddr,
}

impl Wire {
    pub async fn to(tandem: SocketAddr) -> Self {
        Self::from_port(0, tandem).await
    }

    /// The same from this port.
    pub async fn from_port(port: u16, tandem: SocketAddr) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        socket.connect(tandem).await.unwrap();
        let own = socket.local_addr().unwrap();
        Self { socket, own }
    }

    /// A request with all that every request has.
    #[expect(clippy::too_many_arguments, reason = "a request has so many parts, and tests name each")]
    pub fn request(
        &self,
        method: &str,
        uri: &str,
        from: &str,
        call: &str,
        cseq: u32,
        more: &str,
        body: &str,
    ) -> String {
        let own = self.own;
        let branch = fresh("z9hG4bK");
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch={branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:{from}@{own}>;tag=from{call}\r\nTo: <{uri}>\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{from}@{own}>\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    pub async fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).await.unwrap();
    }

    /// The next message, if one comes in time.
    pub async fn hear(&self, within: Duration) -> Option<Message> {
        let mut buffer = vec![0; 65_536];
        let length = timeout(within, self.socket.recv(&mut buffer)).await.ok()?.ok()?;
        Some(Message::parse(&String::from_utf8_lossy(&buffer[..length])))
    }

    /// Sends (and, like any client over UDP, repeats) a request until its final answer comes.
    pub async fn ask(&self, request: &str) -> Message {
        let asked = Message::parse(request);
        for _ in 0..REPEATS {
            self.send(request.as_bytes()).await;
            while let Some(answer) = self.hear(ANSWER).await {
                if answer.header("CSeq") == asked.header("CSeq") && answer.status() >= 200 {
                    return answer;
                }
            }
        }
        panic!("no answer to {}", asked.start);
    }

    /// Registers by digest; the answer to the request with the proof.
    pub async fn register(&self, user: &str, password: &str) -> Message {
        let (call, uri) = (fresh("reg"), "sip:tandem.local");
        let request = |cseq: u32, more: &str| {
            let text = self.request("REGISTER", uri, user, &call, cseq, more, "");
            let of_record = format!("<sip:{user}@tandem.local>");
            text.replace(&format!("To: <{uri}>"), &format!("To: {of_record}"))
                .replace(&format!("From: <sip:{user}@{}>", self.own), &format!("From: {of_record}"))
        };
        let first = self.ask(&request(1, "Expires: 600\r\n")).await;
        assert_eq!(first.status(), 401, "{}", first.start);
        let challenges =
            first.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("WWW-Authenticate"));
        let challenge = challenges
            .map(|(_, value)| value)
            .find(|value| value.contains("MD5"))
            .expect("a challenge by MD5");
        let proof = authorization(challenge, user, password, "REGISTER", uri);
        self.ask(&request(2, &format!("Expires: 600\r\nAuthorization: {proof}\r\n"))).await
    }

    /// OPTIONS is answered: the other side lives.
    pub async fn is_answered(&self) {
        let call = fresh("alive");
        let answer = self.ask(&self.request("OPTIONS", "sip:tandem.local", "alive", &call, 1, "", "")).await;
        assert!((200..500).contains(&answer.status()), "{}", answer.start);
    }
}

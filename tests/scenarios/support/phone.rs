//! An operator's telephone without sound: SIP over the real WebSocket, as a browser's phone speaks it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message as Frame, http::HeaderValue};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::desk::Desk;
use super::sip::{Message, authorization, fresh};
use super::wait::until;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a phone does when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// 200 at once.
    Answer,
    /// 200 at once, and the end of the call after its ACK if the caller's number begins so.
    AnswerAndEnd(&'static str),
    /// 180, and nothing until it is told.
    Ring,
}

/// Where a call of the phone stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Ringing,
    /// 200 sent.
    Answered,
    /// The ACK came.
    Up,
    Over,
}

/// One call that the phone got.
#[derive(Debug, Clone)]
pub struct Got {
    pub invite: Message,
    pub stand: Stand,
    tag: String,
}

/// A registered phone.
#[derive(Debug)]
pub struct Phone {
    calls: Arc<Mutex<Vec<Got>>>,
    wishes: mpsc::UnboundedSender<()>,
}

impl Phone {
    /// Connects and registers the phone of a log-in.
    pub async fn start(web: SocketAddr, desk: &Desk, manner: Manner) -> Self {
        let mut request = format!("ws://{web}/sip").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("sip"));
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let line = Line::new(&desk.session["sip"]);
        line.register(&mut socket).await;
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (wishes, wanted) = mpsc::unbounded_channel();
        tokio::spawn(line.live(socket, manner, Arc::clone(&calls), wanted));
        Self { calls, wishes }
    }

    /// All calls it ever got.
    pub fn calls(&self) -> Vec<Got> {
        self.calls.lock().unwrap().clone()
    }

    /// Waits until its last call stands so.
    pub async fn last_is(&self, stand: Stand) -> Got {
        until(&format!("the phone's call is {stand:?}"), || async {
            self.calls().last().filter(|call| call.stand == stand).cloned()
        })
        .await
    }

    /// Answers the call that rings.
    pub fn answer(&self) {
        self.wishes.send(()).unwrap();
    }
}

struct Line {
    user: String,
    password: String,
    domain: String,
    host: String,
}

impl Line {
    fn new(sip: &serde_json::Value) -> Self {
        let text = |key: &str| sip[key].as_str().unwrap().to_owned();
        let domain = text("uri").split_once('@').unwrap().1.to_owned();
        Self {
            user: text("username"),
            password: text("password"),
            domain,
            host: format!("{}.invalid", fresh("h")),
        }
    }

    fn contact(&self) -> String {
        format!("<sip:{}@{};transport=ws>", self.user, self.host)
    }

    async fn register(&self, socket: &mut Socket) {
        let (user, domain, host) = (&self.user, &self.domain, &self.host);
        let (call, mut proof) = (fresh("reg"), String::new());
        for cseq in 1..=2 {
            let branch = fresh("z9hG4bK");
            let text = format!(
                "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/WS {host};branch={branch}\r\nMax-Forwards: 69\r\n\
                 To: <sip:{user}@{domain}>\r\nFrom: <sip:{user}@{domain}>;tag=t{call}\r\nCall-ID: {call}\r\n\
                 CSeq: {cseq} REGISTER\r\nContact: {};reg-id=1;+sip.instance=\"<urn:uuid:{call}>\";expires=600\r\n\
                 {proof}Supported: path, outbound\r\nContent-Length: 0\r\n\r\n",
                self.contact()
            );
            socket.send(Frame::Text(text.into())).await.unwrap();
            let answer = next(socket).await.expect("an answer to REGISTER");
            if answer.status() == 200 {
                return;
            }
            assert_eq!((answer.status(), cseq), (401, 1), "{answer:?}");
            let uri = format!("sip:{domain}");
            let challenge = answer.header("WWW-Authenticate");
            let credentials = authorization(challenge, user, &self.password, "REGISTER", &uri);
            proof = format!("Authorization: {credentials}\r\n");
        }
        panic!("the phone of {user} was not registered");
    }

    async fn live(
        self,
        mut socket: Socket,
        manner: Manner,
        calls: Arc<Mutex<Vec<Got>>>,
        mut wanted: mpsc::UnboundedReceiver<()>,
    ) {
        loop {
            let say = tokio::select! {
                message = next(&mut socket) => match message {
                    Some(message) => self.hear(&message, manner, &mut calls.lock().unwrap()),
                    None => return,
                },
                wish = wanted.recv() => match wish {
                    Some(()) => self.pick_up(&mut calls.lock().unwrap()),
                    None => return,
                },
            };
            for text in say {
                if socket.send(Frame::Text(text.into())).await.is_err() {
                    return;
                }
            }
        }
    }

    fn hear(&self, message: &Message, manner: Manner, calls: &mut Vec<Got>) -> Vec<String> {
        let id = message.header("Call-ID").to_owned();
        let known = calls.iter_mut().rev().find(|call| call.invite.header("Call-ID") == id);
        match (message.status(), message.method(), known) {
            (0, "INVITE", None) => {
                let tag = fresh("phone");
                let mut got = Got { invite: message.clone(), stand: Stand::Ringing, tag };
                let say = match manner {
                    Manner::Answer | Manner::AnswerAndEnd(_) => vec![self.accept(&mut got)],
                    Manner::Ring => vec![self.reply(&got, "180 Ringing", "")],
                };
                calls.push(got);
                say
            }
            // A re-INVITE (hold, resume): the same answer.
            (0, "INVITE", Some(call)) => {
                let mut again = Got { invite: message.clone(), ..call.clone() };
                vec![self.accept(&mut again)]
            }
            (0, "ACK", Some(call)) => {
                if call.stand != Stand::Answered {
                    return Vec::new();
                }
                call.stand = Stand::Up;
                match manner {
                    Manner::AnswerAndEnd(begin) if call.invite.header("From").contains(begin) => {
                        call.stand = Stand::Over;
                        vec![self.bye(call)]
                    }
                    _ => Vec::new(),
                }
            }
            (0, "CANCEL", Some(call)) => {
                call.stand = Stand::Over;
                let refused = self.reply(call, "487 Request Terminated", "");
                vec![message.answer("200 OK", &call.tag, "", ""), refused]
            }
            (0, "BYE", Some(call)) => {
                call.stand = Stand::Over;
                vec![message.answer("200 OK", "", "", "")]
            }
            (0, "ACK", None) => Vec::new(),
            (0, _, Some(_)) => vec![message.answer("200 OK", "", "", "")],
            (0, _, None) => vec![message.answer("481 Unknown", "", "", "")],
            _ => Vec::new(),
        }
    }

    fn pick_up(&self, calls: &mut [Got]) -> Vec<String> {
        let ringing = calls.last_mut().filter(|call| call.stand == Stand::Ringing);
        ringing.map(|call| self.accept(call)).into_iter().collect()
    }

    fn reply(&self, call: &Got, status: &str, body: &str) -> String {
        let mut more = format!("Contact: {}\r\n", self.contact());
        if !body.is_empty() {
            more += "Content-Type: application/sdp\r\n";
        }
        call.invite.answer(status, &call.tag, &more, body)
    }

    fn accept(&self, call: &mut Got) -> String {
        call.stand = Stand::Answered;
        let offer = &call.invite.body;
        let line = |begin: &str| {
            offer.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_default().to_owned()
        };
        let formats = line("m=audio ").split(' ').skip(2).collect::<Vec<_>>().join(" ");
        let maps: String = offer
            .lines()
            .filter(|line| line.starts_with("a=rtpmap:"))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let direction = if offer.contains("a=sendonly") { "recvonly" } else { "sendrecv" };
        let print = ["AB"; 32].join(":");
        let body = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF {formats}\r\n\
             c=IN IP4 0.0.0.0\r\na=ice-ufrag:0x4p\r\na=ice-pwd:30fLCLx9KXwDL293kJkMtbb0\r\na=fingerprint:sha-256 {print}\r\n\
             a=setup:active\r\na=mid:{}\r\na=rtcp-mux\r\n{maps}a={direction}\r\n",
            line("a=mid:")
        );
        self.reply(call, "200 OK", &body)
    }

    fn bye(&self, call: &Got) -> String {
        let invite = &call.invite;
        format!(
            "BYE {} SIP/2.0\r\nVia: SIP/2.0/WS {};branch={}\r\nMax-Forwards: 69\r\nFrom: {};tag={}\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: 9001 BYE\r\nContent-Length: 0\r\n\r\n",
            invite.uri_of("Contact"),
            self.host,
            fresh("z9hG4bK"),
            invite.header("To"),
            call.tag,
            invite.header("From"),
            invite.header("Call-ID"),
        )
    }
}

async fn next(socket: &mut Socket) -> Option<Message> {
    loop {
        if let Frame::Text(text) = socket.next().await?.ok()? {
            return Some(Message::parse(&text));
        }
    }
}

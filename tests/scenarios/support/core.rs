//! An order core in a process of its own: this test program once more, told so by its environment.
//!
//! Invariant: it answers only after what it knows is on its disk, and never forgets a key.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::peers::Kept;
use super::ports::Block;
use super::wait::until;

/// Says that this process is a core, and where: `ADDRESS FILE`.
const ROLE: &str = "TANDEM_TEST_ORDER_CORE";
/// What both sides must say.
pub const TOKEN: &str = "core-token-of-the-scenes";

/// A core that is run, killed and run again on the same book.
#[derive(Debug)]
pub struct Core {
    pub address: SocketAddr,
    book: PathBuf,
    process: Option<Kept>,
}

impl Core {
    /// A core that keeps its book in this folder; it does not run yet.
    pub fn new(folder: &Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], Block::of(2).at(0)));
        Self { address, book: folder.join("core.jsonl"), process: None }
    }

    /// The address for `orders.core`.
    pub fn base(&self) -> String {
        format!("[\"http://{}\"]", self.address)
    }

    /// Starts it and waits until it listens.
    pub async fn up(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_order_core_of_other_scenes", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, format!("{} {}", self.address, self.book.display()));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        self.process = Some(Kept::spawn(&mut command));
        until("the order core listens", || async { TcpStream::connect(self.address).ok().map(drop) }).await;
    }

    /// `kill -9`.
    pub fn down(&mut self) {
        drop(self.process.take());
    }

    /// All that it accepted: one JSON object a request, in order.
    pub fn book(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.book).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The orders that it made (a repeated key makes none).
    pub fn orders(&self) -> Vec<Value> {
        self.book().into_iter().filter(|entry| entry["path"] == "/orders" && entry["fresh"] == true).collect()
    }

    /// The events of a call that it was told, in order, without repeats.
    pub fn events_of(&self, call: &str) -> Vec<String> {
        let of_call = |entry: &Value| {
            entry["path"] == "/calls" && entry["body"]["call_id"] == call && entry["fresh"] == true
        };
        let event = |entry: Value| entry["body"]["event"].as_str().unwrap_or_default().to_owned();
        self.book().into_iter().filter(of_call).map(event).collect()
    }
}

/// Is the core, if the environment says so; never returns then.
pub fn be_core_if_asked() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (address, book) = role.split_once(' ').unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let mut keys = BTreeMap::new();
    for line in std::fs::read_to_string(book).unwrap_or_default().lines() {
        if let Ok(entry) = serde_json::from_str::<Value>(line) {
            keys.insert(entry["key"].as_str().unwrap_or_default().to_owned(), entry["id"].clone());
        }
    }
    let keys = std::sync::Mutex::new(keys);
    std::thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            let (keys, book) = (&keys, Path::new(book));
            scope.spawn(move || drop(serve(stream, keys, book)));
        }
    });
}

/// One connection, request after request (HTTP/1.1 as far as Tandem uses it).
fn serve(
    mut stream: TcpStream,
    keys: &std::sync::Mutex<BTreeMap<String, Value>>,
    book: &Path,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !more(&mut stream, &mut bytes)? {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let length: usize = header("content-length").parse().unwrap_or(0);
        while bytes.len() < head_end + length {
            if !more(&mut stream, &mut bytes)? {
                return Ok(());
            }
        }
        let body = bytes[head_end..head_end + length].to_vec();
        bytes.drain(..head_end + length);
        let mut words = head.split(' ');
        let (method, path) =
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let (status, answer) = if header("authorization") == format!("Bearer {TOKEN}") {
            decide(&method, &path, &header("idempotency-key"), &body, keys, book)
        } else {
            (401, json!({"title": "who are you"}))
        };
        let text = answer.to_string();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        )?;
    }
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut part = [0; 4_096];
    let read = stream.read(&mut part)?;
    bytes.extend_from_slice(&part[..read]);
    Ok(read > 0)
}

fn decide(
    method: &str,
    path: &str,
    key: &str,
    body: &[u8],
    keys: &std::sync::Mutex<BTreeMap<String, Value>>,
    book: &Path,
) -> (u16, Value) {
    if method == "GET" && path.starts_with("/customers") {
        return (
            200,
            json!({"name": "Olena", "blocked": false, "orders": [], "addresses": ["Khreshchatyk 1"]}),
        );
    }
    if method != "POST" || !["/orders", "/calls"].contains(&path) || key.is_empty() {
        return (404, json!({"title": "no such thing"}));
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return (400, json!({"title": "no JSON"})) };
    let mut keys = keys.lock().unwrap();
    let fresh = !keys.contains_key(key);
    let id = keys.get(key).cloned().unwrap_or_else(|| json!(format!("order-{}", keys.len() + 1)));
    keys.insert(key.to_owned(), id.clone());
    let entry = json!({"path": path, "key": key, "id": id, "fresh": fresh, "body": body});
    let mut file = OpenOptions::new().create(true).append(true).open(book).unwrap();
    writeln!(file, "{entry}").unwrap();
    file.sync_data().unwrap();
    (if fresh { 201 } else { 200 }, json!({"id": id, "state": "new"}))
}

//! A real Chromium with a tone as its microphone, and our hand on it (`tests/browser/hand.mjs`).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::peers::{absent, need};
use super::tandem::{PASSWORD, Tandem};
use super::wait::{PATIENCE, until};

/// What the operator's microphone sounds like.
pub const OPERATOR_HZ: f64 = 1_000.0;
/// More than the hand's own patience.
const ANSWER: Duration = Duration::from_secs(90);

/// Whether there is a browser and all that moves it.
pub fn can_browse() -> bool {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/node_modules/playwright-core");
    need(&["node", "chromium"])
        && (modules.is_dir() || absent("web/node_modules/playwright-core (npm ci in web/)"))
}

/// One browser with one page.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    picture: std::path::PathBuf,
}

impl Browser {
    /// Starts a browser; its profile and microphone lie in Tandem's folder.
    pub async fn start(tandem: &Tandem) -> Self {
        let microphone = tandem.path("microphone.wav");
        super::sound::write_tone_at(&microphone, 48_000, OPERATOR_HZ, 65_000);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/hand.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(microphone).arg(tandem.path("profile"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let (orders, said) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("last-desk.png");
        let mut browser = Self { process, orders, answers: BufReader::new(said).lines(), picture };
        browser.answer("start").await.unwrap();
        browser
    }

    async fn answer(&mut self, what: &str) -> Result<Value, String> {
        let line = timeout(ANSWER, self.answers.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the browser does not answer: {what}")).unwrap();
        let answer: Value =
            serde_json::from_str(&line.unwrap_or_else(|| panic!("the browser ended: {what}"))).unwrap();
        answer["error"].as_str().map_or_else(|| Ok(answer["ok"].clone()), |error| Err(error.to_owned()))
    }

    /// Gives one order and returns what came of it.
    pub async fn order(&mut self, order: Value) -> Value {
        match self.attempt(order.clone()).await {
            Ok(value) => value,
            Err(error) => {
                let said = self.attempt(json!({"do": "said"})).await;
                drop(self.attempt(json!({"do": "picture", "file": self.picture})).await);
                let page = self.attempt(json!({"do": "run", "code": "document.body.innerText"})).await;
                panic!(
                    "{order}: {error}\nconsole: {said:?}\npage: {page:?}\npicture: {}",
                    self.picture.display()
                );
            }
        }
    }

    async fn attempt(&mut self, order: Value) -> Result<Value, String> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        self.answer(&order.to_string()).await
    }

    pub async fn open(&mut self, url: &str) {
        self.order(json!({"do": "open", "url": url})).await;
    }

    pub async fn click(&mut self, name: &str) {
        self.order(json!({"do": "click", "role": "button", "name": name})).await;
    }

    pub async fn fill(&mut self, label: &str, text: &str) {
        self.order(json!({"do": "fill", "label": label, "text": text})).await;
    }

    /// Whether there is such a control now.
    pub async fn there(&mut self, role: &str, name: &str) -> bool {
        self.order(json!({"do": "there", "role": role, "name": name})).await != json!(0)
    }

    /// Waits until a control is gone.
    pub async fn gone(&mut self, role: &str, name: &str) {
        let page = tokio::sync::Mutex::new(self);
        until(&format!("no {role} {name}"), || async {
            (!page.lock().await.there(role, name).await).then_some(())
        })
        .await;
    }

    /// Waits until the text of a region (or status light) contains this.
    pub async fn reads(&mut self, role: &str, name: &str, words: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = self.order(json!({"do": "text", "role": role, "name": name})).await;
            // Numbers are grouped by spaces that do not break.
            let text = text.as_str().unwrap_or_default().replace(['\u{a0}', '\u{202f}'], " ");
            if text.contains(words) {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{role} {name} does not read {words:?} but {text:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// 7 of 8 measurements in a row hold this tone and no other.
    pub async fn hears(&mut self, hz: u32) {
        self.order(json!({"do": "hears", "hz": hz})).await;
    }

    pub async fn hears_nothing(&mut self) {
        self.order(json!({"do": "silence"})).await;
    }

    /// Runs a piece of JavaScript in the page.
    pub async fn run(&mut self, code: &str) -> Value {
        self.order(json!({"do": "run", "code": code})).await
    }

    /// Packets received, lost and sent of the last call.
    pub async fn stats(&mut self) -> Value {
        self.order(json!({"do": "stats"})).await
    }

    /// Logs in at Tandem's desk and starts the shift.
    pub async fn starts_shift(&mut self, base: &str, name: &str) {
        self.open(&format!("{base}/?audio=raw")).await;
        self.fill("User", name).await;
        self.fill("Password", PASSWORD).await;
        self.click("Log in").await;
        self.click("Start shift").await;
        for light in ["Data", "Phone", "Sound"] {
            self.reads("status", light, "ok").await;
        }
    }

    /// Ends the browser.
    pub async fn close(mut self) {
        drop(self.orders);
        // Whoever does not end in time is ended by being dropped.
        drop(timeout(Duration::from_secs(10), self.process.wait()).await);
    }
}

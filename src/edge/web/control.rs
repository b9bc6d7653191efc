//! `data_dir/tandem.sock`: how commands on this machine talk to the node that runs here.
//!
//! One line of JSON asks, one line answers. Invariant: only the user who runs the node, and root, are
//! heard: the socket has mode 0600 and the kernel says who connected.

use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::edge::clock;
use crate::edge::store::{Account, Role, Store, StoreError};
use crate::edge::web::Web;
use crate::engine::desk::{Answer, Ask, Asker, SIP_PHONE_SESSION};
use crate::sip::digest::Ha1;
use crate::terms::{QueueName, Secret};

/// Name of the socket below the data folder.
pub const SOCKET: &str = "tandem.sock";
/// Longest line either way.
const LINE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Nothing that is asked here takes longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// From the connection to the end of the question.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the node fares.
    Status,
    /// Whether it works: the same as `/readyz`.
    Health,
    /// A change of accounts, or their list.
    User(UserRequest),
    /// Who is locked out after failed log-ins.
    Bans,
    /// Lifts what stands against an address.
    LiftBans {
        /// Which.
        source: IpAddr,
    },
}

/// About accounts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "user", rename_all = "snake_case", deny_unknown_fields)]
pub enum UserRequest {
    /// A new account.
    Add {
        /// Its name.
        name: String,
        /// What it may do.
        role: Role,
        /// Queues it serves.
        queues: Vec<QueueName>,
        /// What it is good at.
        skills: Vec<String>,
        /// In clear; hashed by the store.
        password: Secret<String>,
        /// Whether an ordinary SIP phone may register with this name and password.
        sip_phone: bool,
    },
    /// All accounts.
    List,
    /// Another password; ends the account's sessions.
    Password {
        /// Whose.
        name: String,
        /// In clear.
        password: Secret<String>,
    },
    /// No more log-ins, sessions ended; or allowed again.
    Disable {
        /// Whose.
        name: String,
        /// `false` allows it again.
        disabled: bool,
    },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done, and what came of it.
    Done(Value),
    /// Not done, and why.
    Refused(String),
}

impl UserRequest {
    /// Whose account it changes.
    fn changes(&self) -> Option<&str> {
        match self {
            Self::Add { name, .. } | Self::Password { name, .. } | Self::Disable { name, .. } => Some(name),
            Self::List => None,
        }
    }
}

/// Carries out a request about accounts; `realm` is the SIP domain, which the secret of a SIP phone holds.
///
/// # Errors
/// [`StoreError`], whose words are for the person who asked.
pub async fn change_users(store: &Store, realm: &str, request: UserRequest) -> Result<Value, StoreError> {
    match request {
        UserRequest::Add { name, role, queues, skills, password, sip_phone } => {
            let ha1 = sip_phone.then(|| Ha1::new(&name, realm, password.expose()));
            let account = Account { name: name.as_str().into(), role, queues, skills, disabled: false };
            store.add_account(&account, password).await?;
            if let Some(ha1) = ha1 {
                store.set_sip_phone(&name, &ha1).await?;
            }
            Ok(Value::Null)
        }
        UserRequest::List => {
            let accounts = store.accounts().await?;
            serde_json::to_value(accounts).map_err(|error| StoreError::Damaged(error.to_string()))
        }
        UserRequest::Password { name, password } => {
            let ha1 = Ha1::new(&name, realm, password.expose());
            found(store.set_password(&name, password).await?, &name)?;
            if store.has_sip_phone(&name).await? {
                store.set_sip_phone(&name, &ha1).await?;
            }
            Ok(Value::Null)
        }
        UserRequest::Disable { name, disabled } => found(store.set_disabled(&name, disabled).await?, &name),
    }
}

fn found(found: bool, name: &str) -> Result<Value, StoreError> {
    if found { Ok(Value::Null) } else { Err(StoreError::Unfit(format!("there is no account {name:?}"))) }
}

/// The open socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl Control {
    /// Opens `data_dir/tandem.sock`.
    ///
    /// # Errors
    /// Another node runs on this data folder, or the socket cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(SOCKET);
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            bail!(
                "another node runs on {}: stop it first, or give this one its own node.data_dir",
                data_dir.display()
            );
        }
        let made = |path: &Path| format!("cannot make {}", path.display());
        // Made under another name: under its own it never has the mode that the umask left.
        let fresh = data_dir.join(format!(".{SOCKET}.{}", std::process::id()));
        remove(&fresh)?;
        let listener = UnixListener::bind(&fresh).with_context(|| made(&fresh))?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
            .with_context(|| made(&fresh))?;
        std::fs::rename(&fresh, &path).with_context(|| made(&path))?;
        let owner = std::fs::metadata(&path).with_context(|| made(&path))?.uid();
        Ok(Self { listener, path, owner })
    }

    /// Answers until the task is dropped.
    pub async fn serve(self, web: Web) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let heard = stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0);
            if !heard {
                tracing::warn!("somebody else's process tried the control socket");
                continue;
            }
            // One at a time: these are people at a keyboard, and account changes keep their order.
            match timeout(ASK_WITHIN + ANSWER_WITHIN, answer(&web, stream)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a control connection broke"),
                Err(_) => tracing::warn!("a command on the control socket took too long"),
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, "the control socket stays behind");
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn answer(web: &Web, stream: UnixStream) -> Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reading.take(LINE_MAX_BYTES));
    timeout(ASK_WITHIN, reader.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => web.carry_out(request).await,
        Err(error) => {
            Reply::Refused(format!("this node does not understand the command ({error}): same version?"))
        }
    };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    writing.write_all(text.as_bytes()).await?;
    Ok(())
}

/// Whoever may use the socket may do what an admin may.
fn console() -> Asker {
    Asker { name: "console".into(), role: crate::engine::desk::Role::Admin }
}

impl Web {
    async fn carry_out(&self, request: Request) -> Reply {
        match request {
            Request::Status => Reply::Done(self.status().await),
            Request::Health => match serde_json::to_value(self.readiness().await) {
                Ok(value) => Reply::Done(value),
                Err(error) => Reply::Refused(error.to_string()),
            },
            Request::Bans => Reply::Done(self.bans(console()).await),
            Request::LiftBans { source } => {
                if self.lift_bans(console(), source).await {
                    Reply::Done(Value::Null)
                } else {
                    Reply::Refused(format!("nothing is banned at {source}: see `tandem ban list`"))
                }
            }
            Request::User(change) => {
                let changed = change.changes().map(str::to_owned);
                let done = change_users(self.handle.store(), &self.settings.domain, change).await;
                if let Some(name) = changed
                    && let Err(error) = self.follow_account(&name).await
                {
                    tracing::warn!(%error, user = name, "the phones of a changed account were not looked at");
                }
                done.map_or_else(|error| Reply::Refused(error.to_string()), Reply::Done)
            }
        }
    }

    /// Who may no longer be logged in loses his phones now, not in a minute; a new secret is told.
    async fn follow_account(&self, name: &str) -> Result<(), StoreError> {
        self.follow_sessions().await?;
        let phones = self.handle.store().sip_phones().await?;
        if let Some((account, ha1)) = phones.into_iter().find(|(account, _)| account.name.as_str() == name) {
            self.handle.tell_sip_phone(&account, ha1).await;
            return Ok(());
        }
        let asker = Asker { name: name.into(), role: crate::engine::desk::Role::Operator };
        let ask = Ask::LoggedOut { session: SIP_PHONE_SESSION.to_owned() };
        if let Answer::Refused(refusal) = self.handle.ask(asker, ask).await {
            // Most accounts never had one.
            tracing::debug!(user = name, refusal.words, "no SIP phone to forget");
        }
        Ok(())
    }

    /// `{node, calls, trunks, queues, operators, outbox, ready, failing}`.
    async fn status(&self) -> Value {
        let readiness = self.readiness().await;
        let outbox = self.handle.store().outbox().await.ok();
        let now = clock::now().wall_ms;
        let board = self.handle.board();
        json!({
            "node": board.node(now),
            "calls": board.calls(now),
            "trunks": board.trunks(now),
            "queues": board.queues(now),
            "operators": board.operators(now),
            "outbox": outbox,
            "ready": readiness.ready,
            "failing": readiness.failing,
        })
    }
}

/// Asks the node that runs on `data_dir`; `None` if none does.
///
/// # Errors
/// It refused (in its words), or did not answer.
pub async fn ask(data_dir: &Path, request: &Request) -> Result<Option<Value>> {
    let path = data_dir.join(SOCKET);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot talk to the node at {}: run as its user", path.display()));
        }
    };
    let (reading, mut writing) = stream.into_split();
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    writing.write_all(text.as_bytes()).await?;
    let mut line = String::new();
    let mut reader = BufReader::new(reading.take(LINE_MAX_BYTES));
    timeout(ANSWER_WITHIN, reader.read_line(&mut line)).await.context("the node does not answer")??;
    match serde_json::from_str(&line).context("the node closed the connection: see its log")? {
        Reply::Done(value) => Ok(Some(value)),
        Reply::Refused(words) => bail!(words),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::edge::web::testing::Site;

    #[tokio::test]
    async fn commands_reach_the_running_node_and_only_its_user() {
        let site = Site::start().await;
        let folder = tempfile::tempdir().unwrap();
        assert!(ask(folder.path(), &Request::Status).await.unwrap().is_none(), "no node runs there");
        let control = Control::open(folder.path()).unwrap();
        let mode = std::fs::metadata(folder.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let running = tokio::spawn(control.serve(site.web.clone()));
        let status = ask(folder.path(), &Request::Status).await.unwrap().unwrap();
        assert_eq!(status["ready"], true);
        let health = ask(folder.path(), &Request::Health).await.unwrap().unwrap();
        assert_eq!(health["failing"], json!([]));
        let disable = || Request::User(UserRequest::Disable { name: "anna".into(), disabled: true });
        ask(folder.path(), &disable()).await.unwrap().unwrap();
        let list = ask(folder.path(), &Request::User(UserRequest::List)).await.unwrap().unwrap();
        assert_eq!(
            list[0],
            json!({"name":"anna","role":"operator","queues":["orders"],"skills":[],"disabled":true})
        );
        let unknown = Request::User(UserRequest::Disable { name: "nobody".into(), disabled: true });
        assert!(
            ask(folder.path(), &unknown).await.unwrap_err().to_string().contains("no account \"nobody\"")
        );
        assert!(Control::open(folder.path()).unwrap_err().to_string().contains("another node runs"));
        running.abort();
        drop(running.await);
        assert!(ask(folder.path(), &Request::Status).await.unwrap().is_none(), "a stale socket is no node");
        drop(Control::open(folder.path()).unwrap());
    }

    #[tokio::test]
    async fn a_session_of_a_disabled_account_ends_at_once() {
        let site = Site::start().await;
        let cookie = site.cookie("anna").await;
        site.web.follow_sessions().await.unwrap();
        let disable = Request::User(UserRequest::Disable { name: "anna".into(), disabled: true });
        assert!(matches!(site.web.carry_out(disable).await, Reply::Done(_)));
        assert!(
            site.asked()
                .iter()
                .any(|(_, ask)| matches!(ask, Ask::LoggedOut { session } if session.len() == 64))
        );
        let (status, _) = site.ask(reqwest::Method::GET, "/api/v1/session", &cookie, "").await;
        assert_eq!(status.as_u16(), 401);
    }

    #[tokio::test]
    async fn a_sip_phone_follows_its_accounts_password_and_goes_with_it() {
        let site = Site::start().await;
        let secret = |text: &str| Secret::new(text.to_owned());
        let add = UserRequest::Add {
            name: "carl".into(),
            role: Role::Operator,
            queues: Vec::new(),
            skills: Vec::new(),
            password: secret("first horse"),
            sip_phone: true,
        };
        let told = |site: &Site| site.asked().pop().unwrap().1;
        let expected = |password: &str| Ha1::new("carl", "tandem.test", password);
        assert!(matches!(site.web.carry_out(Request::User(add)).await, Reply::Done(_)));
        assert!(matches!(told(&site), Ask::LoggedIn { ha1, .. } if ha1 == expected("first horse")));
        let change = UserRequest::Password { name: "carl".into(), password: secret("other horse") };
        site.web.carry_out(Request::User(change)).await;
        assert!(matches!(told(&site), Ask::LoggedIn { ha1, .. } if ha1 == expected("other horse")));
        let disable = UserRequest::Disable { name: "carl".into(), disabled: true };
        site.web.carry_out(Request::User(disable)).await;
        assert!(matches!(told(&site), Ask::LoggedOut { session } if session == SIP_PHONE_SESSION));
    }
}

//! `tandem user`: accounts, through the running node if there is one, else in the store itself.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;

use crate::config::Config;
use crate::edge::store::{Role, Store, StoreConfig};
use crate::edge::web::control::{Request, UserRequest, ask, change_users};
use crate::terms::Secret;

/// Longest line that is read as a password.
const LINE_MAX_BYTES: u64 = 4_096;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Adds an account: `tandem user add anna --role operator --queue orders --password-stdin < file`
    Add {
        /// Its name: letters, digits, - _ .
        name: String,
        /// operator, supervisor or admin
        #[arg(long)]
        role: Role,
        /// What it is good at; may be repeated
        #[arg(long = "skill")]
        skills: Vec<String>,
        /// A queue it serves; may be repeated
        #[arg(long = "queue")]
        queues: Vec<String>,
        /// Let an ordinary SIP phone register with this name and password too
        #[arg(long)]
        sip_phone: bool,
        /// Read the password from the first line of standard input instead of asking
        #[arg(long)]
        password_stdin: bool,
    },
    /// Lists all accounts: `tandem user list --json`
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Gives an account another password and logs it out everywhere: `tandem user password anna`
    Password {
        /// Whose
        name: String,
        /// Read it from the first line of standard input instead of asking
        #[arg(long)]
        password_stdin: bool,
    },
    /// Stops an account from logging in and logs it out everywhere: `tandem user disable anna`
    Disable {
        /// Whose
        name: String,
        /// Allow it again
        #[arg(long)]
        undo: bool,
    },
}

/// Carries it out; what is to be printed.
///
/// # Errors
/// In words for the person who asked.
pub async fn run(config: &Config, command: UserCommand) -> Result<String> {
    let (request, said, as_json) = match command {
        UserCommand::Add { name, role, skills, queues, sip_phone, password_stdin } => {
            check_queues(config, &queues)?;
            let password = password(password_stdin)?;
            let said = format!("{role} {name} added\n");
            let queues = queues.into_iter().map(Into::into).collect();
            (UserRequest::Add { name, role, queues, skills, password, sip_phone }, said, false)
        }
        UserCommand::List { json } => (UserRequest::List, String::new(), json),
        UserCommand::Password { name, password_stdin } => {
            let said = format!("{name} has a new password and is logged out everywhere\n");
            (UserRequest::Password { name, password: password(password_stdin)? }, said, false)
        }
        UserCommand::Disable { name, undo } => {
            let said =
                if undo { format!("{name} may log in again\n") } else { format!("{name} is disabled\n") };
            (UserRequest::Disable { name, disabled: !undo }, said, false)
        }
    };
    let is_list = matches!(request, UserRequest::List);
    let value = carry_out(config, request).await?;
    if !is_list {
        return Ok(said);
    }
    if as_json {
        return Ok(format!("{value:#}\n"));
    }
    table(&value)
}

/// Through the running node, or in the store itself.
///
/// # Errors
/// In the node's or the store's words.
pub async fn carry_out(config: &Config, request: UserRequest) -> Result<serde_json::Value> {
    let request = Request::User(request);
    if let Some(value) = ask(&config.node.data_dir, &request).await? {
        return Ok(value);
    }
    let Request::User(request) = request else { bail!("not about accounts") };
    let store = open(config).await?;
    let done = change_users(&store, &config.sip.domain, request).await;
    store.close().await;
    Ok(done?)
}

async fn open(config: &Config) -> Result<Store> {
    let store = StoreConfig {
        url: config.store.url.expose().clone(),
        data_dir: config.node.data_dir.clone(),
        max_pages: 0,
    };
    Store::open(&store).await.context("the store cannot be opened")
}

fn check_queues(config: &Config, queues: &[String]) -> Result<()> {
    let known: Vec<&str> = config.queues.iter().map(|queue| queue.name.as_str()).collect();
    for queue in queues {
        ensure!(
            known.contains(&queue.as_str()),
            "there is no queue {queue:?}; configured are: {}",
            known.join(", ")
        );
    }
    Ok(())
}

/// A password from standard input, or asked twice on the terminal.
///
/// # Errors
/// Nothing was typed, the two differ, or there is no terminal to ask on.
pub fn password(from_stdin: bool) -> Result<Secret<String>> {
    if from_stdin {
        return first_line(std::io::stdin().lock());
    }
    ensure!(std::io::stdin().is_terminal(), "no terminal to ask for the password on: use --password-stdin");
    let first = rpassword::prompt_password("Password (at least 8 characters): ")
        .context("the password was not read")?;
    let again =
        Secret::new(rpassword::prompt_password("The same again: ").context("the password was not read")?);
    let first = Secret::new(first);
    ensure!(first == again, "the two passwords differ");
    Ok(first)
}

fn first_line(input: impl std::io::BufRead) -> Result<Secret<String>> {
    use std::io::BufRead as _;
    let mut line = String::new();
    input
        .take(LINE_MAX_BYTES)
        .read_line(&mut line)
        .context("the password on standard input cannot be read")?;
    let password = Secret::new(line.trim_end_matches(['\r', '\n']).to_owned());
    let said = "no password came on standard input: the first line is taken";
    ensure!(!password.expose().is_empty(), said);
    Ok(password)
}

fn table(value: &serde_json::Value) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Row {
        name: String,
        role: Role,
        queues: Vec<String>,
        skills: Vec<String>,
        disabled: bool,
    }
    let rows: Vec<Row> = serde_json::from_value(value.clone()).context("the node's list does not read")?;
    let mut text = format!("{:<20} {:<11} {:<24} {:<20} {}\n", "NAME", "ROLE", "QUEUES", "SKILLS", "STATE");
    for row in rows {
        let state = if row.disabled { "disabled" } else { "active" };
        let (queues, skills) = (row.queues.join(" "), row.skills.join(" "));
        let role = row.role.as_str();
        writeln!(text, "{:<20} {role:<11} {queues:<24} {skills:<20} {state}", row.name)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        assert_eq!(first_line(&b"correct horse \r\nnext"[..]).unwrap().expose(), "correct horse ");
        assert!(first_line(&b"\n"[..]).is_err());
        assert!(first_line(&b""[..]).is_err());
    }

    #[tokio::test]
    async fn accounts_are_kept_in_the_store_where_no_node_runs() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.node.data_dir = folder.path().to_owned();
        config.store.url = Secret::new(format!("sqlite:{}", folder.path().join("t.db").display()));
        let add = |name: &str| UserRequest::Add {
            name: name.into(),
            role: Role::Operator,
            queues: vec!["orders".into()],
            skills: Vec::new(),
            password: Secret::new("correct horse".into()),
            sip_phone: false,
        };
        carry_out(&config, add("anna")).await.unwrap();
        assert!(carry_out(&config, add("anna")).await.unwrap_err().to_string().contains("anna"));
        let disable = UserCommand::Disable { name: "anna".into(), undo: false };
        assert_eq!(run(&config, disable).await.unwrap(), "anna is disabled\n");
        let list = run(&config, UserCommand::List { json: false }).await.unwrap();
        assert!(list.contains("anna") && list.contains("disabled"), "{list}");
        assert!(check_queues(&config, &["nowhere".to_owned()]).is_err());
    }
}

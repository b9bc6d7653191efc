//! `tandem setup`: from an unpacked program to a place where the first person can log in.
//!
//! Invariant: what exists is never overwritten without `--force`; run twice, the second run changes
//! nothing and says so. A wish that an existing file contradicts, and a missing or unfit password, are
//! refused before the first file is written.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;

use crate::command::node::lines;
use crate::command::user::{carry_out, password};
use crate::config::Config;
use crate::edge::certificate;
use crate::edge::store::{Role, check_name, check_password};
use crate::edge::web::control::UserRequest;
use crate::terms::Secret;

/// Where the configuration goes if nothing else is said.
///
/// Not `config/tandem.toml`: that is the example which explains every key, and it stays as it is.
pub const CONFIG_FILE: &str = "tandem.toml";
/// The web certificate and its key, below the data folder.
const WEB_FILES: (&str, &str) = ("web.crt", "web.key");

/// What is known from the command line; the rest is asked on a terminal.
#[derive(Debug, Clone, Default, Args)]
pub struct SetupArgs {
    /// Name of the first administrator
    #[arg(long)]
    pub admin: Option<String>,
    /// Read his password from the first line of standard input instead of asking
    #[arg(long)]
    pub password_stdin: bool,
    /// SIP domain, for instance dispatch.example
    #[arg(long)]
    pub domain: Option<String>,
    /// Where the web listens, for instance 0.0.0.0:8443
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// A name or address that browsers open; may be repeated: makes a self-signed certificate for them
    #[arg(long = "name")]
    pub names: Vec<String>,
    /// Overwrite an existing configuration and certificate
    #[arg(long)]
    pub force: bool,
}

/// All that has been decided.
#[derive(Debug)]
struct Wishes {
    admin: String,
    domain: String,
    listen: SocketAddr,
    names: Vec<String>,
}

/// Writes configuration and certificate and makes the first administrator; what is to be printed.
///
/// # Errors
/// In words: something exists already, cannot be written, or was not answered.
pub async fn run(file: &Path, given: SetupArgs) -> Result<String> {
    let known = if file.exists() && !given.force { Some(read(file)?) } else { None };
    let wishes = decide(&given, known.as_ref().unwrap_or(&Config::default()))?;
    if let Some(known) = &known {
        agree(file, known, &wishes)?;
    }
    let accounts = known.unwrap_or_default();
    let password =
        if is_admin(&accounts, &wishes.admin).await? { None } else { Some(password(given.password_stdin)?) };
    carry_out_wishes(file, &wishes, given.force, password).await
}

async fn carry_out_wishes(
    file: &Path,
    wishes: &Wishes,
    force: bool,
    password: Option<Secret<String>>,
) -> Result<String> {
    check_name(&wishes.admin)?;
    if let Some(password) = &password {
        check_password(password)?;
    }
    let mut said = Vec::new();
    let config = write_config(file, wishes, force, &mut said)?;
    if !wishes.names.is_empty() {
        write_certificate(&config.node.data_dir, &wishes.names, force, &mut said)?;
    }
    add_admin(&config, file, &wishes.admin, password, &mut said).await?;
    let scheme = if config.web.tls_cert.is_some() { "https" } else { "http" };
    let host = wishes.names.first().cloned().unwrap_or_else(|| config.web.listen.ip().to_string());
    said.push(format!(
        "start it with: tandem run --config {}\nthen open: {scheme}://{host}:{}/ and log in as {}",
        file.display(),
        config.web.listen.port(),
        wishes.admin
    ));
    Ok(said.join("\n") + "\n")
}

/// `defaults`: what the configuration says, where there is one.
fn decide(given: &SetupArgs, defaults: &Config) -> Result<Wishes> {
    let admin = answer(given.admin.clone(), "Name of the first administrator", "admin", "--admin")?;
    let domain = answer(given.domain.clone(), "SIP domain", &defaults.sip.domain, "--domain")?;
    let listen = given.listen.map(|address| address.to_string());
    let listen = answer(listen, "Where the web listens", &defaults.web.listen.to_string(), "--listen")?;
    let listen: SocketAddr = listen
        .parse()
        .with_context(|| format!("{listen:?} is no address with a port, such as 0.0.0.0:8443"))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    ensure!(
        !domain.is_empty() && domain.chars().all(fits),
        "{domain:?} is no domain: letters, digits, dots and dashes"
    );
    let mut names = given.names.clone();
    let has_certificate = defaults.web.tls_cert.is_some();
    if names.is_empty() && !listen.ip().is_loopback() && !has_certificate {
        let words = "Names or addresses that browsers open, with spaces between";
        let default = if listen.ip().is_unspecified() { String::new() } else { listen.ip().to_string() };
        let typed = answer(None, words, &default, "--name")?;
        names = typed.split_whitespace().map(str::to_owned).collect();
    }
    let needs_tls = !listen.ip().is_loopback();
    ensure!(
        !needs_tls || !names.is_empty() || has_certificate,
        "browsers give a microphone only to https or 127.0.0.1: say with --name what they will open"
    );
    Ok(Wishes { admin, domain, listen, names })
}

/// A configuration that exists must say what was wished: it is not changed behind its owner's back,
/// and a wish that nothing follows is not passed over.
fn agree(file: &Path, known: &Config, wishes: &Wishes) -> Result<()> {
    let differs = if known.sip.domain != wishes.domain {
        format!("sip.domain = {:?}", known.sip.domain)
    } else if known.web.listen != wishes.listen {
        format!("web.listen = \"{}\"", known.web.listen)
    } else if !wishes.names.is_empty() && known.web.tls_cert.is_none() {
        "no web.tls_cert".to_owned()
    } else {
        return Ok(());
    };
    bail!(
        "{} is there already and says {differs}: edit it, or write another with --config FILE, or overwrite it \
         with --force (its trunks and queues are lost)",
        file.display()
    )
}

/// What was given, or typed, or the default where the answer is empty.
fn answer(given: Option<String>, words: &str, default: &str, flag: &str) -> Result<String> {
    if let Some(given) = given {
        return Ok(given);
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        ensure!(!default.is_empty(), "no terminal to ask on: use {flag}");
        return Ok(default.to_owned());
    }
    write!(std::io::stderr(), "{words} [{default}]: ").context("cannot ask")?;
    std::io::stderr().flush().context("cannot ask")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("the answer cannot be read")?;
    let typed = line.trim();
    Ok(if typed.is_empty() { default.to_owned() } else { typed.to_owned() })
}

fn write_config(file: &Path, wishes: &Wishes, force: bool, said: &mut Vec<String>) -> Result<Config> {
    let exists = file.exists();
    if exists && !force {
        said.push(format!("{} is there already and stays as it is", file.display()));
    } else {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        replace(file, config_text(wishes).as_bytes())?;
        said.push(format!("{} {}", file.display(), if exists { "overwritten" } else { "written" }));
    }
    read(file)
}

fn read(file: &Path) -> Result<Config> {
    Config::load(Some(file)).map_err(|mistakes| anyhow!(lines(&mistakes)))
}

/// Only what differs from the defaults: the annotated example file names all keys.
fn config_text(wishes: &Wishes) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!(
        "# Written by `tandem setup`. Keys that are not here have their defaults.\n\n[sip]\ndomain = {}\n\n[web]\nlisten = {}\n",
        quoted(&wishes.domain),
        quoted(&wishes.listen.to_string())
    );
    if !wishes.names.is_empty() {
        let folder = Config::default().node.data_dir;
        for (key, name) in [("tls_cert", WEB_FILES.0), ("tls_key", WEB_FILES.1)] {
            let path = folder.join(name);
            text.push_str(&format!("{key} = {}\n", quoted(&path.display().to_string())));
        }
    }
    text
}

/// Written beside and renamed: a crash leaves the old file or the new one.
fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    if fresh.exists() {
        std::fs::remove_file(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    certificate::write_private(&fresh, bytes)?;
    std::fs::rename(&fresh, file).with_context(|| format!("cannot write {}", file.display()))
}

fn write_certificate(data_dir: &Path, names: &[String], force: bool, said: &mut Vec<String>) -> Result<()> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
    let (certificate, key) = (data_dir.join(WEB_FILES.0), data_dir.join(WEB_FILES.1));
    if (certificate.exists() || key.exists()) && !force {
        said.push(format!("{} is there already and stays as it is", certificate.display()));
        return Ok(());
    }
    let made = certificate::web(names)?;
    replace(&key, made.key.expose().as_bytes())?;
    replace(&certificate, made.certificate.as_bytes())?;
    said.push(format!(
        "{}: self-signed for {}; browsers warn once, so put a real one there when you have it",
        certificate.display(),
        names.join(", ")
    ));
    Ok(())
}

/// Whether this administrator is there; an account of that name with another role is refused.
async fn is_admin(config: &Config, name: &str) -> Result<bool> {
    if !config.node.data_dir.exists() {
        return Ok(false);
    }
    let accounts: Vec<Known> = serde_json::from_value(carry_out(config, UserRequest::List).await?)?;
    let Some(known) = accounts.iter().find(|account| account.name == name) else { return Ok(false) };
    ensure!(
        known.role == Role::Admin,
        "{name} is there already, but as {}: choose another --admin",
        known.role
    );
    Ok(true)
}

/// The first administrator; without a password he is there already and stays as he is.
async fn add_admin(
    config: &Config,
    file: &Path,
    name: &str,
    password: Option<Secret<String>>,
    said: &mut Vec<String>,
) -> Result<()> {
    let Some(password) = password else {
        said.push(format!(
            "administrator {name} is there already; for a new password: tandem user password {name} --config {}",
            file.display()
        ));
        return Ok(());
    };
    let (queues, skills) = (Vec::new(), Vec::new());
    let name = name.to_owned();
    let added = format!("administrator {name} added");
    let role = Role::Admin;
    carry_out(config, UserRequest::Add { name, role, queues, skills, password, sip_phone: false }).await?;
    said.push(added);
    Ok(())
}

#[derive(serde::Deserialize)]
struct Known {
    name: String,
    role: Role,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn wishes(listen: &str, names: &[&str]) -> Wishes {
        Wishes {
            admin: "root".into(),
            domain: "dispatch.example".into(),
            listen: listen.parse().unwrap(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_written_configuration_reads_back_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config/tandem.toml");
        let mut said = Vec::new();
        let config = write_config(&file, &wishes("127.0.0.1:9000", &[]), false, &mut said).unwrap();
        assert_eq!((config.sip.domain.as_str(), config.web.listen.port()), ("dispatch.example", 9000));
        let again = write_config(&file, &wishes("127.0.0.1:9001", &[]), false, &mut said).unwrap();
        assert_eq!(again.web.listen.port(), 9000);
        assert!(said.last().unwrap().contains("stays as it is"));
        let forced = write_config(&file, &wishes("127.0.0.1:9001", &[]), true, &mut said).unwrap();
        assert_eq!(forced.web.listen.port(), 9001);
    }

    #[tokio::test]
    async fn a_password_or_name_that_does_not_fit_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tandem.toml");
        for (admin, password, says) in [("root", "short", "8 to"), ("ro ot", "correct horse", "1 to")] {
            let wishes = Wishes { admin: admin.into(), ..wishes("127.0.0.1:9000", &[]) };
            let password = Some(Secret::new(password.to_owned()));
            let refused = carry_out_wishes(&file, &wishes, false, password).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
            assert!(!file.exists() && std::fs::read_dir(folder.path()).unwrap().next().is_none());
        }
    }

    #[test]
    fn a_certificate_is_kept_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["desk.example".to_owned(), "192.0.2.7".to_owned()];
        let mut said = Vec::new();
        let read = || std::fs::read_to_string(folder.path().join(WEB_FILES.0)).unwrap();
        write_certificate(folder.path(), &names, false, &mut said).unwrap();
        let first = read();
        write_certificate(folder.path(), &names, false, &mut said).unwrap();
        assert_eq!(read(), first);
        write_certificate(folder.path(), &names, true, &mut said).unwrap();
        assert_ne!(read(), first);
    }

    #[test]
    fn the_text_names_the_certificate_only_where_one_is_made() {
        assert!(!config_text(&wishes("127.0.0.1:8080", &[])).contains("tls_cert"));
        let text = config_text(&wishes("0.0.0.0:8443", &["desk.example"]));
        assert!(
            text.contains("tls_cert = \"data/web.crt\"") && text.contains("tls_key = \"data/web.key\""),
            "{text}"
        );
    }

    #[test]
    fn a_listener_for_others_needs_names_and_a_domain_is_one() {
        let given = |listen: &str, domain: &str, names: &[&str]| {
            let given = SetupArgs {
                admin: Some("root".into()),
                domain: Some(domain.into()),
                listen: Some(listen.parse().unwrap()),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                ..SetupArgs::default()
            };
            decide(&given, &Config::default())
        };
        assert!(given("127.0.0.1:8080", "dispatch.example", &[]).is_ok());
        assert!(given("0.0.0.0:8443", "dispatch.example", &["desk.example"]).is_ok());
        assert!(given("127.0.0.1:8080", "a b", &[]).is_err());
        assert!(given("127.0.0.1:8080", "", &[]).is_err());
    }

    #[tokio::test]
    async fn an_administrator_who_is_there_stays_and_another_role_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.node.data_dir = folder.path().to_owned();
        config.store.url = Secret::new(format!("sqlite:{}", folder.path().join("t.db").display()));
        for (name, role) in [("root", Role::Admin), ("anna", Role::Operator)] {
            let password = Secret::new("correct horse".to_owned());
            let (queues, skills) = (Vec::new(), Vec::new());
            carry_out(
                &config,
                UserRequest::Add { name: name.into(), role, queues, skills, password, sip_phone: false },
            )
            .await
            .unwrap();
        }
        assert!(is_admin(&config, "root").await.unwrap());
        assert!(!is_admin(&config, "vera").await.unwrap());
        assert!(is_admin(&config, "anna").await.unwrap_err().to_string().contains("as operator"));
    }

    #[test]
    fn a_configuration_that_says_something_else_is_neither_changed_nor_passed_over() {
        let file = Path::new("tandem.toml");
        let known = Config::default();
        let of = |listen: &str, domain: &str, names: &[&str]| {
            agree(file, &known, &Wishes { domain: domain.into(), ..wishes(listen, names) })
        };
        let (listen, domain) = (known.web.listen.to_string(), known.sip.domain.as_str());
        assert!(of(&listen, domain, &[]).is_ok());
        for (refused, says) in [
            (of(&listen, "other.example", &[]), "sip.domain"),
            (of("127.0.0.1:9000", domain, &[]), "web.listen"),
            (of(&listen, domain, &["192.0.2.7"]), "web.tls_cert"),
        ] {
            let words = refused.unwrap_err().to_string();
            assert!(words.contains(says) && words.contains("--force"), "{words}");
        }
    }
}

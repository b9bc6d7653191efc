//! Accounts: who may log in, as what, for which queues.
//!
//! Invariant: a password is kept only as an Argon2id hash; a check takes as long for a name that does not
//! exist as for a wrong password; checks never occupy an async thread and at most two run at a time.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, from_json, to_json};
use crate::terms::{OperatorName, QueueName, Secret};

/// The shortest password that is taken.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// The longest password that is taken or checked: hashing must not become a lever.
pub const MAX_PASSWORD_CHARS: usize = 256;
/// The longest account name.
const MAX_NAME_CHARS: usize = 64;

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes calls.
    Operator,
    /// Sees and steers the floor.
    Supervisor,
    /// Everything.
    Admin,
}

impl Role {
    /// As written in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Supervisor => "supervisor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such role.
#[derive(Debug, thiserror::Error)]
#[error("there is no role {0:?}: operator, supervisor or admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let roles = [Self::Operator, Self::Supervisor, Self::Admin];
        roles.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// An account, without its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Log-in name; for operators also the SIP user.
    pub name: OperatorName,
    /// What it may do.
    pub role: Role,
    /// Queues it serves.
    pub queues: Vec<QueueName>,
    /// What it is good at.
    pub skills: Vec<String>,
    /// Cannot log in.
    pub disabled: bool,
}

impl Account {
    pub(super) fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        let role: String = row.try_get("role")?;
        Ok(Self {
            name: row.try_get::<String, _>("name")?.into(),
            role: role.parse().map_err(|error: UnknownRole| StoreError::Damaged(error.to_string()))?,
            queues: from_json(row.try_get("queues")?)?,
            skills: from_json(row.try_get("skills")?)?,
            disabled: row.try_get("disabled")?,
        })
    }
}

impl Store {
    /// All accounts, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let query = sqlx::query("SELECT name, role, queues, skills, disabled FROM accounts ORDER BY name");
        query.fetch_all(&self.inner.reads).await?.iter().map(Account::from_row).collect()
    }

    /// One account.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn account(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let query = sqlx::query("SELECT name, role, queues, skills, disabled FROM accounts WHERE name = ?");
        query.bind(name).fetch_optional(&self.inner.reads).await?.as_ref().map(Account::from_row).transpose()
    }

    /// Adds an account.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Unfit`] for a name or password that does not fit.
    pub async fn add_account(&self, account: &Account, password: Secret<String>) -> Result<(), StoreError> {
        check_name(account.name.as_str())?;
        let hash = self.hash(password).await?;
        let sql =
            "INSERT INTO accounts (name, role, hash, queues, skills, disabled) VALUES (?, ?, ?, ?, ?, ?)
                   ON CONFLICT (name) DO NOTHING";
        let query = sqlx::query(sql)
            .bind(account.name.as_str())
            .bind(account.role.as_str())
            .bind(hash)
            .bind(to_json(&account.queues)?)
            .bind(to_json(&account.skills)?)
            .bind(account.disabled);
        match query.execute(&self.inner.writes).await?.rows_affected() {
            0 => Err(StoreError::Exists(account.name.to_string())),
            _ => Ok(()),
        }
    }

    /// Gives an account another password and ends its sessions; `false` if there is no such account.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] for a password that does not fit.
    pub async fn set_password(&self, name: &str, password: Secret<String>) -> Result<bool, StoreError> {
        let hash = self.hash(password).await?;
        let query = sqlx::query("UPDATE accounts SET hash = ? WHERE name = ?").bind(hash).bind(name);
        let found = query.execute(&self.inner.writes).await?.rows_affected() > 0;
        self.delete_sessions_of(name).await?;
        Ok(found)
    }

    /// Disables or enables an account, ending its sessions; `false` if there is no such account.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn set_disabled(&self, name: &str, disabled: bool) -> Result<bool, StoreError> {
        let query = sqlx::query("UPDATE accounts SET disabled = ? WHERE name = ?").bind(disabled).bind(name);
        let found = query.execute(&self.inner.writes).await?.rows_affected() > 0;
        self.delete_sessions_of(name).await?;
        Ok(found)
    }

    /// The account, if name and password fit and it is not disabled; in every other case `None`, after
    /// the same work.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn verify(&self, name: &str, password: Secret<String>) -> Result<Option<Account>, StoreError> {
        let query =
            sqlx::query("SELECT name, role, hash, queues, skills, disabled FROM accounts WHERE name = ?");
        let row = query.bind(name).fetch_optional(&self.inner.reads).await?;
        let hash = row.as_ref().map(|row| row.try_get::<String, _>("hash")).transpose()?;
        let fits = self.hashing(move || fits(hash.as_deref(), &password)).await??;
        let Some(row) = row.filter(|_| fits) else { return Ok(None) };
        Ok(Some(Account::from_row(&row)?).filter(|account| !account.disabled))
    }

    async fn hash(&self, password: Secret<String>) -> Result<String, StoreError> {
        check_password(&password)?;
        self.hashing(move || hash(&password)).await?
    }

    /// Runs `work` on a blocking thread, two at a time.
    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let crypto = |error: String| StoreError::Crypto(error);
        let permit = self.inner.hashing.acquire().await.map_err(|error| crypto(error.to_string()))?;
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| crypto(error.to_string()));
        drop(permit);
        done
    }
}

/// Whether a new password is long enough, and not too long to be hashed.
///
/// # Errors
/// [`StoreError::Unfit`], in words.
pub fn check_password(password: &Secret<String>) -> Result<(), StoreError> {
    let chars = password.expose().chars().count();
    if (MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&chars) {
        return Ok(());
    }
    let words = format!("a password has {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters");
    Err(StoreError::Unfit(words))
}

/// Whether a name can be an account's.
///
/// # Errors
/// [`StoreError::Unfit`], in words.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || !name.chars().all(fits) {
        let words = format!("an account name has 1 to {MAX_NAME_CHARS} letters, digits, - _ .");
        return Err(StoreError::Unfit(words));
    }
    Ok(())
}

fn hash(password: &Secret<String>) -> Result<String, StoreError> {
    let hash = Argon2::default().hash_password(password.expose().as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| StoreError::Crypto(error.to_string()))
}

/// Compares against a hash nobody's password has, where the account does not exist.
fn fits(hash: Option<&str>, password: &Secret<String>) -> Result<bool, StoreError> {
    static NOBODY: OnceLock<String> = OnceLock::new();
    if password.expose().chars().count() > MAX_PASSWORD_CHARS {
        return Ok(false);
    }
    let stored = match (hash, NOBODY.get()) {
        (Some(hash), _) => hash.to_owned(),
        (None, Some(nobody)) => nobody.clone(),
        (None, None) => {
            let made = self::hash(&Secret::new("nobody's password".to_owned()))?;
            NOBODY.get_or_init(|| made).clone()
        }
    };
    let parsed = PasswordHash::new(&stored).map_err(|error| StoreError::Crypto(error.to_string()))?;
    let same = Argon2::default().verify_password(password.expose().as_bytes(), &parsed).is_ok();
    Ok(same && hash.is_some())
}

//! Log-ins of the web: a cookie in the browser, its hash here.
//!
//! Invariant: the database cannot log anybody in, for it does not hold the cookie; a session that is not
//! used for [`SESSION_MS`] is over, on both nodes of a pair.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Account, Store, StoreError};
use crate::terms::{Secret, WallMs};

/// A session lives this long after its last use.
pub const SESSION_MS: WallMs = 12 * 3_600_000;
/// A use moves the end only when it gains this much: not every request is a write.
const RENEW_MS: WallMs = 10 * 60_000;
/// Sessions of one account; the oldest go first.
const MAX_SESSIONS: i64 = 20;
/// Random bytes of a cookie.
const TOKEN_BYTES: usize = 32;

/// A log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The hash of the cookie: names the session without opening it.
    pub id: String,
    /// Who.
    pub account: Account,
    /// When it ends unless it is used.
    pub expires_at: WallMs,
}

impl Store {
    /// Logs `account` in: the cookie, which exists nowhere else, and the session.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer or the machine has no entropy.
    pub async fn create_session(
        &self,
        account: &Account,
        now: WallMs,
    ) -> Result<(Secret<String>, Session), StoreError> {
        let mut bytes = [0_u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| StoreError::Crypto(error.to_string()))?;
        let token = Secret::new(URL_SAFE_NO_PAD.encode(bytes));
        let id = id_of(token.expose());
        let expires_at = now.saturating_add(SESSION_MS);
        sqlx::query("DELETE FROM sessions WHERE expires_at <= ?")
            .bind(now)
            .execute(&self.inner.writes)
            .await?;
        sqlx::query("INSERT INTO sessions (token_hash, account, expires_at) VALUES (?, ?, ?)")
            .bind(&id)
            .bind(account.name.as_str())
            .bind(expires_at)
            .execute(&self.inner.writes)
            .await?;
        let sql = "DELETE FROM sessions WHERE account = ?1 AND token_hash NOT IN
                   (SELECT token_hash FROM sessions WHERE account = ?1 ORDER BY expires_at DESC LIMIT ?2)";
        sqlx::query(sql).bind(account.name.as_str()).bind(MAX_SESSIONS).execute(&self.inner.writes).await?;
        Ok((token, Session { id, account: account.clone(), expires_at }))
    }

    /// The session of a cookie, if it still lives and its account may log in; a use moves its end.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn session(&self, token: &str, now: WallMs) -> Result<Option<Session>, StoreError> {
        let id = id_of(token);
        let sql = "SELECT expires_at, name, role, queues, skills, disabled FROM sessions
                   JOIN accounts ON accounts.name = sessions.account
                   WHERE token_hash = ? AND expires_at > ? AND disabled = 0";
        let row = sqlx::query(sql).bind(&id).bind(now).fetch_optional(&self.inner.reads).await?;
        let Some(row) = row else { return Ok(None) };
        let mut expires_at: WallMs = row.try_get("expires_at")?;
        let renewed = now.saturating_add(SESSION_MS);
        if renewed.saturating_sub(expires_at) >= RENEW_MS {
            let query = sqlx::query("UPDATE sessions SET expires_at = ? WHERE token_hash = ?");
            query.bind(renewed).bind(&id).execute(&self.inner.writes).await?;
            expires_at = renewed;
        }
        Ok(Some(Session { account: Account::from_row(&row)?, id, expires_at }))
    }

    /// Every session that lives and whose account may log in.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn sessions(&self, now: WallMs) -> Result<Vec<Session>, StoreError> {
        let sql = "SELECT token_hash, expires_at, name, role, queues, skills, disabled FROM sessions
                   JOIN accounts ON accounts.name = sessions.account
                   WHERE expires_at > ? AND disabled = 0 ORDER BY token_hash";
        let rows = sqlx::query(sql).bind(now).fetch_all(&self.inner.reads).await?;
        let session = |row: &SqliteRow| {
            let (id, expires_at) = (row.try_get("token_hash")?, row.try_get("expires_at")?);
            Ok(Session { id, account: Account::from_row(row)?, expires_at })
        };
        rows.iter().map(session).collect()
    }

    /// Logs a cookie out.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn delete_session(&self, token: &str) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM sessions WHERE token_hash = ?").bind(id_of(token));
        query.execute(&self.inner.writes).await?;
        Ok(())
    }

    /// Logs every browser of an account out.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn delete_sessions_of(&self, account: &str) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM sessions WHERE account = ?").bind(account);
        query.execute(&self.inner.writes).await?;
        Ok(())
    }
}

fn id_of(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

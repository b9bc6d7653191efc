//! Ordinary SIP phones of accounts that may have one: their digest secrets.
//!
//! Invariant: only accounts that were given a SIP phone have a row here; a browser's phone password
//! follows from its session and is never stored.

use sqlx::Row as _;

use super::{Account, Store, StoreError, from_json, to_json};
use crate::sip::digest::Ha1;

impl Store {
    /// Lets an account's SIP phone log in with this secret, instead of any it had.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer or there is no such account.
    pub async fn set_sip_phone(&self, account: &str, ha1: &Ha1) -> Result<(), StoreError> {
        let sql = "INSERT INTO sip_phones (account, ha1) VALUES (?, ?)
                   ON CONFLICT (account) DO UPDATE SET ha1 = excluded.ha1";
        sqlx::query(sql).bind(account).bind(to_json(ha1)?).execute(&self.inner.writes).await?;
        Ok(())
    }

    /// Whether the account may have a SIP phone.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn has_sip_phone(&self, account: &str) -> Result<bool, StoreError> {
        let query = sqlx::query("SELECT 1 FROM sip_phones WHERE account = ?").bind(account);
        Ok(query.fetch_optional(&self.inner.reads).await?.is_some())
    }

    /// Every enabled account with a SIP phone.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn sip_phones(&self) -> Result<Vec<(Account, Ha1)>, StoreError> {
        let sql = "SELECT name, role, queues, skills, disabled, ha1 FROM sip_phones
                   JOIN accounts ON accounts.name = sip_phones.account WHERE disabled = 0 ORDER BY name";
        let rows = sqlx::query(sql).fetch_all(&self.inner.reads).await?;
        rows.iter().map(|row| Ok((Account::from_row(row)?, from_json(row.try_get("ha1")?)?))).collect()
    }
}

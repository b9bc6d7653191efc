-- Digest secrets (RFC 7616 HA1) of accounts that may log in with an ordinary SIP phone.
CREATE TABLE sip_phones (
    account TEXT PRIMARY KEY REFERENCES accounts (name) ON DELETE CASCADE,
    ha1 TEXT NOT NULL
) WITHOUT ROWID;

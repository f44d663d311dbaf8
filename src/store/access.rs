//! Who may come in: desk sessions, failed logins, API tokens. Secrets are kept as digests only.

use super::{StoreError, bad};
use crate::domain::{
    id::{OfficeId, StaffId},
    role::Role,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Somebody who could log in.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of staff")]
pub struct Candidate {
    pub office: OfficeId,
    pub staff: StaffId,
    pub password_hash: String,
}

/// The person with this login, unless disabled.
///
/// # Errors
/// [`StoreError`].
pub async fn candidate(
    db: &mut PgConnection,
    login: &str,
) -> Result<Option<Candidate>, StoreError> {
    let row = sqlx::query!(
        "SELECT office_id, staff_id, password_hash FROM staff WHERE login = $1 AND NOT disabled",
        login
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Candidate {
        office: OfficeId(row.office_id),
        staff: StaffId(row.staff_id),
        password_hash: row.password_hash,
    }))
}

/// May this attempt be checked?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It is counted and may be checked; `locks`: if it fails, it was the last one for a while.
    Counted {
        /// Whether it was the last one allowed.
        locks: bool,
    },
    /// The name is locked for this address.
    Locked {
        /// Until then.
        until: DateTime<Utc>,
    },
}

/// Counts an attempt before its password is looked at, so that attempts at the same time cannot
/// all be the first; the `allowed`-th one within the lock's time locks until `lock_until` (S21).
/// After a success [`succeeded`] forgets it.
///
/// # Errors
/// [`StoreError`].
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "within sqlx's macro"
)]
pub async fn attempt(
    db: &mut PgConnection,
    login: &str,
    address: &str,
    now: DateTime<Utc>,
    allowed: i32,
    lock_until: DateTime<Utc>,
) -> Result<Attempt, StoreError> {
    // Attempts from before are forgotten, and so is a lock that is over.
    let since = now - (lock_until - now);
    let row = sqlx::query!(
        r#"INSERT INTO login_failure AS f (login, address, failures, locked_until, failed_at)
           VALUES ($1, $2, 1, CASE WHEN $4 <= 1 THEN $5::timestamptz END, $3)
           ON CONFLICT (login, address) DO UPDATE SET
               failures = CASE WHEN coalesce(f.locked_until <= $3, f.failed_at < $6) THEN 1
                               ELSE least(f.failures, $4) + 1 END,
               locked_until = CASE WHEN coalesce(f.locked_until <= $3, f.failed_at < $6)
                                       THEN excluded.locked_until
                                   WHEN f.locked_until IS NULL AND f.failures + 1 >= $4 THEN $5
                                   ELSE f.locked_until END,
               failed_at = $3
           RETURNING failures, locked_until"#,
        login,
        address,
        now,
        allowed,
        lock_until,
        since
    )
    .fetch_one(db)
    .await?;
    Ok(match row.locked_until {
        Some(until) if row.failures > allowed => Attempt::Locked { until },
        locked => Attempt::Counted { locks: locked.is_some() },
    })
}

/// Takes back an attempt that was counted and could not be checked.
///
/// # Errors
/// [`StoreError`].
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "within sqlx's macro"
)]
pub async fn uncount(
    db: &mut PgConnection,
    login: &str,
    address: &str,
    allowed: i32,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE login_failure
         SET failures = failures - 1,
             locked_until = CASE WHEN failures - 1 >= $3 THEN locked_until END
         WHERE login = $1 AND address = $2 AND failures > 0",
        login,
        address,
        allowed
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets failures after a success.
///
/// # Errors
/// [`StoreError`].
pub async fn succeeded(
    db: &mut PgConnection,
    login: &str,
    address: &str,
) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM login_failure WHERE login = $1 AND address = $2", login, address)
        .execute(db)
        .await?;
    Ok(())
}

/// Opens a session; false when the person's password or standing changed since it was checked.
///
/// # Errors
/// [`StoreError`].
pub async fn open_session(
    db: &mut PgConnection,
    candidate: &Candidate,
    token_digest: &[u8],
    csrf: &str,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    // FOR SHARE: a password that is being changed at this moment is waited for, and the change
    // waits for this session, to end it.
    let done = sqlx::query!(
        "INSERT INTO desk_session (office_id, token_digest, staff_id, csrf, created_at, seen_at)
         SELECT office_id, $2, staff_id, $4, $5, $5 FROM staff
         WHERE office_id = $1 AND staff_id = $3 AND password_hash = $6 AND NOT disabled FOR SHARE",
        candidate.office.0,
        token_digest,
        candidate.staff.0,
        csrf,
        now,
        candidate.password_hash
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Who is logged in.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of staff and desk_session")]
pub struct Session {
    pub office: OfficeId,
    pub staff: StaffId,
    pub login: String,
    pub name: String,
    pub role: Role,
    pub csrf: String,
    pub seen_at: DateTime<Utc>,
}

/// The session of this token, if it was used after `idle_since` and opened after `opened_since`.
///
/// # Errors
/// [`StoreError`].
pub async fn session(
    db: &mut PgConnection,
    token_digest: &[u8],
    idle_since: DateTime<Utc>,
    opened_since: DateTime<Utc>,
) -> Result<Option<Session>, StoreError> {
    let row = sqlx::query!(
        "SELECT office_id, staff_id, login, name, role, csrf, seen_at
         FROM desk_session JOIN staff USING (office_id, staff_id)
         WHERE token_digest = $1 AND seen_at > $2 AND desk_session.created_at > $3 AND NOT disabled",
        token_digest,
        idle_since,
        opened_since
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Session {
            office: OfficeId(row.office_id),
            staff: StaffId(row.staff_id),
            login: row.login,
            name: row.name,
            role: Role::parse(&row.role).ok_or(bad("staff", "role"))?,
            csrf: row.csrf,
            seen_at: row.seen_at,
        })
    })
    .transpose()
}

/// Notes that a session is in use.
///
/// # Errors
/// [`StoreError`].
pub async fn seen(
    db: &mut PgConnection,
    token_digest: &[u8],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!("UPDATE desk_session SET seen_at = $2 WHERE token_digest = $1", token_digest, now)
        .execute(db)
        .await?;
    Ok(())
}

/// Ends a session.
///
/// # Errors
/// [`StoreError`].
pub async fn close_session(db: &mut PgConnection, token_digest: &[u8]) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM desk_session WHERE token_digest = $1", token_digest)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes what no login and no session looks at any more: attempts from before `attempts_since`
/// whose lock is over, sessions idle since `idle_since` or opened before `opened_since`.
///
/// # Errors
/// [`StoreError`].
pub async fn purge(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    attempts_since: DateTime<Utc>,
    idle_since: DateTime<Utc>,
    opened_since: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let attempts = sqlx::query!(
        "DELETE FROM login_failure WHERE coalesce(locked_until <= $1, failed_at < $2)",
        now,
        attempts_since
    )
    .execute(&mut *db)
    .await?;
    let sessions = sqlx::query!(
        "DELETE FROM desk_session WHERE seen_at <= $1 OR created_at <= $2",
        idle_since,
        opened_since
    )
    .execute(db)
    .await?;
    Ok(attempts.rows_affected() + sessions.rows_affected())
}

/// Enters an API token under a name; an older one of that name ends.
///
/// # Errors
/// [`StoreError`].
pub async fn put_api_token(
    db: &mut PgConnection,
    office: OfficeId,
    name: &str,
    token_digest: &[u8],
    scopes: &[String],
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO api_token (office_id, name, token_digest, scopes) VALUES ($1, $2, $3, $4)
         ON CONFLICT (office_id, name) DO UPDATE
             SET token_digest = excluded.token_digest, scopes = excluded.scopes, created_at = now()",
        office.0,
        name,
        token_digest,
        scopes
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What an API token may do.
#[derive(Debug, Clone)]
pub struct ApiToken {
    /// In which office.
    pub office: OfficeId,
    /// Under which name.
    pub name: String,
    /// `tickets:read`, `tickets:write`.
    pub scopes: Vec<String>,
}

/// The token with this digest.
///
/// # Errors
/// [`StoreError`].
pub async fn api_token(
    db: &mut PgConnection,
    token_digest: &[u8],
) -> Result<Option<ApiToken>, StoreError> {
    let row = sqlx::query!(
        "SELECT office_id, name, scopes FROM api_token WHERE token_digest = $1",
        token_digest
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| ApiToken {
        office: OfficeId(row.office_id),
        name: row.name,
        scopes: row.scopes,
    }))
}

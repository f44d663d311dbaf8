//! What a verified sender sent and nobody could understand, or the database refused.

use super::{StoreError, number};
use crate::domain::{
    id::{OfficeId, QuarantineId},
    register::RegisterNumber,
};
use chrono::{DateTime, Utc};
use intake_contract::{Quarantine, Submission};
use sqlx::PgConnection;

/// Keeps content that a channel could not understand; a repeat changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn keep(
    db: &mut PgConnection,
    office: OfficeId,
    item: &Quarantine,
    received_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO quarantine (office_id, source, source_id, reason, raw, received_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (office_id, source, source_id) DO NOTHING",
        office.0,
        item.source,
        item.source_id,
        item.reason,
        item.raw,
        received_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps what was told of a call and cannot be of the one that is held under its identity: the
/// original for people, the facts for trying again.
///
/// # Errors
/// [`StoreError`].
pub async fn keep_call(
    db: &mut PgConnection,
    office: OfficeId,
    item: &Quarantine,
    facts: serde_json::Value,
    received_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO quarantine (office_id, source, source_id, reason, raw, submission, received_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (office_id, source, source_id) DO NOTHING",
        office.0,
        item.source,
        item.source_id,
        item.reason,
        item.raw,
        facts,
        received_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How many of these of a source somebody has dealt with.
///
/// # Errors
/// [`StoreError`].
pub async fn handled_of(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    source_ids: &[String],
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM quarantine
           WHERE office_id = $1 AND source = $2 AND source_id = ANY ($3) AND state <> 'open'"#,
        office.0,
        source,
        source_ids
    )
    .fetch_one(db)
    .await?)
}

/// Keeps a submission that the database refused as a ticket, and marks its identity, so that a
/// repeat is answered in the same way.
///
/// # Errors
/// [`StoreError`].
pub async fn keep_refused(
    db: &mut PgConnection,
    office: OfficeId,
    submission: &Submission,
    digest: [u8; 32],
    received_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO inbound (office_id, source, source_id, digest, received_at, quarantined)
         VALUES ($1, $2, $3, $4, $5, true) ON CONFLICT DO NOTHING",
        office.0,
        submission.source,
        submission.source_id,
        digest.as_slice(),
        received_at
    )
    .execute(&mut *db)
    .await?;
    // The words are in `raw`; the parsed form only helps whoever looks at it.
    sqlx::query!(
        "INSERT INTO quarantine (office_id, source, source_id, reason, raw, submission, received_at)
         VALUES ($1, $2, $3, 'refused_by_database', $4, $5, $6)
         ON CONFLICT (office_id, source, source_id) DO NOTHING",
        office.0,
        submission.source,
        submission.source_id,
        submission.raw.as_ref(),
        serde_json::to_value(submission).ok(),
        received_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An item as staff see it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of quarantine")]
pub struct Item {
    pub id: QuarantineId,
    pub source: String,
    pub source_id: String,
    pub reason: String,
    pub raw: Vec<u8>,
    pub submission: Option<serde_json::Value>,
    pub received_at: DateTime<Utc>,
    pub state: String,
    pub ticket: Option<RegisterNumber>,
    /// By whom, and when.
    pub handled: Option<(String, DateTime<Utc>)>,
}

/// The newest items, open ones first.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    db: &mut PgConnection,
    office: OfficeId,
    limit: i64,
) -> Result<Vec<Item>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT quarantine_id, source, source_id, reason, raw, submission, received_at, state, ticket,
                  coalesce(s.name, handled_by) AS handled_by, handled_at
           FROM quarantine q LEFT JOIN staff s ON s.office_id = q.office_id AND s.login = q.handled_by
           WHERE q.office_id = $1 ORDER BY (state = 'open') DESC, quarantine_id DESC LIMIT $2"#,
        office.0,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Item {
                id: QuarantineId(row.quarantine_id),
                source: row.source,
                source_id: row.source_id,
                reason: row.reason,
                raw: row.raw,
                submission: row.submission,
                received_at: row.received_at,
                state: row.state,
                ticket: row.ticket.map(number).transpose()?,
                handled: row.handled_by.zip(row.handled_at),
            })
        })
        .collect()
}

/// One open item, locked.
///
/// # Errors
/// [`StoreError`].
pub async fn lock_open(
    db: &mut PgConnection,
    office: OfficeId,
    id: QuarantineId,
) -> Result<Option<Item>, StoreError> {
    let row = sqlx::query!(
        "SELECT source, source_id, reason, raw, submission, received_at, state
         FROM quarantine WHERE office_id = $1 AND quarantine_id = $2 AND state = 'open' FOR UPDATE",
        office.0,
        id.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Item {
        id,
        source: row.source,
        source_id: row.source_id,
        reason: row.reason,
        raw: row.raw,
        submission: row.submission,
        received_at: row.received_at,
        state: row.state,
        ticket: None,
        handled: None,
    }))
}

/// Lets go of an identity that was marked as refused, so that a replay can take it.
///
/// # Errors
/// [`StoreError`].
pub async fn release_identity(
    db: &mut PgConnection,
    office: OfficeId,
    item: &Item,
) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM inbound
         WHERE office_id = $1 AND source = $2 AND source_id = $3 AND quarantined AND ticket IS NULL",
        office.0,
        item.source,
        item.source_id
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Marks an item as handled.
///
/// # Errors
/// [`StoreError`].
pub async fn handled(
    db: &mut PgConnection,
    office: OfficeId,
    id: QuarantineId,
    state: &str,
    by: &str,
    at: DateTime<Utc>,
    ticket: Option<RegisterNumber>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE quarantine SET state = $3, handled_by = $4, handled_at = $5, ticket = $6
         WHERE office_id = $1 AND quarantine_id = $2 AND state = 'open'",
        office.0,
        id.0,
        state,
        by,
        at,
        ticket.map(RegisterNumber::as_i64)
    )
    .execute(db)
    .await?;
    super::changed("quarantine", &done, 1)
}

/// How many items wait for a person.
///
/// # Errors
/// [`StoreError`].
pub async fn open_count(db: &mut PgConnection, office: OfficeId) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM quarantine WHERE office_id = $1 AND state = 'open'"#,
        office.0
    )
    .fetch_one(db)
    .await?)
}

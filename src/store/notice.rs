//! The outbox and the notices that are made of it.

use super::{StoreError, number};
use crate::domain::{
    id::{NoticeId, OfficeId},
    register::RegisterNumber,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// An effect that a transaction decided.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of outbox and ticket")]
pub struct Effect {
    pub id: i64,
    pub kind: String,
    pub ticket: RegisterNumber,
    pub urgent: bool,
    pub data: serde_json::Value,
    pub due_at: DateTime<Utc>,
    pub provisional: bool,
    pub level: i16,
    pub channel: String,
}

/// Locks an office's effects whose time has come; another replica's are left to it.
///
/// # Errors
/// [`StoreError`].
pub async fn take_effects(
    db: &mut PgConnection,
    office: OfficeId,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Effect>, StoreError> {
    let rows = sqlx::query!(
        "SELECT outbox_id, kind, o.ticket, urgent, data, due_at, provisional, level, channel
         FROM outbox o CROSS JOIN LATERAL (
             SELECT due_at, provisional, level, channel FROM ticket t
             WHERE t.office_id = o.office_id AND t.ticket = o.ticket LIMIT 1) t
         WHERE o.office_id = $1 AND o.state = 0 AND not_before <= $2
         ORDER BY not_before LIMIT $3
         FOR UPDATE OF o SKIP LOCKED",
        office.0,
        now,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Effect {
                id: row.outbox_id,
                kind: row.kind,
                ticket: number(row.ticket)?,
                urgent: row.urgent,
                data: row.data,
                due_at: row.due_at,
                provisional: row.provisional,
                level: row.level,
                channel: row.channel,
            })
        })
        .collect()
}

/// Marks effects as made into notices.
///
/// # Errors
/// [`StoreError`].
pub async fn effects_done(
    db: &mut PgConnection,
    office: OfficeId,
    ids: &[i64],
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE outbox SET state = 1 WHERE office_id = $1 AND outbox_id = ANY($2) AND state = 0",
        office.0,
        ids
    )
    .execute(db)
    .await?;
    super::changed("outbox", &done, ids.len())
}

/// A notice to be sent.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of notice")]
pub struct NewNotice<'a> {
    pub target: &'a str,
    pub audience: &'a str,
    pub title: &'a str,
    pub lines: &'a [String],
    pub ticket: Option<RegisterNumber>,
    pub urgent: bool,
    pub at: DateTime<Utc>,
}

/// Enters a notice.
///
/// # Errors
/// [`StoreError`].
pub async fn add(
    db: &mut PgConnection,
    office: OfficeId,
    notice: &NewNotice<'_>,
) -> Result<NoticeId, StoreError> {
    let id = sqlx::query_scalar!(
        "INSERT INTO notice (office_id, target, audience, title, lines, ticket, urgent, next_try_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) RETURNING notice_id",
        office.0,
        notice.target,
        notice.audience,
        notice.title,
        notice.lines,
        notice.ticket.map(RegisterNumber::as_i64),
        notice.urgent,
        notice.at
    )
    .fetch_one(db)
    .await?;
    Ok(NoticeId(id))
}

/// A notice whose attempt begins.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of notice")]
pub struct Attempt {
    pub office: OfficeId,
    pub id: NoticeId,
    pub target: String,
    pub audience: String,
    pub title: String,
    pub lines: Vec<String>,
    pub ticket: Option<RegisterNumber>,
    pub urgent: bool,
    pub attempts: i32,
}

/// Takes notices to send: counts the attempt and holds each for `lease_s`, so that a replica that
/// dies on the way loses nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn take(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Attempt>, StoreError> {
    let rows = sqlx::query!(
        "UPDATE notice n SET attempts = attempts + 1, next_try_at = $2
         FROM (SELECT office_id, notice_id FROM notice
               WHERE state = 'pending' AND next_try_at <= $1
               ORDER BY urgent DESC, next_try_at LIMIT $3 FOR UPDATE SKIP LOCKED) due
         WHERE n.office_id = due.office_id AND n.notice_id = due.notice_id
         RETURNING n.office_id, n.notice_id, target, audience, title, lines, ticket, urgent, attempts",
        now,
        lease_until,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Attempt {
                office: OfficeId(row.office_id),
                id: NoticeId(row.notice_id),
                target: row.target,
                audience: row.audience,
                title: row.title,
                lines: row.lines,
                ticket: row.ticket.map(number).transpose()?,
                urgent: row.urgent,
                attempts: row.attempts,
            })
        })
        .collect()
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Ended<'a> {
    /// It arrived.
    Sent,
    /// It is to be tried again at this time.
    Retry(DateTime<Utc>, &'a str),
    /// It will not arrive by itself; staff see it and can send it again.
    Dead(&'a str),
}

/// Records the end of an attempt, unless another one has begun meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn ended(
    db: &mut PgConnection,
    attempt: &Attempt,
    recipients: &[String],
    ended: &Ended<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (state, next, error, sent) = match ended {
        Ended::Sent => ("sent", now, None, Some(now)),
        Ended::Retry(at, error) => ("pending", *at, Some(*error), None),
        Ended::Dead(error) => ("dead", now, Some(*error), None),
    };
    sqlx::query!(
        "UPDATE notice SET state = $4, next_try_at = $5, last_error = $6, sent_at = $7, recipients = $8
         WHERE office_id = $1 AND notice_id = $2 AND attempts = $3 AND state = 'pending'",
        attempt.office.0,
        attempt.id.0,
        attempt.attempts,
        state,
        next,
        error,
        sent,
        recipients
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Sends a dead notice again; false when it is not dead.
///
/// # Errors
/// [`StoreError`].
pub async fn revive(
    db: &mut PgConnection,
    office: OfficeId,
    id: NoticeId,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE notice SET state = 'pending', next_try_at = $3, attempts = 0
         WHERE office_id = $1 AND notice_id = $2 AND state = 'dead'",
        office.0,
        id.0,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A notice as staff see it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of notice")]
pub struct NoticeRow {
    pub id: NoticeId,
    pub target: String,
    pub title: String,
    pub lines: Vec<String>,
    pub ticket: Option<RegisterNumber>,
    pub urgent: bool,
    pub state: String,
    pub attempts: i32,
    pub recipients: Vec<String>,
    pub last_error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
}

/// The newest notices of an office, dead ones first.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    db: &mut PgConnection,
    office: OfficeId,
    limit: i64,
) -> Result<Vec<NoticeRow>, StoreError> {
    let rows = sqlx::query!(
        "(SELECT * FROM notice WHERE office_id = $1 AND state = 'dead' ORDER BY notice_id DESC LIMIT $2)
         UNION ALL
         (SELECT * FROM notice WHERE office_id = $1 AND state <> 'dead' ORDER BY notice_id DESC LIMIT $2)",
        office.0,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(NoticeRow {
                id: NoticeId(row.notice_id.unwrap_or_default()),
                target: row.target.unwrap_or_default(),
                title: row.title.unwrap_or_default(),
                lines: row.lines.unwrap_or_default(),
                ticket: row.ticket.map(number).transpose()?,
                urgent: row.urgent.unwrap_or_default(),
                state: row.state.unwrap_or_default(),
                attempts: row.attempts.unwrap_or_default(),
                recipients: row.recipients.unwrap_or_default(),
                last_error: row.last_error,
                created_at: row.created_at.unwrap_or_default(),
                sent_at: row.sent_at,
            })
        })
        .collect()
}

/// Dead notices of an office, the age of the oldest effect that should have become a notice (s).
///
/// # Errors
/// [`StoreError`].
pub async fn dead_count(db: &mut PgConnection, office: OfficeId) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM notice WHERE office_id = $1 AND state = 'dead'"#,
        office.0
    )
    .fetch_one(db)
    .await?)
}

/// How long the oldest effect or notice has been due, in seconds.
///
/// # Errors
/// [`StoreError`].
pub async fn oldest_due_s(db: &mut PgConnection, now: DateTime<Utc>) -> Result<f64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT coalesce(extract(epoch FROM $1 - least(
               (SELECT min(not_before) FROM outbox WHERE state = 0 AND not_before <= $1),
               (SELECT min(next_try_at) FROM notice WHERE state = 'pending' AND next_try_at <= $1)
           ))::float8, 0) AS "age!""#,
        now
    )
    .fetch_one(db)
    .await?)
}

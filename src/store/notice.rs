//! The outbox and the notices that are made of it.

use super::{StoreError, bad, number};
use crate::domain::{
    id::{NoticeId, OfficeId, StaffId},
    level::Level,
    register::RegisterNumber,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// An effect that a transaction decided: of the ticket as it was then, where the effect says so.
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
    pub level: Level,
    pub channel: String,
    /// R7.e: fixed once, so the ticket's is the effect's.
    pub accountable: Option<StaffId>,
    /// Something came since it was asked for.
    pub material_came: bool,
}

/// What of an office may be told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Everything: the office is open.
    Everything,
    /// Emergencies only (RD3.2).
    Emergencies,
}

impl Told {
    fn everything(self) -> bool {
        self == Self::Everything
    }
}

/// Puts off until then what is due and no emergency: effects, and notices of them that wait to be
/// sent. The office has closed, or a closure was entered.
///
/// # Errors
/// [`StoreError`].
pub async fn put_off(
    db: &mut PgConnection,
    office: OfficeId,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH effects AS (
             UPDATE outbox SET not_before = $3
             WHERE office_id = $1 AND state = 0 AND NOT urgent AND not_before <= $2
         )
         UPDATE notice SET next_try_at = $3
         WHERE office_id = $1 AND state = 'pending' AND NOT urgent AND next_try_at <= $2",
        office.0,
        now,
        until
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Brings forward what waits to be told later than then: the office opens earlier than was thought.
///
/// # Errors
/// [`StoreError`].
pub async fn bring_forward(
    db: &mut PgConnection,
    office: OfficeId,
    to: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE outbox SET not_before = $2
         WHERE office_id = $1 AND state = 0 AND NOT urgent AND not_before > $2",
        office.0,
        to
    )
    .execute(&mut *db)
    .await?;
    // What is added after that is told anew.
    sqlx::query!(
        "UPDATE ticket SET growth_told_at = $2
         WHERE office_id = $1 AND is_open AND growth_told_at > $2",
        office.0,
        to
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes an office's effects whose time has come, to be made into notices in this transaction; each
/// is taken once, whoever else takes at the same time.
///
/// # Errors
/// [`StoreError`].
pub async fn take_effects(
    db: &mut PgConnection,
    office: OfficeId,
    now: DateTime<Utc>,
    told: Told,
    limit: i64,
) -> Result<Vec<Effect>, StoreError> {
    // `<> 1` rather than `= 0`: the update goes by key, not by the index of what is pending.
    let mut rows = sqlx::query!(
        r#"WITH taken AS (
             UPDATE outbox SET state = 1
             WHERE office_id = $1 AND state <> 1 AND outbox_id = ANY(ARRAY(
                 SELECT outbox_id FROM outbox
                 WHERE office_id = $1 AND state = 0 AND not_before <= $2 AND (urgent OR $3)
                 ORDER BY not_before LIMIT $4))
             RETURNING office_id, outbox_id, kind, ticket, urgent, data)
           SELECT outbox_id AS "outbox_id!", kind AS "kind!", o.ticket AS "ticket!",
                  urgent AS "urgent!", data AS "data!", due_at, provisional, level, channel,
                  accountable, material_came_at
           FROM taken o CROSS JOIN LATERAL (
               SELECT due_at, provisional, level, channel, accountable, material_came_at
               FROM ticket t
               WHERE t.office_id = o.office_id AND t.ticket = o.ticket LIMIT 1) t"#,
        office.0,
        now,
        told.everything(),
        limit
    )
    .fetch_all(db)
    .await?;
    rows.sort_unstable_by_key(|row| row.outbox_id);
    rows.into_iter()
        .map(|row| {
            let level = match row.data.get("level") {
                Some(level) => serde_json::from_value(level.clone()).ok(),
                None => Level::from_number(row.level),
            };
            let due_at =
                row.data.get("due_at").and_then(|at| serde_json::from_value(at.clone()).ok());
            let provisional = row.data.get("provisional").and_then(serde_json::Value::as_bool);
            Ok(Effect {
                id: row.outbox_id,
                kind: row.kind,
                ticket: number(row.ticket)?,
                urgent: row.urgent,
                data: row.data,
                due_at: due_at.unwrap_or(row.due_at),
                provisional: provisional.unwrap_or(row.provisional),
                level: level.ok_or(bad("outbox", "data"))?,
                channel: row.channel,
                accountable: row.accountable.map(StaffId),
                material_came: row.material_came_at.is_some(),
            })
        })
        .collect()
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
    /// What the other side knows it by, the same in every attempt and in no other notice.
    pub delivery: String,
    pub target: String,
    pub audience: String,
    pub title: String,
    pub lines: Vec<String>,
    pub ticket: Option<RegisterNumber>,
    pub urgent: bool,
    pub attempts: i32,
}

/// A way of an office with room for attempts.
#[derive(Debug, Clone)]
pub struct Room {
    /// Whose.
    pub office: OfficeId,
    /// The way's name.
    pub target: String,
    /// For how many.
    pub free: i64,
    /// Of what.
    pub told: Told,
}

/// Takes notices to send by these ways: counts the attempt and holds each until `lease_until`, so
/// that a replica that dies on the way loses nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn take(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
    rooms: &[Room],
) -> Result<Vec<Attempt>, StoreError> {
    let offices: Vec<i32> = rooms.iter().map(|room| room.office.0).collect();
    let targets: Vec<&str> = rooms.iter().map(|room| room.target.as_str()).collect();
    let free: Vec<i64> = rooms.iter().map(|room| room.free).collect();
    let everything: Vec<bool> = rooms.iter().map(|room| room.told.everything()).collect();
    let rows = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
             SELECT d.office_id, d.notice_id
             FROM unnest($3::int[], $4::text[], $5::bigint[], $6::boolean[])
                AS lane(office_id, target, free, everything)
             CROSS JOIN LATERAL (
                 SELECT n.office_id, n.notice_id FROM notice n
                 WHERE n.office_id = lane.office_id AND n.target = lane.target
                   AND n.state = 'pending' AND n.next_try_at <= $1
                   AND (n.urgent OR lane.everything)
                 ORDER BY n.urgent DESC, n.next_try_at LIMIT lane.free
                 FOR UPDATE SKIP LOCKED) d
         )
         UPDATE notice n SET attempts = attempts + 1, next_try_at = $2
         FROM due WHERE n.office_id = due.office_id AND n.notice_id = due.notice_id
         RETURNING n.office_id, n.notice_id, delivery, target, audience, title,
                   lines, ticket, urgent, attempts"#,
        now,
        lease_until,
        &offices,
        &targets as &[&str],
        &free,
        &everything
    )
    .fetch_all(db)
    .await?;
    let attempts = rows.into_iter().map(|row| {
        Ok(Attempt {
            office: OfficeId(row.office_id),
            id: NoticeId(row.notice_id),
            delivery: row.delivery,
            target: row.target,
            audience: row.audience,
            title: row.title,
            lines: row.lines,
            ticket: row.ticket.map(number).transpose()?,
            urgent: row.urgent,
            attempts: row.attempts,
        })
    });
    let mut attempts = attempts.collect::<Result<Vec<_>, StoreError>>()?;
    attempts.sort_by_key(|attempt| (!attempt.urgent, attempt.id.0));
    Ok(attempts)
}

/// Gives up due notices by ways that are not configured any more; returns how many.
///
/// # Errors
/// [`StoreError`].
pub async fn give_up_without_way(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    ways: &[(OfficeId, String)],
) -> Result<u64, StoreError> {
    let offices: Vec<i32> = ways.iter().map(|way| way.0.0).collect();
    let targets: Vec<&str> = ways.iter().map(|way| way.1.as_str()).collect();
    let done = sqlx::query!(
        "UPDATE notice n SET state = 'dead', last_error = 'no such way is configured any more'
         WHERE state = 'pending' AND next_try_at <= $1 AND office_id = ANY($2)
           AND NOT EXISTS (SELECT FROM unnest($2::int[], $3::text[]) AS way(office_id, target)
                           WHERE way.office_id = n.office_id AND way.target = n.target)",
        now,
        &offices,
        &targets as &[&str]
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Ended<'a> {
    /// It arrived; whom it did not reach, where that is known.
    Sent(Option<&'a str>),
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
        Ended::Sent(missed) => ("sent", now, *missed, Some(now)),
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

/// How many notices of an office are dead.
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

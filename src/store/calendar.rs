//! The calendar beyond the notices that the program carries: later notices, and what an office
//! decides for itself (RD2.1).

use super::{StoreError, bad};
use crate::domain::{
    calendar::{Notice, Override, OverrideKind, WorkingCalendar},
    id::OfficeId,
};
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;

/// The newest version of each notice that was loaded.
///
/// # Errors
/// [`StoreError`].
pub async fn notices(db: &mut PgConnection) -> Result<Vec<Notice>, StoreError> {
    let documents = sqlx::query_scalar!(
        "SELECT DISTINCT ON (year) document FROM calendar_notice ORDER BY year, version DESC"
    )
    .fetch_all(db)
    .await?;
    documents
        .iter()
        .map(|document| Notice::parse(document).map_err(|_| bad("calendar_notice", "document")))
        .collect()
}

/// An office's calendar: the program's notices, those loaded later, and its own decisions.
///
/// # Errors
/// [`StoreError`].
pub async fn build(
    db: &mut PgConnection,
    office: OfficeId,
    notices: &[Notice],
    version: i32,
) -> Result<WorkingCalendar, StoreError> {
    let mut builder = WorkingCalendar::national().version(version);
    for notice in notices {
        builder = builder.notice(notice.clone());
    }
    let decisions = sqlx::query!(
        "SELECT DISTINCT ON (day) day, kind, reason FROM calendar_override
         WHERE office_id = $1 ORDER BY day, version DESC",
        office.0
    )
    .fetch_all(&mut *db)
    .await?;
    for row in decisions {
        // The newest word on the day is that nothing is decided any more.
        if row.kind == "withdrawn" {
            continue;
        }
        let kind = OverrideKind::parse(&row.kind).ok_or(bad("calendar_override", "kind"))?;
        builder = builder.decide(row.day, Override { kind, reason: row.reason });
    }
    let weeks =
        sqlx::query!("SELECT from_day, week FROM calendar_sessions WHERE office_id = $1", office.0)
            .fetch_all(db)
            .await?;
    for row in weeks {
        let week =
            serde_json::from_value(row.week).map_err(|_| bad("calendar_sessions", "week"))?;
        builder = builder.sessions_from(row.from_day, week);
    }
    Ok(builder.build())
}

/// Enters a year's notice as a new version, and gives every office a new calendar in the same
/// statement.
///
/// # Errors
/// [`StoreError`].
pub async fn add_notice(
    db: &mut PgConnection,
    year: i32,
    document: &str,
    by: &str,
    at: DateTime<Utc>,
) -> Result<i32, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"WITH offices AS (
               UPDATE office SET calendar_version = calendar_version + 1
           )
           INSERT INTO calendar_notice (year, version, document, loaded_by, loaded_at)
           SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4
           FROM calendar_notice WHERE year = $1
           RETURNING version"#,
        year,
        document,
        by,
        at
    )
    .fetch_one(db)
    .await?)
}

/// What an office decides about a day.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of calendar_override")]
pub struct NewDecision<'a> {
    pub day: NaiveDate,
    /// `closed`, `open`, `morning_closed`, `afternoon_closed` or `withdrawn`.
    pub kind: &'a str,
    pub reason: &'a str,
    pub authority: &'a str,
    pub by: &'a str,
}

/// Enters an office's decision about a day as a new version, and gives the office a new calendar in
/// the same statement: a decision that no gateway is told of would never take effect.
///
/// # Errors
/// [`StoreError`].
pub async fn decide(
    db: &mut PgConnection,
    office: OfficeId,
    decision: &NewDecision<'_>,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "WITH decided AS (
             INSERT INTO calendar_override (office_id, day, version, kind, reason, authority, entered_by, entered_at)
             SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6, $7
             FROM calendar_override WHERE office_id = $1 AND day = $2
         )
         UPDATE office SET calendar_version = calendar_version + 1 WHERE office_id = $1",
        office.0,
        decision.day,
        decision.kind,
        decision.reason,
        decision.authority,
        decision.by,
        at
    )
    .execute(db)
    .await?;
    super::changed("office", &done, 1)
}

/// Changes an office's sessions from a day on; `week` as [`crate::domain::calendar::Week`] is
/// written, and gives it a new calendar in the same statement.
///
/// # Errors
/// [`StoreError`].
pub async fn sessions_from(
    db: &mut PgConnection,
    office: OfficeId,
    day: NaiveDate,
    week: &serde_json::Value,
    by: &str,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "WITH decided AS (
             INSERT INTO calendar_sessions (office_id, from_day, week, entered_by, entered_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (office_id, from_day) DO UPDATE
                 SET week = excluded.week, entered_by = excluded.entered_by, entered_at = excluded.entered_at
         )
         UPDATE office SET calendar_version = calendar_version + 1 WHERE office_id = $1",
        office.0,
        day,
        week,
        by,
        at
    )
    .execute(db)
    .await?;
    super::changed("office", &done, 1)
}

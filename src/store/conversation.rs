//! What is remembered of conversations, and what is kept in them without a ticket.

use super::{StoreError, bad, number};
use crate::domain::{
    conversation::{Question, Talk},
    id::OfficeId,
    register::RegisterNumber,
    ticket::{Outcome, State},
};
use chrono::{DateTime, Utc};
use intake_contract::{Said, Submission};
use sqlx::PgConnection;

/// A row of `conversation`.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) question: Option<String>,
    pub(super) about: Option<i64>,
    pub(super) asked_at: Option<DateTime<Utc>>,
    pub(super) next_is_new: Option<DateTime<Utc>>,
    pub(super) held: i32,
    pub(super) by_itself_at: Option<DateTime<Utc>>,
    pub(super) closed_ticket: Option<i64>,
    pub(super) closed_at: Option<DateTime<Utc>>,
    pub(super) beside: bool,
    pub(super) citizen_name: Option<String>,
    pub(super) citizen_phone: Option<String>,
    pub(super) scene: Option<String>,
}

/// Reads a row.
pub(super) fn talk(row: Row) -> Result<Talk, StoreError> {
    let question = match (row.question.as_deref(), row.about, row.asked_at) {
        (Some(question), Some(about), Some(asked_at)) => {
            let about = number(about)?;
            let question = match question {
                "old_or_new" => Question::OldOrNew(about),
                "same_as" => Question::SameAs(about),
                "grade" => Question::Grade(about),
                "withdraw" => Question::Withdraw(about),
                _ => return Err(bad("conversation", "question")),
            };
            Some((question, asked_at))
        }
        _ => None,
    };
    let closed = match (row.closed_ticket, row.closed_at) {
        (Some(ticket), Some(at)) => Some((number(ticket)?, at)),
        _ => None,
    };
    Ok(Talk {
        question,
        next_is_new: row.next_is_new,
        held: row.held,
        by_itself_at: row.by_itself_at,
        closed,
        beside: row.beside,
        name: row.citizen_name,
        phone: row.citizen_phone,
        scene: row.scene,
    })
}

/// Remembers what a turn made of a conversation; the caller holds its register's lock. Counts as a
/// turn: whoever decided something about the office without seeing this decides anew.
///
/// Of what others write as well, without that lock (a matter is set aside or taken up again, the
/// citizen leaves the account, a reply ends a question), only what differs from `before` is written.
///
/// # Errors
/// [`StoreError`].
pub async fn put(
    db: &mut PgConnection,
    (office, year): (OfficeId, i32),
    thread: &str,
    before: &Talk,
    talk: &Talk,
) -> Result<(), StoreError> {
    let (question, about) = match talk.question.map(|(question, _)| question) {
        None => (None, None),
        Some(Question::OldOrNew(about)) => (Some("old_or_new"), Some(about)),
        Some(Question::SameAs(about)) => (Some("same_as"), Some(about)),
        Some(Question::Grade(about)) => (Some("grade"), Some(about)),
        Some(Question::Withdraw(about)) => (Some("withdraw"), Some(about)),
    };
    sqlx::query!(
        "WITH turned AS (
             UPDATE register SET turns = turns + 1 WHERE office_id = $1 AND year = $13
         )
         INSERT INTO conversation AS c (office_id, thread, question, about, asked_at, held,
             by_itself_at, closed_ticket, closed_at, beside, citizen_name, citizen_phone, scene,
             next_is_new)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $14, $15)
         ON CONFLICT (office_id, thread) DO UPDATE
             SET question = CASE WHEN $16 THEN excluded.question ELSE c.question END,
                 about = CASE WHEN $16 THEN excluded.about ELSE c.about END,
                 asked_at = CASE WHEN $16 THEN excluded.asked_at ELSE c.asked_at END,
                 held = excluded.held, by_itself_at = excluded.by_itself_at,
                 closed_ticket = CASE WHEN $17 THEN excluded.closed_ticket ELSE c.closed_ticket END,
                 closed_at = CASE WHEN $17 THEN excluded.closed_at ELSE c.closed_at END,
                 beside = CASE WHEN $18 THEN excluded.beside ELSE c.beside END,
                 citizen_name = CASE WHEN $19 THEN excluded.citizen_name ELSE c.citizen_name END,
                 citizen_phone = CASE WHEN $20 THEN excluded.citizen_phone ELSE c.citizen_phone END,
                 scene = CASE WHEN $21 THEN excluded.scene ELSE c.scene END,
                 next_is_new = excluded.next_is_new",
        office.0,
        thread,
        question,
        about.map(RegisterNumber::as_i64),
        talk.question.map(|(_, asked_at)| asked_at),
        talk.held,
        talk.by_itself_at.filter(|_| talk.held > 0),
        talk.closed.map(|(ticket, _)| ticket.as_i64()),
        talk.closed.map(|(_, at)| at),
        talk.beside,
        talk.name,
        talk.phone,
        year,
        talk.scene,
        talk.next_is_new,
        talk.question != before.question,
        talk.closed != before.closed,
        talk.beside != before.beside,
        talk.name != before.name,
        talk.phone != before.phone,
        talk.scene != before.scene
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps a submission without a ticket. Its identity is recorded by [`record`].
///
/// # Errors
/// [`StoreError`].
pub async fn hold(
    db: &mut PgConnection,
    office: OfficeId,
    thread: &str,
    submission: &Submission,
    digest: &[u8; 32],
    received_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let raw = submission.raw.clone();
    let bare = Submission { raw: bytes::Bytes::new(), ..submission.clone() };
    let bare = serde_json::to_value(&bare).map_err(|_| bad("held", "submission"))?;
    sqlx::query!(
        "INSERT INTO held (office_id, thread, submission, raw, digest, received_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        office.0,
        thread,
        bare,
        raw.as_ref(),
        digest.as_slice(),
        received_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What is kept in a conversation.
#[derive(Debug)]
pub struct Held {
    /// Its key.
    pub id: i64,
    /// As it came.
    pub submission: Submission,
    /// Of the original.
    pub digest: [u8; 32],
    /// When it came.
    pub received_at: DateTime<Utc>,
}

/// What is kept in a conversation, as it came.
///
/// # Errors
/// [`StoreError`].
pub async fn held(
    db: &mut PgConnection,
    office: OfficeId,
    thread: &str,
) -> Result<Vec<Held>, StoreError> {
    let rows = sqlx::query!(
        "SELECT held_id, submission, raw, digest, received_at FROM held
         WHERE office_id = $1 AND thread = $2 ORDER BY held_id",
        office.0,
        thread
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let submission: Submission =
                serde_json::from_value(row.submission).map_err(|_| bad("held", "submission"))?;
            Ok(Held {
                id: row.held_id,
                submission: Submission { raw: row.raw.into(), ..submission },
                digest: row.digest.try_into().map_err(|_| bad("held", "digest"))?,
                received_at: row.received_at,
            })
        })
        .collect()
}

/// What was kept has joined a ticket: each with the ticket and its place in the trail.
///
/// # Errors
/// [`StoreError`].
pub async fn joined(
    db: &mut PgConnection,
    office: OfficeId,
    thread: &str,
    joined: &[(&Held, RegisterNumber, i32)],
) -> Result<(), StoreError> {
    let sources: Vec<&str> = joined.iter().map(|one| one.0.submission.source.as_str()).collect();
    let ids: Vec<&str> = joined.iter().map(|one| one.0.submission.source_id.as_str()).collect();
    let tickets: Vec<i64> = joined.iter().map(|one| one.1.as_i64()).collect();
    let seqs: Vec<i32> = joined.iter().map(|one| one.2).collect();
    let offices = vec![office.0; joined.len()];
    let held: Vec<i64> = joined.iter().map(|one| one.0.id).collect();
    let done = sqlx::query!(
        "WITH gone AS (
             DELETE FROM held WHERE office_id = $1 AND thread = $2 AND held_id = ANY($7)
         )
         UPDATE inbound SET ticket = i.ticket, seq = i.seq
         FROM unnest($8::int[], $3::text[], $4::text[], $5::bigint[], $6::int[])
             AS i(office_id, source, source_id, ticket, seq)
         WHERE inbound.office_id = i.office_id AND inbound.source = i.source
           AND inbound.source_id = i.source_id",
        office.0,
        thread,
        &sources as &[&str],
        &ids as &[&str],
        &tickets,
        &seqs,
        &held,
        &offices
    )
    .execute(db)
    .await?;
    super::changed("inbound", &done, joined.len())
}

/// Records a submission's identity with what its sender is answered.
///
/// # Errors
/// [`StoreError`]; see [`StoreError::is_overtaken`] when it is known by now.
pub async fn record(
    db: &mut PgConnection,
    office: OfficeId,
    submission: &Submission,
    digest: &[u8; 32],
    received_at: DateTime<Utc>,
    said: &Said,
) -> Result<(), StoreError> {
    let said = serde_json::to_value(said).map_err(|_| bad("inbound", "said"))?;
    sqlx::query!(
        "INSERT INTO inbound (office_id, source, source_id, digest, received_at, said)
         VALUES ($1, $2, $3, $4, $5, $6)",
        office.0,
        submission.source,
        submission.source_id,
        digest.as_slice(),
        received_at,
        said
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Records the identity of an answer that took what was kept before it into a ticket, where the
/// first of it has the place `seq`.
///
/// # Errors
/// As [`record`].
pub async fn record_made(
    db: &mut PgConnection,
    office: OfficeId,
    (submission, digest, received_at): (&Submission, &[u8; 32], DateTime<Utc>),
    made: &super::intake::Made,
    seq: i32,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO inbound (office_id, source, source_id, digest, received_at, ticket, seq,
            appended, follow_up_at, due_at, provisional, asks, stood)
         VALUES ($1, $2, $3, $4, $5, $6, $11, $12, $7, $8, $9, $10, $13)",
        office.0,
        submission.source,
        submission.source_id,
        digest.as_slice(),
        received_at,
        made.ticket.as_i64(),
        made.follow_up_at,
        made.due_at,
        made.provisional,
        made.asks,
        seq,
        made.appended,
        made.stood.stored()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// One of a citizen's matters.
#[derive(Debug, Clone)]
pub struct Matter {
    /// Which.
    pub ticket: RegisterNumber,
    /// Where it stands.
    pub state: State,
    /// Whether the citizen's messages grow it.
    pub grows: bool,
    /// When it was registered.
    pub registered_at: DateTime<Utc>,
    /// By when it is answered.
    pub due_at: DateTime<Utc>,
    /// Whether that date is a forecast.
    pub provisional: bool,
    /// Something came since it was asked for.
    pub material_came: bool,
}

impl Matter {
    /// Whether the citizen has taken it back.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        matches!(self.state, State::Resolved { outcome: Outcome::Withdrawn, .. })
    }
}

/// A citizen's open matters, the newest first.
///
/// # Errors
/// [`StoreError`].
pub async fn open_matters(
    db: &mut PgConnection,
    office: OfficeId,
    thread: &str,
) -> Result<Vec<Matter>, StoreError> {
    // One branch for each of the two partial indexes.
    let rows = sqlx::query!(
        r#"SELECT ticket AS "ticket!", state AS "state!", state_data AS "state_data!",
                  grows AS "grows!", registered_at AS "registered_at!", due_at AS "due_at!",
                  provisional AS "provisional!",
                  material_came_at IS NOT NULL AS "material_came!"
           FROM (SELECT * FROM ticket WHERE office_id = $1 AND thread = $2 AND is_open AND grows
                     AND thread IS NOT NULL
                 UNION ALL
                 SELECT * FROM ticket WHERE office_id = $1 AND thread = $2 AND is_open AND NOT grows
                     AND thread IS NOT NULL) t
           ORDER BY ticket DESC"#,
        office.0,
        thread
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Matter {
                ticket: number(row.ticket)?,
                state: super::ticket::state(&row.state, row.state_data)?,
                grows: row.grows,
                registered_at: row.registered_at,
                due_at: row.due_at,
                provisional: row.provisional,
                material_came: row.material_came,
            })
        })
        .collect()
}

/// Whose messages a ticket holds; `None` where there is no such ticket or it has no conversation.
///
/// # Errors
/// [`StoreError`].
pub async fn thread_of(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<String>, StoreError> {
    let found = sqlx::query_scalar!(
        "SELECT thread FROM ticket WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    Ok(found.flatten())
}

/// From now on the citizen's messages grow this ticket, or do not.
///
/// # Errors
/// [`StoreError`]; overtaken where another one grows.
pub async fn set_grows(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    grows: bool,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE ticket SET grows = $3 WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64(),
        grows
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Remembers that this ticket stands beside what its citizen says from now on: should it be taken up
/// again, their words grow it again.
///
/// # Errors
/// [`StoreError`].
pub async fn set_beside(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO conversation (office_id, thread, beside)
         SELECT office_id, thread, true FROM ticket
         WHERE office_id = $1 AND ticket = $2 AND thread IS NOT NULL
         ON CONFLICT (office_id, thread) DO UPDATE SET beside = true",
        office.0,
        ticket.as_i64()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Conversations in which something is kept whose time has come, the oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn due(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(OfficeId, String)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT office_id, thread FROM conversation
         WHERE by_itself_at IS NOT NULL AND by_itself_at <= $1 ORDER BY by_itself_at LIMIT $2",
        now,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (OfficeId(row.office_id), row.thread)).collect())
}

/// How long the oldest of what is kept is due, in seconds; 0 when nothing is.
///
/// # Errors
/// [`StoreError`].
pub async fn oldest_due_s(db: &mut PgConnection, now: DateTime<Utc>) -> Result<f64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT coalesce(extract(epoch FROM $1 - (SELECT by_itself_at FROM conversation
               WHERE by_itself_at IS NOT NULL AND by_itself_at <= $1
               ORDER BY by_itself_at LIMIT 1))::float8, 0) AS "age!""#,
        now
    )
    .fetch_one(db)
    .await?)
}

//! Recordings of the telephone beyond what they have in common with other media: by which rule they go,
//! who may keep them, what a machine has understood of them.

use super::{StoreError, bad, media::Content, number};
use crate::{
    domain::{id::OfficeId, register::RegisterNumber},
    media::{Copies, Hash, Type},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A recording that is to be written down.
#[derive(Debug, Clone)]
pub struct ToWrite {
    /// Whose.
    pub office: OfficeId,
    /// What.
    pub content: Content,
    /// This try included.
    pub tries: i32,
}

/// The sources of an office of which recordings are kept, configured or not.
///
/// # Errors
/// [`StoreError`].
pub async fn sources(db: &mut PgConnection, office: OfficeId) -> Result<Vec<String>, StoreError> {
    // From one name to the next in the index: there are few of them and many recordings.
    let names = sqlx::query_scalar!(
        r#"WITH RECURSIVE s AS (
               (SELECT source FROM media WHERE office_id = $1 AND state = 'kept'
                    AND source LIKE 'hotline:%' ORDER BY source LIMIT 1)
               UNION ALL
               SELECT (SELECT m.source FROM media m WHERE m.office_id = $1 AND m.state = 'kept'
                    AND m.source LIKE 'hotline:%' AND m.source > s.source
                    ORDER BY m.source LIMIT 1)
               FROM s WHERE s.source IS NOT NULL)
           SELECT source AS "source!" FROM s WHERE source IS NOT NULL"#,
        office.0
    )
    .fetch_all(db)
    .await?;
    Ok(names)
}

/// Where a page of [`to_remove`] ended.
pub type Kept = (DateTime<Utc>, i64);

/// Tickets of this source whose recordings have been kept long enough: closed since before then, and
/// held by nobody. The longest kept first, `limit` recordings at most, and where to go on when there
/// may be more.
///
/// # Errors
/// [`StoreError`].
pub async fn to_remove(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    before: DateTime<Utc>,
    after: Option<Kept>,
    limit: i64,
) -> Result<(Vec<RegisterNumber>, Option<Kept>), StoreError> {
    let (after_at, after_ticket) = after.unzip();
    let rows = sqlx::query!(
        "SELECT m.ticket, m.received_at FROM media m
         WHERE m.office_id = $1 AND m.source = $2 AND m.source LIKE 'hotline:%' AND m.state = 'kept'
           AND m.received_at < $3
           AND (m.received_at, m.ticket) > (coalesce($5, '-infinity'::timestamptz), coalesce($6, 0::bigint))
           AND (SELECT NOT t.is_open AND NOT t.recordings_held FROM ticket t
                WHERE t.office_id = m.office_id AND t.ticket = m.ticket)
           AND (SELECT max(e.at) FROM event e WHERE e.office_id = m.office_id
                AND e.ticket = m.ticket AND e.kind = 'closed') < $3
         ORDER BY m.received_at, m.ticket LIMIT $4",
        office.0,
        source,
        before,
        limit,
        after_at,
        after_ticket
    )
    .fetch_all(db)
    .await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let last = rows.last().filter(|_| is_full).map(|row| (row.received_at, row.ticket));
    let mut tickets: Vec<i64> = rows.into_iter().map(|row| row.ticket).collect();
    tickets.sort_unstable();
    tickets.dedup();
    Ok((tickets.into_iter().map(number).collect::<Result<_, _>>()?, last))
}

/// Whether a ticket lets its recordings go: it was closed before then, for the last time, and is not
/// held. And the number of the one in whose favour it
/// ended, as displayed; `None` when there is no such ticket.
///
/// # Errors
/// [`StoreError`].
pub async fn lets_go(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    before: DateTime<Utc>,
) -> Result<Option<(bool, Option<String>)>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT NOT is_open AND NOT recordings_held AND coalesce((SELECT max(e.at) FROM event e
               WHERE e.office_id = $1 AND e.ticket = $2 AND e.kind = 'closed') < $3, false)
               AS "lets_go!",
               CASE WHEN outcome = 'duplicate' THEN state_data #>> '{outcome,of}' END AS "of?"
           FROM ticket WHERE office_id = $1 AND ticket = $2"#,
        office.0,
        ticket.as_i64(),
        before
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.lets_go, row.of)))
}

/// Lets go of the recordings of a ticket; the caller holds its lock. Returns the messages that they
/// came with.
///
/// # Errors
/// [`StoreError`].
pub async fn remove_recordings(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    ticket: RegisterNumber,
    now: DateTime<Utc>,
) -> Result<Vec<i32>, StoreError> {
    let mut messages = sqlx::query_scalar!(
        "UPDATE media SET state = 'removed', hash = NULL, removed_at = $4
         WHERE office_id = $1 AND ticket = $3 AND source = $2 AND state = 'kept' RETURNING seq",
        office.0,
        source,
        ticket.as_i64(),
        now
    )
    .fetch_all(db)
    .await?;
    messages.sort_unstable();
    messages.dedup();
    Ok(messages)
}

/// Whether the ticket's recordings are held.
///
/// # Errors
/// [`StoreError`].
pub async fn held(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<bool, StoreError> {
    let held = sqlx::query_scalar!(
        "SELECT recordings_held FROM ticket WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    );
    Ok(held.fetch_optional(db).await?.unwrap_or_default())
}

/// Holds the ticket's recordings, or holds them no more; the caller holds its lock and writes the
/// event.
///
/// # Errors
/// [`StoreError`].
pub async fn hold(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    held: bool,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE ticket SET recordings_held = $3 WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64(),
        held
    )
    .execute(db)
    .await?;
    super::changed("ticket", &done, 1)
}

/// Takes the next recording that is to be written down, until `lease`.
///
/// # Errors
/// [`StoreError`].
pub async fn claim_transcript(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
) -> Result<Option<ToWrite>, StoreError> {
    let row = sqlx::query!(
        "WITH due AS (
             UPDATE transcript w SET next_try_at = $2, tries = w.tries + 1
             FROM (SELECT office_id, hash FROM transcript
                   WHERE state = 'waiting' AND next_try_at <= $1
                   ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED) i
             WHERE w.office_id = i.office_id AND w.hash = i.hash
             RETURNING w.office_id, w.hash, w.tries
         )
         SELECT d.office_id, d.hash, d.tries, o.type, o.size, o.copies, o.ms, o.silent
         FROM due d JOIN media_object o ON o.office_id = d.office_id AND o.hash = d.hash",
        now,
        lease
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let hash = row.hash.try_into().map_err(|_| bad("transcript", "hash"))?;
        let copies = row.copies.as_deref().and_then(Copies::read);
        let content = Content {
            hash: Hash(hash),
            kind: Type::of_mime(row.r#type.as_deref().unwrap_or_default()),
            size: row.size.unwrap_or_default().unsigned_abs(),
            copies: copies.ok_or(bad("media_object", "copies"))?,
            ms: row.ms,
            silent: row.silent,
        };
        Ok(ToWrite { office: OfficeId(row.office_id), content, tries: row.tries })
    })
    .transpose()
}

/// What was understood of it.
///
/// # Errors
/// [`StoreError`].
pub async fn transcribed(
    db: &mut PgConnection,
    what: &ToWrite,
    text: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE transcript SET state = 'done', next_try_at = NULL, says = NULL, text = $3
         WHERE office_id = $1 AND hash = $2 AND state = 'waiting'",
        what.office.0,
        &what.content.hash.0,
        text
    )
    .execute(db)
    .await?;
    Ok(())
}

/// It came to nothing: it is tried again then, or never.
///
/// # Errors
/// [`StoreError`].
pub async fn not_transcribed(
    db: &mut PgConnection,
    what: &ToWrite,
    again: Option<DateTime<Utc>>,
    says: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE transcript SET next_try_at = $3, says = $4,
             state = CASE WHEN $3::timestamptz IS NULL THEN 'failed' ELSE 'waiting' END
         WHERE office_id = $1 AND hash = $2 AND state = 'waiting'",
        what.office.0,
        &what.content.hash.0,
        again,
        says
    )
    .execute(db)
    .await?;
    Ok(())
}

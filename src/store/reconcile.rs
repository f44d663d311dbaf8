//! What is compared of calls, what became of it, and what of them is old enough to go.

use super::{StoreError, call::Key};
use crate::domain::id::OfficeId;
use chrono::{DateTime, Utc};
use intake_hotline::{CallEvent, Caller};
use sqlx::{Connection, PgConnection};

/// What the comparison of one source came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of reconciliation")]
pub struct Outcome {
    pub office: OfficeId,
    pub source: String,
    pub at: DateTime<Utc>,
    pub since: DateTime<Utc>,
    pub told: Option<i32>,
    pub held: i32,
    pub repaired: i32,
    pub missing: i32,
    pub differs: i32,
    pub says: Option<String>,
}

/// Keeps an outcome.
///
/// # Errors
/// [`StoreError`].
pub async fn keep(db: &mut PgConnection, outcome: &Outcome) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO reconciliation (office_id, source, at, since, told, held, repaired, missing,
             differs, says)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        outcome.office.0,
        outcome.source,
        outcome.at,
        outcome.since,
        outcome.told,
        outcome.held,
        outcome.repaired,
        outcome.missing,
        outcome.differs,
        outcome.says
    )
    .execute(db)
    .await?;
    Ok(())
}

/// When a source was compared last; `None`: never.
///
/// # Errors
/// [`StoreError`].
pub async fn last(
    db: &mut PgConnection,
    office: OfficeId,
    source: &str,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT at FROM reconciliation WHERE office_id = $1 AND source = $2
         ORDER BY at DESC LIMIT 1",
        office.0,
        source
    )
    .fetch_optional(db)
    .await?)
}

/// A call that has no ticket, or a recording without its message; told of at this moment.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of call")]
pub struct Unfinished {
    pub key: Key,
    pub told_at: DateTime<Utc>,
}

/// Calls of a source that were told of between two moments, the first one excluded, and that have no
/// ticket or a recording without its message, in their order. Many of them rightly so.
///
/// # Errors
/// [`StoreError`].
pub async fn unfinished(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    (after, to): ((DateTime<Utc>, &str), DateTime<Utc>),
    limit: i64,
) -> Result<Vec<Unfinished>, StoreError> {
    let rows = sqlx::query!(
        "SELECT call_key, told_at FROM call c
         WHERE office_id = $1 AND told_at >= $3 AND told_at < $5
           AND source = $2 AND (told_at, call_key) > ($3, $4)
           AND (ticket IS NULL OR EXISTS (
               SELECT FROM call_recording r WHERE r.office_id = $1 AND r.source = c.source
                   AND r.call_key = c.call_key AND r.seq IS NULL AND r.state = 'announced'))
         ORDER BY told_at, call_key LIMIT $6",
        office.0,
        source,
        after.0,
        after.1,
        to,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Unfinished {
            key: Key { office, source: source.to_owned(), call: row.call_key },
            told_at: row.told_at,
        })
        .collect())
}

/// Calls of a source that were told of between two moments, and their recordings whose message is not
/// there.
///
/// # Errors
/// [`StoreError`].
pub async fn counted(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "calls!", coalesce(sum((
               SELECT count(*) FROM call_recording r
               WHERE r.office_id = $1 AND r.source = c.source AND r.call_key = c.call_key
                 AND r.seq IS NOT NULL AND (SELECT m.seq FROM message m
                     WHERE m.office_id = r.office_id AND m.ticket = r.ticket AND m.seq = r.seq
                     LIMIT 1) IS NULL)),
               0)::bigint AS "lost!"
           FROM call c
           WHERE office_id = $1 AND told_at >= $3 AND told_at < $4 AND source = $2"#,
        office.0,
        source,
        from,
        to
    )
    .fetch_one(db)
    .await?;
    Ok((row.calls, row.lost))
}

/// Recordings that were announced by calls told of between two moments and are not there yet; a
/// thousand at most.
///
/// # Errors
/// [`StoreError`].
pub async fn announced(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT r.recording_key FROM call c CROSS JOIN LATERAL (
             SELECT recording_key FROM call_recording r WHERE r.office_id = $1
                 AND r.source = c.source AND r.call_key = c.call_key AND r.state = 'announced'
             LIMIT 100) r
         WHERE c.office_id = $1 AND c.told_at >= $3 AND c.told_at < $4 AND c.source = $2 LIMIT 1000",
        office.0,
        source,
        from,
        to
    )
    .fetch_all(db)
    .await?)
}

/// Ends the waiting for the file of a recording, unless somebody still asks for it; returns whether
/// it did.
///
/// # Errors
/// [`StoreError`].
pub async fn end_waiting(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    recording: &str,
) -> Result<bool, StoreError> {
    let mut transaction = db.begin().await?;
    // The recording follows by the trigger of `media`; one without a message by the second statement.
    let file = sqlx::query!(
        "UPDATE media SET state = 'expired', says = 'never came'
         WHERE office_id = $1 AND n = 0 AND state = 'waiting' AND next_try_at IS NULL
           AND (ticket, seq) = (SELECT ticket, seq FROM call_recording
               WHERE office_id = $1 AND source = $2 AND recording_key = $3)",
        office.0,
        source,
        recording
    )
    .execute(&mut *transaction)
    .await?;
    let bare = sqlx::query!(
        "UPDATE call_recording SET state = 'expired'
         WHERE office_id = $1 AND source = $2 AND recording_key = $3 AND state = 'announced'
           AND seq IS NULL",
        office.0,
        source,
        recording
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(file.rows_affected() + bare.rows_affected() > 0)
}

/// Which calls another account may be of: two pushes, or two entries of a list, are two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Those that a push told of.
    Pushed,
    /// Those that a list told of first, which go by the list's identity.
    Listed,
}

/// The call that this one is, told by its source under another identity: what is listed under the
/// same one; else of the same caller, or of somebody who hid the number and called the same number
/// for as long, what began nearest to the same moment and no further away than so many seconds.
///
/// # Errors
/// [`StoreError`].
pub async fn alike(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    (call, among): (&CallEvent, Among),
    at: DateTime<Utc>,
    within_s: i32,
) -> Result<Option<String>, StoreError> {
    // Of a caller who is not told at all nothing is alike but the identity.
    let hidden = matches!(call.caller, Some(Caller::Anonymous));
    // A call is told of after it began, and within days.
    Ok(sqlx::query_scalar!(
        r#"SELECT call_key FROM call
         WHERE office_id = $1 AND told_at >= $4::timestamptz - interval '5 minutes'
           AND told_at < $4::timestamptz + interval '30 days' AND source = $2
           AND (facts ->> 'listed_as' IS NOT DISTINCT FROM call_key) = $10
           AND (facts ->> 'listed_as' = $6
             OR coalesce(facts ->> 'listed_as' = $6, true)
               AND abs(extract(epoch FROM (facts ->> 'started_at')::timestamptz - $4)) <= $5::int
               AND (caller = $3 OR $7 AND facts -> 'caller' = '"anonymous"'
                   AND facts ->> 'callee' = $8 AND abs((facts ->> 'call_s')::int - $9) <= 2))
         ORDER BY facts ->> 'listed_as' = $6 DESC NULLS LAST,
             abs(extract(epoch FROM (facts ->> 'started_at')::timestamptz - $4)) LIMIT 1"#,
        office.0,
        source,
        call.caller.as_ref().and_then(Caller::identity),
        at,
        within_s,
        call.listed_as.as_deref(),
        hidden,
        call.callee.as_deref(),
        call.call_s.and_then(|s| i32::try_from(s).ok()),
        among == Among::Listed
    )
    .fetch_optional(db)
    .await?)
}

/// The call on this channel that lasted at this moment: a channel's name comes back, so the time
/// belongs to it.
///
/// # Errors
/// [`StoreError`].
pub async fn on_channel(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    channel: &str,
    at: DateTime<Utc>,
) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT call_key FROM call
         WHERE office_id = $1 AND told_at >= $4::timestamptz - interval '5 minutes'
           AND told_at < $4::timestamptz + interval '3 days' AND source = $2
           AND facts ->> 'channel' = $3
           AND (facts ->> 'started_at')::timestamptz <= $4::timestamptz + interval '1 second'
           AND (facts ->> 'ended_at')::timestamptz >= $4::timestamptz - interval '1 second'
         ORDER BY call_key LIMIT 1",
        office.0,
        source,
        channel,
        at
    )
    .fetch_optional(db)
    .await?)
}

/// What came in by telephone while an office was closed, and what the comparison found meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClosedHours {
    /// Messages that were left.
    pub messages: i64,
    /// Calls of somebody who left none and whom nobody spoke with.
    pub missed: i64,
    /// Tickets of both that wait to be called back.
    pub waiting: i64,
    /// Calls that the comparison brought in or completed.
    pub repaired: i64,
    /// Calls that it could not bring in, or that are told otherwise than they are held.
    pub wrong: i64,
}

/// What is to be told of the hours that ended when the office opened, with the calls of earlier ones
/// that were told of too late for the digest before; `None` when it has been told.
///
/// # Errors
/// [`StoreError`].
pub async fn take_closed_hours(
    db: &mut PgConnection,
    office: OfficeId,
    (closed, opened): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<ClosedHours>, StoreError> {
    let taken = sqlx::query_scalar!(
        r#"WITH before AS (SELECT opened_at FROM closed_hours_told WHERE office_id = $1)
         INSERT INTO closed_hours_told AS t (office_id, opened_at) VALUES ($1, $2)
         ON CONFLICT (office_id) DO UPDATE SET opened_at = excluded.opened_at
             WHERE t.opened_at < excluded.opened_at
         RETURNING coalesce((SELECT opened_at FROM before), $3) AS "told_up_to!""#,
        office.0,
        opened,
        closed
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(told_up_to) = taken else { return Ok(None) };
    let calls = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE left_one) AS "messages!",
                  count(*) FILTER (WHERE NOT left_one) AS "missed!",
                  count(DISTINCT ticket) FILTER (WHERE waits) AS "waiting!"
           FROM (SELECT c.ticket,
                     EXISTS (SELECT FROM call_recording r WHERE r.office_id = $1
                         AND r.source = c.source AND r.call_key = c.call_key
                         AND r.seq IS NOT NULL) AS left_one,
                     EXISTS (SELECT FROM call_back b WHERE b.office_id = $1
                         AND b.ticket = c.ticket AND b.state = 'waiting') AS waits
                 FROM call c WHERE c.office_id = $1 AND c.told_at >= least($2::timestamptz, $4::timestamptz) AND c.told_at < $3
                     AND (c.told_at >= $2 OR c.spoken_at < $4)
                     AND c.ticket IS NOT NULL) c"#,
        office.0,
        closed,
        opened,
        told_up_to
    )
    .fetch_one(&mut *db)
    .await?;
    let compared = sqlx::query!(
        r#"SELECT coalesce(sum(repaired), 0) AS "repaired!",
                  coalesce(sum(missing + differs), 0) AS "wrong!"
           FROM reconciliation WHERE office_id = $1 AND at >= $2 AND at < $3"#,
        office.0,
        closed,
        opened
    )
    .fetch_one(db)
    .await?;
    Ok(Some(ClosedHours {
        messages: calls.messages,
        missed: calls.missed,
        waiting: calls.waiting,
        repaired: compared.repaired,
        wrong: compared.wrong,
    }))
}

/// Removes originals that came before then, at most so many, except where something is still to be
/// done about a call that they tell of. What a ticket's trail refers to stands with its message.
///
/// # Errors
/// [`StoreError`].
pub async fn purge_parts(
    db: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64, StoreError> {
    let gone = sqlx::query!(
        "DELETE FROM call_part p USING (
             SELECT office_id, source, digest FROM call_part o
             WHERE received_at < $1 AND NOT EXISTS (
                 SELECT FROM unnest(o.calls) AS k (call_key)
                 CROSS JOIN LATERAL (SELECT settle_at FROM call c WHERE c.office_id = o.office_id
                     AND c.source = o.source AND c.call_key = k.call_key LIMIT 1) c
                 WHERE c.settle_at IS NOT NULL)
             ORDER BY received_at LIMIT $2) i
         WHERE p.office_id = i.office_id AND p.source = i.source AND p.digest = i.digest",
        before,
        limit
    )
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}

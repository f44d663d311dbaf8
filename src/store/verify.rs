//! Reads the register and the trail for `intake verify`.

use super::{StoreError, bad, number};
use crate::domain::{
    chain::Link,
    id::{OfficeId, StaffId, UnitId},
    level::Level,
    register::RegisterNumber,
    standing::Standing,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// A year of an office's register: what the counter says and what is there.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "named as what they count")]
pub struct Year {
    pub office: OfficeId,
    pub year: i32,
    pub counter: i32,
    pub tickets: i64,
    pub first: i32,
    pub last: i32,
}

/// All years of all registers, also those that have tickets and no counter.
///
/// # Errors
/// [`StoreError`].
pub async fn years(db: &mut PgConnection) -> Result<Vec<Year>, StoreError> {
    let rows = sqlx::query!(
        r#"WITH found AS (
               SELECT office_id, (ticket / 1000000000)::int AS year, count(*) AS tickets,
                      min(ticket % 1000000000)::int AS first, max(ticket % 1000000000)::int AS last
               FROM ticket GROUP BY 1, 2)
           SELECT office_id AS "office_id!", year AS "year!", coalesce(r.last, 0) AS "counter!",
                  coalesce(tickets, 0) AS "tickets!", coalesce(first, 1) AS "first!",
                  coalesce(found.last, 0) AS "last!"
           FROM register r FULL JOIN found USING (office_id, year) ORDER BY 1, 2"#
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Year {
            office: OfficeId(row.office_id),
            year: row.year,
            counter: row.counter,
            tickets: row.tickets,
            first: row.first,
            last: row.last,
        })
        .collect())
}

/// The first numbers that are missing from a year, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn gaps(
    db: &mut PgConnection,
    office: OfficeId,
    year: i32,
    counter: i32,
    limit: i64,
) -> Result<Vec<i32>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT n AS "n!" FROM generate_series(1, $3::int) n
           WHERE NOT EXISTS (SELECT FROM ticket WHERE office_id = $1
                             AND ticket = $2::int * 1000000000::bigint + n) LIMIT $4"#,
        office.0,
        year,
        counter,
        limit
    )
    .fetch_all(db)
    .await?)
}

/// An event as the chain sees it, with the message that it records.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of event and message")]
pub struct Stored {
    pub office: OfficeId,
    pub ticket: RegisterNumber,
    pub seq: i32,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub kind: String,
    pub data: String,
    pub hash: Link,
    /// The end of the chain as the ticket has it; `None` when there is no such ticket.
    pub head: Option<(i32, Vec<u8>)>,
    pub raw: Option<Vec<u8>>,
}

/// Events after this one, in the order of their keys.
///
/// # Errors
/// [`StoreError`].
pub async fn events_after(
    db: &mut PgConnection,
    after: (OfficeId, i64, i32),
    limit: i64,
) -> Result<Vec<Stored>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT e.office_id, e.ticket, e.seq, at, actor, kind, data::text AS "data!", hash,
                  t.events AS "events?", t.chain AS "chain?", original(m) AS "raw?"
           FROM event e
           LEFT JOIN ticket t ON t.office_id = e.office_id AND t.ticket = e.ticket
           LEFT JOIN message m ON m.office_id = e.office_id AND m.ticket = e.ticket AND m.seq = e.seq
           WHERE (e.office_id, e.ticket, e.seq) > ($1, $2, $3)
           ORDER BY e.office_id, e.ticket, e.seq LIMIT $4"#,
        after.0.0,
        after.1,
        after.2,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Stored {
                office: OfficeId(row.office_id),
                ticket: number(row.ticket)?,
                seq: row.seq,
                at: row.at,
                actor: row.actor,
                kind: row.kind,
                data: row.data,
                hash: Link(row.hash.try_into().map_err(|_| bad("event", "hash"))?),
                head: row.events.zip(row.chain),
                raw: row.raw,
            })
        })
        .collect()
}

/// How the tickets between two keys, both among them, stand by their rows; `None` for a row that
/// the domain cannot read.
///
/// # Errors
/// [`StoreError`].
pub async fn standings(
    db: &mut PgConnection,
    first: (OfficeId, i64),
    last: (OfficeId, i64),
) -> Result<BTreeMap<(OfficeId, i64), Option<Standing>>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT office_id, ticket, state_data || jsonb_build_object('state', state) AS "state!",
                  level, due_at, follow_up_at, accountable, unit, cause, overdue, runs_from,
                  recordings_held
           FROM ticket WHERE (office_id, ticket) >= ($1, $2) AND (office_id, ticket) <= ($3, $4)"#,
        first.0.0,
        first.1,
        last.0.0,
        last.1
    )
    .fetch_all(db)
    .await?;
    let standings = rows.into_iter().map(|row| {
        let cause = row.cause.map(|cause| serde_json::from_value(cause.into())).transpose();
        let standing =
            match (serde_json::from_value(row.state), Level::from_number(row.level), cause) {
                (Ok(state), Some(level), Ok(cause)) => Some(Standing {
                    state,
                    level,
                    due_at: row.due_at,
                    follow_up_at: row.follow_up_at,
                    accountable: row.accountable.map(StaffId),
                    unit: row.unit.map(UnitId),
                    cause,
                    overdue: row.overdue,
                    runs_from: row.runs_from,
                    recordings_held: row.recordings_held,
                }),
                _ => None,
            };
        ((OfficeId(row.office_id), row.ticket), standing)
    });
    Ok(standings.collect())
}

/// Tickets without any event, messages without their event, submissions whose ticket is missing,
/// open matters without an armed limit or with another one than the ticket's, tickets that are in
/// other lists than they belong in, effects of something that the trail does not have: each should
/// be none. At most `limit` of each, as sentences' subjects.
///
/// # Errors
/// [`StoreError`].
pub async fn orphans(db: &mut PgConnection, limit: i64) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"(SELECT 'ticket ' || ticket || ' of office ' || office_id || ' has no event' AS "what!"
            FROM ticket t WHERE NOT EXISTS (SELECT FROM event e
                WHERE e.office_id = t.office_id AND e.ticket = t.ticket) LIMIT $1)
           UNION ALL
           (SELECT 'message ' || seq || ' of ticket ' || ticket || ' of office ' || office_id || ' has no event'
            FROM message m WHERE NOT EXISTS (SELECT FROM event e
                WHERE e.office_id = m.office_id AND e.ticket = m.ticket AND e.seq = m.seq) LIMIT $1)
           UNION ALL
           (SELECT 'a submission of ' || source || ' in office ' || office_id || ' was answered and has no ticket'
            FROM inbound i WHERE NOT quarantined AND (said IS NULL OR ticket IS NOT NULL)
                AND NOT EXISTS (SELECT FROM ticket t
                WHERE t.office_id = i.office_id AND t.ticket = i.ticket) LIMIT $1)
           UNION ALL
           (SELECT 'a conversation in office ' || office_id || ' keeps ' || held || ' messages, '
                || (SELECT count(*) FROM held h
                    WHERE h.office_id = c.office_id AND h.thread = c.thread) || ' are there'
            FROM conversation c WHERE held <> (SELECT count(*) FROM held h
                WHERE h.office_id = c.office_id AND h.thread = c.thread) LIMIT $1)
           UNION ALL
           (SELECT 'ticket ' || ticket || ' of office ' || office_id || ' is open at level ' || level
                || ' and has no armed limit'
            FROM ticket t WHERE is_open AND state IN ('registered', 'accepted', 'in_progress')
              AND NOT overdue AND NOT EXISTS (SELECT FROM timer m
                WHERE m.office_id = t.office_id AND m.ticket = t.ticket AND m.kind IN (3, 4) AND m.state = 0) LIMIT $1)
           UNION ALL
           (SELECT 'ticket ' || ticket || ' of office ' || office_id || ' is due at another time than its armed limit'
            FROM ticket t JOIN timer m USING (office_id, ticket)
            WHERE is_open AND t.state IN ('registered', 'accepted', 'in_progress')
              AND m.kind IN (3, 4) AND m.state = 0 AND m.due_at <> t.due_at LIMIT $1)
           UNION ALL
           (SELECT 'ticket ' || ticket || ' of office ' || office_id || ' has another outcome than its state'
            FROM ticket WHERE outcome IS DISTINCT FROM state_data #>> '{outcome,outcome}' LIMIT $1)
           UNION ALL
           (SELECT DISTINCT 'ticket ' || ticket || ' of office ' || office_id
                || ' is not in the lists that it belongs in'
            FROM ((TABLE in_hand
                   EXCEPT SELECT l.* FROM ticket t CROSS JOIN LATERAL in_hand_of(t) l WHERE t.is_open)
                  UNION ALL
                  (SELECT l.* FROM ticket t CROSS JOIN LATERAL in_hand_of(t) l WHERE t.is_open
                   EXCEPT TABLE in_hand)) l LIMIT $1)
           UNION ALL
           (SELECT 'ticket ' || ticket || ' of office ' || office_id || ': ' || kind
                || ' was told and is not in the trail'
            FROM outbox o
            WHERE kind IN ('registered', 'grew', 'follow_up', 'limit_near', 'raised', 'overdue', 'date_kept',
                'material_due', 'claimed', 'said', 'awaiting', 'resolved', 'reopened', 'spun_off', 'joined', 'took_in',
                'evaluated', 'withdrawn')
              AND NOT EXISTS (SELECT FROM event e
                WHERE e.office_id = o.office_id AND e.ticket = o.ticket AND e.at = o.created_at
                  AND e.kind = CASE o.kind WHEN 'grew' THEN 'message_received'
                      WHEN 'follow_up' THEN 'follow_up_due' WHEN 'said' THEN 'told_citizen'
                      WHEN 'awaiting' THEN 'awaiting_citizen' WHEN 'spun_off' THEN 'spun_off_from'
                      WHEN 'joined' THEN 'resolved' WHEN 'withdrawn' THEN 'resolved' ELSE o.kind END)
              AND EXISTS (SELECT FROM ticket t
                WHERE t.office_id = o.office_id AND t.ticket = o.ticket) LIMIT $1)"#,
        limit
    )
    .fetch_all(db)
    .await?)
}

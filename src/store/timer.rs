//! Timers: the truth of what is due when, and the statement that makes each fire once.

use super::{StoreError, bad, number};
use crate::{
    domain::{
        chain::Link,
        id::{OfficeId, StaffId},
        level::Level,
        register::RegisterNumber,
        ticket::Ticket,
        timer::TimerKind,
    },
    schedule::TimerKey,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// The one shard of the schedule: enough for forty thousand timers a second.
pub const SHARD: i16 = 0;

/// A timer that is armed in this generation and due, with its ticket as it stands.
#[derive(Debug)]
pub struct Due {
    /// Which; its time as the database holds it.
    pub key: TimerKey,
    /// From when its limits run: acceptance, or what took its place.
    pub accepted_at: DateTime<Utc>,
    /// The ticket.
    pub ticket: Ticket,
    /// RD3.2.
    pub urgent: bool,
    /// The number of its newest event.
    pub events: i32,
    /// And that event's hash.
    pub chain: Link,
}

/// Those of the timers that are armed in this generation and due by the database's clock (one
/// second of tolerance for the clock that called them due), with the database's time. A row that
/// the domain cannot read is left out and said in the log: it must not hold up the others.
///
/// # Errors
/// [`StoreError`].
pub async fn look(
    db: &mut PgConnection,
    keys: &[TimerKey],
) -> Result<(DateTime<Utc>, Vec<Due>), StoreError> {
    let offices: Vec<i32> = keys.iter().map(|key| key.office.0).collect();
    let tickets: Vec<i64> = keys.iter().map(|key| key.ticket.as_i64()).collect();
    let kinds: Vec<i16> = keys.iter().map(|key| key.kind.number()).collect();
    let generations: Vec<i32> = keys.iter().map(|key| key.generation).collect();
    let rows = sqlx::query!(
        r#"
        SELECT now() AS "now!", i.office_id AS "office_id!", i.ticket AS "ticket!",
               i.kind AS "kind!", i.gen AS "gen!", m.due_at AS fell_due_at, t.state, t.state_data,
               t.level, t.due_at, t.provisional, t.accountable, t.overdue, t.urgency,
               t.runs_from, coalesce(t.runs_from, t.accepted_at) AS "accepted_at!",
               t.events, t.chain
        FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::int[])
            AS i(office_id, ticket, kind, gen)
        CROSS JOIN LATERAL (SELECT * FROM timer m WHERE m.office_id = i.office_id
            AND m.ticket = i.ticket AND m.kind = i.kind LIMIT 1) m
        CROSS JOIN LATERAL (SELECT * FROM ticket t WHERE t.office_id = i.office_id
            AND t.ticket = i.ticket LIMIT 1) t
        WHERE m.gen = i.gen AND m.state = 0 AND m.due_at <= now() + interval '1 second'
        "#,
        &offices,
        &tickets,
        &kinds,
        &generations,
    )
    .fetch_all(db)
    .await?;
    let now = rows.first().map_or_else(DateTime::default, |row| row.now);
    let mut due = Vec::with_capacity(rows.len());
    for row in rows {
        let (office, ticket) = (row.office_id, row.ticket);
        let read = || -> Result<Due, StoreError> {
            Ok(Due {
                key: key(office, ticket, row.kind, row.r#gen, row.fell_due_at)?,
                accepted_at: row.accepted_at,
                ticket: Ticket {
                    state: super::ticket::state(&row.state, row.state_data)?,
                    level: Level::from_number(row.level).ok_or(bad("ticket", "level"))?,
                    due_at: row.due_at,
                    provisional: row.provisional,
                    accountable: row.accountable.map(StaffId),
                    unit: None,
                    cause: None,
                    overdue: row.overdue,
                    runs_from: row.runs_from,
                },
                urgent: row.urgency == 0,
                events: row.events,
                chain: Link(row.chain.try_into().map_err(|_| bad("ticket", "chain"))?),
            })
        };
        match read() {
            Ok(one) => due.push(one),
            Err(error) => tracing::error!(
                %error, office.id = office, ticket.key = ticket,
                "a timer waits for a ticket that cannot be read"
            ),
        }
    }
    Ok((now, due))
}

/// Locks the timers' tickets until the end of the transaction, in the order of their keys; those
/// that somebody else holds are left out, and their timers with them.
///
/// # Errors
/// [`StoreError`].
pub async fn lock_tickets(
    db: &mut PgConnection,
    keys: &[TimerKey],
) -> Result<BTreeSet<(OfficeId, RegisterNumber)>, StoreError> {
    let wanted: BTreeSet<_> = keys.iter().map(|key| (key.office, key.ticket)).collect();
    let offices: Vec<i32> = wanted.iter().map(|key| key.0.0).collect();
    let tickets: Vec<i64> = wanted.iter().map(|key| key.1.as_i64()).collect();
    let rows = sqlx::query!(
        "SELECT t.office_id, t.ticket FROM unnest($1::int[], $2::bigint[]) AS i(office_id, ticket)
         JOIN ticket t ON t.office_id = i.office_id AND t.ticket = i.ticket
         ORDER BY t.office_id, t.ticket FOR UPDATE OF t SKIP LOCKED",
        &offices,
        &tickets
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((OfficeId(row.office_id), number(row.ticket)?))).collect()
}

/// What due timers do, column by column.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of the tables that are written")]
pub struct Effects {
    pub fired: Vec<TimerKey>,
    pub office: Vec<i32>,
    pub ticket: Vec<i64>,
    pub seq: Vec<i32>,
    pub at: Vec<DateTime<Utc>>,
    pub actor: Vec<String>,
    pub kind: Vec<String>,
    pub data: Vec<String>,
    pub hash: Vec<[u8; 32]>,
    pub tell: Vec<&'static str>,
    pub tell_data: Vec<serde_json::Value>,
    pub urgent: Vec<bool>,
    pub not_before: Vec<DateTime<Utc>>,
    pub tickets: Changed,
    pub arm: Armed,
}

/// Tickets as they stand after their timers, which found them with `was` events.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of ticket")]
pub struct Changed {
    pub office: Vec<i32>,
    pub ticket: Vec<i64>,
    pub level: Vec<i16>,
    pub due_at: Vec<DateTime<Utc>>,
    pub provisional: Vec<bool>,
    pub overdue: Vec<bool>,
    /// Of the calendar that the date was computed with: an older one than the ticket's has it
    /// computed anew (A4), when whoever wrote it knows the newer one.
    pub calendar_version: Vec<i32>,
    pub was: Vec<i32>,
    pub events: Vec<i32>,
    pub chain: Vec<[u8; 32]>,
}

/// Timers to arm anew.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of timer")]
pub struct Armed {
    pub office: Vec<i32>,
    pub ticket: Vec<i64>,
    pub kind: Vec<i16>,
    pub due_at: Vec<DateTime<Utc>>,
}

/// Fires the timers and writes their effects in one statement; nothing of it where a ticket or a
/// timer is no longer as [`look`] saw it. This guard is the fence (scheduling.md B5): of all that
/// claim a timer, one finds it armed in its generation.
///
/// # Errors
/// [`StoreError`]; see [`StoreError::is_overtaken`].
pub async fn write(db: &mut PgConnection, effects: &Effects) -> Result<(), StoreError> {
    let Effects { tickets: c, fired, .. } = effects;
    let offices: Vec<i32> = fired.iter().map(|key| key.office.0).collect();
    let tickets: Vec<i64> = fired.iter().map(|key| key.ticket.as_i64()).collect();
    let kinds: Vec<i16> = fired.iter().map(|key| key.kind.number()).collect();
    let generations: Vec<i32> = fired.iter().map(|key| key.generation).collect();
    // Armed is compared with a parameter: a literal would offer the index of armed timers, which
    // says nothing about tickets, to a planner that takes every table for empty.
    let armed = vec![0_i16; fired.len()];
    sqlx::query!(
        r#"
        WITH changed AS (
            UPDATE ticket SET level = i.level, due_at = i.due_at, provisional = i.provisional,
                overdue = i.overdue, events = i.events, chain = i.chain,
                calendar_version = least(ticket.calendar_version, i.calendar_version)
            FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::timestamptz[],
                $5::boolean[], $6::boolean[], $7::int[], $8::int[], $9::bytea[], $27::int[])
                AS i(office_id, ticket, level, due_at, provisional, overdue, was, events, chain,
                    calendar_version)
            WHERE ticket.office_id = i.office_id AND ticket.ticket = i.ticket
              AND ticket.events = i.was
            RETURNING 1
        ), fired AS (
            UPDATE timer SET state = 1
            FROM unnest($10::int[], $11::bigint[], $12::smallint[], $13::int[], $14::smallint[])
                AS i(office_id, ticket, kind, gen, state)
            WHERE timer.office_id = i.office_id AND timer.ticket = i.ticket
              AND timer.kind = i.kind AND timer.gen = i.gen AND timer.state = i.state
            RETURNING 1
        ), happened AS (
            SELECT * FROM unnest($15::int[], $16::bigint[], $17::int[], $18::timestamptz[],
                $19::text[], $20::text[], $21::text[], $22::bytea[], $23::text[], $24::jsonb[],
                $25::boolean[], $26::timestamptz[])
                AS i(office_id, ticket, seq, at, actor, kind, data, hash, tell, tell_data, urgent, not_before)
        ), events AS (
            INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
            SELECT office_id, ticket, seq, at, actor, kind, data::json, hash FROM happened
        ), told AS (
            INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
            SELECT office_id, tell, ticket, urgent, tell_data, at, not_before FROM happened
        )
        SELECT as_expected('ticket', (SELECT count(*) FROM changed), cardinality($1)) AS "changed!",
               as_expected('timer', (SELECT count(*) FROM fired), cardinality($10)) AS "fired!"
        "#,
        &c.office,
        &c.ticket,
        &c.level,
        &c.due_at,
        &c.provisional,
        &c.overdue,
        &c.was,
        &c.events,
        &c.chain as &[[u8; 32]],
        &offices,
        &tickets,
        &kinds,
        &generations,
        &armed,
        &effects.office,
        &effects.ticket,
        &effects.seq,
        &effects.at,
        &effects.actor,
        &effects.kind,
        &effects.data,
        &effects.hash as &[[u8; 32]],
        &effects.tell as &[&str],
        &effects.tell_data,
        &effects.urgent,
        &effects.not_before,
        &c.calendar_version,
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// Arms timers anew, each as a new generation; the caller has changed their tickets in the same
/// transaction.
///
/// # Errors
/// [`StoreError`].
pub async fn arm_anew(db: &mut PgConnection, arm: &Armed) -> Result<Vec<TimerKey>, StoreError> {
    let rows = sqlx::query!(
        "INSERT INTO timer AS t (office_id, ticket, kind, gen, state, due_at)
         SELECT office_id, ticket, kind, 1, 0, due_at
         FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::timestamptz[])
             AS i(office_id, ticket, kind, due_at)
         ON CONFLICT (office_id, ticket, kind) DO UPDATE
             SET gen = t.gen + 1, state = 0, due_at = excluded.due_at
         RETURNING office_id, ticket, kind, gen, due_at",
        &arm.office,
        &arm.ticket,
        &arm.kind,
        &arm.due_at,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| key(row.office_id, row.ticket, row.kind, row.r#gen, row.due_at))
        .collect()
}

/// Armed timers that are due for at least `late_s` seconds by the database's clock, the oldest
/// first, after this one.
///
/// # Errors
/// [`StoreError`].
pub async fn late(
    db: &mut PgConnection,
    late_s: f64,
    after: Option<&TimerKey>,
    limit: i64,
) -> Result<Vec<TimerKey>, StoreError> {
    let (office, ticket, kind) =
        after.map_or((0, 0, 0), |key| (key.office.0, key.ticket.as_i64(), key.kind.number()));
    let due_at = after.map_or(DateTime::UNIX_EPOCH, |key| key.due_at);
    let rows = sqlx::query!(
        "SELECT office_id, ticket, kind, gen, due_at FROM timer
         WHERE state = 0 AND due_at <= now() - make_interval(secs => $1)
           AND (due_at, office_id, ticket, kind) > ($2, $3, $4, $5)
         ORDER BY due_at, office_id, ticket, kind LIMIT $6",
        late_s,
        due_at,
        office,
        ticket,
        kind,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| key(row.office_id, row.ticket, row.kind, row.r#gen, row.due_at))
        .collect()
}

/// All armed timers after this one, in the order of their keys: pages for a rebuild.
///
/// # Errors
/// [`StoreError`].
pub async fn armed_after(
    db: &mut PgConnection,
    after: Option<&TimerKey>,
    limit: i64,
) -> Result<Vec<TimerKey>, StoreError> {
    let (office, ticket, kind) =
        after.map_or((0, 0, 0), |key| (key.office.0, key.ticket.as_i64(), key.kind.number()));
    let rows = sqlx::query!(
        "SELECT office_id, ticket, kind, gen, due_at FROM timer
         WHERE state = 0 AND (office_id, ticket, kind) > ($1, $2, $3)
         ORDER BY office_id, ticket, kind LIMIT $4",
        office,
        ticket,
        kind,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| key(row.office_id, row.ticket, row.kind, row.r#gen, row.due_at))
        .collect()
}

/// Cancels a ticket's armed timers; the caller holds the ticket's lock. The next generation of
/// each is its own, so that a claim under way finds nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn cancel_all(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Vec<TimerKey>, StoreError> {
    let rows = sqlx::query!(
        "UPDATE timer SET state = 2, gen = gen + 1
         WHERE office_id = $1 AND ticket = $2 AND state = 0
         RETURNING kind, gen - 1 AS \"gen!\", due_at",
        office.0,
        ticket.as_i64()
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| key(office.0, ticket.as_i64(), row.kind, row.r#gen, row.due_at))
        .collect()
}

/// Arms timers of one ticket anew, each as a new generation; the caller holds the ticket's lock.
///
/// # Errors
/// [`StoreError`].
pub async fn arm(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    timers: &[(TimerKind, DateTime<Utc>)],
) -> Result<Vec<TimerKey>, StoreError> {
    let kinds: Vec<i16> = timers.iter().map(|(kind, _)| kind.number()).collect();
    let due: Vec<DateTime<Utc>> = timers.iter().map(|(_, due_at)| *due_at).collect();
    let rows = sqlx::query!(
        "INSERT INTO timer AS t (office_id, ticket, kind, gen, state, due_at)
         SELECT $1, $2, kind, 1, 0, due_at FROM unnest($3::smallint[], $4::timestamptz[]) AS i(kind, due_at)
         ON CONFLICT (office_id, ticket, kind) DO UPDATE
             SET gen = t.gen + 1, state = 0, due_at = excluded.due_at
         RETURNING kind, gen, due_at",
        office.0,
        ticket.as_i64(),
        &kinds,
        &due
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| key(office.0, ticket.as_i64(), row.kind, row.r#gen, row.due_at))
        .collect()
}

/// The next timers to fall due.
///
/// # Errors
/// [`StoreError`].
pub async fn next(db: &mut PgConnection, limit: i64) -> Result<Vec<TimerKey>, StoreError> {
    let rows = sqlx::query!(
        "SELECT office_id, ticket, kind, gen, due_at FROM timer WHERE state = 0
         ORDER BY due_at LIMIT $1",
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| key(row.office_id, row.ticket, row.kind, row.r#gen, row.due_at))
        .collect()
}

/// How many timers are armed.
///
/// # Errors
/// [`StoreError`].
pub async fn armed_count(db: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM timer WHERE state = 0"#)
        .fetch_one(db)
        .await?)
}

/// How many timers are armed, and how late the latest is, in seconds.
///
/// # Errors
/// [`StoreError`].
pub async fn state(db: &mut PgConnection) -> Result<(i64, f64), StoreError> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM timer WHERE state = 0) AS "armed!",
                  coalesce((SELECT extract(epoch FROM now() - due_at)::float8 FROM timer
                            WHERE state = 0 ORDER BY due_at LIMIT 1), 0) AS "late!""#
    )
    .fetch_one(db)
    .await?;
    Ok((row.armed, row.late.max(0.0)))
}

/// The epoch of the index that was last filled to the end, or `None` before the first time.
///
/// # Errors
/// [`StoreError`].
pub async fn epoch(db: &mut PgConnection, shard: i16) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar!("SELECT epoch FROM schedule_epoch WHERE shard = $1", shard)
        .fetch_optional(db)
        .await?)
}

/// Starts a new epoch: from now on the index as it is counts for nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn next_epoch(db: &mut PgConnection, shard: i16) -> Result<i64, StoreError> {
    // From the clock, so that a database restored from a backup does not repeat an epoch.
    Ok(sqlx::query_scalar!(
        "INSERT INTO schedule_epoch AS e (shard, epoch)
         VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
         ON CONFLICT (shard) DO UPDATE SET epoch = greatest(e.epoch + 1, excluded.epoch)
         RETURNING epoch",
        shard
    )
    .fetch_one(db)
    .await?)
}

fn key(
    office: i32,
    ticket: i64,
    kind: i16,
    generation: i32,
    due_at: DateTime<Utc>,
) -> Result<TimerKey, StoreError> {
    Ok(TimerKey {
        office: OfficeId(office),
        ticket: number(ticket)?,
        kind: TimerKind::from_number(kind).ok_or(bad("timer", "kind"))?,
        generation,
        due_at,
    })
}

/// Those of the timers that are armed in this very generation, and in how many milliseconds each is
/// due by the database's clock; negative when it is due.
///
/// # Errors
/// [`StoreError`].
pub async fn still_armed(
    db: &mut PgConnection,
    keys: &[TimerKey],
) -> Result<Vec<(TimerKey, i64)>, StoreError> {
    let offices: Vec<i32> = keys.iter().map(|key| key.office.0).collect();
    let tickets: Vec<i64> = keys.iter().map(|key| key.ticket.as_i64()).collect();
    let kinds: Vec<i16> = keys.iter().map(|key| key.kind.number()).collect();
    let generations: Vec<i32> = keys.iter().map(|key| key.generation).collect();
    let rows = sqlx::query!(
        r#"SELECT i.office_id AS "office_id!", i.ticket AS "ticket!", i.kind AS "kind!",
                  i.gen AS "gen!", m.due_at,
                  (extract(epoch FROM m.due_at - now()) * 1000)::bigint AS "in_ms!"
           FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::int[])
               AS i(office_id, ticket, kind, gen)
           CROSS JOIN LATERAL (SELECT * FROM timer m WHERE m.office_id = i.office_id
               AND m.ticket = i.ticket AND m.kind = i.kind LIMIT 1) m
           WHERE m.gen = i.gen AND m.state = 0"#,
        &offices,
        &tickets,
        &kinds,
        &generations
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok((key(row.office_id, row.ticket, row.kind, row.r#gen, row.due_at)?, row.in_ms))
        })
        .collect()
}

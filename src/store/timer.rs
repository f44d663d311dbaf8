//! Timers: the truth of what is due when, and the statement that makes each fire once.

use super::{StoreError, bad, number};
use crate::{
    domain::{
        chain::Link,
        id::{OfficeId, StaffId},
        level::Level,
        register::RegisterNumber,
        ticket::{State, Ticket},
        timer::TimerKind,
    },
    schedule::TimerKey,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A timer that this transaction has fired, with its ticket, locked.
#[derive(Debug)]
pub struct Fired {
    /// Which.
    pub key: TimerKey,
    /// The ticket's dates.
    pub accepted_at: DateTime<Utc>,
    /// The ticket as it stands.
    pub ticket: Ticket,
    /// The number of its newest event.
    pub events: i32,
    /// And that event's hash.
    pub chain: Link,
}

/// Locks the tickets, then fires those timers that are armed in this generation and due by the
/// database's clock (one second of tolerance for the clock that called them due). Stale and
/// repeated claims change nothing: this predicate is the fence (scheduling.md B5).
///
/// Returns the database's time and what was fired.
///
/// # Errors
/// [`StoreError`].
pub async fn fire(
    db: &mut PgConnection,
    keys: &[TimerKey],
) -> Result<(DateTime<Utc>, Vec<Fired>), StoreError> {
    let offices: Vec<i32> = keys.iter().map(|key| key.office.0).collect();
    let tickets: Vec<i64> = keys.iter().map(|key| key.ticket.as_i64()).collect();
    let kinds: Vec<i16> = keys.iter().map(|key| key.kind.number()).collect();
    let generations: Vec<i32> = keys.iter().map(|key| key.generation).collect();
    let rows = sqlx::query!(
        r#"
        WITH due AS (
            SELECT * FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::int[])
                AS i(office_id, ticket, kind, gen)
        ), locked AS MATERIALIZED (
            SELECT t.* FROM ticket t
            JOIN (SELECT DISTINCT office_id, ticket FROM due) d USING (office_id, ticket)
            ORDER BY t.office_id, t.ticket
            FOR UPDATE OF t
        ), fired AS (
            UPDATE timer SET state = 1
            FROM due JOIN locked USING (office_id, ticket)
            WHERE timer.office_id = due.office_id AND timer.ticket = due.ticket
              AND timer.kind = due.kind AND timer.gen = due.gen
              AND timer.state = 0 AND timer.due_at <= now() + interval '1 second'
            RETURNING timer.office_id, timer.ticket, timer.kind, timer.gen, timer.due_at AS fell_due_at
        )
        SELECT now() AS "now!", fired.kind, fired.gen, fired.fell_due_at, locked.office_id,
               locked.ticket, state_data || jsonb_build_object('state', state) AS "state!",
               level, due_at, provisional, accountable, overdue, accepted_at, events, chain
        FROM fired JOIN locked USING (office_id, ticket)
        ORDER BY locked.office_id, locked.ticket, fired.fell_due_at, fired.kind
        "#,
        &offices,
        &tickets,
        &kinds,
        &generations,
    )
    .fetch_all(db)
    .await?;
    let now = rows.first().map_or_else(DateTime::default, |row| row.now);
    let fired = rows
        .into_iter()
        .map(|row| {
            let state: State =
                serde_json::from_value(row.state).map_err(|_| bad("ticket", "state_data"))?;
            Ok(Fired {
                key: TimerKey {
                    office: OfficeId(row.office_id),
                    ticket: number(row.ticket)?,
                    kind: TimerKind::from_number(row.kind).ok_or(bad("timer", "kind"))?,
                    generation: row.r#gen,
                    due_at: row.fell_due_at,
                },
                accepted_at: row.accepted_at,
                ticket: Ticket {
                    state,
                    level: Level::from_number(row.level).ok_or(bad("ticket", "level"))?,
                    due_at: row.due_at,
                    provisional: row.provisional,
                    accountable: row.accountable.map(StaffId),
                    cause: None,
                    overdue: row.overdue,
                },
                events: row.events,
                chain: Link(row.chain.try_into().map_err(|_| bad("ticket", "chain"))?),
            })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok((now, fired))
}

/// What fired timers do to tickets, column by column.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of the tables that are written")]
pub struct Effects {
    pub office: Vec<i32>,
    pub ticket: Vec<i64>,
    pub seq: Vec<i32>,
    pub at: Vec<DateTime<Utc>>,
    pub actor: Vec<String>,
    pub kind: Vec<String>,
    pub data: Vec<String>,
    pub hash: Vec<Vec<u8>>,
    pub tell: Vec<String>,
    pub tell_data: Vec<serde_json::Value>,
    pub urgent: Vec<bool>,
    pub not_before: Vec<DateTime<Utc>>,
    pub tickets: Changed,
    pub arm: Armed,
}

/// Tickets as they stand after their timers.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of ticket")]
pub struct Changed {
    pub office: Vec<i32>,
    pub ticket: Vec<i64>,
    pub level: Vec<i16>,
    pub due_at: Vec<DateTime<Utc>>,
    pub provisional: Vec<bool>,
    pub overdue: Vec<bool>,
    pub events: Vec<i32>,
    pub chain: Vec<Vec<u8>>,
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

/// Writes the effects in one statement; returns the timers that were armed anew.
///
/// # Errors
/// [`StoreError`].
pub async fn write_effects(
    db: &mut PgConnection,
    effects: &Effects,
) -> Result<Vec<TimerKey>, StoreError> {
    let Effects { tickets: c, arm: a, .. } = effects;
    let rows = sqlx::query!(
        r#"
        WITH happened AS (
            SELECT * FROM unnest($1::int[], $2::bigint[], $3::int[], $4::timestamptz[], $5::text[],
                $6::text[], $7::text[], $8::bytea[], $9::text[], $10::jsonb[], $11::boolean[],
                $12::timestamptz[])
                AS i(office_id, ticket, seq, at, actor, kind, data, hash, tell, tell_data, urgent, not_before)
        ), events AS (
            INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
            SELECT office_id, ticket, seq, at, actor, kind, data::json, hash FROM happened
        ), told AS (
            INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
            SELECT office_id, tell, ticket, urgent, tell_data, at, not_before FROM happened
        ), changed AS (
            UPDATE ticket SET level = i.level, due_at = i.due_at, provisional = i.provisional,
                overdue = i.overdue, events = i.events, chain = i.chain
            FROM unnest($13::int[], $14::bigint[], $15::smallint[], $16::timestamptz[],
                $17::boolean[], $18::boolean[], $19::int[], $20::bytea[])
                AS i(office_id, ticket, level, due_at, provisional, overdue, events, chain)
            WHERE ticket.office_id = i.office_id AND ticket.ticket = i.ticket
        )
        INSERT INTO timer AS t (office_id, ticket, kind, gen, state, due_at)
        SELECT office_id, ticket, kind, 1, 0, due_at
        FROM unnest($21::int[], $22::bigint[], $23::smallint[], $24::timestamptz[])
            AS i(office_id, ticket, kind, due_at)
        ON CONFLICT (office_id, ticket, kind) DO UPDATE
            SET gen = t.gen + 1, state = 0, due_at = excluded.due_at
        RETURNING office_id, ticket, kind, gen, due_at
        "#,
        &effects.office,
        &effects.ticket,
        &effects.seq,
        &effects.at,
        &effects.actor,
        &effects.kind,
        &effects.data,
        &effects.hash,
        &effects.tell,
        &effects.tell_data,
        &effects.urgent,
        &effects.not_before,
        &c.office,
        &c.ticket,
        &c.level,
        &c.due_at,
        &c.provisional,
        &c.overdue,
        &c.events,
        &c.chain,
        &a.office,
        &a.ticket,
        &a.kind,
        &a.due_at,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TimerKey {
                office: OfficeId(row.office_id),
                ticket: number(row.ticket)?,
                kind: TimerKind::from_number(row.kind).ok_or(bad("timer", "kind"))?,
                generation: row.r#gen,
                due_at: row.due_at,
            })
        })
        .collect()
}

/// Armed timers that are due for at least `late_s` seconds by the database's clock, the oldest
/// first.
///
/// # Errors
/// [`StoreError`].
pub async fn late(
    db: &mut PgConnection,
    late_s: f64,
    limit: i64,
) -> Result<Vec<TimerKey>, StoreError> {
    let rows = sqlx::query!(
        "SELECT office_id, ticket, kind, gen, due_at FROM timer
         WHERE state = 0 AND due_at <= now() - make_interval(secs => $1)
         ORDER BY due_at LIMIT $2",
        late_s,
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

/// Those of the timers that are armed in this very generation.
///
/// # Errors
/// [`StoreError`].
pub async fn still_armed(
    db: &mut PgConnection,
    keys: &[TimerKey],
) -> Result<Vec<TimerKey>, StoreError> {
    let offices: Vec<i32> = keys.iter().map(|key| key.office.0).collect();
    let tickets: Vec<i64> = keys.iter().map(|key| key.ticket.as_i64()).collect();
    let kinds: Vec<i16> = keys.iter().map(|key| key.kind.number()).collect();
    let generations: Vec<i32> = keys.iter().map(|key| key.generation).collect();
    let rows = sqlx::query!(
        "SELECT t.office_id, t.ticket, t.kind, t.gen, t.due_at
         FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::int[])
            AS i(office_id, ticket, kind, gen)
         JOIN timer t USING (office_id, ticket, kind, gen)
         WHERE t.state = 0",
        &offices,
        &tickets,
        &kinds,
        &generations
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| key(row.office_id, row.ticket, row.kind, row.r#gen, row.due_at))
        .collect()
}

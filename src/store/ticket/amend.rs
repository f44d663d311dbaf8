//! Open tickets whose dates an older calendar computed: found, locked, and brought to the new one by
//! many at a time (`crate::amend`).

use super::{Locked, LockedRow, last_of_kind};
use crate::{
    domain::{
        event::{Actor, Happened},
        id::OfficeId,
        timer::TimerKind,
    },
    schedule::TimerKey,
    store::{StoreError, bad, number},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// Open tickets whose dates an older calendar computed, locked.
#[derive(Debug, Default)]
pub struct Outdated {
    /// In the order of their numbers.
    pub locked: Vec<Locked>,
    /// Rows that the domain cannot read; they are left as they are.
    pub unreadable: Vec<(i64, StoreError)>,
}

impl Outdated {
    /// The last number among them; `None` when there is none.
    #[must_use]
    pub fn last(&self) -> Option<i64> {
        let readable = self.locked.last().map(|one| one.number.as_i64());
        readable.max(self.unreadable.last().map(|(ticket, _)| *ticket))
    }
}

/// Locks an office's open tickets between two numbers (the first one left out) whose dates were
/// computed with an older calendar than this. The version is judged again once the lock is had:
/// what another replica has brought to the calendar meanwhile is not among them.
///
/// # Errors
/// [`StoreError`].
pub async fn lock_outdated(
    db: &mut PgConnection,
    office: OfficeId,
    version: i32,
    (after, upto): (i64, i64),
    limit: i64,
) -> Result<Outdated, StoreError> {
    let rows = sqlx::query_as!(
        LockedRow,
        r#"SELECT ticket, state_data || jsonb_build_object('state', state) AS "state!", level,
                  due_at, provisional, accountable, unit, cause, overdue, registered_at, accepted_at,
                  follow_up_at, needs_year, calendar_version, urgency, thread, runs_from, events, chain
           FROM ticket WHERE office_id = $1 AND is_open AND calendar_version < $2
             AND ticket > $3 AND ticket <= $4 ORDER BY ticket LIMIT $5 FOR UPDATE"#,
        office.0,
        version,
        after,
        upto,
        limit
    )
    .fetch_all(db)
    .await?;
    let mut outdated = Outdated::default();
    for row in rows {
        let ticket = row.ticket;
        match row.read(office) {
            Ok(locked) => outdated.locked.push(locked),
            Err(error) => outdated.unreadable.push((ticket, error)),
        }
    }
    Ok(outdated)
}

/// The next of an office's open tickets after this number whose dates an older calendar computed.
///
/// # Errors
/// [`StoreError`].
pub async fn next_outdated(
    db: &mut PgConnection,
    office: OfficeId,
    version: i32,
    after: i64,
) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT ticket FROM ticket WHERE office_id = $1 AND is_open AND calendar_version < $2
            AND ticket > $3 ORDER BY ticket LIMIT 1",
        office.0,
        version,
        after
    )
    .fetch_optional(db)
    .await?)
}

/// What a changed calendar does to tickets, column by column.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of the tables that are written")]
pub struct Amendments {
    pub ticket: Vec<i64>,
    pub due_at: Vec<DateTime<Utc>>,
    pub accepted_at: Vec<DateTime<Utc>>,
    pub follow_up_at: Vec<Option<DateTime<Utc>>>,
    pub provisional: Vec<bool>,
    pub needs_year: Vec<Option<i32>>,
    pub events: Vec<i32>,
    pub chain: Vec<[u8; 32]>,
    pub happened: Happenings,
    pub tell: Tellings,
    pub arm: Arming,
}

/// Events to append.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of event")]
pub struct Happenings {
    pub ticket: Vec<i64>,
    pub seq: Vec<i32>,
    pub kind: Vec<String>,
    pub data: Vec<String>,
    pub hash: Vec<[u8; 32]>,
}

/// Effects on the outside.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of outbox")]
pub struct Tellings {
    pub ticket: Vec<i64>,
    pub kind: Vec<&'static str>,
    pub data: Vec<serde_json::Value>,
}

/// Timers to arm anew.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of timer")]
pub struct Arming {
    pub ticket: Vec<i64>,
    pub kind: Vec<i16>,
    pub due_at: Vec<DateTime<Utc>>,
}

impl Amendments {
    /// Takes the ticket over as it stands in `locked` now, with the events that were appended.
    pub fn push(&mut self, locked: &Locked) {
        self.ticket.push(locked.number.as_i64());
        self.due_at.push(locked.ticket.due_at);
        self.accepted_at.push(locked.accepted_at);
        self.follow_up_at.push(locked.follow_up_at);
        self.provisional.push(locked.ticket.provisional);
        self.needs_year.push(locked.needs_year);
        self.events.push(locked.events);
        self.chain.push(locked.chain.0);
    }

    /// Adds an effect on the outside.
    pub fn tell(&mut self, locked: &Locked, kind: &'static str, data: serde_json::Value) {
        self.tell.ticket.push(locked.number.as_i64());
        self.tell.kind.push(kind);
        self.tell.data.push(data);
    }

    /// Arms a timer anew.
    pub fn arm(&mut self, locked: &Locked, (kind, due_at): (TimerKind, DateTime<Utc>)) {
        self.arm.ticket.push(locked.number.as_i64());
        self.arm.kind.push(kind.number());
        self.arm.due_at.push(due_at);
    }

    /// Appends an event to the ticket's trail; what [`Self::push`] takes over afterwards ends
    /// with it.
    pub fn happen(&mut self, locked: &mut Locked, happened: &Happened, at: DateTime<Utc>) {
        let (kind, data) = happened.stored();
        locked.append(&Actor::Gateway.stored(), &kind, &data, at);
        self.happened.ticket.push(locked.number.as_i64());
        self.happened.seq.push(locked.events);
        self.happened.kind.push(kind);
        self.happened.data.push(data);
        self.happened.hash.push(locked.chain.0);
    }
}

/// Writes what a changed calendar does to an office's tickets: each ticket's dates at once, for
/// no date alone need fit the others. Returns the timers that were armed anew.
///
/// # Errors
/// [`StoreError`].
pub async fn write_amendments(
    db: &mut PgConnection,
    office: OfficeId,
    version: i32,
    amendments: &Amendments,
    at: DateTime<Utc>,
    tell_from: DateTime<Utc>,
) -> Result<Vec<TimerKey>, StoreError> {
    let Amendments { happened: h, tell: t, arm, .. } = amendments;
    sqlx::query!(
        r#"
        WITH changed AS (
            UPDATE ticket SET due_at = i.due_at, accepted_at = i.accepted_at,
                follow_up_at = i.follow_up_at, provisional = i.provisional,
                needs_year = i.needs_year, events = i.events, chain = i.chain,
                calendar_version = $2
            FROM unnest($3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                $7::boolean[], $8::int[], $9::int[], $10::bytea[])
                AS i(ticket, due_at, accepted_at, follow_up_at, provisional, needs_year, events, chain)
            WHERE ticket.office_id = $1 AND ticket.ticket = i.ticket
            RETURNING 1
        ), events AS (
            INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
            SELECT $1, ticket, seq, $11, $12, kind, data::json, hash
            FROM unnest($13::bigint[], $14::int[], $15::text[], $16::text[], $17::bytea[])
                AS i(ticket, seq, kind, data, hash)
        ), told AS (
            INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
            SELECT $1, kind, ticket, false, data, $11, $18
            FROM unnest($19::bigint[], $20::text[], $21::jsonb[]) AS i(ticket, kind, data)
        )
        SELECT as_expected('ticket', (SELECT count(*) FROM changed), cardinality($3)) AS "changed!"
        "#,
        office.0,
        version,
        &amendments.ticket,
        &amendments.due_at,
        &amendments.accepted_at,
        &amendments.follow_up_at as &[Option<DateTime<Utc>>],
        &amendments.provisional,
        &amendments.needs_year as &[Option<i32>],
        &amendments.events,
        &amendments.chain as &[[u8; 32]],
        at,
        Actor::Gateway.stored(),
        &h.ticket,
        &h.seq,
        &h.kind,
        &h.data,
        &h.hash as &[[u8; 32]],
        tell_from,
        &t.ticket,
        &t.kind as &[&str],
        &t.data
    )
    .fetch_one(&mut *db)
    .await?;
    let rows = sqlx::query!(
        "INSERT INTO timer AS t (office_id, ticket, kind, gen, state, due_at)
         SELECT $1, ticket, kind, 1, 0, due_at
         FROM unnest($2::bigint[], $3::smallint[], $4::timestamptz[]) AS i(ticket, kind, due_at)
         ON CONFLICT (office_id, ticket, kind) DO UPDATE
             SET gen = t.gen + 1, state = 0, due_at = excluded.due_at
         RETURNING ticket, kind, gen, due_at",
        office.0,
        &arm.ticket,
        &arm.kind,
        &arm.due_at
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TimerKey {
                office,
                ticket: number(row.ticket)?,
                kind: TimerKind::from_number(row.kind).ok_or(bad("timer", "kind"))?,
                generation: row.r#gen,
                due_at: row.due_at,
            })
        })
        .collect()
}

/// The dates that were last kept against the calendar: what is in force, and what it said.
///
/// # Errors
/// [`StoreError`].
pub async fn last_kept(
    db: &mut PgConnection,
    office: OfficeId,
    tickets: &[i64],
) -> Result<BTreeMap<i64, (DateTime<Utc>, DateTime<Utc>)>, StoreError> {
    let kept = last_of_kind(db, office, tickets, "date_kept").await?;
    let dates = kept.into_iter().filter_map(|(ticket, (_, happened))| match happened {
        Some(Happened::DateKept { kept, computed, .. }) => Some((ticket, (kept, computed))),
        _ => None,
    });
    Ok(dates.collect())
}

/// For which limits it was told already that they fall on a day that is closed by half (A7.7).
///
/// # Errors
/// [`StoreError`].
pub async fn told_half_closures(
    db: &mut PgConnection,
    office: OfficeId,
    tickets: &[i64],
) -> Result<BTreeSet<(i64, DateTime<Utc>)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT o.ticket, (data->>'due_at')::timestamptz AS "due_at!"
           FROM unnest($2::bigint[]) AS i(ticket)
           JOIN outbox o ON o.office_id = $1 AND o.ticket = i.ticket
           WHERE kind = 'half_closure' AND data->>'due_at' IS NOT NULL"#,
        office.0,
        tickets
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.ticket, row.due_at)).collect())
}

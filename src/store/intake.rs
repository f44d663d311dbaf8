//! What a batch of submissions reads and writes: four round trips, whatever its size.

use super::{StoreError, bad, number};
use crate::domain::{
    chain::Link, id::OfficeId, id::StaffId, register::RegisterNumber, timer::TimerKind,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A submission's identity and what numbering it needs.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Where it belongs.
    pub office: OfficeId,
    /// Who vouches for it.
    pub source: &'a str,
    /// Its identity there.
    pub source_id: &'a str,
    /// Of the original: SHA-256.
    pub digest: [u8; 32],
    /// When it reached the gateway.
    pub received_at: DateTime<Utc>,
    /// Which citizen's ticket it may grow.
    pub thread: Option<&'a str>,
    /// The year whose register it would enter, in the office's zone.
    pub year: i32,
}

/// A submission that had not been seen before.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    /// Its index in the batch.
    pub index: usize,
    /// The citizen's open ticket; its thread is locked until COMMIT.
    pub open_ticket: Option<RegisterNumber>,
    /// The last number that the office's register has given out for this batch, in `year`.
    pub last_of_year: Option<i32>,
}

/// Enters the batch's identities, locks the threads, and takes as many register numbers as new
/// tickets are needed. Identities that were there before are missing from the result.
///
/// # Errors
/// [`StoreError`].
pub async fn admit(
    db: &mut PgConnection,
    arrivals: &[Arrival<'_>],
) -> Result<Vec<Admitted>, StoreError> {
    let offices: Vec<i32> = arrivals.iter().map(|a| a.office.0).collect();
    let sources: Vec<String> = arrivals.iter().map(|a| a.source.to_owned()).collect();
    let source_ids: Vec<String> = arrivals.iter().map(|a| a.source_id.to_owned()).collect();
    let digests: Vec<Vec<u8>> = arrivals.iter().map(|a| a.digest.to_vec()).collect();
    let received: Vec<DateTime<Utc>> = arrivals.iter().map(|a| a.received_at).collect();
    let threads: Vec<Option<String>> =
        arrivals.iter().map(|a| a.thread.map(ToOwned::to_owned)).collect();
    let years: Vec<i32> = arrivals.iter().map(|a| a.year).collect();
    let rows = sqlx::query!(
        r#"
        WITH input AS (
            SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::bytea[],
                                 $5::timestamptz[], $6::text[], $7::int[]) WITH ORDINALITY
                AS i(office_id, source, source_id, digest, received_at, thread, year, n)
        ), fresh AS (
            INSERT INTO inbound (office_id, source, source_id, digest, received_at)
            SELECT office_id, source, source_id, digest, received_at FROM input
            ORDER BY office_id, source, source_id
            ON CONFLICT DO NOTHING
            RETURNING office_id, source, source_id
        ), mine AS (
            SELECT input.office_id, thread, year, n
            FROM input JOIN fresh USING (office_id, source, source_id)
        ), threads AS (
            INSERT INTO thread AS t (office_id, thread)
            SELECT DISTINCT office_id, thread FROM mine WHERE thread IS NOT NULL
            ORDER BY office_id, thread
            ON CONFLICT (office_id, thread) DO UPDATE SET open_ticket = t.open_ticket
            RETURNING office_id, thread, open_ticket
        ), news AS (
            SELECT DISTINCT ON (mine.office_id, coalesce(mine.thread, mine.n::text)) mine.office_id, year
            FROM mine LEFT JOIN threads USING (office_id, thread)
            WHERE threads.open_ticket IS NULL
            ORDER BY mine.office_id, coalesce(mine.thread, mine.n::text), n
        ), numbers AS (
            INSERT INTO register AS r (office_id, year, last)
            SELECT office_id, year, count(*)::int FROM news GROUP BY office_id, year
            ORDER BY office_id, year
            ON CONFLICT (office_id, year) DO UPDATE SET last = r.last + excluded.last
            RETURNING office_id, year, last
        )
        SELECT n AS "n!", threads.open_ticket, numbers.last AS "last?"
        FROM mine
        LEFT JOIN threads USING (office_id, thread)
        LEFT JOIN numbers USING (office_id, year)
        ORDER BY n
        "#,
        &offices,
        &sources,
        &source_ids,
        &digests,
        &received,
        &threads as &[Option<String>],
        &years,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Admitted {
                index: usize::try_from(row.n - 1).map_err(|_| bad("inbound", "n"))?,
                open_ticket: row.open_ticket.map(number).transpose()?,
                last_of_year: row.last,
            })
        })
        .collect()
}

/// What an earlier delivery of the same submission became.
#[derive(Debug, Clone)]
pub struct Recalled {
    /// Its index among the keys that were asked for.
    pub index: usize,
    /// The original's digest then.
    pub digest: Vec<u8>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// What it became; `None` in quarantine.
    pub made: Option<Made>,
}

/// What a submission became, as its sender was told.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// Its ticket.
    pub ticket: RegisterNumber,
    /// Whether the ticket was there before.
    pub appended: bool,
    /// When work starts.
    pub follow_up_at: Option<DateTime<Utc>>,
    /// By when it is answered.
    pub due_at: DateTime<Utc>,
    /// Whether that date is a forecast.
    pub provisional: bool,
}

/// Looks up submissions by identity. A statement of its own: the snapshot of [`admit`] cannot see
/// what a concurrent winner committed meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn recall(
    db: &mut PgConnection,
    keys: &[(OfficeId, &str, &str)],
) -> Result<Vec<Recalled>, StoreError> {
    let offices: Vec<i32> = keys.iter().map(|key| key.0.0).collect();
    let sources: Vec<String> = keys.iter().map(|key| key.1.to_owned()).collect();
    let source_ids: Vec<String> = keys.iter().map(|key| key.2.to_owned()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT n AS "n!", digest, received_at, ticket, appended, follow_up_at, due_at, provisional
        FROM unnest($1::int[], $2::text[], $3::text[]) WITH ORDINALITY
            AS i(office_id, source, source_id, n)
        JOIN inbound USING (office_id, source, source_id)
        "#,
        &offices,
        &sources,
        &source_ids,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let made = match (row.ticket, row.appended, row.due_at, row.provisional) {
                (Some(ticket), Some(appended), Some(due_at), Some(provisional)) => Some(Made {
                    ticket: number(ticket)?,
                    appended,
                    follow_up_at: row.follow_up_at,
                    due_at,
                    provisional,
                }),
                _ => None,
            };
            Ok(Recalled {
                index: usize::try_from(row.n - 1).map_err(|_| bad("inbound", "n"))?,
                digest: row.digest,
                received_at: row.received_at,
                made,
            })
        })
        .collect()
}

/// A ticket that is about to grow, locked.
#[derive(Debug, Clone)]
pub struct Growing {
    /// Which.
    pub office: OfficeId,
    /// Which.
    pub ticket: RegisterNumber,
    /// The number of its newest event.
    pub events: i32,
    /// And that event's hash.
    pub chain: Link,
    /// What a sender is told.
    pub follow_up_at: Option<DateTime<Utc>>,
    /// What a sender is told.
    pub due_at: DateTime<Utc>,
    /// What a sender is told.
    pub provisional: bool,
}

/// Locks the open tickets that a batch appends to.
///
/// # Errors
/// [`StoreError`].
pub async fn lock_growing(
    db: &mut PgConnection,
    tickets: &[(OfficeId, RegisterNumber)],
) -> Result<Vec<Growing>, StoreError> {
    let offices: Vec<i32> = tickets.iter().map(|key| key.0.0).collect();
    let numbers: Vec<i64> = tickets.iter().map(|key| key.1.as_i64()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT t.office_id, t.ticket, events, chain, follow_up_at, due_at, provisional
        FROM unnest($1::int[], $2::bigint[]) AS i(office_id, ticket)
        JOIN ticket t USING (office_id, ticket)
        ORDER BY t.office_id, t.ticket
        FOR UPDATE OF t
        "#,
        &offices,
        &numbers,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Growing {
                office: OfficeId(row.office_id),
                ticket: number(row.ticket)?,
                events: row.events,
                chain: Link(row.chain.try_into().map_err(|_| bad("ticket", "chain"))?),
                follow_up_at: row.follow_up_at,
                due_at: row.due_at,
                provisional: row.provisional,
            })
        })
        .collect()
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[expect(missing_docs, reason = "the columns of the table of the same name")]
        pub struct $name { $(pub $field: Vec<$ty>),* }
    };
}

columns!(
    /// New tickets, column by column.
    Tickets {
        office: i32, ticket: i64, channel: String, state: String, urgency: i16, problem: String,
        name: Option<String>, phone: Option<String>, thread: Option<String>,
        registered_at: DateTime<Utc>, accepted_at: DateTime<Utc>,
        follow_up_at: Option<DateTime<Utc>>, due_at: DateTime<Utc>, provisional: bool,
        needs_year: Option<i32>, calendar_version: i32, accountable: Option<i32>,
        events: i32, chain: Vec<u8>,
    }
);
columns!(
    /// New events with the messages that they record, column by column; an event without a
    /// message has no source.
    Events {
        office: i32, ticket: i64, seq: i32, at: DateTime<Utc>, actor: String, kind: String,
        data: String, hash: Vec<u8>, source: Option<String>, source_id: Option<String>,
        occurred_at: DateTime<Utc>, text: String, attachments: Option<serde_json::Value>,
        raw: Vec<u8>,
    }
);
columns!(
    /// New timers, column by column.
    Timers { office: i32, ticket: i64, kind: i16, due_at: DateTime<Utc> }
);
columns!(
    /// New outbox rows, column by column.
    Effects {
        office: i32, kind: String, ticket: i64, urgent: bool, data: serde_json::Value,
        created_at: DateTime<Utc>, not_before: DateTime<Utc>,
    }
);
columns!(
    /// What each submission became, column by column.
    Results {
        office: i32, source: String, source_id: String, ticket: i64, appended: bool,
        follow_up_at: Option<DateTime<Utc>>, due_at: DateTime<Utc>, provisional: bool,
    }
);
columns!(
    /// Threads whose open ticket is new, column by column.
    Threads { office: i32, thread: String, ticket: i64 }
);
columns!(
    /// Tickets that grew, column by column.
    Grown { office: i32, ticket: i64, events: i32, chain: Vec<u8> }
);

/// Everything that a batch writes once its numbers are known.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is a table's rows")]
pub struct Writes {
    pub tickets: Tickets,
    pub events: Events,
    pub timers: Timers,
    pub effects: Effects,
    pub results: Results,
    pub threads: Threads,
    pub grown: Grown,
}

/// Adds a timer, first generation.
pub fn push_timer(
    timers: &mut Timers,
    office: OfficeId,
    ticket: RegisterNumber,
    kind: TimerKind,
    due_at: DateTime<Utc>,
) {
    timers.office.push(office.0);
    timers.ticket.push(ticket.as_i64());
    timers.kind.push(kind.number());
    timers.due_at.push(due_at);
}

/// Writes a batch in one statement.
///
/// # Errors
/// [`StoreError`]; [`StoreError::RowCount`] when a result found no row of [`admit`].
pub async fn write(db: &mut PgConnection, writes: &Writes) -> Result<(), StoreError> {
    let Writes { tickets: t, events: e, timers: m, effects: o, results: r, threads: h, grown: g } =
        writes;
    let row = sqlx::query!(
        r#"
        WITH tickets AS (
            INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, citizen_name,
                citizen_phone, thread, registered_at, accepted_at, follow_up_at, due_at,
                provisional, needs_year, calendar_version, accountable, events, chain)
            SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[], $5::smallint[],
                $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[],
                $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::boolean[],
                $15::int[], $16::int[], $17::int[], $18::int[], $19::bytea[])
        ), happened AS (
            SELECT * FROM unnest($20::int[], $21::bigint[], $22::int[], $23::timestamptz[],
                $24::text[], $25::text[], $26::text[], $27::bytea[], $28::text[], $29::text[],
                $30::timestamptz[], $31::text[], $32::jsonb[], $33::bytea[])
                AS i(office_id, ticket, seq, at, actor, kind, data, hash, source, source_id,
                     occurred_at, text, attachments, raw)
        ), events AS (
            INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
            SELECT office_id, ticket, seq, at, actor, kind, data::json, hash FROM happened
        ), messages AS (
            INSERT INTO message (office_id, ticket, seq, source, source_id, occurred_at,
                received_at, text, attachments, raw)
            SELECT office_id, ticket, seq, source, source_id, occurred_at, at, text, attachments, raw
            FROM happened WHERE source IS NOT NULL
        ), timers AS (
            INSERT INTO timer (office_id, ticket, kind, gen, state, due_at)
            SELECT office_id, ticket, kind, 1, 0, due_at
            FROM unnest($34::int[], $35::bigint[], $36::smallint[], $37::timestamptz[])
                AS i(office_id, ticket, kind, due_at)
        ), effects AS (
            INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
            SELECT * FROM unnest($38::int[], $39::text[], $40::bigint[], $41::boolean[],
                $42::jsonb[], $43::timestamptz[], $44::timestamptz[])
        ), results AS (
            UPDATE inbound SET ticket = i.ticket, appended = i.appended,
                follow_up_at = i.follow_up_at, due_at = i.due_at, provisional = i.provisional
            FROM unnest($45::int[], $46::text[], $47::text[], $48::bigint[], $49::boolean[],
                $50::timestamptz[], $51::timestamptz[], $52::boolean[])
                AS i(office_id, source, source_id, ticket, appended, follow_up_at, due_at, provisional)
            WHERE inbound.office_id = i.office_id AND inbound.source = i.source
              AND inbound.source_id = i.source_id
            RETURNING 1
        ), threads AS (
            UPDATE thread SET open_ticket = i.ticket
            FROM unnest($53::int[], $54::text[], $55::bigint[]) AS i(office_id, thread, ticket)
            WHERE thread.office_id = i.office_id AND thread.thread = i.thread
            RETURNING 1
        ), grown AS (
            UPDATE ticket SET events = i.events, chain = i.chain
            FROM unnest($56::int[], $57::bigint[], $58::int[], $59::bytea[])
                AS i(office_id, ticket, events, chain)
            WHERE ticket.office_id = i.office_id AND ticket.ticket = i.ticket
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM results) AS "results!",
               (SELECT count(*) FROM threads) AS "threads!",
               (SELECT count(*) FROM grown) AS "grown!"
        "#,
        &t.office,
        &t.ticket,
        &t.channel,
        &t.state,
        &t.urgency,
        &t.problem,
        &t.name as &[Option<String>],
        &t.phone as &[Option<String>],
        &t.thread as &[Option<String>],
        &t.registered_at,
        &t.accepted_at,
        &t.follow_up_at as &[Option<DateTime<Utc>>],
        &t.due_at,
        &t.provisional,
        &t.needs_year as &[Option<i32>],
        &t.calendar_version,
        &t.accountable as &[Option<i32>],
        &t.events,
        &t.chain,
        &e.office,
        &e.ticket,
        &e.seq,
        &e.at,
        &e.actor,
        &e.kind,
        &e.data,
        &e.hash,
        &e.source as &[Option<String>],
        &e.source_id as &[Option<String>],
        &e.occurred_at,
        &e.text,
        &e.attachments as &[Option<serde_json::Value>],
        &e.raw,
        &m.office,
        &m.ticket,
        &m.kind,
        &m.due_at,
        &o.office,
        &o.kind,
        &o.ticket,
        &o.urgent,
        &o.data,
        &o.created_at,
        &o.not_before,
        &r.office,
        &r.source,
        &r.source_id,
        &r.ticket,
        &r.appended,
        &r.follow_up_at as &[Option<DateTime<Utc>>],
        &r.due_at,
        &r.provisional,
        &h.office,
        &h.thread,
        &h.ticket,
        &g.office,
        &g.ticket,
        &g.events,
        &g.chain,
    )
    .fetch_one(db)
    .await?;
    for (table, changed, wanted) in [
        ("inbound", row.results, r.office.len()),
        ("thread", row.threads, h.office.len()),
        ("ticket", row.grown, g.office.len()),
    ] {
        let (changed, wanted) = (changed.unsigned_abs(), wanted as u64);
        if changed != wanted {
            return Err(StoreError::RowCount { table, changed, wanted });
        }
    }
    Ok(())
}

/// The officers of an office by login, for R7.e.
///
/// # Errors
/// [`StoreError`].
pub async fn staff_by_login(
    db: &mut PgConnection,
    office: OfficeId,
    login: &str,
) -> Result<Option<StaffId>, StoreError> {
    let id = sqlx::query_scalar!(
        "SELECT staff_id FROM staff WHERE office_id = $1 AND login = $2",
        office.0,
        login
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(StaffId))
}

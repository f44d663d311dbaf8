//! What a batch of submissions reads and writes: one look, one write, whatever its size.
//!
//! The look takes no locks. The write says what it took for granted (the register's last number,
//! which threads have no open ticket, where the growing tickets' chains end, that no identity was
//! there before; unique keys or its own guards) and does nothing unless all of it still holds; the caller then looks again, under
//! [`lock`].

use super::{StoreError, bad, number};
use crate::domain::{chain::Link, id::OfficeId, id::StaffId, register::RegisterNumber};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// What has to be known of a submission before it can be numbered.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Where it belongs.
    pub office: OfficeId,
    /// Who vouches for it.
    pub source: &'a str,
    /// Its identity there.
    pub source_id: &'a str,
    /// Which citizen's ticket it may grow.
    pub thread: Option<&'a str>,
    /// The year whose register it would enter, in the office's zone.
    pub year: i32,
    /// The login of whoever took it in, for R7.e.
    pub taken_by: Option<&'a str>,
}

/// What the database knew about a submission, by its index in the batch.
#[derive(Debug, Clone)]
pub struct Seen {
    /// An earlier delivery of the same submission.
    pub before: Option<Recalled>,
    /// The citizen's open ticket.
    pub open_ticket: Option<Growing>,
    /// The last number that the office's register gave out in its year; `None` before the first.
    pub last_of_year: Option<i32>,
    /// The officer behind `taken_by`.
    pub taken_by: Option<StaffId>,
}

/// What an earlier delivery of the same submission became.
#[derive(Debug, Clone)]
pub struct Recalled {
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

/// A citizen's open ticket.
#[derive(Debug, Clone, Copy)]
pub struct Growing {
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
    /// RD3.2.
    pub urgent: bool,
}

/// What the database knows about each submission of a batch, in its order.
///
/// # Errors
/// [`StoreError`].
pub async fn look(
    db: &mut PgConnection,
    arrivals: &[Arrival<'_>],
) -> Result<Vec<Seen>, StoreError> {
    let offices: Vec<i32> = arrivals.iter().map(|a| a.office.0).collect();
    let sources: Vec<&str> = arrivals.iter().map(|a| a.source).collect();
    let source_ids: Vec<&str> = arrivals.iter().map(|a| a.source_id).collect();
    let threads: Vec<Option<&str>> = arrivals.iter().map(|a| a.thread).collect();
    let years: Vec<i32> = arrivals.iter().map(|a| a.year).collect();
    let logins: Vec<Option<&str>> = arrivals.iter().map(|a| a.taken_by).collect();
    let rows = sqlx::query!(
        r#"
        SELECT n AS "n!",
               b.source IS NOT NULL AS "known!", b.digest AS "digest?",
               b.received_at AS "received_at?", b.ticket, b.appended, b.follow_up_at, b.due_at,
               b.provisional, t.ticket AS "open_ticket?",
               t.events AS "events?", t.chain AS "chain?", t.follow_up_at AS open_follow_up_at,
               t.due_at AS "open_due_at?", t.provisional AS "open_provisional?",
               t.urgency AS "urgency?",
               r.last AS "last?", s.staff_id AS "staff_id?"
        FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[])
            WITH ORDINALITY AS i(office_id, source, source_id, thread, year, login, n)
        LEFT JOIN inbound b ON b.office_id = i.office_id AND b.source = i.source
            AND b.source_id = i.source_id
        LEFT JOIN ticket t ON t.office_id = i.office_id AND t.thread = i.thread AND t.is_open
            AND t.thread IS NOT NULL
        LEFT JOIN register r ON r.office_id = i.office_id AND r.year = i.year
        LEFT JOIN staff s ON s.login = i.login AND s.office_id = i.office_id
        ORDER BY n
        "#,
        &offices,
        &sources as &[&str],
        &source_ids as &[&str],
        &threads as &[Option<&str>],
        &years,
        &logins as &[Option<&str>],
    )
    .fetch_all(db)
    .await?;
    if rows.len() != arrivals.len() {
        let (changed, wanted) = (rows.len() as u64, arrivals.len() as u64);
        return Err(StoreError::RowCount { table: "inbound", changed, wanted });
    }
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
            let before = match (row.known, row.digest, row.received_at) {
                (true, Some(digest), Some(received_at)) => {
                    Some(Recalled { digest, received_at, made })
                }
                _ => None,
            };
            let open_ticket = match row.open_ticket {
                None => None,
                Some(ticket) => Some(Growing {
                    ticket: number(ticket)?,
                    events: row.events.ok_or(bad("ticket", "events"))?,
                    chain: Link(
                        row.chain
                            .and_then(|chain| chain.try_into().ok())
                            .ok_or(bad("ticket", "chain"))?,
                    ),
                    follow_up_at: row.open_follow_up_at,
                    due_at: row.open_due_at.ok_or(bad("ticket", "due_at"))?,
                    provisional: row.open_provisional.ok_or(bad("ticket", "provisional"))?,
                    urgent: row.urgency == Some(0),
                }),
            };
            let taken_by = row.staff_id.map(StaffId);
            Ok(Seen { before, open_ticket, last_of_year: row.last, taken_by })
        })
        .collect()
}

/// Begins the registers of these years, where they have not begun; the same again changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn begin_years(
    db: &mut PgConnection,
    years: &[(OfficeId, i32)],
) -> Result<(), StoreError> {
    let offices: Vec<i32> = years.iter().map(|key| key.0.0).collect();
    let years: Vec<i32> = years.iter().map(|key| key.1).collect();
    sqlx::query!(
        "INSERT INTO register (office_id, year, last)
         SELECT office_id, year, 0 FROM unnest($1::int[], $2::int[]) AS i(office_id, year)
         ORDER BY office_id, year ON CONFLICT DO NOTHING",
        &offices,
        &years
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Locks what a batch rests on until the end of the transaction: the registers and the open tickets
/// of its threads. What [`look`] then finds still holds at [`write`].
///
/// # Errors
/// [`StoreError`].
pub async fn lock(db: &mut PgConnection, arrivals: &[Arrival<'_>]) -> Result<(), StoreError> {
    let offices: Vec<i32> = arrivals.iter().map(|a| a.office.0).collect();
    let years: Vec<i32> = arrivals.iter().map(|a| a.year).collect();
    let threads: Vec<Option<&str>> = arrivals.iter().map(|a| a.thread).collect();
    sqlx::query!(
        "SELECT 1 AS one FROM register r WHERE EXISTS (
             SELECT FROM unnest($1::int[], $2::int[]) AS i(office_id, year)
             WHERE i.office_id = r.office_id AND i.year = r.year)
         ORDER BY r.office_id, r.year FOR UPDATE OF r",
        &offices,
        &years
    )
    .fetch_all(&mut *db)
    .await?;
    sqlx::query!(
        "SELECT 1 AS one FROM (
             SELECT DISTINCT office_id, thread FROM unnest($1::int[], $2::text[]) AS i(office_id, thread)) i
         JOIN ticket t ON t.office_id = i.office_id AND t.thread = i.thread AND t.is_open
             AND t.thread IS NOT NULL
         ORDER BY t.office_id, t.ticket FOR UPDATE OF t",
        &offices,
        &threads as &[Option<&str>]
    )
    .fetch_all(db)
    .await?;
    Ok(())
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? { $($field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[expect(missing_docs, reason = "the columns of the table of the same name")]
        pub struct $name $(<$life>)? { $(pub $field: Vec<$ty>),* }
    };
}

columns!(
    /// Numbers that are taken: the register's last one before, and how many, column by column.
    Numbers { office: i32, year: i32, last: i32, count: i32 }
);
columns!(
    /// Tickets that grew from `was` events to `events`, column by column.
    Grown { office: i32, ticket: i64, urgency: i16, was: i32, events: i32, chain: [u8; 32] }
);
columns!(
    /// New tickets, column by column.
    Tickets<'a> {
        office: i32, ticket: i64, channel: &'static str, state: &'static str, urgency: i16,
        problem: String, name: Option<&'a str>, phone: Option<&'a str>, thread: Option<&'a str>,
        registered_at: DateTime<Utc>, accepted_at: DateTime<Utc>,
        follow_up_at: Option<DateTime<Utc>>, due_at: DateTime<Utc>, provisional: bool,
        needs_year: Option<i32>, calendar_version: i32, accountable: Option<i32>,
        events: i32, chain: [u8; 32],
    }
);
columns!(
    /// New events with the messages that they record, column by column; an event without a
    /// message has no `occurred_at`.
    Events<'a> {
        office: i32, ticket: i64, seq: i32, at: DateTime<Utc>, actor: String, kind: String,
        data: String, hash: [u8; 32], occurred_at: Option<DateTime<Utc>>, text: &'a str,
        attachments: Option<serde_json::Value>, raw: &'a [u8],
    }
);
columns!(
    /// New timers, column by column.
    Timers { office: i32, ticket: i64, kind: i16, due_at: DateTime<Utc> }
);
columns!(
    /// New outbox rows, column by column.
    Effects {
        office: i32, kind: &'static str, ticket: i64, urgent: bool,
        created_at: DateTime<Utc>, not_before: DateTime<Utc>,
    }
);
columns!(
    /// Each submission's identity and what it became, column by column.
    Inbound<'a> {
        office: i32, source: &'a str, source_id: &'a str, digest: [u8; 32],
        received_at: DateTime<Utc>, ticket: i64, seq: i32, appended: bool,
        follow_up_at: Option<DateTime<Utc>>, due_at: DateTime<Utc>, provisional: bool,
    }
);

/// Everything that a batch writes once its numbers are known. `numbers` and `grown` are in the order
/// of their keys: it is the order of the locks.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is a table's rows")]
pub struct Writes<'a> {
    pub numbers: Numbers,
    pub grown: Grown,
    pub tickets: Tickets<'a>,
    pub events: Events<'a>,
    pub timers: Timers,
    pub effects: Effects,
    pub inbound: Inbound<'a>,
}

/// What a batch's rows rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// [`look`] saw it.
    Seen,
    /// A guess, made without looking: that none of these identities was there before, that no thread
    /// has an open ticket, and that the register stands where it stood.
    Guessed,
}

/// Between which others a batch is written. Batches of one gateway are written side by side and
/// commit in the order of their numbers: each holds its own token and waits for the one before.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Its own; the one who comes after waits for it.
    pub token: i32,
    /// Whose numbers it continues, where that one is still being written.
    pub after: Option<i32>,
}

/// Of the advisory locks that are such tokens, among all that a database has: "BATC".
const TOKENS: i32 = 0x4241_5443;

/// Writes a batch in one statement, which is a transaction by itself outside of one: all of it, or
/// nothing where something is no longer as [`look`] saw it. False when a guess was wrong, which
/// costs no more than the look would have.
///
/// # Errors
/// [`StoreError`]; see [`StoreError::is_overtaken`] for what was seen and no longer holds.
pub async fn write(
    db: &mut PgConnection,
    writes: &Writes<'_>,
    basis: Basis,
    order: Option<Order>,
) -> Result<bool, StoreError> {
    let Writes { numbers: n, grown: g, tickets: t, events: e, timers: m, effects: o, inbound: b } =
        writes;
    let guessed = basis == Basis::Guessed;
    let token = order.map(|order| order.token);
    let after = order.and_then(|order| order.after);
    // The result asks for one part after the other, and that is their order: the token, what is
    // guessed, the rows, the batch before, and the register last, so that it is locked for the
    // moment of the commit only. Its new value shows whether it stood where it was said to stand:
    // unlike a condition, that is judged by what the batch before has left. A row that another
    // transaction has locked is not waited for, it counts as overtaken: whoever holds the register
    // may itself be waiting for a number or an identity that this batch has just written.
    let kept = sqlx::query_scalar!(
        r#"
        WITH held AS MATERIALIZED (
            SELECT pg_advisory_xact_lock($1, $2)::text WHERE $2::int IS NOT NULL
        ), sure AS MATERIALIZED (
            SELECT NOT $3::boolean OR NOT (
                EXISTS (SELECT FROM unnest($4::int[], $5::text[], $6::text[])
                            AS i(office_id, source, source_id)
                        JOIN inbound b ON b.office_id = i.office_id AND b.source = i.source
                            AND b.source_id = i.source_id)
                OR EXISTS (SELECT FROM unnest($7::int[], $8::text[]) AS i(office_id, thread)
                           JOIN ticket t ON t.office_id = i.office_id AND t.thread = i.thread
                               AND t.is_open AND t.thread IS NOT NULL)
                OR $9::int IS NULL AND EXISTS (
                    SELECT FROM unnest($10::int[], $11::int[], $12::int[])
                        AS i(office_id, year, last)
                    JOIN register r ON r.office_id = i.office_id AND r.year = i.year
                    WHERE r.last <> i.last)) AS yes
        ), tickets AS (
            INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, citizen_name,
                citizen_phone, thread, registered_at, accepted_at, follow_up_at, due_at,
                provisional, needs_year, calendar_version, accountable, events, chain)
            SELECT * FROM unnest($7::int[], $13::bigint[], $14::text[],
                $15::text[], $16::smallint[], $17::text[], $18::text[],
                $19::text[], $8::text[], $20::timestamptz[],
                $21::timestamptz[], $22::timestamptz[],
                $23::timestamptz[], $24::boolean[], $25::int[],
                $26::int[], $27::int[], $28::int[],
                $29::bytea[])
            WHERE (SELECT yes FROM sure)
            RETURNING 1
        ), grown AS (
            UPDATE ticket t SET urgency = i.urgency, events = i.events, chain = i.chain
            FROM (SELECT i.* FROM unnest($30::int[], $31::bigint[],
                      $32::smallint[], $33::int[], $34::int[], $35::bytea[])
                      AS i(office_id, ticket, urgency, was, events, chain)
                  JOIN ticket t ON t.office_id = i.office_id AND t.ticket = i.ticket
                      AND t.events = i.was AND t.is_open
                  FOR UPDATE OF t SKIP LOCKED) i
            WHERE t.office_id = i.office_id AND t.ticket = i.ticket
            RETURNING 1
        ), inbound AS (
            INSERT INTO inbound (office_id, source, source_id, digest, received_at, ticket, seq,
                appended, follow_up_at, due_at, provisional)
            SELECT * FROM unnest($4::int[], $5::text[], $6::text[],
                $36::bytea[], $37::timestamptz[], $38::bigint[],
                $39::int[], $40::boolean[], $41::timestamptz[],
                $42::timestamptz[], $43::boolean[])
            WHERE (SELECT yes FROM sure)
            -- In one order for all gateways: they wait for each other's identities, never in a ring.
            ORDER BY 1, 2, 3
            RETURNING 1
        ), happened AS (
            SELECT * FROM unnest($44::int[], $45::bigint[], $46::int[],
                $47::timestamptz[], $48::text[], $49::text[], $50::text[],
                $51::bytea[], $52::timestamptz[], $53::text[],
                $54::jsonb[], $55::bytea[])
                AS i(office_id, ticket, seq, at, actor, kind, data, hash, occurred_at, text,
                     attachments, raw)
            WHERE (SELECT yes FROM sure)
        ), events AS (
            INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
            SELECT office_id, ticket, seq, at, actor, kind, data::json, hash FROM happened
            RETURNING 1
        ), messages AS (
            INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, attachments,
                raw)
            SELECT office_id, ticket, seq, occurred_at, at, text, attachments, raw
            FROM happened WHERE occurred_at IS NOT NULL
            RETURNING 1
        ), timers AS (
            INSERT INTO timer (office_id, ticket, kind, gen, state, due_at)
            SELECT office_id, ticket, kind, 1, 0, due_at
            FROM unnest($56::int[], $57::bigint[], $58::smallint[],
                $59::timestamptz[]) AS i(office_id, ticket, kind, due_at)
            WHERE (SELECT yes FROM sure)
            RETURNING 1
        ), effects AS (
            INSERT INTO outbox (office_id, kind, ticket, urgent, created_at, not_before)
            SELECT * FROM unnest($60::int[], $61::text[], $62::bigint[],
                $63::boolean[], $64::timestamptz[], $65::timestamptz[])
            WHERE (SELECT yes FROM sure)
            RETURNING 1
        ), before AS MATERIALIZED (
            SELECT pg_advisory_xact_lock_shared($1, $9)::text WHERE $9::int IS NOT NULL
        ), numbers AS (
            UPDATE register r SET last = r.last + i.count
            FROM (SELECT i.* FROM unnest($10::int[], $11::int[], $12::int[],
                      $66::int[]) AS i(office_id, year, last, count)
                  JOIN register r ON r.office_id = i.office_id AND r.year = i.year
                  FOR UPDATE OF r SKIP LOCKED) i
            WHERE r.office_id = i.office_id AND r.year = i.year AND (SELECT yes FROM sure)
            RETURNING r.last = i.last + i.count AS as_said
        )
        SELECT (SELECT count(*) FROM held) >= 0
               AND (SELECT yes FROM sure)
               AND (SELECT count(*) FROM tickets) >= 0
               AND as_expected('ticket', (SELECT count(*) FROM grown), cardinality($30))
               AND (SELECT count(*) FROM inbound) >= 0
               AND (SELECT count(*) FROM events) >= 0
               AND (SELECT count(*) FROM messages) >= 0
               AND (SELECT count(*) FROM timers) >= 0
               AND (SELECT count(*) FROM effects) >= 0
               AND (SELECT count(*) FROM before) >= 0
               AND as_expected('register', (SELECT count(*) FILTER (WHERE as_said) FROM numbers),
                               cardinality($10)) AS "kept!"
        "#,
        TOKENS,
        token,
        guessed,
        &b.office,
        &b.source as &[&str],
        &b.source_id as &[&str],
        &t.office,
        &t.thread as &[Option<&str>],
        after,
        &n.office,
        &n.year,
        &n.last,
        &t.ticket,
        &t.channel as &[&str],
        &t.state as &[&str],
        &t.urgency,
        &t.problem,
        &t.name as &[Option<&str>],
        &t.phone as &[Option<&str>],
        &t.registered_at,
        &t.accepted_at,
        &t.follow_up_at as &[Option<DateTime<Utc>>],
        &t.due_at,
        &t.provisional,
        &t.needs_year as &[Option<i32>],
        &t.calendar_version,
        &t.accountable as &[Option<i32>],
        &t.events,
        &t.chain as &[[u8; 32]],
        &g.office,
        &g.ticket,
        &g.urgency,
        &g.was,
        &g.events,
        &g.chain as &[[u8; 32]],
        &b.digest as &[[u8; 32]],
        &b.received_at,
        &b.ticket,
        &b.seq,
        &b.appended,
        &b.follow_up_at as &[Option<DateTime<Utc>>],
        &b.due_at,
        &b.provisional,
        &e.office,
        &e.ticket,
        &e.seq,
        &e.at,
        &e.actor,
        &e.kind,
        &e.data,
        &e.hash as &[[u8; 32]],
        &e.occurred_at as &[Option<DateTime<Utc>>],
        &e.text as &[&str],
        &e.attachments as &[Option<serde_json::Value>],
        &e.raw as &[&[u8]],
        &m.office,
        &m.ticket,
        &m.kind,
        &m.due_at,
        &o.office,
        &o.kind as &[&str],
        &o.ticket,
        &o.urgent,
        &o.created_at,
        &o.not_before,
        &n.count,
    )
    .fetch_one(db)
    .await?;
    Ok(kept)
}

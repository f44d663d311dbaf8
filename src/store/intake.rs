//! What a batch of submissions reads and writes: one look, one write, whatever its size.
//!
//! The look takes no locks. The write says what it took for granted (the register's last number,
//! which threads have no open ticket, where the growing tickets' chains end, that no identity was
//! there before, that no conversation took a turn; unique keys or its own guards) and does nothing unless all of it still holds; the caller then looks again, under
//! [`lock`].

use super::{StoreError, bad, number};
use crate::domain::{
    chain::Link,
    conversation::{Message, Talk},
    id::OfficeId,
    id::StaffId,
    register::RegisterNumber,
};
use chrono::{DateTime, Utc};
use intake_contract::{Said, Submission};
use sqlx::{
    PgConnection, Postgres,
    postgres::{PgHasArrayType, PgTypeInfo},
};

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
    /// How the office's register of its year stands; `None` before the first number.
    pub register: Option<RegisterStands>,
    /// What is remembered of the citizen's conversation; `None` when there is nothing.
    pub talk: Option<Talk>,
    /// The officer behind `taken_by`.
    pub taken_by: Option<StaffId>,
}

/// A register as it stood when it was looked at; what rests on it holds while it stands so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegisterStands {
    /// The last number that it gave out.
    pub last: i32,
    /// How many turns the office's conversations have taken.
    pub turns: i64,
}

/// What an earlier delivery of the same submission became.
#[derive(Debug, Clone)]
pub struct Recalled {
    /// The original's digest then.
    pub digest: Vec<u8>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// What its sender was told.
    pub told: Told,
}

/// What the sender of a submission was told.
#[derive(Debug, Clone)]
pub enum Told {
    /// The number of its ticket, new or grown.
    Made(Made),
    /// Something else.
    Said(Said),
    /// That staff will look at it.
    Quarantined,
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
    /// Whether the sender was asked for a name and a telephone (R7.2).
    pub asks: bool,
    /// How the ticket stood, where it was there before.
    pub stood: Stood,
}

/// How a ticket stands, as far as it changes what who adds to it is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stood {
    /// It is being handled, or is to be.
    #[default]
    InHand,
    /// It waits for something from the citizen.
    AwaitingCitizen,
    /// It was answered.
    Answered,
    /// It is being handled, and these words gave a name or a telephone (R7.2).
    ContactNoted,
}

impl Stood {
    /// Of a state's name.
    fn of(state: &str) -> Self {
        match state {
            "awaiting_citizen" => Self::AwaitingCitizen,
            "resolved" | "evaluated" => Self::Answered,
            _ => Self::InHand,
        }
    }

    /// The database's form.
    #[must_use]
    pub fn stored(self) -> Option<i16> {
        match self {
            Self::InHand => None,
            Self::AwaitingCitizen => Some(1),
            Self::Answered => Some(2),
            Self::ContactNoted => Some(3),
        }
    }

    fn read(stored: Option<i16>) -> Self {
        match stored {
            Some(1) => Self::AwaitingCitizen,
            Some(2) => Self::Answered,
            Some(3) => Self::ContactNoted,
            _ => Self::InHand,
        }
    }
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
    /// How it stands.
    pub stood: Stood,
    /// R7.2: when its citizen was asked for the name that it still lacks.
    pub asked_at: Option<DateTime<Utc>>,
    /// When the staff is told next of what was added.
    pub growth_told_at: Option<DateTime<Utc>>,
}

impl Seen {
    /// A submission as the conversation looks at it.
    pub(crate) fn message<'a>(&self, submission: &'a Submission, alarms: bool) -> Message<'a> {
        let judged = self.open_ticket.filter(|open| open.stood == Stood::Answered);
        Message {
            meaning: &submission.meaning,
            text: &submission.text,
            alarms,
            to_judge: judged.map(|open| open.ticket),
        }
    }
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
               b.provisional, b.said, b.asks, b.stood, t.state AS "state?", t.ticket AS "open_ticket?",
               t.events AS "events?", t.chain AS "chain?", t.follow_up_at AS open_follow_up_at,
               t.due_at AS "open_due_at?", t.provisional AS "open_provisional?",
               t.urgency AS "urgency?",
               CASE WHEN t.citizen_name IS NULL THEN t.registered_at END AS asked_for_name_at,
               t.growth_told_at,
               r.last AS "last?", r.turns AS "turns?", s.staff_id AS "staff_id?",
               c.thread IS NOT NULL AS "talks!", c.question, c.about, c.asked_at, c.next_is_new, c.held AS "held?",
               c.by_itself_at, c.closed_ticket, c.closed_at, c.beside AS "beside?",
               c.citizen_name, c.citizen_phone, c.scene
        FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[])
            WITH ORDINALITY AS i(office_id, source, source_id, thread, year, login, n)
        LEFT JOIN inbound b ON b.office_id = i.office_id AND b.source = i.source
            AND b.source_id = i.source_id
        LEFT JOIN ticket t ON t.office_id = i.office_id AND t.thread = i.thread AND t.is_open
            AND t.grows AND t.thread IS NOT NULL
        LEFT JOIN conversation c ON c.office_id = i.office_id AND c.thread = i.thread
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
            // What was said first: what was kept and answered may have found its ticket since.
            let told = match (row.said, row.ticket, row.appended, row.due_at, row.provisional) {
                (Some(said), ..) => {
                    Told::Said(serde_json::from_value(said).map_err(|_| bad("inbound", "said"))?)
                }
                (None, Some(ticket), Some(appended), Some(due_at), Some(provisional)) => {
                    Told::Made(Made {
                        ticket: number(ticket)?,
                        appended,
                        follow_up_at: row.follow_up_at,
                        due_at,
                        provisional,
                        asks: row.asks.unwrap_or(false),
                        stood: Stood::read(row.stood),
                    })
                }
                _ => Told::Quarantined,
            };
            let before = match (row.known, row.digest, row.received_at) {
                (true, Some(digest), Some(received_at)) => {
                    Some(Recalled { digest, received_at, told })
                }
                _ => None,
            };
            let talk = if row.talks {
                Some(super::conversation::talk(super::conversation::Row {
                    question: row.question,
                    about: row.about,
                    asked_at: row.asked_at,
                    next_is_new: row.next_is_new,
                    held: row.held.unwrap_or(0),
                    by_itself_at: row.by_itself_at,
                    closed_ticket: row.closed_ticket,
                    closed_at: row.closed_at,
                    beside: row.beside.unwrap_or(false),
                    citizen_name: row.citizen_name,
                    citizen_phone: row.citizen_phone,
                    scene: row.scene,
                })?)
            } else {
                None
            };
            let register = match (row.last, row.turns) {
                (Some(last), Some(turns)) => Some(RegisterStands { last, turns }),
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
                    stood: Stood::of(row.state.as_deref().unwrap_or_default()),
                    asked_at: row.asked_for_name_at,
                    growth_told_at: row.growth_told_at,
                }),
            };
            let taken_by = row.staff_id.map(StaffId);
            Ok(Seen { before, open_ticket, register, talk, taken_by })
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
/// of its threads. The registers of the years beside as well: of one citizen's turns around New Year
/// each has one of them. What [`look`] then finds still holds at [`write`].
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
             WHERE i.office_id = r.office_id AND r.year BETWEEN i.year - 1 AND i.year + 1)
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
             AND t.grows AND t.thread IS NOT NULL
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
    Numbers { office: i32, year: i32, last: i32, turns: i64, count: i32 }
);
columns!(
    /// Tickets that grew from `was` events to `events`, column by column.
    Grown {
        office: i32, ticket: i64, urgency: i16, was: i32, events: i32, chain: [u8; 32],
        name: Option<String>, phone: Option<String>, problem: Option<String>,
        growth_told_at: Option<DateTime<Utc>>, came_at: DateTime<Utc>,
    }
);
/// A new ticket with its timers, as the database's type `intake_ticket`.
#[derive(Debug, Default, sqlx::Encode)]
#[expect(missing_docs, reason = "the columns of ticket")]
pub struct NewTicket<'a> {
    pub office_id: i32,
    pub ticket: i64,
    pub channel: &'static str,
    pub state: &'static str,
    pub urgency: i16,
    pub problem: String,
    pub citizen_name: Option<String>,
    pub citizen_phone: Option<String>,
    pub thread: Option<&'a str>,
    pub registered_at: DateTime<Utc>,
    pub accepted_at: DateTime<Utc>,
    pub follow_up_at: Option<DateTime<Utc>>,
    pub warn_at: DateTime<Utc>,
    pub due_at: DateTime<Utc>,
    pub provisional: bool,
    pub needs_year: Option<i32>,
    pub calendar_version: i32,
    pub accountable: Option<i32>,
    pub events: i32,
    pub chain: [u8; 32],
}

/// A new event with all that came of it: the message that it records, the identity that brought it
/// and what its sender is told, what the staff is told. As the database's type `intake_event`.
#[derive(Debug, Default, sqlx::Encode)]
#[expect(missing_docs, reason = "the columns of event, message, inbound and outbox")]
pub struct NewEvent<'a> {
    pub office_id: i32,
    pub ticket: i64,
    pub seq: i32,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub kind: String,
    pub data: String,
    pub hash: [u8; 32],
    pub occurred_at: Option<DateTime<Utc>>,
    pub text: Option<&'a str>,
    pub attachments: Option<serde_json::Value>,
    pub raw: Option<Vec<u8>>,
    pub source: Option<&'a str>,
    pub source_id: Option<&'a str>,
    pub digest: Option<[u8; 32]>,
    pub appended: Option<bool>,
    pub follow_up_at: Option<DateTime<Utc>>,
    pub due_at: Option<DateTime<Utc>>,
    pub provisional: Option<bool>,
    pub effect: Option<&'static str>,
    pub effect_urgent: Option<bool>,
    pub effect_not_before: Option<DateTime<Utc>>,
    pub asks: Option<bool>,
    pub effect_data: Option<serde_json::Value>,
    pub stood: Option<i16>,
    pub sent_order: Option<i64>,
    pub words_at: Option<i32>,
}

impl<'a> NewEvent<'a> {
    /// With a message's words and its original, of which they are cut out where they stand in it
    /// as they are ([`words_at`]): they stand in the database once.
    pub fn with_message(&mut self, text: &'a str, raw: &[u8], words_at: Option<i32>) {
        let place = words_at.and_then(|at| usize::try_from(at).ok());
        self.text = Some(text);
        self.words_at = words_at;
        self.raw = Some(match place {
            Some(at) => [&raw[..at], &raw[at + text.len()..]].concat(),
            None => raw.to_vec(),
        });
    }
}

/// Where a message's words stand in its original as they are, in bytes; `None` where they do not, or
/// where nothing is gained by cutting them out.
#[must_use]
pub fn words_at(text: &str, raw: &[u8]) -> Option<i32> {
    // What is shorter than what says where it stood gains nothing.
    const WORTH: usize = 8;
    // To look for all the words at once is to read all of them first.
    const HEAD: usize = 24;
    let raw = str::from_utf8(raw).ok().filter(|_| text.len() > WORTH)?;
    let head = &text[..text.floor_char_boundary(HEAD)];
    let at = raw.match_indices(head).map(|(at, _)| at).find(|&at| raw[at..].starts_with(text))?;
    i32::try_from(at).ok()
}

// Rows rather than columns: the server makes a list of its own of every array that it unnests, and
// seventy of them cost it more than the rows of one submission.
macro_rules! row_type {
    ($row:ident, $name:literal) => {
        impl sqlx::Type<Postgres> for $row<'_> {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_name($name)
            }
        }
        impl PgHasArrayType for $row<'_> {
            fn array_type_info() -> PgTypeInfo {
                PgTypeInfo::array_of($name)
            }
        }
    };
}
row_type!(NewTicket, "intake_ticket");
row_type!(NewEvent, "intake_event");

/// Everything that a batch writes once its numbers are known. `numbers` and `grown` are in the order
/// of their keys: it is the order of the locks.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is a table's rows")]
pub struct Writes<'a> {
    pub numbers: Numbers,
    pub grown: Grown,
    pub tickets: Vec<NewTicket<'a>>,
    pub events: Vec<NewEvent<'a>>,
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

/// Writes a batch in one statement, which is a transaction by itself outside of one: all of it, or
/// nothing where something is no longer as [`look`] saw it. False when a guess was wrong, which
/// costs no more than the look would have; overtaken when it was wrong of one register of several.
///
/// # Errors
/// [`StoreError`]; see [`StoreError::is_overtaken`] for what was seen and no longer holds.
pub async fn write(
    db: &mut PgConnection,
    writes: &Writes<'_>,
    basis: Basis,
) -> Result<bool, StoreError> {
    let Writes { numbers: n, grown: g, tickets, events } = writes;
    if events.is_empty() {
        return Ok(true);
    }
    let guessed = basis == Basis::Guessed;
    // The guards stand first in the result, so they are computed first, in this order; what only
    // inserts follows, and its unique keys are guards as well.
    let kept = sqlx::query_scalar!(
        r#"
        WITH happened AS MATERIALIZED (
            SELECT * FROM unnest($12::intake_event[])
        ), opened AS MATERIALIZED (
            SELECT * FROM unnest($11::intake_ticket[])
        ), numbers AS (
            UPDATE register r SET last = i.last + i.count
            FROM unnest($1::int[], $2::int[], $3::int[], $4::int[], $14::bigint[])
                AS i(office_id, year, last, count, turns)
            WHERE r.office_id = i.office_id AND r.year = i.year AND r.last = i.last
              AND r.turns = i.turns
              AND (NOT $13::boolean OR NOT (
                  EXISTS (SELECT FROM happened i
                          JOIN inbound b ON b.office_id = i.office_id AND b.source = i.source
                              AND b.source_id = i.source_id)
                  OR EXISTS (SELECT FROM opened i
                             JOIN ticket t ON t.office_id = i.office_id AND t.thread = i.thread
                                 AND t.is_open AND t.grows AND t.thread IS NOT NULL)
                  OR EXISTS (SELECT FROM opened i
                             JOIN conversation c ON c.office_id = i.office_id
                                 AND c.thread = i.thread)))
            RETURNING 1
        ), sure AS MATERIALIZED (
            SELECT NOT $13::boolean OR (SELECT count(*) FROM numbers) = cardinality($1) AS yes
        ), grown AS (
            UPDATE ticket SET urgency = i.urgency, events = i.events, chain = i.chain,
                citizen_name = coalesce(i.name, citizen_name),
                citizen_phone = coalesce(i.phone, citizen_phone),
                -- What began without words has its name from the first that come.
                problem = CASE WHEN ticket.problem LIKE '〔__〕' THEN coalesce(i.problem, ticket.problem)
                               ELSE ticket.problem END,
                growth_told_at = coalesce(i.growth_told_at, ticket.growth_told_at),
                material_came_at = CASE WHEN ticket.state = 'awaiting_citizen' THEN i.came_at END
            FROM unnest($5::int[], $6::bigint[], $7::smallint[], $8::int[], $9::int[],
                $10::bytea[], $15::text[], $16::text[], $17::text[], $18::timestamptz[],
                $19::timestamptz[])
                AS i(office_id, ticket, urgency, was, events, chain, name, phone, problem,
                    growth_told_at, came_at)
            WHERE ticket.office_id = i.office_id AND ticket.ticket = i.ticket
              AND ticket.events = i.was AND is_open
            RETURNING 1
        ), tickets AS (
            INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, citizen_name,
                citizen_phone, thread, registered_at, accepted_at, follow_up_at, due_at,
                provisional, needs_year, calendar_version, accountable, events, chain)
            SELECT office_id, ticket, channel, state, urgency, problem, citizen_name,
                citizen_phone, thread, registered_at, accepted_at, follow_up_at, due_at,
                provisional, needs_year, calendar_version, accountable, events, chain
            FROM opened WHERE (SELECT yes FROM sure)
        ), timers AS (
            INSERT INTO timer (office_id, ticket, kind, gen, state, due_at)
            SELECT office_id, ticket, i.kind, 1, 0, i.at FROM opened CROSS JOIN LATERAL (
                VALUES (1, follow_up_at), (2, warn_at), (3, opened.due_at)) AS i(kind, at)
            WHERE i.at IS NOT NULL AND (SELECT yes FROM sure)
        ), events AS (
            INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
            SELECT office_id, ticket, seq, at, actor, kind, data::json, hash
            FROM happened WHERE (SELECT yes FROM sure)
        ), messages AS (
            INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, attachments,
                raw, sent_order, words_at)
            SELECT office_id, ticket, seq, occurred_at, at, text, attachments, raw, sent_order,
                words_at
            FROM happened WHERE raw IS NOT NULL AND (SELECT yes FROM sure)
        ), media AS (
            INSERT INTO media (office_id, ticket, seq, n, kind, source, reference, state,
                received_at, expires_at, next_try_at)
            SELECT office_id, ticket, seq, (a.n - 1)::smallint, a.one ->> 'kind', source,
                a.one ->> 'reference', 'waiting', at,
                CASE WHEN source LIKE 'wechat:%' THEN at + interval '3 days' END,
                CASE WHEN source LIKE 'wechat:%' THEN at END
            FROM happened
            CROSS JOIN LATERAL jsonb_array_elements(attachments) WITH ORDINALITY AS a(one, n)
            WHERE attachments IS NOT NULL AND source <> 'split' AND (SELECT yes FROM sure)
              AND a.one ->> 'kind' IN ('image', 'voice', 'video')
        ), inbound AS (
            INSERT INTO inbound (office_id, source, source_id, digest, received_at, ticket, seq,
                appended, follow_up_at, due_at, provisional, asks, stood)
            SELECT office_id, source, source_id, digest, at, ticket, seq, appended, follow_up_at,
                due_at, provisional, asks, stood
            FROM happened WHERE source_id IS NOT NULL AND (SELECT yes FROM sure)
        ), effects AS (
            INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
            SELECT office_id, effect, ticket, effect_urgent, coalesce(effect_data, '{}'), at,
                effect_not_before
            FROM happened WHERE effect IS NOT NULL AND (SELECT yes FROM sure)
        )
        SELECT CASE WHEN (SELECT yes FROM sure)
               THEN as_expected('register', (SELECT count(*) FROM numbers), cardinality($1))
                    AND as_expected('ticket', (SELECT count(*) FROM grown), cardinality($5))
               -- A guess that was wrong of one register and right of another must leave no gap.
               ELSE NOT as_expected('register', (SELECT count(*) FROM numbers), 0)
               END AS "kept!"
        "#,
        &n.office,
        &n.year,
        &n.last,
        &n.count,
        &g.office,
        &g.ticket,
        &g.urgency,
        &g.was,
        &g.events,
        &g.chain as &[[u8; 32]],
        tickets as _,
        events as _,
        guessed,
        &n.turns,
        &g.name as &[Option<String>],
        &g.phone as &[Option<String>],
        &g.problem as &[Option<String>],
        &g.growth_told_at as &[Option<DateTime<Utc>>],
        &g.came_at,
    )
    .fetch_one(db)
    .await?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::{NewEvent, words_at};
    use proptest::prelude::*;

    #[test]
    fn words_that_stand_in_the_original_are_found_there() {
        let raw = "<Content>路灯坏了三天</Content>".as_bytes();
        assert_eq!(words_at("路灯坏了三天", raw), Some(9));
    }

    #[test]
    fn what_does_not_stand_in_it_as_it_is_is_not() {
        for (text, raw) in [
            ("路灯坏了&三天", "路灯坏了&amp;三天".as_bytes()),
            ("", b"<Content></Content>"),
            ("短", "短".as_bytes()),
            ("路灯坏了三天", b"\xff\xfe"),
        ] {
            assert_eq!(words_at(text, raw), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_original_can_be_put_together_again(
            before in "(\\PC{0,3}|a{0,30})", text in "(\\PC{0,40}|a{0,60})", after in "(\\PC{0,3}|a{0,30})"
        ) {
            let raw = format!("{before}{text}{after}");
            let mut event = NewEvent::default();
            event.with_message(&text, raw.as_bytes(), words_at(&text, raw.as_bytes()));
            let mut whole = event.raw.unwrap();
            if let Some(at) = event.words_at {
                let at = usize::try_from(at).unwrap();
                whole.splice(at..at, text.bytes());
            }
            prop_assert_eq!(whole, raw.into_bytes());
        }
    }
}

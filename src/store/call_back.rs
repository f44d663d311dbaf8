//! Whom somebody has to call back. Rows come and go with calls and tickets by the database's triggers
//! (migrations/0019_call_back.sql); here they are read, and changed by a try.

use super::{StoreError, bad, number};
use crate::domain::{
    call_back::{CallBack, State},
    id::OfficeId,
    register::RegisterNumber,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

struct Row {
    state: String,
    tries: i16,
    next_try_at: DateTime<Utc>,
    counts_from: Option<DateTime<Utc>>,
    last_counted: bool,
}

impl TryFrom<Row> for CallBack {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            state: State::parse(&row.state).ok_or(bad("call_back", "state"))?,
            tries: row.tries.into(),
            next_try_at: row.next_try_at,
            counts_from: row.counts_from,
            last_counted: row.last_counted,
        })
    }
}

/// A ticket's call back; `None` where nobody called.
///
/// # Errors
/// [`StoreError`].
pub async fn read(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<CallBack>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT state, tries, next_try_at, counts_from, last_counted FROM call_back
         WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    row.map(CallBack::try_from).transpose()
}

/// What it has become. The caller holds the ticket's lock; another call may have come since it was
/// read, and is counted by its trigger.
///
/// # Errors
/// [`StoreError`].
pub async fn write(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    now: &CallBack,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE call_back SET state = $3, tries = $4, next_try_at = $5, counts_from = $6,
             last_counted = $7
         WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64(),
        now.state.as_str(),
        i16::try_from(now.tries).unwrap_or(i16::MAX),
        now.next_try_at,
        now.counts_from,
        now.last_counted
    )
    .execute(db)
    .await?;
    super::changed("call_back", &done, 1)
}

/// A line of the list.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of call_back and ticket")]
pub struct Line {
    pub ticket: RegisterNumber,
    pub withheld: bool,
    pub urgent: bool,
    pub due_at: DateTime<Utc>,
    pub calls: i32,
    pub waits_since: DateTime<Utc>,
    pub next_try_at: DateTime<Utc>,
    pub tries: i32,
    pub name: Option<String>,
    pub phone: Option<String>,
    pub problem: String,
    pub state: String,
    pub accountable: Option<String>,
}

/// The three parts of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To be called now: emergencies first, then whose limit falls first, then who waits longest.
    Now,
    /// Tried, and not to be tried before its time: the next one first.
    Later,
    /// Nobody can call them: the longest first.
    Withheld,
}

macro_rules! lines {
    ($from:literal, $order:literal, $($arguments:expr),+) => {
        sqlx::query!(
            r#"SELECT b.ticket AS "ticket!", b.state AS "wait!", b.urgency AS "urgency!",
                      b.due_at AS "due_at!", b.calls AS "calls!", b.waits_since AS "waits_since!",
                      b.next_try_at AS "next_try_at!", b.tries AS "tries!", citizen_name,
                      citizen_phone, problem AS "problem!", t.state AS "state!",
                      (SELECT name FROM staff s WHERE s.office_id = $1
                         AND s.staff_id = t.accountable) AS accountable
               FROM ("# + $from + ") b
               CROSS JOIN LATERAL (
                   SELECT citizen_name, citizen_phone, problem, state, accountable FROM ticket t
                   WHERE t.office_id = $1 AND t.ticket = b.ticket LIMIT 1) t
               ORDER BY " + $order,
            $($arguments),+
        )
    };
}

macro_rules! read_lines {
    ($db:ident, $($query:tt)+) => {
        lines!($($query)+)
            .fetch_all($db)
            .await?
            .into_iter()
            .map(|row| {
                Ok(Line {
                    ticket: number(row.ticket)?,
                    withheld: row.wait == "withheld",
                    urgent: row.urgency == 0,
                    due_at: row.due_at,
                    calls: row.calls,
                    waits_since: row.waits_since,
                    next_try_at: row.next_try_at,
                    tries: row.tries.into(),
                    name: row.citizen_name,
                    phone: row.citizen_phone,
                    problem: row.problem,
                    state: row.state,
                    accountable: row.accountable,
                })
            })
            .collect()
    };
}

/// The first lines of a part of the list.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    db: &mut PgConnection,
    office: OfficeId,
    part: Part,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Line>, StoreError> {
    match part {
        Part::Now => read_lines!(
            db,
            "SELECT * FROM call_back
             WHERE office_id = $1 AND state = 'waiting' AND next_try_at <= $2
             ORDER BY urgency, due_at, waits_since, ticket LIMIT $3",
            "b.urgency, b.due_at, b.waits_since, b.ticket",
            office.0,
            now,
            limit
        ),
        Part::Later => read_lines!(
            db,
            "SELECT * FROM call_back
             WHERE office_id = $1 AND state = 'waiting' AND next_try_at > $2
             ORDER BY next_try_at, ticket LIMIT $3",
            "b.next_try_at, b.ticket",
            office.0,
            now,
            limit
        ),
        Part::Withheld => read_lines!(
            db,
            "SELECT * FROM call_back WHERE office_id = $1 AND state = 'withheld'
             ORDER BY waits_since, ticket LIMIT $2",
            "b.waits_since, b.ticket",
            office.0,
            limit
        ),
    }
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the parts")]
pub struct Counts {
    pub now: i64,
    pub later: i64,
    pub withheld: i64,
    /// Whom to telephone because nothing else arrived.
    pub replies: i64,
}

/// How many there are in each part.
///
/// # Errors
/// [`StoreError`].
pub async fn counts(
    db: &mut PgConnection,
    office: OfficeId,
    now: DateTime<Utc>,
) -> Result<Counts, StoreError> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM call_back WHERE office_id = $1 AND state = 'waiting') AS "waiting!",
                  (SELECT count(*) FROM call_back WHERE office_id = $1 AND state = 'waiting'
                     AND next_try_at > $2) AS "later!",
                  (SELECT count(*) FROM call_back WHERE office_id = $1 AND state = 'withheld') AS "withheld!",
                  (SELECT count(*) FROM reply WHERE office_id = $1 AND state = 'call') AS "replies!""#,
        office.0,
        now
    )
    .fetch_one(db)
    .await?;
    let (later, withheld, replies) = (row.later, row.withheld, row.replies);
    Ok(Counts { now: row.waiting - later, later, withheld, replies })
}

/// Tickets of which the citizen has to be told something by telephone, the oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn to_tell(
    db: &mut PgConnection,
    office: OfficeId,
    limit: i64,
) -> Result<Vec<(RegisterNumber, DateTime<Utc>)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT ticket, created_at FROM reply WHERE office_id = $1 AND state = 'call'
         ORDER BY ticket, reply_id LIMIT $2",
        office.0,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((number(row.ticket)?, row.created_at))).collect()
}

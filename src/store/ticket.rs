//! One ticket: reading it whole, and changing it under lock.

use super::{StoreError, bad, number, queue, queue::QueueRow};
use crate::domain::{
    chain::{Entry, Link},
    event::{Actor, Happened},
    id::{OfficeId, StaffId},
    level::Level,
    register::RegisterNumber,
    ticket::{State, Ticket},
};
use chrono::{DateTime, Utc};
use intake_contract::Attachment;
use sqlx::PgConnection;

/// A message as it is shown.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of message")]
pub struct MessageRow {
    pub seq: i32,
    pub occurred_at: DateTime<Utc>,
    pub received_at: DateTime<Utc>,
    pub text: String,
    pub attachments: Vec<Attachment>,
}

/// An event as it is shown.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of event and staff")]
pub struct EventRow {
    pub seq: i32,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub actor_name: Option<String>,
    pub kind: String,
    pub data: String,
}

/// A ticket with everything that hangs on it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the tables of the ticket")]
pub struct Whole {
    pub row: QueueRow,
    pub messages: Vec<MessageRow>,
    pub events: Vec<EventRow>,
}

/// Reads a ticket whole; `None` when there is none of this number.
///
/// # Errors
/// [`StoreError`].
pub async fn whole(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<Whole>, StoreError> {
    let row = sqlx::query_as!(
        queue::Row,
        r#"SELECT ticket, channel, state, level, urgency, overdue, problem, citizen_name, citizen_phone,
                  registered_at, accepted_at, follow_up_at, due_at, provisional, staff.name AS "accountable?"
           FROM ticket LEFT JOIN staff
             ON staff.office_id = ticket.office_id AND staff.staff_id = ticket.accountable
           WHERE ticket.office_id = $1 AND ticket = $2"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let row = QueueRow::try_from(row)?;
    // By the citizen's clock, then as they came: delivery order is not guaranteed.
    let messages = sqlx::query!(
        "SELECT seq, occurred_at, received_at, text, attachments FROM message
         WHERE office_id = $1 AND ticket = $2 ORDER BY occurred_at, seq",
        office.0,
        ticket.as_i64()
    )
    .fetch_all(&mut *db)
    .await?;
    let messages = messages
        .into_iter()
        .map(|row| {
            let attachments = match row.attachments {
                Some(json) => {
                    serde_json::from_value(json).map_err(|_| bad("message", "attachments"))?
                }
                None => Vec::new(),
            };
            Ok(MessageRow {
                seq: row.seq,
                occurred_at: row.occurred_at,
                received_at: row.received_at,
                text: row.text,
                attachments,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    let events = sqlx::query_as!(
        EventRow,
        r#"SELECT seq, at, actor, staff.name AS "actor_name?", kind, data::text AS "data!"
           FROM event LEFT JOIN staff ON staff.office_id = event.office_id
                AND actor = 'staff:' || staff.staff_id
           WHERE event.office_id = $1 AND ticket = $2 ORDER BY seq"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_all(db)
    .await?;
    Ok(Some(Whole { row, messages, events }))
}

/// A ticket under lock, to be changed and written back with what happened.
#[derive(Debug)]
pub struct Locked {
    /// Whose.
    pub office: OfficeId,
    /// Which.
    pub number: RegisterNumber,
    /// As it stands; change it through its transitions.
    pub ticket: Ticket,
    /// When it was entered.
    pub registered_at: DateTime<Utc>,
    /// R6.
    pub accepted_at: DateTime<Utc>,
    /// R5.2.
    pub follow_up_at: Option<DateTime<Utc>>,
    /// With which calendar its dates were computed.
    pub calendar_version: i32,
    thread: Option<String>,
    events: i32,
    chain: Link,
}

/// Locks a ticket and, before it, its thread; `None` when there is none of this number.
///
/// # Errors
/// [`StoreError`].
pub async fn lock(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<Locked>, StoreError> {
    sqlx::query!(
        "SELECT 1 AS one FROM thread WHERE office_id = $1 AND thread =
            (SELECT thread FROM ticket WHERE office_id = $1 AND ticket = $2) FOR UPDATE",
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(&mut *db)
    .await?;
    let row = sqlx::query!(
        r#"SELECT state_data || jsonb_build_object('state', state) AS "state!", level, due_at,
                  provisional, accountable, cause, overdue, registered_at, accepted_at,
                  follow_up_at, calendar_version, thread, events, chain
           FROM ticket WHERE office_id = $1 AND ticket = $2 FOR UPDATE"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state: State =
        serde_json::from_value(row.state).map_err(|_| bad("ticket", "state_data"))?;
    let cause = row.cause.map(|cause| serde_json::from_value(cause.into()));
    Ok(Some(Locked {
        office,
        number: ticket,
        ticket: Ticket {
            state,
            level: Level::from_number(row.level).ok_or(bad("ticket", "level"))?,
            due_at: row.due_at,
            provisional: row.provisional,
            accountable: row.accountable.map(StaffId),
            cause: cause.transpose().map_err(|_| bad("ticket", "cause"))?,
            overdue: row.overdue,
        },
        registered_at: row.registered_at,
        accepted_at: row.accepted_at,
        follow_up_at: row.follow_up_at,
        calendar_version: row.calendar_version,
        thread: row.thread,
        events: row.events,
        chain: Link(row.chain.try_into().map_err(|_| bad("ticket", "chain"))?),
    }))
}

/// Writes a changed ticket back with its event; lets go of the citizen's thread when it closed.
///
/// # Errors
/// [`StoreError`].
pub async fn write(
    db: &mut PgConnection,
    locked: &mut Locked,
    actor: Actor,
    happened: &Happened,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (kind, data) = happened.stored();
    let actor = actor.stored();
    let seq = locked.events + 1;
    let entry = Entry {
        office: locked.office,
        ticket: locked.number,
        seq,
        at,
        actor: &actor,
        kind: &kind,
        data: &data,
    };
    let link = entry.link(locked.chain);
    sqlx::query!(
        "INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::json, $8)",
        locked.office.0,
        locked.number.as_i64(),
        seq,
        at,
        actor,
        kind,
        data,
        link.0.as_slice()
    )
    .execute(&mut *db)
    .await?;
    let Ticket { state, level, due_at, provisional, accountable, cause, overdue } = &locked.ticket;
    let mut state_data = serde_json::to_value(state).map_err(|_| bad("ticket", "state_data"))?;
    if let Some(fields) = state_data.as_object_mut() {
        fields.remove("state");
    }
    let outcome = match state {
        State::Resolved { outcome, .. }
        | State::Evaluated { outcome, .. }
        | State::Closed { outcome, .. } => serde_json::to_value(outcome)
            .ok()
            .and_then(|value| value.get("outcome").and_then(|o| o.as_str()).map(str::to_owned)),
        _ => None,
    };
    let cause = cause
        .and_then(|cause| serde_json::to_value(cause).ok())
        .and_then(|value| value.as_str().map(str::to_owned));
    let done = sqlx::query!(
        "UPDATE ticket SET state = $3, state_data = $4, level = $5, due_at = $6, provisional = $7,
            accountable = $8, cause = $9, overdue = $10, outcome = $11, events = $12, chain = $13,
            calendar_version = $14
         WHERE office_id = $1 AND ticket = $2 AND events = $12 - 1",
        locked.office.0,
        locked.number.as_i64(),
        state.name(),
        state_data,
        level.number(),
        due_at,
        provisional,
        accountable.map(|id| id.0),
        cause,
        overdue,
        outcome,
        seq,
        link.0.as_slice(),
        locked.calendar_version
    )
    .execute(&mut *db)
    .await?;
    super::changed("ticket", &done, 1)?;
    locked.events = seq;
    locked.chain = link;
    if let (State::Closed { .. }, Some(thread)) = (state, &locked.thread) {
        sqlx::query!(
            "UPDATE thread SET open_ticket = NULL
             WHERE office_id = $1 AND thread = $2 AND open_ticket = $3",
            locked.office.0,
            thread,
            locked.number.as_i64()
        )
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Open tickets after this one whose dates were computed with another calendar.
///
/// # Errors
/// [`StoreError`].
pub async fn open_with_older_calendar(
    db: &mut PgConnection,
    office: OfficeId,
    version: i32,
    after: Option<RegisterNumber>,
    limit: i64,
) -> Result<Vec<RegisterNumber>, StoreError> {
    let rows = sqlx::query_scalar!(
        "SELECT ticket FROM ticket WHERE office_id = $1 AND is_open AND calendar_version <> $2
            AND ticket > $3 ORDER BY ticket LIMIT $4",
        office.0,
        version,
        after.map_or(0, RegisterNumber::as_i64),
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(number).collect()
}

/// Notes that a ticket's dates stand whatever the calendar of this version says.
///
/// # Errors
/// [`StoreError`].
pub async fn seen_calendar(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    version: i32,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE ticket SET calendar_version = $3 WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64(),
        version
    )
    .execute(db)
    .await?;
    super::changed("ticket", &done, 1)
}

/// Dates beside the limit.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of ticket")]
pub struct Dates {
    pub accepted_at: DateTime<Utc>,
    pub follow_up_at: Option<DateTime<Utc>>,
    pub needs_year: Option<i32>,
}

/// Sets the dates that a changed calendar moved; the trail has been written.
///
/// # Errors
/// [`StoreError`].
pub async fn set_dates(
    db: &mut PgConnection,
    locked: &Locked,
    dates: &Dates,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE ticket SET accepted_at = $3, follow_up_at = $4, needs_year = $5,
            calendar_version = $6, provisional = $7
         WHERE office_id = $1 AND ticket = $2",
        locked.office.0,
        locked.number.as_i64(),
        dates.accepted_at,
        dates.follow_up_at,
        dates.needs_year,
        locked.calendar_version,
        locked.ticket.provisional
    )
    .execute(db)
    .await?;
    super::changed("ticket", &done, 1)
}

/// When the ticket entered its level; `None` while it is where it began.
///
/// # Errors
/// [`StoreError`].
pub async fn entered_level_at(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT max(at) FROM event WHERE office_id = $1 AND ticket = $2 AND kind = 'raised'",
        office.0,
        ticket.as_i64()
    )
    .fetch_one(db)
    .await?)
}

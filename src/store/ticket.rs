//! One ticket: reading it whole, and changing it under lock.

pub mod amend;

use super::{StoreError, bad, number, queue, queue::QueueRow};
use crate::domain::{
    chain::{Entry, Link},
    event::{Actor, Happened},
    id::{OfficeId, StaffId, UnitId},
    level::Level,
    register::RegisterNumber,
    ticket::{Cause, State, Ticket},
};
use chrono::{DateTime, Utc};
use intake_contract::Attachment;
use sqlx::PgConnection;
use std::collections::BTreeMap;

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
    /// `None` for a row that the domain cannot read: it is shown, and nothing can be done to it.
    pub state: Option<State>,
    pub cause: Option<Cause>,
    /// From when its limits run, where that is no longer acceptance.
    pub runs_from: Option<DateTime<Utc>>,
    /// Whether something came since it was asked for, while it waits for the citizen.
    pub material_came: bool,
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
    let Some(row) = queue::by_number(db, office, ticket).await? else { return Ok(None) };
    let stands = sqlx::query!(
        "SELECT state, state_data, cause, runs_from, material_came_at FROM ticket
         WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .fetch_one(&mut *db)
    .await?;
    let events = sqlx::query_as!(
        EventRow,
        r#"SELECT seq, at, actor, staff.name AS "actor_name?", kind, data::text AS "data!"
           FROM event LEFT JOIN staff ON staff.office_id = event.office_id
                AND actor = 'staff:' || staff.staff_id
           WHERE event.office_id = $1 AND ticket = $2 ORDER BY seq"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_all(&mut *db)
    .await?;
    // After the events: what came in between is shown, and not taken for seen.
    let messages = messages(db, office, ticket).await?;
    Ok(Some(Whole {
        row,
        state: state(&stands.state, stands.state_data).ok(),
        cause: cause(stands.cause)?,
        runs_from: stands.runs_from,
        material_came: stands.material_came_at.is_some(),
        messages,
        events,
    }))
}

/// A ticket's messages: by the citizen's clock, then as they came, for delivery order is not
/// guaranteed.
///
/// # Errors
/// [`StoreError`].
pub async fn messages(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Vec<MessageRow>, StoreError> {
    let messages = sqlx::query!(
        "SELECT seq, occurred_at, received_at, text, attachments FROM message
         WHERE office_id = $1 AND ticket = $2 ORDER BY occurred_at, sent_order, seq",
        office.0,
        ticket.as_i64()
    )
    .fetch_all(db)
    .await?;
    messages
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
        .collect()
}

fn cause(stored: Option<String>) -> Result<Option<Cause>, StoreError> {
    let cause = stored.map(|cause| serde_json::from_value(cause.into()));
    cause.transpose().map_err(|_| bad("ticket", "cause"))
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
    /// Whose notice its dates still wait for.
    pub needs_year: Option<i32>,
    /// With which calendar its dates were computed.
    pub calendar_version: i32,
    /// RD3.2.
    pub urgent: bool,
    /// Which citizen's messages it grows by.
    pub thread: Option<String>,
    events: i32,
    chain: Link,
}

/// Locks a ticket; `None` when there is none of this number.
///
/// # Errors
/// [`StoreError`].
pub async fn lock(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<Locked>, StoreError> {
    let row = sqlx::query_as!(
        LockedRow,
        r#"SELECT ticket, state_data || jsonb_build_object('state', state) AS "state!", level,
                  due_at, provisional, accountable, unit, cause, overdue, registered_at, accepted_at,
                  follow_up_at, needs_year, calendar_version, urgency, thread, runs_from, events, chain
           FROM ticket WHERE office_id = $1 AND ticket = $2 FOR UPDATE"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| row.read(office)).transpose()
}

struct LockedRow {
    ticket: i64,
    state: serde_json::Value,
    level: i16,
    due_at: DateTime<Utc>,
    provisional: bool,
    accountable: Option<i32>,
    unit: Option<i32>,
    cause: Option<String>,
    overdue: bool,
    registered_at: DateTime<Utc>,
    accepted_at: DateTime<Utc>,
    follow_up_at: Option<DateTime<Utc>>,
    needs_year: Option<i32>,
    calendar_version: i32,
    urgency: i16,
    thread: Option<String>,
    runs_from: Option<DateTime<Utc>>,
    events: i32,
    chain: Vec<u8>,
}

impl LockedRow {
    fn read(self, office: OfficeId) -> Result<Locked, StoreError> {
        let state: State =
            serde_json::from_value(self.state).map_err(|_| bad("ticket", "state_data"))?;
        Ok(Locked {
            office,
            number: number(self.ticket)?,
            ticket: Ticket {
                state,
                level: Level::from_number(self.level).ok_or(bad("ticket", "level"))?,
                due_at: self.due_at,
                provisional: self.provisional,
                accountable: self.accountable.map(StaffId),
                unit: self.unit.map(UnitId),
                cause: cause(self.cause)?,
                overdue: self.overdue,
                runs_from: self.runs_from,
            },
            registered_at: self.registered_at,
            accepted_at: self.accepted_at,
            follow_up_at: self.follow_up_at,
            needs_year: self.needs_year,
            calendar_version: self.calendar_version,
            urgent: self.urgency == 0,
            thread: self.thread,
            events: self.events,
            chain: Link(self.chain.try_into().map_err(|_| bad("ticket", "chain"))?),
        })
    }
}

impl Locked {
    /// The number of its newest event.
    #[must_use]
    pub fn events(&self) -> i32 {
        self.events
    }

    /// Takes the next place in the trail for an event.
    fn append(&mut self, actor: &str, kind: &str, data: &str, at: DateTime<Utc>) {
        self.events += 1;
        let (office, ticket, seq) = (self.office, self.number, self.events);
        self.chain = Entry { office, ticket, seq, at, actor, kind, data }.link(self.chain);
    }
}

/// Writes a changed ticket back with its event.
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
    locked.append(&actor, &kind, &data, at);
    let (seq, link) = (locked.events, locked.chain);
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
    let Ticket { state, level, due_at, provisional, accountable, unit, cause, overdue, runs_from } =
        &locked.ticket;
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
            calendar_version = $14, unit = $15, runs_from = $16,
            material_came_at = CASE WHEN $17 THEN NULL ELSE material_came_at END
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
        locked.calendar_version,
        unit.map(|id| id.0),
        *runs_from,
        // Asked for anew: what came before is not it.
        matches!(happened, Happened::AwaitingCitizen { .. })
    )
    .execute(&mut *db)
    .await?;
    super::changed("ticket", &done, 1)?;
    Ok(())
}

/// A ticket's state from its two columns.
pub(super) fn state(name: &str, mut data: serde_json::Value) -> Result<State, StoreError> {
    let wrong = bad("ticket", "state_data");
    match data.as_object_mut() {
        Some(fields) => fields.insert("state".to_owned(), name.into()),
        None => return Err(wrong),
    };
    serde_json::from_value(data).map_err(|_| wrong)
}

/// The last event of a kind that each of these tickets has, and when it was.
async fn last_of_kind(
    db: &mut PgConnection,
    office: OfficeId,
    tickets: &[i64],
    kind: &str,
) -> Result<BTreeMap<i64, (DateTime<Utc>, Option<Happened>)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT DISTINCT ON (e.ticket) e.ticket, at, kind, data::text AS "data!"
           FROM unnest($2::bigint[]) AS i(ticket)
           JOIN event e ON e.office_id = $1 AND e.ticket = i.ticket
           WHERE kind = $3 ORDER BY e.ticket, seq DESC"#,
        office.0,
        tickets,
        kind
    )
    .fetch_all(db)
    .await?;
    let last = rows.into_iter().map(|row| {
        let happened = Happened::read(&row.kind, &row.data);
        (row.ticket, (row.at, happened))
    });
    Ok(last.collect())
}

/// When these tickets entered their levels; those that are where they began are not among them.
///
/// # Errors
/// [`StoreError`].
pub async fn entered_level_at(
    db: &mut PgConnection,
    office: OfficeId,
    tickets: &[i64],
) -> Result<BTreeMap<i64, DateTime<Utc>>, StoreError> {
    let raised = last_of_kind(db, office, tickets, "raised").await?;
    let entered = raised.into_iter().map(|(ticket, (at, happened))| match happened {
        Some(Happened::Raised { entered_at: Some(entered), .. }) => (ticket, entered),
        _ => (ticket, at),
    });
    Ok(entered.collect())
}

/// What happened to a ticket after one of its events, in order, with who did it; what another
/// version of the program wrote reads as `None`.
///
/// # Errors
/// [`StoreError`].
pub async fn happened_after(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    seq: i32,
) -> Result<Vec<(String, Option<Happened>)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT actor, kind, data::text AS "data!" FROM event
           WHERE office_id = $1 AND ticket = $2 AND seq > $3 ORDER BY seq"#,
        office.0,
        ticket.as_i64(),
        seq
    )
    .fetch_all(db)
    .await?;
    let happened = rows.into_iter().map(|row| {
        let happened = Happened::read(&row.kind, &row.data);
        (row.actor, happened)
    });
    Ok(happened.collect())
}

/// When a ticket last began to wait for the citizen, and when it last went on before.
///
/// # Errors
/// [`StoreError`].
pub async fn last_pause(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<(Option<DateTime<Utc>>, Option<DateTime<Utc>>), StoreError> {
    let key = [ticket.as_i64()];
    let paused = last_of_kind(db, office, &key, "awaiting_citizen").await?;
    let resumed = last_of_kind(db, office, &key, "resumed").await?;
    let at = |last: &BTreeMap<i64, (DateTime<Utc>, Option<Happened>)>| {
        last.values().next().map(|(at, _)| *at)
    };
    Ok((at(&paused), at(&resumed)))
}

/// Writes an effect on the outside, in the transaction that decided it.
///
/// # Errors
/// [`StoreError`].
pub async fn tell(
    db: &mut PgConnection,
    (office, ticket): (OfficeId, RegisterNumber),
    kind: &str,
    urgent: bool,
    data: &serde_json::Value,
    (at, not_before): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        office.0,
        kind,
        ticket.as_i64(),
        urgent,
        data,
        at,
        not_before
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A ticket takes over what another one, which ended in its favour, had: its being an emergency, and
/// the citizen's messages, unless it grows by those of another thread. The caller holds both locks.
///
/// # Errors
/// [`StoreError`].
pub async fn take_over(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    ended: &Locked,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE ticket SET thread = coalesce(thread, $3), urgency = least(urgency, $4),
             grows = CASE WHEN thread IS NOT NULL THEN grows ELSE NOT EXISTS (
                 SELECT FROM ticket t WHERE t.office_id = $1 AND t.thread = $3 AND t.is_open
                     AND t.grows AND t.thread IS NOT NULL) END
         WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64(),
        ended.thread,
        if ended.urgent { 0_i16 } else { 1 }
    )
    .execute(&mut *db)
    .await?;
    super::changed("ticket", &done, 1)?;
    // It goes on where the citizen's messages grow: there is nothing closed to ask about.
    sqlx::query!(
        "UPDATE conversation SET closed_ticket = NULL, closed_at = NULL
         WHERE office_id = $1 AND closed_ticket = $3
             AND thread = (SELECT thread FROM ticket WHERE office_id = $1 AND ticket = $2)",
        office.0,
        ticket.as_i64(),
        ended.number.as_i64()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Says of a new ticket of whose messages it was made. It is the same citizen's, beside the one that
/// grows.
///
/// # Errors
/// [`StoreError`].
pub async fn spun_off(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    from: RegisterNumber,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "WITH first AS MATERIALIZED (
             SELECT thread FROM ticket WHERE office_id = $1 AND ticket = $3
         ), remembered AS (
             INSERT INTO conversation (office_id, thread, beside)
             SELECT $1, thread, true FROM first WHERE thread IS NOT NULL
             ON CONFLICT (office_id, thread) DO UPDATE SET beside = true
         )
         UPDATE ticket SET spun_off_from = $3, thread = first.thread, grows = false
         FROM first WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64(),
        from.as_i64()
    )
    .execute(db)
    .await?;
    super::changed("ticket", &done, 1)
}

/// A message with its original.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of message")]
pub struct Original {
    pub seq: i32,
    pub occurred_at: DateTime<Utc>,
    pub received_at: DateTime<Utc>,
    pub text: String,
    pub attachments: Option<serde_json::Value>,
    pub raw: Vec<u8>,
}

/// The messages of a ticket with these numbers, with their originals, in the order in which they
/// were said.
///
/// # Errors
/// [`StoreError`].
pub async fn originals(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    seqs: &[i32],
) -> Result<Vec<Original>, StoreError> {
    Ok(sqlx::query_as!(
        Original,
        r#"SELECT seq, occurred_at, received_at, text, attachments, original(m) AS "raw!"
           FROM message m WHERE office_id = $1 AND ticket = $2 AND seq = ANY($3)
           ORDER BY occurred_at, sent_order, seq"#,
        office.0,
        ticket.as_i64(),
        seqs
    )
    .fetch_all(db)
    .await?)
}

/// R7.2: what the form says of its citizen.
///
/// # Errors
/// [`StoreError`].
pub async fn correct_contact(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    (name, phone): (Option<&str>, Option<&str>),
) -> Result<(), StoreError> {
    // The index of words knows the ones before: it is entered anew, as who follows open tickets does.
    let done = sqlx::query!(
        "WITH searched AS (
             UPDATE ticket_search SET seq = 0, is_open = true
             WHERE office_id = $1 AND ticket = $2
         )
         UPDATE ticket SET citizen_name = $3, citizen_phone = $4
         WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64(),
        name,
        phone
    )
    .execute(db)
    .await?;
    super::changed("ticket", &done, 1)
}

/// Whether a ticket has exactly this name and telephone.
///
/// # Errors
/// [`StoreError`].
pub async fn has_contact(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    (name, phone): (Option<&str>, Option<&str>),
) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM ticket WHERE office_id = $1 AND ticket = $2
               AND citizen_name IS NOT DISTINCT FROM $3
               AND citizen_phone IS NOT DISTINCT FROM $4) AS "has!""#,
        office.0,
        ticket.as_i64(),
        name,
        phone
    )
    .fetch_one(db)
    .await?)
}

/// How many messages a ticket has.
///
/// # Errors
/// [`StoreError`].
pub async fn message_count(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM message WHERE office_id = $1 AND ticket = $2"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_one(db)
    .await?)
}

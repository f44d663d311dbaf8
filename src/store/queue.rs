//! The queue as pages and the API list it: most urgent first, by cursor.

use super::{StoreError, bad, number};
use crate::domain::{
    id::{OfficeId, StaffId},
    level::Level,
    register::RegisterNumber,
};
use chrono::{DateTime, Utc};
use intake_contract::ChannelKind;
use sqlx::PgConnection;

/// One line of the queue.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of ticket")]
pub struct QueueRow {
    pub ticket: RegisterNumber,
    pub channel: ChannelKind,
    pub state: String,
    pub level: Level,
    pub urgent: bool,
    pub overdue: bool,
    pub problem: String,
    pub citizen_name: Option<String>,
    pub citizen_phone: Option<String>,
    pub registered_at: DateTime<Utc>,
    pub accepted_at: DateTime<Utc>,
    pub follow_up_at: Option<DateTime<Utc>>,
    pub due_at: DateTime<Utc>,
    pub provisional: bool,
    pub accountable: Option<String>,
}

impl QueueRow {
    /// Where the next page starts.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            urgency: if self.urgent { 0 } else { 1 },
            due_at: self.due_at,
            ticket: self.ticket,
        }
    }
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of the queue's index")]
pub struct Cursor {
    pub urgency: i16,
    pub due_at: DateTime<Utc>,
    pub ticket: RegisterNumber,
}

impl Cursor {
    /// For a URL.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{}-{}-{}", self.urgency, self.due_at.timestamp_micros(), self.ticket.as_i64())
    }

    /// From a URL; `None` when it is none of ours.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let urgency: i16 = parts.next()?.parse().ok()?;
        let due_at = DateTime::from_timestamp_micros(parts.next()?.parse().ok()?)?;
        let ticket = RegisterNumber::from_i64(parts.next()?.parse().ok()?).ok()?;
        Some(Self { urgency, due_at, ticket })
    }
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this channel.
    pub channel: Option<ChannelKind>,
    /// Only this level.
    pub level: Option<Level>,
    /// Only what this person answers for.
    pub accountable: Option<StaffId>,
    /// Only what nobody has taken up.
    pub unclaimed: bool,
    /// Only what is due before this.
    pub due_before: Option<DateTime<Utc>>,
    /// Only what is due from this on.
    pub due_from: Option<DateTime<Utc>>,
    /// Only what is due before this, or nobody has taken up.
    pub to_do_before: Option<DateTime<Utc>>,
    /// Only what was resolved and waits for an evaluation.
    pub resolved: bool,
    /// Words in a message, the name or the telephone; or a part of a number as printed.
    pub words: Option<String>,
}

impl Filter {
    /// Whether a ticket that was asked for by number is of the channel and level asked for.
    #[must_use]
    pub fn allows(&self, row: &QueueRow) -> bool {
        self.channel.is_none_or(|channel| channel == row.channel)
            && self.level.is_none_or(|level| level == row.level)
    }
}

/// One page of the open queue.
///
/// # Errors
/// [`StoreError`].
pub async fn page(
    db: &mut PgConnection,
    office: OfficeId,
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<QueueRow>, StoreError> {
    let like = filter.words.as_deref().map(like_pattern);
    // `is_open` is spelled out in both statements: a parameter there would hide the partial index
    // from a generic plan (performance.md §4).
    let after = after.unwrap_or(Cursor {
        urgency: -1,
        due_at: DateTime::UNIX_EPOCH,
        ticket: RegisterNumber::new(1000, 1).map_err(|_| bad("ticket", "ticket"))?,
    });
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT ticket, channel, state, level, urgency, overdue, problem, citizen_name, citizen_phone,
                  registered_at, accepted_at, follow_up_at, due_at, provisional, staff.name AS "accountable?"
           FROM ticket LEFT JOIN staff
             ON staff.office_id = ticket.office_id AND staff.staff_id = ticket.accountable
           WHERE ticket.office_id = $1 AND is_open AND (urgency, due_at, ticket) > ($2, $3, $4)
             AND ($5::text IS NULL OR channel = $5)
             AND ($6::smallint IS NULL OR level = $6)
             AND ($7::int IS NULL OR accountable = $7)
             AND (NOT $8 OR accountable IS NULL)
             AND ($9::timestamptz IS NULL OR due_at < $9)
             AND (NOT $10 OR state = 'resolved')
             AND ($13::timestamptz IS NULL OR due_at >= $13)
             AND ($14::timestamptz IS NULL OR due_at < $14 OR accountable IS NULL)
             AND ($11::text IS NULL OR (ticket.ticket / 1000000000 || '-' || lpad((ticket.ticket % 1000000000)::text, greatest(6, length((ticket.ticket % 1000000000)::text)), '0')) LIKE $11 OR problem LIKE $11 OR citizen_name LIKE $11 OR citizen_phone LIKE $11
                  OR EXISTS (SELECT FROM message m WHERE m.office_id = ticket.office_id
                             AND m.ticket = ticket.ticket AND m.text LIKE $11))
           ORDER BY urgency, due_at, ticket LIMIT $12"#,
        office.0,
        after.urgency,
        after.due_at,
        after.ticket.as_i64(),
        filter.channel.map(ChannelKind::as_str),
        filter.level.map(Level::number),
        filter.accountable.map(|id| id.0),
        filter.unclaimed,
        filter.due_before,
        filter.resolved,
        like,
        limit,
        filter.due_from,
        filter.to_do_before
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(QueueRow::try_from).collect()
}

/// The ticket with this number, open or closed: who asks for a number wants that one.
///
/// # Errors
/// [`StoreError`].
pub async fn by_number(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<QueueRow>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT ticket, channel, state, level, urgency, overdue, problem, citizen_name, citizen_phone,
                  registered_at, accepted_at, follow_up_at, due_at, provisional, staff.name AS "accountable?"
           FROM ticket LEFT JOIN staff
             ON staff.office_id = ticket.office_id AND staff.staff_id = ticket.accountable
           WHERE ticket.office_id = $1 AND ticket = $2"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    row.map(QueueRow::try_from).transpose()
}

/// One page of what is closed, newest first, of the filter's channel and level; `before` is the
/// last number of the page before.
///
/// # Errors
/// [`StoreError`].
pub async fn closed_page(
    db: &mut PgConnection,
    office: OfficeId,
    filter: &Filter,
    before: Option<RegisterNumber>,
    limit: i64,
) -> Result<Vec<QueueRow>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT ticket, channel, state, level, urgency, overdue, problem, citizen_name, citizen_phone,
                  registered_at, accepted_at, follow_up_at, due_at, provisional, staff.name AS "accountable?"
           FROM ticket LEFT JOIN staff
             ON staff.office_id = ticket.office_id AND staff.staff_id = ticket.accountable
           WHERE ticket.office_id = $1 AND NOT is_open AND ticket < $2
             AND ($4::text IS NULL OR channel = $4)
             AND ($5::smallint IS NULL OR level = $5)
           ORDER BY ticket DESC LIMIT $3"#,
        office.0,
        before.map_or(i64::MAX, RegisterNumber::as_i64),
        limit,
        filter.channel.map(ChannelKind::as_str),
        filter.level.map(Level::number)
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(QueueRow::try_from).collect()
}

/// The counts of the saved views.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "named as the views")]
pub struct Counts {
    pub all: i64,
    pub today: i64,
    pub unclaimed: i64,
    pub mine: i64,
    pub call_back: i64,
    pub soon: i64,
    pub overdue: i64,
    pub resolved: i64,
}

/// Counts the open queue, once for all views.
///
/// # Errors
/// [`StoreError`].
pub async fn counts(
    db: &mut PgConnection,
    office: OfficeId,
    staff: StaffId,
    now: DateTime<Utc>,
    end_of_today: DateTime<Utc>,
    soon: DateTime<Utc>,
) -> Result<Counts, StoreError> {
    Ok(sqlx::query_as!(
        Counts,
        r#"SELECT count(*) AS "all!",
                  count(*) FILTER (WHERE due_at < $4 OR accountable IS NULL) AS "today!",
                  count(*) FILTER (WHERE accountable IS NULL) AS "unclaimed!",
                  count(*) FILTER (WHERE accountable = $2) AS "mine!",
                  count(*) FILTER (WHERE channel = 'hotline') AS "call_back!",
                  count(*) FILTER (WHERE due_at >= $3 AND due_at < $5) AS "soon!",
                  count(*) FILTER (WHERE due_at < $3) AS "overdue!",
                  count(*) FILTER (WHERE state = 'resolved') AS "resolved!"
           FROM ticket WHERE office_id = $1 AND is_open"#,
        office.0,
        staff.0,
        now,
        end_of_today,
        soon
    )
    .fetch_one(db)
    .await?)
}

/// Something that changes whenever an office's queue does: for live pages, cheap to ask.
///
/// # Errors
/// [`StoreError`].
pub async fn pulse(db: &mut PgConnection, office: OfficeId) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query!(
        r#"SELECT coalesce((SELECT max(year * 1000000000::bigint + last) FROM register WHERE office_id = $1), 0) AS "last!",
                  coalesce((SELECT max(outbox_id) FROM outbox WHERE office_id = $1), 0) AS "effects!""#,
        office.0
    )
    .fetch_one(db)
    .await?;
    Ok((row.last, row.effects))
}

fn like_pattern(words: &str) -> String {
    let mut pattern = String::from("%");
    for c in words.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// A row as it stands in the database.
pub(super) struct Row {
    pub(super) ticket: i64,
    pub(super) channel: String,
    pub(super) state: String,
    pub(super) level: i16,
    pub(super) urgency: i16,
    pub(super) overdue: bool,
    pub(super) problem: String,
    pub(super) citizen_name: Option<String>,
    pub(super) citizen_phone: Option<String>,
    pub(super) registered_at: DateTime<Utc>,
    pub(super) accepted_at: DateTime<Utc>,
    pub(super) follow_up_at: Option<DateTime<Utc>>,
    pub(super) due_at: DateTime<Utc>,
    pub(super) provisional: bool,
    pub(super) accountable: Option<String>,
}

impl TryFrom<Row> for QueueRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            ticket: number(row.ticket)?,
            channel: ChannelKind::parse(&row.channel).ok_or(bad("ticket", "channel"))?,
            state: row.state,
            level: Level::from_number(row.level).ok_or(bad("ticket", "level"))?,
            urgent: row.urgency == 0,
            overdue: row.overdue,
            problem: row.problem,
            citizen_name: row.citizen_name,
            citizen_phone: row.citizen_phone,
            registered_at: row.registered_at,
            accepted_at: row.accepted_at,
            follow_up_at: row.follow_up_at,
            due_at: row.due_at,
            provisional: row.provisional,
            accountable: row.accountable,
        })
    }
}

//! The queue as pages and the API list it: most urgent first, by cursor.

use super::{StoreError, bad, number};
use crate::domain::{
    id::{OfficeId, StaffId, UnitId},
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
    pub unit_id: Option<UnitId>,
    pub unit: Option<String>,
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
    /// In the order of the queue.
    #[must_use]
    pub fn key(&self) -> (i16, DateTime<Utc>, RegisterNumber) {
        (self.urgency, self.due_at, self.ticket)
    }

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
    /// Only what was referred to this unit last.
    pub unit: Option<UnitId>,
    /// Only what is in this state, by the state's name; or [`PRESSING`].
    pub state: Option<&'static str>,
    /// Only what nobody has taken up.
    pub unclaimed: bool,
    /// Only what is due before this.
    pub due_before: Option<DateTime<Utc>>,
    /// Only what is due from this on.
    pub due_from: Option<DateTime<Utc>>,
    /// Only what is due before this, or nobody has taken up.
    pub to_do_before: Option<DateTime<Utc>>,
}

/// In place of a state: what a limit runs for, whatever its state. What has a result and what waits
/// for the citizen is neither due soon nor late.
pub const PRESSING: &str = "pressing";

/// One page, and where the next one starts.
#[derive(Debug, Default)]
pub struct Page {
    /// In the order of the list; fewer than were asked for when it took too long to find more.
    pub rows: Vec<QueueRow>,
    /// `None` when the list has no more.
    pub next: Option<Cursor>,
}

/// So many of a list's tickets are looked at for one page: where no list is made for a filter, the
/// rest of it is on the pages after, so that none takes long.
pub const PAGE_LOOK: i64 = 500;

/// What one look at a list found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What fits, in order.
    pub(super) rows: Vec<QueueRow>,
    /// The last that was looked at, when there was no end to the list by then.
    pub(super) last: Option<Cursor>,
}

impl Looked {
    /// The last of as many rows as could be looked at comes also when it does not fit.
    pub(super) fn of(rows: Vec<Row>, look: i64) -> Result<Self, StoreError> {
        let mut looked = Self::default();
        for row in rows {
            let (fits, last) = (row.fits, row.n == look);
            let row = QueueRow::try_from(row)?;
            looked.last = last.then(|| row.cursor());
            if fits {
                looked.rows.push(row);
            }
        }
        Ok(looked)
    }
}

/// A part of the queue without gap, from a place on (itself left out) to an urgency and date.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) after: Cursor,
    pub(super) until: (i16, DateTime<Utc>),
}

/// Where in the queue the filter's dates lie: emergencies come first, so that dates make two
/// stretches. What is outside of them is not read.
pub(super) fn stretches(
    filter: &Filter,
    after: Option<Cursor>,
) -> Result<Vec<Stretch>, StoreError> {
    const LAST_SECOND: i64 = 253_402_300_799;
    let first = RegisterNumber::new(1000, 1).map_err(|_| bad("ticket", "ticket"))?;
    let last = DateTime::from_timestamp(LAST_SECOND, 0).ok_or(bad("ticket", "due_at"))?;
    let dated = filter.due_from.is_some() || filter.due_before.is_some();
    let from = filter.due_from.unwrap_or(DateTime::UNIX_EPOCH);
    let until = filter.due_before.unwrap_or(last);
    let stretch = |urgency, until| {
        let start = Cursor { urgency, due_at: from, ticket: first };
        let after = after.filter(|after| after.key() > start.key()).unwrap_or(start);
        Stretch { after, until }
    };
    Ok(if dated {
        vec![stretch(0, (0, until)), stretch(1, (1, until))]
    } else {
        vec![stretch(-1, (2, last))]
    })
}

/// Which list of open tickets is read for a filter: the one that holds the least else.
enum Source {
    Queue,
    Raised,
    ByHand,
    InHand(&'static str, i32),
}

impl Filter {
    fn source(&self) -> Source {
        // What nobody has taken up is in nobody's hands.
        let state = self.state.filter(|state| !["registered", PRESSING].contains(state));
        match (self.accountable, self.unit, state) {
            (Some(person), ..) => Source::InHand("person", person.0),
            (_, Some(unit), _) => Source::InHand("unit", unit.0),
            _ if self.level.is_some_and(|level| level.number() > 1) => Source::Raised,
            (.., Some(state)) => Source::InHand(state, 0),
            _ if self.channel.is_some_and(|channel| channel != ChannelKind::Wechat) => {
                Source::ByHand
            }
            _ => Source::Queue,
        }
    }

    /// Whether a ticket that was asked for by number is what the filter asks for.
    #[must_use]
    pub fn allows(&self, row: &QueueRow) -> bool {
        self.channel.is_none_or(|channel| channel == row.channel)
            && self.level.is_none_or(|level| level == row.level)
            && self.unit.is_none_or(|unit| Some(unit) == row.unit_id)
            && self.state.is_none_or(|state| state == row.state)
            && self.due_from.is_none_or(|from| row.due_at >= from)
            && self.due_before.is_none_or(|before| row.due_at < before)
    }
}

// Statements are put together of literals, so that each is checked against the schema. `is_open` and
// what narrows are spelled out: a parameter there would hide the partial index from a generic plan.

/// A statement on open tickets: those of `$from` that fit and hold `$words`, in the order of the
/// queue; each counted by `$n`. `$order` says it where `$from` has that order: else the planner would
/// not know, and sort. Parameters from `$15` on are the caller's, the first two how many
/// are looked at and how many are wanted.
macro_rules! open_tickets {
    ($n:literal, $words:literal, $from:literal, $order:literal, $office:expr, $filter:expr, $stretch:expr,
     $index:expr, $($more:expr),+) => {
        sqlx::query_as!(
            Row,
            r#"SELECT ticket, channel, state, level, urgency, overdue, problem, citizen_name,
                      citizen_phone, registered_at, accepted_at, follow_up_at, due_at, provisional,
                      unit AS unit_id, n AS "n!", fits IS TRUE AS "fits!",
                      (SELECT name FROM staff WHERE staff.office_id = t.office_id
                         AND staff.staff_id = t.accountable) AS accountable,
                      (SELECT name FROM unit u WHERE u.office_id = t.office_id
                         AND u.unit_id = t.unit) AS unit
               FROM (SELECT t.*, "#
                + $n
                + r#" AS n, ($7::text IS NULL OR channel = $7)
                     AND ($8::smallint IS NULL OR level = $8)
                     AND ($9::int IS NULL OR accountable = $9)
                     AND (NOT $10 OR accountable IS NULL)
                     AND ($11::timestamptz IS NULL OR due_at < $11 OR accountable IS NULL)
                     AND ($12::text IS NULL OR state = $12 OR $12 = 'pressing'
                         AND state IN ('registered', 'accepted', 'in_progress'))
                     AND ($13::int IS NULL OR unit = $13) AND "#
                + $words
                + " AS fits FROM ("
                + $from
                + ") t "
                + $order
                + ") t
               WHERE fits OR n = $15 ORDER BY urgency, due_at, ticket LIMIT $16",
            $office.0,
            $stretch.after.urgency,
            $stretch.after.due_at,
            $stretch.after.ticket.as_i64(),
            $stretch.until.0,
            $stretch.until.1,
            $filter.channel.map(ChannelKind::as_str),
            $filter.level.map(Level::number),
            $filter.accountable.map(|id| id.0),
            $filter.unclaimed,
            $filter.to_do_before,
            $filter.state,
            $filter.unit.map(|id| id.0),
            $index,
            $($more),+
        )
    };
}
pub(super) use open_tickets;

/// The same of closed ones, newest first; parameters from `$10` on are the caller's.
macro_rules! closed_tickets {
    ($n:literal, $words:literal, $from:literal, $order:literal, $office:expr, $filter:expr, $before:expr,
     $index:expr, $($more:expr),+) => {
        sqlx::query_as!(
            Row,
            r#"SELECT ticket, channel, state, level, urgency, overdue, problem, citizen_name,
                      citizen_phone, registered_at, accepted_at, follow_up_at, due_at, provisional,
                      unit AS unit_id, n AS "n!", fits IS TRUE AS "fits!",
                      (SELECT name FROM staff WHERE staff.office_id = t.office_id
                         AND staff.staff_id = t.accountable) AS accountable,
                      (SELECT name FROM unit u WHERE u.office_id = t.office_id
                         AND u.unit_id = t.unit) AS unit
               FROM (SELECT t.*, "#
                + $n
                + r#" AS n, ($3::text IS NULL OR channel = $3)
                     AND ($4::smallint IS NULL OR level = $4)
                     AND ($5::int IS NULL OR accountable = $5)
                     AND ($6::int IS NULL OR unit = $6)
                     AND ($7::timestamptz IS NULL OR due_at >= $7)
                     AND ($8::timestamptz IS NULL OR due_at < $8) AND "#
                + $words
                + " AS fits FROM ("
                + $from
                + ") t "
                + $order
                + ") t
               WHERE fits OR n = $10 ORDER BY ticket DESC LIMIT $11",
            $office.0,
            $before,
            $filter.channel.map(ChannelKind::as_str),
            $filter.level.map(Level::number),
            $filter.accountable.map(|id| id.0),
            $filter.unit.map(|id| id.0),
            $filter.due_from,
            $filter.due_before,
            $index,
            $($more),+
        )
    };
}
pub(super) use closed_tickets;

macro_rules! look_at_open {
    ($from:literal, $db:ident, $($arguments:expr),+) => {
        open_tickets!(
            "row_number() OVER ()",
            "($14::text IS NULL OR coalesce((SELECT s.v @@ $14::text::tsquery FROM ticket_search s
                 WHERE s.office_id = t.office_id AND s.ticket = t.ticket LIMIT 1), true))",
            $from,
            "ORDER BY urgency, due_at, ticket",
            $($arguments),+
        )
        .fetch_all($db)
        .await?
    };
}

/// Looks at the first tickets of a stretch of the queue, at most `look` of them, for `wanted` that
/// fit and may hold what the index of words is asked for.
pub(super) async fn look_at_open(
    db: &mut PgConnection,
    office: OfficeId,
    (filter, stretch): (&Filter, Stretch),
    index: Option<&str>,
    (look, wanted): (i64, i64),
) -> Result<Looked, StoreError> {
    let rows =
        match filter.source() {
            Source::Queue => look_at_open!(
                "SELECT * FROM ticket
             WHERE office_id = $1 AND is_open AND (urgency, due_at, ticket) > ($2, $3, $4)
               AND (urgency, due_at) < ($5::smallint, $6::timestamptz)
             ORDER BY urgency, due_at, ticket LIMIT $15",
                db,
                office,
                filter,
                stretch,
                index,
                look,
                wanted
            ),
            Source::Raised => look_at_open!(
                "SELECT * FROM ticket
             WHERE office_id = $1 AND is_open AND level > 1 AND level = $8
               AND (urgency, due_at, ticket) > ($2, $3, $4)
               AND (urgency, due_at) < ($5::smallint, $6::timestamptz)
             ORDER BY urgency, due_at, ticket LIMIT $15",
                db,
                office,
                filter,
                stretch,
                index,
                look,
                wanted
            ),
            Source::ByHand => look_at_open!(
                "SELECT * FROM ticket
             WHERE office_id = $1 AND is_open AND channel <> 'wechat' AND channel = $7
               AND (urgency, due_at, ticket) > ($2, $3, $4)
               AND (urgency, due_at) < ($5::smallint, $6::timestamptz)
             ORDER BY urgency, due_at, ticket LIMIT $15",
                db,
                office,
                filter,
                stretch,
                index,
                look,
                wanted
            ),
            Source::InHand(list, whose) => {
                look_at_open!(
            "SELECT t.office_id, i.ticket, channel, state, level, i.urgency, overdue, problem,
                    citizen_name, citizen_phone, registered_at, accepted_at, follow_up_at, i.due_at,
                    provisional, accountable, unit
             FROM (SELECT urgency, due_at, ticket FROM in_hand
                   WHERE office_id = $1 AND list = $17 AND whose = $18
                     AND (urgency, due_at, ticket) > ($2, $3, $4)
                     AND (urgency, due_at) < ($5::smallint, $6::timestamptz)
                   ORDER BY urgency, due_at, ticket LIMIT $15) i
             CROSS JOIN LATERAL (SELECT * FROM ticket t
                 WHERE t.office_id = $1 AND t.ticket = i.ticket LIMIT 1) t
             ORDER BY i.urgency, i.due_at, i.ticket",
            db, office, filter, stretch, index, look, wanted, list, whose
        )
            }
        };
    Looked::of(rows, look)
}

macro_rules! look_at_closed {
    ($from:literal, $db:ident, $($arguments:expr),+) => {
        closed_tickets!(
            "row_number() OVER ()",
            "($9::text IS NULL OR coalesce((SELECT s.v @@ $9::text::tsquery FROM ticket_search s
                 WHERE s.office_id = t.office_id AND s.ticket = t.ticket LIMIT 1), true))",
            $from,
            "ORDER BY ticket DESC",
            $($arguments),+
        )
        .fetch_all($db)
        .await?
    };
}

/// The same with what is closed, before this number.
pub(super) async fn look_at_closed(
    db: &mut PgConnection,
    office: OfficeId,
    (filter, before): (&Filter, i64),
    index: Option<&str>,
    (look, wanted): (i64, i64),
) -> Result<Looked, StoreError> {
    let rows = if filter.level.is_some_and(|level| level.number() > 1) {
        look_at_closed!(
            "SELECT * FROM ticket
             WHERE office_id = $1 AND NOT is_open AND level > 1 AND level = $4 AND ticket < $2
             ORDER BY ticket DESC LIMIT $10",
            db,
            office,
            filter,
            before,
            index,
            look,
            wanted
        )
    } else if filter.channel.is_some_and(|channel| channel != ChannelKind::Wechat) {
        look_at_closed!(
            "SELECT * FROM ticket
             WHERE office_id = $1 AND NOT is_open AND channel <> 'wechat' AND channel = $3
               AND ticket < $2
             ORDER BY ticket DESC LIMIT $10",
            db,
            office,
            filter,
            before,
            index,
            look,
            wanted
        )
    } else {
        look_at_closed!(
            "SELECT * FROM ticket WHERE office_id = $1 AND NOT is_open AND ticket < $2
             ORDER BY ticket DESC LIMIT $10",
            db,
            office,
            filter,
            before,
            index,
            look,
            wanted
        )
    };
    Looked::of(rows, look)
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
        r#"SELECT ticket, channel, state, level, urgency, overdue, problem, citizen_name,
                  citizen_phone, registered_at, accepted_at, follow_up_at, due_at, provisional,
                  unit AS unit_id, 1::bigint AS "n!", true AS "fits!",
                  (SELECT name FROM staff WHERE staff.office_id = ticket.office_id
                     AND staff.staff_id = ticket.accountable) AS accountable,
                  (SELECT name FROM unit u WHERE u.office_id = ticket.office_id
                     AND u.unit_id = ticket.unit) AS unit
           FROM ticket WHERE office_id = $1 AND ticket = $2"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    row.map(QueueRow::try_from).transpose()
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
    pub closed: i64,
}

/// The counts of an office, of each person that answers for tickets.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    groups: Vec<Group>,
}

#[derive(Debug, Clone)]
struct Group {
    given: i64,
    accountable: Option<i32>,
    open: i64,
    today: i64,
    /// Of the office, in each group.
    call_back: i64,
    soon: i64,
    overdue: i64,
    resolved: i64,
}

impl Tally {
    /// How many are open.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.groups.iter().map(|group| group.open).sum()
    }

    /// As this person sees them.
    #[must_use]
    pub fn counts(&self, staff: StaffId) -> Counts {
        let sum = |of: fn(&Group) -> i64| self.groups.iter().map(of).sum::<i64>();
        let open_of = |whose: Option<i32>| {
            let theirs = self.groups.iter().filter(|group| group.accountable == whose);
            theirs.map(|group| group.open).sum()
        };
        let given = self.groups.first().map_or(0, |group| group.given);
        Counts {
            all: self.open(),
            today: sum(|group| if group.accountable.is_none() { group.open } else { group.today }),
            unclaimed: open_of(None),
            mine: open_of(Some(staff.0)),
            call_back: self.groups.first().map_or(0, |group| group.call_back),
            soon: sum(|group| group.soon),
            overdue: sum(|group| group.overdue),
            resolved: sum(|group| group.resolved),
            closed: given - self.open(),
        }
    }
}

/// Counts the open queue, once for all views and everybody. What is closed is not counted: numbers
/// have no gap, so it is the rest.
///
/// # Errors
/// [`StoreError`].
pub async fn tally(
    db: &mut PgConnection,
    office: OfficeId,
    now: DateTime<Utc>,
    end_of_today: DateTime<Utc>,
    soon: DateTime<Utc>,
) -> Result<Tally, StoreError> {
    let groups = sqlx::query_as!(
        Group,
        r#"SELECT given AS "given!", accountable AS "accountable?", coalesce(open, 0) AS "open!",
                  coalesce(today, 0) AS "today!",
                  (SELECT count(*) FROM call_back WHERE office_id = $1 AND state = 'waiting')
                  + (SELECT count(*) FROM call_back WHERE office_id = $1 AND state = 'withheld')
                  + (SELECT count(*) FROM reply WHERE office_id = $1 AND state = 'call') AS "call_back!",
                  coalesce(soon, 0) AS "soon!", coalesce(overdue, 0) AS "overdue!",
                  coalesce(resolved, 0) AS "resolved!"
           FROM (SELECT coalesce(sum(last), 0) AS given FROM register WHERE office_id = $1) r
           LEFT JOIN (
               SELECT accountable, count(*) AS open,
                      count(*) FILTER (WHERE due_at < $3 AND state IN ('registered', 'accepted', 'in_progress')) AS today,
                      count(*) FILTER (WHERE due_at >= $2 AND due_at < $4 AND state IN ('registered', 'accepted', 'in_progress')) AS soon,
                      count(*) FILTER (WHERE due_at < $2 AND state IN ('registered', 'accepted', 'in_progress')) AS overdue,
                      count(*) FILTER (WHERE state = 'resolved') AS resolved
               FROM ticket WHERE office_id = $1 AND is_open GROUP BY accountable) t ON true"#,
        office.0,
        now,
        end_of_today,
        soon
    )
    .fetch_all(db)
    .await?;
    Ok(Tally { groups })
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
    pub(super) unit_id: Option<i32>,
    pub(super) unit: Option<String>,
    /// Which one of those that were looked at.
    pub(super) n: i64,
    /// Whether it is what was looked for.
    pub(super) fits: bool,
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
            unit_id: row.unit_id.map(UnitId),
            unit: row.unit,
        })
    }
}

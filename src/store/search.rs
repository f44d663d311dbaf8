//! Tickets by words: what is entered into the index of words, and what is found in it.

use super::{
    StoreError, number,
    queue::{self, Cursor, Filter, QueueRow, Row, Stretch},
};
use crate::{
    domain::{id::OfficeId, level::Level, register::RegisterNumber},
    search::words::Words,
};
use chrono::{DateTime, Utc};
use intake_contract::ChannelKind;
use sqlx::{Connection, PgConnection};
use std::time::Duration;

// What is entered.

/// A register, and which of its numbers are in the index: from `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whose.
    pub office: OfficeId,
    /// Of which year.
    pub year: i32,
    /// The first number that is in.
    pub first: i32,
    /// The last number that is in.
    pub last: i32,
    /// The last number that was given out.
    pub given: i32,
}

impl Progress {
    /// Once these numbers are in too.
    #[must_use]
    pub fn with(self, from: i32, to: i32) -> Self {
        Self { first: self.first.min(from), last: self.last.max(to), ..self }
    }
}

/// The registers that are not in the index as a whole.
///
/// # Errors
/// [`StoreError`].
pub async fn unfinished(db: &mut PgConnection) -> Result<Vec<Progress>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT r.office_id, r.year, coalesce(p.first, r.last + 1) AS "first!",
                  coalesce(p.last, r.last) AS "last!", r.last AS given
           FROM register r LEFT JOIN search_progress p
             ON p.office_id = r.office_id AND p.year = r.year
           WHERE r.last > 0 AND (p.first IS NULL OR p.first > 1 OR p.last < r.last)
           ORDER BY r.year DESC, r.office_id"#
    )
    .fetch_all(db)
    .await?;
    let progress = rows.into_iter().map(|row| Progress {
        office: OfficeId(row.office_id),
        year: row.year,
        first: row.first,
        last: row.last,
        given: row.given,
    });
    Ok(progress.collect())
}

/// Writes down how far the index is.
///
/// # Errors
/// [`StoreError`].
pub async fn went_on(db: &mut PgConnection, progress: &Progress) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO search_progress AS p (office_id, year, first, last) VALUES ($1, $2, $3, $4)
         ON CONFLICT (office_id, year) DO UPDATE
             SET first = least(p.first, excluded.first), last = greatest(p.last, excluded.last)
             WHERE excluded.first <= p.last + 1 AND excluded.last >= p.first - 1",
        progress.office.0,
        progress.year,
        progress.first,
        progress.last
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A ticket as its words are read.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of ticket and message")]
pub struct Document {
    pub office: OfficeId,
    pub ticket: RegisterNumber,
    pub is_open: bool,
    pub name: Option<String>,
    pub phone: Option<String>,
    pub problem: String,
    /// The newest first.
    pub texts: Vec<String>,
    /// Of the newest message.
    pub seq: i32,
}

struct DocumentRow {
    office_id: i32,
    ticket: i64,
    is_open: bool,
    citizen_name: Option<String>,
    citizen_phone: Option<String>,
    problem: String,
    texts: Vec<String>,
    seq: i32,
}

impl TryFrom<DocumentRow> for Document {
    type Error = StoreError;

    fn try_from(row: DocumentRow) -> Result<Self, StoreError> {
        Ok(Self {
            office: OfficeId(row.office_id),
            ticket: number(row.ticket)?,
            is_open: row.is_open,
            name: row.citizen_name,
            phone: row.citizen_phone,
            problem: row.problem,
            texts: row.texts,
            seq: row.seq,
        })
    }
}

/// The tickets of a register between two numbers, both included.
///
/// # Errors
/// [`StoreError`].
pub async fn registered(
    db: &mut PgConnection,
    office: OfficeId,
    (from, to): (RegisterNumber, RegisterNumber),
) -> Result<Vec<Document>, StoreError> {
    let rows = sqlx::query_as!(
        DocumentRow,
        r#"SELECT t.office_id, t.ticket, t.is_open, t.citizen_name, t.citizen_phone, t.problem,
                  coalesce(m.texts, '{}') AS "texts!", coalesce(m.seq, 0) AS "seq!"
           FROM ticket t CROSS JOIN LATERAL (
               SELECT array_agg(text ORDER BY seq DESC) AS texts, max(seq) AS seq
               FROM (SELECT text, seq FROM message m
                     WHERE m.office_id = t.office_id AND m.ticket = t.ticket
                     ORDER BY seq DESC LIMIT 500) m) m
           WHERE t.office_id = $1 AND t.ticket BETWEEN $2 AND $3 ORDER BY t.ticket"#,
        office.0,
        from.as_i64(),
        to.as_i64()
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Document::try_from).collect()
}

/// These tickets, those that there are.
///
/// # Errors
/// [`StoreError`].
pub async fn documents(
    db: &mut PgConnection,
    tickets: &[(OfficeId, RegisterNumber)],
) -> Result<Vec<Document>, StoreError> {
    let offices: Vec<i32> = tickets.iter().map(|one| one.0.0).collect();
    let numbers: Vec<i64> = tickets.iter().map(|one| one.1.as_i64()).collect();
    let rows = sqlx::query_as!(
        DocumentRow,
        r#"SELECT t.office_id, t.ticket, t.is_open, t.citizen_name, t.citizen_phone, t.problem,
                  coalesce(m.texts, '{}') AS "texts!", coalesce(m.seq, 0) AS "seq!"
           FROM unnest($1::int[], $2::bigint[]) AS i(office_id, ticket)
           CROSS JOIN LATERAL (SELECT * FROM ticket t
               WHERE t.office_id = i.office_id AND t.ticket = i.ticket LIMIT 1) t
           CROSS JOIN LATERAL (
               SELECT array_agg(text ORDER BY seq DESC) AS texts, max(seq) AS seq
               FROM (SELECT text, seq FROM message m
                     WHERE m.office_id = i.office_id AND m.ticket = i.ticket
                     ORDER BY seq DESC LIMIT 500) m) m"#,
        &offices,
        &numbers
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Document::try_from).collect()
}

/// What is entered for tickets, column by column.
#[derive(Debug, Default, Clone)]
#[expect(missing_docs, reason = "the columns of ticket_search")]
pub struct Entered {
    pub office: Vec<i32>,
    pub ticket: Vec<i64>,
    pub is_open: Vec<bool>,
    pub seq: Vec<i32>,
    /// Of each ticket, separated by spaces.
    pub entries: Vec<String>,
}

/// Enters tickets, or what they have grown by; the same again, or older, changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn enter(db: &mut PgConnection, entered: &Entered) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO ticket_search AS s (office_id, ticket, is_open, seq, v)
         SELECT office_id, ticket, is_open, seq, array_to_tsvector(string_to_array(entries, ' '))
         FROM unnest($1::int[], $2::bigint[], $3::boolean[], $4::int[], $5::text[])
             AS i(office_id, ticket, is_open, seq, entries)
         ON CONFLICT (office_id, ticket) DO UPDATE
             SET is_open = s.is_open AND excluded.is_open, seq = greatest(s.seq, excluded.seq),
                 v = CASE WHEN excluded.seq > s.seq THEN excluded.v ELSE s.v END
             WHERE excluded.seq > s.seq OR (s.is_open AND NOT excluded.is_open)",
        &entered.office,
        &entered.ticket,
        &entered.is_open,
        &entered.seq,
        &entered.entries
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Brings gathered entries into their places, so that no search has to read them one by one.
///
/// # Errors
/// [`StoreError`].
pub async fn put_in_place(db: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query!(
        r#"SELECT gin_clean_pending_list('ticket_search_all') AS "all",
                  gin_clean_pending_list('ticket_search_open') AS "open""#
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// Which transactions have ended and begun: the same again while nothing was written.
///
/// # Errors
/// [`StoreError`].
pub async fn moment(db: &mut PgConnection) -> Result<String, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT pg_current_snapshot()::text AS "moment!""#)
        .fetch_one(db)
        .await?)
}

/// A ticket that is held to be open, and whether that and its words are still true.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "named as what it tells")]
pub struct Held {
    pub office: OfficeId,
    pub ticket: i64,
    pub stale: bool,
}

/// Tickets that are held to be open, after one of them, in the order of their keys.
///
/// # Errors
/// [`StoreError`].
pub async fn held_open(
    db: &mut PgConnection,
    (office, ticket): (OfficeId, i64),
    limit: i64,
) -> Result<Vec<Held>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT s.office_id, s.ticket,
                  coalesce(NOT t.is_open OR t.events > s.seq AND EXISTS (
                      SELECT FROM message m WHERE m.office_id = s.office_id
                         AND m.ticket = s.ticket AND m.seq > s.seq), false) AS "stale!"
           FROM (SELECT office_id, ticket, seq FROM ticket_search
                 WHERE is_open AND (office_id, ticket) > ($1, $2)
                 ORDER BY office_id, ticket LIMIT $3) s
           LEFT JOIN LATERAL (SELECT t.is_open, t.events FROM ticket t
               WHERE t.office_id = s.office_id AND t.ticket = s.ticket LIMIT 1) t ON true"#,
        office.0,
        ticket,
        limit
    )
    .fetch_all(db)
    .await?;
    let held = rows.into_iter().map(|row| Held {
        office: OfficeId(row.office_id),
        ticket: row.ticket,
        stale: row.stale,
    });
    Ok(held.collect())
}

// What is found.

/// No search takes longer on the server.
const WITHIN: Duration = Duration::from_secs(2);
/// So many of the list's first tickets are looked at one by one before the index is asked.
const FIRST_LOOK: i64 = 300;
/// And no more than so many, however promising.
const LONGEST_LOOK: i64 = 50_000;
/// Where the index knows nothing of what is looked for (a percent sign), only so many are looked at.
const BLIND_LOOK: i64 = 20_000;

/// How tickets are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// So many in the order of the list, one by one.
    Look(i64),
    /// All that the index has, put into order.
    Index,
}

/// Which tickets are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Most urgent first.
    Open,
    /// Newest first.
    Closed,
}

/// One page of a list, of tickets that hold these words where there are any.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    db: &mut PgConnection,
    office: OfficeId,
    which: Which,
    filter: &Filter,
    words: Option<&Words>,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<QueueRow>, StoreError> {
    let before = after.map(|cursor| cursor.ticket);
    let Some(words) = words else {
        return match which {
            Which::Open => queue::page(db, office, filter, after, limit).await,
            Which::Closed => queue::closed_page(db, office, filter, before, limit).await,
        };
    };
    let mut transaction = db.begin().await?;
    in_time(&mut transaction).await?;
    let mut found: Vec<QueueRow> = Vec::new();
    let lists = match which {
        Which::Open => queue::stretches(filter, after)?
            .into_iter()
            .map(|stretch| List::Open(filter, stretch))
            .collect(),
        Which::Closed => {
            vec![List::Closed(filter, before.map_or(i64::MAX, RegisterNumber::as_i64))]
        }
    };
    for list in lists {
        let wanted = limit - count(&found);
        if wanted > 0 {
            found.extend(list.search(&mut transaction, office, words, wanted).await?);
        }
    }
    transaction.commit().await?;
    Ok(found)
}

async fn in_time(db: &mut PgConnection) -> Result<(), StoreError> {
    let limit = format!("SET LOCAL statement_timeout = {}", WITHIN.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(db).await?;
    Ok(())
}

fn count<T>(rows: &[T]) -> i64 {
    i64::try_from(rows.len()).unwrap_or(i64::MAX)
}

/// What is searched, from a place on.
#[derive(Clone, Copy)]
enum List<'a> {
    Open(&'a Filter, Stretch),
    /// Before this number.
    Closed(&'a Filter, i64),
}

/// A ticket that the index has under these words, at its place.
type Candidate = (i16, DateTime<Utc>, i64);

impl List<'_> {
    /// A common word fills a page from the list's first tickets; a rare one is found in the index
    /// at once. How common this one is, the first hundreds tell; then the shorter way is taken.
    async fn search(
        self,
        db: &mut PgConnection,
        office: OfficeId,
        words: &Words,
        limit: i64,
    ) -> Result<Vec<QueueRow>, StoreError> {
        let Some(index) = words.index.as_deref() else {
            return self.by(Way::Look(BLIND_LOOK), db, office, words, None, limit).await;
        };
        let first = Way::Look(FIRST_LOOK);
        let mut found = self.by(first, db, office, words, Some(index), limit).await?;
        if count(&found) < limit {
            let all = self.size(db).await?;
            let mut more = Vec::new();
            // With h hits among the first n a page needs a look at n * limit / h; the index holds
            // about all * h / n tickets, each of them to be fetched.
            let look = FIRST_LOOK * limit / count(&found).max(1);
            let fetched = all * count(&found) / FIRST_LOOK;
            if look < fetched.min(LONGEST_LOOK) {
                let generous = Way::Look(look * 3);
                more = self.by(generous, db, office, words, Some(index), limit).await?;
            }
            if count(&more) < limit {
                more = self.by(Way::Index, db, office, words, Some(index), limit).await?;
            }
            // What came in a moment ago is not in the index yet.
            let known: std::collections::HashSet<_> = more.iter().map(|row| row.ticket).collect();
            more.extend(found.into_iter().filter(|row| !known.contains(&row.ticket)));
            match self {
                Self::Open(..) => more.sort_by_key(|row| row.cursor().key()),
                Self::Closed(..) => more.sort_by_key(|row| std::cmp::Reverse(row.ticket)),
            }
            more.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            found = more;
        }
        Ok(found)
    }

    /// Candidates, and of those the ones whose text holds the words, until there are enough.
    async fn by(
        mut self,
        way: Way,
        db: &mut PgConnection,
        office: OfficeId,
        words: &Words,
        index: Option<&str>,
        limit: i64,
    ) -> Result<Vec<QueueRow>, StoreError> {
        const MOST_AT_ONCE: i64 = 2000;
        // The one kind of index that can be read in no other way.
        let bitmaps = match way {
            Way::Look(_) => "SET LOCAL enable_bitmapscan = off",
            Way::Index => "SET LOCAL enable_bitmapscan = on",
        };
        sqlx::raw_sql(bitmaps).execute(&mut *db).await?;
        let mut found: Vec<QueueRow> = Vec::new();
        let mut at_once = limit + 10;
        loop {
            let candidates = self.candidates(way, db, office, index, at_once).await?;
            let wanted = limit - count(&found);
            found.extend(holding(db, office, &words.words, &candidates, wanted).await?);
            let Some(last) = candidates.last().filter(|_| count(&candidates) == at_once) else {
                return Ok(found);
            };
            if count(&found) >= limit {
                return Ok(found);
            }
            match &mut self {
                Self::Open(_, stretch) => {
                    let (urgency, due_at, ticket) = *last;
                    stretch.after = Cursor { urgency, due_at, ticket: number(ticket)? };
                }
                Self::Closed(_, before) => *before = last.2,
            }
            at_once = (at_once * 4).min(MOST_AT_ONCE);
        }
    }

    /// About how many tickets the list has, as the database last counted them.
    async fn size(self, db: &mut PgConnection) -> Result<i64, StoreError> {
        const UNKNOWN: i64 = 100_000;
        let index = match self {
            Self::Open(..) => "ticket_search_followed",
            Self::Closed(..) => "ticket_search_pkey",
        };
        let size = sqlx::query_scalar!(
            r#"SELECT reltuples::bigint AS "size!" FROM pg_class WHERE oid = $1::text::regclass"#,
            index
        )
        .fetch_one(db)
        .await?;
        Ok(if size < 0 { UNKNOWN } else { size })
    }

    async fn candidates(
        self,
        way: Way,
        db: &mut PgConnection,
        office: OfficeId,
        index: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Candidate>, StoreError> {
        Ok(match (self, way) {
            (Self::Open(filter, stretch), Way::Look(look)) => {
                let rows = sqlx::query!(
                    r#"SELECT urgency, due_at, ticket
                       FROM (SELECT * FROM ticket
                             WHERE office_id = $1 AND is_open
                               AND (urgency, due_at, ticket) > ($2, $3, $4)
                               AND (urgency, due_at) < ($5::smallint, $6::timestamptz)
                             ORDER BY urgency, due_at, ticket LIMIT $14) t
                       WHERE ($7::text IS NULL OR channel = $7)
                         AND ($8::smallint IS NULL OR level = $8)
                         AND ($9::int IS NULL OR accountable = $9)
                         AND (NOT $10 OR accountable IS NULL)
                         AND ($11::timestamptz IS NULL OR due_at < $11 OR accountable IS NULL)
                         AND (NOT $12 OR state = 'resolved')
                         AND ($13::text IS NULL OR coalesce((SELECT s.v @@ $13::text::tsquery
                             FROM ticket_search s
                             WHERE s.office_id = t.office_id AND s.ticket = t.ticket LIMIT 1), true))
                       ORDER BY urgency, due_at, ticket LIMIT $15"#,
                    office.0,
                    stretch.after.urgency,
                    stretch.after.due_at,
                    stretch.after.ticket.as_i64(),
                    stretch.until.0,
                    stretch.until.1,
                    filter.channel.map(ChannelKind::as_str),
                    filter.level.map(Level::number),
                    filter.accountable.map(|id| id.0),
                    filter.unclaimed,
                    filter.to_do_before,
                    filter.resolved,
                    index,
                    look,
                    limit
                )
                .fetch_all(db)
                .await?;
                rows.into_iter().map(|row| (row.urgency, row.due_at, row.ticket)).collect()
            }
            (Self::Open(filter, stretch), Way::Index) => {
                // `+ 0` keeps the planner from reading the office's tickets one by one.
                let rows = sqlx::query!(
                    r#"WITH s AS MATERIALIZED (
                           SELECT office_id, ticket FROM ticket_search
                           WHERE is_open AND v @@ $13::text::tsquery AND office_id + 0 = $1)
                       SELECT t.urgency, t.due_at, t.ticket
                       FROM s CROSS JOIN LATERAL (SELECT * FROM ticket t
                           WHERE t.office_id = s.office_id AND t.ticket = s.ticket LIMIT 1) t
                       WHERE t.is_open AND (urgency, due_at, t.ticket) > ($2, $3, $4)
                         AND (urgency, due_at) < ($5::smallint, $6::timestamptz)
                         AND ($7::text IS NULL OR channel = $7)
                         AND ($8::smallint IS NULL OR level = $8)
                         AND ($9::int IS NULL OR accountable = $9)
                         AND (NOT $10 OR accountable IS NULL)
                         AND ($11::timestamptz IS NULL OR due_at < $11 OR accountable IS NULL)
                         AND (NOT $12 OR state = 'resolved')
                       ORDER BY t.urgency, t.due_at, t.ticket LIMIT $14"#,
                    office.0,
                    stretch.after.urgency,
                    stretch.after.due_at,
                    stretch.after.ticket.as_i64(),
                    stretch.until.0,
                    stretch.until.1,
                    filter.channel.map(ChannelKind::as_str),
                    filter.level.map(Level::number),
                    filter.accountable.map(|id| id.0),
                    filter.unclaimed,
                    filter.to_do_before,
                    filter.resolved,
                    index,
                    limit
                )
                .fetch_all(db)
                .await?;
                rows.into_iter().map(|row| (row.urgency, row.due_at, row.ticket)).collect()
            }
            (Self::Closed(filter, before), Way::Look(look)) => {
                let rows = sqlx::query!(
                    r#"SELECT urgency, due_at, ticket
                       FROM (SELECT * FROM ticket
                             WHERE office_id = $1 AND NOT is_open AND ticket < $2
                             ORDER BY ticket DESC LIMIT $6) t
                       WHERE ($3::text IS NULL OR channel = $3)
                         AND ($4::smallint IS NULL OR level = $4)
                         AND ($5::text IS NULL OR coalesce((SELECT s.v @@ $5::text::tsquery
                             FROM ticket_search s
                             WHERE s.office_id = t.office_id AND s.ticket = t.ticket LIMIT 1), true))
                       ORDER BY ticket DESC LIMIT $7"#,
                    office.0,
                    before,
                    filter.channel.map(ChannelKind::as_str),
                    filter.level.map(Level::number),
                    index,
                    look,
                    limit
                )
                .fetch_all(db)
                .await?;
                rows.into_iter().map(|row| (row.urgency, row.due_at, row.ticket)).collect()
            }
            (Self::Closed(filter, before), Way::Index) => {
                let rows = sqlx::query!(
                    r#"WITH s AS MATERIALIZED (
                           SELECT office_id, ticket FROM ticket_search
                           WHERE v @@ $5::text::tsquery AND office_id + 0 = $1 AND ticket + 0 < $2)
                       SELECT t.urgency AS "urgency!", t.due_at AS "due_at!", t.ticket AS "ticket!"
                       FROM (SELECT * FROM s ORDER BY ticket DESC) s
                       CROSS JOIN LATERAL (SELECT * FROM ticket t
                           WHERE t.office_id = s.office_id AND t.ticket = s.ticket LIMIT 1) t
                       WHERE NOT t.is_open
                         AND ($3::text IS NULL OR channel = $3)
                         AND ($4::smallint IS NULL OR level = $4)
                       ORDER BY s.ticket DESC LIMIT $6"#,
                    office.0,
                    before,
                    filter.channel.map(ChannelKind::as_str),
                    filter.level.map(Level::number),
                    index,
                    limit
                )
                .fetch_all(db)
                .await?;
                rows.into_iter().map(|row| (row.urgency, row.due_at, row.ticket)).collect()
            }
        })
    }
}

/// Those of the candidates that hold every word in one of their fields, in their order.
async fn holding(
    db: &mut PgConnection,
    office: OfficeId,
    words: &[String],
    candidates: &[Candidate],
    limit: i64,
) -> Result<Vec<QueueRow>, StoreError> {
    let tickets: Vec<i64> = candidates.iter().map(|candidate| candidate.2).collect();
    if tickets.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT t.ticket, channel, state, level, urgency, overdue, problem, citizen_name,
                  citizen_phone, registered_at, accepted_at, follow_up_at, due_at, provisional,
                  (SELECT name FROM staff WHERE staff.office_id = t.office_id
                     AND staff.staff_id = t.accountable) AS accountable
           FROM unnest($2::bigint[]) WITH ORDINALITY AS i(ticket, n)
           CROSS JOIN LATERAL (SELECT * FROM ticket t
               WHERE t.office_id = $1 AND t.ticket = i.ticket LIMIT 1) t
           WHERE NOT EXISTS (
               SELECT FROM unnest($3::text[]) AS word WHERE NOT coalesce(
                   position(word IN t.ticket / 1000000000 || '-' || lpad((t.ticket % 1000000000)::text,
                       greatest(6, length((t.ticket % 1000000000)::text)), '0')) > 0
                   OR position(word IN search_text(citizen_name)) > 0
                   OR position(word IN search_text(citizen_phone)) > 0
                   OR position(word IN search_text(problem)) > 0
                   OR EXISTS (SELECT FROM message m
                       WHERE m.office_id = $1 AND m.ticket = i.ticket
                         AND position(word IN search_text(m.text)) > 0), false))
           ORDER BY n LIMIT $4"#,
        office.0,
        &tickets,
        words,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(QueueRow::try_from).collect()
}

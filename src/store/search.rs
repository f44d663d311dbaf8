//! Tickets by words: what is entered into the index of words, and what is found in it.

use super::{
    StoreError, number,
    queue::{self, Cursor, Filter, Looked, Page, QueueRow, Row, Stretch},
};
use crate::{
    domain::{id::OfficeId, level::Level, register::RegisterNumber},
    search::words::{Words, plain},
};
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

/// A ticket that was closed is open again, and followed again. What was not entered yet will be as
/// it then stands.
///
/// # Errors
/// [`StoreError`].
pub async fn follow_again(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE ticket_search SET is_open = true WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
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
/// Where the index knows nothing of what is looked for (a percent sign), only so many are looked at
/// for one page.
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

/// One page of a list, of tickets that hold these words where there are any. Of what no list is made
/// for, a page may hold fewer than `limit`, though there are more: then it says where to go on.
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
) -> Result<Page, StoreError> {
    let lists: Vec<List<'_>> = match which {
        Which::Open => queue::stretches(filter, after)?
            .into_iter()
            .map(|stretch| List::Open(filter, stretch))
            .collect(),
        Which::Closed => {
            let before = after.map_or(i64::MAX, |cursor| cursor.ticket.as_i64());
            vec![List::Closed(filter, before)]
        }
    };
    // One more tells whether there is another page.
    let wanted = limit + 1;
    let look = queue::PAGE_LOOK.max(wanted);
    let mut page = Page::default();
    let mut transaction = db.begin().await?;
    if words.is_some() {
        in_time(&mut transaction).await?;
    }
    for list in lists {
        let wanted = wanted - count(&page.rows);
        if wanted <= 0 || page.next.is_some() {
            break;
        }
        let found = match words {
            None => list.look(&mut transaction, office, None, (look, wanted)).await?,
            Some(words) => list.search(&mut transaction, office, words, wanted).await?,
        };
        page.rows.extend(found.rows);
        page.next = found.last;
    }
    transaction.commit().await?;
    if count(&page.rows) > limit {
        page.rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        page.next = page.rows.last().map(QueueRow::cursor);
    }
    Ok(page)
}

async fn in_time(db: &mut PgConnection) -> Result<(), StoreError> {
    let limit = format!("SET LOCAL statement_timeout = {}", WITHIN.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(db).await?;
    Ok(())
}

fn count<T>(rows: &[T]) -> i64 {
    i64::try_from(rows.len()).unwrap_or(i64::MAX)
}

/// What is listed, from a place on.
#[derive(Clone, Copy)]
enum List<'a> {
    Open(&'a Filter, Stretch),
    /// Before this number.
    Closed(&'a Filter, i64),
}

impl List<'_> {
    async fn look(
        self,
        db: &mut PgConnection,
        office: OfficeId,
        index: Option<&str>,
        look_and_wanted: (i64, i64),
    ) -> Result<Looked, StoreError> {
        match self {
            Self::Open(filter, stretch) => {
                queue::look_at_open(db, office, (filter, stretch), index, look_and_wanted).await
            }
            Self::Closed(filter, before) => {
                queue::look_at_closed(db, office, (filter, before), index, look_and_wanted).await
            }
        }
    }

    /// A common word fills a page from the list's first tickets; a rare one is found in the index
    /// at once. How common this one is, the first hundreds tell; then the shorter way is taken.
    async fn search(
        self,
        db: &mut PgConnection,
        office: OfficeId,
        words: &Words,
        limit: i64,
    ) -> Result<Looked, StoreError> {
        let Some(index) = words.index.as_deref() else {
            return self.by(Way::Look(BLIND_LOOK), db, office, words, None, limit).await;
        };
        let first = Way::Look(FIRST_LOOK);
        let mut found = self.by(first, db, office, words, Some(index), limit).await?;
        // Of a list that ended there is nothing to ask the index for.
        if count(&found.rows) < limit && found.last.is_some() {
            let all = self.size(db).await?;
            let mut more = Vec::new();
            // With h hits among the first n a page needs a look at n * limit / h; the index holds
            // about all * h / n tickets, each of them to be fetched.
            let look = FIRST_LOOK * limit / count(&found.rows).max(1);
            let fetched = all * count(&found.rows) / FIRST_LOOK;
            if look < fetched.min(LONGEST_LOOK) {
                let generous = Way::Look(look * 3);
                more = self.by(generous, db, office, words, Some(index), limit).await?.rows;
            }
            if count(&more) < limit {
                more = self.by(Way::Index, db, office, words, Some(index), limit).await?.rows;
            }
            // What came in a moment ago is not in the index yet.
            let known: std::collections::HashSet<_> = more.iter().map(|row| row.ticket).collect();
            more.extend(found.rows.into_iter().filter(|row| !known.contains(&row.ticket)));
            match self {
                Self::Open(..) => more.sort_by_key(|row| row.cursor().key()),
                Self::Closed(..) => more.sort_by_key(|row| std::cmp::Reverse(row.ticket)),
            }
            more.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            found = Looked { rows: more, last: None };
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
    ) -> Result<Looked, StoreError> {
        const MOST_AT_ONCE: i64 = 2000;
        // The one kind of index that can be read in no other way.
        let bitmaps = match way {
            Way::Look(_) => "SET LOCAL enable_bitmapscan = off",
            Way::Index => "SET LOCAL enable_bitmapscan = on",
        };
        sqlx::raw_sql(bitmaps).execute(&mut *db).await?;
        let mut found = Looked::default();
        let mut at_once = limit + 10;
        let mut looked = 0;
        loop {
            let candidates = match way {
                Way::Look(look) => self.look(db, office, index, (look, at_once)).await?,
                Way::Index => self.indexed(db, office, index, at_once).await?,
            };
            let last = candidates.rows.last().map(QueueRow::cursor);
            let full = count(&candidates.rows) == at_once;
            looked += count(&candidates.rows);
            found.rows.extend(holding(db, office, &words.words, candidates.rows).await?);
            found.last = candidates.last;
            let Some(last) = last.filter(|_| full && count(&found.rows) < limit) else {
                found.rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                return Ok(found);
            };
            // A page that is not full yet says how far it has come, and goes on from there.
            if matches!(way, Way::Look(look) if looked >= look) {
                found.last = Some(last);
                return Ok(found);
            }
            match &mut self {
                Self::Open(_, stretch) => stretch.after = last,
                Self::Closed(_, before) => *before = last.ticket.as_i64(),
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

    async fn indexed(
        self,
        db: &mut PgConnection,
        office: OfficeId,
        index: Option<&str>,
        limit: i64,
    ) -> Result<Looked, StoreError> {
        // Of these none is counted.
        const LOOK: i64 = -1;
        let rows = match self {
            // `+ 0` keeps the planner from reading the office's tickets one by one.
            Self::Open(filter, stretch) => queue::open_tickets!(
                "0::bigint",
                "true",
                "WITH s AS MATERIALIZED (
                     SELECT office_id, ticket FROM ticket_search
                     WHERE is_open AND v @@ $14::text::tsquery AND office_id + 0 = $1)
                 SELECT t.* FROM s CROSS JOIN LATERAL (SELECT * FROM ticket t
                     WHERE t.office_id = s.office_id AND t.ticket = s.ticket LIMIT 1) t
                 WHERE t.is_open AND (urgency, due_at, t.ticket) > ($2, $3, $4)
                   AND (urgency, due_at) < ($5::smallint, $6::timestamptz)",
                "",
                office,
                filter,
                stretch,
                index,
                LOOK,
                limit
            )
            .fetch_all(db)
            .await?,
            Self::Closed(filter, before) => queue::closed_tickets!(
                "0::bigint",
                "NOT is_open",
                "WITH s AS MATERIALIZED (
                     SELECT office_id, ticket FROM ticket_search
                     WHERE v @@ $9::text::tsquery AND office_id + 0 = $1 AND ticket + 0 < $2)
                 SELECT s.ticket, t.office_id, channel, state, level, urgency, overdue, problem,
                        citizen_name, citizen_phone, registered_at, accepted_at, follow_up_at, due_at,
                        provisional, accountable, unit, is_open
                 FROM (SELECT * FROM s ORDER BY ticket DESC) s
                 CROSS JOIN LATERAL (SELECT * FROM ticket t
                     WHERE t.office_id = s.office_id AND t.ticket = s.ticket LIMIT 1) t
                 ORDER BY s.ticket DESC",
                "",
                office,
                filter,
                before,
                index,
                LOOK,
                limit
            )
            .fetch_all(db)
            .await?,
        };
        Looked::of(rows, LOOK)
    }
}

/// Those of the candidates that hold every word in one of their fields or messages.
async fn holding(
    db: &mut PgConnection,
    office: OfficeId,
    words: &[String],
    candidates: Vec<QueueRow>,
) -> Result<Vec<QueueRow>, StoreError> {
    // What the fields do not say is looked for in the messages.
    let (mut tickets, mut wanted) = (Vec::new(), Vec::new());
    for row in &candidates {
        let fields = [&row.citizen_name, &row.citizen_phone, &Some(row.problem.clone())];
        let number = row.ticket.display("");
        let said: Vec<String> = fields.into_iter().flatten().map(|field| plain(field)).collect();
        for word in words {
            if !(number.trim_start_matches('-').contains(word)
                || said.iter().any(|field| field.contains(word)))
            {
                tickets.push(row.ticket.as_i64());
                wanted.push(word.as_str());
            }
        }
    }
    if tickets.is_empty() {
        return Ok(candidates);
    }
    let without = sqlx::query_scalar!(
        r#"SELECT i.ticket AS "ticket!" FROM unnest($2::bigint[], $3::text[]) AS i(ticket, word)
           WHERE NOT coalesce((SELECT true FROM message m
               WHERE m.office_id = $1 AND m.ticket = i.ticket
                 AND position(word IN search_text(m.text)) > 0 LIMIT 1), false)"#,
        office.0,
        &tickets,
        &wanted as &[&str]
    )
    .fetch_all(db)
    .await?;
    let without: std::collections::HashSet<i64> = without.into_iter().collect();
    Ok(candidates.into_iter().filter(|row| !without.contains(&row.ticket.as_i64())).collect())
}

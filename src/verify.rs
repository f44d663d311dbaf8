//! Checks the register and the trail (invariants 3 and 5): numbers without gap or double, every
//! ticket's chain of events unbroken and its end the one that the ticket holds, every ticket
//! standing where its events lead, every original as it came, every submission that was answered
//! with its ticket, every open matter with its limit armed, everything that was told in the trail.
//!
//! It finds what was changed beside the program. It proves nothing against somebody who may write
//! to the database and takes the trouble: the chain has no key, so that they can compute it anew and
//! change everything else to fit. And a message's words are checked only as far as the original goes:
//! how a channel's original reads is the channel's knowledge.

use crate::{
    domain::{
        chain::{Entry, START},
        event::Happened,
        id::OfficeId,
        standing::Standing,
    },
    store::{
        StoreError,
        verify::{self as store, Stored},
    },
};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;

/// What was checked, and what is wrong.
#[derive(Debug, Default)]
pub struct Report {
    /// Tickets in the registers.
    pub tickets: i64,
    /// Events in the chains.
    pub events: u64,
    /// Each a sentence that names the place.
    pub faults: Vec<String>,
}

/// Of one kind; more would only scroll.
const FAULTS: i64 = 100;

/// Checks everything, in one snapshot: a running gateway does not disturb it.
///
/// # Errors
/// [`StoreError`].
pub async fn verify(db: &mut PgConnection) -> Result<Report, StoreError> {
    let mut transaction = db.begin().await?;
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *transaction)
        .await?;
    crate::store::as_long_as_it_takes(&mut transaction).await?;
    let mut report = Report::default();
    // The chains go by key, page by page; the rest compares whole tables.
    chains(&mut transaction, &mut report).await?;
    crate::store::read_whole_tables(&mut transaction).await?;
    register(&mut transaction, &mut report).await?;
    report.faults.extend(store::orphans(&mut transaction, FAULTS).await?);
    Ok(report)
}

async fn register(db: &mut PgConnection, report: &mut Report) -> Result<(), StoreError> {
    for year in store::years(db).await? {
        report.tickets += year.tickets;
        let place = format!("register {} of office {}", year.year, year.office);
        if year.last > year.counter {
            report.faults.push(format!(
                "{place}: number {} is beyond the counter, which stands at {}",
                year.last, year.counter
            ));
        }
        if year.tickets != i64::from(year.counter) || year.first != 1 {
            let upto = year.counter.max(year.last);
            for gap in store::gaps(db, year.office, year.year, upto, FAULTS).await? {
                report.faults.push(format!("{place}: number {gap} is missing"));
            }
        }
    }
    Ok(())
}

async fn chains(db: &mut PgConnection, report: &mut Report) -> Result<(), StoreError> {
    const PAGE: i64 = 5000;
    let mut after = (OfficeId(i32::MIN), 0, 0);
    let mut rows = Rows::new();
    let mut before: Option<Stored> = None;
    // Where the trail so far leads; `None` once it holds something that this version cannot read.
    let mut standing: Option<Standing> = None;
    loop {
        let page = store::events_after(db, after, PAGE).await?;
        let full = page.len() as i64 == PAGE;
        if let (Some(first), Some(last)) = (page.first(), page.last()) {
            rows.extend(store::standings(db, key(first), key(last)).await?);
        }
        for event in page {
            after = (event.office, event.ticket.as_i64(), event.seq);
            report.events += 1;
            let follows = before.as_ref().filter(|b| key(b) == key(&event));
            if follows.is_none()
                && let Some(last) = &before
            {
                end(last, standing.take().as_ref(), &mut rows, report);
            }
            let happened = Happened::read(&event.kind, &event.data);
            link(follows, &event, happened.as_ref(), report);
            standing = match (follows, happened) {
                (None, Some(first)) => Standing::after(&first),
                (Some(_), Some(happened)) => standing.map(|mut standing| {
                    standing.then(&happened);
                    standing
                }),
                (_, None) => None,
            };
            before = Some(event);
        }
        if !full {
            break;
        }
    }
    if let Some(last) = &before {
        end(last, standing.as_ref(), &mut rows, report);
    }
    Ok(())
}

/// How tickets stand by their rows.
type Rows = BTreeMap<(OfficeId, i64), Option<Standing>>;

fn key(event: &Stored) -> (OfficeId, i64) {
    (event.office, event.ticket.as_i64())
}

fn link(before: Option<&Stored>, event: &Stored, happened: Option<&Happened>, report: &mut Report) {
    let place = place(event);
    let (seq, chain) = before.map_or((0, START), |before| (before.seq, before.hash));
    if event.seq != seq + 1 {
        report.faults.push(format!("{place}: event {} is missing", seq + 1));
    }
    let entry = Entry {
        office: event.office,
        ticket: event.ticket,
        seq: event.seq,
        at: event.at,
        actor: &event.actor,
        kind: &event.kind,
        data: &event.data,
    };
    if entry.link(chain) != event.hash {
        report.faults.push(format!("{place}: event {} does not fit its hash", event.seq));
    }
    let digest = match happened {
        Some(Happened::Registered { digest, .. } | Happened::MessageReceived { digest, .. }) => {
            digest
        }
        happened => {
            if happened.is_some() && event.raw.is_some() {
                let seq = event.seq;
                report
                    .faults
                    .push(format!("{place}: event {seq} is none of a message and has one"));
            }
            return;
        }
    };
    match &event.raw {
        None => {
            report.faults.push(format!("{place}: the message of event {} is missing", event.seq))
        }
        Some(raw) if hex::encode(Sha256::digest(raw)) != *digest => {
            report.faults.push(format!("{place}: the message of event {} was changed", event.seq));
        }
        Some(_) => {}
    }
}

/// The ticket keeps its chain's end: events cut off at the end would leave a whole chain. And it
/// stands where its events lead.
fn end(last: &Stored, standing: Option<&Standing>, rows: &mut Rows, report: &mut Report) {
    let place = place(last);
    match (standing, rows.remove(&key(last))) {
        (_, Some(None)) => report.faults.push(format!("{place}: its row cannot be read")),
        (Some(standing), Some(Some(row))) => {
            for column in standing.differs_from(&row) {
                report.faults.push(format!("{place}: {column} is not what the trail says"));
            }
        }
        (None, _) | (_, None) => {}
    }
    match &last.head {
        None => report.faults.push(format!("{place}: events without a ticket")),
        Some((events, chain)) if *events != last.seq || chain != &last.hash.0 => {
            report.faults.push(format!("{place}: the trail does not end where the ticket says"));
        }
        Some(_) => {}
    }
}

fn place(event: &Stored) -> String {
    format!("ticket {} of office {}", event.ticket.as_i64(), event.office)
}

//! Recordings of the telephone go by the rule of their source (`audio.keep_days`): so many days after
//! their ticket was closed, original and play copy, and what a machine has understood of them. What
//! was told of them stays, and the trail says when they went and by which rule. Never those of an
//! open ticket, and never those that somebody has ordered to be kept (保留录音). A ticket that ended
//! in favour of another one is the same matter: its recordings stay as long as that one's would.

use crate::{
    calls::Sources,
    domain::{
        event::{Actor, Happened},
        register::RegisterNumber,
    },
    offices::{Office, Offices},
    store::{self, StoreError, recording as rows},
    telemetry,
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Connection, PgConnection, PgPool};

/// Recordings of one source that are looked for at a time.
const AT_A_TIME: i64 = 1000;
/// So many tickets that ended one in favour of the next are followed; no office joins more.
const JOINED: usize = 10;

/// Lets go of the recordings whose time is over; the content goes with what nobody names
/// ([`super::Keeper::tidy`]). Returns how many.
///
/// # Errors
/// [`StoreError`]; what is left goes the next time.
pub async fn remove_old(
    pool: &PgPool,
    offices: &Offices,
    sources: &Sources,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let mut db = pool.acquire().await?;
    let mut removed = 0;
    for office in offices.all().values() {
        for name in rows::sources(&mut db, office.id).await? {
            let Some(source) = sources.of(office.id, &name) else {
                // By which rule they were to go nobody knows any more, and what is gone is gone.
                tracing::warn!(
                    office.id = office.id.0,
                    source = name,
                    "recordings stay: their source is not configured"
                );
                continue;
            };
            let days = source.settings.audio.keep_days;
            if days == 0 {
                continue;
            }
            let before = now - TimeDelta::days(days.into());
            let (mut after, mut more) = (None, true);
            while more {
                let of = (office.id, name.as_str());
                let (tickets, last) =
                    rows::to_remove(&mut db, of, before, after, AT_A_TIME).await?;
                (after, more) = (last, last.is_some());
                for ticket in tickets {
                    removed +=
                        remove_of(&mut db, office, &name, ticket, (before, now, days)).await?;
                }
            }
        }
    }
    Ok(removed)
}

/// Lets go of the recordings that a ticket has of a source, where it may; returns how many.
async fn remove_of(
    db: &mut PgConnection,
    office: &Office,
    source: &str,
    ticket: RegisterNumber,
    (before, now, days): (DateTime<Utc>, DateTime<Utc>, u32),
) -> Result<usize, StoreError> {
    let mut transaction = db.begin().await?;
    let mut locked = match store::ticket::lock(&mut transaction, office.id, ticket).await {
        Ok(Some(locked)) => locked,
        Ok(None) => return Ok(0),
        // One that cannot be read keeps no other's recordings here.
        Err(error) if !error.is_transient() => {
            let error = telemetry::causes(&error);
            tracing::error!(ticket = ticket.as_i64(), %error, "its recordings stay: the ticket cannot be read");
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    // Under the lock, for it may have been taken up again, or be held, since.
    if !may_go(&mut transaction, office, ticket, before).await? {
        return Ok(0);
    }
    let of = (office.id, source);
    let messages = rows::remove_recordings(&mut transaction, of, ticket, now).await?;
    if messages.is_empty() {
        return Ok(0); // another replica was faster
    }
    let removed = messages.len();
    let happened = Happened::RecordingsRemoved { messages, days };
    store::ticket::write(&mut transaction, &mut locked, Actor::Gateway, &happened, now).await?;
    transaction.commit().await?;
    Ok(removed)
}

/// Whether the ticket, and the one that it ended in favour of, let their recordings go.
async fn may_go(
    db: &mut PgConnection,
    office: &Office,
    mut ticket: RegisterNumber,
    before: DateTime<Utc>,
) -> Result<bool, StoreError> {
    for _ in 0..JOINED {
        let of = match rows::lets_go(db, office.id, ticket, before).await? {
            Some((true, of)) => of,
            Some((false, _)) => return Ok(false),
            None => return Ok(true),
        };
        match of.and_then(|number| RegisterNumber::parse(&number, &office.prefix).ok()) {
            Some(other) => ticket = other,
            None => return Ok(true),
        }
    }
    Ok(false)
}

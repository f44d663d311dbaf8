//! Trying again with what was put aside: a newer program may understand it, or the database takes
//! it now.

use crate::{
    calls,
    domain::{id::OfficeId, id::QuarantineId, register::RegisterNumber},
    http::Shared,
    intake::{AcceptError, Accepted},
    store::{self, StoreError, quarantine::Item},
};
use intake_contract::{Meaning, Submission};
use sqlx::Connection;

/// Why a replay did not work; the item stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It is not open any more.
    #[error("no such open item")]
    Gone,
    /// The channel still cannot read it.
    #[error("not understood")]
    NotUnderstood,
    /// The intake could not take it now.
    #[error("busy")]
    Busy,
    /// The database.
    #[error("not done")]
    Store(#[source] StoreError),
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for ReplayError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Sends an item through the intake again and marks it as handled; returns its ticket, unless it
/// was put aside once more.
///
/// Not one transaction: the intake has its own. A crash between the two leaves the item open, and
/// the next replay finds the ticket by the submission's identity.
///
/// # Errors
/// [`ReplayError`].
pub async fn replay(
    app: &Shared,
    office: OfficeId,
    id: QuarantineId,
    by: &str,
) -> Result<Option<RegisterNumber>, ReplayError> {
    let mut db = app.pool.acquire().await?;
    let mut transaction = db.begin().await?;
    let item = store::quarantine::lock_open(&mut transaction, office, id)
        .await?
        .ok_or(ReplayError::Gone)?;
    let source = app.sources.of(office, &item.source);
    if let Some(source) = source.filter(|s| s.push.is_some() || item.reason == calls::DIFFERS) {
        transaction.commit().await?;
        drop(db);
        return replay_call(app, source, id, &item, by).await;
    }
    let submission = read(app, office, &item).ok_or(ReplayError::NotUnderstood)?;
    store::quarantine::release_identity(&mut transaction, office, &item).await?;
    transaction.commit().await?;
    drop(db);
    // An officer has read it and wants a ticket of it, whatever its form.
    let submission = Submission { meaning: Meaning::Statement, ..submission };
    let accepted = calls::accept(app, office, submission, None, app.clock.now()).await;
    let accepted = accepted.map_err(|error| match error {
        AcceptError::Invalid(_) => ReplayError::NotUnderstood,
        AcceptError::Busy(_) | AcceptError::NoOffice => ReplayError::Busy,
    })?;
    // Its identity belongs to another content: the ticket there does not hold this one.
    if let Accepted::Ticket { differs: true, .. } = accepted {
        return Err(ReplayError::NotUnderstood);
    }
    let Some(ticket) = accepted.ticket() else { return Ok(None) };
    let mut db = app.pool.acquire().await?;
    let now = app.clock.now();
    store::quarantine::handled(&mut db, office, id, "replayed", by, now, Some(ticket)).await?;
    Ok(Some(ticket))
}

/// A push of a source of calls: it may tell of calls without a ticket, or of several.
async fn replay_call(
    app: &Shared,
    source: &calls::Source,
    id: QuarantineId,
    item: &Item,
    by: &str,
) -> Result<Option<RegisterNumber>, ReplayError> {
    let ticket = if item.reason == calls::DIFFERS {
        // Older ones have the facts where the original is now.
        let facts = match &item.submission {
            Some(facts) => serde_json::from_value(facts.clone()),
            None => serde_json::from_slice(&item.raw),
        };
        let facts = facts.map_err(|_| ReplayError::NotUnderstood)?;
        calls::replay_apart(app, source, facts, &item.raw).await?
    } else {
        let replayed = calls::replay(app, source, &item.raw).await?;
        replayed.ok_or(ReplayError::NotUnderstood)?
    };
    let mut db = app.pool.acquire().await?;
    let now = app.clock.now();
    store::quarantine::handled(&mut db, source.office, id, "replayed", by, now, ticket).await?;
    Ok(ticket)
}

fn read(app: &Shared, office: OfficeId, item: &Item) -> Option<Submission> {
    if let Some(submission) = &item.submission {
        return serde_json::from_value(submission.clone()).ok();
    }
    let (kind, id) = item.source.split_once(':')?;
    let (owner, channel) = app.channels.get(&format!("{kind}/{id}"))?;
    if *owner != office {
        return None;
    }
    channel.reread(&item.raw, item.received_at).ok()
}

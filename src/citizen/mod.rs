//! What citizens do with their own ticket: say more, judge the result, take it back, find it again.
//!
//! The use cases work inside the caller's transaction, so that a page and a word on WeChat do the
//! same; whoever calls commits, and then wakes the relay and the pages.

pub mod finding;
pub mod token;
pub mod upload;

use crate::{
    domain::{
        event::{Actor, Happened},
        id::OfficeId,
        register::RegisterNumber,
        ticket::{Evaluation, NotAllowed, State},
    },
    offices::Office,
    store::{self, StoreError, citizen::NewMessage},
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::clean_text;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use upload::Upload;

/// The longest text of an evaluation and of a reason, in characters.
pub const SHORT_TEXT: usize = 500;
/// The longest text of a further message, in characters.
pub const LONG_TEXT: usize = 2000;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum CitizenError {
    /// No ticket of this number.
    #[error("no such ticket")]
    NoTicket,
    /// The rules do not allow it.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// Longer than [`SHORT_TEXT`] or [`LONG_TEXT`].
    #[error("the text is too long")]
    TooLong,
    /// The database.
    #[error("not done")]
    Store(#[source] StoreError),
}

impl From<StoreError> for CitizenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for CitizenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// R7.d: judges the result, once, with a text where the citizen wants to say more. Who is not
/// satisfied is heard by the handler and by the lead on duty.
///
/// # Errors
/// [`CitizenError`]; [`NotAllowed::AlreadyResolved`] when it was judged before.
pub async fn evaluate(
    db: &mut PgConnection,
    office: &Office,
    ticket: RegisterNumber,
    evaluation: Evaluation,
    text: &str,
    now: DateTime<Utc>,
) -> Result<(), CitizenError> {
    let text = within(text, SHORT_TEXT)?;
    let mut locked =
        store::ticket::lock(db, office.id, ticket).await?.ok_or(CitizenError::NoTicket)?;
    let happened =
        locked.ticket.evaluate(evaluation, Some(&text)).map_err(CitizenError::NotAllowed)?;
    store::ticket::write(db, &mut locked, Actor::Citizen, &happened, now).await?;
    if evaluation.is_dissatisfied() {
        // The grade and no word more: notices leave the house.
        let data = json!({ "evaluation": evaluation });
        tell(db, office, ticket, "evaluated", false, data, now).await?;
    }
    Ok(())
}

/// Takes the matter back; whoever has it in hand is told.
///
/// # Errors
/// [`CitizenError`]; [`NotAllowed::AlreadyResolved`] when there is a result.
pub async fn withdraw(
    db: &mut PgConnection,
    office: &Office,
    ticket: RegisterNumber,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), CitizenError> {
    let reason = within(reason, SHORT_TEXT)?;
    let mut locked =
        store::ticket::lock(db, office.id, ticket).await?.ok_or(CitizenError::NoTicket)?;
    let happened = locked.ticket.withdraw(Some(&reason)).map_err(CitizenError::NotAllowed)?;
    store::ticket::write(db, &mut locked, Actor::Citizen, &happened, now).await?;
    // What they write from now on is another matter.
    store::conversation::set_grows(db, office.id, ticket, false).await?;
    store::conversation::set_beside(db, office.id, ticket).await?;
    tell(db, office, ticket, "withdrawn", false, json!({}), now).await?;
    Ok(())
}

/// Something more that a citizen sends on the ticket's page.
#[derive(Debug)]
pub struct More<'a> {
    /// The words; may be empty where there are files.
    pub text: &'a str,
    /// Photos and documents.
    pub files: &'a [Upload],
    /// What the form was sent with: the same form with the same content is the same message.
    pub form: &'a str,
}

/// What became of a further message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is on the ticket; `urgent` when the ticket is an emergency (RD3.2).
    Kept {
        /// RD3.2.
        urgent: bool,
    },
    /// It was there already.
    Before,
}

/// Appends a message to an open ticket and tells its handler. What waits for material goes on
/// waiting: the handler judges whether it is the right one.
///
/// # Errors
/// [`CitizenError`]; [`NotAllowed::TextMissing`] for nothing at all, [`NotAllowed::AlreadyClosed`]
/// once the number is struck off.
pub async fn add(
    db: &mut PgConnection,
    office: &Office,
    ticket: RegisterNumber,
    more: More<'_>,
    now: DateTime<Utc>,
) -> Result<Added, CitizenError> {
    let text = within(more.text, LONG_TEXT)?;
    if text.is_empty() && more.files.is_empty() {
        return Err(CitizenError::NotAllowed(NotAllowed::TextMissing));
    }
    let mut locked =
        store::ticket::lock(db, office.id, ticket).await?.ok_or(CitizenError::NoTicket)?;
    let files = more.files.iter().map(|file| {
        let (digest, kind) = (hex::encode(file.digest), file.kind.content_type());
        json!({ "sha256": digest, "type": kind, "name": file.name })
    });
    let files: Vec<_> = files.collect();
    let raw = json!({ "text": text, "files": files }).to_string();
    let digest: [u8; 32] = Sha256::digest(raw.as_bytes()).into();
    let source_id = format!("{}/{}/{}", ticket.as_i64(), more.form, hex::encode(&digest[..16]));
    if !store::citizen::recognise(db, &locked, &source_id, &digest, now).await? {
        return Ok(Added::Before);
    }
    if matches!(locked.ticket.state, State::Closed { .. }) {
        return Err(CitizenError::NotAllowed(NotAllowed::AlreadyClosed));
    }
    let (channel, was_urgent) = store::citizen::channel(db, office.id, ticket).await?;
    let becomes_urgent = !was_urgent && office.policy.sounds_urgent(&text);
    if becomes_urgent {
        store::citizen::make_urgent(db, office.id, ticket).await?;
    }
    let happened = Happened::MessageReceived {
        channel,
        digest: hex::encode(digest),
        urgent: becomes_urgent,
        page: true,
        contact: false,
    };
    store::ticket::write(db, &mut locked, Actor::Citizen, &happened, now).await?;
    let mut attachments = Vec::with_capacity(more.files.len());
    for file in more.files {
        attachments.push(upload::keep_upload(db, office.id, file, now).await?);
    }
    let message = NewMessage { text: &text, attachments: &attachments, raw: raw.as_bytes() };
    store::citizen::message(db, &locked, &message, now).await?;
    let urgent = was_urgent || becomes_urgent;
    tell(db, office, ticket, "grew", urgent, json!({}), now).await?;
    Ok(Added::Kept { urgent })
}

/// Ends every link to a ticket that was made until now; a new one can be made a second later.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke_links(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    // Links say when they were made to the second, downwards.
    store::citizen::revoke(db, office, ticket, now + TimeDelta::milliseconds(1)).await
}

/// Whether a link was ended before its time.
///
/// # Errors
/// [`StoreError`].
pub async fn is_revoked(db: &mut PgConnection, opened: &token::Opened) -> Result<bool, StoreError> {
    let before = store::citizen::revoked_before(db, opened.office.id, opened.ticket).await?;
    Ok(before.is_some_and(|before| opened.issued_at < before))
}

fn within(text: &str, limit: usize) -> Result<String, CitizenError> {
    // A browser ends lines with CR LF and counts them as one.
    let text = clean_text(text).trim().to_owned();
    if text.chars().count() > limit { Err(CitizenError::TooLong) } else { Ok(text) }
}

/// Something to tell the staff: an emergency now, the rest while the office is open.
async fn tell(
    db: &mut PgConnection,
    office: &Office,
    ticket: RegisterNumber,
    kind: &'static str,
    urgent: bool,
    data: serde_json::Value,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let not_before = if urgent { now } else { office.staff_told_from(now) };
    store::ticket::tell(db, (office.id, ticket), kind, urgent, &data, (now, not_before)).await
}

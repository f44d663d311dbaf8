//! What citizens do on their pages: messages and files they add, links, attempts that are counted.

use super::{StoreError, bad, number, ticket::Locked};
use crate::domain::{id::OfficeId, register::RegisterNumber, ticket::State};
use chrono::{DateTime, Utc};
use intake_contract::{Attachment, ChannelKind};
use sqlx::PgConnection;

/// Enters the identity of a message from a ticket's page; false when it was there already. The
/// caller holds the ticket's lock, and records the message as its next event.
///
/// # Errors
/// [`StoreError`].
pub async fn recognise(
    db: &mut PgConnection,
    locked: &Locked,
    source_id: &str,
    digest: &[u8],
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "INSERT INTO inbound (office_id, source, source_id, digest, received_at, ticket, seq,
            appended, follow_up_at, due_at, provisional)
         VALUES ($1, 'page', $2, $3, $4, $5, $6, true, $7, $8, $9) ON CONFLICT DO NOTHING",
        locked.office.0,
        source_id,
        digest,
        now,
        locked.number.as_i64(),
        locked.events() + 1,
        locked.follow_up_at,
        locked.ticket.due_at,
        locked.ticket.provisional
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A message as it is entered.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of message")]
pub struct NewMessage<'a> {
    pub text: &'a str,
    pub attachments: &'a [Attachment],
    pub raw: &'a [u8],
}

/// Enters the message that the ticket's newest event records.
///
/// # Errors
/// [`StoreError`].
pub async fn message(
    db: &mut PgConnection,
    locked: &Locked,
    message: &NewMessage<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let attachments = (!message.attachments.is_empty())
        .then(|| serde_json::to_value(message.attachments))
        .transpose()
        .map_err(|_| bad("message", "attachments"))?;
    sqlx::query!(
        "INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, attachments, raw)
         VALUES ($1, $2, $3, $4, $4, $5, $6, $7)",
        locked.office.0,
        locked.number.as_i64(),
        locked.events(),
        now,
        message.text,
        attachments,
        message.raw
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "UPDATE ticket SET material_came_at = $3
         WHERE office_id = $1 AND ticket = $2 AND state = 'awaiting_citizen'",
        locked.office.0,
        locked.number.as_i64(),
        now
    )
    .execute(&mut *db)
    .await?;
    for (n, attachment) in message.attachments.iter().enumerate() {
        let (office, ticket, seq) = (locked.office, locked.number, locked.events());
        let n = i16::try_from(n).map_err(|_| bad("media", "n"))?;
        let key = super::media::Key { office, ticket, seq, n };
        let lies = (crate::media::fetch::UPLOAD, attachment.reference.as_str());
        super::media::expect(db, key, attachment.kind, lies, now).await?;
    }
    Ok(())
}

/// Where a ticket came in, and whether it is an emergency.
///
/// # Errors
/// [`StoreError`].
pub async fn channel(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<(ChannelKind, bool), StoreError> {
    let row = sqlx::query!(
        "SELECT channel, urgency FROM ticket WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .fetch_one(db)
    .await?;
    let channel = ChannelKind::parse(&row.channel).ok_or(bad("ticket", "channel"))?;
    Ok((channel, row.urgency == 0))
}

/// RD3.2: the ticket is an emergency from now on.
///
/// # Errors
/// [`StoreError`].
pub async fn make_urgent(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE ticket SET urgency = 0 WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .execute(db)
    .await?;
    super::changed("ticket", &done, 1)
}

/// Keeps a file's content with its ticket; the same again changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn keep_upload(
    db: &mut PgConnection,
    office: OfficeId,
    digest: &[u8],
    content: &[u8],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO citizen_upload (office_id, digest, content, kept_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (office_id, digest) DO UPDATE SET kept_at = excluded.kept_at",
        office.0,
        digest,
        content,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An upload that is not in the object storage yet, and when it came last.
///
/// # Errors
/// [`StoreError`].
pub async fn upload(
    db: &mut PgConnection,
    office: OfficeId,
    digest: &[u8],
) -> Result<Option<(Vec<u8>, DateTime<Utc>)>, StoreError> {
    let row = sqlx::query!(
        "SELECT content, kept_at FROM citizen_upload WHERE office_id = $1 AND digest = $2",
        office.0,
        digest
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.content, row.kept_at)))
}

/// Removes an upload that is in the object storage, unless another message waits for it or it came
/// once more.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_upload(
    db: &mut PgConnection,
    office: OfficeId,
    digest: &[u8],
    reference: &str,
    kept_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM citizen_upload WHERE office_id = $1 AND digest = $2 AND kept_at = $4
           AND NOT EXISTS (SELECT FROM media WHERE state = 'waiting' AND next_try_at IS NOT NULL
               AND office_id = $1 AND reference = $3)",
        office.0,
        digest,
        reference,
        kept_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Before when a ticket's links were ended; `None` when they never were.
///
/// # Errors
/// [`StoreError`].
pub async fn revoked_before(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT revoked_before FROM citizen_link WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?)
}

/// Ends a ticket's links that were made before this moment.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    before: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO citizen_link (office_id, ticket, revoked_before) VALUES ($1, $2, $3)
         ON CONFLICT (office_id, ticket) DO UPDATE SET revoked_before = excluded.revoked_before",
        office.0,
        ticket.as_i64(),
        before
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Counts an attempt, or something of this `weight`, before it is looked at, so that attempts at the
/// same time cannot all be the first; says since when they are counted once it is more than `allowed`
/// since `since`.
///
/// # Errors
/// [`StoreError`].
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "within sqlx's macro"
)]
pub async fn attempt(
    db: &mut PgConnection,
    office: OfficeId,
    who: &str,
    (weight, allowed): (i32, i32),
    now: DateTime<Utc>,
    since: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let row = sqlx::query!(
        "INSERT INTO citizen_attempt AS a (office_id, who, attempts, since) VALUES ($1, $2, $6, $3)
         ON CONFLICT (office_id, who) DO UPDATE SET
             attempts = CASE WHEN a.since < $4 THEN $6 ELSE least(a.attempts, $5) + $6 END,
             since = CASE WHEN a.since < $4 THEN $3 ELSE a.since END
         RETURNING attempts, since",
        office.0,
        who,
        now,
        since,
        allowed,
        weight
    )
    .fetch_one(db)
    .await?;
    Ok((row.attempts > allowed).then_some(row.since))
}

/// Takes an attempt back that turned out to be right.
///
/// # Errors
/// [`StoreError`].
pub async fn take_back(
    db: &mut PgConnection,
    office: OfficeId,
    who: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE citizen_attempt SET attempts = attempts - 1
         WHERE office_id = $1 AND who = $2 AND attempts > 0",
        office.0,
        who
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Removes files that came before then and that no message has waited for: a message that was not
/// accepted, and its sender never came again. Nothing while any file is waited for.
///
/// # Errors
/// [`StoreError`].
pub async fn purge_uploads(
    db: &mut PgConnection,
    before: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let removed = sqlx::query!(
        "DELETE FROM citizen_upload WHERE kept_at < $1
           AND NOT EXISTS (SELECT FROM media WHERE state = 'waiting' AND next_try_at IS NOT NULL
               AND reference LIKE 'upload:%')",
        before
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// Removes attempts that nobody counts any more: addresses are not kept for their own sake.
///
/// # Errors
/// [`StoreError`].
pub async fn purge(db: &mut PgConnection, since: DateTime<Utc>) -> Result<u64, StoreError> {
    let removed =
        sqlx::query!("DELETE FROM citizen_attempt WHERE since < $1", since).execute(db).await?;
    Ok(removed.rows_affected())
}

/// The telephone number on a ticket; `None` when there is none, or no such ticket.
///
/// # Errors
/// [`StoreError`].
pub async fn phone(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query_scalar!(
        "SELECT citizen_phone FROM ticket WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.flatten())
}

/// A line of a citizen's own list.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of ticket")]
pub struct OwnRow {
    pub ticket: RegisterNumber,
    pub state: String,
    pub problem: String,
    pub registered_at: DateTime<Utc>,
    pub due_at: DateTime<Utc>,
    pub provisional: bool,
}

/// A citizen's tickets in one channel: what is open, then what was closed since `since`, newest
/// first, `limit` of each at most.
///
/// # Errors
/// [`StoreError`].
pub async fn of_thread(
    db: &mut PgConnection,
    office: OfficeId,
    thread: &str,
    since: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<OwnRow>, StoreError> {
    let rows = sqlx::query!(
        r#"(SELECT ticket AS "ticket!",
                  CASE outcome WHEN 'withdrawn' THEN outcome ELSE state END AS "state!", problem AS "problem!",
                  registered_at AS "registered_at!", due_at AS "due_at!", provisional AS "provisional!"
            FROM ticket WHERE office_id = $1 AND thread = $2 AND is_open AND grows
                AND thread IS NOT NULL
            ORDER BY ticket DESC LIMIT $4)
           UNION ALL
           (SELECT ticket, CASE outcome WHEN 'withdrawn' THEN outcome ELSE state END, problem,
                  registered_at, due_at, provisional
            FROM ticket WHERE office_id = $1 AND thread = $2 AND is_open AND NOT grows
                AND thread IS NOT NULL
            ORDER BY ticket DESC LIMIT $4)
           UNION ALL
           (SELECT t.ticket, t.state, t.problem, t.registered_at, t.due_at, t.provisional
            FROM ticket t CROSS JOIN LATERAL (
                SELECT at FROM event e WHERE e.office_id = t.office_id AND e.ticket = t.ticket
                    AND e.seq = t.events LIMIT 1) last
            WHERE last.at >= $3 AND t.office_id = $1 AND t.thread = $2 AND NOT t.is_open AND t.thread IS NOT NULL
            ORDER BY t.ticket DESC LIMIT $4)"#,
        office.0,
        thread,
        since,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(OwnRow {
                ticket: number(row.ticket)?,
                state: row.state,
                problem: row.problem,
                registered_at: row.registered_at,
                due_at: row.due_at,
                provisional: row.provisional,
            })
        })
        .collect()
}

/// A ticket as far as it decides whether something is still worth telling.
#[derive(Debug)]
pub struct Stands {
    /// Its state.
    pub state: State,
    /// Whether something came since it was asked for, while it waits for the citizen.
    pub material_came: bool,
    /// Whether name and telephone are known (R7.2).
    pub named: bool,
}

/// How a ticket stands; `None` when there is none of this number.
///
/// # Errors
/// [`StoreError`].
pub async fn stands(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<Stands>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT state, state_data, material_came_at IS NOT NULL AS "material_came!",
                  citizen_name IS NOT NULL AND citizen_phone IS NOT NULL AS "named!"
           FROM ticket WHERE office_id = $1 AND ticket = $2"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state = super::ticket::state(&row.state, row.state_data)?;
    Ok(Some(Stands { state, material_came: row.material_came, named: row.named }))
}

/// Where a ticket stands; `None` when there is none of this number.
///
/// # Errors
/// [`StoreError`].
pub async fn state(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Option<State>, StoreError> {
    let row = sqlx::query!(
        "SELECT state, state_data FROM ticket WHERE office_id = $1 AND ticket = $2",
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| super::ticket::state(&row.state, row.state_data)).transpose()
}

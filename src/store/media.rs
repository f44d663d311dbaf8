//! What citizens sent beside their words: which attachment it is, where it is with, and the content
//! that is kept of it. Locks: `media`, then `media_object`, after all others.

use super::{StoreError, bad, number};
use crate::{
    domain::{
        id::{OfficeId, StaffId},
        register::RegisterNumber,
    },
    media::{Copies, Hash, Type},
};
use chrono::{DateTime, Utc};
use intake_contract::AttachmentKind;
use sqlx::PgConnection;

/// Attachment `n` (from 0) of the message `seq` of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the key of media")]
pub struct Key {
    pub office: OfficeId,
    pub ticket: RegisterNumber,
    pub seq: i32,
    pub n: i16,
}

/// Something to fetch.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Which.
    pub key: Key,
    /// What the channel said that it is.
    pub kind: AttachmentKind,
    /// Who is asked: `wechat:main`.
    pub source: String,
    /// And by what name.
    pub reference: String,
    /// Then the source has it no more.
    pub expires_at: Option<DateTime<Utc>>,
    /// This try included.
    pub tries: i32,
}

/// Why a medium is not fetched any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Its source keeps it no longer.
    Expired,
    /// Its source will never give it.
    Failed,
    /// It is larger than what is kept.
    Refused,
}

/// Content that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its name.
    pub hash: Hash,
    /// As its first bytes say.
    pub kind: Type,
    /// In bytes.
    pub size: u64,
    /// What was made of it to be shown.
    pub copies: Copies,
    /// Of sound: how long it is, in milliseconds; `None` where it cannot be decoded.
    pub ms: Option<i32>,
    /// Of sound: nothing can be heard in it.
    pub silent: bool,
}

/// What a machine has understood of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transcript {
    /// It is at it.
    Waiting,
    /// The text; empty when it heard nothing.
    Done(String),
    /// It gave up.
    Failed,
}

/// Where a medium is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is being fetched.
    Waiting {
        /// Whether anybody asks for it: not every source is one that can be asked.
        asked: bool,
        /// Whether the last try came to nothing.
        missed: bool,
    },
    /// It is here.
    Kept(Content),
    /// It never will be.
    Lost(Lost),
    /// It was, and went by the rule of its source, then.
    Removed(DateTime<Utc>),
}

/// A medium as a page shows it.
#[derive(Debug, Clone)]
pub struct MediaRow {
    /// Which message.
    pub seq: i32,
    /// Which of its attachments, from 0.
    pub n: i16,
    /// What the channel said that it is.
    pub kind: AttachmentKind,
    /// Where it is with.
    pub standing: Standing,
    /// A recording of the telephone, not something that was sent.
    pub recorded: bool,
    /// Nobody can ask for it here: it is to be heard where it lies.
    pub elsewhere: bool,
    /// What a machine has understood of it, where one is asked.
    pub transcript: Option<Transcript>,
}

fn kind_of(text: &str) -> Result<AttachmentKind, StoreError> {
    match text {
        "image" => Ok(AttachmentKind::Image),
        "voice" => Ok(AttachmentKind::Voice),
        "video" => Ok(AttachmentKind::Video),
        "file" => Ok(AttachmentKind::File),
        _ => Err(bad("media", "kind")),
    }
}

fn kind_text(kind: AttachmentKind) -> Result<&'static str, StoreError> {
    match kind {
        AttachmentKind::Image => Ok("image"),
        AttachmentKind::Voice => Ok("voice"),
        AttachmentKind::Video => Ok("video"),
        AttachmentKind::File => Ok("file"),
        AttachmentKind::Location | AttachmentKind::Link => Err(bad("media", "kind")),
    }
}

/// Takes the next one that is due, for as long as until `lease`: should nothing be heard of it by
/// then, it is taken again.
///
/// # Errors
/// [`StoreError`].
pub async fn claim(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
) -> Result<Option<Claimed>, StoreError> {
    let row = sqlx::query!(
        "UPDATE media m SET next_try_at = $2, tries = m.tries + 1
         FROM (SELECT office_id, ticket, seq, n FROM media
               WHERE state = 'waiting' AND next_try_at <= $1
               ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED) i
         WHERE m.office_id = i.office_id AND m.ticket = i.ticket AND m.seq = i.seq AND m.n = i.n
         RETURNING m.office_id, m.ticket, m.seq, m.n, m.kind, m.source, m.reference, m.expires_at,
             m.tries",
        now,
        lease
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Claimed {
            key: Key {
                office: OfficeId(row.office_id),
                ticket: number(row.ticket)?,
                seq: row.seq,
                n: row.n,
            },
            kind: kind_of(&row.kind)?,
            source: row.source,
            reference: row.reference,
            expires_at: row.expires_at,
            tries: row.tries,
        })
    })
    .transpose()
}

/// Puts the next try off, unless it is to be fetched from elsewhere by now.
///
/// # Errors
/// [`StoreError`].
pub async fn put_off(
    db: &mut PgConnection,
    Claimed { key, reference, .. }: &Claimed,
    until: DateTime<Utc>,
    says: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE media SET next_try_at = $5, says = $6
         WHERE office_id = $1 AND ticket = $2 AND seq = $3 AND n = $4 AND state = 'waiting'
             AND reference = $7",
        key.office.0,
        key.ticket.as_i64(),
        key.seq,
        key.n,
        until,
        says,
        reference
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives it up, unless it is to be fetched from elsewhere by now.
///
/// # Errors
/// [`StoreError`].
pub async fn give_up(
    db: &mut PgConnection,
    Claimed { key, reference, .. }: &Claimed,
    lost: Lost,
    says: &str,
) -> Result<(), StoreError> {
    let state = match lost {
        Lost::Expired => "expired",
        Lost::Failed => "failed",
        Lost::Refused => "refused",
    };
    sqlx::query!(
        "UPDATE media SET state = $5, next_try_at = NULL, says = $6
         WHERE office_id = $1 AND ticket = $2 AND seq = $3 AND n = $4 AND state = 'waiting'
             AND reference = $7",
        key.office.0,
        key.ticket.as_i64(),
        key.seq,
        key.n,
        state,
        says,
        reference
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Says that content of this name is about to be kept: from here on nobody removes it, for a day.
///
/// # Errors
/// [`StoreError`].
pub async fn announce(
    db: &mut PgConnection,
    office: OfficeId,
    hash: &Hash,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO media_object AS o (office_id, hash) VALUES ($1, $2)
         ON CONFLICT (office_id, hash) DO UPDATE
             SET unused_since = CASE WHEN o.unused_since IS NOT NULL THEN now() END",
        office.0,
        &hash.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A medium that lies ready to be taken from this source; the same again changes nothing.
///
/// # Errors
/// [`StoreError`]; refused for what has no content: a place, a link.
pub async fn expect(
    db: &mut PgConnection,
    key: Key,
    kind: AttachmentKind,
    (source, reference): (&str, &str),
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO media (office_id, ticket, seq, n, kind, source, reference, state, received_at,
             next_try_at)
         VALUES ($1, $2, $3, $4, $5, $6, $8, 'waiting', $7, $7) ON CONFLICT DO NOTHING",
        key.office.0,
        key.ticket.as_i64(),
        key.seq,
        key.n,
        kind_text(kind)?,
        source,
        now,
        reference
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Says that the content, announced and kept by now, is this medium's. Nothing where the medium is
/// gone or has its content already. `transcribe`: a recording that plays is to be written down.
///
/// # Errors
/// [`StoreError`]; refused where the content was never announced.
pub async fn kept(
    db: &mut PgConnection,
    key: Key,
    content: &Content,
    transcribe: bool,
) -> Result<(), StoreError> {
    let plays = matches!(content.copies, Copies::Itself | Copies::Sound);
    sqlx::query!(
        "WITH named AS (
             UPDATE media SET state = 'kept', hash = $5, next_try_at = NULL, says = NULL
             WHERE office_id = $1 AND ticket = $2 AND seq = $3 AND n = $4 AND state = 'waiting'
             RETURNING office_id, hash, source, received_at
         ), to_write AS (
             INSERT INTO transcript (office_id, hash, next_try_at)
             SELECT office_id, hash, received_at FROM named
             WHERE $11 AND source LIKE 'hotline:%' ON CONFLICT DO NOTHING
         )
         -- What was made of the same content before is there yet.
         UPDATE media_object o SET type = $6, size = $7,
             copies = CASE WHEN $8 = 'none' THEN coalesce(o.copies, $8) ELSE $8 END,
             ms = CASE WHEN $8 = 'none' THEN coalesce(o.ms, $9) ELSE $9 END,
             silent = CASE WHEN $8 = 'none' AND o.copies IS NOT NULL THEN o.silent ELSE $10 END,
             unused_since = NULL
         FROM named WHERE o.office_id = named.office_id AND o.hash = named.hash",
        key.office.0,
        key.ticket.as_i64(),
        key.seq,
        key.n,
        &content.hash.0,
        content.kind.mime(),
        content.size as i64,
        content.copies.as_str(),
        content.ms,
        content.silent,
        transcribe && plays
    )
    .execute(db)
    .await?;
    Ok(())
}

struct Row {
    seq: i32,
    n: i16,
    recorded: bool,
    elsewhere: bool,
    kind: String,
    state: String,
    asked: bool,
    missed: bool,
    hash: Option<Vec<u8>>,
    r#type: Option<String>,
    size: Option<i64>,
    copies: Option<String>,
    ms: Option<i32>,
    silent: Option<bool>,
    removed_at: Option<DateTime<Utc>>,
    written: Option<String>,
    text: Option<String>,
}

impl TryFrom<Row> for MediaRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let content = || -> Result<Content, StoreError> {
            let hash = row.hash.as_deref().and_then(|hash| hash.try_into().ok());
            let copies = row.copies.as_deref().and_then(Copies::read);
            Ok(Content {
                hash: Hash(hash.ok_or(bad("media", "hash"))?),
                kind: Type::of_mime(row.r#type.as_deref().unwrap_or_default()),
                size: row.size.unwrap_or_default().unsigned_abs(),
                copies: copies.ok_or(bad("media_object", "copies"))?,
                ms: row.ms,
                silent: row.silent.unwrap_or_default(),
            })
        };
        let standing = match row.state.as_str() {
            "waiting" => Standing::Waiting { asked: row.asked, missed: row.missed },
            "kept" => Standing::Kept(content()?),
            "expired" => Standing::Lost(Lost::Expired),
            "failed" => Standing::Lost(Lost::Failed),
            "refused" => Standing::Lost(Lost::Refused),
            "removed" => Standing::Removed(row.removed_at.ok_or(bad("media", "removed_at"))?),
            _ => return Err(bad("media", "state")),
        };
        let transcript = match row.written.as_deref() {
            None => None,
            Some("waiting") => Some(Transcript::Waiting),
            Some("failed") => Some(Transcript::Failed),
            Some(_) => Some(Transcript::Done(row.text.unwrap_or_default())),
        };
        Ok(Self {
            seq: row.seq,
            n: row.n,
            kind: kind_of(&row.kind)?,
            standing,
            recorded: row.recorded,
            elsewhere: row.elsewhere,
            transcript,
        })
    }
}

/// The media of a ticket, in their order.
///
/// # Errors
/// [`StoreError`].
pub async fn of_ticket(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Vec<MediaRow>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT m.seq, m.n, m.kind, m.state, m.next_try_at IS NOT NULL AS "asked!",
               m.says IS NOT NULL AS "missed!", m.source LIKE 'hotline:%' AS "recorded!",
               m.reference LIKE 'pull:%' AND m.next_try_at IS NULL AND m.tries = 0
                   AND m.state IN ('waiting', 'expired') AS "elsewhere!", m.hash, o.type,
               o.size, o.copies AS "copies?", o.ms, o.silent AS "silent?", m.removed_at,
               w.state AS "written?", w.text
           FROM media m LEFT JOIN media_object o ON o.office_id = m.office_id AND o.hash = m.hash
           LEFT JOIN transcript w ON w.office_id = m.office_id AND w.hash = m.hash
               AND m.source LIKE 'hotline:%'
           WHERE m.office_id = $1 AND m.ticket = $2 ORDER BY m.seq, m.n"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(MediaRow::try_from).collect()
}

/// The kept content of one; `None` when there is none.
///
/// # Errors
/// [`StoreError`].
pub async fn content(db: &mut PgConnection, key: Key) -> Result<Option<Content>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT m.seq, m.n, m.kind, m.state, m.next_try_at IS NOT NULL AS "asked!",
               m.says IS NOT NULL AS "missed!", m.source LIKE 'hotline:%' AS "recorded!",
               m.reference LIKE 'pull:%' AND m.next_try_at IS NULL AND m.tries = 0
                   AND m.state IN ('waiting', 'expired') AS "elsewhere!", m.hash, o.type,
               o.size, o.copies AS "copies?", o.ms, o.silent AS "silent?", m.removed_at,
               NULL::text AS written, NULL::text AS text
           FROM media m JOIN media_object o ON o.office_id = m.office_id AND o.hash = m.hash
           WHERE m.office_id = $1 AND m.ticket = $2 AND m.seq = $3 AND m.n = $4"#,
        key.office.0,
        key.ticket.as_i64(),
        key.seq,
        key.n
    )
    .fetch_optional(db)
    .await?;
    Ok(match row.map(MediaRow::try_from).transpose()?.map(|row| row.standing) {
        Some(Standing::Kept(content)) => Some(content),
        _ => None,
    })
}

/// Notes that somebody of the staff listens to a voice or takes an original, where `variant` is
/// `play` or `original`. What they ask for before `until` belongs to it, and moves that on; whatever
/// they ask for later is noted anew.
///
/// # Errors
/// [`StoreError`].
pub async fn opened(
    db: &mut PgConnection,
    key: Key,
    by: StaffId,
    variant: &'static str,
    (now, until): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH goes_on AS (
             UPDATE media_opened SET until = $8
             WHERE office_id = $1 AND ticket = $2 AND seq = $3 AND n = $4 AND at <= $5
               AND staff_id = $6 AND variant = $7 AND until > $5
             RETURNING 1
         )
         INSERT INTO media_opened (office_id, ticket, seq, n, at, staff_id, variant, until)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE NOT EXISTS (SELECT FROM goes_on)
         ON CONFLICT DO NOTHING",
        key.office.0,
        key.ticket.as_i64(),
        key.seq,
        key.n,
        now,
        by.0,
        variant,
        until
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Content that nobody has named for a day, a hundred at most, the oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn unused(db: &mut PgConnection) -> Result<Vec<(OfficeId, Hash)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT office_id, hash FROM media_object WHERE unused_since < now() - interval '1 day'
         ORDER BY unused_since LIMIT 100"
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let hash = row.hash.try_into().map_err(|_| bad("media_object", "hash"))?;
            Ok((OfficeId(row.office_id), Hash(hash)))
        })
        .collect()
}

/// Takes the content's row away if it is still unused; the caller then removes the content and
/// commits, so that whoever announces it meanwhile waits. A row that a medium names after all is
/// in use again.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    db: &mut PgConnection,
    office: OfficeId,
    hash: &Hash,
) -> Result<bool, StoreError> {
    let used = sqlx::query!(
        "UPDATE media_object SET unused_since = NULL
         WHERE office_id = $1 AND hash = $2 AND unused_since < now() - interval '1 day'
           AND EXISTS (SELECT FROM media WHERE office_id = $1 AND hash = $2)",
        office.0,
        &hash.0
    )
    .execute(&mut *db)
    .await?;
    if used.rows_affected() > 0 {
        return Ok(false);
    }
    let gone = sqlx::query!(
        "DELETE FROM media_object
         WHERE office_id = $1 AND hash = $2 AND unused_since < now() - interval '1 day'",
        office.0,
        &hash.0
    )
    .execute(db)
    .await?;
    Ok(gone.rows_affected() == 1)
}

/// Content that could not be removed: a day later it is tried again, after what waits by then.
///
/// # Errors
/// [`StoreError`].
pub async fn wait_behind(
    db: &mut PgConnection,
    office: OfficeId,
    hash: &Hash,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE media_object SET unused_since = now()
         WHERE office_id = $1 AND hash = $2 AND unused_since IS NOT NULL",
        office.0,
        &hash.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Messages of one ticket stand on another one as well: what came with them too. `seqs`: each
/// message's place there and here.
///
/// # Errors
/// [`StoreError`].
pub async fn copy(
    db: &mut PgConnection,
    office: OfficeId,
    (from, to): (RegisterNumber, RegisterNumber),
    seqs: &[(i32, i32)],
) -> Result<(), StoreError> {
    let offices = vec![office.0; seqs.len()];
    let tickets = vec![from.as_i64(); seqs.len()];
    let theirs: Vec<i32> = seqs.iter().map(|seq| seq.0).collect();
    let ours: Vec<i32> = seqs.iter().map(|seq| seq.1).collect();
    sqlx::query!(
        "INSERT INTO media (office_id, ticket, seq, n, kind, source, reference, state, received_at,
             expires_at, next_try_at, hash, removed_at)
         SELECT m.office_id, $5, i.ours, m.n, m.kind, m.source, m.reference, m.state, m.received_at,
             m.expires_at, m.next_try_at, m.hash, m.removed_at
         FROM unnest($1::int[], $2::bigint[], $3::int[], $4::int[]) AS i(office_id, ticket, theirs, ours)
         JOIN media m ON m.office_id = i.office_id AND m.ticket = i.ticket AND m.seq = i.theirs",
        &offices,
        &tickets,
        &theirs,
        &ours,
        to.as_i64()
    )
    .execute(db)
    .await?;
    Ok(())
}

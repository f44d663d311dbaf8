//! Calls of the telephone, their recordings, and the originals that told of them. Locks: `call`, then
//! `call_recording`, in the order of their keys; never while anything of intake or media is held.

use super::{StoreError, bad, number};
use crate::domain::{id::OfficeId, register::RegisterNumber};
use chrono::{DateTime, Utc};
use intake_hotline::CallEvent;
use sqlx::{Connection, PgConnection};

/// A call's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the key of call")]
pub struct Key {
    pub office: OfficeId,
    pub source: String,
    pub call: String,
}

/// A call as it is kept.
#[derive(Debug, Clone)]
pub struct Call {
    /// Everything that was told.
    pub facts: CallEvent,
    /// How many times that was added to.
    pub told: i32,
    /// When its first part came.
    pub told_at: DateTime<Utc>,
    /// When the citizen spoke, as far as that can be believed.
    pub spoken_at: DateTime<Utc>,
    /// When it is settled; `None` when it was, or need not be.
    pub settle_at: Option<DateTime<Utc>>,
    /// Its thread: calls of one caller, line and closed period, and the round of them.
    pub group: Option<(String, i32)>,
    /// Its ticket.
    pub ticket: Option<RegisterNumber>,
}

/// What is looked for of a call; computed from its facts.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of call")]
pub struct Columns {
    pub spoken_at: DateTime<Utc>,
    pub line: String,
    pub caller: Option<String>,
    pub outcome: Option<&'static str>,
    pub settle_at: Option<DateTime<Utc>>,
}

/// Where a recording is with, as far as its source has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is there, or will be.
    Announced,
    /// There is none.
    Absent,
    /// There is nothing to hear in it.
    TooShort,
}

impl Told {
    fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Absent => "absent",
            Self::TooShort => "too_short",
        }
    }
}

/// A recording of a call.
#[derive(Debug, Clone)]
pub struct RecordingRow {
    /// Its identity within the source.
    pub key: String,
    /// The ticket whose message tells of it, and the message.
    pub message: Option<(RegisterNumber, i32)>,
}

/// Keeps the original of a part; false when it is known: the same again changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn keep_part(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    digest: [u8; 32],
    calls: &[String],
    raw: &[u8],
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let kept = sqlx::query!(
        "INSERT INTO call_part (office_id, source, digest, calls, received_at, raw)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        office.0,
        source,
        digest.as_slice(),
        calls,
        now,
        raw
    )
    .execute(db)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// The first original that told of a call.
///
/// # Errors
/// [`StoreError`].
pub async fn first_part(db: &mut PgConnection, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT raw FROM call_part WHERE office_id = $1 AND source = $2 AND digest = (
             SELECT first_part FROM call WHERE office_id = $1 AND source = $2 AND call_key = $3)",
        key.office.0,
        key.source,
        key.call
    )
    .fetch_optional(db)
    .await?)
}

/// Begins a call; false when it is known already.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    db: &mut PgConnection,
    key: &Key,
    facts: &CallEvent,
    columns: &Columns,
    first_part: [u8; 32],
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let begun = sqlx::query!(
        "INSERT INTO call (office_id, source, call_key, facts, told_at, spoken_at, line, caller,
             outcome, settle_at, first_part)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        key.office.0,
        key.source,
        key.call,
        stored(facts)?,
        now,
        columns.spoken_at,
        columns.line,
        columns.caller,
        columns.outcome,
        columns.settle_at,
        first_part.as_slice()
    )
    .execute(db)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// A call, locked until the end of the transaction.
///
/// # Errors
/// [`StoreError`].
pub async fn lock(db: &mut PgConnection, key: &Key) -> Result<Option<Call>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT facts, told, told_at, spoken_at, settle_at, call_group, round, ticket FROM call
         WHERE office_id = $1 AND source = $2 AND call_key = $3 FOR UPDATE",
        key.office.0,
        key.source,
        key.call
    )
    .fetch_optional(db)
    .await?;
    row.map(Call::try_from).transpose()
}

/// A call.
///
/// # Errors
/// [`StoreError`].
pub async fn read(db: &mut PgConnection, key: &Key) -> Result<Option<Call>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT facts, told, told_at, spoken_at, settle_at, call_group, round, ticket FROM call
         WHERE office_id = $1 AND source = $2 AND call_key = $3",
        key.office.0,
        key.source,
        key.call
    )
    .fetch_optional(db)
    .await?;
    row.map(Call::try_from).transpose()
}

/// What a call's facts have become; the caller holds its lock.
///
/// # Errors
/// [`StoreError`].
pub async fn complete(
    db: &mut PgConnection,
    key: &Key,
    facts: &CallEvent,
    columns: &Columns,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE call SET facts = $4, told = told + 1, spoken_at = $5, line = $6, caller = $7,
             outcome = $8, settle_at = $9
         WHERE office_id = $1 AND source = $2 AND call_key = $3",
        key.office.0,
        key.source,
        key.call,
        stored(facts)?,
        columns.spoken_at,
        columns.line,
        columns.caller,
        columns.outcome,
        columns.settle_at
    )
    .execute(db)
    .await?;
    super::changed("call", &done, 1)
}

/// Enters the recordings of a call, or what more is known of them. One that is known of another call
/// stays there.
///
/// # Errors
/// [`StoreError`].
pub async fn enter_recordings(
    db: &mut PgConnection,
    key: &Key,
    recordings: &[(String, Told)],
) -> Result<(), StoreError> {
    let keys: Vec<String> = recordings.iter().map(|one| one.0.clone()).collect();
    let states: Vec<String> = recordings.iter().map(|one| one.1.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO call_recording AS r (office_id, source, recording_key, call_key, state)
         SELECT $1, $2, i.recording_key, $3, i.state
         FROM unnest($4::text[], $5::text[]) AS i(recording_key, state) ORDER BY i.recording_key
         ON CONFLICT (office_id, source, recording_key) DO UPDATE SET state = excluded.state
             WHERE r.call_key = excluded.call_key AND r.state <> excluded.state AND r.seq IS NULL",
        key.office.0,
        key.source,
        key.call,
        &keys,
        &states
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The recordings of a call, in the order of their keys.
///
/// # Errors
/// [`StoreError`].
pub async fn recordings(db: &mut PgConnection, key: &Key) -> Result<Vec<RecordingRow>, StoreError> {
    let rows = sqlx::query!(
        "SELECT recording_key, ticket, seq FROM call_recording
         WHERE office_id = $1 AND source = $2 AND call_key = $3 ORDER BY recording_key",
        key.office.0,
        key.source,
        key.call
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let message = match (row.ticket, row.seq) {
                (Some(ticket), Some(seq)) => Some((number(ticket)?, seq)),
                _ => None,
            };
            Ok(RecordingRow { key: row.recording_key, message })
        })
        .collect()
}

/// The call that a recording is known of.
///
/// # Errors
/// [`StoreError`].
pub async fn of_recording(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    recording: &str,
) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT call_key FROM call_recording
         WHERE office_id = $1 AND source = $2 AND recording_key = $3",
        office.0,
        source,
        recording
    )
    .fetch_optional(db)
    .await?)
}

/// The call whose key begins so and in which somebody spoke between these two moments.
///
/// # Errors
/// [`StoreError`].
pub async fn spoken_between(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    begins: &str,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<String>, StoreError> {
    // The last character of all sorts behind every key that begins so: keys are compared by their
    // bytes (migration 27).
    let end = format!("{begins}\u{10ffff}");
    Ok(sqlx::query_scalar!(
        "SELECT call_key FROM call WHERE office_id = $1 AND source = $2
             AND call_key >= $3 AND call_key < $4 AND spoken_at BETWEEN $5 AND $6
         ORDER BY call_key LIMIT 1",
        office.0,
        source,
        begins,
        end,
        from,
        to
    )
    .fetch_optional(db)
    .await?)
}

/// When a source was first looked at: now, where it never was.
///
/// # Errors
/// [`StoreError`].
pub async fn first_seen(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, StoreError> {
    sqlx::query!(
        "INSERT INTO call_source (office_id, source, first_seen_at) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
        office.0,
        source,
        now
    )
    .execute(&mut *db)
    .await?;
    Ok(sqlx::query_scalar!(
        "SELECT first_seen_at FROM call_source WHERE office_id = $1 AND source = $2",
        office.0,
        source
    )
    .fetch_one(db)
    .await?)
}

/// Takes the next call about which something is to be done, until `lease`.
///
/// # Errors
/// [`StoreError`].
pub async fn claim(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
) -> Result<Option<Key>, StoreError> {
    let row = sqlx::query!(
        "UPDATE call c SET settle_at = $2
         FROM (SELECT office_id, source, call_key FROM call WHERE settle_at <= $1
               ORDER BY settle_at LIMIT 1 FOR UPDATE SKIP LOCKED) i
         WHERE c.office_id = i.office_id AND c.source = i.source AND c.call_key = i.call_key
         RETURNING c.office_id, c.source, c.call_key",
        now,
        lease
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Key {
        office: OfficeId(row.office_id),
        source: row.source,
        call: row.call_key,
    }))
}

/// Nothing more is to be done, unless more was told since it was read.
///
/// # Errors
/// [`StoreError`].
pub async fn settled(db: &mut PgConnection, key: &Key, told: i32) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE call SET settle_at = NULL
         WHERE office_id = $1 AND source = $2 AND call_key = $3 AND told = $4",
        key.office.0,
        key.source,
        key.call,
        told
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Puts a call into its group, unless it is in one: into the newest round, or into the next one when
/// somebody has taken up that one's ticket. Returns where it is.
///
/// # Errors
/// [`StoreError`].
pub async fn join_group(
    db: &mut PgConnection,
    key: &Key,
    group: &str,
) -> Result<(String, i32), StoreError> {
    sqlx::query!(
        "UPDATE call c SET call_group = $4, round = coalesce((
             SELECT o.round + CASE WHEN coalesce((SELECT t.state FROM ticket t
                 WHERE t.office_id = o.office_id AND t.ticket = o.ticket), 'registered')
                 = 'registered' THEN 0 ELSE 1 END
             FROM call o WHERE o.office_id = $1 AND o.call_group = $4
             ORDER BY o.round DESC, o.ticket DESC NULLS LAST LIMIT 1), 1)
         WHERE c.office_id = $1 AND c.source = $2 AND c.call_key = $3 AND c.call_group IS NULL",
        key.office.0,
        key.source,
        key.call,
        group
    )
    .execute(&mut *db)
    .await?;
    let row = sqlx::query!(
        "SELECT call_group, round FROM call
         WHERE office_id = $1 AND source = $2 AND call_key = $3",
        key.office.0,
        key.source,
        key.call
    )
    .fetch_one(db)
    .await?;
    let group = row.call_group.ok_or(bad("call", "call_group"))?;
    Ok((group, row.round.ok_or(bad("call", "round"))?))
}

/// Says which ticket and message a submission about the call has become: those that stand beside its
/// identity. `recording`: it told of this one.
///
/// # Errors
/// [`StoreError`].
pub async fn link(
    db: &mut PgConnection,
    key: &Key,
    recording: Option<&str>,
    source_id: &str,
) -> Result<(), StoreError> {
    let mut transaction = db.begin().await?;
    // A call whose ticket was closed meanwhile goes on in the one that this became.
    sqlx::query!(
        "UPDATE call SET ticket = (SELECT ticket FROM inbound
             WHERE office_id = $1 AND source = $2 AND source_id = $4)
         WHERE office_id = $1 AND source = $2 AND call_key = $3
           AND NOT coalesce((SELECT is_open FROM ticket t
               WHERE t.office_id = $1 AND t.ticket = call.ticket), false)
           AND EXISTS (SELECT FROM inbound WHERE office_id = $1 AND source = $2
               AND source_id = $4 AND ticket IS NOT NULL)",
        key.office.0,
        key.source,
        key.call,
        source_id
    )
    .execute(&mut *transaction)
    .await?;
    if let Some(recording) = recording {
        sqlx::query!(
            "UPDATE call_recording SET (ticket, seq) = (SELECT ticket, seq FROM inbound
                 WHERE office_id = $1 AND source = $2 AND source_id = $5)
             WHERE office_id = $1 AND source = $2 AND recording_key = $4 AND call_key = $3
               AND EXISTS (SELECT FROM inbound WHERE office_id = $1 AND source = $2
                   AND source_id = $5 AND ticket IS NOT NULL AND seq IS NOT NULL)",
            key.office.0,
            key.source,
            key.call,
            recording,
            source_id
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The file of a recording lies there, from now on until it expires: to be fetched. Nothing where it
/// was said before, and nothing without a message that waits for it; another place than before, such
/// as a renewed link, is looked at also where the first one was given up.
///
/// # Errors
/// [`StoreError`].
pub async fn expect_file(
    db: &mut PgConnection,
    office: OfficeId,
    (ticket, seq): (RegisterNumber, i32),
    reference: &str,
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE media SET reference = $4, next_try_at = $6, expires_at = $5, state = 'waiting',
             tries = 0, says = NULL
         WHERE office_id = $1 AND ticket = $2 AND seq = $3 AND n = 0
           AND (state = 'waiting' AND next_try_at IS NULL
             OR state IN ('waiting', 'expired', 'failed') AND reference <> $4)
           AND reference NOT LIKE 'upload:%'",
        office.0,
        ticket.as_i64(),
        seq,
        reference,
        expires_at,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The file of a recording was brought along, and lies ready: to be taken. False where it is there
/// already, or where nothing waits for it.
///
/// # Errors
/// [`StoreError`].
pub async fn expect_upload(
    db: &mut PgConnection,
    (office, source): (OfficeId, &str),
    recording: &str,
    reference: &str,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let expected = sqlx::query!(
        "WITH became AS MATERIALIZED (
             SELECT ticket, seq FROM inbound
             WHERE office_id = $1 AND source = $2 AND source_id = $3 AND ticket IS NOT NULL
         )
         UPDATE media m SET state = 'waiting', reference = $4, next_try_at = $5, expires_at = NULL,
             says = NULL
         FROM became b
         WHERE m.office_id = $1 AND m.ticket = b.ticket AND m.seq = b.seq AND m.n = 0 AND m.state NOT IN ('kept', 'removed')
           AND (m.state <> 'waiting' OR m.next_try_at IS NULL OR m.reference <> $4)",
        office.0,
        source,
        recording,
        reference,
        now
    )
    .execute(db)
    .await?;
    Ok(expected.rows_affected() > 0)
}

/// Whether this ticket, which the thread still grows, was given no telephone number by anybody.
///
/// # Errors
/// [`StoreError`].
pub async fn lacks_phone(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    thread: &str,
) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM ticket WHERE office_id = $1 AND ticket = $2
               AND citizen_phone IS NULL AND is_open AND grows AND thread = $3) AS "lacks!""#,
        office.0,
        ticket.as_i64(),
        thread
    )
    .fetch_one(db)
    .await?)
}

/// A ticket is ended in favour of another one: who waits to be called back waits there.
///
/// # Errors
/// [`StoreError`].
pub async fn hand_on(
    db: &mut PgConnection,
    office: OfficeId,
    (from, into): (RegisterNumber, RegisterNumber),
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE call SET ticket = $3 WHERE office_id = $1 AND ticket = $2 AND EXISTS (
             SELECT FROM call_back b WHERE b.office_id = $1 AND b.ticket = $2
               AND b.state IN ('waiting', 'withheld'))",
        office.0,
        from.as_i64(),
        into.as_i64()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The calls of a ticket, as they were made; two hundred at most.
///
/// # Errors
/// [`StoreError`].
pub async fn of_ticket(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Vec<Call>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT facts, told, told_at, spoken_at, settle_at, call_group, round, ticket FROM call
         WHERE office_id = $1 AND ticket = $2 ORDER BY spoken_at, source, call_key LIMIT 200",
        office.0,
        ticket.as_i64()
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Call::try_from).collect()
}

struct Row {
    facts: serde_json::Value,
    told: i32,
    told_at: DateTime<Utc>,
    spoken_at: DateTime<Utc>,
    settle_at: Option<DateTime<Utc>>,
    call_group: Option<String>,
    round: Option<i32>,
    ticket: Option<i64>,
}

impl TryFrom<Row> for Call {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            facts: serde_json::from_value(row.facts).map_err(|_| bad("call", "facts"))?,
            told: row.told,
            told_at: row.told_at,
            spoken_at: row.spoken_at,
            settle_at: row.settle_at,
            group: row.call_group.zip(row.round),
            ticket: row.ticket.map(number).transpose()?,
        })
    }
}

fn stored(facts: &CallEvent) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(facts).map_err(|_| bad("call", "facts"))
}

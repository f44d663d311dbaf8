//! Calls: what exchanges and vendors tell of them becomes one record of each call, and tickets.
//!
//! **Told, then settled.** What a verified source tells is put together with what is known of the
//! call and committed ([`take`]); only then does the source hear that it has arrived (invariant 2).
//! What follows from it is decided from the record alone and can be done over and over
//! ([`settle`]): the same submission, under the same identity, through the same door as everything
//! else. So parts may come in any order, three times, over two gateways, and a crash between the two
//! costs a minute: whatever is not settled is looked at again ([`run`]).
//!
//! **Who shares a ticket.** Calls of one number on one line in one closed period, until somebody has
//! taken the ticket up (R5.2, R7.e): they have the same thread. Who hides the number shares with
//! nobody. A call without a message waits a moment before it counts as missed, because its voicemail
//! may still be on the way; and a recording of which nothing else is known waits as long, because it
//! may have been of a conversation.

pub mod fetch;
mod pull;
pub mod reconcile;
mod rules;
pub mod scan;
mod settings;
mod webhook;
mod words;

pub use webhook::{Brought, accept};
pub use words::ended;

pub use settings::{Audio, Kind as SourceKind, MissedCalls, Settings, Source, Wrong};

use rules::{Verdict, columns, group, is_unsaid, thread_name, told, verdict};

use crate::{
    domain::{id::OfficeId, register::RegisterNumber},
    http::App,
    intake::AcceptError,
    lifecycle::Wake,
    offices::Office,
    store::{
        self, StoreError,
        call::{self as rows, Call, Key},
    },
    telemetry,
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{
    Attachment, AttachmentKind, ChannelKind, Citizen, Meaning, Quarantine, Submission,
};
use intake_hotline::{AudioRef, CallEvent, Caller, Recording};
use sha2::{Digest, Sha256};
use sqlx::Connection;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The sources by name: `hotline:pbx1`.
#[derive(Default)]
pub struct Sources(pub HashMap<String, Arc<Source>>);

impl Sources {
    /// The source of this name, where it is this office's.
    #[must_use]
    pub fn of(&self, office: OfficeId, name: &str) -> Option<&Arc<Source>> {
        self.0.get(name).filter(|source| source.office == office)
    }
}

/// Of the statements of one call.
const WITHIN: Duration = Duration::from_secs(3);
/// Why something was put aside: what was told and what is held cannot both be right.
pub const DIFFERS: &str = "call_differs";
/// Two beginnings that are further apart are not of one call, whatever its identity.
const REUSED: TimeDelta = TimeDelta::hours(12);
/// Whoever took a call to settle and is gone: somebody else does it then.
const LEASE: TimeDelta = TimeDelta::seconds(60);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Puts what a source tells together with what is known, in one transaction; returns after COMMIT
/// the calls of which something new is known. `raw` is the original, received at `now`.
///
/// # Errors
/// [`StoreError`]: nothing was kept then.
pub async fn take(
    app: &App,
    source: &Source,
    calls: Vec<CallEvent>,
    raw: &[u8],
    now: DateTime<Utc>,
) -> Result<Vec<Key>, StoreError> {
    let Some(office) = app.offices.get(source.office) else { return Ok(Vec::new()) };
    // In the order of the locks, each call once.
    let mut told_of: BTreeMap<String, CallEvent> = BTreeMap::new();
    for call in calls {
        let key = call.call_key.clone();
        let merged = match told_of.remove(&key) {
            // Of one source and one key, so they are one call.
            Some(part) => part.clone().merge(call).unwrap_or(part),
            None => call,
        };
        told_of.insert(key, merged);
    }
    if told_of.is_empty() {
        return Ok(Vec::new());
    }
    let digest: [u8; 32] = Sha256::digest(raw).into();
    let keys: Vec<String> = told_of.keys().cloned().collect();
    let attempt = async || {
        store::within(WITHIN, async {
            let mut db = app.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            let of = (source.office, source.name.as_str());
            let part = Part {
                raw,
                digest,
                is_new: rows::keep_part(&mut transaction, of, digest, &keys, raw, now).await?,
            };
            let mut new = Vec::new();
            for facts in told_of.values() {
                let call = facts.call_key.clone();
                let key = Key { office: source.office, source: source.name.clone(), call };
                if put_together(&mut transaction, source, &office, &key, facts, &part, now).await? {
                    new.push(key);
                }
            }
            transaction.commit().await?;
            Ok::<_, StoreError>(new)
        })
        .await
    };
    match attempt().await {
        // A deadlock, a dropped connection: the same once more, before the sender has lost patience.
        Err(error) if error.is_transient() => attempt().await,
        result => result,
    }
}

/// What tells of calls, word for word.
struct Part<'a> {
    raw: &'a [u8],
    digest: [u8; 32],
    /// It was never told before.
    is_new: bool,
}

async fn put_together(
    db: &mut sqlx::PgConnection,
    source: &Source,
    office: &Office,
    key: &Key,
    facts: &CallEvent,
    part: &Part<'_>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let columns_of = |facts: &CallEvent, told_at| columns(source, office, facts, told_at, now);
    if rows::begin(db, key, facts, &columns_of(facts, now), part.digest, now).await? {
        rows::enter_recordings(db, key, &told(facts)).await?;
        return Ok(true);
    }
    let wrong = StoreError::RowCount { table: "call", changed: 0, wanted: 1 };
    let before = rows::lock(db, key).await?.ok_or(wrong)?;
    if reconcile::contradicts(&before.facts, facts, REUSED) {
        // An identity used twice: two people are not made one. Somebody looks at it, and may take it
        // for a call of its own ([`replay_apart`]). One original may tell of several calls.
        let identity = Sha256::new().chain_update(part.digest).chain_update(&key.call).finalize();
        let item = Quarantine {
            source: key.source.clone(),
            source_id: format!("sha256:{}", hex::encode(identity)),
            reason: DIFFERS,
            raw: part.raw.to_vec(),
        };
        let told = serde_json::to_value(facts).unwrap_or_default();
        store::quarantine::keep_call(db, key.office, &item, told, now).await?;
        return Ok(false);
    }
    // A repeat that comes late is not what was told last.
    let merged = match part.is_new {
        true => before.facts.clone().merge(facts.clone()),
        false => facts.clone().merge(before.facts.clone()),
    };
    let Ok(merged) = merged else { return Ok(false) };
    if merged == before.facts {
        return Ok(false);
    }
    rows::complete(db, key, &merged, &columns_of(&merged, before.told_at)).await?;
    rows::enter_recordings(db, key, &told(&merged)).await?;
    Ok(true)
}

/// Takes what a source told at `now` and does at once what can be done about it; what cannot is done later.
///
/// # Errors
/// [`StoreError`]: nothing was kept then.
pub async fn hear(
    app: &App,
    source: &Source,
    calls: Vec<CallEvent>,
    raw: &[u8],
    now: DateTime<Utc>,
) -> Result<Vec<Key>, StoreError> {
    let new = take(app, source, calls, raw, now).await?;
    for key in &new {
        if let Err(error) = settle(app, key, now).await {
            tracing::info!(error = %telemetry::causes(&error), "a call is kept; its ticket follows");
        }
    }
    Ok(new)
}

/// Settles what is due until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let turn = Wake::default();
    let mut failing = false;
    while !shutdown.is_cancelled() {
        match step(&app).await {
            Ok(true) => {
                failing = false;
                continue;
            }
            Ok(false) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error = %telemetry::causes(&error), "calls could not be settled; trying again");
                }
            }
        }
        turn.wait(LOOK_EVERY, &shutdown).await;
    }
}

/// Settles one call that is due; false when none is.
///
/// # Errors
/// [`StoreError`]; it is due again after a while.
pub async fn step(app: &App) -> Result<bool, StoreError> {
    let now = app.clock.now();
    let claimed = store::within(WITHIN, async {
        rows::claim(&mut *app.pool.acquire().await?, now, now + LEASE).await
    });
    let Some(key) = claimed.await? else { return Ok(false) };
    decide(app, &key, now, true).await?;
    Ok(true)
}

/// Does what follows from what is known of a call at `now`, from when its ticket counts; the same again
/// changes nothing.
///
/// # Errors
/// [`StoreError`]; it is done again later.
pub async fn settle(app: &App, key: &Key, now: DateTime<Utc>) -> Result<(), StoreError> {
    decide(app, key, now, false).await
}

async fn decide(app: &App, key: &Key, now: DateTime<Utc>, claimed: bool) -> Result<(), StoreError> {
    // Without its source in the settings nobody knows how to read it: it waits for the source.
    let Some(source) = app.sources.of(key.office, &key.source) else { return Ok(()) };
    let Some(office) = app.offices.get(key.office) else { return Ok(()) };
    let read = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        let call = rows::read(&mut db, key).await?;
        let recordings = rows::recordings(&mut db, key).await?;
        let raw = rows::first_part(&mut db, key).await?;
        Ok::<_, StoreError>((call, recordings, raw))
    });
    let (call, known, raw) = read.await?;
    let Some(call) = call else { return Ok(()) };
    // Originals go after a while; what was put together of them stays.
    let facts = || serde_json::to_vec(&call.facts).unwrap_or_default();
    let raw = Bytes::from(raw.unwrap_or_else(facts));
    let verdict = verdict(&call.facts, &office.calendar, call.spoken_at);
    let is_early = !claimed && call.settle_at.is_some_and(|at| at > now);
    match verdict {
        Verdict::Message => {
            let waits = is_unsaid(&call.facts) && source.settings.kind != SourceKind::Webhook;
            if waits && is_early && call.ticket.is_none() {
                return Ok(());
            }
            let mut told_of = false;
            for (recording, one) in &call.facts.recordings {
                let row = known.iter().find(|row| row.key == *recording);
                // One that is known of another call stands there.
                let Some(row) = row.filter(|_| one.says_something()) else { continue };
                told_of = true;
                let message = match row.message {
                    Some(message) => Some(message),
                    None => {
                        let thread = thread(app, source, &office, key, &call).await?;
                        let words = words::message(&call, one);
                        let pieces = vec![attachment(&call, recording, one)];
                        let submission =
                            submission(&call, recording.clone(), thread, words, pieces, &raw);
                        if !submit(app, key, Some(recording), submission, now).await? {
                            return Ok(());
                        }
                        message_of(app, key, recording).await?
                    }
                };
                if let Some(message) = message {
                    expect_file(app, source, key, message, one, now).await?;
                }
            }
            // Without a recording, or with one whose name another call has.
            if !told_of {
                let thread = thread(app, source, &office, key, &call).await?;
                let words = words::message(&call, &Recording::default());
                let id = call_id(&key.call);
                let submission = submission(&call, id, thread, words, Vec::new(), &raw);
                if call.ticket.is_none() && !submit(app, key, None, submission, now).await? {
                    return Ok(());
                }
            }
        }
        Verdict::Missed => {
            let wanted = source.settings.missed_calls != MissedCalls::Off;
            if wanted && call.ticket.is_none() {
                if is_early {
                    return Ok(()); // its voicemail may be on the way
                }
                let thread = thread(app, source, &office, key, &call).await?;
                let words = words::missed(&call);
                let id = call_id(&key.call);
                let submission = submission(&call, id, thread, words, Vec::new(), &raw);
                if !submit(app, key, None, submission, now).await? {
                    return Ok(());
                }
            }
        }
        Verdict::Nothing => {}
    }
    complete_caller(app, key, &call, &raw, now).await?;
    store::within(WITHIN, async {
        rows::settled(&mut *app.pool.acquire().await?, key, call.told).await
    })
    .await
}

/// The number was told only after the ticket was made: it is added to the ticket's trail.
async fn complete_caller(
    app: &App,
    key: &Key,
    call: &Call,
    raw: &Bytes,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (Some(ticket), Some(Caller::Known(_) | Caller::Raw(_))) = (call.ticket, &call.facts.caller)
    else {
        return Ok(());
    };
    let Some((group, round)) = &call.group else { return Ok(()) };
    let thread = thread_name(group, *round);
    let unknown = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        store::call::lacks_phone(&mut db, key.office, ticket, &thread).await
    });
    if !unknown.await? {
        return Ok(());
    }
    let id = format!("caller:{}", key.call);
    let words = words::caller(call);
    submit(app, key, None, submission(call, id, thread, words, Vec::new(), raw), now).await?;
    Ok(())
}

/// Hands a submission to the intake and notes what it became; false when it could not be taken now.
async fn submit(
    app: &App,
    key: &Key,
    recording: Option<&str>,
    submission: Submission,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let (id, raw) = (submission.source_id.clone(), submission.raw.clone());
    match app.intake.accept_at(key.office, submission, now).await {
        Ok(_) => {}
        Err(AcceptError::Busy(_) | AcceptError::NoOffice) => return Ok(false),
        Err(AcceptError::Invalid(_)) => {
            let item = Quarantine {
                source: key.source.clone(),
                source_id: id.clone(),
                reason: "out_of_bounds",
                raw: raw.to_vec(),
            };
            let mut db = app.pool.acquire().await?;
            store::quarantine::keep(&mut db, key.office, &item, now).await?;
            return Ok(true);
        }
    }
    store::within(WITHIN, async {
        rows::link(&mut *app.pool.acquire().await?, key, recording, &id).await
    })
    .await?;
    Ok(true)
}

async fn message_of(
    app: &App,
    key: &Key,
    recording: &str,
) -> Result<Option<(RegisterNumber, i32)>, StoreError> {
    let rows = store::within(WITHIN, async {
        rows::recordings(&mut *app.pool.acquire().await?, key).await
    });
    let row = rows.await?.into_iter().find(|row| row.key == recording);
    Ok(row.and_then(|row| row.message))
}

/// The recording's file can be fetched, where its source says where it lies and the settings allow to
/// look there.
async fn expect_file(
    app: &App,
    source: &Source,
    key: &Key,
    message: (RegisterNumber, i32),
    recording: &Recording,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let Some(audio) = recording.audio.as_ref() else { return Ok(()) };
    if !source.looks_at(audio) {
        return Ok(());
    }
    let until = now + TimeDelta::days(source.settings.audio.days.into());
    store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        rows::expect_file(&mut db, key.office, message, &reference(audio), until, now).await
    })
    .await?;
    app.fetcher.wake();
    Ok(())
}

/// Where a recording lies, as one text.
fn reference(audio: &AudioRef) -> String {
    match audio {
        AudioRef::Local(path) => format!("file:{path}"),
        AudioRef::Http(url) => url.clone(),
        AudioRef::Pull(name) => format!("pull:{name}"),
    }
}

fn attachment(call: &Call, key: &str, recording: &Recording) -> Attachment {
    Attachment {
        kind: AttachmentKind::Voice,
        reference: recording.audio.as_ref().map_or_else(|| key.to_owned(), reference),
        label: Some(words::label(call, recording)),
    }
}

fn submission(
    call: &Call,
    source_id: String,
    thread: String,
    text: String,
    attachments: Vec<Attachment>,
    raw: &Bytes,
) -> Submission {
    Submission {
        channel: ChannelKind::Hotline,
        source: call.facts.source.clone(),
        source_id,
        thread: Some(thread),
        occurred_at: Some(call.spoken_at),
        citizen: Citizen {
            name: call.facts.caller_name.clone(),
            phone: call.facts.caller.as_ref().and_then(Caller::dialled),
        },
        text,
        meaning: Meaning::Statement,
        attachments,
        urgent: false,
        taken_by: None,
        raw: raw.clone(),
    }
}

/// The identity of what tells of a call without a recording.
fn call_id(call: &str) -> String {
    format!("call:{call}")
}

/// The thread of a call, decided once.
async fn thread(
    app: &App,
    source: &Source,
    office: &Office,
    key: &Key,
    call: &Call,
) -> Result<String, StoreError> {
    let group = group(source, office, call);
    let (group, round) = store::within(WITHIN, async {
        rows::join_group(&mut *app.pool.acquire().await?, key, &group).await
    })
    .await?;
    Ok(thread_name(&group, round))
}

/// A second call under an identity that another one has: the same facts have the same key.
fn apart(mut facts: CallEvent) -> CallEvent {
    let caller = facts.caller.as_ref().and_then(Caller::identity).unwrap_or_default();
    let began = facts.started_at.map(|at| at.timestamp()).unwrap_or_default();
    let hash = Sha256::digest(format!("{caller}@{began}"));
    facts.call_key = format!("{}#{}", facts.call_key, hex::encode(&hash[..4]));
    facts
}

/// Takes what was told under another call's identity as a call of its own; returns its ticket.
///
/// # Errors
/// [`StoreError`].
pub async fn replay_apart(
    app: &App,
    source: &Source,
    facts: CallEvent,
    raw: &[u8],
) -> Result<Option<RegisterNumber>, StoreError> {
    let facts = apart(facts);
    let key =
        Key { office: source.office, source: source.name.clone(), call: facts.call_key.clone() };
    let now = app.clock.now();
    hear(app, source, vec![facts], raw, now).await?;
    settle(app, &key, now).await?;
    let call =
        store::within(WITHIN, async { rows::read(&mut *app.pool.acquire().await?, &key).await });
    Ok(call.await?.and_then(|call| call.ticket))
}

/// Reads a push that was put aside once more; `None` when it still tells of no call, else the ticket of its
/// first one.
///
/// # Errors
/// [`StoreError`].
pub async fn replay(
    app: &App,
    source: &Source,
    raw: &[u8],
) -> Result<Option<Option<RegisterNumber>>, StoreError> {
    let Some(push) = &source.push else { return Ok(None) };
    let told = push.reread(raw);
    if told.unread.is_some() || told.calls.is_empty() {
        return Ok(None);
    }
    let first = told.calls.first().map(|call| call.call_key.clone()).unwrap_or_default();
    let calls: Vec<String> = told.calls.iter().map(|call| call.call_key.clone()).collect();
    let now = app.clock.now();
    hear(app, source, told.calls, raw, now).await?;
    // What is known already is done again: it may have been refused before.
    for call in calls {
        settle(app, &Key { office: source.office, source: source.name.clone(), call }, now).await?;
    }
    let key = Key { office: source.office, source: source.name.clone(), call: first };
    let call =
        store::within(WITHIN, async { rows::read(&mut *app.pool.acquire().await?, &key).await });
    Ok(Some(call.await?.and_then(|call| call.ticket)))
}

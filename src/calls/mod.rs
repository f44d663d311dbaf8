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
//! may still be on the way.

pub mod fetch;
mod pull;
pub mod reconcile;
pub mod scan;
mod settings;
mod words;

pub use words::ended;

pub use settings::{Audio, Kind as SourceKind, MissedCalls, Settings, Source, Wrong};

use crate::{
    domain::{calendar::WorkingCalendar, id::OfficeId, register::RegisterNumber},
    http::App,
    intake::{AcceptError, Accepted},
    lifecycle::Wake,
    offices::Office,
    store::{
        self, StoreError,
        call::{self as rows, Call, Columns, Key, Told},
    },
    telemetry,
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{
    Attachment, AttachmentKind, ChannelKind, Citizen, Meaning, Quarantine, Submission, china,
};
use intake_hotline::{
    AudioRef, CallEvent, Caller, Kind, Outcome, Recording, Voicemail, recording_key,
};
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
/// Of a recording that is brought along.
const KEPT_WITHIN: Duration = Duration::from_secs(10);
/// Two beginnings that are further apart are not of one call, whatever its identity.
const REUSED: TimeDelta = TimeDelta::hours(12);
/// Whoever took a call to settle and is gone: somebody else does it then.
const LEASE: TimeDelta = TimeDelta::seconds(60);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a call is to become, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// A message was left, here or on its way.
    Message,
    /// Nobody spoke with the caller and nothing was left.
    Missed,
    /// Somebody spoke with the caller, or it cannot be known yet.
    Nothing,
}

fn verdict(facts: &CallEvent, calendar: &WorkingCalendar, spoken_at: DateTime<Utc>) -> Verdict {
    let left =
        facts.recordings.is_empty() || facts.recordings.values().any(Recording::says_something);
    if facts.kind == Kind::Voicemail && left {
        return Verdict::Message;
    }
    // Recorded while nobody was there, by a source that does not say of its recordings what they are
    // (R5.2).
    let recorded = facts.kind == Kind::RecordingReady && left && !facts.recordings.is_empty();
    let spoken_with = matches!(facts.outcome, Some(Outcome::Answered | Outcome::Blocked));
    if recorded && !spoken_with && !calendar.is_open(spoken_at) {
        return Verdict::Message;
    }
    match facts.outcome {
        Some(Outcome::Answered | Outcome::Blocked) => Verdict::Nothing,
        // An officer's own telephone: nobody has to call it back.
        _ if facts.caller.as_ref().is_some_and(is_inside) => Verdict::Nothing,
        Some(_) => Verdict::Missed,
        None if facts.kind == Kind::RecordingAbsent || facts.kind == Kind::Voicemail => {
            Verdict::Missed
        }
        // It is over, and nobody says how: out of hours there was nobody to answer.
        None if facts.recordings.is_empty()
            && (facts.kind == Kind::CallEnded || facts.ended_at.is_some()) =>
        {
            if calendar.is_open(spoken_at) { Verdict::Nothing } else { Verdict::Missed }
        }
        None => Verdict::Nothing,
    }
}

/// Whether it is an extension of the office: three or four digits. No caller from outside has those.
fn is_inside(caller: &Caller) -> bool {
    matches!(caller, Caller::Raw(number)
        if (3..=4).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()))
}

/// What is looked for of a call, by its facts.
fn columns(
    source: &Source,
    office: &Office,
    facts: &CallEvent,
    told_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Columns {
    let plausible = facts.time_is_plausible(told_at);
    let spoken_at = facts.spoken_at().filter(|_| plausible).unwrap_or(told_at);
    let settle_at = match verdict(facts, &office.calendar, spoken_at) {
        // The webhook's own request makes the ticket, and answers with its number.
        Verdict::Message if source.settings.kind == SourceKind::Webhook => Some(now + LEASE),
        Verdict::Message => Some(now),
        Verdict::Missed if source.settings.missed_calls == MissedCalls::Off => None,
        Verdict::Missed => {
            let wait = i64::try_from(source.settings.missed_after_s).unwrap_or(0);
            Some(now + TimeDelta::seconds(wait))
        }
        Verdict::Nothing => None,
    };
    let line = match source.settings.line.as_str() {
        "" => facts.callee.as_deref().unwrap_or_default().to_owned(),
        line => line.to_owned(),
    };
    let caller = facts.caller.as_ref().and_then(Caller::identity).map(str::to_owned);
    Columns { spoken_at, line, caller, outcome: facts.outcome.map(words::outcome), settle_at }
}

fn told(facts: &CallEvent) -> Vec<(String, Told)> {
    let state = |recording: &Recording| match facts.kind {
        _ if !recording.says_something() => Told::TooShort,
        Kind::RecordingAbsent => Told::Absent,
        _ => Told::Announced,
    };
    facts.recordings.iter().map(|(key, one)| (key.clone(), state(one))).collect()
}

/// Puts what a source tells together with what is known, in one transaction; returns after COMMIT
/// the calls of which something new is known. `raw` is the original.
///
/// # Errors
/// [`StoreError`]: nothing was kept then.
pub async fn take(
    app: &App,
    source: &Source,
    calls: Vec<CallEvent>,
    raw: &[u8],
) -> Result<Vec<Key>, StoreError> {
    let Some(office) = app.offices.get(source.office) else { return Ok(Vec::new()) };
    let now = app.clock.now();
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
            rows::keep_part(&mut transaction, of, digest, &keys, raw, now).await?;
            let mut new = Vec::new();
            for facts in told_of.values() {
                let call = facts.call_key.clone();
                let key = Key { office: source.office, source: source.name.clone(), call };
                if put_together(&mut transaction, source, &office, &key, facts, digest, now).await?
                {
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

async fn put_together(
    db: &mut sqlx::PgConnection,
    source: &Source,
    office: &Office,
    key: &Key,
    facts: &CallEvent,
    digest: [u8; 32],
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let columns_of = |facts: &CallEvent, told_at| columns(source, office, facts, told_at, now);
    if rows::begin(db, key, facts, &columns_of(facts, now), digest, now).await? {
        rows::enter_recordings(db, key, &told(facts)).await?;
        return Ok(true);
    }
    let wrong = StoreError::RowCount { table: "call", changed: 0, wanted: 1 };
    let before = rows::lock(db, key).await?.ok_or(wrong)?;
    if reconcile::contradicts(&before.facts, facts, REUSED) {
        // An identity used twice: two people are not made one. Somebody looks at it.
        let told = serde_json::to_vec(facts).unwrap_or_default();
        let item = Quarantine {
            source: key.source.clone(),
            source_id: format!("sha256:{}", hex::encode(digest)),
            reason: "call_differs",
            raw: told,
        };
        store::quarantine::keep(db, key.office, &item, now).await?;
        return Ok(false);
    }
    let Ok(merged) = before.facts.clone().merge(facts.clone()) else { return Ok(false) };
    if merged == before.facts {
        return Ok(false);
    }
    rows::complete(db, key, &merged, &columns_of(&merged, before.told_at)).await?;
    rows::enter_recordings(db, key, &told(&merged)).await?;
    Ok(true)
}

/// Takes what a source tells and does at once what can be done about it; what cannot is done later.
///
/// # Errors
/// [`StoreError`]: nothing was kept then.
pub async fn hear(
    app: &App,
    source: &Source,
    calls: Vec<CallEvent>,
    raw: &[u8],
) -> Result<Vec<Key>, StoreError> {
    let new = take(app, source, calls, raw).await?;
    for key in &new {
        if let Err(error) = settle(app, key).await {
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
    settle(app, &key).await?;
    Ok(true)
}

/// Does what follows from what is known of a call; the same again changes nothing.
///
/// # Errors
/// [`StoreError`]; it is done again later.
pub async fn settle(app: &App, key: &Key) -> Result<(), StoreError> {
    // Without its source in the settings nobody knows how to read it: it waits for the source.
    let Some(source) = app.sources.of(key.office, &key.source) else { return Ok(()) };
    let Some(office) = app.offices.get(key.office) else { return Ok(()) };
    let now = app.clock.now();
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
    let due = columns(source, &office, &call.facts, call.told_at, call.told_at).settle_at;
    match verdict {
        Verdict::Message => {
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
                        if !submit(app, key, Some(recording), submission).await? {
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
                if call.ticket.is_none() && !submit(app, key, None, submission).await? {
                    return Ok(());
                }
            }
        }
        Verdict::Missed => {
            let is_due = due.is_some_and(|at| at <= now);
            if source.settings.missed_calls != MissedCalls::Off && !is_due {
                return Ok(()); // its voicemail may be on the way
            }
            if source.settings.missed_calls != MissedCalls::Off && call.ticket.is_none() {
                let thread = thread(app, source, &office, key, &call).await?;
                let words = words::missed(&call);
                let id = call_id(&key.call);
                let submission = submission(&call, id, thread, words, Vec::new(), &raw);
                if !submit(app, key, None, submission).await? {
                    return Ok(());
                }
            }
        }
        Verdict::Nothing => {}
    }
    complete_caller(app, key, &call, &raw).await?;
    store::within(WITHIN, async {
        rows::settled(&mut *app.pool.acquire().await?, key, call.told).await
    })
    .await
}

/// The number was told only after the ticket was made: it is added to the ticket's trail.
async fn complete_caller(app: &App, key: &Key, call: &Call, raw: &Bytes) -> Result<(), StoreError> {
    let (Some(ticket), Some(Caller::Known(_) | Caller::Raw(_))) = (call.ticket, &call.facts.caller)
    else {
        return Ok(());
    };
    let Some((group, round)) = &call.group else { return Ok(()) };
    let unknown = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        store::call::lacks_phone(&mut db, key.office, ticket).await
    });
    if !unknown.await? {
        return Ok(());
    }
    let id = format!("caller:{}", key.call);
    let words = words::caller(call);
    let thread = thread_name(group, *round);
    submit(app, key, None, submission(call, id, thread, words, Vec::new(), raw)).await?;
    Ok(())
}

/// Hands a submission to the intake and notes what it became; false when it could not be taken now.
async fn submit(
    app: &App,
    key: &Key,
    recording: Option<&str>,
    submission: Submission,
) -> Result<bool, StoreError> {
    let (id, raw) = (submission.source_id.clone(), submission.raw.clone());
    match app.intake.accept(key.office, submission).await {
        Ok(_) => {}
        Err(AcceptError::Busy(_) | AcceptError::NoOffice) => return Ok(false),
        Err(AcceptError::Invalid(_)) => {
            let item = Quarantine {
                source: key.source.clone(),
                source_id: id.clone(),
                reason: "out_of_bounds",
                raw: raw.to_vec(),
            };
            let now = app.clock.now();
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
    if !source.settings.audio.looks_at(audio) {
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

fn thread_name(group: &str, round: i32) -> String {
    if round == 1 { group.to_owned() } else { format!("{group}#{round}") }
}

/// Whom a call shares a ticket with: the same number on the same line in the same closed period, or
/// the same day's sessions. A withheld number shares with nobody.
fn group(source: &Source, office: &Office, call: &Call) -> String {
    let facts = &call.facts;
    let alone = format!("{}:call:{}", source.name, facts.call_key);
    let missed = verdict(facts, &office.calendar, call.spoken_at) == Verdict::Missed;
    let each = missed && source.settings.missed_calls == MissedCalls::Always;
    let Some(caller) = facts.caller.as_ref().and_then(Caller::identity).filter(|_| !each) else {
        return alone;
    };
    let period = if office.calendar.is_open(call.spoken_at) {
        call.spoken_at.with_timezone(&china()).format("day%Y%m%d").to_string()
    } else {
        format!("until{}", office.calendar.next_open(call.spoken_at).value.timestamp())
    };
    let line = match source.settings.kind {
        // Their messages may come before the number that was called: who shares a ticket must not
        // hang on which part came first.
        SourceKind::Vendor | SourceKind::Twilio => source.settings.line.clone(),
        _ => columns(source, office, facts, call.told_at, call.told_at).line,
    };
    let group = format!("{}:{line}:{caller}:{period}", source.name);
    // Room for the round.
    if group.len() <= intake_contract::LIMITS.thread - 8 { group } else { alone }
}

/// A recording that a signed description brought along and vouches for.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as what they are")]
pub struct Brought {
    pub digest: [u8; 32],
    pub content: Bytes,
}

/// A signed voicemail of the webhook: its call is kept, and the submission goes through the intake in
/// the thread of its call. A recording that came along is kept before anything is answered; with a
/// repeat too, for the first one may have come without.
///
/// # Errors
/// As [`crate::intake::Intake::accept`].
pub async fn accept(
    app: &App,
    office: OfficeId,
    submission: Submission,
    brought: Option<Brought>,
) -> Result<Accepted, AcceptError> {
    let Some(brought) = brought else { return accept_told(app, office, submission).await };
    let now = app.clock.now();
    let (source, recording) = (submission.source.clone(), recording_key(&submission.source_id));
    let kept = store::within(KEPT_WITHIN, async {
        let mut db = app.pool.acquire().await?;
        store::citizen::keep_upload(&mut db, office, &brought.digest, &brought.content, now).await
    });
    kept.await.map_err(busy)?;
    let accepted = accept_told(app, office, submission).await?;
    let reference = format!("upload:{}", hex::encode(brought.digest));
    let differs = matches!(accepted, Accepted::Ticket { differs: true, .. });
    let attached = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        let of = (office, source.as_str());
        // Another content under the same identity is none of the first one's recording.
        if differs || !rows::expect_upload(&mut db, of, &recording, &reference, now).await? {
            let digest = &brought.digest;
            store::citizen::forget_upload(&mut db, office, digest, &reference, now).await?;
        }
        Ok::<_, StoreError>(())
    });
    attached.await.map_err(busy)?;
    app.fetcher.wake();
    Ok(accepted)
}

fn busy(error: StoreError) -> AcceptError {
    tracing::warn!(error = %telemetry::causes(&error), "a call could not be kept; its sender may try again");
    AcceptError::Busy(intake_contract::Busy { retry_after_s: 5 })
}

async fn accept_told(
    app: &App,
    office: OfficeId,
    mut submission: Submission,
) -> Result<Accepted, AcceptError> {
    let source = app.sources.of(office, &submission.source);
    let read = source.and_then(|source| {
        let voicemail = Voicemail::parse(&submission.raw).ok()?;
        Some((source, voicemail.call(&source.name, &source.settings.numbering).ok()?))
    });
    let Some((source, facts)) = read else { return app.intake.accept(office, submission).await };
    let key = Key { office, source: source.name.clone(), call: facts.call_key.clone() };
    let (id, other) = (submission.source_id.clone(), facts.clone());
    let recording = facts.recordings.keys().next().cloned().unwrap_or_else(|| id.clone());
    let (raw, offices) = (submission.raw.clone(), app.offices.get(office));
    let known = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        rows::of_recording(&mut db, (office, &source.name), &recording).await
    });
    // What repeats an identity with another content is none of the call's facts: the intake says
    // that it differs.
    if known.await.map_err(busy)?.is_none() {
        take(app, source, vec![facts], &raw).await.map_err(busy)?;
    }
    let call =
        store::within(WITHIN, async { rows::read(&mut *app.pool.acquire().await?, &key).await });
    if let (Some(call), Some(office)) = (call.await.map_err(busy)?, offices) {
        // Another call under a used identity: a matter of its own.
        if reconcile::contradicts(&call.facts, &other, REUSED) {
            return app.intake.accept(office.id, submission).await;
        }
        let thread = thread(app, source, &office, &key, &call).await.map_err(busy)?;
        submission.thread = Some(thread);
        submission.citizen.phone = call.facts.caller.as_ref().and_then(Caller::dialled);
        if verdict(&call.facts, &office.calendar, call.spoken_at) == Verdict::Missed {
            submission.text = words::missed(&call);
        }
    }
    let accepted = app.intake.accept(office, submission).await?;
    let linked = store::within(WITHIN, async {
        rows::link(&mut *app.pool.acquire().await?, &key, Some(&recording), &id).await
    });
    linked.await.map_err(busy)?;
    // The file, and nothing more: the ticket is there.
    if let Err(error) = settle(app, &key).await {
        tracing::info!(error = %telemetry::causes(&error), "a call is kept; its recording follows");
    }
    Ok(accepted)
}

/// Reads a push that was put aside once more; false when it still tells of no call.
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
    hear(app, source, told.calls, raw).await?;
    // What is known already is done again: it may have been refused before.
    for call in calls {
        settle(app, &Key { office: source.office, source: source.name.clone(), call }).await?;
    }
    let key = Key { office: source.office, source: source.name.clone(), call: first };
    let call =
        store::within(WITHIN, async { rows::read(&mut *app.pool.acquire().await?, &key).await });
    Ok(Some(call.await?.and_then(|call| call.ticket)))
}

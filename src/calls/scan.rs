//! What exchanges leave in folders: Asterisk's voicemail spool and call records, and the records that
//! FreeSWITCH could not deliver (hotline.md §1.1, §1.2, §2c). Looked through whole, again and again:
//! notifications of a file system get lost, a look does not. Nothing in a spool is ever changed.

use super::{
    Source, SourceKind,
    fetch::{FetchError, read},
    hear, reconcile,
};
use crate::{
    http::App,
    store::{self, StoreError, call as rows, reconcile::Among},
    telemetry,
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use intake_contract::Quarantine;
use intake_hotline::{
    AudioRef, BODY_LIMIT, CallEvent, Unread, Zone,
    asterisk::{self, BadRow, CallRecord, Message},
    freeswitch,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// Where messages lie: not heard yet, urgent, heard.
const FOLDERS: [&str; 3] = ["INBOX", "Urgent", HEARD];
const HEARD: &str = "Old";
/// A call record this fresh may still lack its message.
const RECORD_AGE: TimeDelta = TimeDelta::seconds(30);
/// Call records older than this were taken long ago, however long nobody was up.
const RECORDS_BACK: TimeDelta = TimeDelta::days(30);
/// A file that cannot be read and is younger may still be being written.
const BEING_WRITTEN: Duration = Duration::from_secs(60);
/// A message whose length is written by then never gets one: the disk was full, the exchange fell.
const UNFINISHED: Duration = Duration::from_secs(180);
/// How often the folders themselves are looked at: what is moved into one changes its time, also on
/// a share that tells nobody (hotline.md §2c).
const GLANCE: Duration = Duration::from_secs(1);
/// What a record's file is called once it was taken, or put aside.
const TAKEN: &str = ".taken";
const UNREAD: &str = ".unread";
/// Of the end of a file of call records.
const RECORDS_READ: u64 = 8 * 1024 * 1024;
/// Of rows that cannot be read so many are put aside; where a whole file cannot be, they say enough.
const ROWS_KEPT: usize = 20;

/// What one process has taken already; all of it could be taken again.
pub type Seen = HashSet<[u8; 32]>;

/// Looks through the folders of every source that has some, until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let sources: Vec<Arc<Source>> =
        app.sources.0.values().filter(|source| source.has_folders()).cloned().collect();
    join_all(sources.iter().map(|source| watch(&app, source, &shutdown))).await;
}

async fn watch(app: &App, source: &Source, shutdown: &CancellationToken) {
    let mut seen = Seen::new();
    let every = Duration::from_secs(source.settings.scan_every_s);
    let mut away: Option<PathBuf> = None;
    while !shutdown.is_cancelled() {
        let before = glance(source).await;
        if before.away != away {
            if let Some(path) = &before.away {
                tracing::warn!(source = source.name, path = %path.display(), "a folder of the exchange is not there, or may not be read");
            }
            away = before.away.clone();
        }
        if let Err(error) = scan(app, source, &mut seen).await {
            tracing::warn!(
                source = source.name,
                error = %telemetry::causes(&error),
                "what the exchange left could not be taken; trying again"
            );
        }
        // Until it is time, somebody asks, or something was put there.
        let ends = tokio::time::Instant::now() + every;
        while !shutdown.is_cancelled() && tokio::time::Instant::now() < ends {
            if source.look.wait(GLANCE.min(every), shutdown).await || glance(source).await != before
            {
                break;
            }
        }
    }
}

/// How a source's folders stand.
#[derive(Debug, PartialEq, Eq)]
struct Glance {
    /// When something was put into each, or taken out.
    changed: Vec<SystemTime>,
    /// The first that cannot be read.
    away: Option<PathBuf>,
}

async fn glance(source: &Source) -> Glance {
    let settings = &source.settings;
    let (spools, csv) = (settings.spools.clone(), settings.cdr_csv.clone());
    let folder = settings.err_log_dir.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let unreadable = |path: &&PathBuf| fs::read_dir(path).is_err();
        let away = spools.iter().chain(&folder).find(unreadable).cloned();
        let away = away.or_else(|| csv.clone().filter(|csv| fs::File::open(csv).is_err()));
        let boxes = spools.iter().flat_map(|spool| mailboxes(spool)).map(|(.., folder)| folder);
        let all = boxes.chain(folder).chain(csv);
        let changed = all.filter_map(|path| fs::metadata(path).ok()?.modified().ok()).collect();
        Glance { changed, away }
    });
    looked.await.unwrap_or(Glance { changed: Vec::new(), away: None })
}

/// Takes what is new in a source's folders; returns how many things were looked at anew.
///
/// # Errors
/// [`StoreError`]; the next look takes what is left.
pub async fn scan(app: &App, source: &Source, seen: &mut Seen) -> Result<usize, StoreError> {
    match (source.settings.kind, &source.settings.err_log_dir) {
        (SourceKind::Asterisk, _) => spool(app, source, seen).await,
        (_, Some(folder)) => left_behind(app, source, folder).await,
        _ => Ok(0),
    }
}

/// A message in the spool as it was found.
struct Found {
    raw: Vec<u8>,
    read: Result<Message, Unread>,
    has_audio: bool,
    /// Somebody has heard it at the exchange.
    heard: bool,
    /// Since it was written, by the machine's clock.
    age: Option<Duration>,
}

async fn spool(app: &App, source: &Source, seen: &mut Seen) -> Result<usize, StoreError> {
    let found = in_spool(app, source, seen, app.clock.now() - RECORDS_BACK).await?;
    let mut taken = 0;
    for (unread, raw) in &found.unread {
        if seen.insert(mark(raw)) {
            put_aside(app, source, *unread, raw).await?;
            taken += 1;
        }
    }
    if taken > 0 {
        let (source, rows) = (&source.name, found.unread.len() + found.more_unread);
        tracing::warn!(source, rows, "messages or call records cannot be read; see the quarantine");
    }
    for told in found.told {
        let is_whole = told.call.recordings.values().all(|one| one.audio.is_some());
        hear(app, source, vec![told.call], &told.raw, app.clock.now()).await?;
        // The sound may be there at the next look.
        if is_whole {
            seen.insert(mark(&told.raw));
        }
        taken += 1;
    }
    Ok(taken)
}

/// What a spool and its call records tell, and what of it cannot be read.
#[derive(Default)]
pub(super) struct InFolders {
    pub(super) told: Vec<Told>,
    pub(super) unread: Vec<(Unread, Vec<u8>)>,
    /// Rows of call records that cannot be read either, beside so many others of their kind.
    pub(super) more_unread: usize,
}

/// A call, as far as one file or record tells of it.
pub(super) struct Told {
    pub(super) call: CallEvent,
    pub(super) raw: Vec<u8>,
}

fn mark(raw: &[u8]) -> [u8; 32] {
    Sha256::digest(raw).into()
}

/// What there is in a spool besides what was seen, with the call records of calls that ended since then.
/// What was heard or ended before the gateway was connected is nobody's news.
pub(super) async fn in_spool(
    app: &App,
    source: &Source,
    seen: &Seen,
    since: DateTime<Utc>,
) -> Result<InFolders, StoreError> {
    let (spools, csv) = (source.settings.spools.clone(), source.settings.cdr_csv.clone());
    let zone = source.settings.zone.unwrap_or_else(Zone::china);
    let looked = tokio::task::spawn_blocking(move || {
        let found: Vec<Found> = spools.iter().flat_map(|spool| messages(spool)).collect();
        (found, csv.map(|csv| records(&csv, zone)).unwrap_or_default())
    });
    let Ok((found, (records, rows))) = looked.await else { return Ok(InFolders::default()) };
    let numbering = &source.settings.numbering;
    let of = (source.office, source.name.as_str());
    let now = app.clock.now();
    let connected = match source.settings.since {
        Some(since) => since,
        None => rows::first_seen(&mut *app.pool.acquire().await?, of, now).await?,
    };
    let since = since.max(connected);
    let mut all = InFolders::default();
    let rows: Vec<_> = rows.into_iter().filter(|row| row.at.is_none_or(|at| at >= since)).collect();
    all.more_unread = rows.len().saturating_sub(ROWS_KEPT);
    let newest = rows.into_iter().skip(all.more_unread);
    all.unread.extend(newest.map(|row| (row.unread, row.raw)));

    let is_new = |record: &CallRecord| !seen.contains(&mark(record_text(record).as_bytes()));
    let kept: HashSet<String> = {
        let all = found.iter().filter_map(|found| found.read.clone().ok()).collect();
        asterisk::without_copies(all).iter().map(Message::recording_key).collect()
    };
    let mut claimed: HashMap<&str, String> = HashMap::new();
    for found in &found {
        let message = match &found.read {
            // Being written: the duration comes last.
            Ok(message)
                if message.duration_s.is_none()
                    && found.age.is_some_and(|age| age < UNFINISHED) =>
            {
                continue;
            }
            Err(unread) => {
                all.unread.push((*unread, found.raw.clone()));
                continue;
            }
            Ok(message) if found.heard && message.recorded_at.is_some_and(|at| at < connected) => {
                continue;
            }
            Ok(message) if !kept.contains(&message.recording_key()) => continue,
            Ok(message) => message,
        };
        let record = message.record_of(&records, numbering);
        let was_seen = seen.contains(&mark(&found.raw));
        // A record that is new belongs to the message's call, whichever came first.
        if was_seen && !record.is_some_and(&is_new) {
            continue;
        }
        let key = message.recording_key();
        let mut db = app.pool.acquire().await?;
        let mut known = rows::of_recording(&mut db, of, &key).await?;
        if let (None, Some(channel), Some(at)) = (&known, &message.channel, message.recorded_at) {
            // A copy of it in another mailbox may have been taken before its record was there.
            let second = TimeDelta::seconds(1);
            let moment = (at - second, at + second);
            known = rows::spoken_between(&mut db, of, &format!("{channel}@"), moment).await?;
            // Its record may have been posted before.
            if known.is_none() && record.is_none() {
                known = store::reconcile::on_channel(&mut db, of, channel, at).await?;
            }
        }
        drop(db);
        let audio = found.has_audio.then_some(AudioRef::Pull(key));
        let Ok(mut call) = message.call(&source.name, record, audio, numbering) else { continue };
        if let Some(known) = known {
            call.call_key = known;
        }
        if let Some(record) = record {
            claimed.insert(&record.unique_id, call.call_key.clone());
        }
        if !was_seen {
            all.told.push(Told { call, raw: found.raw.clone() });
        }
    }

    for record in &records {
        let ended = record.ended_at.unwrap_or(record.started_at);
        if now - ended < RECORD_AGE || ended < since || !is_new(record) {
            continue;
        }
        let of_message = claimed.contains_key(record.unique_id.as_str());
        if !of_message && !record.came_in(&source.settings.contexts, numbering) {
            continue;
        }
        let Ok(mut call) = record.call(&source.name, numbering) else { continue };
        let key = match claimed.get(record.unique_id.as_str()) {
            Some(key) => Some(key.clone()),
            None => of_channel(app, source, &call).await?,
        };
        if let Some(key) = key {
            call.call_key = key;
        }
        all.told.push(Told { call, raw: record_text(record).into_bytes() });
    }
    Ok(all)
}

/// Calls that were pushed, each under the key by which it is held already: that of its message, where
/// Asterisk posts its record; that of a vendor's list.
///
/// # Errors
/// [`StoreError`].
pub async fn tied(
    app: &App,
    source: &Source,
    mut calls: Vec<CallEvent>,
) -> Result<Vec<CallEvent>, StoreError> {
    for call in &mut calls {
        let known = match source.settings.kind {
            SourceKind::Asterisk => of_channel(app, source, call).await?,
            SourceKind::Vendor => reconcile::alike(app, source, call, Among::Listed).await?,
            _ => None,
        };
        if let Some(key) = known {
            call.call_key = key;
        }
    }
    Ok(calls)
}

/// The call of a message that came before its record and may have left the spool since.
async fn of_channel(
    app: &App,
    source: &Source,
    record: &CallEvent,
) -> Result<Option<String>, StoreError> {
    let (Some(channel), Some(began)) = (&record.channel, record.started_at) else {
        return Ok(None);
    };
    let second = TimeDelta::seconds(1);
    let lasted = (began - second, record.ended_at.unwrap_or(began) + second);
    let mut db = app.pool.acquire().await?;
    let of = (source.office, source.name.as_str());
    rows::spoken_between(&mut db, of, &format!("{channel}@"), lasted).await
}

/// A record as it is kept; its row is not, because a file of them holds all.
fn record_text(record: &CallRecord) -> String {
    format!(
        "{},{},{},{},{},{},{},{}",
        record.unique_id,
        record.caller,
        record.callee,
        record.channel,
        record.last_app,
        record.started_at.to_rfc3339(),
        record.ended_at.map(|at: DateTime<Utc>| at.to_rfc3339()).unwrap_or_default(),
        record.disposition
    )
}

/// Every message of a spool: `<context>/<mailbox>/<folder>/msgNNNN.txt`.
fn messages(spool: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for (context, mailbox, folder) in mailboxes(spool) {
        let names = names(&folder);
        let plain: Vec<&str> = names.iter().map(String::as_str).collect();
        for stem in plain.iter().filter_map(|name| asterisk::message_file(name)) {
            let path = folder.join(format!("{stem}.txt"));
            let Ok(raw) = read(&path, BODY_LIMIT) else { continue };
            let read = Message::parse(&raw, &context, &mailbox);
            let has_audio = asterisk::audio_file(stem, &plain).is_some();
            let heard = folder.ends_with(HEARD);
            found.push(Found { raw: raw.to_vec(), read, has_audio, heard, age: age(&path) });
        }
    }
    found
}

/// Context, mailbox and the folder with messages in it.
fn mailboxes(spool: &Path) -> Vec<(String, String, PathBuf)> {
    let mut all = Vec::new();
    for context in names(spool) {
        let within = spool.join(&context);
        for mailbox in names(&within) {
            for folder in FOLDERS {
                let folder = within.join(&mailbox).join(folder);
                if fs::symlink_metadata(&folder).is_ok_and(|folder| folder.is_dir()) {
                    all.push((context.clone(), mailbox.clone(), folder));
                }
            }
        }
    }
    all
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The recording of a message, wherever it lies by now: files are renumbered while one looks, so the
/// text beside it is read before and after (hotline.md §5-8).
pub(super) fn recording(spools: &[PathBuf], key: &str, limit: usize) -> Result<Bytes, FetchError> {
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        for (context, mailbox, folder) in spools.iter().flat_map(|spool| mailboxes(spool)) {
            let names = names(&folder);
            let plain: Vec<&str> = names.iter().map(String::as_str).collect();
            for stem in plain.iter().filter_map(|name| asterisk::message_file(name)) {
                let is_it = || {
                    let raw = read(&folder.join(format!("{stem}.txt")), BODY_LIMIT).ok();
                    let message = raw.and_then(|raw| Message::parse(&raw, &context, &mailbox).ok());
                    message.is_some_and(|message| message.recording_key() == key)
                };
                if !is_it() {
                    continue;
                }
                let Some(name) = asterisk::audio_file(stem, &plain) else { continue };
                let audio = read(&folder.join(name), limit);
                if is_it() {
                    return audio;
                }
            }
        }
    }
    Err(FetchError::NotThere("the message is not in the spool"))
}

/// Since a file was written, by the machine's clock, as the file's own time.
fn age(path: &Path) -> Option<Duration> {
    fs::metadata(path).and_then(|file| file.modified()).ok()?.elapsed().ok()
}

/// The end of a file of call records, without a last row that is being written: its records, and its
/// rows that cannot be read.
fn records(csv: &Path, zone: Zone) -> (Vec<CallRecord>, Vec<BadRow>) {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(csv)?;
        let from = file.metadata()?.len().saturating_sub(RECORDS_READ);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(RECORDS_READ).read_to_end(&mut bytes)?;
        bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1));
        let begins =
            if from == 0 { 0 } else { bytes.iter().position(|b| *b == b'\n').unwrap_or(0) };
        Ok(bytes.split_off(begins))
    };
    let (mut records, mut bad) = (Vec::new(), Vec::new());
    for row in asterisk::call_records(&read().unwrap_or_default(), zone) {
        match row {
            Ok(record) => records.push(record),
            Err(row) => bad.push(row),
        }
    }
    (records, bad)
}

/// Records that FreeSWITCH could not deliver; what was taken is renamed.
async fn left_behind(app: &App, source: &Source, folder: &Path) -> Result<usize, StoreError> {
    let Some(push) = &source.push else { return Ok(0) };
    let mut taken = 0;
    for path in records_left(folder) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if freeswitch::left_behind(name).is_none() {
            continue;
        }
        let age = age(&path);
        let renamed = |ending: &str| path.with_file_name(format!("{name}{ending}"));
        let raw = match read(&path, BODY_LIMIT) {
            Ok(raw) => raw,
            Err(FetchError::TooLarge) => {
                let head = read_head(&path, BODY_LIMIT);
                put_aside(app, source, Unread::TooLarge, &head).await?;
                let _ = fs::rename(&path, renamed(UNREAD));
                continue;
            }
            Err(_) => continue,
        };
        let told = push.reread(&raw);
        if told.unread.is_some() && age.is_some_and(|age| age < BEING_WRITTEN) {
            continue;
        }
        let mut ending = TAKEN;
        if let Some(unread) = told.unread {
            put_aside(app, source, unread, &raw).await?;
            ending = UNREAD;
        }
        hear(app, source, told.calls, &raw, app.clock.now()).await?;
        // Only now: what is renamed is not looked at again.
        if fs::rename(&path, renamed(ending)).is_err() {
            tracing::warn!(source = source.name, "a record that was taken could not be renamed");
        }
        taken += 1;
    }
    Ok(taken)
}

/// The files of that folder, and of those below it: the exchange may begin a new one now and then.
fn records_left(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in names(folder).into_iter().map(|name| folder.join(name)) {
        match fs::symlink_metadata(&path) {
            Ok(kind) if kind.is_dir() => {
                files.extend(names(&path).into_iter().map(|name| path.join(name)));
            }
            Ok(_) => files.push(path),
            Err(_) => {}
        }
    }
    files
}

/// The beginning of a file that is too large to be read.
fn read_head(path: &Path, limit: usize) -> Vec<u8> {
    use std::io::Read;
    let mut head = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(limit as u64).read_to_end(&mut head);
    }
    head
}

/// What lies in that folder, also of what was taken.
pub(super) async fn in_err_log(source: &Source, folder: &Path) -> InFolders {
    let folder = folder.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let is_record = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.strip_suffix(TAKEN).or(name.strip_suffix(UNREAD)).unwrap_or(name);
            freeswitch::left_behind(name).is_some()
        };
        let files = records_left(&folder).into_iter().filter(is_record);
        files.filter_map(|file| read(&file, BODY_LIMIT).ok()).collect::<Vec<Bytes>>()
    });
    let mut all = InFolders::default();
    let (Some(push), Ok(files)) = (&source.push, read.await) else { return all };
    for raw in files {
        let told = push.reread(&raw);
        let raw = raw.to_vec();
        all.unread.extend(told.unread.map(|unread| (unread, raw.clone())));
        all.told.extend(told.calls.into_iter().map(|call| Told { call, raw: raw.clone() }));
    }
    all
}

async fn put_aside(
    app: &App,
    source: &Source,
    unread: Unread,
    raw: &[u8],
) -> Result<(), StoreError> {
    let mut db = app.pool.acquire().await?;
    let item = aside(source, unread, raw);
    store::quarantine::keep(&mut db, source.office, &item, app.clock.now()).await
}

/// What is kept of something that cannot be read; the same again is the same.
pub(super) fn aside(source: &Source, unread: Unread, raw: &[u8]) -> Quarantine {
    Quarantine {
        source: source.name.clone(),
        source_id: format!("sha256:{}", hex::encode(Sha256::digest(raw))),
        reason: unread.reason(),
        raw: raw.to_vec(),
    }
}

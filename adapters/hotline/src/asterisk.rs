//! Asterisk: the voicemail spool, call detail records, and what its hooks say (hotline.md §1.1, §2c).
//!
//! The spool names no call and the call records name no message. What belongs together is found by
//! the channel and the time ([`Message::record_of`]). A message that is not claimed by a call record
//! is a call of its own.

use crate::{
    call::{AudioRef, CallEvent, Kind, Outcome, Recording, Unread},
    json,
    phone::{Caller, Numbering},
    text::{BODY_LIMIT, KEY, NAME, decode, fact, field, form},
    time::{TimeFormat, Unit, Zone},
};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// How far message and call may be apart where only number and mailbox tie them.
const APART_S: i64 = 90;

/// `msg0000` for `msg0000.txt`, which is moved into its place last: with it the message is complete.
/// `None` for other files.
#[must_use]
pub fn message_file(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".txt")?;
    let digits = stem.strip_prefix("msg")?;
    (digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(stem)
}

/// The recording of a message among the names in its directory: `.wav` before `.WAV` (GSM in another
/// wrapping) before `.gsm`. The first two differ in nothing but case, so the directory must not lie on
/// a share that knows none (§5-9).
#[must_use]
pub fn audio_file<'a>(stem: &str, names: &[&'a str]) -> Option<&'a str> {
    ["wav", "WAV", "gsm"].iter().find_map(|ending| {
        let fits = |name: &&str| {
            name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')) == Some(*ending)
        };
        names.iter().copied().find(fits)
    })
}

/// A message in the spool: `msgNNNN.txt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The voicemail context: the directory's name. The file's own `context` is the dialplan's.
    pub context: String,
    /// The mailbox: the directory's name.
    pub mailbox: String,
    /// The message's identity; unique within one Asterisk.
    pub msg_id: String,
    /// The channel, as in the call record; `None` when Asterisk did not know it.
    pub channel: Option<String>,
    /// `"张三" <02423456789>`, as written.
    pub caller_id: String,
    /// The number that was dialled.
    pub dialled: Option<String>,
    /// When the recording began: after the greeting, not when the call came in.
    pub recorded_at: Option<DateTime<Utc>>,
    /// Whole seconds, cut off. It is written last: `None` while the file is being written, and for
    /// ever where the disk was full.
    pub duration_s: Option<u32>,
    /// What the dialplan set (`VM_CATEGORY`): `night`.
    pub category: Option<String>,
    /// The caller marked it as urgent.
    pub urgent: bool,
}

impl Message {
    /// Reads a `msgNNNN.txt` that lies in this mailbox.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn parse(bytes: &[u8], context: &str, mailbox: &str) -> Result<Self, Unread> {
        if bytes.len() > BODY_LIMIT {
            return Err(Unread::TooLarge);
        }
        let text = decode(bytes);
        let mut fields = Vec::new();
        let mut within = false;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(';')) {
            if line.starts_with('[') {
                within = line == "[message]";
            } else if let Some((name, value)) = line.split_once('=').filter(|_| within) {
                fields.push((name.trim(), value.trim()));
            }
        }
        if fields.is_empty() {
            return Err(Unread::Form);
        }
        let field = |name: &str| {
            fields.iter().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, v)| *v)
        };
        let origtime = field("origtime").unwrap_or_default();
        let caller_id = field("callerid").unwrap_or_default();
        let channel = field("callerchan").unwrap_or_default();
        let msg_id = match field("msg_id") {
            Some(id) => crate::text::key(id).ok_or(Unread::Key)?,
            // Older ones write none.
            None if origtime.is_empty() => return Err(Unread::Key),
            None => {
                let mut hash = Sha256::new();
                for part in [origtime, caller_id, channel] {
                    hash.update(part);
                    hash.update([0]);
                }
                format!("h{}", hex::encode(&hash.finalize()[..12]))
            }
        };
        let message = Self {
            context: crate::text::key(context).ok_or(Unread::Key)?,
            mailbox: crate::text::key(mailbox).ok_or(Unread::Key)?,
            msg_id,
            channel: fact(channel, KEY).filter(|channel| channel != "Unknown"),
            caller_id: fact(caller_id, NAME * 2).unwrap_or_default(),
            dialled: field("exten").or(field("origmailbox")).and_then(|n| fact(n, KEY)),
            recorded_at: TimeFormat::EpochS.read(origtime, Zone::china()),
            duration_s: field("duration").and_then(|s| Unit::S.millis(s)).map(|ms| ms / 1000),
            category: field("category").and_then(|category| fact(category, KEY)),
            urgent: field("flag") == Some("Urgent"),
        };
        // Three names are joined in it.
        if message.recording_key().len() > KEY * 2 { Err(Unread::Key) } else { Ok(message) }
    }

    /// `vmctx/mailbox/msg_id`: never the path, whose numbers are dealt out anew (§5-8).
    #[must_use]
    pub fn recording_key(&self) -> String {
        format!("{}/{}/{}", self.context, self.mailbox, self.msg_id)
    }

    /// The message as a call. Without a call record the call goes by channel and time, which copies
    /// of one message in several mailboxes share. `audio` is the file, where one lies beside the text.
    ///
    /// # Errors
    /// [`Unread::Key`].
    pub fn call(
        &self,
        source: &str,
        record: Option<&CallRecord>,
        audio: Option<AudioRef>,
        numbering: &Numbering,
    ) -> Result<CallEvent, Unread> {
        let key = match (record, &self.channel, self.recorded_at) {
            (Some(record), _, _) => record.unique_id.clone(),
            (None, Some(channel), Some(at)) => format!("{channel}@{}", at.timestamp()),
            (None, _, _) => self.msg_id.clone(),
        };
        let mut call = CallEvent::new(source, &key, Kind::Voicemail)?;
        let (name, number) = caller_id(&self.caller_id);
        call.caller = Some(numbering.read(number));
        call.callee = self.dialled.clone();
        call.channel = self.channel.clone();
        call.outcome = Some(Outcome::MessageLeft);
        let recording = Recording {
            started_at: self.recorded_at,
            ms: self.duration_s.map(|s| s.saturating_mul(1000)),
            audio,
            ..Recording::default()
        };
        call.recordings.insert(self.recording_key(), recording);
        Ok(call.named(name))
    }

    /// The call record of the call in which this message was left: the same channel, recorded while
    /// it lasted. Only a message that names no channel goes by caller and mailbox, to the nearest call
    /// no further than 90 s away: with a channel, that would take the record of a caller who rang
    /// twice in a minute while the right one is still on its way.
    #[must_use]
    pub fn record_of<'a>(
        &self,
        records: &'a [CallRecord],
        numbering: &Numbering,
    ) -> Option<&'a CallRecord> {
        let at = self.recorded_at?;
        let near = |record: &&CallRecord| match &self.channel {
            // Both times are cut to seconds. Channels are numbered anew when Asterisk starts.
            Some(channel) => *channel == record.channel && record.apart_s(at) <= 1,
            None => record.apart_s(at) <= APART_S && self.is_of_caller(record, numbering),
        };
        records.iter().filter(near).min_by_key(|record| record.apart_s(at))
    }

    fn is_of_caller(&self, record: &CallRecord, numbering: &Numbering) -> bool {
        let theirs = numbering.read(&record.caller);
        let same_number = match (numbering.read(caller_id(&self.caller_id).1), theirs) {
            (Caller::Known(mine), Caller::Known(theirs)) => mine.e164 == theirs.e164,
            (Caller::Raw(mine), Caller::Raw(theirs)) => mine == theirs,
            // Two who hide their number are not one.
            _ => false,
        };
        same_number
            && (record.callee == self.mailbox || Some(&record.callee) == self.dialled.as_ref())
    }
}

/// One of each message: of copies the one whose key comes first stays.
#[must_use]
pub fn without_copies(mut messages: Vec<Message>) -> Vec<Message> {
    messages.sort_by_cached_key(Message::recording_key);
    let mut seen = HashSet::new();
    messages.retain(|message| match (&message.channel, message.recorded_at) {
        (Some(channel), Some(at)) => seen.insert((channel.clone(), at)),
        _ => true,
    });
    messages
}

/// `"张三" <02423456789>`, `+8613800005678`, `"Anonymous" <anonymous>`: name and number.
fn caller_id(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('<') {
        Some((name, number)) => {
            let name = name.trim().trim_matches('"').trim();
            ((!name.is_empty()).then_some(name), number.trim_end_matches('>').trim())
        }
        None => (None, text.trim()),
    }
}

/// A call detail record: a row of `cdr-csv/Master.csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// The call's identity.
    pub unique_id: String,
    /// The number that called, as written.
    pub caller: String,
    /// `"张三" <02423456789>`, as written.
    pub caller_id: String,
    /// The number that was dialled.
    pub callee: String,
    /// The dialplan's context in which the call ended.
    pub context: String,
    /// The caller's channel.
    pub channel: String,
    /// The channel that it was put through to; empty where a machine answered.
    pub to_channel: String,
    /// What the dialplan did last: `VoiceMail`.
    pub last_app: String,
    /// When the call began, in UTC.
    pub started_at: DateTime<Utc>,
    /// When it ended, in UTC.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it took, in seconds.
    pub duration_s: Option<u32>,
    /// `ANSWERED`, `NO ANSWER`, `BUSY`, `FAILED`, `CONGESTION`.
    pub disposition: String,
}

/// A row of call records that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Why.
    pub unread: Unread,
    /// As it stands there.
    pub raw: Vec<u8>,
    /// The first time in it, where there is one.
    pub at: Option<DateTime<Utc>>,
}

/// The rows of a piece of `Master.csv`; each is read for itself, a bad one spoils no other, nor does
/// one in another encoding. The times are local and without a zone, so the source's is needed.
#[must_use]
pub fn call_records(bytes: &[u8], zone: Zone) -> Vec<Result<CallRecord, BadRow>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let (mut rows, mut row, mut from) = (Vec::new(), csv::ByteRecord::new(), 0);
    while let Ok(true) = reader.read_byte_record(&mut row) {
        let to = usize::try_from(reader.position().byte()).unwrap_or(bytes.len());
        let raw = bytes.get(from..to).unwrap_or_default();
        from = to;
        let columns: Vec<String> = row.iter().map(decode).collect();
        rows.push(CallRecord::read(&columns, zone).map_err(|unread| BadRow {
            unread,
            raw: raw.trim_ascii().to_vec(),
            at: columns.iter().find_map(|column| zone.naive(column)),
        }));
    }
    rows
}

impl CallRecord {
    fn read(columns: &[String], zone: Zone) -> Result<Self, Unread> {
        // Sixteen, then what cdr.conf asks for: `loguniqueid` and `loguserfield` one each,
        // `newcdrcolumns` three. Without the first there is no identity.
        const COLUMNS: [usize; 4] = [17, 18, 20, 21];
        if !COLUMNS.contains(&columns.len()) {
            return Err(Unread::Form);
        }
        let column = |index: usize| columns.get(index).map_or("", String::as_str);
        let short = |index: usize| fact(column(index), KEY).unwrap_or_default();
        let unique_id = Some(column(16)).filter(|id| is_unique_id(id)).ok_or(Unread::Key)?;
        Ok(Self {
            unique_id: crate::text::key(unique_id).ok_or(Unread::Key)?,
            caller: short(1),
            callee: short(2),
            context: short(3),
            caller_id: fact(column(4), NAME * 2).unwrap_or_default(),
            channel: short(5),
            to_channel: short(6),
            last_app: short(7),
            started_at: zone.naive(column(9)).ok_or(Unread::Field)?,
            ended_at: zone.naive(column(11)),
            duration_s: Unit::S.millis(column(12)).map(|ms| ms / 1000),
            disposition: short(14),
        })
    }

    /// Whether a citizen called: not the second half of a call that Asterisk made to itself, not
    /// somebody of the office, and, where contexts are named, one that came in by one of them. Who
    /// posts a record without its context posts what came in.
    #[must_use]
    pub fn came_in(&self, contexts: &[String], numbering: &Numbering) -> bool {
        !self.channel.starts_with("Local/")
            && (contexts.is_empty() || self.context.is_empty() || contexts.contains(&self.context))
            && !numbering.is_own(&numbering.read(&self.caller))
    }

    /// How far a point in time is from this call, in seconds; 0 while it lasted.
    fn apart_s(&self, at: DateTime<Utc>) -> i64 {
        let end = self.ended_at.unwrap_or(self.started_at);
        (self.started_at - at).max(at - end).num_seconds().max(0)
    }

    /// The record as a call. It does not know whether a message was left: the spool completes it.
    ///
    /// # Errors
    /// [`Unread::Key`].
    pub fn call(&self, source: &str, numbering: &Numbering) -> Result<CallEvent, Unread> {
        let mut call = CallEvent::new(source, &self.unique_id, Kind::CallEnded)?;
        call.caller = Some(numbering.read(&self.caller));
        call.callee = fact(&self.callee, KEY);
        call.channel = fact(&self.channel, KEY);
        call.started_at = Some(self.started_at);
        call.ended_at = self.ended_at;
        call.call_s = self.duration_s;
        call.outcome = match self.disposition.as_str() {
            "ANSWERED" if self.to_channel.is_empty() => Some(Outcome::GaveUp),
            "ANSWERED" => Some(Outcome::Answered),
            "NO ANSWER" | "BUSY" => Some(Outcome::Missed),
            "FAILED" | "CONGESTION" => Some(Outcome::Failed),
            _ => None,
        };
        Ok(call.named(caller_id(&self.caller_id).0))
    }
}

/// ARI's `RecordingFinished` and `RecordingFailed`; `None` for other events. The call is the channel
/// that was recorded, so the call record of the same identity completes it.
///
/// # Errors
/// [`Unread`].
pub fn recording_event(source: &str, event: &str) -> Result<Option<CallEvent>, Unread> {
    if event.len() > BODY_LIMIT {
        return Err(Unread::TooLarge);
    }
    let at = |pointer: &str| json::at(event, pointer, &[]);
    let failed = match at("/type").as_deref() {
        Some("RecordingFinished") => false,
        Some("RecordingFailed") => true,
        Some(_) => return Ok(None),
        None => return Err(Unread::Json),
    };
    let name = at("/recording/name").and_then(|name| crate::text::key(&name)).ok_or(Unread::Key)?;
    // Below `<spool>/recording`, which is one of the folders that may be looked at.
    let format = match at("/recording/format") {
        // The format's name, and what its files end with.
        Some(format) if format == "wav49" => "WAV".to_owned(),
        format => format.unwrap_or_else(|| "wav".to_owned()),
    };
    let file = fact(&format!("{name}.{format}"), crate::text::REFERENCE).ok_or(Unread::Key)?;
    let target = at("/recording/target_uri").ok_or(Unread::Key)?;
    // A bridge is a conversation, no message.
    let Some(channel) = target.strip_prefix("channel:") else { return Ok(None) };
    let kind = if failed { Kind::RecordingAbsent } else { Kind::Voicemail };
    let mut call = CallEvent::new(source, channel, kind)?;
    let span = |pointer: &str| at(pointer).and_then(|s| Unit::S.millis(&s));
    call.ended_at = at("/timestamp").and_then(|t| TimeFormat::Rfc3339.read(&t, Zone::china()));
    let recording = Recording {
        ms: span("/recording/duration"),
        spoken_ms: span("/recording/talking_duration"),
        audio: (!failed).then(|| AudioRef::Local(file.clone())),
        ..Recording::default()
    };
    call.outcome = match recording.spoken_ms {
        _ if failed => None,
        Some(0) => Some(Outcome::Silent),
        _ => Some(Outcome::MessageLeft),
    };
    call.recordings.insert(name, recording);
    Ok(Some(call))
}

/// What a relay or the dialplan posts, one or several events: ARI's recordings as JSON, a line each;
/// AMI's `Cdr` as JSON, as the manager writes it (`Name: value`, events apart by an empty line), or as
/// a form, which is what `CURL()` sends from an `h` extension. Times of `Cdr` are the machine's and
/// have no zone. `contexts`: as in [`CallRecord::came_in`].
///
/// # Errors
/// [`Unread`] with what could be read; other events tell of no call and are none.
pub fn posted(
    source: &str,
    body: &[u8],
    (zone, contexts): (Zone, &[String]),
    numbering: &Numbering,
) -> (Vec<CallEvent>, Option<Unread>) {
    if body.len() > BODY_LIMIT {
        return (Vec::new(), Some(Unread::TooLarge));
    }
    let text = decode(body).replace("\r\n", "\n");
    let text = text.trim();
    let cdr = |fields: &dyn Fn(&str) -> Option<String>| match fields("Event").as_deref() {
        Some("Cdr") => {
            let record = CallRecord::of_event(fields, zone)?;
            let came_in = record.came_in(contexts, numbering);
            came_in.then(|| record.call(source, numbering)).transpose()
        }
        Some(_) => Ok(None),
        None => Err(Unread::Form),
    };
    let read: Vec<Result<Option<CallEvent>, Unread>> = if text.starts_with('{') {
        let line = |line: &str| {
            let at = |name: &str| json::at(line, &format!("/{name}"), &[]);
            if at("type").is_some() { recording_event(source, line) } else { cdr(&at) }
        };
        match json::is_sound(text) {
            true => vec![line(text)],
            false => text.lines().filter(|one| !one.trim().is_empty()).map(line).collect(),
        }
    } else if text.starts_with("Event:") {
        let event = |event: &str| {
            let of = |name: &str| {
                let line = |line: &str| {
                    let (key, value) = line.split_once(':')?;
                    (key.trim() == name).then(|| value.trim().to_owned())
                };
                event.lines().find_map(line).filter(|value| !value.is_empty())
            };
            cdr(&of)
        };
        text.split("\n\n").filter(|one| !one.trim().is_empty()).map(event).collect()
    } else {
        let form = form(text);
        vec![cdr(&|name: &str| field(&form, name).map(str::to_owned))]
    };
    let unread = read.iter().find_map(|one| one.as_ref().err().copied());
    // Its neighbours are not lost for one that cannot be read.
    (read.into_iter().filter_map(Result::ok).flatten().collect(), unread)
}

/// `1795446706.0`, with the machine's name before it where one is set: a userfield in its place is none.
fn is_unique_id(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.rsplit('-').next().unwrap_or(text);
    number.split_once('.').is_some_and(|(epoch, count)| digits(epoch) && digits(count))
}

impl CallRecord {
    /// The fields of AMI's `Cdr` event.
    fn of_event(field: &dyn Fn(&str) -> Option<String>, zone: Zone) -> Result<Self, Unread> {
        let short = |name: &str| field(name).and_then(|text| fact(&text, KEY)).unwrap_or_default();
        let time = |name: &str| field(name).and_then(|text| zone.naive(&text));
        let id = field("UniqueID").ok_or(Unread::Key)?;
        Ok(Self {
            unique_id: crate::text::key(&id).ok_or(Unread::Key)?,
            caller: short("Source"),
            callee: short("Destination"),
            context: short("DestinationContext"),
            caller_id: field("CallerID").and_then(|id| fact(&id, NAME * 2)).unwrap_or_default(),
            channel: short("Channel"),
            to_channel: short("DestinationChannel"),
            last_app: short("LastApplication"),
            started_at: time("StartTime").ok_or(Unread::Field)?,
            ended_at: time("EndTime"),
            duration_s: field("Duration").and_then(|s| Unit::S.millis(&s)).map(|ms| ms / 1000),
            disposition: short("Disposition"),
        })
    }
}

/// What `externnotify` is called with. It names no message, comes also when one was deleted, and
/// after `delete=yes`: it only says where to look now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxChanged {
    /// The voicemail context.
    pub context: String,
    /// The mailbox.
    pub mailbox: String,
    /// Messages not heard yet, heard, urgent.
    pub counts: [u32; 3],
}

/// Reads the arguments of `externnotify`.
#[must_use]
pub fn mailbox_changed<S: AsRef<str>>(arguments: &[S]) -> Option<MailboxChanged> {
    let [context, mailbox, new, old, urgent] = arguments else { return None };
    let count = |text: &S| text.as_ref().parse().ok();
    Some(MailboxChanged {
        context: crate::text::key(context.as_ref())?,
        mailbox: crate::text::key(mailbox.as_ref())?,
        counts: [count(new)?, count(old)?, count(urgent)?],
    })
}

/// The line that MixMonitor's command writes when the file is complete:
/// `^{MIXMONITOR_FILENAME} ^{CALLERID(num)} ^{EXTEN} ^{UNIQUEID}`. The file's name may hold blanks.
/// A recorded call is no message: [`Kind::RecordingReady`].
///
/// # Errors
/// [`Unread`].
pub fn mix_monitor(source: &str, line: &str, numbering: &Numbering) -> Result<CallEvent, Unread> {
    let mut parts = line.trim().rsplitn(4, ' ');
    let (Some(unique_id), Some(callee), Some(caller), Some(file)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Unread::Form);
    };
    let mut call = CallEvent::new(source, unique_id, Kind::RecordingReady)?;
    call.caller = Some(numbering.read(caller));
    call.callee = fact(callee, KEY);
    let name = file.rsplit('/').next().and_then(crate::text::key).ok_or(Unread::Key)?;
    let audio = Some(AudioRef::parse(file).ok_or(Unread::Field)?);
    call.recordings.insert(name, Recording { audio, ..Recording::default() });
    Ok(call)
}

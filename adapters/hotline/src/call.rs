//! One call, as far as its source has told: the form that every source of the telephone comes to
//! (hotline.md §2).

use crate::{
    phone::Caller,
    text::{BODY_LIMIT, NAME, fact, key},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A message that is shorter counts as none (hotline.md §2), in milliseconds.
pub const SHORTEST_MS: u32 = 3000;

/// What a source told about a call. It tells in parts, repeats itself, and keeps to no order: parts
/// are put together with [`CallEvent::merge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEvent {
    /// Who vouches for it: `hotline:pbx1`. Part of the identity.
    pub source: String,
    /// The call's identity within its source.
    pub call_key: String,
    /// By which identity its source's own list names it, where pushes have another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_as: Option<String>,
    /// What the parts that were told amount to.
    pub kind: Kind,
    /// Who called, as the exchange saw it; never a proof of identity.
    pub caller: Option<Caller>,
    /// The name that the exchange or the carrier put beside the number.
    pub caller_name: Option<String>,
    /// The number that was called, as written.
    pub callee: Option<String>,
    /// The caller's channel, where the exchange ties messages to calls by it (Asterisk).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// When the call began, in UTC, by the source's clock.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, in UTC.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it took, with the greeting, in seconds; a hint.
    pub call_s: Option<u32>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What was recorded, by the recording's identity within the source.
    pub recordings: BTreeMap<String, Recording>,
}

/// What is told. The stronger comes later: of several parts the strongest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call is over.
    CallEnded,
    /// There is no recording, and why.
    RecordingAbsent,
    /// A call was recorded, whatever was said in it.
    RecordingReady,
    /// Somebody left a message.
    Voicemail,
}

/// How a call ended. Of several accounts the later in this list counts: it knows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It could not be put through.
    Failed,
    /// The source turned the caller away (a blacklist).
    Blocked,
    /// Nobody answered.
    Missed,
    /// Gave up in the greeting, the menu or the queue.
    GaveUp,
    /// Heard that the office is closed.
    Closed,
    /// Said nothing that can be heard.
    Silent,
    /// Said so little that the exchange threw it away.
    TooShort,
    /// Spoke with somebody.
    Answered,
    /// Left a message.
    MessageLeft,
}

/// A recording, as far as its source has told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recording {
    /// When it began, in UTC; "outside working hours" is judged by it (R5.2).
    pub started_at: Option<DateTime<Utc>>,
    /// How long it is, in milliseconds; a hint, the file decides.
    pub ms: Option<u32>,
    /// How much of it is speech, in milliseconds, where the source listens.
    pub spoken_ms: Option<u32>,
    /// Where it lies; `None` while it is only announced.
    pub audio: Option<AudioRef>,
    /// SHA-256 of the file, in hex.
    pub sha256: Option<String>,
}

/// Where a recording lies, as the source says: nothing here has been looked at, and whoever fetches
/// it holds it against the configured roots and hosts first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioRef {
    /// A file at the exchange.
    Local(String),
    /// An `http` or `https` address.
    Http(String),
    /// A name that the source's own interface is asked for.
    Pull(String),
}

impl AudioRef {
    /// An address, a `file:` or a path, by its beginning; another scheme is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = fact(text, BODY_LIMIT).filter(|text| text.len() <= crate::text::REFERENCE)?;
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("http" | "https") => Some(Self::Http(text)),
            Some("file") => Some(Self::Local(text["file:".len()..].to_owned())),
            Some(scheme)
                if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) && text.contains("://") =>
            {
                None
            }
            _ => Some(Self::Local(text)),
        }
    }
}

/// The parts belong to different calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parts of different calls")]
pub struct OtherCall;

/// What is verified and still tells of no call. Whoever sent it is known, and there may be somebody
/// who called behind it: it is kept for staff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// More than is read.
    #[error("too_large")]
    TooLarge,
    /// Neither of the forms that this source sends.
    #[error("unknown_form")]
    Form,
    /// Not JSON, or not of this shape.
    #[error("bad_json")]
    Json,
    /// Not well-formed XML, or XML that no exchange sends.
    #[error("bad_xml")]
    Xml,
    /// The call's or the recording's identity is missing or too long.
    #[error("bad_key")]
    Key,
    /// A field that is needed is missing or cannot be read.
    #[error("bad_field")]
    Field,
}

impl Unread {
    /// A fixed word for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Form => "unknown_form",
            Self::Json => "bad_json",
            Self::Xml => "bad_xml",
            Self::Key => "bad_key",
            Self::Field => "bad_field",
        }
    }
}

impl CallEvent {
    /// A call of which nothing is known but that it was.
    ///
    /// # Errors
    /// [`Unread::Key`] for a key that is empty or too long.
    pub fn new(source: &str, call_key: &str, kind: Kind) -> Result<Self, Unread> {
        Ok(Self {
            source: source.to_owned(),
            call_key: key(call_key).ok_or(Unread::Key)?,
            listed_as: None,
            kind,
            caller: None,
            caller_name: None,
            callee: None,
            channel: None,
            started_at: None,
            ended_at: None,
            call_s: None,
            outcome: None,
            recordings: BTreeMap::new(),
        })
    }

    /// With the name that came with the number; a withheld one and the number itself are none.
    #[must_use]
    pub(crate) fn named(mut self, name: Option<&str>) -> Self {
        let number = self.caller.as_ref().and_then(Caller::raw);
        self.caller_name = name
            .and_then(|name| fact(name, NAME))
            .filter(|name| number != Some(name) && !crate::phone::is_withheld(name));
        self
    }

    /// Completes what is known by another part of the same call, and forgets nothing: what only one
    /// of them knows stays. Where both speak of the same fact, a fixed rule decides and not the order
    /// of arrival, so that parts that come late, twice or over two gateways make the same call:
    /// the earliest beginning, the latest end, the longest span, the better read number, the stronger
    /// outcome; between equals the first by the alphabet. Only where a recording lies is another
    /// matter: links end and are renewed, so that what `other` says stands.
    ///
    /// # Errors
    /// [`OtherCall`] when source or call differ.
    pub fn merge(self, other: Self) -> Result<Self, OtherCall> {
        if (&self.source, &self.call_key) != (&other.source, &other.call_key) {
            return Err(OtherCall);
        }
        let mut recordings = self.recordings;
        for (key, recording) in other.recordings {
            let merged = recordings.remove(&key).unwrap_or_default().merge(recording);
            recordings.insert(key, merged);
        }
        Ok(Self {
            source: self.source,
            call_key: self.call_key,
            listed_as: least(self.listed_as, other.listed_as),
            kind: self.kind.max(other.kind),
            caller: least(self.caller, other.caller),
            caller_name: least(self.caller_name, other.caller_name),
            callee: least(self.callee, other.callee),
            channel: least(self.channel, other.channel),
            started_at: least(self.started_at, other.started_at),
            ended_at: self.ended_at.max(other.ended_at),
            call_s: self.call_s.max(other.call_s),
            outcome: self.outcome.max(other.outcome),
            recordings,
        })
    }

    /// When the citizen spoke: the first recording's beginning, else the call's, else its end
    /// (hotline.md §2, "Time"); `None` where the source told nothing of it, and the time of receipt
    /// counts.
    #[must_use]
    pub fn spoken_at(&self) -> Option<DateTime<Utc>> {
        let recorded = self.recordings.values().filter_map(|r| r.started_at).min();
        recorded.or(self.started_at).or(self.ended_at)
    }

    /// Whether the source's clock can be believed: nothing from the future, nothing older than a
    /// month. Where not, the time of receipt counts.
    #[must_use]
    pub fn time_is_plausible(&self, now: DateTime<Utc>) -> bool {
        self.spoken_at().is_none_or(|at| {
            let age = now - at;
            age >= -TimeDelta::minutes(5) && age <= TimeDelta::days(30)
        })
    }

    /// Whether a message is there to be heard: left as one, not shorter than [`SHORTEST_MS`] and not
    /// silent, as far as was told. Otherwise it is a missed call.
    #[must_use]
    pub fn has_message(&self) -> bool {
        let heard = |recording: &Recording| recording.audio.is_some() && recording.says_something();
        self.kind == Kind::Voicemail && self.recordings.values().any(heard)
    }
}

impl Recording {
    /// Whether there is something to hear in it, as far as was told, wherever it lies.
    #[must_use]
    pub fn says_something(&self) -> bool {
        self.ms.is_none_or(|ms| ms >= SHORTEST_MS) && self.spoken_ms != Some(0)
    }

    fn merge(self, other: Self) -> Self {
        Self {
            started_at: least(self.started_at, other.started_at),
            ms: self.ms.max(other.ms),
            spoken_ms: self.spoken_ms.max(other.spoken_ms),
            audio: other.audio.or(self.audio),
            sha256: least(self.sha256, other.sha256),
        }
    }
}

/// The lesser of what is known.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

use crate::{
    call::{AudioRef, CallEvent, Kind, Outcome, Recording, Unread},
    phone::{Numbering, is_withheld},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// One voicemail, as the webhook describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voicemail {
    /// The recording's identity at its source.
    pub recording_id: String,
    /// The call's identity at its source.
    pub call_id: String,
    /// The number that called, as the exchange saw it; `None` when it was withheld.
    pub caller: Option<String>,
    /// The number that was called.
    pub callee: String,
    /// When the recording began, in UTC.
    pub started_at: DateTime<Utc>,
    /// How long it is, in seconds; a hint, the file decides.
    pub duration_s: u32,
    /// Where the recording lies.
    pub audio_url: Option<String>,
    /// SHA-256 of the recording, in hex.
    pub audio_sha256: Option<String>,
}

/// The body is no voicemail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoicemailError {
    /// Not JSON of this form.
    #[error("bad_json")]
    Json,
    /// Another version of the form.
    #[error("bad_version")]
    Version,
    /// `started_at` has no offset from UTC: it could mean any hour.
    #[error("zoneless_time")]
    ZonelessTime,
    /// `started_at` is no RFC 3339 time.
    #[error("bad_time")]
    Time,
    /// A field is empty, too long, or holds what it cannot.
    #[error("bad_field")]
    Field,
}

impl VoicemailError {
    /// A fixed word for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Json => "bad_json",
            Self::Version => "bad_version",
            Self::ZonelessTime => "zoneless_time",
            Self::Time => "bad_time",
            Self::Field => "bad_field",
        }
    }
}

/// Fields that a later sender may add are no error: refusing them would lose calls.
#[derive(Deserialize)]
struct Written {
    v: u32,
    recording_id: String,
    call_id: String,
    #[serde(default)]
    caller: Option<String>,
    callee: String,
    started_at: String,
    duration_s: u32,
    #[serde(default)]
    audio: Option<WrittenAudio>,
}

#[derive(Deserialize)]
struct WrittenAudio {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    sha256: Option<String>,
}

/// A day; no voicemail is longer.
const LONGEST_S: u32 = 86_400;

impl Voicemail {
    /// Reads a verified body.
    ///
    /// # Errors
    /// [`VoicemailError`].
    pub fn parse(body: &[u8]) -> Result<Self, VoicemailError> {
        let written: Written = serde_json::from_slice(body).map_err(|_| VoicemailError::Json)?;
        if written.v != 1 {
            return Err(VoicemailError::Version);
        }
        let started_at = instant(&written.started_at)?;
        let (audio_url, audio_sha256) = match written.audio {
            Some(audio) => (audio.url, audio.sha256),
            None => (None, None),
        };
        let fits = |text: &str, most: usize| {
            !text.trim().is_empty() && text.len() <= most && !text.chars().any(char::is_control)
        };
        let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let sound = fits(&written.recording_id, 256)
            && fits(&written.call_id, 256)
            && fits(&written.callee, 64)
            && written
                .caller
                .as_deref()
                .is_none_or(|caller| caller.len() <= 64 && !caller.chars().any(char::is_control))
            && audio_url.as_deref().is_none_or(|url| fits(url, 2048))
            && audio_sha256.as_deref().is_none_or(hex)
            && written.duration_s <= LONGEST_S;
        if !sound {
            return Err(VoicemailError::Field);
        }
        Ok(Self {
            recording_id: written.recording_id,
            call_id: written.call_id,
            caller: written.caller.filter(|caller| !is_withheld(caller)),
            callee: written.callee,
            started_at,
            duration_s: written.duration_s,
            audio_url,
            audio_sha256,
        })
    }

    /// Whether the source's clock can be believed: not from the future, not older than a month
    /// ("Time"). Where not, the time of receipt counts.
    #[must_use]
    pub fn time_is_plausible(&self, now: DateTime<Utc>) -> bool {
        let age = now - self.started_at;
        age >= -TimeDelta::minutes(5) && age <= TimeDelta::days(30)
    }

    /// The same as every other source's calls.
    ///
    /// # Errors
    /// [`Unread::Key`] for an identity that is longer than the other sources' may be.
    pub fn call(&self, source: &str, numbering: &Numbering) -> Result<CallEvent, Unread> {
        let mut call = CallEvent::new(source, &recording_key(&self.call_id), Kind::Voicemail)?;
        call.caller = Some(numbering.read(self.caller.as_deref().unwrap_or_default()));
        call.callee = crate::text::fact(&self.callee, crate::text::KEY);
        call.outcome = Some(Outcome::MessageLeft);
        let key = crate::text::key(&recording_key(&self.recording_id)).ok_or(Unread::Key)?;
        let recording = Recording {
            started_at: Some(self.started_at),
            ms: Some(self.duration_s.saturating_mul(1000)),
            spoken_ms: None,
            audio: self.audio_url.as_deref().and_then(AudioRef::parse),
            sha256: self.audio_sha256.as_ref().map(|hash| hash.to_ascii_lowercase()),
        };
        call.recordings.insert(key, recording);
        Ok(call)
    }
}

/// A sender of the webhook may name things longer than a key is: then by their hash.
#[must_use]
pub fn recording_key(text: &str) -> String {
    crate::text::key(text)
        .unwrap_or_else(|| format!("sha256:{}", hex::encode(Sha256::digest(text))))
}

fn instant(text: &str) -> Result<DateTime<Utc>, VoicemailError> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    const FORMS: [&str; 2] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let zoneless =
        FORMS.iter().any(|form| chrono::NaiveDateTime::parse_from_str(text, form).is_ok());
    Err(if zoneless { VoicemailError::ZonelessTime } else { VoicemailError::Time })
}

use crate::{
    event::{Voicemail, recording_key},
    signature::fits,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use intake_contract::{
    Answer, Attachment, AttachmentKind, Channel, ChannelKind, Citizen, Method, Outcome, Quarantine,
    Refusal, Request, Submission, Verified,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// A voicemail's description is some hundred bytes; headers of vendors come to a few kilobytes.
const BODY_LIMIT: usize = 64 * 1024;

fn window() -> i64 {
    300
}

/// A source's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name in the webhook's address.
    pub id: String,
    /// The secrets that it signs with; two while one is being changed.
    pub keys: Vec<Key>,
    /// How far a request's timestamp may be from now, in seconds.
    #[serde(default = "window")]
    pub replay_window_s: i64,
}

/// A secret with its name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// As in `X-Hotline-Key`.
    pub id: String,
    /// Shared with the sender.
    pub secret: SecretString,
}

/// A setting is wrong; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {says}")]
pub struct SourceError {
    /// Which.
    pub key: &'static str,
    /// What is wrong with it.
    pub says: &'static str,
}

impl Source {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), SourceError> {
        let wrong = |key, says| Err(SourceError { key, says });
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.id.is_empty() || self.id.len() > 32 || !self.id.chars().all(plain) {
            return wrong("id", "must be 1 to 32 letters, digits, hyphens");
        }
        if self.keys.is_empty() {
            return wrong("keys", "is empty; without a key nothing can be verified");
        }
        for (index, key) in self.keys.iter().enumerate() {
            if key.id.is_empty() || key.id.len() > 64 {
                return wrong("keys.id", "must be 1 to 64 characters");
            }
            if self.keys[..index].iter().any(|other| other.id == key.id) {
                return wrong("keys.id", "occurs twice");
            }
            // Shorter ones can be guessed offline from a single request.
            if key.secret.expose_secret().len() < 8 {
                return wrong(
                    "keys.secret",
                    "must be at least 8 characters; 32 random ones are good",
                );
            }
        }
        if !(30..=86_400).contains(&self.replay_window_s) {
            return wrong("replay_window_s", "must be 30 to 86400");
        }
        Ok(())
    }
}

/// The webhook of one source.
pub struct HotlineChannel {
    source: Source,
}

impl HotlineChannel {
    /// The channel of a source.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn new(source: Source) -> Result<Self, SourceError> {
        source.check()?;
        Ok(Self { source })
    }

    fn name(&self) -> String {
        format!("hotline:{}", self.source.id)
    }

    /// The signature over the raw bytes, then the time: whoever cannot sign learns nothing.
    fn authenticate(&self, request: Request<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
        const REFUSED: Refusal = Refusal::new(401, "bad_signature");
        let key = request.header("x-hotline-key").ok_or(REFUSED)?;
        let timestamp = request.header("x-hotline-timestamp").ok_or(REFUSED)?;
        let signature = request.header("x-hotline-signature").ok_or(REFUSED)?;
        let key = self.source.keys.iter().find(|known| known.id == key).ok_or(REFUSED)?;
        if !fits(signature, key.secret.expose_secret(), timestamp, request.body) {
            return Err(REFUSED);
        }
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
        let sent: i64 =
            timestamp.parse().ok().filter(|_| digits).ok_or(Refusal::new(401, "stale"))?;
        if now.timestamp().abs_diff(sent) > self.source.replay_window_s.unsigned_abs() {
            return Err(Refusal::new(401, "stale"));
        }
        Ok(())
    }

    fn submission(&self, voicemail: Voicemail, raw: &[u8], now: DateTime<Utc>) -> Submission {
        let plausible = voicemail.time_is_plausible(now);
        let caller = voicemail.caller.as_ref();
        let mut said = format!("电话录音，时长 {} 秒。", voicemail.duration_s);
        if caller.is_none() {
            said.push_str("对方未显示号码，无法回拨。");
        }
        if !plausible {
            said.push_str("录音时间与系统时间相差过大，以收到时间为准。");
        }
        let reference =
            voicemail.audio_url.clone().unwrap_or_else(|| voicemail.recording_id.clone());
        Submission {
            channel: ChannelKind::Hotline,
            source: self.name(),
            // As the call's recording is known by.
            source_id: recording_key(&voicemail.recording_id),
            // One recording is one matter: who called again is seen by the number.
            thread: None,
            occurred_at: plausible.then_some(voicemail.started_at),
            citizen: Citizen { name: None, phone: voicemail.caller },
            text: said,
            meaning: intake_contract::Meaning::Statement,
            attachments: vec![Attachment {
                kind: AttachmentKind::Voice,
                reference,
                label: Some(format!("拨打 {}，录音 {} 秒", voicemail.callee, voicemail.duration_s)),
            }],
            urgent: false,
            taken_by: None,
            raw: Bytes::copy_from_slice(raw),
        }
    }
}

fn answer(outcome: &Outcome) -> Answer {
    let (status, body) = match outcome {
        Outcome::Durable { repeated, receipt, .. } => (
            if *repeated { 200 } else { 202 },
            serde_json::json!({
                "number": receipt.number,
                "duplicate": repeated,
                "provisional": receipt.provisional,
            }),
        ),
        Outcome::Said(_) | Outcome::Quarantined => {
            (202, serde_json::json!({ "quarantined": true }))
        }
        Outcome::Spooled { .. } => (202, serde_json::json!({ "spooled": true })),
        Outcome::Busy(busy) => (503, serde_json::json!({ "retry_after_s": busy.retry_after_s })),
    };
    Answer { status, content_type: "application/json", body: body.to_string().into_bytes() }
}

impl Channel for HotlineChannel {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Hotline
    }

    fn body_limit(&self) -> usize {
        BODY_LIMIT
    }

    fn verify(&self, request: Request<'_>, now: DateTime<Utc>) -> Result<Verified, Refusal> {
        if request.method != Method::Post {
            return Err(Refusal::new(401, "bad_signature"));
        }
        if request.body.len() > BODY_LIMIT {
            return Err(Refusal::new(413, "too_large"));
        }
        self.authenticate(request, now)?;
        match Voicemail::parse(request.body) {
            Ok(voicemail) => Ok(Verified::Submit {
                submission: Box::new(self.submission(voicemail, request.body, now)),
                respond: Box::new(|outcome, _| answer(outcome)),
            }),
            // Signed and not understood: the sender learns that it is wrong (422), and staff see
            // it all the same, for behind it is somebody who called.
            Err(error) => Ok(Verified::Quarantine(
                Quarantine {
                    source: self.name(),
                    source_id: format!("sha256:{}", digest(request.body)),
                    reason: error.reason(),
                    raw: request.body.to_vec(),
                },
                Answer {
                    status: 422,
                    content_type: "application/json",
                    body: serde_json::json!({ "error": error.reason(), "quarantined": true })
                        .to_string()
                        .into_bytes(),
                },
            )),
        }
    }

    fn reread(&self, raw: &[u8], now: DateTime<Utc>) -> Result<Submission, Refusal> {
        let voicemail = Voicemail::parse(raw).map_err(|e| Refusal::new(422, e.reason()))?;
        Ok(self.submission(voicemail, raw, now))
    }
}

fn digest(body: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(body))
}

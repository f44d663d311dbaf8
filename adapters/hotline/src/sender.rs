//! The exchange's side: signs a voicemail's description as the webhook expects it. For the
//! `simulate` command, tests and measurements; the gateway itself never uses it.

use crate::signature::sign;

/// Signs with one key.
#[derive(Clone)]
pub struct Sender {
    key_id: String,
    secret: String,
}

/// A voicemail to describe.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields of the webhook's body")]
pub struct Description<'a> {
    pub recording_id: &'a str,
    pub call_id: &'a str,
    pub caller: &'a str,
    pub callee: &'a str,
    /// RFC 3339 with an offset.
    pub started_at: &'a str,
    pub duration_s: u32,
    pub audio_url: &'a str,
}

impl Sender {
    /// A sender with this key.
    #[must_use]
    pub fn new(key_id: &str, secret: &str) -> Self {
        Self { key_id: key_id.to_owned(), secret: secret.to_owned() }
    }

    /// The webhook's body.
    #[must_use]
    pub fn body(&self, voicemail: &Description<'_>) -> String {
        serde_json::json!({
            "v": 1,
            "recording_id": voicemail.recording_id,
            "call_id": voicemail.call_id,
            "caller": voicemail.caller,
            "callee": voicemail.callee,
            "started_at": voicemail.started_at,
            "duration_s": voicemail.duration_s,
            "audio": { "url": voicemail.audio_url, "sha256": null },
        })
        .to_string()
    }

    /// The headers for a body, sent at `timestamp` (seconds since 1970).
    #[must_use]
    pub fn headers(&self, body: &[u8], timestamp: i64) -> [(&'static str, String); 3] {
        let timestamp = timestamp.to_string();
        let signature = hex::encode(sign(&self.secret, &timestamp, body));
        [
            ("x-hotline-key", self.key_id.clone()),
            ("x-hotline-timestamp", timestamp),
            ("x-hotline-signature", format!("v1={signature}")),
        ]
    }
}

//! The exchange's side: signs a voicemail's description as the webhook expects it, and proves that a
//! push comes from its vendor. For the `simulate` command, tests and measurements; the gateway itself
//! never uses it.

use crate::{
    signature::sign,
    time::{TimeFormat, Zone},
    verify::{Auth, HashKind, keyed, part},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use intake_contract::{Method, Request};
use secrecy::ExposeSecret;

/// A push with its proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// The query, with what of the proof stands there.
    pub query: String,
    /// Headers to send.
    pub headers: Vec<(String, String)>,
}

/// What a source that is set up with this proof sends beside its query and body.
#[must_use]
pub fn prove(auth: &Auth, query: &str, body: &[u8], now: DateTime<Utc>) -> Proof {
    let mut proof = Proof { query: query.to_owned(), headers: Vec::new() };
    let mut header = |name: &str, value: String| proof.headers.push((name.to_owned(), value));
    let request = |query, headers| Request { method: Method::Post, query, headers, body };
    let put = |query: &mut String, name: &str, value: &str| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&format!("{name}={value}"));
    };
    match auth {
        Auth::None => {}
        Auth::Basic { user, password } => {
            let given = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
            header("authorization", format!("Basic {given}"));
        }
        Auth::Bearer { token } => {
            header("authorization", format!("Bearer {}", token.expose_secret()));
        }
        Auth::QueryToken { name, token } => put(&mut proof.query, name, token.expose_secret()),
        Auth::Twilio { auth_token, public_url } => {
            let signed = crate::twilio::signed(request(query, &[]), public_url);
            let signed = signed.unwrap_or_default();
            let signature = keyed(HashKind::Sha1, auth_token, signed.as_bytes());
            header("x-twilio-signature", STANDARD.encode(signature));
        }
        Auth::HuaweiAksk { app_key, app_secret, public_url } => {
            let created = TimeFormat::Naive.write(now, Zone::china()).replace(' ', "T") + "Z";
            let nonce = hex::encode(keyed(HashKind::Sha1, app_secret, created.as_bytes()));
            let signed = format!("{public_url}\n{nonce}\n{created}");
            let digest = STANDARD.encode(keyed(HashKind::Sha256, app_secret, signed.as_bytes()));
            header(
                "x-aksk",
                format!(
                    "UsernameToken Username=\"{app_key}\",PasswordDigest=\"{digest}\",Nonce=\"{nonce}\",Created=\"{created}\""
                ),
            );
        }
        Auth::Hmac { alg, secret, parts, signature, prefix, encoding, timestamp, public_url } => {
            // Whatever else is signed may be anything; what is not there yet is put there.
            let now = now.timestamp().to_string();
            let mut headers: Vec<(String, String)> = Vec::new();
            for place in parts {
                let value = if Some(place) == timestamp.as_ref() { now.as_str() } else { "1" };
                match place.split_once(':') {
                    Some(("header", name)) => headers.push((name.to_owned(), value.to_owned())),
                    Some(("query", name)) => put(&mut proof.query, name, value),
                    _ => {}
                }
            }
            let raw: Vec<(&str, &[u8])> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            let mut signed = Vec::new();
            for place in parts {
                signed.extend(
                    part(request(&proof.query, &raw), place, public_url).unwrap_or_default(),
                );
            }
            let given = format!("{prefix}{}", encoding.encode(&keyed(*alg, secret, &signed)));
            match signature.split_once(':') {
                Some(("query", name)) => put(&mut proof.query, name, &given),
                Some((_, name)) => headers.push((name.to_owned(), given)),
                None => {}
            }
            proof.headers = headers;
        }
    }
    proof
}

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

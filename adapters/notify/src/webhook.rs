use crate::http::{Http, exchange};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use intake_contract::{Notice, Notifier, SendFuture, Sent};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// A program of the office's own: any 2xx is success.
pub(crate) struct Webhook {
    pub(crate) http: Http,
    pub(crate) url: Url,
    pub(crate) secret: SecretString,
}

/// `v1=` and the hex HMAC-SHA256 of `"<timestamp>." + body`; `timestamp` in seconds since 1970.
/// The receiver computes the same over the raw body and compares with `X-Intake-Signature`.
#[must_use]
pub fn signature(secret: &str, timestamp: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1={}", hex::encode(mac.finalize().into_bytes()))
}

impl Notifier for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: DateTime<Utc>) -> SendFuture<'a> {
        Box::pin(async move {
            let recipients: Vec<&str> = notice.recipients.iter().map(|r| r.name.as_str()).collect();
            let body = serde_json::json!({
                "id": notice.idempotency_key,
                "title": notice.title,
                "lines": notice.lines,
                "link": notice.link,
                "urgent": notice.urgent,
                "recipients": recipients,
            })
            .to_string();
            let timestamp = now.timestamp();
            let signed = signature(self.secret.expose_secret(), timestamp, body.as_bytes());
            let request = self
                .http
                .client()
                .post(self.url.clone())
                .header("content-type", "application/json")
                .header("idempotency-key", &notice.idempotency_key)
                .header("x-intake-timestamp", timestamp)
                .header("x-intake-signature", signed)
                .body(body);
            exchange(request).await?;
            Ok(Sent::default())
        })
    }
}

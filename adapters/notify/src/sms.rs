//! Text messages to citizens, by a gateway of the office's own or of its provider: a signed JSON
//! POST, as the webhook's.

use crate::{
    http::{Http, exchange, permanent},
    target::{TargetError, checked, wrong},
    webhook::signature,
};
use chrono::{DateTime, Utc};
use intake_contract::SendError;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;

fn timeout() -> u64 {
    10
}

/// An SMS gateway, as configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsGateway {
    /// Where to post.
    pub url: SecretString,
    /// Signs each request.
    pub secret: SecretString,
    /// Another host that is allowed without TLS: a gateway inside the network.
    #[serde(default)]
    pub allow_host: Option<String>,
    /// For a request and its answer, in seconds.
    #[serde(default = "timeout")]
    pub timeout_s: u64,
}

/// Sends text messages.
pub struct Sms {
    http: Http,
    url: Url,
    secret: SecretString,
    within: Duration,
}

impl SmsGateway {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), TargetError> {
        self.sms().map(|_| ())
    }

    /// The gateway.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn sms(&self) -> Result<Sms, TargetError> {
        let url = checked(&self.url, &[], self.allow_host.as_deref())?;
        if self.secret.expose_secret().len() < 16 {
            return Err(wrong("secret", "must be 16 characters or more"));
        }
        if !(1..=60).contains(&self.timeout_s) {
            return Err(wrong("timeout_s", "must be 1 to 60"));
        }
        let http = Http::new().map_err(|error| wrong("tls", error))?;
        let within = Duration::from_secs(self.timeout_s);
        Ok(Sms { http, url, secret: self.secret.clone(), within })
    }
}

impl Sms {
    /// One attempt. `id` is the same in every attempt of one message and travels as
    /// `Idempotency-Key` too: the gateway sends what it has sent before no second time. Any 2xx is
    /// success; returns the gateway's own id, if its answer is a JSON object with an `id`.
    ///
    /// # Errors
    /// [`SendError`], without number or words.
    pub async fn send(
        &self,
        id: &str,
        to: &str,
        text: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<String>, SendError> {
        if !is_mobile(to) {
            return Err(permanent("no mobile number"));
        }
        let body = serde_json::json!({ "id": id, "to": to, "text": text }).to_string();
        let timestamp = now.timestamp();
        let signed = signature(self.secret.expose_secret(), timestamp, body.as_bytes());
        let request = self
            .http
            .client()
            .post(self.url.clone())
            .timeout(self.within)
            .header("content-type", "application/json")
            .header("idempotency-key", id)
            .header("x-intake-timestamp", timestamp)
            .header("x-intake-signature", signed)
            .body(body);
        let answer = exchange(request).await?;
        let answer: Option<serde_json::Value> = serde_json::from_slice(&answer).ok();
        Ok(answer.and_then(|answer| match answer.get("id")? {
            serde_json::Value::String(id) => Some(id.chars().take(128).collect()),
            serde_json::Value::Number(id) => Some(id.to_string()),
            _ => None,
        }))
    }
}

/// Whether a number, as digits only, is one of a mobile telephone in mainland China.
#[must_use]
pub fn is_mobile(number: &str) -> bool {
    let digits = number.as_bytes();
    digits.len() == 11
        && digits.iter().all(u8::is_ascii_digit)
        && digits[0] == b'1'
        && (b'3'..=b'9').contains(&digits[1])
}

/// The mobile number in what somebody wrote as their telephone; `None` when it is none.
#[must_use]
pub fn mobile(phone: &str) -> Option<String> {
    let digits: String =
        phone.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '（' | '）')).collect();
    let digits = digits.strip_prefix("+86").or(digits.strip_prefix("0086")).unwrap_or(&digits);
    is_mobile(digits).then(|| digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::mobile;

    #[test]
    fn a_mobile_number_is_told_from_others() {
        for written in ["13900001234", "139-0000-1234", "+86 139 0000 1234", "008613900001234"] {
            assert_eq!(mobile(written).as_deref(), Some("13900001234"), "{written}");
        }
        for other in ["12333", "024-23456789", "12900001234", "139000012345", "1390000123a", ""] {
            assert_eq!(mobile(other), None, "{other}");
        }
    }
}

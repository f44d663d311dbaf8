//! Group robots. All three answer 200 with a code in the body: 0 is success.

use crate::http::{Http, exchange, permanent, retry};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use intake_contract::{Notice, Notifier, SendError, SendFuture, Sent};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::Duration;

const A_MINUTE: Duration = Duration::from_secs(60);

fn hmac(key: &[u8], message: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(message);
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

/// The notice as one text of at most `limit` bytes.
fn text(notice: &Notice, limit: usize) -> String {
    let mut text = notice.title.clone();
    for line in &notice.lines {
        text.push('\n');
        text.push_str(line);
    }
    let tail = notice.link.as_ref().map(|link| format!("\n{link}")).unwrap_or_default();
    let room = limit.saturating_sub(tail.len());
    if text.len() > room {
        let mut end = room.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text + &tail
}

fn mobiles(notice: &Notice) -> Vec<&str> {
    notice.recipients.iter().filter_map(|r| r.mobile.as_deref()).collect()
}

/// Reads the code of an answer; what is no JSON object with one was not the robot.
fn code(body: &[u8], names: &[&str]) -> Result<i64, SendError> {
    serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|answer| names.iter().find_map(|name| answer.get(name)?.as_i64()))
        .ok_or_else(|| retry("the answer is not the robot's", None))
}

/// Success, too fast, the other side's own trouble, or wrong for good.
fn judge(code: i64, too_fast: &[i64], passing: &[i64]) -> Result<Sent, SendError> {
    match code {
        0 => Ok(Sent::default()),
        code if too_fast.contains(&code) => Err(retry(format!("code {code}"), Some(A_MINUTE))),
        code if passing.contains(&code) => Err(retry(format!("code {code}"), None)),
        code => Err(permanent(format!("code {code}"))),
    }
}

/// 企业微信.
pub(crate) struct WeCom {
    pub(crate) http: Http,
    pub(crate) url: Url,
}

impl Notifier for WeCom {
    fn kind(&self) -> &'static str {
        "wecom"
    }

    fn send<'a>(&'a self, notice: &'a Notice, _now: DateTime<Utc>) -> SendFuture<'a> {
        Box::pin(async move {
            let body = json!({
                "msgtype": "text",
                "text": { "content": text(notice, 2048), "mentioned_mobile_list": mobiles(notice) },
            });
            let answer = exchange(self.http.client().post(self.url.clone()).json(&body)).await?;
            // 45009: more than 20 in a minute; -1: busy.
            judge(code(&answer, &["errcode"])?, &[45009], &[-1])
        })
    }
}

/// 钉钉.
pub(crate) struct DingTalk {
    pub(crate) http: Http,
    pub(crate) url: Url,
    pub(crate) secret: SecretString,
}

impl Notifier for DingTalk {
    fn kind(&self) -> &'static str {
        "dingtalk"
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: DateTime<Utc>) -> SendFuture<'a> {
        Box::pin(async move {
            let timestamp = now.timestamp_millis().to_string();
            let secret = self.secret.expose_secret();
            let sign = hmac(secret.as_bytes(), format!("{timestamp}\n{secret}").as_bytes());
            let mut url = self.url.clone();
            url.query_pairs_mut().append_pair("timestamp", &timestamp).append_pair("sign", &sign);
            let body = json!({
                "msgtype": "text",
                "text": { "content": text(notice, 15_000) },
                "at": { "atMobiles": mobiles(notice), "isAtAll": false },
                "msgUuid": notice.idempotency_key,
            });
            let answer = exchange(self.http.client().post(url).json(&body)).await?;
            // 130101, 130102, 410100 and 90030: too fast; -1: busy.
            let too_fast = [130_101, 130_102, 410_100, 90_030];
            judge(code(&answer, &["errcode"])?, &too_fast, &[-1])
        })
    }
}

/// 飞书.
pub(crate) struct Feishu {
    pub(crate) http: Http,
    pub(crate) url: Url,
    pub(crate) secret: SecretString,
}

impl Notifier for Feishu {
    fn kind(&self) -> &'static str {
        "feishu"
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: DateTime<Utc>) -> SendFuture<'a> {
        Box::pin(async move {
            let timestamp = now.timestamp().to_string();
            // Here the text is the key and the message is empty.
            let key = format!("{timestamp}\n{}", self.secret.expose_secret());
            let body = json!({
                "timestamp": timestamp,
                "sign": hmac(key.as_bytes(), b""),
                "msg_type": "text",
                // `<at user_id="all">` in a text would call everybody.
                "content": { "text": text(notice, 15_000).replace('<', "\u{ff1c}").replace('>', "\u{ff1e}") },
                "uuid": notice.idempotency_key,
            });
            let answer = exchange(self.http.client().post(self.url.clone()).json(&body)).await?;
            // 9499, 11232 and 11247: too fast; 11233: busy.
            let too_fast = [9499, 11_232, 11_247];
            judge(code(&answer, &["code", "StatusCode"])?, &too_fast, &[11_233])
        })
    }
}

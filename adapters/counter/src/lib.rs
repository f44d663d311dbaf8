//! Entries that an officer makes for somebody who sits at the counter or is on the window's
//! telephone: by the desk's form, or by a program through the API. The sender is a logged-in officer
//! or a token; what is left to check is whether the entry states enough to work with.

use bytes::Bytes;
use intake_contract::{ChannelKind, Citizen, LIMITS, Submission, clean_text};
use serde::Deserialize;

/// What was entered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `counter` or `window_phone`.
    pub channel: String,
    /// Who reports.
    #[serde(default)]
    pub citizen: Person,
    /// What could not be done, in the citizen's words.
    pub problem: String,
    /// RD3.2: an emergency.
    #[serde(default)]
    pub urgent: bool,
}

/// Who reports.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// As told.
    #[serde(default)]
    pub name: Option<String>,
    /// As told.
    #[serde(default)]
    pub phone: Option<String>,
}

/// A field that is wrong, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// Its path: `citizen.phone`.
    pub field: &'static str,
    /// For the officer, in Chinese.
    pub message: &'static str,
}

/// Whether a text can be an `Idempotency-Key`: 1 to 200 visible ASCII characters.
#[must_use]
pub fn is_idempotency_key(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

impl Entry {
    /// Checks the entry and makes it a submission. `source` vouches for it, `key` is its identity
    /// there, `taken_by` the login of the officer who took it, `raw` the original.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn into_submission(
        self,
        source: &str,
        key: &str,
        taken_by: Option<&str>,
        raw: Bytes,
    ) -> Result<Submission, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut wrong = |field, message| errors.push(FieldError { field, message });
        let channel = match ChannelKind::parse(&self.channel) {
            Some(kind @ (ChannelKind::Counter | ChannelKind::WindowPhone)) => kind,
            _ => {
                wrong("channel", "请选择来源：现场窗口（counter）或窗口电话（window_phone）");
                ChannelKind::Counter
            }
        };
        let given = |text: Option<String>| {
            text.map(|text| clean_text(&text).trim().to_owned()).filter(|text| !text.is_empty())
        };
        let name = given(self.citizen.name);
        let phone = given(self.citizen.phone);
        if name.is_none() && phone.is_none() {
            wrong("citizen.name", "姓名和电话至少填一项，否则无法答复");
        }
        if name.as_ref().is_some_and(|name| name.len() > LIMITS.name) {
            wrong("citizen.name", "姓名太长，最多 40 个字");
        }
        if phone.as_deref().is_some_and(|phone| !is_phone(phone)) {
            wrong("citizen.phone", "电话号码不对，请填手机号或带区号的座机号");
        }
        let problem = clean_text(&self.problem).trim().to_owned();
        if problem.is_empty() {
            wrong("problem", "请写明群众反映的问题");
        }
        if problem.len() > LIMITS.text {
            wrong("problem", "内容太长，最多约 2 万字");
        }
        if !is_idempotency_key(key) {
            wrong("Idempotency-Key", "须为 1 至 200 个可见 ASCII 字符");
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Submission {
            channel,
            source: source.to_owned(),
            source_id: key.to_owned(),
            thread: None,
            occurred_at: None,
            citizen: Citizen { name, phone },
            text: problem,
            meaning: intake_contract::Meaning::Statement,
            attachments: Vec::new(),
            urgent: self.urgent,
            taken_by: taken_by.map(str::to_owned),
            raw,
        })
    }
}

/// A number that somebody could dial: digits with the usual separators, an extension after `转`.
#[must_use]
pub fn is_phone(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let usual = |c: char| {
        c.is_ascii_digit()
            || matches!(c, '+' | '-' | ' ' | '(' | ')' | '\u{ff08}' | '\u{ff09}' | '转')
    };
    (3..=24).contains(&digits) && text.len() <= LIMITS.phone && text.chars().all(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use intake_contract::{
        Refusal,
        conformance::{Delivery, Peer},
    };

    fn entry(json: &str) -> Result<Submission, Vec<&'static str>> {
        serde_json::from_str::<Entry>(json)
            .map_err(|_| vec!["json"])?
            .into_submission("api:test", "k1", None, Bytes::copy_from_slice(json.as_bytes()))
            .map_err(|errors| errors.iter().map(|error| error.field).collect())
    }

    #[test]
    fn an_entry_becomes_a_submission_with_what_was_said() {
        let json = r#"{"channel":"window_phone","citizen":{"name":" 王\u0000芳 ","phone":"024-23456789转8001"},"problem":"医保卡\u0000补办三次没办成","urgent":true}"#;
        let submission = entry(json).unwrap();
        assert_eq!(submission.channel, ChannelKind::WindowPhone);
        assert_eq!(submission.citizen.name.as_deref(), Some("王芳"));
        assert_eq!(submission.text, "医保卡补办三次没办成");
        assert!(submission.urgent && submission.thread.is_none());
        assert_eq!(submission.raw, json.as_bytes());
    }

    #[test]
    fn every_field_that_is_wrong_is_named_at_once() {
        let errors = entry(r#"{"channel":"wechat","citizen":{"phone":"abc"},"problem":"  "}"#);
        assert_eq!(errors.unwrap_err(), ["channel", "citizen.phone", "problem"]);
        assert_eq!(entry(r#"{"channel":"counter","problem":"x"}"#).unwrap_err(), ["citizen.name"]);
        for strange in [
            r#"{"channel":"counter","problem":"x","citizen":{"name":"a"},"surprise":1}"#,
            r#"{"problem":"x"}"#,
            "[]",
            "",
        ] {
            assert_eq!(entry(strange).unwrap_err(), ["json"], "{strange}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_one_is_refused() {
        for key in ["", "has space", "中文", &"x".repeat(201)] {
            assert!(!is_idempotency_key(key), "{key}");
        }
        assert!(is_idempotency_key("a1b2-c3"));
    }

    struct Desk;

    impl Peer for Desk {
        fn deliver(&self, id: &str, text: &str, _: DateTime<Utc>, _: DateTime<Utc>) -> Delivery {
            let body = serde_json::json!({
                "channel": "counter", "citizen": { "name": "王芳" }, "problem": text,
            });
            let headers = vec![("idempotency-key".to_owned(), id.as_bytes().to_vec())];
            Delivery { query: String::new(), headers, body: body.to_string().into_bytes() }
        }

        fn receive(
            &self,
            delivery: &Delivery,
            _: DateTime<Utc>,
        ) -> Result<Option<Submission>, Refusal> {
            let wrong = Refusal::new(422, "wrong");
            let key = String::from_utf8_lossy(&delivery.headers[0].1).into_owned();
            let entry: Entry = serde_json::from_slice(&delivery.body).map_err(|_| wrong)?;
            let raw = Bytes::copy_from_slice(&delivery.body);
            entry.into_submission("api:test", &key, None, raw).map(Some).map_err(|_| wrong)
        }

        fn body_limit(&self) -> usize {
            LIMITS.text
        }

        fn window_s(&self) -> Option<i64> {
            None
        }

        fn tells_time(&self) -> bool {
            false
        }

        fn carries_text(&self) -> bool {
            true
        }
    }

    #[test]
    fn the_channel_conforms() {
        intake_contract::conformance::run(&Desk, DateTime::UNIX_EPOCH);
    }
}

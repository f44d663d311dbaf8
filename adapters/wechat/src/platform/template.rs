//! Template messages and subscription notices (§6.2, §6.3): what arrives days later.
//!
//! Each field's kind stands in its name (`thing1`, `time3`), and the platform refuses the whole
//! message for one field that does not fit. So fields are made to fit here, by characters and not
//! by bytes, or refused before anything is sent.

use super::{Openid, Platform, PlatformError, http};
use chrono::{DateTime, Utc};
use intake_contract::china;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fmt;

/// A field cannot be made to fit. Names the field, not what was in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {says}")]
pub struct FieldError {
    /// The field's name in the template.
    pub name: String,
    /// What is wrong.
    pub says: &'static str,
}

/// A field of a template, made to fit. `Debug` shows its name only.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: String,
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({})", self.name)
    }
}

fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}')
}

/// At most `limit` characters, with a mark where something is missing.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

impl Field {
    /// Words for the field `name`. Line breaks become spaces. What a reader can do without is cut
    /// (`thing`, `name`, `phrase`); a number that was cut would be another number, and is refused.
    ///
    /// # Errors
    /// [`FieldError`]: empty, too long, or not of the field's kind.
    pub fn text(name: &str, value: &str) -> Result<Self, FieldError> {
        let wrong = |says| Err(FieldError { name: name.to_owned(), says });
        let value: String =
            value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        let value = value.trim();
        if value.is_empty() {
            return wrong("is empty");
        }
        let length = value.chars().count();
        let of = |fits: fn(char) -> bool| value.chars().all(fits);
        let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-');
        let value = match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "thing" | "const" => cut(value, 20),
            "name" if value.chars().any(is_han) => cut(value, 10),
            "name" => cut(value, 20),
            "phrase" if of(is_han) => value.chars().take(5).collect(),
            "phrase" => return wrong("must be Chinese characters"),
            "character_string" if !of(|c| c.is_ascii_graphic() || c == ' ') => {
                return wrong("must be digits, letters and signs");
            }
            "number" if !of(number) => return wrong("must be a number"),
            "letter" if !of(|c| c.is_ascii_alphabetic()) => return wrong("must be letters"),
            "time" | "date" if !of(|c| c.is_ascii_digit() || " :-/.~年月日".contains(c)) => {
                return wrong("must be a time");
            }
            "character_string" | "number" | "letter" | "time" | "date" if length > 32 => {
                return wrong("is longer than 32 characters");
            }
            "phone_number" if length > 17 => return wrong("is longer than 17 characters"),
            "amount" if length > 12 => return wrong("is longer than 12 characters"),
            "car_number" if length > 8 => return wrong("is longer than 8 characters"),
            "symbol" if length > 5 => return wrong("is longer than 5 characters"),
            "character_string" | "number" | "letter" | "time" | "date" | "phone_number"
            | "amount" | "car_number" | "symbol" => value.to_owned(),
            // `keyword1` of the old library, and kinds to come.
            _ => cut(value, 200),
        };
        Ok(Self { name: name.to_owned(), value })
    }

    /// A moment for a field of the kind `time` or `date`, as China's clocks show it.
    #[must_use]
    pub fn at(name: &str, at: DateTime<Utc>) -> Self {
        let value = at.with_timezone(&china()).format("%Y年%-m月%-d日 %H:%M").to_string();
        Self { name: name.to_owned(), value }
    }

    /// What will be shown.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// A message by a template of the account.
#[derive(Debug, Clone, Copy)]
pub struct Template<'a> {
    /// To whom.
    pub to: &'a Openid,
    /// The template's id at this account.
    pub template_id: &'a str,
    /// The page that opens when it is tapped.
    pub link: Option<&'a str>,
    /// Every field of the template.
    pub fields: &'a [Field],
}

impl Template<'_> {
    fn data(&self) -> Map<String, Value> {
        let value = |field: &Field| (field.name.clone(), json!({ "value": field.value }));
        self.fields.iter().map(value).collect()
    }
}

/// The platform took a message; whether it was delivered, its receipt says (`receipt`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TemplateSent {
    /// By which the receipt names it, where the platform says so. The receipt may have arrived
    /// already.
    #[serde(default, rename = "msgid", deserialize_with = "http::id")]
    pub msg_id: Option<String>,
}

impl Platform {
    /// Sends a template message (verified service accounts). The same `client_msg_id` again within
    /// ten minutes is the same message; later the platform promises nothing.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn send_template(
        &self,
        template: Template<'_>,
        client_msg_id: &str,
    ) -> Result<TemplateSent, PlatformError> {
        let mut body = json!({
            "touser": template.to.as_str(),
            "template_id": template.template_id,
            "client_msg_id": client_msg_id,
            "data": template.data(),
        });
        if let Some(link) = template.link {
            body["url"] = link.into();
        }
        self.post("template/send", "/cgi-bin/message/template/send", &body).await
    }

    /// Sends a subscription notice: one for each consent, or as many as one likes by a long-term
    /// template. It has no identity: a repeat after an error that
    /// [`PlatformError::may_have_been_done`] may arrive twice and use up another consent.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn send_notice(&self, template: Template<'_>) -> Result<TemplateSent, PlatformError> {
        let mut body = json!({
            "touser": template.to.as_str(),
            "template_id": template.template_id,
            "data": template.data(),
        });
        if let Some(link) = template.link {
            body["page"] = link.into();
        }
        self.post("subscribe/bizsend", "/cgi-bin/message/subscribe/bizsend", &body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_by_characters_and_numbers_are_never_cut() {
        let shown = |name: &str, value: &str| Field::text(name, value).unwrap().value;
        let long = "社会保障卡补办申请因材料不全被退回三次请予以协调";
        assert_eq!(shown("thing1", long), "社会保障卡补办申请因材料不全被退回三次…");
        assert_eq!(shown("thing2", "一行\n又一行\u{1d}"), "一行 又一行");
        assert_eq!(shown("phrase3", "正在办理当中"), "正在办理当");
        assert_eq!(shown("name4", "阿卜杜热合曼·阿卜杜拉"), "阿卜杜热合曼·阿卜…");
        assert_eq!(shown("name4", "Abdurahman Abdullah Jr"), "Abdurahman Abdullah…");
        assert_eq!(shown("character_string5", "BCS-2026-000123"), "BCS-2026-000123");
        assert_eq!(shown("keyword1", "旧模板"), "旧模板");
        for (name, value) in [
            ("thing1", " \n"),
            ("phrase3", "OK"),
            ("character_string5", "编号一"),
            ("character_string5", "BCS-2026-000123-BCS-2026-000123-X"),
            ("number6", "三"),
            ("phone_number7", "024-7412 3456 转 8001 再转 12"),
            ("time8", "明天"),
        ] {
            let refused = Field::text(name, value).unwrap_err();
            assert_eq!(refused.name, name);
        }
    }

    #[test]
    fn a_moment_is_told_by_chinas_clocks() {
        let at = DateTime::from_timestamp(1_795_912_200, 0).unwrap();
        assert_eq!(Field::at("time2", at).value(), "2026年11月29日 08:30");
    }
}

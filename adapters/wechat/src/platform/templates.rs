//! Which template of the account tells what, and what stands in its fields: settings.

use super::{Field, FieldError};
use chrono::{DateTime, Utc};
use intake_contract::Telling;
use serde::Deserialize;
use std::collections::BTreeMap;

/// By which call a template is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// 模板消息 (§6.2).
    Template,
    /// 订阅通知 (§6.3).
    Notice,
}

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// The register number.
    Number,
    /// How the matter stands, in at most five characters.
    State,
    /// What is told, in short.
    Says,
    /// The day that it is about.
    Date,
    /// The window's name.
    Office,
    /// The window's telephone; where there is none, its name.
    Phone,
}

/// A template, as the platform's pages show it, and what is told by it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSettings {
    /// The template's id at this account.
    pub id: String,
    /// How it is sent.
    pub by: By,
    /// A subscription notice that needs one consent for all.
    #[serde(default)]
    pub long_term: bool,
    /// What is told by it.
    pub kinds: Vec<Telling>,
    /// Each field of the template, by its name there, and what stands in it.
    pub fields: BTreeMap<String, Fill>,
}

/// What there is to fill fields with.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as what they fill: see Fill")]
pub struct Filling<'a> {
    pub number: &'a str,
    pub state: &'a str,
    pub says: &'a str,
    pub date: DateTime<Utc>,
    pub office: &'a str,
    pub phone: &'a str,
}

impl TemplateSettings {
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.id.is_empty() || self.id.len() > 128 || !self.id.is_ascii() {
            return Err(("api.templates.id", "is not the id of a template: copy it from 模板库"));
        }
        if self.long_term && self.by == By::Template {
            return Err(("api.templates.long_term", "is for by = \"notice\" only"));
        }
        if self.kinds.is_empty() {
            return Err(("api.templates.kinds", "is empty: nothing would be told by the template"));
        }
        if self.fields.is_empty() {
            return Err(("api.templates.fields", "is empty: name each field of the template"));
        }
        for (name, fill) in &self.fields {
            // What the platform would refuse each time (§6.2).
            let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let fits = match kind {
                "time" | "date" => *fill == Fill::Date,
                "phrase" => *fill == Fill::State,
                "character_string" => matches!(fill, Fill::Number | Fill::Phone),
                "phone_number" => *fill == Fill::Phone,
                "number" | "letter" | "amount" | "car_number" | "symbol" => false,
                _ => !kind.is_empty(),
            };
            if !fits {
                return Err((
                    "api.templates.fields",
                    "names a field that cannot hold it: time and date hold date, phrase holds state, character_string holds number or phone, phone_number holds phone, thing holds anything",
                ));
            }
        }
        Ok(())
    }

    /// The fields with this in them.
    ///
    /// # Errors
    /// [`FieldError`] for what cannot be made to fit.
    pub fn fill(&self, with: &Filling<'_>) -> Result<Vec<Field>, FieldError> {
        let field = |(name, fill): (&String, &Fill)| {
            let text = match fill {
                Fill::Date => return Ok(Field::at(name, with.date)),
                Fill::Number => with.number,
                Fill::State => with.state,
                Fill::Says => with.says,
                Fill::Office => with.office,
                Fill::Phone => with.phone,
            };
            Field::text(name, text)
        };
        self.fields.iter().map(field).collect()
    }
}

//! The office's readings where the notice is silent (RULES.md, `[policy]`), with their defaults.

use serde::{Deserialize, Serialize};

/// From when a level's limit runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitsRunFrom {
    /// R6: all limits from acceptance, so a person waits five working days at most.
    #[default]
    Registration,
    /// Each level's limit from the moment when the matter enters the level.
    HandUp,
}

/// Settings of one office, stored with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// R6.
    pub limits_run_from: LimitsRunFrom,
    /// RD3.2: words that mark a message as an emergency.
    pub urgent_words: Vec<String>,
    /// Shown to citizens who ask how to reach a person.
    pub phone: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        let words = ["自杀", "轻生", "跳楼", "自焚", "人身安全", "生命危险", "晕倒"];
        Self {
            limits_run_from: LimitsRunFrom::Registration,
            urgent_words: words.map(str::to_owned).to_vec(),
            phone: None,
        }
    }
}

impl Policy {
    /// RD3.2: whether the words contain one of the office's urgent words.
    #[must_use]
    pub fn sounds_urgent(&self, text: &str) -> bool {
        holds_any(text, &self.urgent_words)
    }
}

/// Whether a text holds one of some short words. In one pass: each message is asked this, and to
/// prepare a search for each word costs more than the search.
pub(super) fn holds_any(text: &str, words: &[impl AsRef<str>]) -> bool {
    text.char_indices().any(|(at, c)| {
        words.iter().any(|word| {
            let word = word.as_ref();
            word.starts_with(c) && text[at..].starts_with(word)
        })
    })
}

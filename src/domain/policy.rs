//! The office's readings where the notice is silent (RULES.md, `[policy]`), with their defaults.

use super::word_list::WordList;
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
    pub urgent_words: WordList,
    /// Shown to citizens who ask how to reach a person.
    pub phone: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        let words = ["自杀", "轻生", "跳楼", "自焚", "人身安全", "生命危险", "晕倒"];
        Self {
            limits_run_from: LimitsRunFrom::Registration,
            urgent_words: WordList::new(words).expect("seven short words"),
            phone: None,
        }
    }
}

impl Policy {
    /// RD3.2: whether the words contain one of the office's urgent words.
    #[must_use]
    pub fn sounds_urgent(&self, text: &str) -> bool {
        self.urgent_words.stands_in(text)
    }
}

//! Words that are looked for together, in one pass over a text whatever their number: every message
//! is asked whether it sounds urgent, before it is registered.

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use serde::{Deserialize, Serialize};

/// Some words, and what finds them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct WordList {
    words: Vec<String>,
    automaton: AhoCorasick,
}

impl WordList {
    /// Of these words; an empty one stands in no text.
    ///
    /// # Errors
    /// When they are too many or too long to be looked for: gigabytes.
    pub fn new(words: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, BuildError> {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        // Which of them is found first is all the same; of this kind it is done many bytes at a time.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(words.iter().filter(|word| !word.is_empty()))?;
        Ok(Self { words, automaton })
    }

    /// Whether a text holds one of them.
    #[must_use]
    pub fn stands_in(&self, text: &str) -> bool {
        self.automaton.is_match(text)
    }
}

impl PartialEq for WordList {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for WordList {}

impl TryFrom<Vec<String>> for WordList {
    type Error = BuildError;

    fn try_from(words: Vec<String>) -> Result<Self, BuildError> {
        Self::new(words)
    }
}

impl From<WordList> for Vec<String> {
    fn from(list: WordList) -> Self {
        list.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_words_wherever_they_stand_and_nothing_in_an_empty_list() {
        let list = WordList::new(["自杀", "", "SOS"]).unwrap();
        for (text, found) in
            [("想自杀", true), ("sos", false), ("请SOS", true), ("自 杀", false), ("", false)]
        {
            assert_eq!(list.stands_in(text), found, "{text}");
        }
        assert!(!WordList::new([""; 1]).unwrap().stands_in("自杀"));
        assert!(!WordList::new([""; 0]).unwrap().stands_in("自杀"));
    }

    #[test]
    fn is_stored_as_its_words() {
        let list: WordList = serde_json::from_str(r#"["跳楼","晕倒"]"#).unwrap();
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"["跳楼","晕倒"]"#);
        assert!(list.stands_in("有人晕倒了"));
    }
}

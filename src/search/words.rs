//! Words that tickets are found by, without a dictionary: of Chinese every pair of neighbouring
//! characters, of everything else whole words.
//!
//! A run of Chinese characters becomes its pairs and its last character alone, so that a word of two
//! characters is one entry of the index and a single character is the beginning of one. A run of
//! digits also gives all its ends of four digits and more: a telephone is found by its last four, by
//! its beginning, and by any four in between. The index may say too much (pairs that do not follow
//! each other); the text itself is asked again.

use crate::domain::register::RegisterNumber;
use std::collections::BTreeSet;
use unicode_normalization::UnicodeNormalization;

/// Of a word that is longer only the beginning counts.
const LONGEST_WORD: usize = 64;
/// Of a run of digits that is longer the ends are not entered.
const LONGEST_NUMBER: usize = 20;
const SHORTEST_END: usize = 4;
/// What the database takes in one ticket, with room to spare: more is not entered.
const MOST_BYTES: usize = 400_000;
/// What a question may consist of; the text is asked for all of it.
const MOST_WORDS: usize = 8;
const MOST_PAIRS: usize = 12;

/// A text as words are looked for in it: one form for each character, whatever its width and case.
/// The database's `search_text` does the same.
#[must_use]
pub fn plain(text: &str) -> String {
    text.nfkc().map(|c| c.to_ascii_lowercase()).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Written without spaces.
    Chinese,
    Word,
    Between,
}

fn kind(c: char) -> Kind {
    match c {
        '\u{2e80}'..='\u{2fdf}'
        | '\u{3005}'..='\u{3007}'
        | '\u{3021}'..='\u{3029}'
        | '\u{3040}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' => Kind::Chinese,
        c if c.is_alphanumeric() => Kind::Word,
        _ => Kind::Between,
    }
}

/// The text's runs of one kind, without what is between.
fn runs(text: &str) -> impl Iterator<Item = (Kind, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let first = kind(rest.chars().next()?);
            let end = rest.find(|c| kind(c) != first).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            rest = after;
            if first != Kind::Between {
                return Some((first, run));
            }
        }
    })
}

fn beginning(word: &str) -> &str {
    word.char_indices().nth(LONGEST_WORD).map_or(word, |(end, _)| &word[..end])
}

fn pairs(run: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> =
        run.char_indices().map(|(at, _)| at).chain(std::iter::once(run.len())).collect();
    let pairs: Vec<&str> = starts.windows(3).map(|at| &run[at[0]..at[2]]).collect();
    pairs.into_iter()
}

/// What one ticket is found by, gathered field by field.
#[derive(Debug, Default)]
pub struct Entries {
    entries: BTreeSet<String>,
    bytes: usize,
}

impl Entries {
    /// Of a ticket with this number, as it is printed without the office's letters.
    #[must_use]
    pub fn of(ticket: RegisterNumber) -> Self {
        let mut entries = Self::default();
        let number = ticket.display("");
        let number = number.trim_start_matches('-');
        entries.add(number);
        entries.add_ends(number.rsplit('-').next().unwrap_or_default());
        entries
    }

    fn add(&mut self, entry: &str) {
        if self.bytes + entry.len() <= MOST_BYTES && self.entries.insert(entry.to_owned()) {
            self.bytes += entry.len();
        }
    }

    fn add_ends(&mut self, digits: &str) {
        for start in 0..=digits.len().saturating_sub(SHORTEST_END) {
            self.add(&digits[start..]);
        }
    }

    /// Adds what a field says.
    pub fn read(&mut self, text: &str) {
        for (kind, run) in runs(&plain(text)) {
            if kind == Kind::Chinese {
                pairs(run).for_each(|pair| self.add(pair));
                let last = run.char_indices().last().map_or(0, |(at, _)| at);
                self.add(&run[last..]);
            } else if run.len() <= LONGEST_NUMBER && run.bytes().all(|b| b.is_ascii_digit()) {
                self.add_ends(run);
            } else {
                self.add(beginning(run));
            }
        }
    }

    /// For the database: separated by spaces, which none of them holds.
    #[must_use]
    pub fn joined(&self) -> String {
        self.entries.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// What somebody looks for: every word of it, each of them in one of the ticket's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// What the text has to hold, plain.
    pub words: Vec<String>,
    /// The same for the index, as PostgreSQL writes a question; `None` when it knows nothing of it,
    /// as with a percent sign.
    pub index: Option<String>,
}

impl Words {
    /// What was typed; `None` when that is nothing.
    #[must_use]
    pub fn of(typed: &str) -> Option<Self> {
        let plain = plain(typed);
        let words: Vec<String> =
            plain.split_whitespace().take(MOST_WORDS).map(str::to_owned).collect();
        if words.is_empty() {
            return None;
        }
        let parts: Vec<String> = words.iter().filter_map(|word| question(word)).collect();
        let index = (!parts.is_empty()).then(|| parts.join(" & "));
        Some(Self { words, index })
    }
}

/// What the index is asked for one word.
fn question(word: &str) -> Option<String> {
    // Letters, digits and hyphens only: nothing that would have to be escaped.
    let starting = |entry: &str| format!("'{entry}':*");
    let mut parts = Vec::new();
    for (kind, run) in runs(word) {
        if kind == Kind::Word {
            parts.push(starting(beginning(run)));
        } else if run.chars().nth(1).is_none() {
            parts.push(starting(run));
        } else {
            parts.extend(pairs(run).take(MOST_PAIRS).map(|pair| format!("'{pair}'")));
        }
    }
    if parts.is_empty() {
        return None;
    }
    let said = parts.join(" & ");
    let number = word.split_once('-').is_some_and(|(year, sequence)| {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        year.len() == 4 && digits(year) && sequence.len() <= 9 && digits(sequence)
    });
    Some(if number { format!("({} | ({said}))", starting(word)) } else { said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<String> {
        let mut entries = Entries::default();
        entries.read(text);
        entries.entries.into_iter().collect()
    }

    fn asked(typed: &str) -> String {
        Words::of(typed).and_then(|words| words.index).unwrap_or_default()
    }

    #[test]
    fn chinese_becomes_pairs_and_its_last_character() {
        assert_eq!(entries("路灯不亮"), ["不亮", "亮", "灯不", "路灯"]);
        assert_eq!(entries("灯，亮"), ["亮", "灯"]);
        assert_eq!(entries("𠮷野家"), ["家", "野家", "𠮷野"]);
    }

    #[test]
    fn width_and_case_do_not_matter() {
        assert_eq!(entries("ＡＢｃ１２"), ["abc12"]);
        assert_eq!(asked("ＡＢＣ"), "'abc':*");
        assert_eq!(plain("（Ａ）"), "(a)");
    }

    #[test]
    fn a_telephone_is_found_by_its_ends_and_its_beginning() {
        let entries = entries("13900001234");
        for end in ["1234", "01234", "900001234", "13900001234"] {
            assert!(entries.contains(&end.to_owned()), "{end}");
        }
        assert!(!entries.contains(&"234".to_owned()));
        assert_eq!(asked("1390"), "'1390':*");
    }

    #[test]
    fn a_question_asks_for_every_part() {
        assert_eq!(asked("路灯 1204室"), "'路灯' & '1204':* & '室':*");
        assert_eq!(asked("王"), "'王':*");
        assert_eq!(asked("2026-0001"), "('2026-0001':* | ('2026':* & '0001':*))");
        assert_eq!(asked("%_'\\"), "");
        assert_eq!(Words::of("%").unwrap().words, ["%"]);
        assert_eq!(Words::of(" \u{3000} "), None);
    }

    #[test]
    fn a_number_is_found_as_printed() {
        let entries = Entries::of(RegisterNumber::new(2026, 12).unwrap());
        assert_eq!(entries.joined(), "000012 00012 0012 2026-000012");
    }

    #[test]
    fn no_text_is_too_long_for_the_database() {
        let mut entries = Entries::default();
        let long: String = (0..200_000_u32)
            .filter_map(|n| char::from_u32(0x4e00 + n.wrapping_mul(2_654_435_761) % 20_000))
            .collect();
        entries.read(&long);
        entries.read(&"x".repeat(100_000));
        assert!(entries.joined().len() <= 2 * MOST_BYTES);
        let longest = entries.entries.iter().map(|entry| entry.len()).max();
        assert!(longest.is_some_and(|longest| longest <= 4 * LONGEST_WORD));
    }
}

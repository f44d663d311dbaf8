//! Telephone numbers as exchanges write them, brought to one form (hotline.md §2, "Phone
//! normalisation").
//!
//! `phonenumber` knows which numbers exist; what it does not know is done before: display names, SIP
//! addresses, Chinese words for an extension, numbers without an area, areas that were merged.

use crate::text::fact;
use phonenumber::{Mode, country};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// Longer ones are no numbers.
const LONGEST: usize = 160;
/// Of what is no number, in bytes.
const RAW: usize = intake_contract::LIMITS.phone;

/// Who called. The better read comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// A number that exists.
    Known(Number),
    /// Something that is no full number: a short code, an extension, a number that cannot be.
    Raw(String),
    /// Withheld: nobody can be called back.
    Anonymous,
}

/// A number that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Number {
    /// `+8613900001234`: what repeats are recognised by.
    pub e164: String,
    /// The extension, in digits.
    pub ext: Option<String>,
    /// As written by the source.
    pub raw: String,
}

/// What an office's numbers lack when they are written short.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Numbering {
    /// The area of numbers written without one, with its 0; empty where it is not known.
    pub area: String,
    /// Areas that are no more.
    pub rewrites: Vec<Rewrite>,
    /// The office's own numbers and extensions; `X` stands for any digit. Whoever calls from them is
    /// no citizen.
    pub own: Vec<String>,
}

/// An area that was merged into another one, its numbers made longer by a digit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The former area, with its 0.
    pub from: String,
    /// How many digits its numbers had.
    pub digits: usize,
    /// The area and the digits that now stand before them.
    pub to: String,
}

impl Default for Numbering {
    /// Tieling and Fushun went into 024 on 2011-08-28 by a 7 and a 5 before the seven digits; people,
    /// letterheads and exchanges still use the former areas.
    fn default() -> Self {
        let rewrite =
            |from: &str, to: &str| Rewrite { from: from.to_owned(), digits: 7, to: to.to_owned() };
        Self {
            area: String::new(),
            rewrites: vec![rewrite("0410", "0247"), rewrite("0413", "0245")],
            own: Vec::new(),
        }
    }
}

impl Caller {
    /// The number as the source wrote it.
    #[must_use]
    pub fn raw(&self) -> Option<&str> {
        match self {
            Self::Known(number) => Some(&number.raw),
            Self::Raw(raw) => Some(raw),
            Self::Anonymous => None,
        }
    }

    /// What an officer dials, with the extension as people say it; `None` when it is withheld.
    #[must_use]
    pub fn dialled(&self) -> Option<String> {
        match self {
            Self::Known(number) => Some(match &number.ext {
                Some(ext) => format!("{} 转 {ext}", number.national()),
                None => number.national(),
            }),
            Self::Raw(raw) => Some(raw.clone()),
            Self::Anonymous => None,
        }
    }

    /// What calls of one caller are recognised by; `None` when it is withheld.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        match self {
            Self::Known(number) => Some(&number.e164),
            Self::Raw(raw) => Some(raw),
            Self::Anonymous => None,
        }
    }

    /// For lists and logs: `139****1234`, `024****6789` (P05). Nothing of what is too short to hide
    /// a part of.
    #[must_use]
    pub fn masked(&self) -> String {
        let number = match self {
            Self::Known(number) => number.national(),
            Self::Raw(raw) => raw.chars().filter(char::is_ascii_digit).collect(),
            Self::Anonymous => return String::new(),
        };
        match (number.get(..3), number.len()) {
            (Some(first), 11..) => format!("{first}****{}", &number[number.len() - 4..]),
            _ => "****".to_owned(),
        }
    }
}

impl Number {
    /// As it is dialled from within the country, without extension: `13900001234`, `02423456789`,
    /// `01062345678`, `4008123123`; foreign ones as they are.
    #[must_use]
    pub fn national(&self) -> String {
        match self.e164.strip_prefix("+86") {
            Some(number) if is_mobile(number) || is_of_no_area(number) => number.to_owned(),
            Some(landline) => format!("0{landline}"),
            None => self.e164.clone(),
        }
    }
}

impl Numbering {
    /// Reads what an exchange writes as a number. Never fails: what cannot be read is kept as it is.
    #[must_use]
    pub fn read(&self, written: &str) -> Caller {
        let Some(raw) = fact(written, LONGEST) else { return Caller::Anonymous };
        let text: String = raw.nfkc().collect::<String>().to_lowercase();
        let Some(bare) = bare(&text) else { return Caller::Anonymous };
        // "Withheld", "Private Number", "未知", "0", a name: whatever the word, nobody can dial it.
        if !bare.contains(|c: char| matches!(c, '1'..='9')) {
            return Caller::Anonymous;
        }
        let (main, ext) = split_extension(bare);
        match self.e164(&main) {
            Some(e164) => Caller::Known(Number { e164, ext, raw }),
            // As much as a ticket holds.
            None => Caller::Raw(fact(&raw, RAW).unwrap_or(raw)),
        }
    }

    /// Whether it is one of the office's own.
    #[must_use]
    pub fn is_own(&self, caller: &Caller) -> bool {
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let number = match caller {
            Caller::Known(number) => number.national(),
            Caller::Raw(raw) => digits(raw),
            Caller::Anonymous => return false,
        };
        self.own.iter().any(|own| match (own.contains(['X', 'x']), self.read(own)) {
            (false, Caller::Known(own)) => own.national() == number,
            _ => fits(own, &number),
        })
    }

    /// The international form of a number without extension, where there is such a number.
    fn e164(&self, main: &str) -> Option<String> {
        // A letter makes it a name; everything else between the digits is decoration.
        if main.chars().any(char::is_alphabetic) {
            return None;
        }
        let digits: String = main.chars().filter(char::is_ascii_digit).collect();
        let international = if main.trim_start_matches([' ', '(']).starts_with('+') {
            Some(digits.as_str())
        } else {
            digits.strip_prefix("00")
        };
        let national = match international {
            Some(number) => match number.strip_prefix("86") {
                Some(national) => national.to_owned(),
                None => return exists(&format!("+{number}")),
            },
            None if digits.len() == 13 && digits.starts_with("861") => digits[2..].to_owned(),
            None => self.with_area(digits),
        };
        // Short codes are nobody's number.
        if national.len() < 7 {
            return None;
        }
        exists(&self.rewritten(national))
    }

    /// Seven or eight digits are a number of this area.
    fn with_area(&self, digits: String) -> String {
        // No area has numbers that begin so: those with a 9 are services (95588).
        let none = digits.starts_with(['0', '1', '9']);
        if !matches!(digits.len(), 7 | 8) || none || self.area.is_empty() {
            return digits;
        }
        // An office may still be set to its former area, whose numbers are a digit shorter.
        let merged =
            self.rewrites.iter().find(|r| r.from == self.area && digits.len() == r.digits + 1);
        match merged.and_then(|r| r.to.get(..r.to.len() - 1)) {
            Some(area) => format!("{area}{digits}"),
            None => format!("{}{digits}", self.area),
        }
    }

    fn rewritten(&self, national: String) -> String {
        for rewrite in &self.rewrites {
            // The 0 is lost where a number passed through a spreadsheet or a JSON number.
            for from in [rewrite.from.as_str(), rewrite.from.trim_start_matches('0')] {
                if let Some(rest) = national.strip_prefix(from)
                    && rest.len() == rewrite.digits
                {
                    return format!("{}{rest}", rewrite.to);
                }
            }
        }
        national
    }
}

/// Beijing's numbers begin with a 1 as well (10), and are a digit shorter.
fn is_mobile(number: &str) -> bool {
    number.len() == 11 && matches!(number.as_bytes(), [b'1', b'3'..=b'9', ..])
}

/// Numbers of services, which are the same everywhere and dialled without a 0.
fn is_of_no_area(number: &str) -> bool {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|one| number.starts_with(one));
    match number.len() {
        7 => begins(&["1096"]),
        8 => begins(&["1010", "1096"]),
        10 => begins(&["400", "800", "950"]),
        11 => begins(&["950"]),
        _ => false,
    }
}

fn fits(pattern: &str, number: &str) -> bool {
    let mut wanted = pattern.chars().filter(|c| c.is_ascii_alphanumeric());
    let each = number
        .chars()
        .all(|digit| wanted.next().is_some_and(|c| c == digit || c.eq_ignore_ascii_case(&'x')));
    each && wanted.next().is_none()
}

fn exists(number: &str) -> Option<String> {
    let number = phonenumber::parse(Some(country::Id::CN), number).ok()?;
    // A parsed number need not be one: 10086 and 23456789 parse as well.
    number.is_valid().then(|| number.format().mode(Mode::E164).to_string())
}

/// What exchanges write when the caller hides the number ("Anonymous").
pub(crate) fn is_withheld(text: &str) -> bool {
    const WORDS: [&str; 8] = [
        "",
        "anonymous",
        "unknown",
        "unavailable",
        "restricted",
        "private",
        "asterisk",
        "anonymous.invalid",
    ];
    // FreeSWITCH's own default is ten zeros; the others are words spelled on the keys of a telephone
    // (ANONYMOUS, RESTRICTED, UNAVAILABLE, UNKNOWN), as Twilio and others pass them on.
    const SPELLED: [&str; 5] = ["266696687", "7378742833", "86282452253", "8656696", "2562533"];
    let text = text.trim().to_ascii_lowercase();
    let digits = text.strip_prefix('+').unwrap_or(&text);
    WORDS.contains(&text.as_str())
        || text.ends_with("@anonymous.invalid")
        || (digits.len() >= 6 && digits.bytes().all(|b| b == b'0'))
        || (text.starts_with('+') && SPELLED.contains(&digits))
}

/// Without display name, scheme and host; `None` when the number is withheld.
fn bare(text: &str) -> Option<&str> {
    let inner = match (text.rfind('<'), text.rfind('>')) {
        (Some(open), Some(close)) if open < close => &text[open + 1..close],
        _ => text,
    };
    let inner = inner.trim().trim_matches('"');
    let inner = ["sip:", "sips:", "tel:"]
        .iter()
        .find_map(|scheme| inner.strip_prefix(scheme))
        .unwrap_or(inner);
    let uri = inner.split(';').next().unwrap_or(inner).trim();
    if is_withheld(uri) {
        return None;
    }
    let user = inner.split('@').next().unwrap_or(inner);
    if is_withheld(user) { None } else { Some(user) }
}

/// The number and its extension: `02423456789转8001`, `…,8001`, `…;ext=8001`, `024-23456789-8001`.
fn split_extension(text: &str) -> (String, Option<String>) {
    const MARKS: [&str; 7] = [";ext=", "分机", "转", "ext", "#", ",", "x"];
    // Other parameters of an address say nothing about the number.
    let text = match text.find(';') {
        Some(at) if !text[at..].starts_with(";ext=") => &text[..at],
        _ => text,
    };
    let first = MARKS.iter().filter_map(|mark| text.find(mark).filter(|at| *at > 0)).min();
    let (main, rest) = match first {
        Some(at) => text.split_at(at),
        None => match text.rsplit_once('-') {
            Some((main, rest)) if is_extension(main, rest) => (main, rest),
            _ => (text, ""),
        },
    };
    let ext: String = rest.chars().filter(char::is_ascii_digit).take(6).collect();
    (main.to_owned(), (!ext.is_empty()).then_some(ext))
}

/// Whether what follows a hyphen is an extension: up to six digits behind a whole subscriber's
/// number, not the last group of a number that is written in groups.
fn is_extension(main: &str, rest: &str) -> bool {
    let group = main.rsplit(['-', ' ', ')']).next().unwrap_or(main);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    digits(rest) && (1..=6).contains(&rest.len()) && digits(group) && group.len() >= 7
}

//! Finding one's matter again, by its number and the end of a telephone number (S20). What is wrong
//! and what is not there are answered alike.

use crate::{domain::register::RegisterNumber, wording};
use chrono::{DateTime, Datelike, Utc};
use std::net::IpAddr;
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;

/// A register number as people type it: in any width and case, with or without prefix, hyphens,
/// zeros, and of this year where none is said. `None` for what cannot be one.
#[must_use]
pub fn number(text: &str, prefix: &str, now: DateTime<Utc>) -> Option<RegisterNumber> {
    let text: String = text.nfkc().collect();
    let letters: String = text.chars().filter(|c| c.is_alphabetic()).collect();
    if !letters.is_empty() && !letters.eq_ignore_ascii_case(prefix) {
        return None;
    }
    let mut groups = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let (year, sequence) = match (groups.next()?, groups.next(), groups.next()) {
        (year, Some(sequence), None) => (year.to_owned(), sequence.to_owned()),
        // Year and number run together, as far as a number is six digits long.
        (both, None, None) if both.len() >= 10 && both.is_char_boundary(4) => {
            (both[..4].to_owned(), both[4..].to_owned())
        }
        (sequence, None, None) => (wording::day_of(now).year().to_string(), sequence.to_owned()),
        _ => return None,
    };
    RegisterNumber::new(year.parse().ok()?, sequence.parse().ok()?).ok()
}

/// Four digits as they were typed, in any width; `None` when it is not four.
#[must_use]
pub fn last_four(text: &str) -> Option<[u8; 4]> {
    let digits: Vec<u8> = text.nfkc().filter(|c| c.is_ascii_digit()).map(|c| c as u8).collect();
    digits.try_into().ok()
}

/// Whether a telephone number ends in these four, its extension left out or not. One that is not
/// known takes as long and fits nothing.
#[must_use]
pub fn ends_in(phone: Option<&str>, four: [u8; 4]) -> bool {
    let digits = |text: &str| -> Vec<u8> {
        let shown = text.nfkc().filter(|c| c.is_ascii_digit());
        shown.map(|c| c as u8).collect()
    };
    let fits =
        |digits: Vec<u8>| digits.len() >= 7 && bool::from(digits[digits.len() - 4..].ct_eq(&four));
    let phone = phone.unwrap_or("0");
    let line = phone.split(['转', '#', ',']).next().unwrap_or_default();
    fits(digits(phone)) | fits(digits(line))
}

/// Whose attempts an address counts as: one network of a subscriber is one.
#[must_use]
pub fn neighbourhood(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_understood_as_people_type_it() {
        let now = DateTime::parse_from_rfc3339("2026-11-24T09:00:00+08:00").unwrap().to_utc();
        let wanted = RegisterNumber::new(2026, 123).unwrap();
        for text in [
            "BCS-2026-000123",
            "bcs-2026-000123",
            "ＢＣＳ－２０２６－０００１２３",
            "BCS2026000123",
            "bcs 2026 123",
            "2026-123",
            "2026000123",
            "123",
            "000123",
            " bcs—2026—000123 ",
        ] {
            assert_eq!(number(text, "BCS", now), Some(wanted), "{text}");
        }
        for text in ["", "BCS", "XYZ-2026-000123", "2026-1-2-3", "BCS-2026-0", "一二三"] {
            assert_eq!(number(text, "BCS", now), None, "{text}");
        }
    }

    #[test]
    fn s20_four_digits_are_compared_with_the_end_of_the_line_or_of_the_extension() {
        let four = last_four("８001").unwrap();
        assert!(ends_in(Some("024-23456789转8001"), four));
        assert!(ends_in(Some("13900008001"), four));
        assert!(ends_in(Some("024-23456789转8001"), *b"6789"));
        assert!(!ends_in(Some("13900008002"), four));
        assert!(!ends_in(Some("8001"), four), "too short to be a telephone");
        assert!(!ends_in(None, four));
        assert_eq!(last_four("800"), None);
    }
}

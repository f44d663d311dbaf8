//! Register numbers (R7.1): gap-free for an office and a year, in the order of registration.

use serde::{Deserialize, Serialize};

const YEAR: i64 = 1_000_000_000;

/// A ticket's place in the register of its office: year and sequence, one integer in the database
/// (`year * 1,000,000,000 + sequence`), so that the number is the ticket's key and grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegisterNumber(i64);

/// The text or integer is no register number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a register number")]
pub struct NotANumber;

impl RegisterNumber {
    /// The number `sequence` of `year`.
    ///
    /// # Errors
    /// Unless the year has four digits and the sequence is between 1 and 999,999,999.
    pub fn new(year: i32, sequence: i32) -> Result<Self, NotANumber> {
        if !(1000..=9999).contains(&year) || !(1..=999_999_999).contains(&sequence) {
            return Err(NotANumber);
        }
        Ok(Self(i64::from(year) * YEAR + i64::from(sequence)))
    }

    /// From the database's form.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_i64(raw: i64) -> Result<Self, NotANumber> {
        let year = i32::try_from(raw / YEAR).map_err(|_| NotANumber)?;
        let sequence = i32::try_from(raw % YEAR).map_err(|_| NotANumber)?;
        Self::new(year, sequence)
    }

    /// The database's form.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        self.0
    }

    /// The year of registration, in the office's zone.
    #[must_use]
    pub fn year(self) -> i32 {
        (self.0 / YEAR) as i32
    }

    /// The place within the year, from 1.
    #[must_use]
    pub fn sequence(self) -> i32 {
        (self.0 % YEAR) as i32
    }

    /// As people write it, with the office's prefix: `BCS-2026-000123`.
    #[must_use]
    pub fn display(self, prefix: &str) -> String {
        format!("{prefix}-{}-{:06}", self.year(), self.sequence())
    }

    /// Reads what [`Self::display`] writes; leading zeros may be missing or more, case and
    /// surrounding spaces do not matter.
    ///
    /// # Errors
    /// When the prefix differs or the rest is no year and sequence.
    pub fn parse(text: &str, prefix: &str) -> Result<Self, NotANumber> {
        let mut parts = text.trim().split('-');
        let (Some(head), Some(year), Some(sequence), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotANumber);
        };
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if !head.eq_ignore_ascii_case(prefix) || !digits(year) || !digits(sequence) {
            return Err(NotANumber);
        }
        let number = |part: &str| part.parse().map_err(|_| NotANumber);
        Self::new(number(year)?, number(sequence)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7_1_a_number_reads_as_it_is_written() {
        let number = RegisterNumber::new(2026, 123).unwrap();
        assert_eq!(number.display("BCS"), "BCS-2026-000123");
        assert_eq!(RegisterNumber::parse(" bcs-2026-123 ", "BCS"), Ok(number));
        assert_eq!(RegisterNumber::from_i64(number.as_i64()), Ok(number));
        let long = RegisterNumber::new(2026, 1_234_567).unwrap();
        assert_eq!(RegisterNumber::parse(&long.display("BCS"), "BCS"), Ok(long));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "BCS", "BCS-2026", "BCS-2026-0", "XYZ-2026-1", "BCS-2026-1-1", "BCS-+26-1"]
        {
            assert_eq!(RegisterNumber::parse(text, "BCS"), Err(NotANumber), "{text}");
        }
        assert_eq!(RegisterNumber::from_i64(-1), Err(NotANumber));
        assert_eq!(RegisterNumber::from_i64(i64::MAX), Err(NotANumber));
    }
}

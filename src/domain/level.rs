//! The 1-3-5 ladder (R6.1, R6.3, R6.5).

use serde::{Deserialize, Serialize};

/// Who has the matter, and how many working days from acceptance they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// R6.1: the duty officer, 1 day.
    Duty,
    /// R6.3: the centre's leadership, 3 days.
    Leadership,
    /// R6.5: the bureau's party group, 5 days.
    PartyGroup,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 3] = [Self::Duty, Self::Leadership, Self::PartyGroup];

    /// 1, 3 or 5: the number in the API, and the working days of the notice.
    #[must_use]
    pub fn number(self) -> i16 {
        match self {
            Self::Duty => 1,
            Self::Leadership => 3,
            Self::PartyGroup => 5,
        }
    }

    /// The reverse of [`Self::number`].
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.number() == number)
    }

    /// Where an unsolved matter rises to; `None` at the top, where it stays, overdue.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Duty => Some(Self::Leadership),
            Self::Leadership => Some(Self::PartyGroup),
            Self::PartyGroup => None,
        }
    }

    /// Whose level it is, as pages name them.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Duty => "值班人员",
            Self::Leadership => "中心班子",
            Self::PartyGroup => "局党组",
        }
    }
}

impl Serialize for Level {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i16(self.number())
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let number = i16::deserialize(input)?;
        Self::from_number(number)
            .ok_or_else(|| serde::de::Error::custom(format!("level {number} is none of 1, 3, 5")))
    }
}

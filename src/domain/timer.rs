//! What a ticket waits for.

/// The kinds of timers. The number is the one in the database and in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// R5.2: work on what came in out of hours starts at the next opening.
    FollowUp,
    /// The opening of the day on which the limit falls.
    Warning,
    /// R6: the level's limit; an unsolved matter rises by itself.
    Limit,
    /// R6.5: level 5's limit; the matter stays and shows as overdue.
    Overdue,
}

impl TimerKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::FollowUp, Self::Warning, Self::Limit, Self::Overdue];

    /// The database's form.
    #[must_use]
    pub fn number(self) -> i16 {
        match self {
            Self::FollowUp => 1,
            Self::Warning => 2,
            Self::Limit => 3,
            Self::Overdue => 4,
        }
    }

    /// The reverse of [`Self::number`].
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// For lists and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FollowUp => "follow_up",
            Self::Warning => "warning",
            Self::Limit => "limit",
            Self::Overdue => "overdue",
        }
    }
}

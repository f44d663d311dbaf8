//! The only place that asks what time it is.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use std::sync::{Arc, Mutex, PoisonError};

/// The time, to the microsecond: the database keeps no more, and what is hashed must come back as
/// it went in.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    /// Set by hand, for tests and for entering the demo's past.
    Set(Mutex<DateTime<Utc>>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that stands still until [`Self::set`].
    #[must_use]
    pub fn standing_at(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Source::Set(Mutex::new(now))))
    }

    /// The time in UTC.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place where the time is read")]
    pub fn now(&self) -> DateTime<Utc> {
        let now = match &*self.0 {
            Source::System => Utc::now(),
            Source::Set(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
        };
        now.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(now)
    }

    /// Moves a standing clock; the machine's clock is left alone.
    pub fn set(&self, to: DateTime<Utc>) {
        if let Source::Set(now) = &*self.0 {
            *now.lock().unwrap_or_else(PoisonError::into_inner) = to;
        }
    }
}

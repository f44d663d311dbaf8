//! The dates that a ticket is promised (R5.2, R6).

use super::{
    calendar::{Deadline, WorkingCalendar},
    level::Level,
    policy::LimitsRunFrom,
};
use chrono::{DateTime, Utc};

/// What a new ticket is promised. Instants in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// R6 [policy]: the instant of receipt inside a session, else the next opening.
    pub accepted_at: DateTime<Utc>,
    /// R5.2: when work starts on what came in out of hours; `None` for what came in during one.
    pub follow_up_at: Option<DateTime<Utc>>,
    /// R6.1: level 1's limit.
    pub due_at: DateTime<Utc>,
    /// Whether any of these rests on a calendar that has not been announced.
    pub provisional: bool,
    /// Whose notice is missing.
    pub needs_year: Option<i32>,
}

/// The dates for what reached the gateway at `received_at` and was said at `said_at`.
///
/// The limit runs from acceptance, like every later one ([`limit`]): what comes in while the
/// afternoon is closed is accepted tomorrow and not due tomorrow. Whether anybody was there to hear
/// it is judged at `said_at`: a recording of the night that arrives in the morning is still to be
/// followed up (hotline.md, "Time"), at once if that opening has passed.
#[must_use]
pub fn promise(
    calendar: &WorkingCalendar,
    received_at: DateTime<Utc>,
    said_at: DateTime<Utc>,
) -> Promise {
    let accepted = calendar.accepted_at(received_at);
    let deadline = calendar.deadline(accepted.value, Level::Duty.number() as u8);
    let follow_up = calendar.follow_up_at(said_at);
    Promise {
        accepted_at: accepted.value,
        follow_up_at: follow_up.map(|dated| dated.value),
        due_at: deadline.at,
        provisional: deadline.provisional || accepted.provisional,
        needs_year: deadline.needs_year.or(accepted.needs_year),
    }
}

/// R6: a level's limit, for a matter accepted at `accepted_at` that enters the level at `entered_at`.
#[must_use]
pub fn limit(
    calendar: &WorkingCalendar,
    run_from: LimitsRunFrom,
    level: Level,
    accepted_at: DateTime<Utc>,
    entered_at: DateTime<Utc>,
) -> Deadline {
    let from = match run_from {
        LimitsRunFrom::Registration => accepted_at,
        LimitsRunFrom::HandUp => entered_at,
    };
    calendar.deadline(from, level.number() as u8)
}

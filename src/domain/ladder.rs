//! What a timer does when it falls due (R5.2, R6): decided here, from the ticket as it stands.

use super::{
    calendar::WorkingCalendar, event::Happened, level::Level, policy::Policy, promise::limit,
    ticket::Ticket, timer::TimerKind,
};
use chrono::{DateTime, Utc};

/// What follows from a timer that fell due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What happened; exactly one event for each firing.
    pub happened: Happened,
    /// Timers to arm anew, each as a new generation.
    pub arm: Vec<(TimerKind, DateTime<Utc>)>,
    /// What the staff are told.
    pub tell: &'static str,
}

/// The ticket's own dates, and whose calendar counts.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The office's calendar.
    pub calendar: &'a WorkingCalendar,
    /// The office's readings.
    pub policy: &'a Policy,
    /// From when the limits run.
    pub accepted_at: DateTime<Utc>,
}

/// Carries out a timer on the ticket; `None` when the matter no longer waits for it: it is solved,
/// or it waits for the citizen.
pub fn fall_due(
    kind: TimerKind,
    generation: i32,
    ticket: &mut Ticket,
    terms: Terms<'_>,
    now: DateTime<Utc>,
) -> Option<Effect> {
    if !ticket.state.is_pressing() {
        return None;
    }
    match kind {
        TimerKind::FollowUp => Some(Effect {
            happened: Happened::FollowUpDue { generation },
            arm: Vec::new(),
            tell: "follow_up",
        }),
        TimerKind::Warning => {
            let warn_at = terms.calendar.warn_at(ticket.due_at);
            Some(Effect {
                happened: Happened::LimitNear { generation, due_at: ticket.due_at },
                // Level 5 is warned a working day ahead as well: the day itself is still to come.
                arm: if warn_at > now { vec![(TimerKind::Warning, warn_at)] } else { Vec::new() },
                tell: "limit_near",
            })
        }
        TimerKind::Limit => {
            let to = ticket.level.next()?;
            let deadline =
                limit(terms.calendar, terms.policy.limits_run_from, to, terms.accepted_at, now);
            let happened = ticket.raise(None, deadline.at, deadline.provisional).ok()?;
            Some(Effect {
                happened,
                arm: timers_of_level(terms.calendar, to, deadline.at),
                tell: "raised",
            })
        }
        TimerKind::Overdue => {
            let happened = ticket.fall_overdue(generation).ok()?;
            Some(Effect { happened, arm: Vec::new(), tell: "overdue" })
        }
    }
}

/// The timers of a level with this limit: the warning at the opening of the due day (for level 5
/// first at that of the working day before, A7.5), and what happens at the limit itself.
#[must_use]
pub fn timers_of_level(
    calendar: &WorkingCalendar,
    level: Level,
    due_at: DateTime<Utc>,
) -> Vec<(TimerKind, DateTime<Utc>)> {
    let at_the_limit = match level.next() {
        Some(_) => TimerKind::Limit,
        None => TimerKind::Overdue,
    };
    let warn_at = match level {
        Level::PartyGroup => calendar.warn_a_day_before(due_at),
        Level::Duty | Level::Leadership => calendar.warn_at(due_at),
    };
    vec![(TimerKind::Warning, warn_at), (at_the_limit, due_at)]
}

//! What a timer does when it falls due (R5.2, R6): decided here, from the ticket as it stands.

use super::{
    calendar::WorkingCalendar,
    event::Happened,
    level::Level,
    policy::Policy,
    promise::limit,
    ticket::{State, Ticket},
    timer::TimerKind,
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

/// A timer that fell due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fell {
    /// What it does.
    pub kind: TimerKind,
    /// Which of its kind.
    pub generation: i32,
    /// For when it was armed; it may fire later than that.
    pub due_at: DateTime<Utc>,
}

/// The ticket's own dates, and whose calendar counts.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The office's calendar.
    pub calendar: &'a WorkingCalendar,
    /// The office's readings.
    pub policy: &'a Policy,
    /// From when the limits run: acceptance, or what took its place.
    pub accepted_at: DateTime<Utc>,
}

/// Carries out a timer on the ticket; `None` when the matter no longer waits for it: it is solved,
/// or it waits for the citizen, of which only the date is told by which material was asked for.
pub fn fall_due(
    fell: Fell,
    ticket: &mut Ticket,
    terms: Terms<'_>,
    now: DateTime<Utc>,
) -> Option<Effect> {
    let Fell { kind, generation, due_at: fell_at } = fell;
    // R7.a, RS2.1: who was asked for material and has not brought it is not forgotten.
    if matches!((&ticket.state, kind), (State::AwaitingCitizen { .. }, TimerKind::FollowUp)) {
        let happened = Happened::MaterialDue { generation };
        return Some(Effect { happened, arm: Vec::new(), tell: "material_due" });
    }
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
                // Level 5 is warned a working day ahead as well: the day itself is still to come. It
                // is not when this one was for the day: who claimed it may be ahead of `now`.
                arm: match warn_at > now && warn_at > fell_at {
                    true => vec![(TimerKind::Warning, warn_at)],
                    false => Vec::new(),
                },
                tell: "limit_near",
            })
        }
        TimerKind::Limit => {
            let to = ticket.level.next()?;
            // A schedule that was down must not lend the next level the time that it was late.
            let deadline =
                limit(terms.calendar, terms.policy.limits_run_from, to, terms.accepted_at, fell_at);
            let happened = ticket.raise(None, fell_at, deadline.at, deadline.provisional).ok()?;
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

/// As [`timers_of_level`], for a limit that moved: a warning that would be past is left out; where
/// it was level 5's early one, that of the due day takes its place.
#[must_use]
pub fn timers_ahead(
    calendar: &WorkingCalendar,
    level: Level,
    due_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Vec<(TimerKind, DateTime<Utc>)> {
    let mut timers = timers_of_level(calendar, level, due_at);
    for (kind, at) in &mut timers {
        if *kind == TimerKind::Warning && *at <= now {
            *at = calendar.warn_at(due_at);
        }
    }
    timers.retain(|(kind, at)| *kind != TimerKind::Warning || *at > now);
    timers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::policy::LimitsRunFrom;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("{text}:00+08:00")).unwrap().to_utc()
    }

    fn ticket(due_at: DateTime<Utc>) -> Ticket {
        Ticket {
            state: State::Registered,
            level: Level::Duty,
            due_at,
            provisional: false,
            accountable: None,
            unit: None,
            cause: None,
            overdue: false,
            runs_from: None,
        }
    }

    #[test]
    fn r6_a_limit_that_is_noticed_late_gives_the_next_level_no_more_time() {
        let calendar = WorkingCalendar::national().build();
        let policy = Policy { limits_run_from: LimitsRunFrom::HandUp, ..Policy::default() };
        let accepted_at = at("2026-11-23T08:30");
        let terms = Terms { calendar: &calendar, policy: &policy, accepted_at };
        let fell_at = at("2026-11-24T16:30");
        let fell = Fell { kind: TimerKind::Limit, generation: 1, due_at: fell_at };
        let raised = |now| {
            let mut ticket = ticket(fell_at);
            (fall_due(fell, &mut ticket, terms, now).unwrap(), ticket.due_at)
        };
        let (on_time, due) = raised(fell_at);
        assert_eq!(due, at("2026-11-30T16:30"));
        assert_eq!(raised(at("2026-11-26T10:00")), (on_time.clone(), due));
        let Happened::Raised { entered_at, .. } = on_time.happened else { panic!() };
        assert_eq!(entered_at, Some(fell_at));
    }

    #[test]
    fn a7_5_a_warning_that_is_claimed_early_comes_once() {
        let calendar = WorkingCalendar::national().build();
        let accepted_at = at("2026-11-23T08:30");
        let terms = Terms { calendar: &calendar, policy: &Policy::default(), accepted_at };
        let opens = at("2026-11-24T08:30");
        let fell = Fell { kind: TimerKind::Warning, generation: 1, due_at: opens };
        // By a clock that is ahead of the one that decides.
        let early = opens - chrono::TimeDelta::milliseconds(300);
        let effect = fall_due(fell, &mut ticket(at("2026-11-24T16:30")), terms, early).unwrap();
        assert_eq!(effect.arm, Vec::new());
    }

    #[test]
    fn a7_5_level_5_keeps_the_warning_of_the_due_day_when_the_earlier_one_is_past() {
        let calendar = WorkingCalendar::national().build();
        let due_at = at("2026-11-26T16:30");
        let warning = |now| {
            timers_ahead(&calendar, Level::PartyGroup, due_at, now)
                .into_iter()
                .find_map(|(kind, at)| (kind == TimerKind::Warning).then_some(at))
        };
        assert_eq!(warning(at("2026-11-24T10:00")), Some(at("2026-11-25T08:30")));
        assert_eq!(warning(at("2026-11-25T10:00")), Some(at("2026-11-26T08:30")));
        assert_eq!(warning(at("2026-11-26T10:00")), None);
    }
}

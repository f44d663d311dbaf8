//! The dates that a ticket is promised (R5.2, R6).

use super::{
    calendar::{Deadline, WorkingCalendar},
    level::Level,
    policy::LimitsRunFrom,
    ticket::NewLimit,
};
use chrono::{DateTime, Utc};
use intake_contract::china;

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
/// Where a pause or a reopening has moved the start, that stands for `accepted_at`.
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

/// A pause for the citizen (R7.a) that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// From when the limit ran before: acceptance, the entry into the level, the end of an earlier
    /// pause as [`resumed`] put it.
    pub ran_from: DateTime<Utc>,
    /// When the citizen was asked.
    pub paused_at: DateTime<Utc>,
    /// When an earlier pause ended, if there was one.
    pub resumed_before: Option<DateTime<Utc>>,
    /// When work goes on.
    pub resumed_at: DateTime<Utc>,
}

/// R7.a [policy]: the limit of a matter that waited for the citizen. In whole working days, as
/// scheduling.md A7.8c reckons an approved pause: what was used up before stays used, neither the
/// day of asking nor that of going on is, and at least one day remains. Later levels run from the
/// same start, so that a pause shortens none of them.
#[must_use]
pub fn resumed(calendar: &WorkingCalendar, level: Level, waited: Waited) -> NewLimit {
    let days = level.number() as u32;
    let day = |at: DateTime<Utc>| at.with_timezone(&china()).date_naive();
    let from = calendar.received_day(waited.ran_from).value;
    let paused = day(waited.paused_at);
    let mut used = calendar.working_days_between(from, paused);
    // Asked again on the day of going on: that day is no more used than it was before.
    let again = waited.resumed_before.map(|at| calendar.received_day(at).value);
    if again.is_some_and(|again| again >= paused && from < again) {
        used += 1;
    }
    let today = calendar.received_day(waited.resumed_at);
    let start = calendar.working_day_before(today.value, used.min(days - 1));
    let due = calendar.deadline_from_day(start, level.number() as u8);
    NewLimit {
        runs_from: calendar.opening(start),
        due_at: due.at,
        provisional: due.provisional || today.provisional,
    }
}

/// The limit of a matter that is taken up again at `reopened_at`: its level's days from then.
#[must_use]
pub fn reopened(calendar: &WorkingCalendar, level: Level, reopened_at: DateTime<Utc>) -> NewLimit {
    let accepted = calendar.accepted_at(reopened_at);
    let due = calendar.deadline(accepted.value, level.number() as u8);
    NewLimit {
        runs_from: accepted.value,
        due_at: due.at,
        provisional: due.provisional || accepted.provisional,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::calendar::Pause;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("{text}:00+08:00")).unwrap().to_utc()
    }

    #[test]
    fn r7_a_what_was_used_up_before_a_pause_stays_used_however_often_it_pauses() {
        let calendar = WorkingCalendar::national().build();
        let accepted = at("2026-09-23T09:10");
        // Every pair of pauses over the autumn festivals, also those that touch.
        let days: Vec<DateTime<Utc>> =
            (0..18).map(|n| accepted + chrono::TimeDelta::days(n)).collect();
        let mut tried = 0;
        for level in Level::ALL {
            for (i, p1) in days.iter().enumerate() {
                for (j, r1) in days.iter().enumerate().skip(i) {
                    for (k, p2) in days.iter().enumerate().skip(j) {
                        for r2 in days.iter().skip(k).step_by(3) {
                            let n = level.number() as u8;
                            let whole =
                                |pauses: &[Pause]| calendar.paused_deadline(accepted, n, pauses).at;
                            let first = Pause { paused_at: *p1, resumed_at: *r1 };
                            let second = Pause { paused_at: *p2, resumed_at: *r2 };
                            // One pauses while the limit runs, not after.
                            if calendar.deadline(accepted, n).at < *p1 || whole(&[first]) < *p2 {
                                continue;
                            }
                            // And not before work goes on, which is at the office's opening.
                            if calendar.received_day(*r1).value
                                > p2.with_timezone(&china()).date_naive()
                            {
                                continue;
                            }
                            let once = resumed(
                                &calendar,
                                level,
                                Waited {
                                    ran_from: accepted,
                                    paused_at: *p1,
                                    resumed_before: None,
                                    resumed_at: *r1,
                                },
                            );
                            assert_eq!(once.due_at, whole(&[first]), "{level:?} {p1} {r1}");
                            let twice = resumed(
                                &calendar,
                                level,
                                Waited {
                                    ran_from: once.runs_from,
                                    paused_at: *p2,
                                    resumed_before: Some(*r1),
                                    resumed_at: *r2,
                                },
                            );
                            let wanted = whole(&[first, second]);
                            assert_eq!(twice.due_at, wanted, "{level:?} {p1} {r1} {p2} {r2}");
                            tried += 1;
                        }
                    }
                }
            }
        }
        assert!(tried > 500, "{tried}");
    }

    #[test]
    fn what_is_taken_up_again_has_its_levels_days_from_then() {
        let calendar = WorkingCalendar::national().build();
        let limit = reopened(&calendar, Level::Leadership, at("2026-11-28T10:00"));
        assert_eq!(limit.runs_from, at("2026-11-30T08:30"));
        assert_eq!(limit.due_at, at("2026-12-03T16:30"));
    }
}

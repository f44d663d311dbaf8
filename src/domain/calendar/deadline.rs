use super::{Basis, Dated, OverrideKind, Reason, Session, WorkingCalendar, instant};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use intake_contract::china;

/// A limit of some working days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When: the end of the last session of the last day (民法典 203).
    pub at: DateTime<Utc>,
    /// The day that does not count (民法典 201).
    pub received_day: NaiveDate,
    /// Whether it rests on an unannounced calendar.
    pub provisional: bool,
    /// Whose notice is missing.
    pub needs_year: Option<i32>,
    /// The day ends in a half-day closure: the lead on duty decides what that means (A7.7).
    pub in_half_closure: bool,
}

/// A pause that the leadership approved (A7.8c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// From.
    pub paused_at: DateTime<Utc>,
    /// To.
    pub resumed_at: DateTime<Utc>,
}

/// Why a limit falls where it does: every day from receipt to the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The day that does not count.
    pub received_day: NaiveDate,
    /// The days after it, counted or skipped.
    pub days: Vec<WhyDay>,
    /// The limit.
    pub due: Deadline,
}

/// One day on the way to a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyDay {
    /// Which.
    pub date: NaiveDate,
    /// Its number, when it counts.
    pub counted: Option<u8>,
    /// Why it counts or not.
    pub reason: Reason,
    /// Whether that is a forecast.
    pub provisional: bool,
}

/// What a changed calendar does to a date (A7.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amendment {
    /// Nothing.
    Unchanged,
    /// It moves.
    Apply,
    /// It would move earlier without leaving a working day: it stays, and a person decides.
    Keep,
}

impl WorkingCalendar {
    /// A7.4: the end of the `n`-th working day after the day of receipt. `n` of 0 counts as 1.
    #[must_use]
    pub fn deadline(&self, received_at: DateTime<Utc>, n: u8) -> Deadline {
        let received = self.received_day(received_at);
        self.after_day(received, n)
    }

    /// As [`Self::deadline`], when the day of receipt is known.
    #[must_use]
    pub fn deadline_from_day(&self, received_day: NaiveDate, n: u8) -> Deadline {
        let mut basis = Basis::default();
        basis.saw(self, received_day);
        self.after_day(basis.dated(received_day), n)
    }

    fn after_day(&self, received: Dated<NaiveDate>, n: u8) -> Deadline {
        let mut basis = Basis { needs_year: received.needs_year };
        let mut date = received.value;
        for _ in 0..n.max(1) {
            date = self.next_working_day(date, &mut basis);
        }
        Deadline {
            at: instant(date, self.closing(date)),
            received_day: received.value,
            provisional: basis.needs_year.is_some() || received.provisional,
            needs_year: basis.needs_year,
            in_half_closure: self.half_closed(date),
        }
    }

    /// A7.7: whether a limit falls on a day of which the office closed a half.
    #[must_use]
    pub fn in_half_closure(&self, due_at: DateTime<Utc>) -> bool {
        self.half_closed(due_at.with_timezone(&china()).date_naive())
    }

    fn half_closed(&self, date: NaiveDate) -> bool {
        matches!(
            self.overrides.get(&date).map(|o| o.kind),
            Some(OverrideKind::MorningClosed | OverrideKind::AfternoonClosed)
        )
    }

    fn next_working_day(&self, after: NaiveDate, basis: &mut Basis) -> NaiveDate {
        let mut date = after;
        for _ in 0..super::LOOK_AHEAD_DAYS {
            let Some(next) = date.checked_add_days(Days::new(1)) else { return date };
            date = next;
            basis.saw(self, date);
            if self.is_working(date) {
                break;
            }
        }
        date
    }

    fn closing(&self, date: NaiveDate) -> NaiveTime {
        self.sessions(date).last().map(Session::end).unwrap_or_default()
    }

    /// A7.5: the opening of the day on which a limit falls.
    #[must_use]
    pub fn warn_at(&self, due_at: DateTime<Utc>) -> DateTime<Utc> {
        self.opening(due_at.with_timezone(&china()).date_naive())
    }

    /// The opening of a day's first session.
    #[must_use]
    pub fn opening(&self, date: NaiveDate) -> DateTime<Utc> {
        instant(date, self.sessions(date).first().map(Session::start).unwrap_or_default())
    }

    /// The end of a day's last session; `None` when it is no working day.
    #[must_use]
    pub fn end_of(&self, date: NaiveDate) -> Option<DateTime<Utc>> {
        self.is_working(date).then(|| instant(date, self.closing(date)))
    }

    /// The `n`-th working day before this one; the day itself for 0.
    #[must_use]
    pub fn working_day_before(&self, date: NaiveDate, n: u32) -> NaiveDate {
        let mut found = date;
        let mut left = n;
        let mut day = date;
        for _ in 0..super::LOOK_AHEAD_DAYS {
            if left == 0 {
                break;
            }
            let Some(before) = day.checked_sub_days(Days::new(1)) else { break };
            day = before;
            if self.is_working(day) {
                found = day;
                left -= 1;
            }
        }
        found
    }

    /// A7.5: the opening of the working day before the one on which a limit falls.
    #[must_use]
    pub fn warn_a_day_before(&self, due_at: DateTime<Utc>) -> DateTime<Utc> {
        let due = due_at.with_timezone(&china()).date_naive();
        let mut date = due;
        for _ in 0..super::LOOK_AHEAD_DAYS {
            let Some(before) = date.checked_sub_days(Days::new(1)) else { break };
            date = before;
            if self.is_working(date) {
                return self.opening(date);
            }
        }
        self.warn_at(due_at)
    }

    /// Working days strictly between two days.
    #[must_use]
    pub fn working_days_between(&self, from: NaiveDate, to: NaiveDate) -> u32 {
        from.iter_days()
            .skip(1)
            .take_while(|date| *date < to)
            .filter(|date| self.is_working(*date))
            .count() as u32
    }

    /// A7.8c: the limit of a matter that was paused, in whole days: what was used up before a
    /// pause stays used, neither the day of the pause nor that of resuming is, and at least one
    /// day remains. Pauses in order of time.
    #[must_use]
    pub fn paused_deadline(&self, received_at: DateTime<Utc>, n: u8, pauses: &[Pause]) -> Deadline {
        let mut start = self.received_day(received_at);
        let mut remaining = n.max(1);
        for pause in pauses {
            let paused_on = pause.paused_at.with_timezone(&china()).date_naive();
            let used = self.working_days_between(start.value, paused_on);
            remaining = u8::try_from(u32::from(remaining).saturating_sub(used)).unwrap_or(1).max(1);
            let resumed = self.received_day(pause.resumed_at);
            let needs_year = start.needs_year.or(resumed.needs_year);
            start = Dated {
                value: resumed.value,
                provisional: start.provisional || resumed.provisional,
                needs_year,
            };
        }
        self.after_day(start, remaining)
    }

    /// Every day from receipt to the limit, with its reason.
    #[must_use]
    pub fn why(&self, received_at: DateTime<Utc>, n: u8) -> Why {
        let due = self.deadline(received_at, n);
        let last = due.at.with_timezone(&china()).date_naive();
        let mut count = 0_u8;
        let days = due
            .received_day
            .iter_days()
            .skip(1)
            .take_while(|date| *date <= last)
            .map(|date| {
                let day = self.day(date);
                let counted = day.working.then(|| {
                    count = count.saturating_add(1);
                    count
                });
                let provisional = day.needs_year.is_some();
                WhyDay { date, counted, reason: day.reason, provisional }
            })
            .collect();
        Why { received_day: due.received_day, days, due }
    }

    /// A7.6: what to do when the calendar in force now computes another limit. Later: it moves.
    /// Earlier: only if it still leaves a working day from now, for nobody is to be late by a
    /// notice that came yesterday.
    #[must_use]
    pub fn amendment(
        &self,
        old: DateTime<Utc>,
        new: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Amendment {
        amend(old, new, self.deadline(now, 1).at)
    }
}

/// As [`WorkingCalendar::amendment`], with the end of the next working day given.
#[must_use]
pub fn amend(old: DateTime<Utc>, new: DateTime<Utc>, next_day: DateTime<Utc>) -> Amendment {
    match (new - old).cmp(&TimeDelta::zero()) {
        std::cmp::Ordering::Equal => Amendment::Unchanged,
        std::cmp::Ordering::Greater => Amendment::Apply,
        std::cmp::Ordering::Less if new >= next_day => Amendment::Apply,
        std::cmp::Ordering::Less => Amendment::Keep,
    }
}

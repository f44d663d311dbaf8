//! The working calendar (scheduling.md A4, A6, A7; R5.2, RD2.1, R6).
//!
//! A day is *working*, *off*, or *unknown*: its year's notice has not been announced. Nothing here
//! guesses silently: a date that rests on an unknown day is computed from a forecast (Monday to
//! Friday, minus the holidays whose dates the law fixes) and says so. Limits count days, never
//! hours: "1 day" of 24 business hours would be almost four days at this window.
//!
//! * `notice`: what the State Council announces for a year; `config/calendar/*.toml` has its form.
//! * `week`: the sessions by weekday, and an office's one-off closures and openings.
//! * `deadline`: the dates that follow, and why.

mod deadline;
mod notice;
mod statutory;
mod week;

pub use deadline::{Amendment, Deadline, Pause, Why, WhyDay, amend};
pub use notice::{Notice, NoticeError};
pub use week::{Override, OverrideKind, Session, Week, WeekError};

use chrono::{DateTime, Datelike, Days, NaiveDate, Utc, Weekday};
use intake_contract::china;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// What is known of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayStatus {
    /// The window works.
    Working,
    /// It does not.
    Off,
    /// The notice of `year` is missing.
    Unknown {
        /// Whose notice.
        year: i32,
    },
}

/// Why a day is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A weekday with sessions.
    Weekday,
    /// A weekday without sessions, mostly Saturday and Sunday.
    Weekend,
    /// Off by a notice.
    Holiday(Arc<str>),
    /// 调休: working by a notice.
    MakeUp(Arc<str>),
    /// Closed by the office.
    Closed(Arc<str>),
    /// Opened by the office.
    Opened(Arc<str>),
    /// Not announced yet; a holiday whose date the law fixes.
    Statutory(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weekday => out.write_str("工作日"),
            Self::Weekend => out.write_str("周末"),
            Self::Holiday(name) => write!(out, "{name}放假"),
            Self::MakeUp(name) => write!(out, "{name}调休上班"),
            Self::Closed(reason) => write!(out, "窗口停办（{reason}）"),
            Self::Opened(reason) => write!(out, "窗口加班（{reason}）"),
            Self::Statutory(name) => write!(out, "{name}（法定节假日）"),
        }
    }
}

/// A day with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// Which.
    pub date: NaiveDate,
    /// Fact, or unknown.
    pub status: DayStatus,
    /// Whether the window works: fact where known, else forecast.
    pub working: bool,
    /// Whose notice is missing, where it is a forecast.
    pub needs_year: Option<i32>,
    /// Why.
    pub reason: Reason,
}

/// A value that may rest on a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated<T> {
    /// The value.
    pub value: T,
    /// Whether it does.
    pub provisional: bool,
    /// Whose notice is missing.
    pub needs_year: Option<i32>,
}

/// How loud a missing notice is (scheduling.md A4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alert {
    /// From 1 October.
    Info,
    /// From 1 December.
    Warning,
    /// From 15 December.
    Page,
}

/// Days from here on have a flag each, ready made; others are worked out when asked.
const TABLE_FROM: NaiveDate = NaiveDate::from_ymd_opt(2019, 1, 1).expect("a date");
const TABLE_DAYS: u64 = 366 * 20;
/// The longest closure that is looked past.
const LOOK_AHEAD_DAYS: u64 = 800;

const WORKING: u8 = 1;
const FORECAST: u8 = 2;

/// An office's calendar. Immutable: a change makes a new one, with a new version.
#[derive(Clone)]
pub struct WorkingCalendar {
    announced: BTreeMap<NaiveDate, (bool, Arc<str>)>,
    years: BTreeSet<i32>,
    overrides: BTreeMap<NaiveDate, Override>,
    weeks: Vec<(NaiveDate, Week)>,
    table: Vec<u8>,
    version: i32,
}

impl fmt::Debug for WorkingCalendar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WorkingCalendar")
            .field("years", &self.years)
            .field("overrides", &self.overrides.len())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Puts a calendar together.
#[derive(Debug, Default)]
pub struct Builder {
    notices: BTreeMap<i32, Notice>,
    overrides: BTreeMap<NaiveDate, Override>,
    weeks: BTreeMap<NaiveDate, Week>,
    version: i32,
}

impl Builder {
    /// Adds a year's notice; a later one of the same year replaces it.
    #[must_use]
    pub fn notice(mut self, notice: Notice) -> Self {
        self.notices.insert(notice.year(), notice);
        self
    }

    /// Adds an office's own decision about a day; the last one of a day holds.
    #[must_use]
    pub fn decide(mut self, day: NaiveDate, decision: Override) -> Self {
        self.overrides.insert(day, decision);
        self
    }

    /// Changes the sessions from a day on.
    #[must_use]
    pub fn sessions_from(mut self, day: NaiveDate, week: Week) -> Self {
        self.weeks.insert(day, week);
        self
    }

    /// The version that dates computed with this calendar carry.
    #[must_use]
    pub fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    /// The calendar.
    #[must_use]
    pub fn build(self) -> WorkingCalendar {
        let mut announced = BTreeMap::new();
        for notice in self.notices.values() {
            for (date, working, name) in notice.days() {
                announced.insert(*date, (*working, Arc::clone(name)));
            }
        }
        let mut calendar = WorkingCalendar {
            announced,
            years: self.notices.keys().copied().collect(),
            overrides: self.overrides,
            weeks: self.weeks.into_iter().collect(),
            table: Vec::new(),
            version: self.version,
        };
        calendar.table = TABLE_FROM
            .iter_days()
            .take(TABLE_DAYS as usize)
            .map(|date| calendar.flags_of(date))
            .collect();
        calendar
    }
}

impl WorkingCalendar {
    /// A calendar with the notices that the program carries, 2020 to 2026.
    #[must_use]
    pub fn national() -> Builder {
        notice::embedded().into_iter().fold(Builder::default(), Builder::notice)
    }

    /// The version that dates computed with it carry.
    #[must_use]
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Whose notice is missing for this day. The last week of a year also needs the next year's
    /// notice, which may move days of it (2022-12-31 was off by 2023's).
    #[must_use]
    pub fn missing_notice(&self, date: NaiveDate) -> Option<i32> {
        let year = date.year();
        if !self.years.contains(&year) {
            return Some(year);
        }
        let last_week = date.month() == 12 && date.day() >= 25;
        (last_week && !self.years.contains(&(year + 1))).then_some(year + 1)
    }

    /// Everything about a day.
    #[must_use]
    pub fn day(&self, date: NaiveDate) -> Day {
        let has_sessions = !self.week(date).of(date.weekday()).is_empty();
        let decided = self.overrides.get(&date);
        // What the office decides for itself holds whatever is announced; half a day that it
        // closes says nothing about whether the day is worked at all.
        let needs_year = match decided.map(|o| o.kind) {
            Some(OverrideKind::Closed | OverrideKind::Open) => None,
            _ => self.missing_notice(date),
        };
        let (working, reason) = match (decided, self.announced.get(&date)) {
            (Some(o), _) if o.kind == OverrideKind::Closed => {
                (false, Reason::Closed(Arc::from(o.reason.as_str())))
            }
            (Some(o), _) if o.kind == OverrideKind::Open => {
                (true, Reason::Opened(Arc::from(o.reason.as_str())))
            }
            (_, Some((true, name))) => (true, Reason::MakeUp(Arc::clone(name))),
            (_, Some((false, name))) => (false, Reason::Holiday(Arc::clone(name))),
            (_, None) => match statutory::holiday(date).filter(|_| needs_year.is_some()) {
                Some(name) => (false, Reason::Statutory(name)),
                None if has_sessions => (true, Reason::Weekday),
                None => (false, Reason::Weekend),
            },
        };
        let status = match needs_year {
            Some(year) => DayStatus::Unknown { year },
            None if working => DayStatus::Working,
            None => DayStatus::Off,
        };
        Day { date, status, working, needs_year, reason }
    }

    /// What is known of a day.
    #[must_use]
    pub fn day_status(&self, date: NaiveDate) -> DayStatus {
        self.day(date).status
    }

    fn flags_of(&self, date: NaiveDate) -> u8 {
        let day = self.day(date);
        u8::from(day.working) * WORKING + u8::from(day.needs_year.is_some()) * FORECAST
    }

    fn flags(&self, date: NaiveDate) -> u8 {
        let index = date.signed_duration_since(TABLE_FROM).num_days();
        usize::try_from(index)
            .ok()
            .and_then(|index| self.table.get(index).copied())
            .unwrap_or_else(|| self.flags_of(date))
    }

    fn is_working(&self, date: NaiveDate) -> bool {
        self.flags(date) & WORKING != 0
    }

    fn is_forecast(&self, date: NaiveDate) -> bool {
        self.flags(date) & FORECAST != 0
    }

    fn week(&self, date: NaiveDate) -> &Week {
        static USUAL: std::sync::LazyLock<Week> = std::sync::LazyLock::new(Week::default);
        let since = self.weeks.partition_point(|(from, _)| *from <= date);
        since.checked_sub(1).map_or(&USUAL, |index| &self.weeks[index].1)
    }

    /// The sessions of a working day, closures of half a day left out of account: these decide
    /// when the day ends.
    fn sessions(&self, date: NaiveDate) -> &[Session] {
        let week = self.week(date);
        let own = week.of(date.weekday());
        // RD2.1: make-up days have the same sessions as the days that they make up for.
        if own.is_empty() { week.of(Weekday::Mon) } else { own }
    }

    /// The sessions in which somebody is there.
    fn attended(&self, date: NaiveDate) -> impl Iterator<Item = &Session> {
        let closed = self.overrides.get(&date).map(|o| o.kind);
        self.sessions(date).iter().filter(move |session| match closed {
            Some(OverrideKind::MorningClosed) => !session.is_morning(),
            Some(OverrideKind::AfternoonClosed) => session.is_morning(),
            _ => true,
        })
    }

    /// Whether somebody is there: within a session of a working day. The closing instant is out.
    #[must_use]
    pub fn is_open(&self, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&china()).naive_local();
        self.is_working(local.date())
            && self.attended(local.date()).any(|session| session.contains(local.time()))
    }

    /// The hours that ended when the session of this instant began: from the end of the one before to
    /// its start. `None` where nobody is there at this instant, or nobody was for long before.
    #[must_use]
    pub fn closed_before(&self, at: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        if !self.is_open(at) {
            return None;
        }
        let local = at.with_timezone(&china()).naive_local();
        let opened =
            self.attended(local.date()).find(|session| session.contains(local.time()))?.start();
        let days = std::iter::successors(Some(local.date()), NaiveDate::pred_opt);
        let closed = days
            .take(LOOK_AHEAD_DAYS as usize)
            .filter(|day| self.is_working(*day))
            .find_map(|day| {
                let before = self
                    .attended(day)
                    .filter(|session| day < local.date() || session.end() <= opened);
                Some((day, before.map(Session::end).max()?))
            });
        let (day, end) = closed?;
        Some((instant(day, end), instant(local.date(), opened)))
    }

    /// A7.1: the instant itself within a session, else the start of the next one.
    #[must_use]
    pub fn next_open(&self, at: DateTime<Utc>) -> Dated<DateTime<Utc>> {
        let local = at.with_timezone(&china()).naive_local();
        let mut basis = Basis::default();
        for date in local.date().iter_days().take(LOOK_AHEAD_DAYS as usize) {
            basis.saw(self, date);
            if !self.is_working(date) {
                continue;
            }
            for session in self.attended(date) {
                if date > local.date() || local.time() < session.start() {
                    return basis.dated(instant(date, session.start()));
                }
                if session.contains(local.time()) {
                    return basis.dated(at);
                }
            }
        }
        // Closed for years: no opening is known.
        Dated { value: at, provisional: true, needs_year: None }
    }

    /// The start of the next session, whether one is going on or not.
    #[must_use]
    pub fn next_session(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let local = at.with_timezone(&china()).naive_local();
        let days = local.date().iter_days().take(LOOK_AHEAD_DAYS as usize);
        let mut starts = days.filter(|date| self.is_working(*date)).flat_map(|date| {
            self.attended(date).map(move |session| date.and_time(session.start()))
        });
        let next = starts.find(|start| *start > local);
        next.map_or(at, |start| instant(start.date(), start.time()))
    }

    /// A7.2: the office day on which the matter counts as received: today until the last session
    /// closes, else the next working day.
    #[must_use]
    pub fn received_day(&self, at: DateTime<Utc>) -> Dated<NaiveDate> {
        let local = at.with_timezone(&china()).naive_local();
        let mut basis = Basis::default();
        let today = local.date();
        let ends = self.sessions(today).last().map(Session::end);
        let still_open = ends.is_some_and(|end| local.time() < end);
        let first = if still_open { Some(today) } else { today.checked_add_days(Days::new(1)) };
        if !still_open {
            basis.saw(self, today);
        }
        for date in first.unwrap_or(today).iter_days().take(LOOK_AHEAD_DAYS as usize) {
            basis.saw(self, date);
            if self.is_working(date) {
                return basis.dated(date);
            }
        }
        Dated { value: today, provisional: true, needs_year: None }
    }

    /// R6 [policy]: the instant of receipt within a session, else the next opening.
    #[must_use]
    pub fn accepted_at(&self, at: DateTime<Utc>) -> Dated<DateTime<Utc>> {
        self.next_open(at)
    }

    /// A7.3, R5.2: when work starts on what came in out of hours; `None` within a session.
    #[must_use]
    pub fn follow_up_at(&self, at: DateTime<Utc>) -> Option<Dated<DateTime<Utc>>> {
        (!self.is_open(at)).then(|| self.next_open(at))
    }

    /// When somebody is there, as a sentence for citizens; the sessions of the week of `date`.
    #[must_use]
    pub fn hours_said(&self, date: NaiveDate) -> String {
        const DAYS: [(Weekday, &str); 5] = [
            (Weekday::Mon, "周一"),
            (Weekday::Tue, "周二"),
            (Weekday::Wed, "周三"),
            (Weekday::Thu, "周四"),
            (Weekday::Fri, "周五"),
        ];
        let week = self.week(date);
        // Days in a row with the same sessions are said together.
        let runs = DAYS.chunk_by(|(one, _), (next, _)| week.of(*one) == week.of(*next));
        let said: Vec<String> = runs
            .filter_map(|run| {
                let ((first, from), (_, to)) = (run.first()?, run.last()?);
                let sessions = week.of(*first);
                let said: Vec<String> = sessions
                    .iter()
                    .map(|s| format!("{}-{}", s.start().format("%-H:%M"), s.end().format("%-H:%M")))
                    .collect();
                let days = match run.len() {
                    1 => (*from).to_owned(),
                    5 => "工作日".to_owned(),
                    _ => format!("{from}至{to}"),
                };
                (!said.is_empty()).then(|| format!("{days} {}", said.join("、")))
            })
            .collect();
        format!("办公时间：{}。", said.join("，"))
    }

    /// The last day that is a fact.
    #[must_use]
    pub fn known_to(&self) -> NaiveDate {
        let last = self.years.last().copied().unwrap_or(1999);
        NaiveDate::from_ymd_opt(last, 12, 24).unwrap_or(TABLE_FROM)
    }

    /// For how many days from today holidays are known; negative when they are not.
    #[must_use]
    pub fn days_known_ahead(&self, today: NaiveDate) -> i64 {
        self.known_to().signed_duration_since(today).num_days()
    }

    /// A4: how loudly to ask for next year's notice; `None` before October or once it is loaded.
    #[must_use]
    pub fn missing_notice_alert(&self, today: NaiveDate) -> Option<Alert> {
        if !self.years.contains(&today.year()) {
            return Some(Alert::Page);
        }
        if self.years.contains(&(today.year() + 1)) {
            return None;
        }
        match (today.month(), today.day()) {
            (12, 15..) => Some(Alert::Page),
            (12, _) => Some(Alert::Warning),
            (10 | 11, _) => Some(Alert::Info),
            _ => None,
        }
    }
}

/// Whether what was looked at on the way to a date is all fact.
#[derive(Debug, Default)]
struct Basis {
    needs_year: Option<i32>,
}

impl Basis {
    fn saw(&mut self, calendar: &WorkingCalendar, date: NaiveDate) {
        if self.needs_year.is_none() && calendar.is_forecast(date) {
            self.needs_year = calendar.missing_notice(date);
        }
    }

    fn dated<T>(&self, value: T) -> Dated<T> {
        Dated { value, provisional: self.needs_year.is_some(), needs_year: self.needs_year }
    }
}

/// A local time of China as an instant: the offset is fixed, so every one exists once.
fn instant(date: NaiveDate, time: chrono::NaiveTime) -> DateTime<Utc> {
    let local = date.and_time(time);
    local.and_local_timezone(china()).single().map_or_else(|| local.and_utc(), |at| at.to_utc())
}

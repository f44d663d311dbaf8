use chrono::{NaiveTime, Weekday};
use serde::{Deserialize, Serialize};

/// A span of a day in which somebody is at the window: `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    start: NaiveTime,
    end: NaiveTime,
}

impl Session {
    /// When it opens.
    #[must_use]
    pub fn start(&self) -> NaiveTime {
        self.start
    }

    /// When it closes; that instant is out.
    #[must_use]
    pub fn end(&self) -> NaiveTime {
        self.end
    }

    pub(super) fn contains(&self, time: NaiveTime) -> bool {
        self.start <= time && time < self.end
    }

    pub(super) fn is_morning(&self) -> bool {
        self.end <= NaiveTime::from_hms_opt(12, 30, 0).unwrap_or_default()
    }
}

/// The sessions of each weekday. As JSON: `{"mon": ["08:30-11:30", "13:00-16:30"], …}`; a day
/// that is missing has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Week([Vec<Session>; 7]);

/// The sessions are not well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WeekError(String);

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Written {
    mon: Vec<String>,
    tue: Vec<String>,
    wed: Vec<String>,
    thu: Vec<String>,
    fri: Vec<String>,
    sat: Vec<String>,
    sun: Vec<String>,
}

impl Default for Week {
    /// RD2.1: Monday to Friday 08:30–11:30 and 13:00–16:30.
    fn default() -> Self {
        let time = |h, m| NaiveTime::from_hms_opt(h, m, 0).unwrap_or_default();
        let day = vec![
            Session { start: time(8, 30), end: time(11, 30) },
            Session { start: time(13, 0), end: time(16, 30) },
        ];
        let day = || day.clone();
        Self([day(), day(), day(), day(), day(), Vec::new(), Vec::new()])
    }
}

impl Week {
    /// The sessions of a weekday, in order.
    #[must_use]
    pub fn of(&self, weekday: Weekday) -> &[Session] {
        &self.0[weekday.num_days_from_monday() as usize]
    }
}

impl TryFrom<Written> for Week {
    type Error = WeekError;

    fn try_from(written: Written) -> Result<Self, WeekError> {
        let Written { mon, tue, wed, thu, fri, sat, sun } = written;
        let mut week: [Vec<Session>; 7] = Default::default();
        for (day, texts) in week.iter_mut().zip([mon, tue, wed, thu, fri, sat, sun]) {
            for text in texts {
                let wrong = || WeekError(format!("{text}: a session is written as 08:30-11:30"));
                let (start, end) = text.split_once('-').ok_or_else(wrong)?;
                let time = |t: &str| NaiveTime::parse_from_str(t.trim(), "%H:%M");
                let (Ok(start), Ok(end)) = (time(start), time(end)) else { return Err(wrong()) };
                let after = day.last().is_none_or(|before: &Session| before.end <= start);
                if start >= end || !after {
                    return Err(WeekError(format!("{text}: sessions must follow one another")));
                }
                day.push(Session { start, end });
            }
        }
        if week[0].is_empty() {
            return Err(WeekError("mon: Monday needs sessions; make-up days have the same".into()));
        }
        Ok(Self(week))
    }
}

impl From<Week> for Written {
    fn from(week: Week) -> Self {
        let [mon, tue, wed, thu, fri, sat, sun] = week.0.map(|day| {
            day.iter()
                .map(|s| format!("{}-{}", s.start.format("%H:%M"), s.end.format("%H:%M")))
                .collect()
        });
        Self { mon, tue, wed, thu, fri, sat, sun }
    }
}

/// What an office decides about one day (RD2.1, scheduling.md A7.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideKind {
    /// The whole day: not a working day.
    Closed,
    /// Open although it would be off.
    Open,
    /// Still a day that counts; nobody is there before noon.
    MorningClosed,
    /// Still a day that counts; nobody is there after noon.
    AfternoonClosed,
}

impl OverrideKind {
    /// The database's form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "closed" => Some(Self::Closed),
            "open" => Some(Self::Open),
            "morning_closed" => Some(Self::MorningClosed),
            "afternoon_closed" => Some(Self::AfternoonClosed),
            _ => None,
        }
    }
}

/// A decision, with its reason as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// What.
    pub kind: OverrideKind,
    /// Why.
    pub reason: String,
}

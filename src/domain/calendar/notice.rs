use chrono::{Datelike, NaiveDate, Weekday};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// What the State Council announced for a year: days off, and days that make up for them. May
/// hold days of the December before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    year: i32,
    papers: Vec<String>,
    days: Vec<(NaiveDate, bool, Arc<str>)>,
}

/// What is wrong with a notice, in a sentence that names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoticeError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    year: i32,
    notice: Vec<Paper>,
    holiday: Vec<Holiday>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paper {
    title: String,
    #[serde(default)]
    number: String,
    #[serde(default)]
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Holiday {
    name: String,
    /// Days or spans: `2026-01-01`, `2026-02-15..2026-02-23`.
    off: Vec<String>,
    #[serde(default)]
    work: Vec<String>,
}

/// No year had fewer or more weekdays made off, make-up days taken away, than these (2020–2026:
/// 11 to 14); outside them the table is more likely wrong than the State Council.
const WEEKDAYS_OFF: std::ops::RangeInclusive<i64> = 5..=25;

impl Notice {
    /// Reads a notice in the form of `config/calendar/*.toml` and checks that it is plausible
    /// (scheduling.md A4, "Loading").
    ///
    /// # Errors
    /// A sentence that names the key or the date.
    pub fn parse(text: &str) -> Result<Self, NoticeError> {
        let written: Written =
            toml::from_str(text).map_err(|error| NoticeError(error.message().to_owned()))?;
        let Written { year, notice, holiday } = written;
        let wrong = |text: String| Err(NoticeError(text));
        if notice.is_empty() {
            return wrong("notice: the paper that the days rest on is missing".to_owned());
        }
        for paper in &notice {
            if paper.title.is_empty() || (paper.number.is_empty() && paper.url.is_empty()) {
                return wrong("notice: a title and a number or url are needed".to_owned());
            }
        }
        let mut days: BTreeMap<NaiveDate, (bool, Arc<str>)> = BTreeMap::new();
        for Holiday { name, off, work } in holiday {
            let name: Arc<str> = Arc::from(name);
            let off = off.iter().map(|text| span(text).map(|days| (days, false)));
            let work = work.iter().map(|text| span(text).map(|days| (days, true)));
            for spanned in off.chain(work) {
                let (dates, working) = spanned?;
                for date in dates {
                    if days.insert(date, (working, Arc::clone(&name))).is_some() {
                        return wrong(format!("{date} is listed twice"));
                    }
                }
            }
        }
        for (date, (working, _)) in &days {
            let of_year = date.year() == year
                || (date.year() == year - 1 && date.month() == 12 && date.day() >= 20);
            if !of_year {
                return wrong(format!("{date} is no day of {year} nor of the last days before it"));
            }
            if *working && !is_weekend(*date) {
                return wrong(format!("{date} is to be worked and is no Saturday or Sunday"));
            }
        }
        let off =
            days.iter().filter(|(date, (working, _))| !working && !is_weekend(**date)).count();
        let made_up = days.values().filter(|(working, _)| *working).count();
        let balance = off as i64 - made_up as i64;
        if !WEEKDAYS_OFF.contains(&balance) {
            return wrong(format!(
                "{off} weekdays off against {made_up} make-up days is not plausible for a year; check that no holiday is missing"
            ));
        }
        Ok(Self {
            year,
            papers: notice.into_iter().map(|paper| paper.title).collect(),
            days: days.into_iter().map(|(date, (working, name))| (date, working, name)).collect(),
        })
    }

    /// The notices that the program carries.
    #[must_use]
    pub fn carried() -> Vec<Self> {
        embedded()
    }

    /// Whether this one may take the place of `active`: an amended notice changes days, it does
    /// not lose them (feeds have been seen to go empty: A3).
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn replaces(&self, active: &Self) -> Result<(), NoticeError> {
        if self.year != active.year {
            return Err(NoticeError(format!(
                "this is the notice of {}, not of {}",
                self.year, active.year
            )));
        }
        if self.days.len() < active.days.len() {
            return Err(NoticeError(format!(
                "this notice lists {} days and the one in force {}; a smaller one is not taken",
                self.days.len(),
                active.days.len()
            )));
        }
        Ok(())
    }

    /// Whose year.
    #[must_use]
    pub fn year(&self) -> i32 {
        self.year
    }

    /// The papers' titles.
    #[must_use]
    pub fn papers(&self) -> &[String] {
        &self.papers
    }

    /// Its days: date, whether worked, and the holiday's name.
    #[must_use]
    pub fn days(&self) -> &[(NaiveDate, bool, Arc<str>)] {
        &self.days
    }
}

fn is_weekend(date: NaiveDate) -> bool {
    matches!(date.weekday(), Weekday::Sat | Weekday::Sun)
}

fn span(text: &str) -> Result<Vec<NaiveDate>, NoticeError> {
    let wrong = || {
        NoticeError(format!(
            "{text}: a day is written as 2026-01-01, a span as 2026-01-01..2026-01-03"
        ))
    };
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (Ok(from), Ok(to)) = (from.trim().parse::<NaiveDate>(), to.trim().parse::<NaiveDate>())
    else {
        return Err(wrong());
    };
    let days = to.signed_duration_since(from).num_days();
    if !(0..=31).contains(&days) {
        return Err(wrong());
    }
    Ok(from.iter_days().take_while(|date| *date <= to).collect())
}

/// The notices that the program carries. A test reads every one of them.
pub(super) fn embedded() -> Vec<Notice> {
    const TEXTS: [&str; 7] = [
        include_str!("../../../config/calendar/2020.toml"),
        include_str!("../../../config/calendar/2021.toml"),
        include_str!("../../../config/calendar/2022.toml"),
        include_str!("../../../config/calendar/2023.toml"),
        include_str!("../../../config/calendar/2024.toml"),
        include_str!("../../../config/calendar/2025.toml"),
        include_str!("../../../config/calendar/2026.toml"),
    ];
    TEXTS.iter().filter_map(|text| Notice::parse(text).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../config/calendar/2026.toml");

    #[test]
    fn every_notice_that_the_program_carries_can_be_read() {
        let years: Vec<i32> = embedded().iter().map(Notice::year).collect();
        assert_eq!(years, [2020, 2021, 2022, 2023, 2024, 2025, 2026]);
    }

    #[test]
    fn an_implausible_notice_is_refused_with_the_place() {
        for (broken, says) in [
            (GOOD.replace("[[notice]]", "[[paper]]"), "paper"),
            (GOOD.replace("url", "number_of_pages"), "number_of_pages"),
            (GOOD.replace("\"2026-01-04\"", "\"2026-01-05\""), "2026-01-05"),
            (GOOD.replace("\"2026-01-04\"", "\"2026-01-02\""), "2026-01-02"),
            (GOOD.replace("2026-01-01..2026-01-03", "2027-01-01..2027-01-03"), "2027-01-01"),
            (GOOD.replace("..2026-02-23", "..2026-12-23"), "2026-12-23"),
            (
                "year = 2027\nnotice = [{ title = 'x', url = 'y' }]\nholiday = []".to_owned(),
                "plausible",
            ),
        ] {
            let error = Notice::parse(&broken).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_smaller_table_does_not_replace_a_larger_one() {
        let whole = Notice::parse(GOOD).unwrap();
        let smaller = Notice::parse(&GOOD.replace("work = [\"2026-01-04\"]\n", "")).unwrap();
        assert!(smaller.replaces(&whole).is_err());
        assert!(whole.replaces(&smaller).is_ok());
    }
}

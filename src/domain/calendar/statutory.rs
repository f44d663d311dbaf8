//! Holidays whose dates the law fixes (全国年节及纪念日放假办法, as revised in November 2024: 13 days).
//! Only for forecasts of years without a notice; how days are moved around them is not foreseeable.

use chrono::{Datelike, NaiveDate};

/// First days of the lunar year, and the days of Qingming, Dragon Boat and Mid-Autumn, by the
/// astronomical calendar (GB/T 33661).
const LUNAR: [(i32, [(u32, u32); 4]); 4] = [
    (2027, [(2, 6), (4, 5), (6, 9), (9, 15)]),
    (2028, [(1, 26), (4, 4), (5, 28), (10, 3)]),
    (2029, [(2, 13), (4, 4), (6, 16), (9, 22)]),
    (2030, [(2, 3), (4, 5), (6, 5), (9, 12)]),
];

/// The statutory holiday of a day, as far as its date is known here.
pub(super) fn holiday(date: NaiveDate) -> Option<&'static str> {
    match (date.month(), date.day()) {
        (1, 1) => return Some("元旦"),
        (5, 1 | 2) => return Some("劳动节"),
        (10, 1..=3) => return Some("国庆节"),
        _ => {}
    }
    let (year, [spring, qingming, dragon_boat, mid_autumn]) =
        LUNAR.into_iter().find(|(year, _)| *year == date.year())?;
    let first = NaiveDate::from_ymd_opt(year, spring.0, spring.1)?;
    // New Year's Eve and the first three days of the year.
    if (-1..=2).contains(&date.signed_duration_since(first).num_days()) {
        return Some("春节");
    }
    match (date.month(), date.day()) {
        day if day == qingming => Some("清明节"),
        day if day == dragon_boat => Some("端午节"),
        day if day == mid_autumn => Some("中秋节"),
        _ => None,
    }
}

//! Times as people say them, in the office's zone.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc, Weekday};
use intake_contract::china;

/// 周一 to 周日.
#[must_use]
pub fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Mon => "周一",
        Weekday::Tue => "周二",
        Weekday::Wed => "周三",
        Weekday::Thu => "周四",
        Weekday::Fri => "周五",
        Weekday::Sat => "周六",
        Weekday::Sun => "周日",
    }
}

/// The day of an instant, in the office's zone.
#[must_use]
pub fn day_of(at: DateTime<Utc>) -> NaiveDate {
    at.with_timezone(&china()).date_naive()
}

/// `16:30`.
#[must_use]
pub fn clock(at: DateTime<Utc>) -> String {
    let local = at.with_timezone(&china());
    format!("{:02}:{:02}", local.hour(), local.minute())
}

/// `11月25日 周三`, with the year when it is another one.
#[must_use]
pub fn day(date: NaiveDate, now: DateTime<Utc>) -> String {
    let year = if date.year() == day_of(now).year() {
        String::new()
    } else {
        format!("{}年", date.year())
    };
    format!("{year}{}月{}日 {}", date.month(), date.day(), weekday(date.weekday()))
}

/// `11月30日（周一）`, within a sentence for a citizen.
#[must_use]
pub fn day_in_sentence(date: NaiveDate, now: DateTime<Utc>) -> String {
    let day = day(date, now);
    match day.split_once(' ') {
        Some((date, weekday)) => format!("{date}（{weekday}）"),
        None => day,
    }
}

/// `11月30日（周一）8:30`: how pages and replies tell citizens a moment.
#[must_use]
pub fn said(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let clock = clock(at);
    let clock = clock.strip_prefix('0').unwrap_or(&clock);
    format!("{}{clock}", day_in_sentence(day_of(at), now))
}

/// `今天 16:30`, `明天 08:30`, `周五 22:14` within the week around now, else the date.
#[must_use]
pub fn moment(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let (date, today) = (day_of(at), day_of(now));
    let time = clock(at);
    match date.signed_duration_since(today).num_days() {
        0 => format!("今天 {time}"),
        1 => format!("明天 {time}"),
        -1 => format!("昨天 {time}"),
        -6..=-2 | 2..=6 if same_week(date, today) => {
            format!("{} {time}", weekday(date.weekday()))
        }
        _ => format!("{} {time}", day(date, now)),
    }
}

fn same_week(a: NaiveDate, b: NaiveDate) -> bool {
    a.iso_week() == b.iso_week()
}

/// `2026-11-25 16:30:00`, for hovering and for machines that read over a shoulder.
#[must_use]
pub fn exact(at: DateTime<Utc>) -> String {
    at.with_timezone(&china()).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A span as people say it, downwards: `3 小时`, `25 分钟`, `2 天`.
#[must_use]
pub fn span(span: TimeDelta) -> String {
    let minutes = span.num_minutes();
    match minutes {
        ..1 => "不到 1 分钟".to_owned(),
        1..60 => format!("{minutes} 分钟"),
        60..1440 => format!("{} 小时", minutes / 60),
        _ => format!("{} 天", minutes / 1440),
    }
}

/// How far a limit is: `还剩 3 小时`, `今天 16:30 前`, `已逾期 1 天`.
#[must_use]
pub fn until(due_at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let left = due_at - now;
    if left <= TimeDelta::zero() {
        return format!("已逾期 {}", span(-left));
    }
    if left < TimeDelta::hours(4) {
        return format!("还剩 {}", span(left));
    }
    format!("{} 前", moment(due_at, now))
}

/// 张三 → 张*; a person's name where only a hint is needed (P05).
#[must_use]
pub fn masked_name(name: &str) -> String {
    let mut chars = name.chars();
    match chars.next() {
        Some(first) => {
            let rest = chars.count().clamp(1, 2);
            format!("{first}{}", "*".repeat(rest))
        }
        None => String::new(),
    }
}

/// 13800008000 → 138****8000, 6234567 → 6****67: at least four digits are hidden, however short the
/// number (P05).
#[must_use]
pub fn masked_phone(phone: &str) -> String {
    const HIDDEN: usize = 4;
    const SHOWN: usize = 7;
    let digits = phone.chars().filter(char::is_ascii_digit).count();
    if digits < SHOWN {
        return "*".repeat(phone.chars().count());
    }
    let shown = (digits - HIDDEN).min(SHOWN);
    let hidden = shown / 2..digits - (shown - shown / 2);
    let mut place = 0;
    phone
        .chars()
        .map(|c| {
            if !c.is_ascii_digit() {
                return c;
            }
            place += 1;
            if hidden.contains(&(place - 1)) { '*' } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let now = at("2026-11-23T09:00:00+08:00"); // a Monday
        assert_eq!(moment(at("2026-11-23T16:30:00+08:00"), now), "今天 16:30");
        assert_eq!(moment(at("2026-11-22T22:14:00+08:00"), now), "昨天 22:14");
        assert_eq!(moment(at("2026-11-27T16:30:00+08:00"), now), "周五 16:30");
        assert_eq!(moment(at("2026-11-20T22:14:00+08:00"), now), "11月20日 周五 22:14");
        assert_eq!(moment(at("2027-01-04T08:30:00+08:00"), now), "2027年1月4日 周一 08:30");
        assert_eq!(until(at("2026-11-23T12:00:00+08:00"), now), "还剩 3 小时");
        assert_eq!(until(at("2026-11-22T09:00:00+08:00"), now), "已逾期 1 天");
    }

    #[test]
    fn p05_lists_show_hints_of_persons_only() {
        assert_eq!(masked_name("张三"), "张*");
        assert_eq!(masked_name("欧阳修远"), "欧**");
        assert_eq!(masked_phone("13800008000"), "138****8000");
        assert_eq!(masked_phone("12333"), "*****");
        assert_eq!(masked_phone("6234567"), "6****67");
        assert_eq!(masked_phone("62345678"), "62****78");
        assert_eq!(masked_phone("623-4567"), "6**-**67");
        assert_eq!(masked_phone("0241234567"), "024****567");
        assert_eq!(masked_phone("024-23456789"), "024-****6789");
        assert_eq!(masked_phone("024-23456789转8001"), "024-********转8001");
    }
}

//! The calendar against dates that another program computed, and what must always hold (A7.9).

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, TimeDelta, Utc};
use intake_contract::china;
use intake_gateway::domain::{
    calendar::{
        Alert, Amendment, DayStatus, Notice, Override, OverrideKind, Pause, Week, WorkingCalendar,
        amend,
    },
    level::Level,
    policy::LimitsRunFrom,
    promise::{limit, promise},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../fixtures/calendar/deadline_vectors.json")).unwrap()
}

fn instant(value: &Value) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap().to_utc()
}

fn day(value: &Value) -> NaiveDate {
    value.as_str().unwrap().parse().unwrap()
}

fn local(at: DateTime<Utc>) -> DateTime<FixedOffset> {
    at.with_timezone(&china())
}

fn closed(reason: &str) -> Override {
    Override { kind: OverrideKind::Closed, reason: reason.to_owned() }
}

#[test]
fn r6_every_deadline_vector_holds() {
    let calendar = WorkingCalendar::national().build();
    let vectors = vectors();
    let list = vectors["vectors"].as_array().unwrap();
    assert!(list.len() >= 30, "{} vectors", list.len());
    for vector in list {
        let at = instant(&vector["intake"]);
        let note = &vector["note"];
        assert_eq!(calendar.is_open(at), vector["in_hours"].as_bool().unwrap(), "{at} {note}");
        assert_eq!(calendar.next_open(at).value, instant(&vector["next_open"]), "{at} {note}");
        assert_eq!(calendar.received_day(at).value, day(&vector["received_day"]), "{at} {note}");
        let follow_up = calendar.follow_up_at(at).map(|dated| dated.value);
        let wanted = (!vector["follow_up_at"].is_null()).then(|| instant(&vector["follow_up_at"]));
        assert_eq!(follow_up, wanted, "{at} {note}");
        for (n, key) in [(1, "deadline_1d"), (3, "deadline_3d"), (5, "deadline_5d")] {
            let deadline = calendar.deadline(at, n);
            assert_eq!(deadline.at, instant(&vector[key]), "{at} {note} {key}");
            let why = calendar.why(at, n);
            assert_eq!(why.due, deadline);
            assert_eq!(why.days.iter().filter_map(|day| day.counted).max(), Some(n), "{at} {key}");
        }
    }
}

#[test]
fn every_day_of_2020_to_2026_is_as_it_was_announced() {
    let calendar = WorkingCalendar::national().build();
    let table: Value =
        serde_json::from_str(include_str!("../fixtures/calendar/cn_calendar.json")).unwrap();
    let listed: std::collections::HashMap<NaiveDate, bool> = table["years"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|rows| rows.as_array().unwrap())
        .map(|row| (day(&row["date"]), row["off"].as_bool().unwrap()))
        .collect();
    let from: NaiveDate = day(&table["coverage"]["from"]);
    let to: NaiveDate = day(&table["coverage"]["complete_to"]);
    for date in from.iter_days().take_while(|date| *date <= to) {
        let weekend = date.weekday().number_from_monday() > 5;
        let off = listed.get(&date).copied().unwrap_or(weekend);
        let wanted = if off { DayStatus::Off } else { DayStatus::Working };
        assert_eq!(calendar.day_status(date), wanted, "{date}");
    }
    assert_eq!(calendar.known_to(), to);
}

#[test]
fn a4_a_year_without_a_notice_is_provisional_never_a_fact() {
    let calendar = WorkingCalendar::national().build();
    let intakes = vectors();
    let mut expected = 0;
    for vector in intakes["unpublished_year"].as_array().unwrap() {
        let at = instant(&vector["intake"]);
        for n in [1, 3, 5] {
            let deadline = calendar.deadline(at, n);
            assert!(deadline.provisional, "{vector} {n}");
            assert_eq!(deadline.needs_year, Some(2027), "{vector} {n}");
        }
        let expect = vector["expect"].as_str().unwrap();
        for (n, key) in [(1, "1d="), (3, "3d=")] {
            let Some((_, rest)) = expect.split_once(key) else { continue };
            let wanted = format!("{}:00+08:00", &rest[..16]);
            assert_eq!(calendar.deadline(at, n).at, instant(&Value::String(wanted)), "{vector}");
            expected += 1;
        }
        if expect.contains("received_day unknown (2027)") {
            let received = calendar.received_day(at);
            assert!(received.provisional && received.needs_year == Some(2027), "{vector}");
            expected += 1;
        }
    }
    assert_eq!(expected, 3, "every expectation was found in its words");
    let last_fact = calendar.deadline(instant(&serde_json::json!("2026-12-17T09:00:00+08:00")), 5);
    assert!(!last_fact.provisional);
    assert_eq!(
        calendar.day_status("2027-06-01".parse().unwrap()),
        DayStatus::Unknown { year: 2027 }
    );
    // The forecast knows the holidays whose dates the law fixes, and no others.
    let new_year = calendar.day("2027-01-01".parse().unwrap());
    assert!(!new_year.working && new_year.needs_year == Some(2027));
    assert!(calendar.day("2027-01-04".parse().unwrap()).working);
}

#[test]
fn a7_6_an_amended_notice_moves_dates_as_the_vectors_say() {
    let vectors = vectors();
    for vector in vectors["amendments"].as_array().unwrap() {
        let at = instant(&vector["intake"]);
        let (before, after) = match local(at).year() {
            2020 => {
                (with_notice(&year_2020_as_first_announced()), WorkingCalendar::national().build())
            }
            _ => (
                with_notice(&year_2019("off = ['2019-05-01']")),
                with_notice(&year_2019(
                    "off = ['2019-05-01..2019-05-04']\nwork = ['2019-04-28', '2019-05-05']",
                )),
            ),
        };
        for (calendar, key) in [(&before, "before"), (&after, "after")] {
            let wanted = &vector[key];
            assert_eq!(calendar.received_day(at).value, day(&wanted["received_day"]), "{vector}");
            for (n, field) in [(1, "deadline_1d"), (3, "deadline_3d"), (5, "deadline_5d")] {
                let deadline = calendar.deadline(at, n);
                assert_eq!(deadline.at, instant(&wanted[field]), "{key} {field} {vector}");
                assert!(!deadline.provisional, "{key} {field} {vector}");
            }
        }
    }
    let noon = |text: &str| instant(&Value::String(format!("{text}T12:00:00+08:00")));
    let next_day = noon("2026-03-05");
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-10"), next_day), Amendment::Unchanged);
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-11"), next_day), Amendment::Apply);
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-05"), next_day), Amendment::Apply);
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-04"), next_day), Amendment::Keep);
}

fn with_notice(text: &str) -> WorkingCalendar {
    WorkingCalendar::national().notice(Notice::parse(text).unwrap()).build()
}

/// As announced in November 2019, before the Spring Festival was extended.
fn year_2020_as_first_announced() -> String {
    let carried = include_str!("../../config/calendar/2020.toml");
    let first = carried
        .replace("2020-01-24..2020-02-02", "2020-01-24..2020-01-30")
        .replace("\"2020-01-19\"", "\"2020-01-19\", \"2020-02-01\"");
    assert_ne!(first, carried);
    first
}

/// With Labour Day as given.
fn year_2019(labour_day: &str) -> String {
    format!(
        "year = 2019\n[[notice]]\ntitle = '2019'\nurl = 'https://www.gov.cn'\n\
         [[holiday]]\nname = '元旦'\noff = ['2018-12-30..2019-01-01']\nwork = ['2018-12-29']\n\
         [[holiday]]\nname = '春节'\noff = ['2019-02-04..2019-02-10']\nwork = ['2019-02-02', '2019-02-03']\n\
         [[holiday]]\nname = '清明节'\noff = ['2019-04-05..2019-04-07']\n\
         [[holiday]]\nname = '劳动节'\n{labour_day}\n\
         [[holiday]]\nname = '端午节'\noff = ['2019-06-07..2019-06-09']\n\
         [[holiday]]\nname = '中秋节'\noff = ['2019-09-13..2019-09-15']\n\
         [[holiday]]\nname = '国庆节'\noff = ['2019-10-01..2019-10-07']\nwork = ['2019-09-29', '2019-10-12']\n"
    )
}

#[test]
fn a4_half_a_day_closed_in_an_unannounced_year_makes_no_fact_of_the_day() {
    let date: NaiveDate = "2027-01-05".parse().unwrap();
    let decided = |kind| {
        let decision = Override { kind, reason: "停电".to_owned() };
        WorkingCalendar::national().decide(date, decision).build()
    };
    for kind in [OverrideKind::MorningClosed, OverrideKind::AfternoonClosed] {
        let calendar = decided(kind);
        assert_eq!(calendar.day_status(date), DayStatus::Unknown { year: 2027 });
        let at = instant(&serde_json::json!("2027-01-04T09:00:00+08:00"));
        let deadline = calendar.deadline(at, 1);
        assert!(deadline.provisional && deadline.in_half_closure);
    }
    // Whether it is worked at all is the office's to say, and is then a fact.
    assert_eq!(decided(OverrideKind::Closed).day_status(date), DayStatus::Off);
    assert_eq!(decided(OverrideKind::Open).day_status(date), DayStatus::Working);
}

#[test]
fn a4_the_missing_notice_is_asked_for_louder_as_the_year_ends() {
    let calendar = WorkingCalendar::national().build();
    for (day, alert) in [
        ("2026-09-30", None),
        ("2026-10-01", Some(Alert::Info)),
        ("2026-12-01", Some(Alert::Warning)),
        ("2026-12-15", Some(Alert::Page)),
        ("2027-03-01", Some(Alert::Page)),
        ("2025-12-31", None),
    ] {
        assert_eq!(calendar.missing_notice_alert(day.parse().unwrap()), alert, "{day}");
    }
}

#[test]
fn a7_7_what_comes_in_while_the_afternoon_is_closed_is_not_due_tomorrow() {
    let half = Override { kind: OverrideKind::AfternoonClosed, reason: "停电".to_owned() };
    let calendar = WorkingCalendar::national().decide("2026-11-24".parse().unwrap(), half).build();
    let at = instant(&serde_json::json!("2026-11-24T14:00:00+08:00"));
    let promised = promise(&calendar, at, at);
    assert_eq!(local(promised.accepted_at).to_rfc3339(), "2026-11-25T08:30:00+08:00");
    assert_eq!(local(promised.due_at).to_rfc3339(), "2026-11-26T16:30:00+08:00");
}

#[test]
fn rd2_1_a_day_that_the_office_closes_does_not_count() {
    let vectors = vectors();
    for vector in vectors["closures"].as_array().unwrap() {
        let mut builder = WorkingCalendar::national();
        for date in vector["closed"].as_array().unwrap() {
            builder = builder.decide(day(date), closed("台风"));
        }
        let calendar = builder.build();
        let at = instant(&vector["intake"]);
        assert_eq!(calendar.received_day(at).value, day(&vector["received_day"]), "{vector}");
        for (n, key) in [(1, "deadline_1d"), (3, "deadline_3d"), (5, "deadline_5d")] {
            assert_eq!(calendar.deadline(at, n).at, instant(&vector[key]), "{vector} {key}");
        }
    }
}

#[test]
fn a7_7_half_a_day_closed_counts_and_is_flagged() {
    let date: NaiveDate = "2024-03-13".parse().unwrap();
    let half = Override { kind: OverrideKind::AfternoonClosed, reason: "停电".to_owned() };
    let calendar = WorkingCalendar::national().decide(date, half).build();
    let at = instant(&serde_json::json!("2024-03-12T09:00:00+08:00"));
    let deadline = calendar.deadline(at, 1);
    assert_eq!(deadline.at, instant(&serde_json::json!("2024-03-13T16:30:00+08:00")));
    assert!(deadline.in_half_closure);
    let afternoon = instant(&serde_json::json!("2024-03-13T14:00:00+08:00"));
    assert!(!calendar.is_open(afternoon));
    assert_eq!(
        calendar.next_open(afternoon).value,
        instant(&serde_json::json!("2024-03-14T08:30:00+08:00"))
    );
}

#[test]
fn a7_8_a_pause_gives_back_whole_days() {
    let calendar = WorkingCalendar::national().build();
    let vectors = vectors();
    for vector in vectors["pauses"]["vectors"].as_array().unwrap() {
        let pause = Pause {
            paused_at: instant(&vector["paused_at"]),
            resumed_at: instant(&vector["resumed_at"]),
        };
        let n = u8::try_from(vector["days"].as_u64().unwrap()).unwrap();
        let intake = instant(&vector["intake"]);
        let received = calendar.received_day(intake).value;
        assert_eq!(received, day(&vector["received_day"]), "{vector}");
        let paused_on = local(pause.paused_at).date_naive();
        let used = calendar.working_days_between(received, paused_on);
        assert_eq!(u64::from(used), vector["used_days"].as_u64().unwrap(), "{vector}");
        let remaining = u64::from(n).saturating_sub(u64::from(used)).max(1);
        assert_eq!(remaining, vector["remaining_days"].as_u64().unwrap(), "{vector}");
        let resumed = calendar.received_day(pause.resumed_at).value;
        assert_eq!(resumed, day(&vector["resume_day"]), "{vector}");
        let deadline = calendar.paused_deadline(intake, n, &[pause]);
        assert_eq!(deadline.at, instant(&vector["deadline"]), "{vector}");
    }
}

#[test]
fn hours_are_said_as_they_are_on_each_working_day() {
    let said = |week: Value| {
        let from: NaiveDate = "2026-06-01".parse().unwrap();
        let week: Week = serde_json::from_value(week).unwrap();
        WorkingCalendar::national().sessions_from(from, week).build().hours_said(from)
    };
    let (whole, short) = (json!(["08:30-11:30", "13:00-16:30"]), json!(["09:00-12:00"]));
    let week =
        |fri: &Value| json!({ "mon": whole, "tue": whole, "wed": whole, "thu": whole, "fri": fri });
    let same = "办公时间：工作日 8:30-11:30、13:00-16:30。";
    assert_eq!(said(week(&whole)), same);
    let short_friday = "办公时间：周一至周四 8:30-11:30、13:00-16:30，周五 9:00-12:00。";
    assert_eq!(said(week(&short)), short_friday);
    let no_friday = "办公时间：周一至周四 8:30-11:30、13:00-16:30。";
    assert_eq!(said(week(&json!([]))), no_friday);
}

#[test]
fn rd2_1_sessions_change_from_a_day_on() {
    let summer = serde_json::json!({
        "mon": ["08:00-11:30", "13:30-17:00"], "tue": ["08:00-11:30", "13:30-17:00"],
        "wed": ["08:00-11:30", "13:30-17:00"], "thu": ["08:00-11:30", "13:30-17:00"],
        "fri": ["08:00-11:30", "13:30-17:00"],
    });
    let calendar = WorkingCalendar::national()
        .sessions_from("2026-06-01".parse().unwrap(), serde_json::from_value(summer).unwrap())
        .build();
    let friday = instant(&serde_json::json!("2026-05-29T09:00:00+08:00"));
    let due = |n| local(calendar.deadline(friday, n).at).to_rfc3339();
    assert_eq!(due(1), "2026-06-01T17:00:00+08:00");
    let opens = calendar.next_open(instant(&serde_json::json!("2026-05-29T18:00:00+08:00")));
    assert_eq!(local(opens.value).to_rfc3339(), "2026-06-01T08:00:00+08:00");
}

prop_compose! {
    /// A moment of 2020 to 2027, to the second.
    fn moment()(seconds in 1_577_836_800_i64..1_830_297_600) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }
}

fn day_of_2020_to_2027() -> impl Strategy<Value = NaiveDate> {
    let first: NaiveDate = "2020-01-01".parse().unwrap();
    (0_u64..2900).prop_map(move |offset| first + chrono::Days::new(offset))
}

/// What an office decided: closures and openings, by the whole and the half day, and other hours.
#[derive(Debug, Clone)]
struct Decided {
    days: Vec<(NaiveDate, OverrideKind)>,
    hours: Vec<(NaiveDate, &'static str)>,
}

fn decided() -> impl Strategy<Value = Decided> {
    let kind = prop::sample::select(vec![
        OverrideKind::Closed,
        OverrideKind::Closed,
        OverrideKind::Open,
        OverrideKind::MorningClosed,
        OverrideKind::AfternoonClosed,
    ]);
    let days = prop::collection::vec((day_of_2020_to_2027(), kind), 0..8);
    let week = prop::sample::select(vec![
        r#"["08:00-11:30", "13:30-17:00"]"#,
        r#"["09:00-12:00", "14:00-18:00"]"#,
        r#"["08:30-16:00"]"#,
    ]);
    let hours = prop::collection::vec((day_of_2020_to_2027(), week), 0..3);
    (days, hours).prop_map(|(mut days, mut hours)| {
        // Two decisions about one day would depend on their order, which is the next test's matter.
        days.sort_by_key(|(date, _)| *date);
        days.dedup_by_key(|(date, _)| *date);
        hours.sort_by_key(|(date, _)| *date);
        hours.dedup_by_key(|(date, _)| *date);
        Decided { days, hours }
    })
}

fn with(decided: &Decided) -> WorkingCalendar {
    let mut builder = WorkingCalendar::national();
    for (date, kind) in &decided.days {
        builder = builder.decide(*date, Override { kind: *kind, reason: "停办".to_owned() });
    }
    for (date, hours) in &decided.hours {
        let week = ["mon", "tue", "wed", "thu", "fri"].map(|day| format!("\"{day}\": {hours}"));
        let week: Week = serde_json::from_str(&format!("{{{}}}", week.join(","))).unwrap();
        builder = builder.sessions_from(*date, week);
    }
    builder.build()
}

/// When the working day that holds this instant as its end does end.
fn ends_its_day(calendar: &WorkingCalendar, at: DateTime<Utc>) -> bool {
    calendar.received_day(at - TimeDelta::seconds(1)).value == local(at).date_naive()
        && calendar.received_day(at).value > local(at).date_naive()
}

proptest! {
    #[test]
    fn a7_9_deadlines_grow_with_time_and_days(
        at in moment(), later in 0_i64..2_000_000, n in 1_u8..6, decided in decided()
    ) {
        let calendar = with(&decided);
        let after = at + TimeDelta::seconds(later);
        prop_assert!(calendar.deadline(at, n).at <= calendar.deadline(after, n).at);
        prop_assert!(calendar.deadline(at, n).at < calendar.deadline(at, n + 1).at);
        prop_assert!(calendar.next_open(at).value <= calendar.next_open(after).value);
    }

    #[test]
    fn a7_9_a_deadline_is_the_end_of_a_working_day_after_receipt(
        at in moment(), n in 1_u8..8, decided in decided()
    ) {
        let calendar = with(&decided);
        let deadline = calendar.deadline(at, n);
        let due = local(deadline.at);
        prop_assert!(calendar.day(due.date_naive()).working);
        prop_assert!(ends_its_day(&calendar, deadline.at));
        prop_assert!(due.date_naive() > deadline.received_day);
        prop_assert!(deadline.received_day >= local(at).date_naive());
        prop_assert!(calendar.day(deadline.received_day).working);
        prop_assert_eq!(
            calendar.working_days_between(deadline.received_day, due.date_naive()),
            u32::from(n) - 1
        );
    }

    #[test]
    fn a7_9_an_opening_is_open_and_nothing_before_it_is(at in moment(), decided in decided()) {
        let calendar = with(&decided);
        let opens = calendar.next_open(at).value;
        prop_assert!(calendar.is_open(opens));
        prop_assert!(opens >= at);
        if opens > at {
            prop_assert!(!calendar.is_open(at));
            prop_assert!(!calendar.is_open(opens - TimeDelta::seconds(1)));
        }
        prop_assert_eq!(calendar.next_open(opens).value, opens);
        prop_assert_eq!(calendar.follow_up_at(at).is_none(), opens == at);
    }

    #[test]
    fn a7_9_the_order_in_which_decisions_come_does_not_matter(
        at in moment(), mut decided in decided(), n in 1_u8..6
    ) {
        let forwards = with(&decided).deadline(at, n);
        decided.days.reverse();
        decided.hours.reverse();
        prop_assert_eq!(forwards, with(&decided).deadline(at, n));
    }

    #[test]
    fn r6_what_is_promised_is_level_1s_limit_and_lies_on_a_later_day_than_acceptance(
        at in moment(), decided in decided()
    ) {
        let calendar = with(&decided);
        let promised = promise(&calendar, at, at);
        for run_from in [LimitsRunFrom::Registration, LimitsRunFrom::HandUp] {
            let accepted = promised.accepted_at;
            let limit = limit(&calendar, run_from, Level::Duty, accepted, accepted);
            prop_assert_eq!(promised.due_at, limit.at);
        }
        prop_assert!(calendar.is_open(promised.accepted_at));
        prop_assert!(local(promised.due_at).date_naive() > local(promised.accepted_at).date_naive());
        // What the desk shows as the reason leads to the same date.
        prop_assert_eq!(calendar.why(promised.accepted_at, 1).due.at, promised.due_at);
    }

    #[test]
    fn a7_9_computing_again_changes_nothing(at in moment(), n in 1_u8..6, decided in decided()) {
        let calendar = with(&decided);
        let once = calendar.deadline(at, n);
        prop_assert_eq!(calendar.amendment(once.at, calendar.deadline(at, n).at, at), Amendment::Unchanged);
        prop_assert_eq!(once, calendar.deadline(at, n));
        // The day of receipt is all that the limit depends on.
        prop_assert_eq!(calendar.deadline_from_day(once.received_day, n).at, once.at);
        prop_assert_eq!(calendar.why(at, n).due, once);
    }

    #[test]
    fn a7_9_a_pause_never_shortens(at in moment(), wait in 0_i64..400_000, length in 0_i64..2_000_000, n in 1_u8..6) {
        let calendar = WorkingCalendar::national().build();
        let paused_at = at + TimeDelta::seconds(wait);
        let pause = Pause { paused_at, resumed_at: paused_at + TimeDelta::seconds(length) };
        prop_assert!(calendar.paused_deadline(at, n, &[]).at == calendar.deadline(at, n).at);
        if paused_at < calendar.deadline(at, n).at {
            prop_assert!(calendar.paused_deadline(at, n, &[pause]).at >= calendar.deadline(at, n).at);
        }
    }
}

#[test]
fn rd2_1_the_closed_hours_are_those_since_the_session_before() {
    let calendar =
        WorkingCalendar::national().decide("2026-11-26".parse().unwrap(), closed("搬家")).build();
    let at = |text: &str| crate::support::at(text);
    for (now, from, to) in [
        ("2026-11-24 08:30", "2026-11-23 16:30", "2026-11-24 08:30"),
        ("2026-11-24 11:29", "2026-11-23 16:30", "2026-11-24 08:30"),
        ("2026-11-24 13:00", "2026-11-24 11:30", "2026-11-24 13:00"),
        ("2026-11-23 09:00", "2026-11-20 16:30", "2026-11-23 08:30"),
        // Over a day on which the office was closed, and over the National Day's week.
        ("2026-11-27 10:00", "2026-11-25 16:30", "2026-11-27 08:30"),
        ("2026-10-08 10:00", "2026-09-30 16:30", "2026-10-08 08:30"),
    ] {
        assert_eq!(calendar.closed_before(at(now)), Some((at(from), at(to))), "{now}");
    }
    for closed in ["2026-11-24 08:29", "2026-11-24 12:00", "2026-11-24 16:30", "2026-11-28 10:00"] {
        assert_eq!(calendar.closed_before(at(closed)), None, "{closed}");
    }
}

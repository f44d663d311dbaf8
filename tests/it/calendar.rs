//! The calendar against dates that another program computed, and what must always hold (A7.9).

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, TimeDelta, Utc};
use intake_contract::china;
use intake_gateway::domain::calendar::{
    Amendment, DayStatus, Override, OverrideKind, Pause, WorkingCalendar, amend,
};
use proptest::prelude::*;
use serde_json::Value;

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
    for vector in intakes["unpublished_year"].as_array().unwrap() {
        let deadline = calendar.deadline(instant(&vector["intake"]), 5);
        assert!(deadline.provisional, "{vector}");
        assert_eq!(deadline.needs_year, Some(2027), "{vector}");
    }
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
        if local(at).year() != 2020 {
            continue; // of a year whose notice the program does not carry
        }
        let after = WorkingCalendar::national().build();
        assert_eq!(after.deadline(at, 1).at, instant(&vector["after"]["deadline_1d"]));
        assert_eq!(after.deadline(at, 5).at, instant(&vector["after"]["deadline_5d"]));
    }
    let noon = |text: &str| instant(&Value::String(format!("{text}T12:00:00+08:00")));
    let next_day = noon("2026-03-05");
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-10"), next_day), Amendment::Unchanged);
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-11"), next_day), Amendment::Apply);
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-05"), next_day), Amendment::Apply);
    assert_eq!(amend(noon("2026-03-10"), noon("2026-03-04"), next_day), Amendment::Keep);
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
        let deadline = calendar.paused_deadline(instant(&vector["intake"]), n, &[pause]);
        assert_eq!(deadline.at, instant(&vector["deadline"]), "{vector}");
    }
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

prop_compose! {
    fn closures()(days in proptest::collection::vec(0_u64..2900, 0..6)) -> Vec<NaiveDate> {
        let first: NaiveDate = "2020-01-01".parse().unwrap();
        days.into_iter().map(|offset| first + chrono::Days::new(offset)).collect()
    }
}

fn with(closures: &[NaiveDate]) -> WorkingCalendar {
    closures
        .iter()
        .fold(WorkingCalendar::national(), |builder, date| builder.decide(*date, closed("停办")))
        .build()
}

proptest! {
    #[test]
    fn a7_9_deadlines_grow_with_time_and_days(at in moment(), later in 0_i64..2_000_000, n in 1_u8..6) {
        let calendar = WorkingCalendar::national().build();
        let after = at + TimeDelta::seconds(later);
        prop_assert!(calendar.deadline(at, n).at <= calendar.deadline(after, n).at);
        prop_assert!(calendar.deadline(at, n).at < calendar.deadline(at, n + 1).at);
        prop_assert!(calendar.next_open(at).value <= calendar.next_open(after).value);
    }

    #[test]
    fn a7_9_a_deadline_is_the_end_of_a_working_day_after_receipt(
        at in moment(), n in 1_u8..8, closures in closures()
    ) {
        let calendar = with(&closures);
        let deadline = calendar.deadline(at, n);
        let due = local(deadline.at);
        prop_assert!(calendar.day(due.date_naive()).working);
        prop_assert_eq!(due.time().to_string(), "16:30:00");
        prop_assert!(due.date_naive() > deadline.received_day);
        prop_assert!(deadline.received_day >= local(at).date_naive());
        prop_assert!(calendar.day(deadline.received_day).working);
        prop_assert_eq!(
            calendar.working_days_between(deadline.received_day, due.date_naive()),
            u32::from(n) - 1
        );
    }

    #[test]
    fn a7_9_an_opening_is_open_and_nothing_before_it_is(at in moment(), closures in closures()) {
        let calendar = with(&closures);
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
        at in moment(), mut closures in closures(), n in 1_u8..6
    ) {
        let forwards = with(&closures).deadline(at, n);
        closures.reverse();
        prop_assert_eq!(forwards, with(&closures).deadline(at, n));
    }

    #[test]
    fn a7_9_computing_again_changes_nothing(at in moment(), n in 1_u8..6, closures in closures()) {
        let calendar = with(&closures);
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

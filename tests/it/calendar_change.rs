//! A changed calendar and open dates (A7.6).

use crate::support::{Spec, TestGateway, at, number};
use intake_gateway::{
    amend::{self, Amended},
    domain::calendar::Notice,
    store::{self, calendar::NewDecision},
};

async fn decide(gateway: &TestGateway, day: &str, kind: &str) -> Amended {
    let mut db = gateway.pool.acquire().await.unwrap();
    let decision = NewDecision {
        day: day.parse().unwrap(),
        kind,
        reason: "台风",
        authority: "县政府令〔2026〕1号",
        by: "test",
    };
    let now = gateway.clock.now();
    store::calendar::decide(&mut db, gateway.office, &decision, now).await.unwrap();
    recompute(gateway).await
}

async fn recompute(gateway: &TestGateway) -> Amended {
    let mut db = gateway.pool.acquire().await.unwrap();
    gateway.app.offices.reload(&mut db).await.unwrap();
    let office = gateway.app.offices.get(gateway.office).unwrap();
    amend::recompute(&gateway.pool, &gateway.clock, &office).await.unwrap()
}

async fn due(gateway: &TestGateway) -> String {
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    ticket["due_at"].as_str().unwrap().to_owned()
}

fn counts(amended: &Amended) -> (usize, usize, usize) {
    (amended.moved, amended.kept, amended.unchanged)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_moves_open_dates_later_on_the_record_and_rearms_their_timers() {
    let gateway = Spec::at(at("2026-11-24 21:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    assert_eq!(due(&gateway).await, "2026-11-26T16:30:00+08:00");
    let amended = decide(&gateway, "2026-11-25", "closed").await;
    assert_eq!(counts(&amended), (1, 0, 0));
    assert_eq!(due(&gateway).await, "2026-11-27T16:30:00+08:00");
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["follow_up_at"], "2026-11-26T08:30:00+08:00");
    assert_eq!(ticket["accepted_at"], "2026-11-26T08:30:00+08:00");
    let moved = ticket["events"].as_array().unwrap().iter().filter(|e| e["kind"] == "date_moved");
    assert_eq!(moved.count(), 2, "the limit and the follow-up");
    let armed = "SELECT count(*) FROM timer WHERE state = 0 AND gen = 2";
    assert_eq!(number(&gateway.pool, armed).await, 3);
    assert!(crate::verify::faults(&gateway).await.is_empty());
    // The same again changes nothing.
    assert_eq!(counts(&recompute(&gateway).await), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_date_is_taken_only_while_a_working_day_is_left() {
    let gateway = Spec::at(at("2026-11-24 21:00")).start().await;
    decide(&gateway, "2026-11-25", "closed").await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    assert_eq!(due(&gateway).await, "2026-11-27T16:30:00+08:00");
    // Withdrawn at once: the 26th leaves a working day.
    let amended = decide(&gateway, "2026-11-25", "withdrawn").await;
    assert_eq!(counts(&amended), (1, 0, 0));
    assert_eq!(due(&gateway).await, "2026-11-26T16:30:00+08:00");

    let gateway = Spec::at(at("2026-11-24 21:00")).start().await;
    decide(&gateway, "2026-11-25", "closed").await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    // Withdrawn on the very day: the 26th would be tomorrow, with less than a day left.
    gateway.clock.set(at("2026-11-26 09:00"));
    let amended = decide(&gateway, "2026-11-25", "withdrawn").await;
    assert_eq!(counts(&amended), (0, 1, 0));
    assert_eq!(due(&gateway).await, "2026-11-27T16:30:00+08:00");
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert!(ticket["events"].as_array().unwrap().iter().any(|e| e["kind"] == "date_kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_loading_the_notice_turns_provisional_dates_into_facts() {
    let gateway = Spec::at(at("2026-12-29 10:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["provisional"], true);
    let mut db = gateway.pool.acquire().await.unwrap();
    let now = gateway.clock.now();
    Notice::parse(NOTICE_OF_2027).unwrap();
    store::calendar::add_notice(&mut db, 2027, NOTICE_OF_2027, "test", now).await.unwrap();
    drop(db);
    let amended = recompute(&gateway).await;
    assert_eq!(counts(&amended), (1, 0, 0));
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["provisional"], false);
    assert_eq!(ticket["due_at"], "2026-12-30T16:30:00+08:00");
}

/// Invented: the real one was not announced when this was written.
const NOTICE_OF_2027: &str = "year = 2027\n\
    [[notice]]\ntitle = 'x'\nurl = 'https://example.test'\n\
    [[holiday]]\nname = '元旦'\noff = ['2027-01-01..2027-01-03']\n\
    [[holiday]]\nname = '春节'\noff = ['2027-02-05..2027-02-11']\n\
    [[holiday]]\nname = '国庆节'\noff = ['2027-10-01..2027-10-07']\n";

//! Who is told what, when, and what happens when they cannot be reached (RD1.2, RD3.2).

use crate::support::{
    Spec, TestGateway, at, number,
    robot::{Manner, Robot},
    sql, until,
};
use chrono::TimeDelta;
use intake_contract::{Notice, Recipient, SendError};
use intake_gateway::{
    domain::{
        id::{NoticeId, StaffId},
        register::RegisterNumber,
    },
    store::{self, calendar::NewDecision},
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const DUTY_1: &str = "(SELECT staff_id FROM staff WHERE login = 'zhao.min')";
const DUTY_2: &str = "(SELECT staff_id FROM staff WHERE login = 'qian.fang')";
const LEAD: &str = "(SELECT staff_id FROM staff WHERE login = 'li.qiang')";

async fn roster(gateway: &TestGateway, duty: &str, staff: &str, from: &str, to: &str) {
    let mut db = gateway.pool.acquire().await.unwrap();
    let (from, to) = (at(from).to_rfc3339(), at(to).to_rfc3339());
    let values = format!("(1, '{duty}', '{from}', '{to}', {staff})");
    sql(
        &mut db,
        &format!(
            "INSERT INTO shift (office_id, duty, starts_at, ends_at, staff_id) VALUES {values}"
        ),
    )
    .await;
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    title: String,
    lines: Vec<String>,
    to: Vec<String>,
    state: String,
}

async fn told(gateway: &TestGateway) -> Vec<Told> {
    let mut db = gateway.pool.acquire().await.unwrap();
    let mut rows = store::notice::list(&mut db, gateway.office, 100).await.unwrap();
    rows.sort_by_key(|row| row.id.0);
    rows.into_iter()
        .map(|row| Told {
            title: row.title,
            lines: row.lines,
            to: row.recipients,
            state: row.state,
        })
        .collect()
}

async fn step(gateway: &TestGateway) {
    gateway.app.relay.step().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_hours_nobody_is_disturbed_and_at_opening_one_digest_lists_the_night() {
    let gateway = Spec::at(at("2026-11-24 20:00")).start().await;
    roster(&gateway, "officer", DUTY_1, "2026-11-24 00:00", "2026-11-25 00:00").await;
    roster(&gateway, "officer", DUTY_2, "2026-11-25 00:00", "2026-11-26 00:00").await;
    for n in 0..3 {
        gateway.wechat(&format!("o{n}"), "灯坏了", &format!("{n}")).await.reply();
    }
    step(&gateway).await;
    assert_eq!(told(&gateway).await, []);
    gateway.clock.set(at("2026-11-25 08:29"));
    step(&gateway).await;
    assert_eq!(told(&gateway).await, []);
    gateway.clock.set(at("2026-11-25 08:30") + TimeDelta::seconds(6));
    step(&gateway).await;
    let told = told(&gateway).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].title, "新反映 3 件");
    // Who is on duty when it is sent, not when it came in.
    assert_eq!(told[0].to, ["钱芳"]);
    assert_eq!(told[0].lines.len(), 3);
    assert!(told[0].lines[0].contains("BCS-2026-000001"));
    assert!(!told[0].lines[0].contains("灯"), "no words of the citizen");
    step(&gateway).await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM notice").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rd3_2_an_emergency_alerts_the_lead_on_duty_at_any_hour() {
    let gateway = Spec::at(at("2026-11-28 23:30")).start().await;
    roster(&gateway, "lead", LEAD, "2026-11-23 00:00", "2026-11-30 00:00").await;
    gateway.wechat("oA", "他说要轻生", "1").await.reply();
    step(&gateway).await;
    let told = told(&gateway).await;
    // Nobody is at the window on Saturday night: the lead is the next in line for that, too, and
    // is told once.
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].to == ["李强"] && told[0].title.contains("紧急"), "{told:?}");
    // With somebody at the window both are told, by one notice.
    roster(&gateway, "officer", DUTY_1, "2026-11-28 00:00", "2026-11-29 00:00").await;
    gateway.wechat("oB", "他说要轻生", "2").await.reply();
    step(&gateway).await;
    assert_eq!(self::told(&gateway).await[1].to, ["赵敏", "李强"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rd3_2_an_emergency_that_rises_or_waits_is_told_at_any_hour() {
    let gateway = Spec::at(at("2025-03-03 20:00")).start().await;
    gateway.wechat("oA", "他说要轻生", "1").await.reply();
    gateway.wechat("oB", "灯坏了", "2").await.reply();
    while gateway.app.schedule.reconcile().await.unwrap() > 0 {}
    let urgent = |kind: &str| {
        format!(
            "SELECT count(*) FROM outbox WHERE urgent AND not_before = created_at AND kind = '{kind}'"
        )
    };
    for (kind, count) in [("follow_up", 1), ("raised", 2), ("overdue", 1), ("limit_near", 0)] {
        assert_eq!(number(&gateway.pool, &urgent(kind)).await, count, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_e_who_answers_for_a_ticket_is_told_that_it_grew() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    roster(&gateway, "officer", DUTY_2, "2026-11-24 00:00", "2026-11-25 00:00").await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    step(&gateway).await;
    let zhao = number(&gateway.pool, DUTY_1).await;
    intake_gateway::desk::claim(
        &gateway.pool,
        &gateway.clock,
        gateway.office,
        RegisterNumber::new(2026, 1).unwrap(),
        StaffId(i32::try_from(zhao).unwrap()),
    )
    .await
    .unwrap();
    gateway.wechat("oA", "还有一盏", "2").await.reply();
    gateway.clock.set(at("2026-11-24 09:30"));
    step(&gateway).await;
    let told = told(&gateway).await;
    assert_eq!(told.last().unwrap().to, ["赵敏"], "{told:?}");
    assert!(told.last().unwrap().title.contains("群众补充"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rd1_2_without_a_roster_the_office_is_told_never_nobody() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    step(&gateway).await;
    assert_eq!(told(&gateway).await[0].to, ["郑瑜"]);
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE staff SET disabled = true").await;
    gateway.wechat("oB", "灯坏了", "2").await.reply();
    step(&gateway).await;
    assert_eq!(told(&gateway).await[1].to, ["办公室"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_rise_tells_the_next_levels_people_and_the_lead() {
    let gateway = Spec::at(at("2025-03-03 10:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    while gateway.app.schedule.reconcile().await.unwrap() > 0 {}
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "DELETE FROM outbox WHERE kind <> 'raised'").await;
    let rises = "SELECT count(*) FROM outbox";
    assert_eq!(number(&gateway.pool, rises).await, 2);
    // The ticket stands at level 5 by now; each rise tells the people of the level it was to.
    gateway.clock.set(at("2025-03-14 09:00"));
    roster(&gateway, "lead", LEAD, "2025-03-10 00:00", "2025-03-17 00:00").await;
    step(&gateway).await;
    let told = told(&gateway).await;
    let lines = |person: &str| -> Vec<&str> {
        let to = told.iter().filter(|one| one.to.iter().any(|name| name == person));
        to.flat_map(|one| one.lines.iter().map(String::as_str)).collect()
    };
    let [leadership] = lines("周红")[..] else { panic!("{told:?}") };
    let [party_group] = lines("吴刚")[..] else { panic!("{told:?}") };
    assert!(leadership.contains("3 级，3月6日 周四 16:30前办结"), "{leadership}");
    assert!(party_group.contains("5 级，3月10日 周一 16:30前办结"), "{party_group}");
    assert_eq!(lines("李强").len(), 1, "the lead, of both, as one line about the ticket");
    assert!(told.iter().all(|one| one.title.contains("升级")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_belongs_to_several_of_those_who_are_told_is_told_once() {
    let gateway = Spec::at(at("2025-03-03 10:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    while gateway.app.schedule.reconcile().await.unwrap() > 0 {}
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "DELETE FROM outbox WHERE kind <> 'raised'").await;
    // The same person leads this week and sits in the leadership and in the party group.
    sql(&mut db, "UPDATE staff SET disabled = true WHERE role IN ('leadership', 'party_group')")
        .await;
    roster(&gateway, "lead", LEAD, "2025-03-10 00:00", "2025-03-17 00:00").await;
    gateway.clock.set(at("2025-03-14 09:00"));
    step(&gateway).await;
    let told = told(&gateway).await;
    let times = told.iter().filter(|one| one.to.contains(&"李强".to_owned())).count();
    assert_eq!(times, 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_opening_one_digest_holds_what_came_in_and_what_is_to_be_followed_up() {
    let gateway = Spec::at(at("2025-03-03 20:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    gateway.clock.set(at("2025-03-03 20:10"));
    gateway.wechat("oB", "灯坏了", "2").await.reply();
    // The schedule runs, and late: by the database's clock that opening is long past.
    while gateway.app.schedule.reconcile().await.unwrap() > 0 {}
    gateway.clock.set(at("2025-03-04 08:30") + TimeDelta::seconds(4));
    step(&gateway).await;
    assert_eq!(told(&gateway).await, []);
    gateway.clock.set(at("2025-03-04 08:30") + TimeDelta::seconds(6));
    step(&gateway).await;
    let pending =
        "SELECT count(*) FROM outbox WHERE state = 1 AND kind IN ('registered', 'follow_up')";
    assert_eq!(number(&gateway.pool, pending).await, 4);
    let told = told(&gateway).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].title, "新反映 2 件");
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_5_a_warning_names_the_day_of_the_limit_and_no_today_that_will_be_yesterday() {
    let gateway = Spec::at(at("2025-03-03 20:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    while gateway.app.schedule.reconcile().await.unwrap() > 0 {}
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "DELETE FROM outbox WHERE kind <> 'limit_near' OR data->>'level' <> '5'").await;
    for (opening, title) in [
        ("2025-03-10 08:30", "3月11日 周二 到期："),
        ("2025-03-11 08:30", "今天（3月11日 周二）到期："),
    ] {
        gateway.clock.set(at(opening) + TimeDelta::seconds(6));
        step(&gateway).await;
        let told = told(&gateway).await;
        let last = told.last().unwrap();
        assert!(last.title.starts_with(title), "{last:?}");
        assert!(last.lines[0].contains("3月11日 周二 16:30前办结"), "{last:?}");
        // The database's clock is past the due day: its warning is not armed any more.
        sql(&mut db, "UPDATE outbox SET state = 0, not_before = '2025-03-11 08:30+08'").await;
    }
    sql(&mut db, "DELETE FROM notice; DELETE FROM outbox").await;
    gateway.clock.set(at("2025-03-12 09:00"));
    gateway.wechat("oC", "灯坏了", "9").await.reply();
    step(&gateway).await;
    let text = format!("{:?}", told(&gateway).await);
    assert!(text.contains("3月13日 周四 16:30前办结"), "{text}");
    assert!(!text.contains("明天") && !text.contains("今天"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_fails_before_closing_is_not_tried_again_before_the_next_opening() {
    let robot = Robot::start(&[
        Manner::Fails(503, Some(600)),
        Manner::Fails(500, None),
        Manner::Says("{}"),
    ])
    .await;
    let gateway = Spec::at(at("2026-11-24 16:25")).with(&webhook(&robot.url)).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    step(&gateway).await;
    assert_eq!(robot.came().len(), 1);
    let next = "SELECT extract(epoch FROM next_try_at) FROM notice WHERE target = 'hook'";
    let opening = at("2026-11-25 08:30").timestamp();
    assert_eq!(number(&gateway.pool, next).await, opening, "16:35 is out of hours");
    for (time, came) in [("2026-11-24 20:00", 1), ("2026-11-25 08:31", 2), ("2026-11-25 20:00", 2)]
    {
        gateway.clock.set(at(time));
        step(&gateway).await;
        // The second failure's retry was due within the hours; nobody was there to carry it out.
        assert_eq!(robot.came().len(), came, "{time}");
    }
    gateway.clock.set(at("2026-11-26 08:31"));
    step(&gateway).await;
    assert_eq!(robot.came().len(), 3);
    assert!(told(&gateway).await.iter().all(|one| one.state == "sent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_down_tells_at_the_next_opening() {
    let gateway = Spec::at(at("2026-11-24 16:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    gateway.clock.set(at("2026-11-24 20:00"));
    gateway.wechat("oB", "灯坏了", "2").await.reply();
    step(&gateway).await;
    assert_eq!(told(&gateway).await, []);
    // And nobody is alarmed because of that.
    let mut db = gateway.pool.acquire().await.unwrap();
    let age = store::notice::oldest_due_s(&mut db, gateway.clock.now()).await.unwrap();
    assert!(age < 1.0, "{age}");
    gateway.clock.set(at("2026-11-25 08:30") + TimeDelta::seconds(6));
    step(&gateway).await;
    let told = told(&gateway).await;
    assert_eq!((told.len(), told[0].title.as_str()), (1, "新反映 2 件"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_entered_for_tomorrow_holds_what_is_to_be_told_tomorrow() {
    let gateway = Spec::at(at("2026-11-24 20:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let mut db = gateway.pool.acquire().await.unwrap();
    let decision = NewDecision {
        day: "2026-11-25".parse().unwrap(),
        kind: "closed",
        reason: "台风",
        authority: "县政府令〔2026〕1号",
        by: "test",
    };
    let now = gateway.clock.now();
    store::calendar::decide(&mut db, gateway.office, &decision, now).await.unwrap();
    gateway.app.offices.reload(&mut db).await.unwrap();
    gateway.clock.set(at("2026-11-25 09:00"));
    step(&gateway).await;
    assert_eq!(told(&gateway).await, []);
    gateway.clock.set(at("2026-11-26 08:30") + TimeDelta::seconds(6));
    step(&gateway).await;
    assert_eq!(told(&gateway).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_office_that_cannot_be_planned_stops_no_other() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE outbox SET data = '{\"level\": 2}'").await;
    for n in 2..8 {
        let policy = serde_json::json!({});
        let code = format!("office{n}");
        let office = store::office::create(&mut db, &code, "窗口", "BCS", &policy).await.unwrap();
        let copies = format!(
            "INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, registered_at,
                 accepted_at, due_at, provisional, calendar_version, events, chain)
             SELECT {office}, ticket, channel, state, urgency, problem, registered_at, accepted_at,
                 due_at, provisional, calendar_version, events, chain FROM ticket WHERE office_id = 1;
             INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
             SELECT {office}, kind, ticket, urgent, '{{}}', created_at, not_before
             FROM outbox WHERE office_id = 1"
        );
        sql(&mut db, &copies).await;
    }
    gateway.app.offices.reload(&mut db).await.unwrap();
    assert!(gateway.app.relay.step().await.is_err(), "and it is said");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM notice WHERE state = 'sent'").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_known_by_a_key_that_no_restored_or_second_deployment_repeats() {
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let robot = Robot::start(&[Manner::Says("{}")]).await;
        let gateway = Spec::at(at("2026-11-24 09:00")).with(&webhook(&robot.url)).start().await;
        gateway.wechat("oA", "灯坏了", "1").await.reply();
        step(&gateway).await;
        let key = robot.came()[0].headers["idempotency-key"].to_str().unwrap().to_owned();
        assert!(key.starts_with("intake-"), "{key}");
        keys.insert(key);
    }
    assert_eq!(keys.len(), 2, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_one_citizen_is_one_more_notice_not_one_for_each_message() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    gateway.wechat("oA", "第一条", "0").await.reply();
    step(&gateway).await;
    for n in 1..10 {
        gateway.wechat("oA", "还有", &format!("{n}")).await.reply();
    }
    gateway.clock.set(at("2026-11-24 09:30"));
    step(&gateway).await;
    let told = told(&gateway).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].title.contains("群众补充"));
}

fn webhook(url: &str) -> String {
    format!(
        "relay.first_retry_s = 1\nrelay.attempts = 6\n[[notify]]\noffice = 'tieling'\nname = 'hook'\nkind = 'webhook'\nurl = '{url}'\nsecret = 'hook-secret'\nallow_host = '127.0.0.1'\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_misbehaves_is_tried_again_with_the_same_key_until_it_works() {
    let manners = [
        Manner::Fails(500, None),
        Manner::Fails(429, Some(120)),
        Manner::Redirects,
        Manner::Floods,
        Manner::Says("{}"),
    ];
    let robot = Robot::start(&manners).await;
    let gateway = Spec::at(at("2026-11-24 09:00")).with(&webhook(&robot.url)).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let mut now = at("2026-11-24 09:00");
    let mut waits = Vec::new();
    for attempt in 1..=5 {
        step(&gateway).await;
        assert_eq!(robot.came().len(), attempt, "one attempt when it is due");
        step(&gateway).await;
        assert_eq!(robot.came().len(), attempt, "and not before");
        let next: chrono::DateTime<chrono::Utc> =
            sqlx::query_scalar("SELECT next_try_at FROM notice WHERE target = 'hook'")
                .fetch_one(&gateway.pool)
                .await
                .unwrap();
        waits.push((next - now).num_seconds());
        now = next.max(now);
        gateway.clock.set(now + TimeDelta::milliseconds(1));
    }
    // 1 s with jitter; as long as it asked for; the redirect of a flood; doubled three times.
    assert!((1..=2).contains(&waits[0]), "{waits:?}");
    assert!((120..=121).contains(&waits[1]), "{waits:?}");
    assert!((600..=601).contains(&waits[2]), "{waits:?}");
    assert!((8..=10).contains(&waits[3]), "{waits:?}");
    let came = robot.came();
    let keys: std::collections::BTreeSet<_> = came
        .iter()
        .map(|one| one.headers["idempotency-key"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    for one in &came {
        let timestamp = one.headers["x-intake-timestamp"].to_str().unwrap().parse().unwrap();
        let signature = intake_notify::webhook_signature("hook-secret", timestamp, &one.body);
        assert_eq!(one.headers["x-intake-signature"], signature);
        assert_eq!(one.json()["recipients"], serde_json::json!(["郑瑜"]));
        assert!(!one.json().to_string().contains("灯坏了"), "no words of the citizen");
    }
    assert!(told(&gateway).await.iter().all(|one| one.state == "sent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_dead_at_once_and_can_be_sent_again() {
    let robot = Robot::start(&[Manner::Fails(403, None), Manner::Says("{}")]).await;
    let gateway = Spec::at(at("2026-11-24 09:00")).with(&webhook(&robot.url)).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    step(&gateway).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    assert_eq!(store::notice::dead_count(&mut db, gateway.office).await.unwrap(), 1);
    let row = store::notice::list(&mut db, gateway.office, 1).await.unwrap().remove(0);
    assert_eq!((row.state.as_str(), row.last_error.as_deref()), ("dead", Some("HTTP 403")));
    let now = gateway.clock.now();
    let revived = store::notice::revive(&mut db, gateway.office, NoticeId(row.id.0), now).await;
    assert!(revived.unwrap());
    drop(db);
    step(&gateway).await;
    assert_eq!(robot.came().len(), 2);
    assert!(told(&gateway).await.iter().all(|one| one.state == "sent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_never_works_ends_dead_after_its_attempts() {
    let robot = Robot::start(&[Manner::Fails(500, None)]).await;
    let gateway = Spec::at(at("2026-11-24 09:00")).with(&webhook(&robot.url)).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    for hour in 0..12 {
        gateway.clock.set(at("2026-11-24 09:00") + TimeDelta::hours(hour));
        step(&gateway).await;
    }
    assert_eq!(robot.came().len(), 6);
    let states: Vec<String> = told(&gateway).await.into_iter().map(|one| one.state).collect();
    assert_eq!(states, ["sent", "dead"], "the desk's own list has it whatever else fails");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_hangs_holds_up_no_other_and_is_given_up() {
    let (hangs, works) =
        tokio::join!(Robot::start(&[Manner::Hangs]), Robot::start(&[Manner::Says("{}")]));
    let settings = webhook(&hangs.url)
        + &webhook(&works.url)
            .split_once("[[notify]]")
            .map(|(_, rest)| format!("[[notify]]{rest}"))
            .unwrap()
            .replace("'hook'", "'other'");
    let gateway = Spec::at(at("2026-11-24 09:00")).with(&settings).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let began = Instant::now();
    step(&gateway).await;
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(works.came().len(), 1);
    let pending =
        "SELECT count(*) FROM notice WHERE state = 'pending' AND last_error = 'no answer in time'";
    assert_eq!(number(&gateway.pool, pending).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_way_hangs_what_comes_later_goes_out_by_the_others() {
    let (hangs, works) =
        tokio::join!(Robot::start(&[Manner::Hangs]), Robot::start(&[Manner::Says("{}")]));
    let settings = "relay.parallel = 1\n".to_owned()
        + &webhook(&hangs.url)
        + &webhook(&works.url)
            .split_once("[[notify]]")
            .map(|(_, rest)| format!("[[notify]]{rest}"))
            .unwrap()
            .replace("'hook'", "'other'");
    let gateway = Spec::at(at("2026-11-24 09:00")).with(&settings).start().await;
    let stop = CancellationToken::new();
    let relay = Arc::clone(&gateway.app.relay);
    let running = tokio::spawn(Arc::clone(&relay).run(stop.clone()));
    let began = Instant::now();
    for n in 1..=4 {
        gateway.wechat(&format!("o{n}"), "灯坏了", &format!("{n}")).await.reply();
        relay.wake();
        until("the way that works has it", async || works.came().len() == n).await;
    }
    assert_eq!(hangs.came().len(), 1, "one at a time");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_by_a_way_that_is_not_configured_any_more_is_dead_and_says_so() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    step(&gateway).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE notice SET target = 'gone', state = 'pending'").await;
    step(&gateway).await;
    let row = store::notice::list(&mut db, gateway.office, 1).await.unwrap().remove(0);
    assert_eq!(row.state, "dead");
    assert!(row.last_error.unwrap().contains("configured any more"));
}

fn notice() -> Notice {
    Notice {
        idempotency_key: "intake-1-1".to_owned(),
        title: "新反映：BCS-2026-000001".to_owned(),
        lines: vec!["微信，1 级 <at user_id=\"all\">x</at>".to_owned()],
        link: Some("http://desk.test/desk".to_owned()),
        recipients: vec![Recipient {
            name: "赵敏".to_owned(),
            email: Some("zhao@office.test".to_owned()),
            mobile: Some("13900000000".to_owned()),
        }],
        urgent: false,
    }
}

/// One attempt by a way of this kind at a stand-in.
async fn attempt(kind: &str, manner: Manner) -> (Result<(), SendError>, Robot) {
    let robot = Robot::start(&[manner]).await;
    let secret = if kind == "wecom" { "" } else { "secret = 'SEC1'\n" };
    let text =
        format!("kind = '{kind}'\nurl = '{}?key=k'\n{secret}allow_host = '127.0.0.1'", robot.url);
    let target: intake_notify::Target = toml::from_str(&text).unwrap();
    let notifier = intake_notify::notifier(&target).unwrap();
    let sent = notifier.send(&notice(), at("2026-11-24 09:00")).await.map(|_| ());
    (sent, robot)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_robot_is_spoken_to_in_its_own_language() {
    let (sent, robot) = attempt("wecom", Manner::Says(r#"{"errcode":0,"errmsg":"ok"}"#)).await;
    sent.unwrap();
    let body = robot.came()[0].json();
    assert_eq!(body["msgtype"], "text");
    assert_eq!(body["text"]["mentioned_mobile_list"], serde_json::json!(["13900000000"]));
    assert_eq!(robot.came()[0].query, "key=k");

    let (sent, robot) = attempt("dingtalk", Manner::Says(r#"{"errcode":0,"errmsg":"ok"}"#)).await;
    sent.unwrap();
    // Computed with openssl: hmac-sha256("SEC1", "1795482000000\nSEC1"), base64, percent-encoded.
    assert_eq!(
        robot.came()[0].query,
        format!("key=k&timestamp=1795482000000&sign={DINGTALK_SIGN}")
    );

    let (sent, robot) = attempt("feishu", Manner::Says(r#"{"code":0,"msg":"success"}"#)).await;
    sent.unwrap();
    let body = robot.came()[0].json();
    assert_eq!((&body["timestamp"], &body["sign"]), (&"1795482000".into(), &FEISHU_SIGN.into()));
    let text = body["content"]["text"].as_str().unwrap();
    assert!(text.contains("BCS-2026-000001") && !text.contains('<'), "nobody is called by a text");
}

const DINGTALK_SIGN: &str = "Q45TgSVz8VIlpgzQtfviVT%2BDawqf3656X2dOYAodHww%3D";
const FEISHU_SIGN: &str = "0HHcWfvHGr3OWiOhtJWSnqXlA28k4jlUA9JxQgPzEV8=";

#[tokio::test(flavor = "multi_thread")]
async fn each_robots_refusals_are_understood() {
    let retry = |error: &SendError| matches!(error, SendError::Retry { .. });
    for (kind, answer, again) in [
        ("wecom", r#"{"errcode":45009}"#, true),
        ("wecom", r#"{"errcode":93000}"#, false),
        ("wecom", "<html>welcome to the hotel</html>", true),
        ("wecom", "", true),
        ("dingtalk", r#"{"errcode":130101}"#, true),
        ("dingtalk", r#"{"errcode":410100}"#, true),
        ("dingtalk", r#"{"errcode":310000}"#, false),
        ("feishu", r#"{"code":9499}"#, true),
        ("feishu", r#"{"code":11247}"#, true),
        ("feishu", r#"{"code":19021}"#, false),
        ("feishu", r#"[]"#, true),
    ] {
        let (sent, _) = attempt(kind, Manner::Says(answer)).await;
        let error = sent.unwrap_err();
        assert_eq!(retry(&error), again, "{kind} {answer}: {error:?}");
        assert!(!error.to_string().contains("127.0.0.1"), "the address is a secret");
    }
    let (sent, _) = attempt("dingtalk", Manner::Redirects).await;
    assert!(retry(&sent.unwrap_err()));
}

#[tokio::test]
async fn a_robot_elsewhere_than_where_robots_live_is_refused_by_its_key() {
    for (text, key) in [
        ("kind = 'wecom'\nurl = 'https://evil.test/x'", "url"),
        ("kind = 'wecom'\nurl = 'http://qyapi.weixin.qq.com/x'", "url"),
        ("kind = 'wecom'\nurl = 'file:///etc/passwd'", "url"),
        ("kind = 'feishu'\nurl = 'https://open.feishu.cn/x'\nsecret = ''", "secret"),
        ("kind = 'smtp'\nhost = 'mail.test'\nfrom = 'nobody'", "from"),
        ("kind = 'smtp'\nhost = 'mail.test'\nfrom = 'a@b.test'\nusername = 'x'", "username"),
    ] {
        let target: intake_notify::Target = toml::from_str(text).unwrap();
        assert_eq!(target.check().unwrap_err().key, key, "{text}");
    }
}

/// A mail server of a few lines: says `verdict` to every message. What it heard is in the text.
async fn mail_server(verdict: &'static str) -> (u16, Arc<Mutex<String>>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(String::new()));
    let text = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let text = Arc::clone(&text);
            tokio::spawn(async move {
                let mut lines = BufReader::new(stream);
                lines.write_all(b"220 mail.test\r\n").await.unwrap();
                let mut in_data = false;
                let mut line = String::new();
                while lines.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    let said = std::mem::take(&mut line);
                    text.lock().unwrap().push_str(&said);
                    let answer = match (in_data, said.trim_end()) {
                        (true, ".") => {
                            in_data = false;
                            verdict
                        }
                        (true, _) => continue,
                        (false, "DATA") => {
                            in_data = true;
                            "354 go on"
                        }
                        (false, "QUIT") => return,
                        _ => "250 ok",
                    };
                    lines.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                }
            });
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_to_who_is_told_and_its_refusals_are_understood() {
    for (verdict, outcome) in
        [("250 taken", "sent"), ("451 later", "retry"), ("550 never", "permanent")]
    {
        let (port, heard) = mail_server(verdict).await;
        let text = format!(
            "kind = 'smtp'\nhost = '127.0.0.1'\nport = {port}\ntls = 'none'\nfrom = 'window@office.test'\nto = ['office@office.test']"
        );
        let target: intake_notify::Target = toml::from_str(&text).unwrap();
        let notifier = intake_notify::notifier(&target).unwrap();
        let sent = notifier.send(&notice(), at("2026-11-24 09:00")).await;
        let found = match &sent {
            Ok(_) => "sent",
            Err(SendError::Retry { .. }) => "retry",
            Err(SendError::Permanent { .. }) => "permanent",
        };
        assert_eq!(found, outcome, "{sent:?}");
        let message = heard.lock().unwrap().clone();
        assert!(
            message.contains("RCPT TO:<zhao@office.test>")
                && message.contains("RCPT TO:<office@office.test>")
        );
        assert!(message.contains("Message-ID: <intake-1-1@office.test>"), "{message}");
    }
}

/// A mail server that refuses mailboxes: `gone@` for good, `full@` for now. Answers each
/// connection; what it took, by mailbox, is in the list.
async fn mailboxes() -> (u16, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let list = Arc::clone(&list);
            tokio::spawn(async move {
                let mut lines = BufReader::new(stream);
                let (mut to, mut in_data) = (Vec::new(), false);
                lines.write_all(b"220 mail.test\r\n").await.unwrap();
                let mut line = String::new();
                while lines.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    let said = std::mem::take(&mut line);
                    let said = said.trim_end();
                    let answer = match said {
                        "." => {
                            in_data = false;
                            list.lock().unwrap().append(&mut to);
                            "250 taken"
                        }
                        _ if in_data => continue,
                        "DATA" => {
                            in_data = true;
                            "354 go on"
                        }
                        _ if said.contains("<gone@") => "550 no such mailbox",
                        _ if said.contains("<full@") => "452 mailbox full",
                        _ => {
                            if said == "RSET" || said.starts_with("MAIL") {
                                to.clear();
                            }
                            if let Some((_, mailbox)) = said.split_once("RCPT TO:") {
                                to.push(mailbox.to_owned());
                            }
                            "250 ok"
                        }
                    };
                    lines.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                }
            });
        }
    });
    (port, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_gone_or_full_keeps_nobody_else_from_being_told() {
    let (port, taken) = mailboxes().await;
    let text = format!(
        "kind = 'smtp'\nhost = '127.0.0.1'\nport = {port}\ntls = 'none'\nfrom = 'window@office.test'\nto = ['office@office.test']"
    );
    let target: intake_notify::Target = toml::from_str(&text).unwrap();
    let notifier = intake_notify::notifier(&target).unwrap();
    let person = |name: &str, email: &str| Recipient {
        name: name.to_owned(),
        email: Some(email.to_owned()),
        mobile: None,
    };
    let now = at("2026-11-24 09:00");
    let mut notice = notice();
    notice.recipients = vec![
        person("钱芳", "gone@office.test"),
        person("赵敏", "zhao@office.test"),
        person("周红", "no address"),
        // A Chinese full stop, which the library would take and the server would not.
        person("王芳", "wang@163。com"),
    ];
    let sent = notifier.send(&notice, now).await.unwrap();
    assert_eq!(sent.missed, ["周红", "王芳", "钱芳"]);
    let told = || taken.lock().unwrap().clone();
    assert_eq!(told(), ["<zhao@office.test>", "<office@office.test>"]);

    // One that is full is tried again; who has it is not told twice.
    taken.lock().unwrap().clear();
    notice.idempotency_key = "intake-2".to_owned();
    notice.recipients =
        vec![person("钱芳", "full@office.test"), person("赵敏", "zhao@office.test")];
    for _ in 0..2 {
        let sent = notifier.send(&notice, now).await;
        assert!(matches!(sent, Err(SendError::Retry { .. })), "{sent:?}");
    }
    assert_eq!(told(), ["<zhao@office.test>", "<office@office.test>"]);

    // Nobody at all is a failure.
    notice.idempotency_key = "intake-3".to_owned();
    notice.recipients = vec![person("钱芳", "gone@office.test")];
    let alone = intake_notify::notifier(
        &toml::from_str::<intake_notify::Target>(&text.replace("'office@office.test'", ""))
            .unwrap(),
    )
    .unwrap();
    let sent = alone.send(&notice, now).await;
    assert!(matches!(sent, Err(SendError::Permanent { .. })), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_mail_did_not_reach_stands_on_the_list_of_notices() {
    let (port, _) = mailboxes().await;
    let smtp = format!(
        "[[notify]]\noffice = 'tieling'\nname = 'mail'\nkind = 'smtp'\nhost = '127.0.0.1'\nport = {port}\ntls = 'none'\nfrom = 'window@office.test'"
    );
    let gateway = Spec::at(at("2026-11-24 09:00")).with(&smtp).start().await;
    for staff in [DUTY_1, DUTY_2] {
        roster(&gateway, "officer", staff, "2026-11-24 00:00", "2026-11-25 00:00").await;
    }
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE staff SET email = 'gone@office.test' WHERE login = 'qian.fang'").await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    step(&gateway).await;
    let rows = store::notice::list(&mut db, gateway.office, 10).await.unwrap();
    let mail = rows.iter().find(|row| row.target == "mail").unwrap();
    assert_eq!((mail.state.as_str(), &mail.recipients[..]), ("sent", &["赵敏".to_owned()][..]));
    assert_eq!(mail.last_error.as_deref(), Some("not told: 钱芳"));
}

//! Who is told what, when, and what happens when they cannot be reached (RD1.2, RD3.2).

use crate::support::{
    Spec, TestGateway, at, number,
    robot::{Manner, Robot},
    sql,
};
use chrono::TimeDelta;
use intake_contract::{Notice, Recipient, SendError};
use intake_gateway::{domain::id::NoticeId, store};
use std::time::{Duration, Instant};

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
    // Nobody is at the window on Saturday night: the lead is the next in line for that, too.
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|one| one.to == ["李强"] && one.title.contains("紧急")), "{told:?}");
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
    sql(&mut db, "UPDATE outbox SET not_before = created_at WHERE state = 0").await;
    sql(&mut db, "DELETE FROM outbox WHERE kind <> 'raised'").await;
    gateway.clock.set(intake_gateway::clock::Clock::system().now() + TimeDelta::minutes(1));
    step(&gateway).await;
    let told = told(&gateway).await;
    let people: Vec<&str> = told.iter().flat_map(|one| one.to.iter().map(String::as_str)).collect();
    // The ticket stands at level 5 by now.
    assert!(people.contains(&"吴刚"), "{told:?}");
    assert!(told.iter().all(|one| one.title.contains("升级")), "{told:?}");
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
        ("dingtalk", r#"{"errcode":310000}"#, false),
        ("feishu", r#"{"code":9499}"#, true),
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

/// A mail server of a few lines: says `verdict` to the message.
async fn mail_server(verdict: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream);
        let mut message = String::new();
        lines.write_all(b"220 mail.test\r\n").await.unwrap();
        let mut in_data = false;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).await.unwrap_or(0) == 0 {
                return message;
            }
            message.push_str(&line);
            let answer = match (in_data, line.trim_end()) {
                (true, ".") => {
                    in_data = false;
                    format!("{verdict}\r\n")
                }
                (true, _) => continue,
                (false, "DATA") => {
                    in_data = true;
                    "354 go on\r\n".to_owned()
                }
                (false, "QUIT") => return message,
                _ => "250 ok\r\n".to_owned(),
            };
            lines.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_to_who_is_told_and_its_refusals_are_understood() {
    for (verdict, outcome) in
        [("250 taken", "sent"), ("451 later", "retry"), ("550 never", "permanent")]
    {
        let (port, served) = mail_server(verdict).await;
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
        drop(notifier);
        let message = served.await.unwrap();
        assert!(
            message.contains("RCPT TO:<zhao@office.test>")
                && message.contains("RCPT TO:<office@office.test>")
        );
        assert!(message.contains("Message-ID: <intake-1-1@office.test>"), "{message}");
    }
}

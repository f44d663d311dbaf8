//! What officers do on a ticket, by the desk's forms and by the API.

use crate::{
    desk::Desk,
    support::{
        Spec, TestGateway, at,
        gateway::{Answer, number_in},
        number, sql,
    },
    verify::faults,
};
use intake_gateway::{
    amend,
    domain::{event::Actor, register::RegisterNumber, ticket::Evaluation},
    store::{self, calendar::NewDecision},
};
use serde_json::{Value, json};

const FIRST: &str = "BCS-2026-000001";

async fn gateway() -> TestGateway {
    Spec::at(at("2026-11-24 09:10")).start().await
}

/// An officer at the desk, with one ticket before them.
struct Officer<'a> {
    desk: Desk<'a>,
    csrf: String,
}

impl<'a> Officer<'a> {
    async fn login(gateway: &'a TestGateway, login: &str) -> Self {
        let desk = Desk::login(gateway, login).await;
        let csrf = desk.csrf().await;
        Self { desk, csrf }
    }

    async fn page(&self, number: &str) -> String {
        self.desk.get(&format!("/desk/tickets/{number}")).await.text()
    }

    /// The newest event that the page shows.
    async fn seen(&self, number: &str) -> String {
        let page = self.page(number).await;
        let from = page.find("name=\"seen\" value=\"").unwrap_or_else(|| panic!("{page}"));
        page[from + 19..].split('"').next().unwrap().to_owned()
    }

    /// Sends a form as the page has it now.
    async fn does(&self, number: &str, act: &str, fields: &[(&str, &str)]) -> Answer {
        let seen = self.seen(number).await;
        self.sends(number, act, &seen, fields).await
    }

    /// Sends a form that was opened when this was the newest event.
    async fn sends(&self, number: &str, act: &str, seen: &str, fields: &[(&str, &str)]) -> Answer {
        let mut form = vec![("csrf", self.csrf.as_str()), ("seen", seen)];
        form.extend(fields);
        self.desk.post(&format!("/desk/tickets/{number}/{act}"), &form).await
    }

    /// As [`Self::does`], and the page that follows.
    async fn did(&self, number: &str, act: &str, fields: &[(&str, &str)]) -> String {
        let answer = self.does(number, act, fields).await;
        assert_eq!(answer.status, 303, "{act}: {}", answer.text());
        self.desk.get(answer.headers["location"].to_str().unwrap()).await.text()
    }
}

/// A WeChat ticket, taken up by an officer.
async fn claimed<'a>(gateway: &'a TestGateway, login: &str) -> Officer<'a> {
    gateway.wechat("oA", "社保卡办不了", "1").await.reply();
    let officer = Officer::login(gateway, login).await;
    officer.did(&first(gateway), "claim", &[]).await;
    officer
}

/// The first number of the year.
fn first(gateway: &TestGateway) -> String {
    format!("BCS-{}-000001", gateway.clock.now().format("%Y"))
}

async fn api(gateway: &TestGateway, number: &str, act: &str, body: Value) -> Answer {
    let token = format!("Bearer {}", gateway.api_token);
    let path = format!("/api/v1/tickets/{number}/{act}");
    gateway.post(&path, &[("authorization", &token)], body.to_string().into_bytes()).await
}

async fn ticket(gateway: &TestGateway, number: &str) -> Value {
    gateway.api(&format!("/tickets/{number}")).await.json()
}

fn kinds(ticket: &Value) -> Vec<String> {
    let events = ticket["events"].as_array().unwrap();
    events.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

/// What is to be told of a kind, in order.
async fn told(gateway: &TestGateway, kind: &str) -> Vec<Value> {
    sqlx::query_scalar("SELECT data FROM outbox WHERE kind = $1 ORDER BY outbox_id")
        .bind(kind)
        .fetch_all(&gateway.pool)
        .await
        .unwrap()
}

/// The armed timers of the first ticket: kind and time.
async fn armed(gateway: &TestGateway) -> Vec<(i16, String)> {
    sqlx::query_as(
        "SELECT kind, to_char(due_at AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI') FROM timer
         WHERE state = 0 AND ticket % 1000000000 = 1 ORDER BY kind",
    )
    .fetch_all(&gateway.pool)
    .await
    .unwrap()
}

fn timers(wanted: &[(i16, &str)]) -> Vec<(i16, String)> {
    wanted.iter().map(|(kind, at)| (*kind, (*at).to_owned())).collect()
}

async fn evaluate(gateway: &TestGateway, evaluation: Evaluation) {
    let mut db = gateway.pool.begin().await.unwrap();
    let number = RegisterNumber::new(2026, 1).unwrap();
    let mut locked = store::ticket::lock(&mut db, gateway.office, number).await.unwrap().unwrap();
    let happened = locked.ticket.evaluate(evaluation, None).unwrap();
    let now = gateway.clock.now();
    store::ticket::write(&mut db, &mut locked, Actor::Citizen, &happened, now).await.unwrap();
    db.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rd4_2_a_matter_goes_from_its_claim_to_its_end_and_back_on_the_record() {
    let gateway = gateway().await;
    gateway.wechat("oA", "社保卡办不了", "1").await.reply();
    let zhao = Officer::login(&gateway, "zhao.min").await;
    let page = zhao.did(FIRST, "claim", &[]).await;
    assert!(page.contains("已认领") && page.contains("回复群众"), "{page}");
    assert_eq!(told(&gateway, "claimed").await.len(), 1);

    let seen = zhao.seen(FIRST).await;
    let words = [("text", "您好，\r\n请问卡号是多少？")];
    for _ in 0..2 {
        assert_eq!(zhao.sends(FIRST, "say", &seen, &words).await.status, 303);
    }
    assert_eq!(told(&gateway, "said").await, [json!({ "text": "您好，\n请问卡号是多少？" })]);
    let page = zhao.did(FIRST, "triage", &[("cause", "citizen")]).await;
    assert!(page.contains("判定原因：群众方面") && page.contains("<dt>原因</dt>"), "{page}");

    let page =
        zhao.did(FIRST, "await", &[("missing", "身份证复印件一份"), ("until", "2026-11-27")]).await;
    assert!(page.contains("等群众补充，周五 16:30 前") && page.contains("身份证复印件一份"));
    assert_eq!(
        told(&gateway, "awaiting").await,
        [json!({ "missing": "身份证复印件一份", "until": "2026-11-27T08:30:00Z" })]
    );
    let page = zhao.did(FIRST, "resume", &[]).await;
    assert!(page.contains("已继续办理") && page.contains("办理中"), "{page}");
    let page = zhao.did(FIRST, "raise", &[("opinion", "政策不明，请研究")]).await;
    assert!(page.contains("提请升级到 3 级（中心班子）") && page.contains("政策不明，请研究"));
    assert_eq!(told(&gateway, "raised").await[0]["opinion"], true, "the citizen reads of no delay");

    let answer = [("outcome", "solved"), ("opinion", "已补办社保卡"), ("answer", "您的卡办好了")];
    let page = zhao.did(FIRST, "resolve", &answer).await;
    assert!(page.contains("答复办结，已解决；办理意见：已补办社保卡"), "{page}");
    assert!(page.contains("<blockquote>您的卡办好了</blockquote>") && page.contains("待评价"));
    assert_eq!(
        told(&gateway, "resolved").await,
        [json!({ "outcome": "solved", "answer": "您的卡办好了" })]
    );
    assert_eq!(armed(&gateway).await, [], "no limit runs");
    let page = zhao.did(FIRST, "close", &[("reason", "三次联系不上")]).await;
    assert!(page.contains("销号（没有评价：三次联系不上）"), "{page}");
    let page = zhao.did(FIRST, "reopen", &[("reason", "卡仍不能用")]).await;
    assert!(page.contains("重新办理：卡仍不能用") && page.contains("周五 16:30 前办结"), "{page}");
    let whole = ticket(&gateway, FIRST).await;
    assert_eq!(
        kinds(&whole),
        [
            "registered",
            "claimed",
            "told_citizen",
            "triaged",
            "awaiting_citizen",
            "resumed",
            "raised",
            "resolved",
            "closed",
            "reopened",
        ]
    );
    assert_eq!((&whole["state"], &whole["level"]), (&json!("in_progress"), &json!(3)));
    assert_eq!(whole["accountable"], "赵敏");
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_on_the_ticket_and_what_was_written_is_kept() {
    let gateway = gateway().await;
    gateway.wechat("oA", "社保卡办不了", "1").await.reply();
    gateway.accept("s2", "门坏了").await;
    let zhao = Officer::login(&gateway, "zhao.min").await;
    for (act, fields) in [
        ("say", &[("text", "您好")][..]),
        ("await", &[("missing", "身份证")]),
        ("raise", &[("opinion", "请研究")]),
        ("triage", &[("cause", "staff")]),
        ("resolve", &[("outcome", "solved"), ("opinion", "已办")]),
        ("split", &[("messages", "1")]),
    ] {
        let early = zhao.does(FIRST, act, fields).await;
        assert_eq!(early.status, 409, "{act}");
        assert!(early.text().contains("没有执行：首次接待负责制：先认领"), "{}", early.text());
    }
    zhao.did(FIRST, "claim", &[]).await;
    // Once more by the same hand: nothing happened, and nothing is wrong.
    zhao.did(FIRST, "claim", &[]).await;
    assert_eq!(kinds(&ticket(&gateway, FIRST).await), ["registered", "claimed"]);
    let long = "长".repeat(2001);
    for (act, fields, says) in [
        ("say", &[("text", " ")][..], "先写要告诉群众的话"),
        ("say", &[("text", &long)], "最多 2000 个字"),
        ("await", &[("missing", ""), ("until", "2026-11-27")], "一次说全"),
        ("await", &[("missing", "身份证"), ("until", "2026-11-28")], "一个工作日"),
        ("await", &[("missing", "身份证"), ("until", "2026-11-23")], "今天以后的一个工作日"),
        ("await", &[("missing", "身份证"), ("until", "x")], "一个工作日"),
        ("await", &[("missing", "身份证"), ("until", "2099-11-27")], "一个工作日"),
        ("raise", &[("opinion", "")], "先写提请升级的意见"),
        ("triage", &[("cause", "x")], "先选是哪方面的原因"),
        ("resolve", &[("opinion", "已办")], "先选办理结果"),
        ("resolve", &[("outcome", "solved"), ("answer", "好了")], "办理意见要写"),
        ("resolve", &[("outcome", "refused"), ("opinion", "不符")], "否定备案要写依据"),
        (
            "resolve",
            &[("outcome", "conditionally_accepted"), ("opinion", "同意")],
            "容缺受理要写缺什么",
        ),
        ("resolve", &[("outcome", "duplicate"), ("opinion", "x"), ("of", "7")], "没有这个编号"),
        (
            "resolve",
            &[("outcome", "duplicate"), ("opinion", "x"), ("of", "BCS-2026-000009")],
            "没有这个编号",
        ),
        ("resolve", &[("outcome", "duplicate"), ("opinion", "x"), ("of", FIRST)], "它自己的编号"),
        ("split", &[], "先勾选"),
        ("split", &[("messages", "1")], "至少要留一条"),
        ("join", &[("into", FIRST)], "它自己的编号"),
        ("join", &[("into", "BCS-2026-000009")], "没有这个编号"),
        ("refer", &[("unit", "")], "先选好要转给哪个股室"),
    ] {
        let wrong = zhao.does(FIRST, act, fields).await;
        let page = wrong.text();
        assert_eq!(wrong.status, 422, "{act} {fields:?}: {page}");
        assert!(page.contains(says), "{act} {fields:?}: {says}: {page}");
    }
    for (act, says) in [
        ("resume", "已经有结果，或者已经往下办了一步"),
        ("close", "还没有答复"),
        ("reopen", "还没有答复"),
    ] {
        let wrong = zhao.does(FIRST, act, &[("reason", "x")]).await;
        assert_eq!(wrong.status, 409, "{act}");
        assert!(wrong.text().contains(says), "{act}: {}", wrong.text());
    }
    // The form comes back open, as it was filled in.
    let form = [("outcome", "refused"), ("opinion", "<不符>"), ("answer", "抱歉"), ("basis", "")];
    let page = zhao.does(FIRST, "resolve", &form).await.text();
    assert!(page.contains("&#60;不符&#62;</textarea>") && page.contains("抱歉</textarea>"));
    assert!(page.contains("<option value=\"refused\" selected>"), "{page}");
    assert!(page.contains("<details class=\"step\" open>"), "{page}");
    assert_eq!(zhao.does(FIRST, "nonsense", &[]).await.status, 404);
    assert_eq!(zhao.sends("BCS-2026-000009", "say", "1", &[("text", "x")]).await.status, 404);
    let forged = [("csrf", "x"), ("text", "x")];
    let forged = zhao.desk.post(&format!("/desk/tickets/{FIRST}/say"), &forged).await;
    assert_eq!(forged.status, 403);
    assert_eq!(kinds(&ticket(&gateway, FIRST).await), ["registered", "claimed"]);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_result_again_is_one_and_another_from_the_page_of_before_is_refused() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    let seen = zhao.seen(FIRST).await;
    let refused =
        [("outcome", "refused"), ("opinion", "不符合条件"), ("basis", "《条例》第三条\r\n第二款")];
    for _ in 0..2 {
        assert_eq!(zhao.sends(FIRST, "resolve", &seen, &refused).await.status, 303);
    }
    let solved = [("outcome", "solved"), ("opinion", "不符合条件")];
    let other = zhao.sends(FIRST, "resolve", &seen, &solved).await;
    assert_eq!(other.status, 409, "{}", other.text());
    assert_eq!(kinds(&ticket(&gateway, FIRST).await), ["registered", "claimed", "resolved"]);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_under_a_form_is_shown_before_it_is_sent_and_a_reminder_is_no_change() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    let qian = Officer::login(&gateway, "qian.fang").await;
    let seen = zhao.seen(FIRST).await;
    gateway.wechat("oA", "我找到卡了", "2").await.reply();
    let late = zhao.sends(FIRST, "say", &seen, &[("text", "请带卡来")]).await;
    let page = late.text();
    assert_eq!(late.status, 409, "{page}");
    assert!(page.contains("刚刚有变化") && page.contains("我找到卡了"), "{page}");
    assert!(page.contains("请带卡来</textarea>"), "{page}");
    // Two officers at once: one of them.
    let seen = zhao.seen(FIRST).await;
    let answer = [("outcome", "solved"), ("opinion", "已办")];
    let material = [("missing", "身份证")];
    let (one, two) = tokio::join!(
        zhao.sends(FIRST, "resolve", &seen, &answer),
        qian.sends(FIRST, "await", &seen, &material)
    );
    let mut both = [one.status, two.status];
    both.sort_unstable();
    assert_eq!(both, [303, 409]);
    // The same form many times at once: once.
    gateway.accept("s2", "门坏了").await;
    let second = "BCS-2026-000002";
    zhao.did(second, "claim", &[]).await;
    let seen = zhao.seen(second).await;
    let sent = (0..6).map(|_| zhao.sends(second, "say", &seen, &[("text", "您好")]));
    for answer in futures::future::join_all(sent).await {
        assert_eq!(answer.status, 303, "{}", answer.text());
    }
    assert_eq!(kinds(&ticket(&gateway, second).await), ["registered", "claimed", "told_citizen"]);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());

    let gateway = Spec::at(at("2025-03-03 10:00")).start().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE timer SET state = 2 WHERE kind <> 2").await;
    let seen = zhao.seen(&first(&gateway)).await;
    while gateway.app.schedule.reconcile().await.unwrap() > 0 {}
    let whole = ticket(&gateway, &first(&gateway)).await;
    assert_eq!(kinds(&whole), ["registered", "claimed", "limit_near"]);
    let sent = zhao.sends(&first(&gateway), "say", &seen, &[("text", "您好")]).await;
    assert_eq!(sent.status, 303, "{}", sent.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_a_while_it_waits_no_limit_runs_and_after_it_what_was_left_runs_on() {
    // All of it is past for the database's clock: what is armed fires.
    let gateway = Spec::at(at("2025-03-03 10:00")).start().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    let number = &first(&gateway);
    let run_out = async || while gateway.app.schedule.reconcile().await.unwrap() > 0 {};
    zhao.did(number, "await", &[("missing", "身份证"), ("until", "")]).await;
    assert_eq!(armed(&gateway).await, timers(&[(1, "03-10 16:30")]), "five working days");
    run_out().await;
    let whole = ticket(&gateway, number).await;
    assert_eq!(kinds(&whole)[2..], ["awaiting_citizen", "material_due"]);
    assert_eq!((&whole["level"], &whole["state"]), (&json!(1), &json!("awaiting_citizen")));
    let told_of = told(&gateway, "material_due").await;
    assert_eq!(told_of.len(), 1);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
    // Not late, wherever it is listed.
    gateway.clock.set(at("2025-03-12 09:00"));
    let zhao = Officer::login(&gateway, "zhao.min").await;
    let overdue = zhao.desk.get("/desk?view=overdue").await.text();
    assert!(!overdue.contains("data-ticket=") && overdue.contains("没有逾期的反映"), "{overdue}");
    let all = zhao.desk.get("/desk?view=all").await.text();
    assert!(all.contains("等群众补充") && !all.contains("已逾期 "), "{all}");

    // Resumed on Wednesday, the day of which does not count: level 1's one day is Thursday.
    let page = zhao.did(number, "resume", &[]).await;
    assert!(
        page.contains("明天 16:30 前办结") && page.contains("相当于从 3月12日 周三 起"),
        "{page}"
    );
    let wanted = timers(&[(2, "03-13 08:30"), (3, "03-13 16:30")]);
    assert_eq!(armed(&gateway).await, wanted);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
    // The next levels run from the same day on: nobody loses time by having waited.
    run_out().await;
    let whole = ticket(&gateway, number).await;
    let raised: Vec<&Value> =
        whole["events"].as_array().unwrap().iter().filter(|e| e["kind"] == "raised").collect();
    let due: Vec<&str> =
        raised.iter().map(|event| event["data"]["due_at"].as_str().unwrap()).collect();
    assert_eq!(due, ["2025-03-17T08:30:00Z", "2025-03-19T08:30:00Z"]);
    assert_eq!(whole["overdue"], true);
    // What is overdue stays so, and no limit of it runs again.
    zhao.did(number, "await", &[("missing", "户口本"), ("until", "2025-03-14")]).await;
    run_out().await;
    zhao.did(number, "resume", &[]).await;
    let whole = ticket(&gateway, number).await;
    assert_eq!(
        (&whole["overdue"], &whole["due_at"]),
        (&json!(true), &json!("2025-03-19T16:30:00+08:00"))
    );
    assert_eq!(armed(&gateway).await, []);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_6_a_changed_calendar_counts_from_the_end_of_the_pause() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    zhao.did(FIRST, "await", &[("missing", "身份证"), ("until", "")]).await;
    gateway.clock.set(at("2026-12-02 09:00"));
    let zhao = Officer::login(&gateway, "zhao.min").await;
    zhao.did(FIRST, "resume", &[]).await;
    assert_eq!(ticket(&gateway, FIRST).await["due_at"], "2026-12-03T16:30:00+08:00");
    let mut db = gateway.pool.begin().await.unwrap();
    let decision = NewDecision {
        day: "2026-12-03".parse().unwrap(),
        kind: "closed",
        reason: "台风",
        authority: "县政府令〔2026〕1号",
        by: "test",
    };
    let now = gateway.clock.now();
    store::calendar::decide(&mut db, gateway.office, &decision, now).await.unwrap();
    db.commit().await.unwrap();
    let mut db = gateway.pool.acquire().await.unwrap();
    gateway.app.offices.reload(&mut db).await.unwrap();
    let office = gateway.app.offices.get(gateway.office).unwrap();
    let amended = amend::recompute(&gateway.pool, &gateway.clock, &office).await.unwrap();
    assert_eq!((amended.moved, amended.kept), (1, 0));
    assert_eq!(ticket(&gateway, FIRST).await["due_at"], "2026-12-04T16:30:00+08:00");
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_an_officer_hands_up_with_an_opinion_and_the_levels_limits_take_over() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    assert_eq!(armed(&gateway).await, timers(&[(2, "11-25 08:30"), (3, "11-25 16:30")]));
    zhao.did(FIRST, "raise", &[("opinion", "需要中心研究")]).await;
    assert_eq!(armed(&gateway).await, timers(&[(2, "11-27 08:30"), (3, "11-27 16:30")]));
    zhao.did(FIRST, "raise", &[("opinion", "需要党组研究")]).await;
    assert_eq!(armed(&gateway).await, timers(&[(2, "11-30 08:30"), (4, "12-01 16:30")]));
    let top = zhao.does(FIRST, "raise", &[("opinion", "再往上")]).await;
    assert_eq!(top.status, 409);
    assert!(top.text().contains("已经在 5 级"), "{}", top.text());
    let raised = told(&gateway, "raised").await;
    let levels: Vec<&Value> = raised.iter().map(|one| &one["level"]).collect();
    assert_eq!(levels, [&json!(3), &json!(5)]);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
    // Told as when the limit does it: the level's people, and the lead on duty.
    gateway.app.relay.step().await.unwrap();
    let people = "SELECT count(*) FROM notice WHERE title LIKE '%已升级%'";
    assert!(number(&gateway.pool, people).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_a_every_result_carries_what_the_rules_ask_of_it() {
    for (fields, wanted, shown) in [
        (
            &[("outcome", "conditionally_accepted"), ("missing", "照片"), ("until", "2026-12-01")]
                [..],
            json!({ "outcome": "conditionally_accepted", "missing": "照片", "until": "2026-12-01T08:30:00Z" }),
            "容缺受理，12月1日 周二 16:30前补齐：照片",
        ),
        (
            &[("outcome", "refused"), ("basis", "社会保险法第六十三条")],
            json!({ "outcome": "refused", "basis": "社会保险法第六十三条" }),
            "否定备案，依据：社会保险法第六十三条",
        ),
        (
            &[("outcome", "duplicate"), ("of", "bcs-2026-2")],
            json!({ "outcome": "duplicate", "of": "BCS-2026-000002" }),
            "与另一件重复；办理意见：按规定办理 <a href=\"/desk/tickets/BCS-2026-000002\">",
        ),
        (&[("outcome", "out_of_scope")], json!({ "outcome": "out_of_scope" }), "不属于受理范围"),
    ] {
        let gateway = gateway().await;
        let zhao = claimed(&gateway, "zhao.min").await;
        gateway.accept("s2", "门坏了").await;
        let mut form = vec![("opinion", "按规定办理"), ("answer", "")];
        form.extend(fields);
        let page = zhao.did(FIRST, "resolve", &form).await;
        assert!(page.contains(shown), "{shown}: {page}");
        let mut wanted = wanted;
        // Without words of its own, the citizen is told the opinion.
        wanted["answer"] = json!("按规定办理");
        assert_eq!(told(&gateway, "resolved").await, [wanted]);
        assert_eq!(faults(&gateway).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_d_a_number_is_struck_off_after_an_evaluation_or_with_the_reason_why_there_is_none() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    zhao.did(FIRST, "resolve", &[("outcome", "solved"), ("opinion", "已办")]).await;
    for none in [&[][..], &[("reason", "其他"), ("other", " ")], &[("reason", "")]] {
        let wrong = zhao.does(FIRST, "close", none).await;
        assert_eq!(wrong.status, 422, "{}", wrong.text());
        assert!(wrong.text().contains("群众还没有评价"));
    }
    evaluate(&gateway, Evaluation::Dissatisfied).await;
    let page = zhao.page(FIRST).await;
    assert!(page.contains("群众评价：不满意") && page.contains("重新办理"), "{page}");
    zhao.did(FIRST, "reopen", &[("reason", "群众不满意")]).await;
    zhao.did(FIRST, "resolve", &[("outcome", "solved"), ("opinion", "重新办了")]).await;
    evaluate(&gateway, Evaluation::Satisfied).await;
    let page = zhao.did(FIRST, "close", &[]).await;
    assert!(page.contains("已销号") && page.contains("群众评价：满意"), "{page}");
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_up_again_is_listed_and_found_beside_what_the_citizen_began_meanwhile() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    zhao.did(FIRST, "resolve", &[("outcome", "withdrawn"), ("opinion", "撤回")]).await;
    zhao.did(FIRST, "close", &[("reason", "其他"), ("other", "群众当面撤回")]).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    while gateway.app.search.step().await.unwrap().more {}
    gateway.app.search.compare(&mut db).await.unwrap();
    let open = "SELECT count(*) FROM ticket_search WHERE is_open";
    assert_eq!(number(&gateway.pool, open).await, 0);

    // The citizen has begun another one: it is there that their messages go.
    gateway.wechat("oA", "还有一件", "2").await.reply();
    gateway.wechat("oA", "2", "20").await.reply();
    let second = "BCS-2026-000002";
    zhao.did(FIRST, "reopen", &[("reason", "又来了")]).await;
    let grown = gateway.wechat("oA", "窗口在二楼", "21").await.reply();
    assert!(grown.contains(second), "{grown}");
    zhao.did(second, "claim", &[]).await;
    zhao.did(second, "resolve", &[("outcome", "solved"), ("opinion", "已办")]).await;
    zhao.did(second, "close", &[("reason", "群众不愿评价")]).await;
    assert_eq!(number(&gateway.pool, open).await, 1);
    let found = zhao.desk.get("/desk?view=mine&q=%E7%A4%BE%E4%BF%9D%E5%8D%A1").await.text();
    assert!(found.contains(&format!("data-ticket=\"{FIRST}\"")), "{found}");
    assert_eq!(armed(&gateway).await, timers(&[(2, "11-25 08:30"), (3, "11-25 16:30")]));
    gateway.wechat("oA", "谢谢", "3").await.reply();
    assert_eq!(ticket(&gateway, FIRST).await["messages"].as_array().unwrap().len(), 2);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_1_two_matters_in_one_conversation_become_two_numbers_and_what_was_said_stays() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    gateway.clock.set(at("2026-11-24 11:00"));
    gateway.wechat("oA", "另外，失业金没到账", "2").await.reply();
    gateway.wechat("oA", "是十月的", "3").await.reply();
    gateway.clock.set(at("2026-11-25 09:00"));
    let zhao = Officer { desk: Desk::login(&gateway, "zhao.min").await, ..zhao };
    let zhao = Officer { csrf: zhao.desk.csrf().await, ..zhao };
    let seen = zhao.seen(FIRST).await;
    let chosen = [("messages", "3"), ("messages", "4")];
    for _ in 0..2 {
        assert_eq!(zhao.sends(FIRST, "split", &seen, &chosen).await.status, 303);
    }
    let page = zhao.page(FIRST).await;
    assert!(page.contains("把 2 条消息另立一件") && page.contains("（已另立一件）"), "{page}");
    assert!(page.contains("href=\"/desk/tickets/BCS-2026-000002\""), "{page}");
    let second = ticket(&gateway, "BCS-2026-000002").await;
    assert_eq!(kinds(&second), ["registered", "message_received", "spun_off_from", "claimed"]);
    assert_eq!(second["messages"][0]["text"], "另外，失业金没到账");
    assert_eq!(second["messages"][0]["occurred_at"], "2026-11-24T11:00:00+08:00");
    // Accepted when it was said: it is due as if it had been its own from the beginning.
    assert_eq!(second["registered_at"], "2026-11-24T11:00:00+08:00");
    assert_eq!(second["due_at"], "2026-11-25T16:30:00+08:00");
    assert_eq!((&second["accountable"], &second["state"]), (&json!("赵敏"), &json!("accepted")));
    assert_eq!(second["channel"], "wechat");
    let page = zhao.page("BCS-2026-000002").await;
    assert!(page.contains("从另一件拆出") && page.contains("原话 昨天 11:00"), "{page}");
    let told = told(&gateway, "spun_off").await;
    assert_eq!((&told[0]["from"], &told[0]["tell_citizen"]), (&json!(FIRST), &json!(true)));
    assert!(told[0]["text"].as_str().unwrap().contains("编号 BCS-2026-000002"), "{told:?}");
    let from = "SELECT spun_off_from FROM ticket WHERE ticket % 1000000000 = 2";
    assert_eq!(number(&gateway.pool, from).await, 2_026_000_000_001);
    // Not twice, and the first one keeps the citizen's ear.
    let again = zhao.does(FIRST, "split", &[("messages", "4")]).await;
    assert_eq!(again.status, 409);
    assert!(again.text().contains("已经另立一件"), "{}", again.text());
    gateway.wechat("oA", "谢谢", "4").await.reply();
    assert_eq!(ticket(&gateway, FIRST).await["messages"].as_array().unwrap().len(), 4);
    // The register goes on without gap, also for what comes in at the same moment.
    let entry = json!({ "channel": "counter", "citizen": { "name": "李" }, "problem": "门坏了" });
    assert_eq!(gateway.entry("k", &entry).await.json()["number"], "BCS-2026-000003");
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
    while gateway.app.search.step().await.unwrap().more {}
    let found = zhao.desk.get("/desk?view=all&q=%E5%A4%B1%E4%B8%9A%E9%87%91").await.text();
    assert_eq!(found.matches("data-ticket=").count(), 2, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_beside_a_rush_leaves_no_gap_in_the_register() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    for n in 2..=6 {
        gateway.wechat("oA", "还有一件", &n.to_string()).await.reply();
    }
    let rush = async {
        for n in 0..40 {
            gateway.accept(&format!("s{n}"), "灯坏了").await;
        }
    };
    let splits = async {
        for seq in 3..=6 {
            let seq = seq.to_string();
            zhao.did(FIRST, "split", &[("messages", &seq)]).await;
        }
    };
    tokio::join!(rush, splits);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 45);
    assert_eq!(number(&gateway.pool, "SELECT last FROM register").await, 45);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_matter_in_two_tickets_is_struck_off_once_and_goes_on_in_the_other() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    let entry = json!({
        "channel": "counter", "citizen": { "name": "李春梅" }, "problem": "社保卡", "urgent": true,
    });
    gateway.entry("k", &entry).await;
    let second = "BCS-2026-000002";
    let qian = Officer::login(&gateway, "qian.fang").await;
    qian.did(second, "claim", &[]).await;
    let seen = zhao.seen(FIRST).await;
    for _ in 0..2 {
        assert_eq!(zhao.sends(FIRST, "join", &seen, &[("into", " bcs-2026-2")]).await.status, 303);
    }
    let one = ticket(&gateway, FIRST).await;
    assert_eq!(kinds(&one), ["registered", "claimed", "resolved", "closed"]);
    assert_eq!(one["state"], "closed");
    let page = zhao.page(FIRST).await;
    assert!(page.contains("销号（没有评价：并入BCS-2026-000002）"), "{page}");
    let page = qian.page(second).await;
    assert!(page.contains("并入这里办理") && page.contains("社保卡办不了"), "{page}");
    assert_eq!(kinds(&ticket(&gateway, second).await), ["registered", "claimed", "took_in"]);
    assert_eq!(told(&gateway, "joined").await.len(), 1);
    // What the citizen writes now goes to the one that is left.
    gateway.wechat("oA", "卡找到了", "2").await.reply();
    let two = ticket(&gateway, second).await;
    assert_eq!(two["messages"].as_array().unwrap().len(), 2);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
    // Not into what has a result; an unclaimed one is taken up by who joins it.
    gateway.accept("s3", "也是社保卡").await;
    let third = "BCS-2026-000003";
    let ended = qian.does(third, "join", &[("into", FIRST)]).await;
    assert_eq!(ended.status, 409);
    assert!(ended.text().contains("那一件已经有结果"), "{}", ended.text());
    qian.did(third, "join", &[("into", second)]).await;
    let whole = ticket(&gateway, third).await;
    assert_eq!((&whole["accountable"], &whole["state"]), (&json!("钱芳"), &json!("closed")));
    let emergencies = "SELECT count(*) FROM ticket WHERE urgency = 0 AND is_open";
    assert_eq!(number(&gateway.pool, emergencies).await, 1);
    // Both ways at once: one of them, and no deadlock.
    for n in [4, 5] {
        gateway.accept(&format!("s{n}"), "同一件").await;
    }
    let (four, five) = ("BCS-2026-000004", "BCS-2026-000005");
    let (to_five, to_four) = ([("into", five)], [("into", four)]);
    let (a, b) = tokio::join!(zhao.does(four, "join", &to_five), qian.does(five, "join", &to_four));
    let mut both = [a.status, b.status];
    both.sort_unstable();
    assert_eq!(both, [303, 409], "{} {}", a.text(), b.text());
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_the_citizen_is_no_notice_to_the_staff() {
    let gateway = gateway().await;
    let zhao = claimed(&gateway, "zhao.min").await;
    zhao.did(FIRST, "say", &[("text", "您好")]).await;
    zhao.did(FIRST, "await", &[("missing", "身份证"), ("until", "")]).await;
    zhao.did(FIRST, "resolve", &[("outcome", "solved"), ("opinion", "已办")]).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "DELETE FROM outbox WHERE kind = 'registered'; DELETE FROM notice").await;
    gateway.app.relay.step().await.unwrap();
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM notice").await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM outbox WHERE state = 0").await, 0);
    // That it is taken up again is told to who answers for it.
    let qian = Officer::login(&gateway, "qian.fang").await;
    qian.did(FIRST, "reopen", &[("reason", "没有解决")]).await;
    gateway.app.relay.step().await.unwrap();
    let notices = store::notice::list(&mut db, gateway.office, 10).await.unwrap();
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    assert!(notice.title.contains("重新办理"), "{notice:?}");
    assert_eq!(notice.recipients, ["赵敏"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_receive_citizens_looks_on() {
    let gateway = gateway().await;
    claimed(&gateway, "zhao.min").await;
    for login in ["zhou.hong", "wu.gang", "zheng.yu"] {
        let leader = Officer::login(&gateway, login).await;
        let page = leader.page(FIRST).await;
        assert!(!page.contains(&format!("/desk/tickets/{FIRST}/")), "{page}");
        let refused = leader.sends(FIRST, "say", "2", &[("text", "x")]).await;
        assert_eq!(refused.status, 403, "{login}");
    }
    let admin = Desk::login(&gateway, "admin").await;
    assert_eq!(admin.get(&format!("/desk/tickets/{FIRST}")).await.status, 403);
    for login in ["li.qiang", "qian.fang"] {
        let officer = Officer::login(&gateway, login).await;
        officer.did(FIRST, "say", &[("text", login)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_does_what_an_officer_does_and_the_trail_names_it() {
    let gateway = gateway().await;
    gateway.wechat("oA", "社保卡办不了", "1").await.reply();
    let early = api(&gateway, FIRST, "say", json!({ "text": "您好" })).await;
    assert_eq!((early.status, &early.json()["detail"]), (409, &json!("not claimed yet")));
    let zhao = Officer::login(&gateway, "zhao.min").await;
    zhao.did(FIRST, "claim", &[]).await;
    gateway.wechat("oA", "还有失业金", "2").await.reply();
    for (act, body, status) in [
        ("nonsense", json!({}), 404),
        ("say", json!([]), 422),
        ("say", json!({}), 422),
        ("say", json!({ "text": "您好", "to": "x" }), 422),
        ("say", json!({ "text": " " }), 422),
        ("say", json!({ "text": "您好", "seen": "x" }), 422),
        ("say", json!({ "text": "您好", "seen": 1 }), 409),
        ("say", json!({ "text": "您好", "seen": 3 }), 200),
        ("say", json!({ "text": "您好", "seen": 3 }), 200),
        ("await", json!({ "missing": "身份证", "until": "2026-11-28" }), 422),
        ("await", json!({ "missing": "身份证", "until": "2026-11-27" }), 200),
        ("raise", json!({ "opinion": "请研究" }), 409),
        ("resume", json!({}), 200),
        ("resume", json!({}), 409),
        ("triage", json!({ "cause": "citizen" }), 200),
        ("triage", json!({ "cause": "nobody" }), 422),
        ("raise", json!({ "opinion": "请研究" }), 200),
        ("split", json!({ "messages": [3] }), 201),
        ("split", json!({ "messages": [3] }), 409),
        ("split", json!({ "messages": [99] }), 422),
        ("close", json!({}), 409),
        ("resolve", json!({ "outcome": { "refused": {} }, "opinion": "x" }), 422),
        (
            "resolve",
            json!({ "outcome": { "refused": { "basis": "某条" } }, "opinion": "不符" }),
            200,
        ),
        ("resolve", json!({ "outcome": "solved", "opinion": "x" }), 409),
        ("close", json!({}), 422),
        ("close", json!({ "reason": "三次联系不上" }), 200),
        ("reopen", json!({ "reason": "又来了" }), 200),
        ("join", json!({ "into": FIRST }), 422),
        ("join", json!({ "into": "BCS-2026-000002" }), 200),
    ] {
        let answer = api(&gateway, FIRST, act, body.clone()).await;
        assert_eq!(answer.status, status, "{act} {body}: {}", answer.text());
        match status {
            201 => assert_eq!(answer.json()["number"], "BCS-2026-000002"),
            200 => assert_eq!(answer.json()["number"], FIRST),
            _ => assert_eq!(answer.headers["content-type"], "application/problem+json"),
        }
    }
    let whole = ticket(&gateway, FIRST).await;
    assert_eq!(
        kinds(&whole)[3..],
        [
            "told_citizen",
            "awaiting_citizen",
            "resumed",
            "triaged",
            "raised",
            "spun_off",
            "resolved",
            "closed",
            "reopened",
            "resolved",
            "closed",
        ]
    );
    let actors = whole["events"].as_array().unwrap().iter().skip(3);
    assert!(actors.clone().all(|e| e["actor"].as_str().unwrap().starts_with("api:")), "{whole}");
    assert_eq!(
        number_in(&told(&gateway, "joined").await[0]["into"].to_string()),
        "BCS-2026-000002"
    );
    assert_eq!(api(&gateway, "BCS-2026-000009", "say", json!({ "text": "x" })).await.status, 404);
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE api_token SET scopes = '{tickets:read}'").await;
    assert_eq!(api(&gateway, FIRST, "say", json!({ "text": "x" })).await.status, 403);
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
}

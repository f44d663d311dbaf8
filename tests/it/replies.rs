//! Citizens are told by the right path (wechat.md §6.4), through the stand-in for WeChat's platform
//! and an SMS gateway that misbehaves.

use crate::{
    desk::Desk,
    support::{
        Spec, TestGateway, at, database,
        gateway::{Answer, KEY, OFFICE, TOKEN, account},
        number,
        proxy::Proxy,
        robot::{Manner, Robot},
        sql, until,
    },
};
use chrono::TimeDelta;
use futures::future::join_all;
use intake_gateway::{
    gateway::{Gateway, Role},
    housekeeping,
};
use intake_standin_wechat::{
    Act, Consent, Entry, How, NOTICE, NOTICE_LONG_TERM, Settings, StandIn, TEMPLATE_PROGRESS,
};
use intake_wechat::platform::{Field, Openid, Template};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
const SMS_SECRET: &str = "0123456789abcdef";
const KINDS: &str =
    r#"kinds = ["claimed", "raised", "awaiting", "resolved", "said", "reopened", "registered"]"#;

/// A gateway whose account can send, the platform, an SMS gateway.
struct World {
    gateway: TestGateway,
    standin: StandIn,
    sms: Robot,
    openid: String,
}

/// What the settings of an account that sends look like; `templates` as they stand in the file.
fn settings(api: &str, templates: &str) -> String {
    let account = account();
    format!(
        r#"
        [[wechat]]
        office = "{OFFICE}"
        id = "sending"
        app_id = "{}"
        original_id = "{}"
        token = "{TOKEN}"
        encoding_aes_key = "{KEY}"
        [wechat.api]
        secret = "{APP_SECRET}"
        base_url = "{api}"
        open_url = "{api}"
        answer_timeout_s = 2
        {templates}
        "#,
        account.app_id, account.original_id
    )
}

fn template(id: &str, by: &str, fields: &str) -> String {
    format!("[[wechat.api.templates]]\nid = '{id}'\n{by}\n{KINDS}\nfields = {{ {fields} }}\n")
}

fn templates() -> String {
    let two = "character_string1 = 'number', thing2 = 'says'";
    let four = format!("{two}, phrase3 = 'state', time4 = 'date'");
    template(NOTICE, "by = 'notice'", two) + &template(TEMPLATE_PROGRESS, "by = 'template'", &four)
}

impl World {
    async fn at(now: &str) -> Self {
        Self::with(Spec::at(at(now)), &templates(), &[Manner::Says(r#"{"id":"s1"}"#)]).await
    }

    async fn with(spec: Spec, templates: &str, manners: &[Manner]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        let sms = Robot::start(manners).await;
        let text = format!(
            "{}\n[[sms]]\noffice = '{OFFICE}'\nurl = '{}'\nsecret = '{SMS_SECRET}'\nallow_host = '127.0.0.1'\ntimeout_s = 1",
            settings(&api, templates),
            sms.url
        );
        let gateway = spec.with(&text).start().await;
        let standin = {
            let account = account();
            let settings = Settings {
                app_id: account.app_id,
                secret: APP_SECRET.to_owned(),
                original_id: account.original_id,
                token: TOKEN.to_owned(),
                encoding_aes_key: Some(KEY.to_owned()),
                callback: format!("{}/channels/wechat/sending", gateway.base),
                patience: Duration::from_secs(30),
            };
            let clock = gateway.clock.clone();
            StandIn::new(settings, Arc::new(move || clock.now()), &listener).unwrap()
        };
        tokio::spawn(standin.clone().serve(listener));
        let openid = standin.citizens().remove(0);
        Self { gateway, standin, sms, openid }
    }

    /// The citizen writes; returns the ticket's key, once what that allows is noted.
    async fn writes(&self) -> i64 {
        self.standin.act(&self.openid, Act::Text("社保卡补办被退了三次".to_owned())).await;
        let now = self.gateway.clock.now().timestamp();
        let noted = format!(
            "SELECT count(*) FROM wechat_allowance
             WHERE message_until = to_timestamp({now}) + interval '48 hours'"
        );
        until("the act is noted", async || number(&self.gateway.pool, &noted).await == 1).await;
        number(&self.gateway.pool, "SELECT max(ticket) FROM ticket").await
    }

    /// As a desk action does: an effect, in its transaction.
    async fn effect(&self, kind: &str, ticket: i64, data: &Value) {
        effect(&self.gateway, kind, ticket, data).await;
    }

    async fn phone(&self, ticket: i64, phone: &str) {
        let mut db = self.gateway.pool.acquire().await.unwrap();
        let set = format!("UPDATE ticket SET citizen_phone = '{phone}' WHERE ticket = {ticket}");
        sql(&mut db, &set).await;
    }

    async fn step(&self) {
        step(&self.gateway).await;
    }

    async fn later(&self, minutes: i64) {
        let now = self.gateway.clock.now();
        self.gateway.clock.set(now + TimeDelta::minutes(minutes));
    }

    /// Since the citizen's own words, by which way it came and what it said.
    fn told(&self) -> Vec<Entry> {
        let told = |how| matches!(how, How::Custom | How::Template | How::Notice);
        self.standin.talk(&self.openid).into_iter().filter(|entry| told(entry.how)).collect()
    }

    fn ways(&self) -> Vec<How> {
        self.told().into_iter().map(|entry| entry.how).collect()
    }

    async fn shown(&self, ticket: i64) -> Vec<Value> {
        shown(&self.gateway, ticket).await
    }
}

async fn effect(gateway: &TestGateway, kind: &str, ticket: i64, data: &Value) {
    let now = gateway.clock.now();
    sqlx::query(
        "INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
         VALUES ($1, $2, $3, false, $4, $5, $5)",
    )
    .bind(gateway.office.0)
    .bind(kind)
    .bind(ticket)
    .bind(data)
    .bind(now)
    .execute(&gateway.pool)
    .await
    .unwrap();
}

async fn step(gateway: &TestGateway) {
    gateway.app.relay.step().await.unwrap();
    gateway.app.replies.step().await.unwrap();
}

/// The ticket's replies, as the API shows them.
async fn shown(gateway: &TestGateway, ticket: i64) -> Vec<Value> {
    let answer = gateway.api(&format!("/tickets/{}", named(ticket))).await.json();
    answer["replies"].as_array().unwrap().clone()
}

fn named(ticket: i64) -> String {
    format!("BCS-{}-{:06}", ticket / 1_000_000_000, ticket % 1_000_000_000)
}

fn paths(reply: &Value) -> Vec<(&str, &str)> {
    let attempts = reply["attempts"].as_array().unwrap();
    attempts
        .iter()
        .map(|one| (one["path"].as_str().unwrap(), one["outcome"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_written_is_told_by_custom_message_and_two_are_kept_for_the_staff() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    for _ in 0..4 {
        world.effect("claimed", ticket, &json!({})).await;
        world.step().await;
    }
    let custom = [How::Custom; 3];
    assert_eq!(world.ways(), [custom.as_slice(), &[How::Template]].concat());
    let first = world.told().remove(0).text;
    assert!(first.contains("已由工作人员受理"), "{first}");
    assert!(first.contains(&named(ticket)), "{first}");
    assert!(first.contains("最晚11月25日（周三）16:30前答复您"), "{first}");
    // An officer's own words may use the two.
    for n in 0..3 {
        world.effect("said", ticket, &json!({ "text": format!("请来窗口取卡 {n}") })).await;
        world.step().await;
    }
    assert_eq!(world.ways()[4..], [How::Custom, How::Custom, How::Template]);
    assert!(
        world.told()[4].text.contains("关于您反映的事项（编号 BCS-2026-000001）：请来窗口取卡 0")
    );
    // What the citizen writes allows five more.
    world.later(1).await;
    world.writes().await;
    world.effect("resolved", ticket, &json!({ "answer": "卡已制好" })).await;
    world.step().await;
    assert_eq!(world.ways()[7..], [How::Custom]);
    assert!(world.told()[7].text.contains("已有结果：卡已制好。"));
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_d_the_answer_brings_the_grades_and_a_tap_on_one_judges_it() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    let desk = Desk::login(&world.gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    let answer = [("outcome", "solved"), ("opinion", "已制卡"), ("answer", "卡已制好")];
    for (action, form) in [("claim", &answer[..0]), ("resolve", &answer[..])] {
        let page = format!("/desk/tickets/{}", named(ticket));
        let seen = desk.hidden(&page, "seen").await;
        let form = [&[("csrf", csrf.as_str()), ("seen", seen.as_str())], form].concat();
        assert_eq!(desk.post(&format!("{page}/{action}"), &form).await.status, 303, "{action}");
    }
    world.step().await;
    let told = world.told().pop().unwrap();
    assert!(told.text.contains("已有结果：卡已制好。"), "{}", told.text);
    assert_eq!(told.options.len(), 5);
    let (id, words) = told.options[3].clone();
    assert_eq!(words, "不满意");
    world.standin.act(&world.openid, Act::Choose(id, words)).await;
    let judged = "SELECT count(*) FROM ticket WHERE state = 'evaluated'
                  AND state_data ->> 'evaluation' = 'dissatisfied'";
    assert_eq!(number(&world.gateway.pool, judged).await, 1);
    let talk = world.standin.talk(&world.openid);
    assert!(talk.last().unwrap().text.contains("带班领导会看到"), "{talk:?}");
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_days_later_it_is_a_template_message_and_its_receipt_says_that_it_arrived() {
    for receipts_first in [true, false] {
        let world = World::at("2026-11-24 09:00").await;
        let ticket = world.writes().await;
        world.gateway.clock.set(at("2026-11-26 09:01"));
        world.standin.switch(|s| s.receipts_first = receipts_first);
        for n in 0..2 {
            world.effect("said", ticket, &json!({ "text": format!("请来取卡 {n}") })).await;
        }
        world.step().await;
        assert_eq!(world.ways(), [How::Template; 2]);
        let told = world.told().remove(0).text;
        assert!(told.contains(&format!("{}\n请来取卡", named(ticket))), "{told}");
        // Whether the receipt overtook the answer or not.
        until("both have arrived", async || {
            world.shown(ticket).await.iter().all(|reply| {
                reply["state"] == "sent" && reply["attempts"][1]["delivery"] == "arrived"
            })
        })
        .await;
        assert_eq!(
            paths(&world.shown(ticket).await[0]),
            [("custom", "over"), ("template", "taken")]
        );
        world.gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_citizen_blocks_goes_by_text_message_though_the_receipt_came_before_the_answer() {
    for receipts_first in [true, false] {
        let world = World::at("2026-11-24 09:00").await;
        let ticket = world.writes().await;
        world.phone(ticket, "139-0000-1234").await;
        world.gateway.clock.set(at("2026-11-26 09:01"));
        world.standin.act(&world.openid, Act::Block(true)).await;
        world.standin.switch(|s| s.receipts_first = receipts_first);
        world.effect("resolved", ticket, &json!({ "answer": "卡已制好" })).await;
        until("it is sent by text message", async || {
            world.step().await;
            world.sms.came().len() == 1
        })
        .await;
        let reply = world.shown(ticket).await.remove(0);
        assert_eq!(
            paths(&reply),
            [("custom", "over"), ("template", "taken"), ("sms", "taken")],
            "{reply}"
        );
        assert_eq!(reply["attempts"][1]["delivery"], "refused");
        let came = world.sms.came().remove(0);
        let said = came.json();
        assert_eq!(said["to"], "13900001234");
        assert!(said["text"].as_str().unwrap().contains("已有结果：卡已制好"), "{said}");
        let stamp = came.headers["x-intake-timestamp"].to_str().unwrap();
        let signed =
            intake_notify::webhook_signature(SMS_SECRET, stamp.parse().unwrap(), &came.body);
        assert_eq!(came.headers["x-intake-signature"].to_str().unwrap(), signed);
        assert_eq!(came.headers["idempotency-key"].to_str().unwrap(), said["id"]);
        world.gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_is_used_once_and_what_the_platform_refuses_goes_by_the_next_path() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    let consents = "SELECT sum(remaining) FROM wechat_consent";
    for _ in 0..2 {
        world.later(1).await;
        world.standin.act(&world.openid, Act::Consent(NOTICE.to_owned(), Consent::Give)).await;
    }
    assert_eq!(number(&world.gateway.pool, consents).await, 2);
    world.gateway.clock.set(at("2026-11-26 09:05"));
    world.effect("said", ticket, &json!({ "text": "请来取卡" })).await;
    world.step().await;
    assert_eq!(world.ways(), [How::Notice]);
    assert_eq!(number(&world.gateway.pool, consents).await, 1);
    // 43101: there is one left here and none there.
    world.standin.switch(|s| s.next_codes.push_back(43_101));
    world.effect("said", ticket, &json!({ "text": "还有一份材料" })).await;
    world.step().await;
    assert_eq!(world.ways(), [How::Notice, How::Template]);
    let refused = &world.shown(ticket).await[1]["attempts"][1];
    assert_eq!((&refused["path"], &refused["code"]), (&json!("notice"), &json!(43_101)));
    assert_eq!(number(&world.gateway.pool, consents).await, 0);
    // Taken back in the settings.
    world.standin.act(&world.openid, Act::Consent(NOTICE.to_owned(), Consent::Give)).await;
    world.later(1).await;
    world.standin.act(&world.openid, Act::Consent(NOTICE.to_owned(), Consent::Revoke)).await;
    assert_eq!(number(&world.gateway.pool, consents).await, 0);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_term_consent_is_used_again_and_again() {
    let fields = "character_string1 = 'number', thing2 = 'says'";
    let by = "by = 'notice'\nlong_term = true";
    let templates = template(NOTICE_LONG_TERM, by, fields);
    let manners = [Manner::Says("{}")];
    let world = World::with(Spec::at(at("2026-11-24 09:00")), &templates, &manners).await;
    let ticket = world.writes().await;
    let long_term = NOTICE_LONG_TERM.to_owned();
    world.standin.act(&world.openid, Act::Consent(long_term, Consent::Give)).await;
    world.gateway.clock.set(at("2026-11-26 09:05"));
    for n in 0..3 {
        world.effect("said", ticket, &json!({ "text": format!("进展 {n}") })).await;
        world.step().await;
    }
    assert_eq!(world.ways(), [How::Notice; 3]);
    world.gateway.stop().await;
}

/// §0, §4: a consent event as the platform delivers it.
fn consent_event(openid: &str, second: i64, items: &[(&str, &str)]) -> String {
    let list: String = items
        .iter()
        .map(|(template, status)| {
            format!("<List><TemplateId>{template}</TemplateId><SubscribeStatusString>{status}</SubscribeStatusString><PopupScene>2</PopupScene></List>")
        })
        .collect();
    format!(
        "<xml><ToUserName>{}</ToUserName><FromUserName>{openid}</FromUserName><CreateTime>{second}</CreateTime><MsgType>event</MsgType><Event>subscribe_msg_popup_event</Event><SubscribeMsgPopupEvent>{list}</SubscribeMsgPopupEvent></xml>",
        account().original_id
    )
}

async fn deliver(gateway: &TestGateway, xml: &str) -> Answer {
    let (query, body) = gateway.callback(xml);
    gateway.post(&format!("/channels/wechat/sending?{query}"), &[], body.into_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn consents_of_one_second_are_all_counted_and_a_repeated_delivery_counts_once() {
    let world = World::at("2026-11-24 09:00").await;
    let gateway = &world.gateway;
    let now = gateway.clock.now().timestamp();
    let one = consent_event("oC1", now, &[("A", "accept")]);
    let other = consent_event("oC1", now, &[("B", "accept"), ("C", "reject")]);
    let both = consent_event("oC1", now + 1, &[("A", "accept"), ("B", "accept")]);
    let deliveries = [&one, &other, &one, &both, &other, &both].map(|xml| deliver(gateway, xml));
    for answer in join_all(deliveries).await {
        assert_eq!((answer.status, answer.text().as_str()), (200, "success"));
    }
    for (template, left) in [("A", 2), ("B", 2)] {
        let count =
            format!("SELECT remaining FROM wechat_consent WHERE template_id = '{template}'");
        assert_eq!(number(&gateway.pool, &count).await, left, "{template}");
    }
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM wechat_consent").await, 2);
    // Remembered for as long as a platform may repeat itself.
    gateway.clock.set(at("2026-11-30 09:00"));
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM heard").await, 5);
    gateway.clock.set(at("2026-12-02 09:00"));
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM heard").await, 0);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_answered_after_it_is_kept_and_asked_for_again_when_it_cannot_be() {
    let url = database().await;
    let (proxy, through) = Proxy::of_database(&url).await;
    let spec = Spec::at(at("2026-11-24 09:00")).on(&through);
    let world = World::with(spec, &templates(), &[Manner::Says("{}")]).await;
    let gateway = &world.gateway;
    let xml = consent_event("oC1", gateway.clock.now().timestamp(), &[("A", "accept")]);
    proxy.cut();
    let answer = deliver(gateway, &xml).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["retry-after"], "5");
    proxy.mend();
    until("it is kept", async || deliver(gateway, &xml).await.status == 200).await;
    let direct = sqlx::PgPool::connect(&url).await.unwrap();
    assert_eq!(number(&direct, "SELECT remaining FROM wechat_consent").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_is_not_written_to_on_wechat_and_the_platform_is_not_asked() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    world.phone(ticket, "13900001234").await;
    world.standin.act(&world.openid, Act::Consent(NOTICE.to_owned(), Consent::Give)).await;
    world.later(1).await;
    world.standin.act(&world.openid, Act::Unfollow).await;
    world.effect("resolved", ticket, &json!({ "answer": "卡已制好" })).await;
    world.step().await;
    assert_eq!(world.ways(), []);
    assert_eq!(world.sms.came().len(), 1);
    for call in ["stable_token", "message/custom/send", "message/template/send"] {
        assert_eq!(world.standin.calls(call), 0, "{call}");
    }
    assert_eq!(number(&world.gateway.pool, "SELECT count(*) FROM wechat_consent").await, 0);
    // Back again: the account is the first path once more.
    world.later(1).await;
    world.standin.act(&world.openid, Act::Follow(None)).await;
    until("it is noted that they are back", async || {
        let back = "SELECT count(*) FROM wechat_leaving WHERE back_at > left_at";
        number(&world.gateway.pool, back).await == 1
    })
    .await;
    world.effect("said", ticket, &json!({ "text": "请来取卡" })).await;
    world.step().await;
    assert_eq!(world.ways(), [How::Custom]);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_accounts_quota_is_used_up_a_text_message_goes_at_once() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    world.phone(ticket, "13900001234").await;
    world.standin.switch(|s| s.quota_reached = true);
    world.effect("resolved", ticket, &json!({ "answer": "卡已制好" })).await;
    world.step().await;
    assert_eq!(world.sms.came().len(), 1);
    let reply = world.shown(ticket).await.remove(0);
    assert_eq!(paths(&reply), [("custom", "over"), ("template", "over"), ("sms", "taken")]);
    assert_eq!(reply["attempts"][0]["code"], 45_009);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_is_renewed_and_the_message_goes_once() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    for n in 0..3 {
        world.effect("said", ticket, &json!({ "text": format!("进展 {n}") })).await;
        world.step().await;
        world.standin.expire_tokens();
    }
    assert_eq!(world.ways(), [How::Custom; 3]);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_platform_is_tried_for_half_an_hour_then_a_text_message_goes() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    world.phone(ticket, "13900001234").await;
    world.standin.switch(|s| s.busy = true);
    world.effect("resolved", ticket, &json!({ "answer": "卡已制好" })).await;
    world.step().await;
    assert_eq!(world.shown(ticket).await[0]["state"], "pending");
    world.later(1).await;
    world.step().await;
    world.standin.switch(|s| s.busy = false);
    world.later(1).await;
    world.step().await;
    assert_eq!(world.ways(), [How::Custom], "it recovered in time");
    let reply = world.shown(ticket).await.remove(0);
    assert_eq!(paths(&reply), [("custom", "later"), ("custom", "later"), ("custom", "taken")]);

    world.standin.switch(|s| s.busy = true);
    world.effect("said", ticket, &json!({ "text": "请来取卡" })).await;
    let mut minutes = 0;
    while world.sms.came().is_empty() {
        world.step().await;
        world.later(1).await;
        minutes += 1;
        assert!(minutes < 90, "no text message");
    }
    // Half an hour for each of the two paths on WeChat.
    assert!((50..=70).contains(&minutes), "{minutes}");
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_hangs_touches_no_callback_and_no_other_citizen() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    world.phone(ticket, "13900001234").await;
    world.standin.switch(|s| s.hangs = true);
    world.effect("resolved", ticket, &json!({ "answer": "卡已制好" })).await;
    let other = world.gateway.accept("s1", "灯坏了").await.ticket().unwrap().as_i64();
    world.effect("resolved", other, &json!({ "answer": "已修好" })).await;
    world.gateway.app.relay.step().await.unwrap();
    let replies = Arc::clone(&world.gateway.app.replies);
    let stepping = tokio::spawn(async move { replies.step().await.unwrap() });
    until("both are under way", async || {
        let began = "SELECT count(*) FROM reply_attempt";
        number(&world.gateway.pool, began).await == 2
    })
    .await;
    let began = std::time::Instant::now();
    for n in 0..5 {
        let (query, body) = world.gateway.callback(&crate::support::gateway::wechat_sender().text(
            "oOther",
            "灯坏了",
            &format!("h{n}"),
            world.gateway.clock.now().timestamp(),
        ));
        let path = format!("/channels/wechat/sending?{query}");
        assert_eq!(world.gateway.post(&path, &[], body.into_bytes()).await.status, 200);
    }
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(!stepping.is_finished(), "the platform still hangs");
    until("the other one is told", async || world.sms.came().len() == 1).await;
    stepping.await.unwrap();
    // No token was had, so nothing was sent: it is tried again, once the platform answers.
    world.standin.switch(|s| s.hangs = false);
    world.later(1).await;
    world.step().await;
    assert_eq!(world.ways(), [How::Custom]);
    let left = "SELECT message_left FROM wechat_allowance WHERE openid LIKE 'oStandIn%'";
    assert_eq!(number(&world.gateway.pool, left).await, 4, "what was not sent is given back");
    world.gateway.stop().await;
}

/// The process dies after it called the platform and before it wrote down the answer.
async fn dies_in_the_middle(world: &World, calls: &str) {
    world.gateway.app.relay.step().await.unwrap();
    world.standin.switch(|s| s.hangs = true);
    let replies = Arc::clone(&world.gateway.app.replies);
    let dying = tokio::spawn(async move { replies.step().await });
    until("the platform is asked", async || {
        world.standin.calls(calls) > 0 && world.standin.hanging() > 0
    })
    .await;
    dying.abort();
    let _ = dying.await;
    until("the call is given up", async || world.standin.hanging() == 0).await;
    world.standin.switch(|s| s.hangs = false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_while_sending_neither_loses_nor_doubles_a_template_message() {
    for had_sent in [true, false] {
        let world = World::at("2026-11-24 09:00").await;
        let ticket = world.writes().await;
        world.effect("said", ticket, &json!({ "text": "有了令牌" })).await;
        world.step().await;
        world.gateway.clock.set(at("2026-11-26 09:05"));
        world.effect("said", ticket, &json!({ "text": "请来取卡" })).await;
        dies_in_the_middle(&world, "message/template/send").await;
        let state = "SELECT count(*) FROM reply_attempt WHERE outcome = 'under_way'";
        assert_eq!(number(&world.gateway.pool, state).await, 1);
        if had_sent {
            let account =
                world.gateway.app.accounts.get(world.gateway.office, "wechat:sending").unwrap();
            let id = number(&world.gateway.pool, "SELECT max(reply_id) FROM reply").await;
            let fields = [
                Field::text("character_string1", &named(ticket)).unwrap(),
                Field::text("thing2", "请来取卡").unwrap(),
                Field::text("phrase3", "有新回复").unwrap(),
                Field::at("time4", world.gateway.clock.now()),
            ];
            let to = Openid::new(&world.openid);
            let template =
                Template { to: &to, template_id: TEMPLATE_PROGRESS, link: None, fields: &fields };
            let id = format!("reply-{OFFICE}-{id}");
            account.platform.send_template(template, &id).await.unwrap();
        }
        // Held until the lease ends.
        world.step().await;
        let before = if had_sent { 2 } else { 1 };
        assert_eq!(world.told().len(), before);
        world.later(4).await;
        world.step().await;
        assert_eq!(world.ways(), [How::Custom, How::Template]);
        let reply = world.shown(ticket).await.remove(1);
        assert_eq!(reply["state"], "sent");
        let paths = paths(&reply);
        assert_eq!((paths[0], paths[2]), (("custom", "over"), ("template", "taken")));
        // What was sent may have had its receipt meanwhile, which says that it was.
        let settled = had_sent && paths[1] == ("template", "taken");
        assert!(settled || paths[1] == ("template", "uncertain"), "{paths:?}");
        world.gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_message_that_may_have_been_sent_is_not_repeated_and_after_ten_minutes_goes_another_way()
 {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    world.effect("said", ticket, &json!({ "text": "请来取卡" })).await;
    dies_in_the_middle(&world, "stable_token").await;
    for (minutes, told) in [(4, 0), (5, 0), (2, 1)] {
        world.later(minutes).await;
        world.step().await;
        assert_eq!(world.told().len(), told);
    }
    assert_eq!(world.ways(), [How::Template]);
    let reply = world.shown(ticket).await.remove(0);
    assert_eq!(paths(&reply), [("custom", "uncertain"), ("template", "taken")]);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_settles_a_notice_whose_sending_was_never_answered() {
    let world = World::at("2026-11-24 09:00").await;
    let ticket = world.writes().await;
    world.standin.act(&world.openid, Act::Consent(NOTICE.to_owned(), Consent::Give)).await;
    world.gateway.clock.set(at("2026-11-26 09:05"));
    world.effect("said", ticket, &json!({ "text": "请来取卡" })).await;
    dies_in_the_middle(&world, "stable_token").await;
    world.later(4).await;
    world.step().await;
    let reply = world.shown(ticket).await.remove(0);
    assert_eq!(reply["state"], "pending", "in doubt: {reply}");
    let receipt = format!(
        "<xml><ToUserName>{}</ToUserName><FromUserName>{}</FromUserName><CreateTime>{}</CreateTime><MsgType>event</MsgType><Event>subscribe_msg_sent_event</Event><SubscribeMsgSentEvent><List><TemplateId>{NOTICE}</TemplateId><MsgID>3557254367693750277</MsgID><ErrorCode>0</ErrorCode><ErrorStatus>success</ErrorStatus></List></SubscribeMsgSentEvent></xml>",
        account().original_id,
        world.openid,
        world.gateway.clock.now().timestamp()
    );
    for _ in 0..2 {
        assert_eq!(deliver(&world.gateway, &receipt).await.text(), "success");
    }
    let reply = world.shown(ticket).await.remove(0);
    assert_eq!(reply["state"], "sent");
    assert_eq!(reply["attempts"][1]["delivery"], "arrived");
    world.later(30).await;
    world.step().await;
    assert_eq!(world.told().len(), 0, "no second one");
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_message_is_repeated_under_one_identity_until_it_is_taken() {
    let manners = [Manner::Hangs, Manner::Fails(503, Some(90)), Manner::Says("ok")];
    let world = World::with(Spec::at(at("2026-11-24 09:00")), &templates(), &manners).await;
    let ticket = world.gateway.accept("s1", "灯坏了").await.ticket().unwrap().as_i64();
    world
        .effect(
            "awaiting",
            ticket,
            &json!({ "missing": "身份证", "until": "2026-11-30T16:30:00+08:00" }),
        )
        .await;
    for _ in 0..3 {
        world.step().await;
        world.later(2).await;
    }
    let came = world.sms.came();
    assert_eq!(came.len(), 3);
    assert!(came.iter().all(|one| one.body == came[0].body));
    let text = came[0].json()["text"].as_str().unwrap().to_owned();
    assert!(text.contains("还需要您补充：身份证。请在11月30日（周一）16:30前补齐"), "{text}");
    let reply = world.shown(ticket).await.remove(0);
    assert_eq!((reply["state"].as_str(), reply["kind"].as_str()), (Some("sent"), Some("awaiting")));
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_paths_fail_the_ticket_says_whom_to_telephone_and_what_to_say() {
    let manners = [Manner::Fails(400, None)];
    let world = World::with(Spec::at(at("2026-11-24 09:00")), &templates(), &manners).await;
    let ticket = world.writes().await;
    world.phone(ticket, "13900001234").await;
    world.standin.act(&world.openid, Act::Unfollow).await;
    world.effect("resolved", ticket, &json!({ "answer": "卡已制好" })).await;
    world.effect("claimed", ticket, &json!({})).await;
    world.step().await;
    world.step().await;
    let replies = world.shown(ticket).await;
    assert_eq!(replies[0]["state"], "call");
    // That somebody has taken it up is not worth a telephone call.
    assert_eq!(replies[1]["state"], "failed");
    // The staff are told, of this and of nothing that only the citizen is told.
    let titles = "SELECT string_agg(title, '|' ORDER BY notice_id) FROM notice";
    let titles: String = sqlx::query_scalar(titles).fetch_one(&world.gateway.pool).await.unwrap();
    assert_eq!(titles.matches("请打电话告诉群众").count(), 1, "{titles}");
    assert!(!titles.contains("有变化"), "{titles}");

    let desk = Desk::login(&world.gateway, "zhao.min").await;
    let path = format!("/desk/tickets/{}", named(ticket));
    let page = desk.get(&path).await.text();
    assert!(page.contains("请打电话告诉群众") && page.contains("tel:13900001234"), "{page}");
    assert!(page.contains("已有结果：卡已制好。"), "{page}");
    assert!(page.contains("对方没有收下（400），请管理员检查"), "{page}");
    let csrf = desk.csrf().await;
    let reply = number(&world.gateway.pool, "SELECT min(reply_id) FROM reply").await;
    let form = format!("{path}/replies/{reply}/called");
    for _ in 0..2 {
        let answer = desk.post(&form, &[("csrf", &csrf)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
    }
    let page = desk.get(&path).await.text();
    assert!(page.contains("赵敏已打电话告诉群众") && !page.contains("tel:"), "{page}");
    let replies = world.shown(ticket).await;
    assert_eq!(
        (&replies[0]["state"], &replies[0]["called_by"]),
        (&json!("called"), &json!("赵敏"))
    );
    // An officer who receives nobody does not put it down.
    let lead = Desk::login(&world.gateway, "wu.gang").await;
    let csrf = lead.csrf().await;
    assert_eq!(lead.post(&form, &[("csrf", &csrf)]).await.status, 403);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_again_is_told_what_somebody_was_to_telephone_about() {
    let world = World::with(Spec::at(at("2026-11-24 09:00")), "", &[]).await;
    let ticket = world.writes().await;
    world.gateway.clock.set(at("2026-11-26 09:01"));
    world.effect("said", ticket, &json!({ "text": "卡已制好" })).await;
    world.step().await;
    assert_eq!(world.shown(ticket).await[0]["state"], "call");
    world.writes().await;
    until("it is to be sent", async || world.shown(ticket).await[0]["state"] == "pending").await;
    world.step().await;
    assert_eq!(world.shown(ticket).await[0]["state"], "sent");
    assert!(world.told()[0].text.contains("卡已制好"));
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_office_that_can_send_nothing_telephones() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    let number_said = gateway.wechat("oA", "灯坏了", "1").await.number();
    let ticket = number(&gateway.pool, "SELECT max(ticket) FROM ticket").await;
    effect(&gateway, "said", ticket, &json!({ "text": "请来窗口" })).await;
    step(&gateway).await;
    let reply = shown(&gateway, ticket).await.remove(0);
    assert_eq!(
        (reply["state"].as_str(), reply["attempts"].as_array().map(Vec::len)),
        (Some("call"), Some(0))
    );
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get(&format!("/desk/tickets/{number_said}")).await.text();
    assert!(page.contains("没有留电话：群众再联系时，请当面告诉"), "{page}");
    // Of an account that sends nothing, nothing is kept.
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM wechat_allowance").await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn officers_words_go_at_any_hour_and_what_happens_by_itself_waits_for_the_day() {
    let world = World::at("2026-11-24 22:00").await;
    let ticket = world.writes().await;
    world.effect("said", ticket, &json!({ "text": "请明天带身份证来" })).await;
    let registered = json!({ "tell_citizen": true });
    world.effect("registered", ticket, &registered).await;
    world
        .effect("raised", ticket, &json!({ "level": 3, "due_at": "2026-11-27T16:30:00+08:00" }))
        .await;
    world.effect("date_kept", ticket, &json!({ "tell_citizen": false })).await;
    world.step().await;
    assert_eq!(world.told().len(), 1);
    assert!(world.told()[0].text.contains("请明天带身份证来"));
    for (time, told, says) in [
        ("2026-11-25 07:59", 1, ""),
        ("2026-11-25 08:00", 2, "已登记"),
        ("2026-11-25 08:29", 2, ""),
        ("2026-11-25 08:30", 3, "已报请中心领导处理，最晚11月27日（周五）16:30前答复您"),
    ] {
        world.gateway.clock.set(at(time));
        world.step().await;
        assert_eq!(world.told().len(), told, "{time}");
        assert!(world.told()[told - 1].text.contains(says), "{time}: {:?}", world.told());
    }
    assert_eq!(world.shown(ticket).await.len(), 3);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_by_the_time_it_can_be_told_is_not_told() {
    let world = World::at("2026-11-24 22:00").await;
    let ticket = world.writes().await;
    let registered = json!({ "tell_citizen": true, "asks": true });
    world.effect("registered", ticket, &registered).await;
    world.step().await;
    // Given meanwhile, it is not asked for in the morning.
    let mut db = world.gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE ticket SET citizen_name = '王芳', citizen_phone = '13900001234'").await;
    world.gateway.clock.set(at("2026-11-25 08:00"));
    world.step().await;
    assert_eq!(world.told().len(), 1);
    let told = &world.told()[0].text;
    assert!(told.contains("已登记") && !told.contains("姓名"), "{told}");

    // Withdrawn in the night: nobody is told in the morning that work begins.
    world.gateway.clock.set(at("2026-11-25 22:00"));
    world.effect("registered", ticket, &registered).await;
    world.step().await;
    let state = "UPDATE ticket SET state = 'resolved', outcome = 'withdrawn', state_data =
                 '{\"outcome\": {\"outcome\": \"withdrawn\"}, \"opinion\": \"\", \"answer\": \"\"}'";
    sql(&mut db, state).await;
    world.gateway.clock.set(at("2026-11-26 08:00"));
    world.step().await;
    assert_eq!(world.told().len(), 1);

    // Asked for, and brought before anybody could be told.
    let awaiting = "UPDATE ticket SET state = 'awaiting_citizen', outcome = NULL, state_data =
        '{\"missing\": \"身份证\", \"until\": \"2026-11-27T08:30:00Z\", \"units\": []}',
        material_came_at = '2026-11-26 08:05+08'";
    sql(&mut db, awaiting).await;
    let asked = json!({ "missing": "身份证", "until": "2026-11-27T16:30:00+08:00" });
    world.effect("awaiting", ticket, &asked).await;
    sql(&mut db, "UPDATE outbox SET created_at = '2026-11-26 07:30+08' WHERE kind = 'awaiting'")
        .await;
    world.gateway.app.relay.step().await.unwrap();
    world.gateway.clock.set(at("2026-11-26 08:30"));
    world.step().await;
    assert_eq!(world.told().len(), 1, "{:?}", world.told());
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_tell_each_thing_once() {
    let world = World::at("2026-11-24 09:00").await;
    let mut tickets = Vec::new();
    for n in 0..12 {
        let accepted = world.gateway.accept(&format!("s{n}"), "灯坏了").await;
        tickets.push(accepted.ticket().unwrap().as_i64());
    }
    for ticket in &tickets {
        world.effect("said", *ticket, &json!({ "text": "请来窗口" })).await;
    }
    let config = crate::support::gateway::config(
        &world.gateway.database_url,
        &crate::support::redis_url(),
        "t",
        &format!(
            "[[sms]]\noffice = '{OFFICE}'\nurl = '{}'\nsecret = '{SMS_SECRET}'\nallow_host = '127.0.0.1'",
            world.sms.url
        ),
    );
    let pool = intake_gateway::gateway::connect(&config).await.unwrap();
    let other = Gateway::new(&config, pool, world.gateway.clock.clone()).await.unwrap();
    let apps = [Arc::clone(&world.gateway.app), Arc::clone(&other.app)];
    let steps = apps.iter().cycle().take(8).map(|app| async {
        app.relay.step().await.unwrap();
        app.replies.step().await.unwrap();
    });
    join_all(steps).await;
    let mut ids: Vec<String> =
        world.sms.came().iter().map(|one| one.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), tickets.len());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), tickets.len());
    let sent = "SELECT count(*) FROM reply WHERE state = 'sent'";
    assert_eq!(number(&world.gateway.pool, sent).await, 12);
    other.close().await;
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_one_ticket_is_told_in_its_order_by_the_workers_themselves() {
    let spec = Spec::at(at("2026-11-24 09:00")).role(Role::All).with("[relay]\nlook_every_s = 1");
    let world = World::with(spec, &templates(), &[Manner::Says("{}")]).await;
    let ticket = world.writes().await;
    for n in 0..5 {
        world.effect("said", ticket, &json!({ "text": format!("第 {n} 句") })).await;
    }
    until("all are told", async || world.told().len() == 5).await;
    for (n, told) in world.told().iter().enumerate() {
        assert!(told.text.contains(&format!("第 {n} 句")), "{}", told.text);
    }
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wrote_while_the_database_was_away_is_told_the_number_once() {
    let url = database().await;
    let (proxy, through) = Proxy::of_database(&url).await;
    let folder = format!("{}/told-{}", env!("CARGO_TARGET_TMPDIR"), &url[url.len() - 12..]);
    let spec = Spec::at(at("2026-11-28 22:14")).on(&through);
    let spool = format!("[spool]\nfolder = '{folder}'\n");
    let world = World::with(spec.with(&spool), &templates(), &[Manner::Says("{}")]).await;
    proxy.cut();
    for words in ["社保卡补办被退了三次", "原件都带齐了", "窗口说系统里没有"]
    {
        world.standin.act(&world.openid, Act::Text(words.to_owned())).await;
    }
    let talk = world.standin.talk(&world.openid);
    assert!(talk.last().unwrap().text.contains("编号和答复时间随后告诉您"), "{talk:?}");
    world.later(5).await;
    proxy.mend();
    let allowed = "SELECT count(*) FROM wechat_allowance";
    until("it is drained, and they may be written to", async || {
        let waits = world.gateway.app.spool.standing().await.unwrap().waiting;
        waits == 0 && number(&world.gateway.pool, allowed).await == 1
    })
    .await;
    // At night, because they have just written; with the weekend's dates.
    world.step().await;
    world.step().await;
    let told = world.told();
    assert_eq!(told.iter().map(|entry| entry.how).collect::<Vec<_>>(), [How::Custom]);
    let text = &told[0].text;
    assert!(text.contains("您发来的内容已登记，编号 BCS-2026-000001"), "{text}");
    assert!(text.contains("11月30日（周一）8:30开始办理"), "{text}");
    assert!(text.contains("最晚12月1日（周二）16:30前答复您"), "{text}");
    // The same again tells nothing.
    world.later(1).await;
    proxy.cut();
    world.standin.act(&world.openid, Act::Text("补充一句".to_owned())).await;
    proxy.mend();
    until("it is drained", async || world.gateway.app.spool.standing().await.unwrap().waiting == 0)
        .await;
    world.step().await;
    assert_eq!(world.told().len(), 2, "once for each time that the number was promised");
    // Who is told in the morning only is told, though the matter waits for them by then; no date.
    world.later(1).await;
    proxy.cut();
    world.standin.act(&world.openid, Act::Text("材料这就补".to_owned())).await;
    world.gateway.clock.set(at("2026-11-28 23:50"));
    proxy.mend();
    until("it is drained", async || world.gateway.app.spool.standing().await.unwrap().waiting == 0)
        .await;
    world.step().await;
    assert_eq!(world.told().len(), 2, "not in the night");
    let mut db = world.gateway.pool.acquire().await.unwrap();
    sql(
        &mut db,
        "UPDATE ticket SET state = 'awaiting_citizen', state_data =
            '{\"missing\": \"身份证\", \"until\": \"2026-12-02T08:30:00Z\", \"units\": []}'",
    )
    .await;
    drop(db);
    world.gateway.clock.set(at("2026-11-29 08:01"));
    world.step().await;
    world.step().await;
    let told = world.told();
    let text = &told.last().unwrap().text;
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(text.lines().next(), Some("您好，您发来的内容已登记，编号 BCS-2026-000001。"));
    world.gateway.stop().await;
}

//! The citizens' pages, as a telephone without scripts sees them.

use crate::{
    browser::{Driver, appears},
    desk::Desk,
    support::{
        Spec, TestGateway, at,
        gateway::{Answer, KEY, OFFICE, TOKEN, account},
        number, sql,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_gateway::{
    citizen::{self, CitizenError},
    domain::{
        event::{Actor, Happened},
        id::StaffId,
        register::RegisterNumber,
        ticket::{Evaluation, NotAllowed, Outcome, Ticket},
    },
    store, verify,
};
use intake_standin_wechat::{Settings, StandIn};
use serde_json::json;
use sqlx::Connection;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JPEG: &[u8] = &[0xFF, 0xD8, 0xFF, 0xE0, 0, 16, b'J', b'F', b'I', b'F', 0];
const PDF: &[u8] = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n";

async fn gateway() -> TestGateway {
    Spec::at(at("2026-11-24 09:10")).start().await
}

fn encode(form: &[(&str, &str)]) -> Vec<u8> {
    let escape = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    let pairs: Vec<_> = form.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
    pairs.join("&").into_bytes()
}

/// A form with files, as a browser sends it.
fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file
            .map(|file| format!("; filename=\"{file}\"\r\nContent-Type: application/octet-stream"));
        let head = format!(
            "--x0x0\r\nContent-Disposition: form-data; name=\"{name}\"{}\r\n\r\n",
            file.unwrap_or_default()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x0x0--\r\n");
    ("multipart/form-data; boundary=x0x0".to_owned(), body)
}

impl TestGateway {
    async fn see(&self, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.base));
        Answer::of(request.send().await.unwrap()).await
    }

    async fn fill_in(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.post(path, &[FORM], encode(form)).await
    }

    async fn send_up(&self, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
        let (kind, body) = multipart(parts);
        self.post(&format!("{path}/more"), &[("content-type", &kind)], body).await
    }

    /// A ticket of the counter, and the way to its page.
    async fn ticket(&self, key: &str) -> (RegisterNumber, String) {
        let entry = json!({ "channel": "counter", "problem": "失业登记被退回三次",
            "citizen": { "name": "李春梅", "phone": "13900001234" } });
        let answer = self.entry(key, &entry).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let number = RegisterNumber::parse(&answer.number(), "BCS").unwrap();
        (number, self.link(number))
    }

    fn link(&self, ticket: RegisterNumber) -> String {
        self.app.citizen.links.path(self.office, ticket, self.clock.now()).unwrap()
    }

    async fn step(
        &self,
        ticket: RegisterNumber,
        step: impl FnOnce(&mut Ticket) -> Result<Happened, NotAllowed>,
    ) {
        let mut db = self.pool.acquire().await.unwrap();
        let mut transaction = db.begin().await.unwrap();
        let mut locked =
            store::ticket::lock(&mut transaction, self.office, ticket).await.unwrap().unwrap();
        let happened = step(&mut locked.ticket).unwrap();
        let (by, at) = (Actor::Staff(StaffId(1)), self.clock.now());
        store::ticket::write(&mut transaction, &mut locked, by, &happened, at).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn resolve(&self, ticket: RegisterNumber) {
        self.step(ticket, |t| t.claim(StaffId(1))).await;
        self.step(ticket, |t| t.resolve(Outcome::Solved, "内部意见：已补办", "已为您补办")).await;
    }

    async fn verified(&self) {
        let mut db = self.pool.acquire().await.unwrap();
        let report = verify::verify(&mut db).await.unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
}

fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.headers["location"].to_str().unwrap()
}

fn hidden(page: &str, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let from = page.find(&mark).unwrap_or_else(|| panic!("no {name}")) + mark.len();
    page[from..].split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_its_ticket_and_says_where_it_stands_and_why_that_date() {
    let gateway = gateway().await;
    gateway.clock.set(at("2026-11-28 22:14")); // a Saturday
    let reply = gateway.wechat("oA", "失业登记被退回", "1").await.number();
    let ticket = RegisterNumber::parse(&reply, "BCS").unwrap();
    let link = gateway.link(ticket);
    assert_eq!(link, gateway.link(ticket), "the same moment makes the same link");
    let answer = gateway.see(&link).await;
    let page = answer.text();
    assert_eq!(answer.status, 200, "{page}");
    for words in [
        "BCS-2026-000001</span> <span class=\"phrase\">已登记，</span><span class=\"phrase\">窗口上班后开始办理。</span>",
        "我们11月30日（周一）8:30开始办理。",
        "最晚12月1日（周二）16:30前给您答复。",
        "从11月30日（周一）起算，当天不算，再数 1 个工作日。",
        "11月28日（周六）到11月29日（周日）是周末，不算。",
        "收到您的反映（微信），已登记",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex, nofollow"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(answer.headers[name], value, "{name}");
    }
    assert!(!page.contains("<script"), "no script is needed");
    // What a telephone loads for it.
    let css = page.split("href=\"").find_map(|part| part.strip_prefix("/c/assets/")).unwrap();
    let css = gateway.see(&format!("/c/assets/{}", css.split('"').next().unwrap())).await;
    assert_eq!(css.headers["cache-control"], "public, max-age=31536000, immutable");
    assert!(css.body.len() + page.len() < 30_000, "{} + {}", css.body.len(), page.len());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provisional_date_is_never_told_as_a_fact() {
    let gateway = Spec::at(at("2027-12-31 17:00")).start().await;
    let (_, link) = gateway.ticket("k1").await;
    let page = gateway.see(&link).await.text();
    assert!(page.contains("要等国务院公布放假安排后才能确定"), "{page}");
    assert!(!page.contains("最晚"), "{page}");
    assert!(!page.contains("2028年"), "{page}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s20_a_link_that_is_forged_over_or_revoked_looks_like_one_that_never_was() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    let strange = gateway.see("/c/abc").await;
    assert_eq!(strange.status, 404);
    assert!(strange.text().contains("这个链接打不开了"), "{}", strange.text());
    assert_eq!(strange.headers["referrer-policy"], "no-referrer");
    // Each character of the token counts; in the last one all six bits do.
    for place in [3, 7, 20, 30, link.len() - 1] {
        let mut forged = link.clone();
        let other = if &link[place..=place] == "A" { "B" } else { "A" };
        forged.replace_range(place..=place, other);
        let answer = gateway.see(&forged).await;
        assert_eq!((answer.status, answer.text()), (404, strange.text()), "{place}");
    }
    for path in ["evaluate", "more", "withdraw"] {
        let answer = gateway.fill_in(&format!("/c/abc/{path}"), &[]).await;
        assert_eq!((answer.status, answer.text()), (404, strange.text()), "{path}");
    }
    // Another ticket's link is another's.
    let (_, other) = gateway.ticket("k2").await;
    assert!(gateway.see(&other).await.text().contains("BCS-2026-000002"));

    // Revoked: every link until now; one that is made later opens.
    let mut db = gateway.pool.acquire().await.unwrap();
    citizen::revoke_links(&mut db, gateway.office, ticket, gateway.clock.now()).await.unwrap();
    let answer = gateway.see(&link).await;
    assert_eq!((answer.status, answer.text()), (404, strange.text()));
    gateway.clock.set(gateway.clock.now() + TimeDelta::seconds(1));
    let fresh = gateway.link(ticket);
    assert_eq!(gateway.see(&fresh).await.status, 200);
    assert_eq!(gateway.see(&other).await.status, 200, "the other ticket's link is untouched");

    // Over after 90 days.
    gateway.clock.set(gateway.clock.now() + TimeDelta::days(90) - TimeDelta::seconds(1));
    assert_eq!(gateway.see(&fresh).await.status, 200);
    gateway.clock.set(gateway.clock.now() + TimeDelta::seconds(1));
    let answer = gateway.see(&fresh).await;
    assert_eq!((answer.status, answer.text()), (404, strange.text()));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_shows_what_was_done_and_nothing_that_is_written_for_the_house() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    gateway.step(ticket, |t| t.claim(StaffId(1))).await;
    gateway
        .step(ticket, |t| {
            t.raise(Some("内部：请中心研究"), at("2026-11-24 09:20"), at("2026-11-27 16:30"), false)
        })
        .await;
    let until = at("2026-11-30 16:30");
    gateway.step(ticket, |t| t.await_citizen("户口本原件、身份证复印件", until)).await;
    let page = gateway.see(&link).await.text();
    for words in [
        "需要您补充材料。",
        "户口本原件、身份证复印件",
        "11月30日（周一）16:30前",
        "窗口已受理，由专人负责到底",
        "已交中心领导研究，最晚11月27日（周五）16:30前给您答复",
        ">补充材料</a>",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("内部") && !page.contains("赵敏"), "{page}");
    assert!(!page.contains("李春梅") && !page.contains("1234"), "{page}");

    // What another version writes down for the citizen is shown, what it writes for the house not.
    let mut db = gateway.pool.acquire().await.unwrap();
    let event = |seq, kind, data| {
        format!(
            "INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
             VALUES ({}, {}, {seq}, now(), 'staff:1', '{kind}', '{data}', sha256('x'))",
            gateway.office,
            ticket.as_i64()
        )
    };
    sql(&mut db, &event(90, "told_citizen", r#"{"text": "卡已制好，<b>请明天来取</b>。"}"#)).await;
    sql(&mut db, &event(91, "noted", r#"{"text": "内部备注"}"#)).await;
    let page = gateway.see(&link).await.text();
    assert!(page.contains("卡已制好，&#60;b&#62;请明天来取&#60;/b&#62;。"), "{page}");
    assert!(!page.contains("内部"), "{page}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_words_and_photos_grow_the_ticket_once_and_tell_its_handler() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    gateway.step(ticket, |t| t.claim(StaffId(1))).await;
    gateway.step(ticket, |t| t.await_citizen("身份证", at("2026-11-30 16:30"))).await;
    let page = gateway.see(&format!("{link}/more")).await.text();
    let form = hidden(&page, "form");
    let parts: [(&str, Option<&str>, &[u8]); 4] = [
        ("form", None, form.as_bytes()),
        ("text", None, "这是我的身份证。".as_bytes()),
        ("files", Some("C:\\照片\\身份证.jpg"), JPEG),
        ("files", Some("证明.pdf"), PDF),
    ];
    let answer = gateway.send_up(&link, &parts).await;
    assert_eq!(location(&answer), format!("{link}?done=more"));
    // A reload sends the same form again.
    let again = gateway.send_up(&link, &parts).await;
    assert_eq!(location(&again), format!("{link}?done=more_before"));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 2);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM citizen_upload").await, 2);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM outbox WHERE kind = 'grew'").await, 1);
    // It waits on: the handler judges whether it is the right paper.
    let page = gateway.see(location(&answer)).await.text();
    assert!(page.contains("收到了") && page.contains("您补充的已经收到"), "{page}");
    assert!(page.contains("还有没发的，可以继续补充"), "{page}");
    assert!(page.contains("您补充了情况，带 2 个照片或文件"), "{page}");
    let shown = gateway.api("/tickets/BCS-2026-000001").await.json();
    let message = &shown["messages"][1];
    assert_eq!(message["text"], "这是我的身份证。", "{shown}");
    assert_eq!(message["attachments"][0]["kind"], "image", "{shown}");
    assert_eq!(message["attachments"][0]["label"], "身份证.jpg", "{shown}");
    assert_eq!(message["attachments"][1]["kind"], "file", "{shown}");
    let desk = Desk::login(&gateway, "zhao.min").await;
    let story = desk.get("/desk/tickets/BCS-2026-000001").await.text();
    assert!(story.contains("通过查询页补充"), "{story}");
    // The files go from their message's transaction into the storage, and from there to the officer.
    while gateway.app.fetcher.step().await.unwrap() {}
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM citizen_upload").await, 0);
    let story = desk.get("/desk/tickets/BCS-2026-000001").await.text();
    assert!(story.contains("证明.pdf，"), "{story}");
    for (n, content, end) in [(0, JPEG, ".jpg\""), (1, PDF, ".pdf\"")] {
        let original = format!("/desk/media/BCS-2026-000001/4/{n}/original");
        assert!(story.contains(&original), "{story}");
        let answer = desk.get(&original).await;
        assert_eq!(answer.body, content);
        let disposition = answer.headers["content-disposition"].to_str().unwrap();
        assert!(disposition.starts_with("attachment"), "{disposition}");
        assert!(disposition.ends_with(end), "{disposition}");
    }
    // The same words once more, on purpose, are a message of their own.
    let form = hidden(&gateway.see(&format!("{link}/more")).await.text(), "form");
    let parts: [(&str, Option<&str>, &[u8]); 2] =
        [("form", None, form.as_bytes()), ("text", None, "还没消息吗".as_bytes())];
    gateway.send_up(&link, &parts).await;
    let other: [(&str, Option<&str>, &[u8]); 2] =
        [("form", None, b"another"), ("text", None, "还没消息吗".as_bytes())];
    gateway.send_up(&link, &other).await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 4);
    gateway.verified().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rd3_2_urgent_words_on_the_page_make_an_emergency() {
    let gateway = gateway().await;
    gateway.clock.set(at("2026-11-28 22:14"));
    let (_, link) = gateway.ticket("k1").await;
    let parts: [(&str, Option<&str>, &[u8]); 1] = [("text", None, "我不想活了，要跳楼".as_bytes())];
    assert_eq!(location(&gateway.send_up(&link, &parts).await), format!("{link}?done=more"));
    let urgent = "SELECT count(*) FROM ticket WHERE urgency = 0";
    assert_eq!(number(&gateway.pool, urgent).await, 1);
    let told =
        "SELECT count(*) FROM outbox WHERE kind = 'grew' AND urgent AND not_before = created_at";
    assert_eq!(number(&gateway.pool, told).await, 1);
    gateway.verified().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s25_what_is_no_photo_and_no_pdf_is_refused_in_words_and_the_text_stays() {
    let gateway = gateway().await;
    let (_, link) = gateway.ticket("k1").await;
    let text: (&str, Option<&str>, &[u8]) = ("text", None, "写了很久的话".as_bytes());
    let large = [JPEG, &vec![0; 10 * 1024 * 1024]].concat();
    let gone = "SELECT count(*) FROM citizen_upload";
    for (name, content, status, words) in [
        ("x.jpg", b"<html><script>alert(1)</script>".as_slice(), 415, "不是照片或 PDF"),
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "不是照片或 PDF"),
        ("x.docx", b"PK\x03\x04", 415, "不是照片或 PDF"),
        ("x.exe", b"MZ\x90\0", 415, "不是照片或 PDF"),
        ("x.gif", b"GIF89a", 415, "不是照片或 PDF"),
        ("x.jpg", &large, 413, "太大"),
    ] {
        let answer = gateway.send_up(&link, &[text, ("files", Some(name), content)]).await;
        let page = answer.text();
        assert_eq!(answer.status, status, "{name}: {page}");
        assert!(page.contains(words) && page.contains("写了很久的话"), "{name}: {page}");
    }
    let seven: Vec<_> = std::iter::once(text).chain([("files", Some("1.jpg"), JPEG); 7]).collect();
    let answer = gateway.send_up(&link, &seven).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("一次最多 6 个"), "{}", answer.text());
    let answer = gateway.send_up(&link, &[("text", None, b"  "), ("files", Some(""), b"")]).await;
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("还没有内容"), "{}", answer.text());
    let long = "长".repeat(2001);
    let answer = gateway.send_up(&link, &[("text", None, long.as_bytes())]).await;
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("最多 2000 字"), "{}", answer.text());
    let answer = gateway.post(&format!("{link}/more"), &[FORM], b"text=x".to_vec()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("没有看懂这次提交"), "{}", answer.text());
    assert_eq!(number(&gateway.pool, gone).await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_d_a_result_is_judged_once_and_dissatisfaction_reaches_handler_and_lead() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    let judge = format!("{link}/evaluate");
    // Not before there is a result.
    assert_eq!(location(&gateway.see(&judge).await), link);
    let early = gateway.fill_in(&judge, &[("grade", "satisfied")]).await;
    assert_eq!(location(&early), link);
    assert_eq!(number(&gateway.pool, "SELECT events FROM ticket").await, 1);

    gateway.resolve(ticket).await;
    let page = gateway.see(&link).await.text();
    assert!(
        page.contains("有结果了：已解决。</span><span class=\"phrase\">请您评价。")
            && !page.contains("内部"),
        "{page}"
    );
    let page = gateway.see(&judge).await.text();
    for grade in ["非常满意", " 满意", "基本满意", " 不满意", "非常不满意"] {
        assert!(page.contains(grade), "{grade}: {page}");
    }
    let none = gateway.fill_in(&judge, &[("text", "跑了三趟")]).await;
    assert_eq!(none.status, 422);
    assert!(none.text().contains("请先选一项评价") && none.text().contains("跑了三趟"));
    let long = "长".repeat(501);
    let long = gateway.fill_in(&judge, &[("grade", "dissatisfied"), ("text", &long)]).await;
    assert_eq!(long.status, 422);
    assert!(long.text().contains("最多 500 字") && long.text().contains(" checked"));

    let form = [("grade", "dissatisfied"), ("text", "跑了三趟")];
    let done = gateway.fill_in(&judge, &form).await;
    assert_eq!(location(&done), format!("{link}?done=evaluated"));
    let again = gateway.fill_in(&judge, &[("grade", "very_satisfied")]).await;
    assert_eq!(location(&again), format!("{link}?done=evaluated_before"));
    let page = gateway.see(location(&again)).await.text();
    assert!(page.contains("已经评价过了") && page.contains("您的评价：不满意"), "{page}");
    assert!(page.contains("跑了三趟"), "{page}");
    assert_eq!(location(&gateway.see(&judge).await), format!("{link}?done=evaluated_before"));

    gateway.app.relay.step().await.unwrap();
    let notice = "SELECT count(*) FROM notice WHERE title = '群众不满意：BCS-2026-000001'
        AND audience = 'staff:1+lead' AND array_to_string(lines, '') LIKE '%评价为不满意%'
        AND array_to_string(lines, '') NOT LIKE '%三趟%'";
    assert_eq!(number(&gateway.pool, notice).await, 1);
    let desk = Desk::login(&gateway, "zhao.min").await;
    let story = desk.get("/desk/tickets/BCS-2026-000001").await.text();
    assert!(story.contains("群众评价：不满意。跑了三趟"), "{story}");
    gateway.verified().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_d_two_judgements_at_once_are_one() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    gateway.resolve(ticket).await;
    let judge = format!("{link}/evaluate");
    let form = [("grade", "satisfied")];
    let answers = futures::future::join_all((0..8).map(|_| gateway.fill_in(&judge, &form))).await;
    let first = answers.iter().filter(|a| location(a).ends_with("done=evaluated")).count();
    assert_eq!(first, 1);
    assert_eq!(
        number(&gateway.pool, "SELECT count(*) FROM event WHERE kind = 'evaluated'").await,
        1
    );
    let told = "SELECT count(*) FROM outbox WHERE kind = 'evaluated'";
    assert_eq!(number(&gateway.pool, told).await, 0, "who is satisfied alarms nobody");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matter_is_taken_back_after_a_second_page_whoever_has_it() {
    let gateway = gateway().await;
    let (_, link) = gateway.ticket("k1").await;
    let withdraw = format!("{link}/withdraw");
    let page = gateway.see(&withdraw).await.text();
    assert!(page.contains("确定撤回这件反映吗？"), "{page}");
    assert_eq!(
        number(&gateway.pool, "SELECT events FROM ticket").await,
        1,
        "a GET changes nothing"
    );
    let done = gateway.fill_in(&withdraw, &[("text", "自己办好了")]).await;
    assert_eq!(location(&done), format!("{link}?done=withdrawn"));
    let again = gateway.fill_in(&withdraw, &[]).await;
    assert_eq!(location(&again), format!("{link}?done=withdrawn"));
    let page = gateway.see(location(&done)).await.text();
    assert!(page.contains("不再办理。</span>"), "{page}");
    assert!(!page.contains("class=\"button\""), "nothing is asked any more: {page}");
    gateway.app.relay.step().await.unwrap();
    let notice =
        "SELECT count(*) FROM notice WHERE array_to_string(lines || title, '') LIKE '%群众撤回%'";
    assert_eq!(number(&gateway.pool, notice).await, 1);

    // While it waits for the citizen as well; not once there is a result.
    let (waits, link) = gateway.ticket("k2").await;
    gateway.step(waits, |t| t.claim(StaffId(1))).await;
    gateway.step(waits, |t| t.await_citizen("身份证", at("2026-11-30 16:30"))).await;
    let done = gateway.fill_in(&format!("{link}/withdraw"), &[]).await;
    assert_eq!(location(&done), format!("{link}?done=withdrawn"));
    let (solved, link) = gateway.ticket("k3").await;
    gateway.resolve(solved).await;
    let late = gateway.fill_in(&format!("{link}/withdraw"), &[]).await;
    assert_eq!(location(&late), format!("{link}?done=resolved_before"));
    // Timers that were armed find nothing to do.
    gateway.verified().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_use_cases_belong_to_the_callers_transaction() {
    let gateway = gateway().await;
    let (ticket, _) = gateway.ticket("k1").await;
    gateway.resolve(ticket).await;
    let office = gateway.app.offices.get(gateway.office).unwrap();
    let mut db = gateway.pool.acquire().await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    let now = gateway.clock.now();
    let judge = Evaluation::VeryDissatisfied;
    citizen::evaluate(&mut transaction, &office, ticket, judge, "", now).await.unwrap();
    transaction.rollback().await.unwrap();
    let events = "SELECT count(*) FROM event WHERE kind = 'evaluated'";
    assert_eq!(number(&gateway.pool, events).await, 0);
    let nobody = RegisterNumber::new(2026, 99).unwrap();
    let missing = citizen::withdraw(&mut db, &office, nobody, "", now).await;
    assert!(matches!(missing, Err(CitizenError::NoTicket)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_a_form_of_another_site_does_nothing() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    gateway.resolve(ticket).await;
    let judge = format!("{link}/evaluate");
    let form = encode(&[("grade", "satisfied")]);
    for header in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let answer = gateway.post(&judge, &[FORM, header], form.clone()).await;
        assert_eq!(answer.status, 403, "{header:?}");
        assert!(answer.text().contains("这次没有提交"), "{}", answer.text());
        let answer = gateway.post("/c", &[FORM, header], encode(&[("number", "1")])).await;
        assert_eq!(answer.status, 403, "{header:?}");
    }
    // As a browser sends it from a page that hides where it comes from.
    let own = [FORM, ("origin", "null"), ("sec-fetch-site", "same-origin")];
    assert_eq!(gateway.post(&judge, &own, form).await.status, 303);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_one_ticket_are_sent_so_often_and_no_more() {
    let gateway = Spec::at(at("2026-11-24 09:10")).with("citizen.posts_per_h = 2").start().await;
    let (_, link) = gateway.ticket("k1").await;
    let (_, other) = gateway.ticket("k2").await;
    let send = async |link: &str, text: &str| {
        let parts: [(&str, Option<&str>, &[u8]); 1] = [("text", None, text.as_bytes())];
        gateway.send_up(link, &parts).await
    };
    assert_eq!(send(&link, "一").await.status, 303);
    assert_eq!(send(&link, "二").await.status, 303);
    let refused = send(&link, "三").await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.text().contains("分钟后再试"), "{}", refused.text());
    assert_eq!(send(&other, "一").await.status, 303);
    gateway.clock.set(gateway.clock.now() + TimeDelta::minutes(61));
    assert_eq!(send(&link, "三").await.status, 303);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s25_a_ticket_takes_so_many_megabytes_an_hour_and_no_more() {
    let limit = "citizen.upload_mb_per_h = 25";
    let gateway = Spec::at(at("2026-11-24 09:10")).with(limit).start().await;
    let (_, link) = gateway.ticket("k1").await;
    let (_, other) = gateway.ticket("k2").await;
    let send = async |link: &str, n: u8| {
        let mut photo = vec![n; 9 * 1024 * 1024];
        photo[..3].copy_from_slice(&[0xFF, 0xD8, 0xFF]);
        gateway.send_up(link, &[("files", Some("a.jpg"), &photo)]).await.status
    };
    assert_eq!((send(&link, 1).await, send(&link, 2).await), (303, 303));
    assert_eq!(send(&link, 3).await, 429);
    assert_eq!(send(&other, 1).await, 303);
    let words: [(&str, Option<&str>, &[u8]); 1] = [("text", None, "灯坏了".as_bytes())];
    assert_eq!(gateway.send_up(&link, &words).await.status, 303, "words are taken");
    gateway.clock.set(gateway.clock.now() + TimeDelta::minutes(61));
    assert_eq!(send(&link, 3).await, 303);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s20_a_matter_is_found_by_number_and_telephone_and_guesses_learn_nothing() {
    let gateway = gateway().await;
    let (_, link) = gateway.ticket("k1").await;
    let find = async |number: &str, phone: &str| {
        gateway.fill_in("/c", &[("number", number), ("phone", phone)]).await
    };
    for number in ["BCS-2026-000001", "ｂｃｓ－２０２６－１", "2026000001", "1"] {
        let answer = find(number, "1234").await;
        assert_eq!(location(&answer), link, "{number}");
    }
    for (number, phone, words) in [
        ("？", "1234", "编号没有看懂"),
        ("1", "12", "最后四位"),
        ("XYZ-2026-1", "1234", "编号没有看懂"),
    ] {
        let answer = find(number, phone).await;
        assert_eq!(answer.status, 422, "{number}");
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    // Wrong and not there: one answer but for what was typed.
    let wrong = find("BCS-2026-000001", "9999").await;
    let absent = find("BCS-2026-000077", "9999").await;
    assert_eq!((wrong.status, absent.status), (404, 404));
    assert_eq!(wrong.text().replace("000001", "000077"), absent.text());
    // Thirty wrong ones within the hour, whichever numbers: then the address waits, behind which a
    // whole town may stand.
    for number in 3..=30 {
        assert_eq!(find(&number.to_string(), "9999").await.status, 404);
    }
    let refused = find("1", "1234").await;
    assert_eq!(refused.status, 429);
    let wait: i64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    gateway.clock.set(gateway.clock.now() + TimeDelta::minutes(61));
    assert_eq!(find("1", "1234").await.status, 303);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s20_a_number_is_guarded_whoever_asks() {
    let gateway =
        Spec::at(at("2026-11-24 09:10")).with("http.trusted_proxies = ['127.0.0.1']").start().await;
    gateway.ticket("k1").await;
    let find = async |from: &str, number: &str, phone: &str| {
        let form = encode(&[("number", number), ("phone", phone)]);
        gateway.post("/c", &[FORM, ("x-forwarded-for", from)], form).await.status
    };
    for host in 1..=5 {
        assert_eq!(find(&format!("203.0.113.{host}"), "1", "9999").await, 404);
    }
    assert_eq!(find("203.0.113.9", "1", "1234").await, 429, "the number waits");
    assert_eq!(find("203.0.113.9", "77", "1234").await, 404, "another one does not");
    // A number that is not there waits as well: that tells nothing.
    for host in 11..=15 {
        find(&format!("203.0.113.{host}"), "88", "9999").await;
    }
    assert_eq!(find("203.0.113.20", "88", "1234").await, 429);
    // What a proxy writes that is no address ends the search: before it anything may stand.
    for host in 1..=30 {
        let made_up = format!("198.51.100.{host}, 203.0.113.9:51234");
        assert_eq!(find(&made_up, &format!("{}", 100 + host), "9999").await, 404, "{made_up}");
    }
    assert_eq!(find("198.51.100.99, 203.0.113.9:51234", "200", "9999").await, 429);
    // Addresses are forgotten once nobody counts them.
    gateway.clock.set(gateway.clock.now() + TimeDelta::minutes(61));
    intake_gateway::housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM citizen_attempt").await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_page_that_says_what_to_do() {
    let gateway = gateway().await;
    let (_, link) = gateway.ticket("k1").await;
    let put = gateway.client.put(format!("{}{link}", gateway.base)).send().await.unwrap();
    let put = Answer::of(put).await;
    let huge = vec![b'a'; 17 * 1024];
    for (answer, status, words) in [
        (gateway.see("/c/a/b/c").await, 404, "没有这一页"),
        (put, 405, "不能这样打开"),
        (gateway.post("/c", &[FORM], huge).await, 413, "内容太大"),
        (
            gateway.post("/c", &[("content-type", "text/plain")], b"x".to_vec()).await,
            400,
            "没有看懂",
        ),
        (gateway.see("/c/wechat/nobody").await, 404, "暂时不能从这里打开"),
    ] {
        let page = answer.text();
        assert_eq!(answer.status, status, "{page}");
        assert!(page.contains(words) && page.contains("12333"), "{page}");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        assert_eq!(answer.headers["x-robots-tag"], "noindex, nofollow");
    }
    gateway.stop().await;
}

/// A gateway whose account asks a platform who taps its menu.
async fn with_platform() -> (TestGateway, StandIn) {
    with_platform_and("").await
}

async fn with_platform_and(more: &str) -> (TestGateway, StandIn) {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let now: DateTime<Utc> = at("2026-11-24 09:10");
    let account = account();
    let settings = Settings {
        app_id: account.app_id.clone(),
        secret: SECRET.to_owned(),
        original_id: account.original_id.clone(),
        token: TOKEN.to_owned(),
        encoding_aes_key: Some(KEY.to_owned()),
        callback: "http://127.0.0.1:9/channels/wechat/main".to_owned(),
        patience: Duration::from_secs(30),
    };
    let standin = StandIn::new(settings, Arc::new(move || now), &listener).unwrap();
    tokio::spawn(standin.clone().serve(listener));
    let gateway = Spec::at(now)
        .with(&format!("http.public_url = 'https://intake.example'\n{more}"))
        .with(&format!(
            "[[wechat]]\noffice = '{OFFICE}'\nid = 'menu'\napp_id = '{}'\noriginal_id = '{}'\ntoken = '{TOKEN}'\nencoding_aes_key = '{KEY}'\napi = {{ secret = '{SECRET}', base_url = '{}', open_url = '{}' }}",
            account.app_id, account.original_id, standin.url(), standin.url()
        ))
        .start()
        .await;
    (gateway, standin)
}

async fn with_cookies(gateway: &TestGateway, path: &str, cookies: &[String]) -> Answer {
    let request = gateway.client.get(format!("{}{path}", gateway.base));
    Answer::of(request.header("cookie", cookies.join("; ")).send().await.unwrap()).await
}

fn cookie(answer: &Answer) -> String {
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Max-Age=600"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

/// Where the platform sends a citizen back to: path and query.
async fn back(standin: &StandIn, sent: &Answer, who: usize) -> String {
    let page = reqwest::get(location(sent)).await.unwrap().text().await.unwrap();
    let ways: Vec<&str> = page
        .split("href=\"https://intake.example")
        .skip(1)
        .map(|part| part.split('"').next().unwrap())
        .collect();
    assert_eq!(ways.len(), standin.citizens().len(), "{page}");
    ways[who].replace("&amp;", "&").replace("&#38;", "&")
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_menu_a_citizen_sees_their_own_matters_and_nobody_elses() {
    let (gateway, standin) = with_platform().await;
    let openid = standin.citizens().remove(0);
    let thread = |openid: &str| format!("wechat:menu:{openid}");
    let say = async |id: &str, openid: &str, text: &str| {
        let mut said = crate::support::gateway::submission(id, text);
        said.thread = Some(thread(openid));
        gateway.app.intake.accept(gateway.office, said).await.unwrap();
    };
    say("1", &openid, "很久以前的事").await;
    let long_ago = RegisterNumber::new(2026, 1).unwrap();
    gateway.resolve(long_ago).await;
    gateway.step(long_ago, |t| t.close(Some("联系不上"))).await;
    gateway.clock.set(at("2027-03-01 09:10"));
    for (id, text) in [("2", "上个月办结的事"), ("3", "现在在办的事")] {
        // Long enough after the other one that nobody asks whether it belongs to that.
        gateway.clock.set(gateway.clock.now() + TimeDelta::days(10));
        say(id, &openid, text).await;
        if id == "2" {
            let closed = RegisterNumber::new(2027, 1).unwrap();
            gateway.resolve(closed).await;
            gateway.step(closed, |t| t.close(Some("联系不上"))).await;
        }
    }
    say("4", "oSomebodyElse", "别人的事").await;

    let sent = gateway.see("/c/wechat/menu").await;
    assert!(location(&sent).starts_with(standin.url()), "{}", location(&sent));
    let state = cookie(&sent);
    let path = back(&standin, &sent, 0).await;
    let known = with_cookies(&gateway, &path, std::slice::from_ref(&state)).await;
    assert_eq!(location(&known), "/c/wechat/menu");
    let who = cookie(&known);
    assert!(!who.contains(&openid), "the openid is not to be read in passing");
    let list = with_cookies(&gateway, "/c/wechat/menu", std::slice::from_ref(&who)).await;
    let page = list.text();
    assert_eq!(list.status, 200, "{page}");
    let (now, before) = (page.find("现在在办的事").unwrap(), page.find("上个月办结的事").unwrap());
    assert!(now < before, "what is open comes first: {page}");
    assert!(!page.contains("很久以前") && !page.contains("别人的事"), "{page}");
    assert!(!page.contains(&openid), "{page}");
    let link = page.split("href=\"/c/").nth(2).unwrap().split('"').next().unwrap();
    let ticket = gateway.see(&format!("/c/{link}")).await;
    assert!(ticket.text().contains("BCS-2027-000002"), "{}", ticket.text());

    // The same code once more: with the cookie the list, without it another try, never a loop.
    let both = [state.clone(), who.clone()];
    assert_eq!(location(&with_cookies(&gateway, &path, &both).await), "/c/wechat/menu");
    let again = with_cookies(&gateway, &path, std::slice::from_ref(&state)).await;
    assert_eq!(location(&again), "/c/wechat/menu?again=1");
    assert_eq!(gateway.see("/c/wechat/menu?again=1").await.status, 403);
    let list = with_cookies(&gateway, "/c/wechat/menu?again=1", std::slice::from_ref(&who)).await;
    assert_eq!(list.status, 200);

    // Somebody else's visit cannot be brought in, and the cookie of one account opens no other.
    let stolen = gateway.see(&back(&standin, &gateway.see("/c/wechat/menu").await, 0).await).await;
    assert_eq!(stolen.status, 403, "without the browser that was sent");
    let (head, seal) = who.split_once('.').unwrap();
    let other = if seal.starts_with('A') { "B" } else { "A" };
    let forged = format!("{head}.{other}{}", &seal[1..]);
    let forged = with_cookies(&gateway, "/c/wechat/menu", &[forged]).await;
    assert!(location(&forged).starts_with(standin.url()), "WeChat is asked again");
    // Ten minutes later WeChat is asked again.
    gateway.clock.set(gateway.clock.now() + TimeDelta::minutes(10));
    let over = with_cookies(&gateway, "/c/wechat/menu", &[who]).await;
    assert!(location(&over).starts_with(standin.url()));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_that_wechat_never_gave_are_asked_about_so_often_and_no_more() {
    let more = "citizen.visits_per_h = 2";
    let (gateway, standin) = with_platform_and(more).await;
    let sent = gateway.see("/c/wechat/menu").await;
    let (state, path) = (cookie(&sent), back(&standin, &sent, 0).await);
    let state = std::slice::from_ref(&state);
    let (before, after) = path.split_once("code=").unwrap();
    let rest = after.split_once('&').map_or("", |(_, rest)| rest);
    let forged = |n: u8| format!("{before}code=never-given-{n}&{rest}");
    for n in 0..2 {
        let answer = with_cookies(&gateway, &forged(n), state).await;
        assert_eq!(location(&answer), "/c/wechat/menu?again=1");
    }
    assert_eq!(with_cookies(&gateway, &forged(2), state).await.status, 429);
    gateway.clock.set(gateway.clock.now() + TimeDelta::minutes(61));
    let sent = gateway.see("/c/wechat/menu").await;
    for _ in 0..4 {
        let path = back(&standin, &sent, 0).await;
        let known = with_cookies(&gateway, &path, &[cookie(&sent)]).await;
        assert_eq!(location(&known), "/c/wechat/menu", "who is a citizen is not counted");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_said_nothing_yet_is_told_how_and_a_snapshot_sees_nothing() {
    let (gateway, standin) = with_platform().await;
    let visit = async |who| {
        let sent = gateway.see("/c/wechat/menu").await;
        let path = back(&standin, &sent, who).await;
        with_cookies(&gateway, &path, &[cookie(&sent)]).await
    };
    let known = visit(0).await;
    let list = with_cookies(&gateway, "/c/wechat/menu", &[cookie(&known)]).await;
    assert!(list.text().contains("还没有向我们反映过事情"), "{}", list.text());
    standin.switch(|switches| switches.snapshot_users = true);
    let snapshot = visit(0).await;
    assert_eq!(snapshot.status, 403);
    assert!(snapshot.text().contains("使用完整服务"), "{}", snapshot.text());
    assert!(!snapshot.headers.contains_key("set-cookie"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telephone_sends_a_photo_and_judges_the_result() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    let photo = std::env::temp_dir().join(format!("intake-photo-{}.jpg", std::process::id()));
    std::fs::write(&photo, JPEG).unwrap();
    let driver = Driver::start().await;
    let browser = driver.phone(390, 16).await;
    browser.goto(&format!("{}{link}", gateway.base)).await.unwrap();
    appears(&browser, "a.button").await.click().await.unwrap();
    appears(&browser, "textarea[name=text]").await.send_keys("这是新的材料").await.unwrap();
    let files = appears(&browser, "input[type=file]").await;
    files.send_keys(photo.to_str().unwrap()).await.unwrap();
    appears(&browser, "button").await.click().await.unwrap();
    let done = appears(&browser, ".done").await.text().await.unwrap();
    assert!(done.contains("收到了"), "{done}");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM citizen_upload").await, 1);

    gateway.resolve(ticket).await;
    browser.goto(&format!("{}{link}", gateway.base)).await.unwrap();
    appears(&browser, "a.button").await.click().await.unwrap();
    appears(&browser, "input[value=satisfied]").await.click().await.unwrap();
    appears(&browser, "button").await.click().await.unwrap();
    let done = appears(&browser, ".done").await.text().await.unwrap();
    assert!(done.contains("您的评价收到了"), "{done}");
    browser.close().await.unwrap();
    std::fs::remove_file(photo).unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_citizens_page_scrolls_sideways_on_a_small_telephone_or_with_large_letters() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    let (waits, second) = gateway.ticket("k2").await;
    gateway.step(waits, |t| t.claim(StaffId(1))).await;
    let long = "很长的材料名称".repeat(30) + &"x".repeat(120);
    gateway.step(waits, |t| t.await_citizen(&long, at("2026-11-30 16:30"))).await;
    gateway.resolve(ticket).await;
    let paths = [
        "/c".to_owned(),
        "/c/none".to_owned(),
        link.clone(),
        second.clone(),
        format!("{link}/evaluate"),
        format!("{second}/more"),
        format!("{second}/withdraw"),
    ];
    let driver = Driver::start().await;
    for (width, letters) in [(390, 16), (320, 16), (390, 32), (320, 32)] {
        let browser = driver.phone(width, letters).await;
        for path in &paths {
            browser.goto(&format!("{}{path}", gateway.base)).await.unwrap();
            appears(&browser, "footer").await;
            let wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            let wider = browser.execute(wider, Vec::new()).await.unwrap();
            assert_eq!(wider, 0, "{path} at {width} with {letters}");
        }
        browser.close().await.unwrap();
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_offices_one_is_chosen_and_a_link_opens_its_own_only() {
    let gateway = gateway().await;
    let (ticket, link) = gateway.ticket("k1").await;
    let policy = json!({});
    let mut db = gateway.pool.acquire().await.unwrap();
    let other = store::office::create(&mut db, "kaiyuan", "开原反映窗口", "BCS", &policy);
    let other = other.await.unwrap();
    gateway.app.offices.reload(&mut db).await.unwrap();
    let page = gateway.see("/c?office=kaiyuan").await.text();
    assert!(page.contains(r#"<option value="kaiyuan" selected>开原反映窗口"#), "{page}");
    let find = async |office: &str| {
        let form = [("office", office), ("number", "1"), ("phone", "1234")];
        gateway.fill_in("/c", &form).await
    };
    let unsaid = find("").await;
    assert_eq!(unsaid.status, 422);
    assert!(unsaid.text().contains("请先选择"), "{}", unsaid.text());
    assert_eq!(find("kaiyuan").await.status, 404);
    assert_eq!(location(&find(OFFICE).await), link);
    // The same number of the other office has a link of its own, sealed with another key.
    let theirs = gateway.app.citizen.links.path(other, ticket, gateway.clock.now()).unwrap();
    assert_ne!(theirs[theirs.len() - 22..], link[link.len() - 22..]);
    assert_eq!(gateway.see(&theirs).await.status, 404, "no such ticket there");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_ends_the_links_that_were_given_out() {
    let gateway = gateway().await;
    let (_, link) = gateway.ticket("k1").await;
    assert_eq!(gateway.see(&link).await.status, 200);
    let desk = crate::desk::Desk::login(&gateway, "zhao.min").await;
    let (csrf, page) = (desk.csrf().await, "/desk/tickets/BCS-2026-000001");
    let seen = desk.hidden(page, "seen").await;
    let form = [("csrf", &*csrf), ("seen", &*seen)];
    let done = desk.post(&format!("{page}/revoke_links"), &form).await;
    assert_eq!(done.status, 303, "{}", done.text());
    assert!(desk.get(page).await.text().contains("作废了以前发给群众的查询链接"));
    assert_eq!(gateway.see(&link).await.status, 404);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_2_an_officer_puts_name_and_telephone_right_and_the_trail_does_not_repeat_them() {
    let gateway = gateway().await;
    let _ = gateway.ticket("k1").await;
    let desk = crate::desk::Desk::login(&gateway, "zhao.min").await;
    let (csrf, page) = (desk.csrf().await, "/desk/tickets/BCS-2026-000001");
    let seen = desk.hidden(page, "seen").await;
    let form = |phone: &'static str| {
        [
            ("csrf", csrf.clone()),
            ("seen", seen.clone()),
            ("name", "王小芳".to_owned()),
            ("phone", phone.to_owned()),
        ]
    };
    let send = async |phone| {
        let form = form(phone);
        let form: Vec<(&str, &str)> = form.iter().map(|(k, v)| (*k, v.as_str())).collect();
        desk.post(&format!("{page}/contact"), &form).await
    };
    let wrong = send("明天来").await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.text().contains("电话号码不对"), "{}", wrong.text());
    assert_eq!(send("13700001234").await.status, 303);
    assert_eq!(send("13700001234").await.status, 303, "the same form again");
    let other = send("13700009999").await;
    assert_eq!(other.status, 409, "from a page of before: {}", other.text());
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["citizen"], serde_json::json!({ "name": "王小芳", "phone": "13700001234" }));
    let told =
        "SELECT count(*) FROM event WHERE data::text LIKE '%137%' OR data::text LIKE '%王小芳%'";
    assert_eq!(number(&gateway.pool, told).await, 0);
    assert!(desk.get(page).await.text().contains("更正了反映人的姓名、电话"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_matter_of_many_words_stays_small() {
    let gateway = gateway().await;
    let (_, link) = gateway.ticket("k1").await;
    let mut db = gateway.pool.acquire().await.unwrap();
    let long = "长".repeat(1900);
    // Thirty messages and answers of nearly two thousand characters each, as the desk allows them.
    let desk = crate::desk::Desk::login(&gateway, "zhao.min").await;
    let (csrf, page) = (desk.csrf().await, "/desk/tickets/BCS-2026-000001");
    let claim = [("csrf", &*csrf)];
    assert_eq!(desk.post(&format!("{page}/claim"), &claim).await.status, 303);
    for n in 0..30 {
        let seen = desk.hidden(page, "seen").await;
        let text = format!("{n}{long}");
        let form = [("csrf", &*csrf), ("seen", &*seen), ("text", &*text)];
        assert_eq!(desk.post(&format!("{page}/say"), &form).await.status, 303);
    }
    let waits = format!(
        "UPDATE ticket SET state = 'awaiting_citizen', state_data =
         '{{\"missing\": \"{long}\", \"until\": \"2026-12-27T08:30:00Z\", \"units\": []}}'"
    );
    sql(&mut db, &waits).await;
    let shown = gateway.see(&link).await;
    let text = shown.text();
    let css = text.split("href=\"").find_map(|part| part.strip_prefix("/c/assets/")).unwrap();
    let css = gateway.see(&format!("/c/assets/{}", css.split('"').next().unwrap())).await;
    let size = css.body.len() + shown.body.len();
    assert!(text.contains(&format!("29{long}")) && text.contains(&long), "the newest is whole");
    assert!(size < 30_000, "{size}");
    gateway.stop().await;
}

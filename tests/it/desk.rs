//! The desk, as a browser without scripts sees it.

use crate::support::{
    Spec, TestGateway, at,
    gateway::{Answer, PASSWORD, number_in, wechat_sender},
    number, sql,
};
use std::collections::HashMap;

/// A browser with a cookie.
pub struct Desk<'a> {
    gateway: &'a TestGateway,
    cookie: String,
}

impl<'a> Desk<'a> {
    pub async fn login(gateway: &'a TestGateway, login: &str) -> Self {
        let answer = try_login(gateway, login, PASSWORD).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie =
            answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        Self { gateway, cookie }
    }

    async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.gateway.base);
        let request = self.gateway.client.get(url).header("cookie", &self.cookie);
        Answer::of(request.send().await.unwrap()).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.gateway.post(path, &headers, encode(form).into_bytes()).await
    }

    /// A hidden field of a page.
    async fn hidden(&self, path: &str, name: &str) -> String {
        let page = self.get(path).await.text();
        let mark = format!("name=\"{name}\" value=\"");
        let from = page.find(&mark).unwrap_or_else(|| panic!("no {name} in {path}")) + mark.len();
        page[from..].split('"').next().unwrap().to_owned()
    }

    async fn csrf(&self) -> String {
        self.hidden("/desk", "csrf").await
    }
}

fn encode(form: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    form.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect::<Vec<_>>().join("&")
}

async fn try_login(gateway: &TestGateway, login: &str, password: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let form = encode(&[("login", login), ("password", password)]);
    gateway.post("/desk/login", &headers, form.into_bytes()).await
}

async fn gateway() -> TestGateway {
    Spec::at(at("2026-11-24 09:10")).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_logged_in_is_asked_to() {
    let gateway = gateway().await;
    for path in [
        "/desk",
        "/desk/tickets/BCS-2026-000001",
        "/desk/register",
        "/desk/notices",
        "/desk/quarantine",
        "/desk/live",
    ] {
        let url = format!("{}{path}", gateway.base);
        let answer = Answer::of(gateway.client.get(url).send().await.unwrap()).await;
        assert_eq!(
            (answer.status, answer.headers["location"].to_str().unwrap()),
            (303, "/desk/login"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_a_wrong_name_and_a_wrong_password_look_alike_and_five_lock_the_name_for_a_while() {
    let gateway = gateway().await;
    let wrong = try_login(&gateway, "zhao.min", "x").await;
    let unknown = try_login(&gateway, "nobody", "x").await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.text().replace("zhao.min", ""), unknown.text().replace("nobody", ""));
    for _ in 0..4 {
        assert_eq!(try_login(&gateway, "zhao.min", "x").await.status, 401);
    }
    let locked = try_login(&gateway, "zhao.min", PASSWORD).await;
    assert_eq!(locked.status, 429);
    assert!(locked.text().contains("15 分钟后"), "{}", locked.text());
    // Nobody else is locked out by it.
    assert_eq!(try_login(&gateway, "qian.fang", PASSWORD).await.status, 303);
    gateway.clock.set(at("2026-11-24 09:26"));
    assert_eq!(try_login(&gateway, "zhao.min", PASSWORD).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn s22_the_cookie_is_out_of_reach_and_its_table_opens_nothing() {
    let gateway = gateway().await;
    let answer = try_login(&gateway, "zhao.min", PASSWORD).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let token = cookie.split(['=', ';']).nth(1).unwrap();
    let digests: Vec<Vec<u8>> = sqlx::query_scalar("SELECT token_digest FROM desk_session")
        .fetch_all(&gateway.pool)
        .await
        .unwrap();
    assert_eq!(digests, [intake_gateway::secret::digest(token).to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_it_idles_when_it_is_old_and_at_logout() {
    let gateway = gateway().await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    gateway.clock.set(at("2026-11-24 09:39"));
    assert_eq!(desk.get("/desk").await.status, 200);
    gateway.clock.set(at("2026-11-24 10:08"));
    assert_eq!(desk.get("/desk").await.status, 200);
    gateway.clock.set(at("2026-11-24 10:39"));
    assert_eq!(desk.get("/desk").await.status, 303);

    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    assert_eq!(desk.post("/desk/logout", &[("csrf", "wrong")]).await.status, 403);
    assert_eq!(desk.post("/desk/logout", &[("csrf", &csrf)]).await.status, 303);
    assert_eq!(desk.get("/desk").await.status, 303);
    let desk = Desk::login(&gateway, "zhao.min").await;
    let mut db = gateway.pool.acquire().await.unwrap();
    intake_gateway::store::office::disable_staff(&mut db, "zhao.min").await.unwrap();
    assert_eq!(desk.get("/desk").await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_the_queue_shows_what_to_do_next_and_hints_of_persons_only() {
    let gateway = gateway().await;
    gateway.wechat("oA", "<script>alert('灯坏了')</script>", "1").await.reply();
    let entry = serde_json::json!({
        "channel": "counter", "citizen": { "name": "李春梅", "phone": "13800008000" },
        "problem": "失业登记被退回", "urgent": true,
    });
    gateway.entry("k", &entry).await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk").await.text();
    let first = page.find("BCS-2026-000002").unwrap();
    assert!(first < page.find("BCS-2026-000001").unwrap(), "the emergency stands first");
    assert!(page.contains("李** 138****8000") && !page.contains("13800008000"));
    assert!(!page.contains("<script>alert"), "escaped");
    assert!(page.contains("明天 16:30 前"));
    let counts: HashMap<&str, i64> = ["today", "unclaimed", "mine", "overdue", "all"]
        .into_iter()
        .map(|view| {
            let mark = format!("/desk?view={view}\"");
            let from = page.find(&mark).unwrap();
            let text = page[from..].split("<b class=\"count").nth(1).unwrap();
            let digits = text.split('>').nth(1).unwrap().split('<').next().unwrap();
            (view, digits.parse().unwrap())
        })
        .collect();
    let wanted = [("today", 2), ("unclaimed", 2), ("mine", 0), ("overdue", 0), ("all", 2)];
    assert_eq!(counts, wanted.into_iter().collect());
    // The ticket itself shows everything to who works on it.
    assert!(desk.get("/desk/tickets/BCS-2026-000002").await.text().contains("13800008000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_filter_and_page_answers() {
    let gateway = gateway().await;
    for n in 0..55 {
        gateway.accept(&format!("s{n}"), "灯坏了").await;
    }
    let desk = Desk::login(&gateway, "zhao.min").await;
    for view in [
        "today",
        "unclaimed",
        "call_back",
        "mine",
        "soon",
        "overdue",
        "resolved",
        "all",
        "nonsense",
        "",
    ] {
        let answer = desk
            .get(&format!("/desk?view={view}&channel=counter&level=1&q=%E7%81%AF&after=x"))
            .await;
        assert_eq!(answer.status, 200, "{view}");
    }
    let page = desk.get("/desk?view=all").await.text();
    assert_eq!(page.matches("data-ticket=").count(), 50);
    let next = page.split("href=\"").find(|part| part.contains("after=")).unwrap();
    let next = next.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    let rest = desk.get(&next).await.text();
    assert_eq!(rest.matches("data-ticket=").count(), 5);
    assert!(rest.contains("回到最前"));
    let none = desk.get("/desk?view=all&q=nothing").await.text();
    assert!(none.contains("没有符合条件的反映"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_queue_says_when_the_next_session_begins() {
    let gateway = Spec::at(at("2026-11-24 12:00")).start().await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk").await.text();
    assert!(page.contains("现在没有待办。下一个办公时段今天 13:00开始。"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_e_a_claim_fixes_who_answers_and_a_second_one_is_told_so() {
    let gateway = gateway().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let zhao = Desk::login(&gateway, "zhao.min").await;
    let qian = Desk::login(&gateway, "qian.fang").await;
    let path = "/desk/tickets/BCS-2026-000001";
    assert!(zhao.get(path).await.text().contains("认领"));
    let csrf = zhao.csrf().await;
    let forged = zhao.post(&format!("{path}/claim"), &[("csrf", "x")]).await;
    assert_eq!(forged.status, 403);
    let others = zhao.post(&format!("{path}/claim"), &[("csrf", &qian.csrf().await)]).await;
    assert_eq!(others.status, 403);
    let claimed = zhao.post(&format!("{path}/claim"), &[("csrf", &csrf)]).await;
    assert_eq!(claimed.status, 303);
    let again = qian.post(&format!("{path}/claim"), &[("csrf", &qian.csrf().await)]).await;
    assert_eq!(again.status, 409);
    assert!(again.text().contains("已经有人认领"));
    let page = qian.get(path).await.text();
    assert!(page.contains("赵敏 负责办理") && page.contains("认领，首次接待，负责到底"));
    assert!(crate::verify::faults(&gateway).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_sent_twice_registers_once_and_errors_keep_what_was_written() {
    let gateway = gateway().await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    let entry = desk.hidden("/desk/register", "entry").await;
    let wrong = desk
        .post(
            "/desk/register",
            &[
                ("csrf", &csrf),
                ("entry", &entry),
                ("channel", "counter"),
                ("phone", "abc"),
                ("problem", "灯坏了<b>"),
            ],
        )
        .await;
    assert_eq!(wrong.status, 422);
    let page = wrong.text();
    assert!(
        page.contains("电话号码不对") && page.contains("灯坏了&#60;b&#62;") && page.contains("abc"),
        "{page}"
    );
    let form = [
        ("csrf", csrf.as_str()),
        ("entry", &entry),
        ("channel", "window_phone"),
        ("name", "王芳"),
        ("phone", "024-23456789"),
        ("problem", "灯坏了"),
    ];
    let (one, two) =
        tokio::join!(desk.post("/desk/register", &form), desk.post("/desk/register", &form));
    assert_eq!((one.status, two.status), (303, 303));
    assert_eq!(one.headers["location"], two.headers["location"]);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
    let location = one.headers["location"].to_str().unwrap().to_owned();
    let page = desk.get(&location).await.text();
    assert!(
        page.contains("已登记") && page.contains("赵敏") && page.contains("窗口电话"),
        "{page}"
    );
    assert_eq!(number_in(&location), "BCS-2026-000001");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_see_and_do_what_is_theirs() {
    let gateway = gateway().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let admin = Desk::login(&gateway, "admin").await;
    let refused = admin.get("/desk").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("管理员账号只管理账号和设置"));
    let leader = Desk::login(&gateway, "zhou.hong").await;
    let csrf = leader.csrf().await;
    let path = "/desk/tickets/BCS-2026-000001";
    assert_eq!(leader.get(path).await.status, 200);
    assert_eq!(leader.get("/desk/register").await.status, 403);
    assert_eq!(leader.post(&format!("{path}/claim"), &[("csrf", &csrf)]).await.status, 403);
    assert_eq!(leader.get("/desk/tickets/BCS-2026-000099").await.status, 404);
    assert_eq!(leader.get("/desk/tickets/nonsense").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ticket_says_why_its_date_is_what_it_is() {
    let gateway = Spec::at(at("2026-09-30 17:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk/tickets/BCS-2026-000001").await.text();
    // National Day: received on the 8th, due on the 9th.
    assert!(page.contains("10月9日 周五 16:30 前办结"), "{page}");
    assert!(page.contains("10/8") && page.contains("收到，不计") && page.contains("第 1 天"));
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE ticket SET level = 5, due_at = '2026-10-14 16:30+08'").await;
    let page = desk.get("/desk/tickets/BCS-2026-000001").await.text();
    assert!(
        page.contains("10/10") && page.contains("国庆节"),
        "the make-up Saturday has its reason: {page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quarantine_is_shown_escaped_and_can_be_emptied() {
    let gateway = gateway().await;
    let now = gateway.clock.now().timestamp();
    let xml =
        wechat_sender().message("oA", "hologram", &[("Beam", "<script>x</script>")], "9", now);
    gateway.wechat_xml(&xml).await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk/quarantine").await.text();
    assert!(
        page.contains("不认识的消息类型")
            && page.contains("hologram")
            && !page.contains("<script>x")
    );
    let csrf = desk.csrf().await;
    let id = number(&gateway.pool, "SELECT quarantine_id FROM quarantine").await;
    let replay = desk.post(&format!("/desk/quarantine/{id}/replay"), &[("csrf", &csrf)]).await;
    assert_eq!(replay.status, 422);
    assert!(replay.text().contains("手工登记"));
    let discard = desk.post(&format!("/desk/quarantine/{id}/discard"), &[("csrf", &csrf)]).await;
    assert_eq!(discard.status, 303);
    assert_eq!(
        desk.post(&format!("/desk/quarantine/{id}/discard"), &[("csrf", &csrf)]).await.status,
        303
    );
    let page = desk.get("/desk/quarantine").await.text();
    assert!(page.contains("已忽略"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_is_shown_first_and_sent_again_by_a_click() {
    let gateway = gateway().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    gateway.app.relay.step().await.unwrap();
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE notice SET state = 'dead', last_error = 'HTTP 403'").await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk/notices").await.text();
    assert!(page.contains("没有送达") && page.contains("再发一次") && page.contains("HTTP 403"));
    let csrf = desk.csrf().await;
    let id = number(&gateway.pool, "SELECT notice_id FROM notice").await;
    assert_eq!(
        desk.post(&format!("/desk/notices/{id}/resend"), &[("csrf", &csrf)]).await.status,
        303
    );
    gateway.app.relay.step().await.unwrap();
    assert!(desk.get("/desk/notices").await.text().contains("已送达"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s23_another_site_cannot_log_anybody_in() {
    let gateway = gateway().await;
    let form = encode(&[("login", "zhao.min"), ("password", PASSWORD)]).into_bytes();
    for header in
        [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site"), ("origin", "null")]
    {
        let headers = [("content-type", "application/x-www-form-urlencoded"), header];
        let answer = gateway.post("/desk/login", &headers, form.clone()).await;
        assert_eq!(answer.status, 403, "{header:?}");
    }
}

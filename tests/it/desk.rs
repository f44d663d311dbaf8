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
    pub cookie: String,
}

impl<'a> Desk<'a> {
    pub async fn login(gateway: &'a TestGateway, login: &str) -> Self {
        let answer = try_login(gateway, login, PASSWORD).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie =
            answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        Self { gateway, cookie }
    }

    pub async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.gateway.base);
        let request = self.gateway.client.get(url).header("cookie", &self.cookie);
        Answer::of(request.send().await.unwrap()).await
    }

    /// As the page's script asks, without a hand on it.
    async fn poll(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.gateway.base);
        let request = self.gateway.client.get(url).header("cookie", &self.cookie);
        Answer::of(request.header("x-unattended", "1").send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.gateway.post(path, &headers, encode(form).into_bytes()).await
    }

    /// A hidden field of a page.
    pub async fn hidden(&self, path: &str, name: &str) -> String {
        let page = self.get(path).await.text();
        let mark = format!("name=\"{name}\" value=\"");
        let from = page.find(&mark).unwrap_or_else(|| panic!("no {name} in {path}")) + mark.len();
        page[from..].split('"').next().unwrap().to_owned()
    }

    pub async fn csrf(&self) -> String {
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
        "closed",
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
    assert!(page.contains("现在没有待办。下一个办公时段今天 13:00 开始。"), "{page}");
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
async fn r7_b_who_receives_refers_what_is_claimed_to_a_unit_and_r7_e_stays_accountable() {
    let gateway = gateway().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    for name in ["就业股", "社保股"] {
        intake_gateway::store::office::put_unit(&mut db, gateway.office, name).await.unwrap();
    }
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let zhao = Desk::login(&gateway, "zhao.min").await;
    let path = "/desk/tickets/BCS-2026-000001";
    let csrf = zhao.csrf().await;
    let refer = async |desk: &Desk<'_>, csrf: &str, unit: &str| {
        desk.post(&format!("{path}/refer"), &[("csrf", csrf), ("unit", unit)]).await
    };
    assert!(!zhao.get(path).await.text().contains("转给股室"));
    let early = refer(&zhao, &csrf, "1").await;
    assert_eq!(early.status, 409);
    assert!(early.text().contains("先认领，再转办"));
    zhao.post(&format!("{path}/claim"), &[("csrf", &csrf)]).await;
    assert!(zhao.get(path).await.text().contains("转给股室"));
    for unit in ["", "x", "99"] {
        let wrong = refer(&zhao, &csrf, unit).await;
        assert_eq!(wrong.status, 422, "{unit}");
        assert!(wrong.text().contains("先选好要转给哪个股室"));
    }
    assert_eq!(refer(&zhao, "x", "1").await.status, 403);
    // Sent twice it is one referral.
    for _ in 0..2 {
        assert_eq!(refer(&zhao, &csrf, "2").await.status, 303);
    }
    let page = zhao.get(&format!("{path}?done=referred")).await.text();
    assert!(page.contains("已转办。") && page.contains("赵敏 负责办理"), "{page}");
    assert_eq!(page.matches("转办给社保股").count(), 1);
    assert!(page.contains("已转社保股，改转给"));
    let leader = Desk::login(&gateway, "zhou.hong").await;
    assert!(!leader.get(path).await.text().contains("/refer\""));
    let refused = refer(&leader, &leader.csrf().await, "1").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("转办"));
    for (query, shown) in [
        ("view=all&unit=2", 1),
        ("view=mine&unit=2&state=in_progress&due=2026-11-25", 1),
        ("view=all&unit=1", 0),
        ("view=all&state=accepted", 0),
        ("view=all&due=2026-11-24", 0),
        ("view=soon&due=2026-11-24", 0),
        ("view=resolved&state=in_progress", 0),
        ("view=all&unit=x&state=x&due=x", 1),
    ] {
        let page = zhao.get(&format!("/desk?{query}")).await.text();
        assert_eq!(page.matches("data-ticket=").count(), shown, "{query}");
        assert_eq!(page.matches("办理中 · 社保股").count(), shown, "{query}");
    }
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
    // Once more with another content: the first one stands, and the page says so.
    let mut other = form;
    other[5].1 = "灯坏了，门也坏了";
    let again = desk.post("/desk/register", &other).await;
    let page = desk.get(again.headers["location"].to_str().unwrap()).await.text();
    assert!(page.contains("之前已登记，内容以第一次为准"), "{page}");
    assert!(page.contains("BCS-2026-000001") && !page.contains("门也坏了"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_see_and_do_what_is_theirs() {
    let gateway = gateway().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let admin = Desk::login(&gateway, "admin").await;
    let refused = admin.get("/desk").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("管理员账号只管理账号和设置"));
    // Not a dead end: out again, and in as somebody else.
    assert!(refused.text().contains("换账号登录"));
    let csrf = admin.csrf().await;
    let resend = admin.post("/desk/notices/1/resend", &[("csrf", &csrf)]).await;
    assert_eq!(resend.status, 403);
    assert_eq!(admin.post("/desk/logout", &[("csrf", &csrf)]).await.status, 303);
    assert_eq!(admin.get("/desk").await.status, 303);
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
    // Came on the 30th after closing, waited through National Day, was accepted on the 8th, is due
    // on the 9th.
    assert!(page.contains("10月9日 周五 16:30 前办结"), "{page}");
    let days = strip(&page);
    let said: Vec<(&str, &str, &str)> = days.iter().map(|(k, d, s)| (&**k, &**d, &**s)).collect();
    assert_eq!(said[0], ("received", "9/30", "收到；已下班"));
    assert_eq!(said[1], ("skipped", "10/1", "国庆节放假"));
    assert_eq!(said[7], ("skipped", "10/7", "国庆节放假"));
    assert_eq!(said[8], ("accepted", "10/8", "受理当天，不计"));
    assert_eq!(said[9], ("counted last", "10/9", "第 1 天"));
    assert_eq!(said.len(), 10);
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE ticket SET level = 5, due_at = '2026-10-14 16:30+08'").await;
    let page = desk.get("/desk/tickets/BCS-2026-000001").await.text();
    assert!(
        page.contains("10/10") && page.contains("国庆节"),
        "the make-up Saturday has its reason: {page}"
    );
}

/// The strip of days: class, date, what it says.
fn strip(page: &str) -> Vec<(String, String, String)> {
    let strip = page.split("<ol class=\"strip\">").nth(1).unwrap().split("</ol>").next().unwrap();
    let between = |text: &str, from: &str, to: &str| {
        text.split(from).nth(1).unwrap().split(to).next().unwrap().to_owned()
    };
    strip
        .split("<li ")
        .skip(1)
        .map(|day| {
            let class = between(day, "class=\"", "\"");
            (class, between(day, "<b>", "</b>"), between(day, "<small>", "</small>"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_during_a_session_is_accepted_on_the_same_day() {
    let gateway = gateway().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let desk = Desk::login(&gateway, "zhao.min").await;
    let days = strip(&desk.get("/desk/tickets/BCS-2026-000001").await.text());
    assert_eq!(days[0], ("accepted".into(), "11/24".into(), "收到，受理当天，不计".into()));
    assert_eq!(days.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_found_as_printed_also_when_the_ticket_is_closed() {
    let gateway = gateway().await;
    gateway.accept("s1", "灯坏了").await;
    gateway.accept("s2", "门坏了").await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let found = async |query: &str| {
        let page = desk.get(&format!("/desk?{query}")).await.text();
        (page.contains("data-ticket=\"BCS-2026-000001\""), page.matches("data-ticket=").count())
    };
    assert_eq!(found("view=all&q=BCS-2026-000001").await, (true, 1));
    assert_eq!(found("view=mine&q=%20bcs-2026-1%20").await, (true, 1));
    assert_eq!(found("view=all&q=000001").await, (true, 1));
    assert_eq!(found("view=all&q=2026-00000").await, (true, 2));
    assert_eq!(found("view=all&q=BCS-2026-000009").await, (false, 0));
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE ticket SET state = 'closed', outcome = 'solved' WHERE ticket % 10 = 1")
        .await;
    assert_eq!(found("view=all&q=BCS-2026-000001").await, (true, 1));
    assert_eq!(found("view=all").await, (false, 1));
    gateway.clock.set(at("2026-11-26 09:10"));
    let later = Desk::login(&gateway, "zhao.min").await;
    let page = later.get("/desk?q=BCS-2026-000001").await.text();
    assert!(page.contains("已销号") && !page.contains("已逾期 "), "{page}");
    let page = later.get("/desk/tickets/BCS-2026-000001").await.text();
    assert!(page.contains("已销号") && !page.contains("已逾期 "), "{page}");
    let page = gateway.api("/tickets?state=open&q=BCS-2026-000001&limit=").await.json();
    assert_eq!(page["items"][0]["number"], "BCS-2026-000001");
    assert_eq!(page["items"][0]["state"], "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_keeps_its_filters_and_a_view_of_one_channel_offers_no_other() {
    let gateway = gateway().await;
    for n in 0..55 {
        gateway.accept(&format!("s{n}"), "灯坏了").await;
    }
    gateway.voicemail("r1", "2026-11-24T09:00:00+08:00").await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk?view=all&channel=counter&level=1").await.text();
    let next = page.split("href=\"").find(|part| part.contains("after=")).unwrap();
    let next = next.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    let rest = desk.get(&next).await.text();
    let first = rest.split("<a href=\"").find(|part| part.contains("回到最前")).unwrap();
    let first = first.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    assert_eq!(first, "/desk?view=all&channel=counter&level=1");
    let calls = desk.get("/desk?view=call_back&channel=wechat").await.text();
    assert!(!calls.contains("name=\"channel\"") && calls.matches("data-ticket=").count() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s23_a_page_that_refreshes_itself_does_not_keep_a_session_alive() {
    let gateway = gateway().await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    for minute in (12..40).step_by(2) {
        gateway.clock.set(at(&format!("2026-11-24 09:{minute}")));
        assert_eq!(desk.poll("/desk").await.status, 200, "{minute}");
        let live = gateway.client.get(format!("{}/desk/live", gateway.base));
        assert_eq!(live.header("cookie", &desk.cookie).send().await.unwrap().status(), 200);
    }
    gateway.clock.set(at("2026-11-24 09:41"));
    assert_eq!(desk.poll("/desk").await.status, 303);
    assert_eq!(desk.get("/desk").await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_twenty_wrong_passwords_at_once_are_no_more_than_five() {
    let gateway = gateway().await;
    let attempts = (0..20).map(|_| try_login(&gateway, "zhao.min", "x"));
    let mut statuses: Vec<u16> =
        futures::future::join_all(attempts).await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[401; 5].as_slice(), &[429; 15]].concat());
    assert_eq!(try_login(&gateway, "zhao.min", PASSWORD).await.status, 429);
    // The lock is as long as it was, and the last minute of it is said as one.
    gateway.clock.set(at("2026-11-24 09:24") + chrono::TimeDelta::seconds(30));
    let locked = try_login(&gateway, "zhao.min", PASSWORD).await;
    assert!(locked.text().contains("请 1 分钟后再试"), "{}", locked.text());
    gateway.clock.set(at("2026-11-24 09:23") + chrono::TimeDelta::seconds(30));
    let locked = try_login(&gateway, "zhao.min", PASSWORD).await;
    assert!(locked.text().contains("请 2 分钟后再试"), "{}", locked.text());
    gateway.clock.set(at("2026-11-24 09:25"));
    assert_eq!(try_login(&gateway, "zhao.min", PASSWORD).await.status, 303);
    // A success forgets what failed before it.
    for _ in 0..4 {
        assert_eq!(try_login(&gateway, "zhao.min", "x").await.status, 401);
    }
    assert_eq!(try_login(&gateway, "zhao.min", PASSWORD).await.status, 303);
    assert_eq!(try_login(&gateway, "zhao.min", "x").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_the_sessions_and_the_lock_of_its_owner_only() {
    let gateway = gateway().await;
    let zhao = Desk::login(&gateway, "zhao.min").await;
    let qian = Desk::login(&gateway, "qian.fang").await;
    for _ in 0..5 {
        try_login(&gateway, "zhao.min", "x").await;
    }
    assert_eq!(try_login(&gateway, "zhao.min", PASSWORD).await.status, 429);
    let mut db = gateway.pool.acquire().await.unwrap();
    let before =
        intake_gateway::store::access::candidate(&mut db, "zhao.min").await.unwrap().unwrap();
    let hash = intake_gateway::secret::hash_password("another-one").unwrap();
    let staff = intake_gateway::store::office::NewStaff {
        login: "zhao.min",
        name: "赵敏",
        role: intake_gateway::domain::role::Role::DutyOfficer,
        unit: None,
        email: None,
        mobile: None,
        password_hash: &hash,
    };
    intake_gateway::store::office::put_staff(&mut db, gateway.office, &staff).await.unwrap();
    assert_eq!(zhao.get("/desk").await.status, 303);
    assert_eq!(qian.get("/desk").await.status, 200);
    assert_eq!(try_login(&gateway, "zhao.min", "another-one").await.status, 303);
    assert_eq!(try_login(&gateway, "zhao.min", PASSWORD).await.status, 401);
    // Whoever was checked against the old password a moment ago does not get in any more.
    let now = gateway.clock.now();
    let opened =
        intake_gateway::store::access::open_session(&mut db, &before, &[7; 32], "c", now).await;
    assert!(!opened.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_sessions_that_are_over_are_removed() {
    let gateway = gateway().await;
    let _old = Desk::login(&gateway, "zhao.min").await;
    try_login(&gateway, "qian.fang", "x").await;
    gateway.clock.set(at("2026-11-24 09:36"));
    let desk = Desk::login(&gateway, "li.qiang").await;
    try_login(&gateway, "wu.gang", "x").await;
    gateway.clock.set(at("2026-11-24 09:41"));
    assert_eq!(intake_gateway::housekeeping::tidy(&gateway.app).await.unwrap(), 2);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM login_failure").await, 1);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM desk_session").await, 1);
    assert_eq!(desk.get("/desk").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_text_can_hold_is_refused_or_cleaned_and_never_a_fault() {
    let gateway = gateway().await;
    gateway.accept("s1", "灯坏了").await;
    assert_eq!(try_login(&gateway, "zhao\0min", "x").await.status, 401);
    assert_eq!(try_login(&gateway, "zhao.min", "x\0").await.status, 401);
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk?view=all&q=%00%E7%81%AF").await;
    assert_eq!((page.status, page.text().matches("data-ticket=").count()), (200, 1));
    for path in [
        "/desk?view=%00&channel=%00&level=%00&after=%00",
        "/desk?after=0-9000000000000000000-2026000000001",
    ] {
        assert_eq!(desk.get(path).await.status, 200, "{path}");
    }
    for path in ["/desk/tickets/%00", "/desk/tickets/BCS-2026-%00", "/desk/assets/%00"] {
        assert_eq!(desk.get(path).await.status, 404, "{path}");
    }
    for path in
        ["/tickets?q=%00", "/tickets?state=%00", "/tickets?after=%00", "/tickets?channel=%00"]
    {
        assert_eq!(gateway.api(path).await.status, 400, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_on_the_desk_is_a_page_in_chinese() {
    let gateway = gateway().await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    let long = "长".repeat(40_000);
    let cases = [
        ("too long", desk.post("/desk/register", &[("problem", &long)]).await, 413),
        ("no fields", desk.post("/desk/logout", &[]).await, 422),
        ("no number", desk.post("/desk/notices/x/resend", &[("csrf", &csrf)]).await, 400),
        ("wrong method", desk.post("/desk/notices", &[]).await, 405),
        ("no page", desk.get("/desk/nothing").await, 404),
        ("bad path", desk.get("/desk/tickets/%ff").await, 400),
        ("stale form", desk.post("/desk/register", &[("csrf", "x")]).await, 403),
        (
            "no form",
            gateway.post("/desk/login", &[("content-encoding", "gzip")], vec![]).await,
            415,
        ),
        ("no type", gateway.post("/desk/login", &[], b"login=x".to_vec()).await, 415),
    ];
    for (name, answer, status) in cases {
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert!(answer.text().contains("<h1>") && answer.text().contains("。"), "{name}");
        assert!(answer.headers.contains_key("content-security-policy"), "{name}");
        let length = answer.headers["content-length"].to_str().unwrap();
        assert_eq!(length, answer.body.len().to_string(), "{name}");
    }
    // As long as the form allows is taken.
    let entry = desk.hidden("/desk/register", "entry").await;
    let long = "长".repeat(20_000);
    let form = [
        ("csrf", csrf.as_str()),
        ("entry", &entry),
        ("channel", "counter"),
        ("name", "王芳"),
        ("problem", &long),
    ];
    let answer = desk.post("/desk/register", &form).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn s22_the_cookie_in_earnest_is_for_this_host_and_tls_only() {
    let mut spec = Spec::at(at("2026-11-24 09:10"));
    spec.secure_cookie = true;
    let gateway = spec.start().await;
    let answer = try_login(&gateway, "zhao.min", PASSWORD).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-desk=") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(cookie.contains("; Path=/;") && cookie.contains("HttpOnly"), "{cookie}");
    let desk = Desk::login(&gateway, "zhao.min").await;
    assert_eq!(desk.get("/desk").await.status, 200);
    // The name without the prefix opens nothing.
    let other = Desk { gateway: &gateway, cookie: desk.cookie.replace("__Host-", "") };
    assert_eq!(other.get("/desk").await.status, 303);
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
    assert!(page.contains("已忽略（赵敏，"), "{page}");
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
    assert!(page.contains("没有送达") && page.contains("再发一次"), "{page}");
    assert!(page.contains("对方没有收下（403），请管理员检查这个通知方式的设置"), "{page}");
    let csrf = desk.csrf().await;
    let id = number(&gateway.pool, "SELECT notice_id FROM notice").await;
    assert_eq!(
        desk.post(&format!("/desk/notices/{id}/resend"), &[("csrf", &csrf)]).await.status,
        303
    );
    gateway.app.relay.step().await.unwrap();
    assert!(desk.get("/desk/notices").await.text().contains("已送达"));
    // Sent, and not to everybody.
    sql(&mut db, "UPDATE notice SET last_error = 'not told: 钱芳, 李强'").await;
    let page = desk.get("/desk/notices").await.text();
    assert!(page.contains("已送达") && page.contains("没有通知到：钱芳、李强"), "{page}");
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

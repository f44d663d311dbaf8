//! The conversation with a citizen on WeChat: number first, then everything that follows from the
//! same person, whatever its form and order.

use crate::{
    desk::Desk,
    support::{
        Spec, TestGateway, at,
        gateway::{Answer, account_text, number_in},
        number, redis_url, sql, until, waiting_for_a_lock,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use intake_gateway::{
    clock::Clock,
    domain::{
        conversation::Talk,
        event::Actor,
        register::RegisterNumber,
        ticket::{NewLimit, Outcome},
    },
    secret, store,
};
use sqlx::Connection;
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

const CITIZEN: &str = "oCitizen";

/// A day on which the office is open.
async fn open_day() -> TestGateway {
    Spec::at(at("2026-11-24 09:10")).start().await
}

async fn says(gateway: &TestGateway, text: &str, id: &str) -> String {
    gateway.wechat(CITIZEN, text, id).await.reply()
}

fn message(created: DateTime<Utc>, fields: &str) -> String {
    format!(
        "<xml><ToUserName>gh_8a1b2c3d4e5f</ToUserName><FromUserName>{CITIZEN}</FromUserName>\
         <CreateTime>{}</CreateTime>{fields}</xml>",
        created.timestamp()
    )
}

fn photo(created: DateTime<Utc>, id: &str) -> String {
    let fields = format!(
        "<MsgType>image</MsgType><PicUrl>http://mmbiz.qpic.cn/x</PicUrl>\
         <MediaId>photo{id}</MediaId><MsgId>{id}</MsgId>"
    );
    message(created, &fields)
}

fn place(created: DateTime<Utc>, id: &str) -> String {
    let fields = format!(
        "<MsgType>location</MsgType><Location_X>42.3</Location_X><Location_Y>123.8</Location_Y>\
         <Scale>15</Scale><Label>铁岭县政务服务中心</Label><MsgId>{id}</MsgId>"
    );
    message(created, &fields)
}

fn voice(created: DateTime<Utc>, id: &str) -> String {
    let fields = format!(
        "<MsgType>voice</MsgType><MediaId>voice{id}</MediaId><Format>amr</Format>\
         <MediaId16K>voice{id}_16K</MediaId16K><MsgId>{id}</MsgId>"
    );
    message(created, &fields)
}

fn tapped(created: DateTime<Utc>, key: &str) -> String {
    let fields = format!("<MsgType>event</MsgType><Event>CLICK</Event><EventKey>{key}</EventKey>");
    message(created, &fields)
}

async fn sends(gateway: &TestGateway, xml: &str) -> String {
    gateway.wechat_xml(xml).await.reply()
}

/// What an officer does to a ticket, by the domain's own transitions.
async fn change(
    gateway: &TestGateway,
    sequence: i32,
    transition: impl FnOnce(&mut intake_gateway::domain::ticket::Ticket),
    happened: impl FnOnce(
        &mut intake_gateway::domain::ticket::Ticket,
    ) -> intake_gateway::domain::event::Happened,
) {
    let mut db = gateway.pool.acquire().await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    let ticket = RegisterNumber::new(2026, sequence).unwrap();
    let mut locked =
        store::ticket::lock(&mut transaction, gateway.office, ticket).await.unwrap().unwrap();
    transition(&mut locked.ticket);
    let happened = happened(&mut locked.ticket);
    let now = gateway.clock.now();
    store::ticket::write(&mut transaction, &mut locked, Actor::Gateway, &happened, now)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

async fn claim_and_resolve(gateway: &TestGateway, sequence: i32) {
    let by = intake_gateway::domain::id::StaffId(1);
    change(gateway, sequence, |_| (), |t| t.claim(by).unwrap()).await;
    change(gateway, sequence, |_| (), |t| t.resolve(Outcome::Solved, "已补办", "已补办").unwrap())
        .await;
}

async fn close(gateway: &TestGateway, sequence: i32) {
    claim_and_resolve(gateway, sequence).await;
    change(gateway, sequence, |_| (), |t| t.close(Some("群众不愿评价")).unwrap()).await;
}

async fn tickets(gateway: &TestGateway) -> i64 {
    number(&gateway.pool, "SELECT count(*) FROM ticket").await
}

async fn messages(gateway: &TestGateway, sequence: i32) -> i64 {
    let query = format!("SELECT count(*) FROM message WHERE ticket % 1000000000 = {sequence}");
    number(&gateway.pool, &query).await
}

async fn is_sound(gateway: &TestGateway) {
    let faults = crate::verify::faults(gateway).await;
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_a_sticker_and_a_menu_click_open_nothing_and_say_how_to_report() {
    let gateway = open_day().await;
    let now = gateway.clock.now();
    for (n, text) in ["你好", "在吗？", "[微笑]", "😀", "1"].into_iter().enumerate() {
        let reply = says(&gateway, text, &format!("1{n}")).await;
        assert!(reply.contains("请直接在这里用文字说明"), "{text}: {reply}");
    }
    let reply = sends(&gateway, &tapped(now, "NEW")).await;
    assert!(reply.contains("请直接在这里用文字说明"), "{reply}");
    assert_eq!(tickets(&gateway).await, 0);
    // The same delivery again, after a matter was opened: the same answer, and nothing more.
    says(&gateway, "社保卡办不下来", "20").await;
    let again = says(&gateway, "你好", "10").await;
    assert!(again.contains("请直接在这里用文字说明"), "{again}");
    // Another greeting grows the open matter, and nobody is disturbed for it.
    let told = "SELECT count(*) FROM outbox WHERE kind = 'grew'";
    assert!(says(&gateway, "谢谢", "21").await.contains("BCS-2026-000001"));
    assert_eq!(number(&gateway.pool, told).await, 0);
    assert_eq!(messages(&gateway, 1).await, 2);
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_alone_is_kept_asked_about_once_and_joins_the_words_when_they_come() {
    let gateway = open_day().await;
    let now = gateway.clock.now();
    let asked = sends(&gateway, &photo(now, "1")).await;
    assert!(asked.contains("用文字说一说") && asked.contains("9:20"), "{asked}");
    let again = sends(&gateway, &place(now, "2")).await;
    assert!(again.contains("和刚才的一起留着") && !again.contains("9:20"), "{again}");
    assert_eq!(tickets(&gateway).await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM held").await, 2);

    let registered = says(&gateway, "楼道的灯坏了", "3").await;
    assert!(registered.contains("已登记，编号 BCS-2026-000001"), "{registered}");
    assert_eq!((tickets(&gateway).await, messages(&gateway, 1).await), (1, 3));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM held").await, 0);
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["problem"], "楼道的灯坏了", "the words name the matter");
    // What was answered first is answered again, word for word.
    assert_eq!(sends(&gateway, &photo(now, "1")).await, asked);
    assert_eq!(messages(&gateway, 1).await, 3);
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_without_words_is_registered_by_itself_after_ten_minutes() {
    let gateway = open_day().await;
    sends(&gateway, &photo(gateway.clock.now(), "1")).await;
    assert_eq!(gateway.app.waits.step().await.unwrap(), 0);
    gateway.clock.set(at("2026-11-24 09:20"));
    assert_eq!(gateway.app.waits.step().await.unwrap(), 1);
    assert_eq!(gateway.app.waits.step().await.unwrap(), 0);
    assert_eq!((tickets(&gateway).await, messages(&gateway, 1).await), (1, 1));
    let told =
        "SELECT count(*) FROM outbox WHERE kind = 'registered' AND data->>'tell_citizen' = 'true'";
    assert_eq!(number(&gateway.pool, told).await, 1, "the citizen is told the number");
    // From then on it is an open matter like any other.
    let named = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(named["problem"], "〔图片〕");
    assert!(says(&gateway, "楼道的灯坏了", "2").await.contains("补充到您的反映 BCS-2026-000001"));
    let named = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(named["problem"], "楼道的灯坏了", "the first words name it");
    says(&gateway, "三楼也坏了", "3").await;
    let named = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(named["problem"], "楼道的灯坏了");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_survives_a_restart_and_is_registered_once_by_two_gateways() {
    let one = open_day().await;
    sends(&one, &photo(one.clock.now(), "1")).await;
    sends(&one, &photo(one.clock.now(), "2")).await;
    let database = one.database_url.clone();
    one.stop().await;
    let later = at("2026-11-24 11:00");
    let two = Spec::at(later).on(&database).start().await;
    let three = Spec::at(later).on(&database).start().await;
    let (a, b) = tokio::join!(two.app.waits.step(), three.app.waits.step());
    assert!(a.unwrap() + b.unwrap() >= 1);
    assert_eq!((tickets(&two).await, messages(&two, 1).await), (1, 2));
    is_sound(&two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spoken_words_register_at_once_and_a_photo_on_an_open_matter_joins_at_once() {
    let gateway = open_day().await;
    let now = gateway.clock.now();
    let reply = sends(&gateway, &voice(now, "1")).await;
    assert!(reply.contains("已登记，编号 BCS-2026-000001"), "{reply}");
    let reply = sends(&gateway, &photo(now, "2")).await;
    assert!(reply.contains("补充到您的反映 BCS-2026-000001"), "{reply}");
    assert_eq!(messages(&gateway, 1).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_deliveries_of_four_messages_over_two_gateways_make_one_ticket() {
    for round in 0..6 {
        let one = open_day().await;
        let two = Spec::at(at("2026-11-24 09:10")).on(&one.database_url).start().await;
        let now = one.clock.now();
        let text = |id: &str, said: &str| {
            let fields =
                format!("<MsgType>text</MsgType><Content>{said}</Content><MsgId>{id}</MsgId>");
            message(now + TimeDelta::seconds(id.parse().unwrap()), &fields)
        };
        let sent = [
            text("1", "楼道的灯坏了"),
            photo(now + TimeDelta::seconds(2), "2"),
            voice(now + TimeDelta::seconds(3), "3"),
            place(now + TimeDelta::seconds(4), "4"),
        ];
        // Every delivery of every message at once, the order of the starts another one each round.
        let deliveries = (0..12).map(|n| {
            let n = (n * 7 + round * 5) % 12;
            let gateway = if n % 2 == round % 2 { &one } else { &two };
            let xml = &sent[n % 4];
            async move { (n % 4, gateway.wechat_xml(xml).await.reply()) }
        });
        let replies = join_all(deliveries).await;
        for message in 0..4 {
            let mut texts = replies.iter().filter(|(n, _)| *n == message).map(|(_, text)| text);
            let first = texts.next().unwrap();
            assert!(texts.all(|text| text == first), "{replies:?}");
        }
        assert_eq!(tickets(&one).await, 1, "{replies:?}");
        assert_eq!(number(&one.pool, "SELECT count(*) FROM held").await, 0, "{replies:?}");
        assert_eq!(messages(&one, 1).await, 4, "{replies:?}");
        let ticket = one.api("/tickets/BCS-2026-000001").await.json();
        let order: Vec<i64> = ticket["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                let at = m["occurred_at"].as_str().unwrap();
                DateTime::parse_from_rfc3339(at).unwrap().timestamp() - now.timestamp()
            })
            .collect();
        assert_eq!(order, [1, 2, 3, 4]);
        is_sound(&one).await;
    }
}

/// A gateway in a process of its own, on the office of another one.
struct Served {
    process: Child,
    base: String,
}

impl Served {
    async fn start(beside: &TestGateway) -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let (listen, ops) = (free(), free());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("serve-{}", hex::encode(secret::random::<6>())));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("intake.toml");
        let account = account_text();
        let text = format!(
            "database_url = '{}'\nredis_url = '{}'\n[schedule]\nprefix = '{}'\n[http]\nlisten = '{listen}'\n\
             [ops]\nlisten = '{ops}'\n[media]\nfolder = '{}'\n[spool]\nfolder = ''\n{account}",
            beside.database_url,
            redis_url(),
            hex::encode(secret::random::<6>()),
            folder.display(),
        );
        std::fs::write(&file, text).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_intake"))
            .arg("--config")
            .arg(&file)
            .args(["serve", "--role", "web"])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self { process, base: format!("http://{listen}") };
        let ready = format!("http://{ops}/readyz");
        until("the process is ready", async || {
            reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        served
    }

    async fn sends(&self, beside: &TestGateway, xml: &str) -> String {
        let (query, body) = beside.callback(xml);
        let url = format!("{}/channels/wechat/main?{query}", self.base);
        Answer::of(beside.client.post(url).body(body).send().await.unwrap()).await.reply()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_deliveries_of_four_messages_over_two_processes_make_one_ticket() {
    let gateway = Spec::at(Clock::system().now()).start().await;
    let (one, two) = (Served::start(&gateway).await, Served::start(&gateway).await);
    let now = gateway.clock.now();
    let text = |id: &str, said: &str| {
        let fields = format!("<MsgType>text</MsgType><Content>{said}</Content><MsgId>{id}</MsgId>");
        message(now + TimeDelta::seconds(id.parse().unwrap()), &fields)
    };
    let sent = [
        text("1", "楼道的灯坏了"),
        photo(now + TimeDelta::seconds(2), "2"),
        voice(now + TimeDelta::seconds(3), "3"),
        place(now + TimeDelta::seconds(4), "4"),
    ];
    let (gateway, sent) = (&gateway, &sent);
    let deliveries = (0..12).map(|n| {
        let process = if n % 2 == 0 { &one } else { &two };
        async move { (n / 3, process.sends(gateway, &sent[n / 3]).await) }
    });
    let replies = join_all(deliveries).await;
    for message in 0..4 {
        let mut texts = replies.iter().filter(|(n, _)| *n == message).map(|(_, text)| text);
        let first = texts.next().unwrap();
        assert!(texts.all(|text| text == first), "{replies:?}");
    }
    assert_eq!((tickets(gateway).await, messages(gateway, 1).await), (1, 4), "{replies:?}");
    is_sound(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_2_name_and_telephone_are_asked_for_once_and_recognised_in_what_follows() {
    let gateway = open_day().await;
    let reply = says(&gateway, "社保卡办不下来", "1").await;
    assert!(reply.contains("请回复您的姓名和电话") && reply.contains("不影响办理"), "{reply}");
    let reply = says(&gateway, "王芳 139 0000 1234", "2").await;
    assert!(reply.contains("已记下您的联系方式") && !reply.contains("姓名"), "{reply}");
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["citizen"]["name"], "王芳");
    assert_eq!(ticket["citizen"]["phone"], "13900001234");
    let kept = "SELECT count(*) FROM event WHERE data->>'contact' = 'true'";
    assert_eq!(number(&gateway.pool, kept).await, 1, "the trail says so, without the values");
    // A later matter of the same person does not ask again.
    close(&gateway, 1).await;
    gateway.clock.set(at("2026-12-10 09:00"));
    let reply = says(&gateway, "路灯也坏了", "3").await;
    assert!(reply.contains("BCS-2026-000002") && !reply.contains("姓名"), "{reply}");
    let ticket = gateway.api("/tickets/BCS-2026-000002").await.json();
    assert_eq!(ticket["citizen"]["phone"], "13900001234");
    // Somebody else's number in what follows is not theirs; a new one of their own is.
    says(&gateway, "中介电话13812345678，骗了我3000元", "5").await;
    let phone = async || {
        let ticket = gateway.api("/tickets/BCS-2026-000002").await.json();
        ticket["citizen"]["phone"].as_str().map(str::to_owned)
    };
    assert_eq!(phone().await.as_deref(), Some("13900001234"));
    says(&gateway, "我的手机换成13700001234了", "6").await;
    assert_eq!(phone().await.as_deref(), Some("13700001234"));
    // Given with the first words, it is not asked for at all.
    let reply = gateway.wechat("oOther", "我叫李娜，13900005678，工资没发", "4").await.reply();
    assert!(!reply.contains("请回复您的姓名"), "{reply}");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_seven_days_after_closing_the_citizen_is_asked_whether_it_is_the_old_matter() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    close(&gateway, 1).await;
    gateway.clock.set(at("2026-11-26 10:00"));
    let asked = says(&gateway, "灯又坏了", "2").await;
    assert!(asked.contains("BCS-2026-000001") && asked.contains("回复 1"), "{asked}");
    assert_eq!(tickets(&gateway).await, 1);
    let again = sends(&gateway, &photo(gateway.clock.now(), "3")).await;
    assert!(again.contains("回复 1"), "{again}");
    let reopened = says(&gateway, "1", "4").await;
    assert!(reopened.contains("BCS-2026-000001 重新办理"), "{reopened}");
    assert_eq!(says(&gateway, "1", "4").await, reopened);
    assert_eq!((tickets(&gateway).await, messages(&gateway, 1).await), (1, 3));
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["state"], "in_progress");
    assert_eq!(ticket["due_at"], "2026-11-27T16:30:00+08:00");
    is_sound(&gateway).await;
    assert!(says(&gateway, "还是没人来", "5").await.contains("补充到您的反映 BCS-2026-000001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_matter_after_closing_is_one_by_its_answer_by_silence_and_after_seven_days() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    close(&gateway, 1).await;
    says(&gateway, "社保卡办不下来", "2").await;
    let registered = says(&gateway, "2", "3").await;
    assert!(registered.contains("已登记，编号 BCS-2026-000002"), "{registered}");
    assert_eq!(says(&gateway, "2", "3").await, registered);
    assert_eq!(messages(&gateway, 2).await, 1, "the answer itself is no message");
    close(&gateway, 2).await;
    says(&gateway, "工资没发", "4").await;
    gateway.clock.set(at("2026-11-24 09:25"));
    gateway.app.waits.step().await.unwrap();
    assert_eq!((tickets(&gateway).await, messages(&gateway, 3).await), (3, 1));
    close(&gateway, 3).await;
    gateway.clock.set(at("2026-12-02 09:00"));
    assert!(says(&gateway, "退休金少了", "5").await.contains("已登记，编号 BCS-2026-000004"));
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_matter_is_started_while_one_is_open_and_each_keeps_its_own() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    let asked = says(&gateway, "新诉求", "2").await;
    assert!(asked.contains("另登记一件") && asked.contains("BCS-2026-000001"), "{asked}");
    let kept = sends(&gateway, &photo(gateway.clock.now(), "3")).await;
    assert!(kept.contains("用文字说一说"), "{kept}");
    let second = says(&gateway, "社保卡办不下来", "4").await;
    assert!(second.contains("已登记，编号 BCS-2026-000002"), "{second}");
    assert!(says(&gateway, "跑了三趟", "5").await.contains("BCS-2026-000002"));
    assert_eq!((messages(&gateway, 1).await, messages(&gateway, 2).await), (1, 3));
    let progress = says(&gateway, "进度", "6").await;
    assert!(progress.contains("BCS-2026-000001：已登记"), "{progress}");
    assert!(progress.contains("BCS-2026-000002：已登记"), "{progress}");
    // When the second is over, what follows belongs to the first again.
    close(&gateway, 2).await;
    // Which it is about is asked, since one was closed just now; the open one is among the answers.
    let asked = says(&gateway, "灯还没修", "7").await;
    assert!(asked.contains("BCS-2026-000002 已办结"), "{asked}");
    assert!(asked.contains("正在办的 BCS-2026-000001，请回复 3"), "{asked}");
    assert!(says(&gateway, "好的", "70").await.contains("回复 3"), "a nod is no answer");
    let grown = says(&gateway, "3", "71").await;
    assert!(grown.contains("补充到您的反映 BCS-2026-000001"), "{grown}");
    assert_eq!(says(&gateway, "3", "71").await, grown);
    assert_eq!(messages(&gateway, 1).await, 2);
    // It was asked once: what follows belongs where this went.
    let grown = says(&gateway, "天黑了看不见", "8").await;
    assert!(grown.contains("补充到您的反映 BCS-2026-000001"), "{grown}");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_matter_gets_what_was_kept_for_it_though_another_one_is_open() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    says(&gateway, "新诉求", "2").await;
    says(&gateway, "社保卡办不下来", "3").await;
    close(&gateway, 2).await;
    says(&gateway, "卡还是没有拿到", "4").await;
    let again = says(&gateway, "1", "5").await;
    assert!(again.contains("BCS-2026-000002 重新办理"), "{again}");
    assert_eq!((messages(&gateway, 1).await, messages(&gateway, 2).await), (1, 2));
    // It is the one that they talk about now.
    assert!(says(&gateway, "跑了三趟", "6").await.contains("BCS-2026-000002"));
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rd3_2_an_emergency_soon_after_closing_is_registered_at_once() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    close(&gateway, 1).await;
    let reply = says(&gateway, "再拖下去我就跳楼", "2").await;
    assert!(reply.contains("110") && reply.contains("BCS-2026-000002"), "{reply}");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_writing_has_not_confirmed_a_withdrawal() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    assert!(says(&gateway, "撤回", "2").await.contains("回复“确认”"));
    says(&gateway, "再等等看", "3").await;
    says(&gateway, "好的", "4").await;
    assert!(says(&gateway, "进度", "5").await.contains("BCS-2026-000001"));
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_d_a_grade_that_is_written_out_judges_and_one_that_comes_too_late_is_told_so() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    claim_and_resolve(&gateway, 1).await;
    assert!(says(&gateway, "不满意", "2").await.contains("带班领导会看到"));
    says(&gateway, "新诉求", "3").await;
    says(&gateway, "社保卡办不下来", "4").await;
    close(&gateway, 2).await;
    let id = format!("grade/{}/2", RegisterNumber::new(2026, 2).unwrap().as_i64());
    let fields = format!(
        "<MsgType>text</MsgType><Content>满意</Content><MsgId>9</MsgId><bizmsgmenuid>{id}</bizmsgmenuid>"
    );
    let late = sends(&gateway, &message(gateway.clock.now(), &fields)).await;
    assert!(late.contains("已经办结") && !late.contains("已经评价过"), "{late}");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_d_the_result_is_judged_by_a_whole_text_once() {
    let gateway = open_day().await;
    assert!(says(&gateway, "评价", "1").await.contains("没有等待评价"));
    says(&gateway, "楼道的灯坏了", "2").await;
    assert!(says(&gateway, "评价", "3").await.contains("还在办理"));
    claim_and_resolve(&gateway, 1).await;
    // No date is promised any more for what is answered.
    let added = says(&gateway, "窗口的人态度不错", "40").await;
    assert!(added.contains("已经答复过") && !added.contains("最晚"), "{added}");
    let asked = says(&gateway, "评价", "4").await;
    assert!(asked.contains("1 非常满意") && asked.contains("5 非常不满意"), "{asked}");
    let judged = says(&gateway, "4", "5").await;
    assert!(judged.contains("带班领导会看到"), "{judged}");
    assert_eq!(says(&gateway, "4", "5").await, judged);
    assert!(says(&gateway, "评价", "6").await.contains("已经评价过"));
    let state = "SELECT count(*) FROM ticket WHERE state = 'evaluated'";
    assert_eq!(number(&gateway.pool, state).await, 1);
    // Somebody else's ticket cannot be judged by an option with its number.
    let id = format!("grade/{}/1", RegisterNumber::new(2026, 1).unwrap().as_i64());
    let fields = format!(
        "<MsgType>text</MsgType><Content>非常满意</Content><bizmsgmenuid>{id}</bizmsgmenuid>\
         <MsgId>7</MsgId>"
    );
    let xml = message(gateway.clock.now(), &fields).replace(CITIZEN, "oOther");
    assert!(gateway.wechat_xml(&xml).await.reply().contains("没有等待评价"));
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matter_is_withdrawn_after_a_confirmation_only() {
    let gateway = open_day().await;
    assert!(says(&gateway, "撤回", "1").await.contains("没有可以撤回"));
    says(&gateway, "楼道的灯坏了", "2").await;
    assert!(says(&gateway, "撤回", "3").await.contains("确定撤回请回复"));
    assert!(says(&gateway, "不", "4").await.contains("继续办理"));
    says(&gateway, "撤回", "10").await;
    assert!(says(&gateway, "好的", "11").await.contains("确定撤回请回复"), "meant for whom?");
    gateway.clock.set(gateway.clock.now() + TimeDelta::minutes(31));
    let late = says(&gateway, "确认", "12").await;
    assert!(late.contains("补充到您的反映 BCS-2026-000001"), "{late}");
    says(&gateway, "撤回", "5").await;
    let withdrawn = says(&gateway, "确认", "6").await;
    assert!(withdrawn.contains("BCS-2026-000001 已按您的意思撤回"), "{withdrawn}");
    let outcome = "SELECT count(*) FROM ticket WHERE outcome = 'withdrawn' AND state = 'resolved'";
    assert_eq!(number(&gateway.pool, outcome).await, 1);
    let told = "SELECT count(*) FROM outbox WHERE kind = 'withdrawn'";
    assert_eq!(number(&gateway.pool, told).await, 1);
    assert!(says(&gateway, "进度", "7").await.contains("没有正在办理的反映"));
    assert!(says(&gateway, "评价", "8").await.contains("没有等待评价的反映"));
    let new = says(&gateway, "路灯坏了", "9").await;
    assert!(new.contains("已登记，编号 BCS-2026-000002"), "{new}");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_in_between_does_not_make_the_new_matter_part_of_the_old_one() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    says(&gateway, "新诉求", "2").await;
    assert!(says(&gateway, "撤回", "3").await.contains("BCS-2026-000001"));
    says(&gateway, "不", "4").await;
    let new = says(&gateway, "路上的井盖没了", "5").await;
    assert!(new.contains("已登记，编号 BCS-2026-000002"), "{new}");
    let more = says(&gateway, "就在学校门口", "6").await;
    assert!(more.contains("BCS-2026-000002"), "{more}");
    assert_eq!(messages(&gateway, 1).await, 1);
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_person_is_told_how_and_the_handler_is_told_too() {
    let gateway = open_day().await;
    assert!(says(&gateway, "人工", "1").await.contains("到窗口来"));
    says(&gateway, "楼道的灯坏了", "2").await;
    let reply = sends(&gateway, &tapped(gateway.clock.now(), "PERSON")).await;
    assert!(reply.contains("已记在 BCS-2026-000001 上"), "{reply}");
    let told = "SELECT count(*) FROM outbox WHERE kind = 'person_wanted'";
    assert_eq!(number(&gateway.pool, told).await, 1);
    let again = says(&gateway, "人工", "4").await;
    assert!(again.contains("已记在 BCS-2026-000001 上"), "{again}");
    assert_eq!(number(&gateway.pool, told).await, 1, "the handler knows");
    says(&gateway, "还没有人来电话", "5").await;
    says(&gateway, "人工", "6").await;
    assert_eq!(number(&gateway.pool, told).await, 2);
    assert!(says(&gateway, "帮助", "3").await.contains("回复“进度”"));
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rd3_2_who_is_in_danger_is_told_that_somebody_is_told_now() {
    // Nobody is reached but who looks at the desk: nothing is promised.
    let alone = Spec::at(at("2026-11-28 22:14")).start().await;
    let reply = says(&alone, "再拖下去我就跳楼", "1").await;
    assert!(!reply.contains("通知带班领导") && reply.contains("110"), "{reply}");
    alone.stop().await;
    let gateway = Spec::at(at("2026-11-28 22:14"))
        .with(
            "[[notify]]\noffice = 'tieling'\nname = 'hook'\nkind = 'webhook'\n\
             url = 'http://127.0.0.1:9/'\nsecret = 'hook-secret'\nallow_host = '127.0.0.1'\n",
        )
        .start()
        .await;
    let reply = says(&gateway, "再拖下去我就跳楼", "1").await;
    assert!(reply.starts_with("您说的情况紧急，我们马上通知带班领导"), "{reply}");
    assert!(reply.contains("BCS-2026-000001"), "{reply}");
    assert_eq!(says(&gateway, "再拖下去我就跳楼", "1").await, reply);
    assert!(!says(&gateway, "社保卡的事", "2").await.contains("紧急"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_an_open_matter_tells_its_handler_once() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    gateway.app.relay.step().await.unwrap();
    let now = gateway.clock.now();
    join_all((2..8).map(|n| {
        let xml = photo(now, &n.to_string());
        let gateway = &gateway;
        async move { gateway.wechat_xml(&xml).await.reply() }
    }))
    .await;
    let pending = "SELECT count(*) FROM outbox WHERE kind = 'grew'";
    assert!(number(&gateway.pool, pending).await >= 1);
    gateway.clock.set(now + TimeDelta::minutes(2));
    gateway.app.relay.step().await.unwrap();
    let notices = "SELECT count(*) FROM notice WHERE title LIKE '%群众补充%'";
    until("the burst is told", async || number(&gateway.pool, notices).await == 1).await;
    assert!(number_in(&says(&gateway, "进度", "9").await).starts_with("BCS-2026-000001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_takes_a_while_tells_its_handler_once_and_what_follows_again() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    let began = gateway.clock.now();
    let effects = "SELECT count(*) FROM outbox WHERE kind = 'grew'";
    for (id, after, expected) in
        [("2", 0, 1), ("3", 10, 1), ("4", 20, 1), ("5", 31, 2), ("6", 40, 2)]
    {
        let now = began + TimeDelta::seconds(after);
        gateway.clock.set(now);
        sends(&gateway, &photo(now, id)).await;
        assert_eq!(number(&gateway.pool, effects).await, expected, "after {after} s");
    }
    // Thanks are worth nobody's while; a number may answer what the handler asked.
    gateway.clock.set(began + TimeDelta::minutes(5));
    says(&gateway, "好的", "7").await;
    assert_eq!(number(&gateway.pool, effects).await, 2);
    says(&gateway, "3", "8").await;
    assert_eq!(number(&gateway.pool, effects).await, 3);
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_second_stand_in_the_order_in_which_they_were_sent() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "100").await;
    let now = gateway.clock.now() + TimeDelta::seconds(1);
    let text = |id: u64, words: &str| {
        let fields =
            format!("<MsgType>text</MsgType><Content>{words}</Content><MsgId>{id}</MsgId>");
        message(now, &fields)
    };
    for (id, words) in [(9_000_000_000_000_000_003, "三"), (999, "一"), (1000, "二")] {
        sends(&gateway, &text(id, words)).await;
    }
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    let texts: Vec<&str> = ticket["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["楼道的灯坏了", "一", "二", "三"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_what_was_kept_registered_itself_still_says_which_matter_it_is() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    close(&gateway, 1).await;
    says(&gateway, "灯又坏了", "2").await;
    gateway.clock.set(at("2026-11-24 09:25"));
    assert_eq!(gateway.app.waits.step().await.unwrap(), 1);
    let same = says(&gateway, "1", "3").await;
    assert!(same.contains("BCS-2026-000002 说的就是 BCS-2026-000001"), "{same}");
    assert_eq!(says(&gateway, "1", "3").await, same);
    let told = "SELECT count(*) FROM outbox WHERE kind = 'same_matter'";
    assert_eq!(number(&gateway.pool, told).await, 1);
    assert_eq!(messages(&gateway, 2).await, 1, "the answer itself is no message");
    let more = says(&gateway, "三楼也不亮", "4").await;
    assert!(more.contains("补充到您的反映 BCS-2026-000002"), "{more}");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_platform_does_not_bring_is_asked_for_by_another_way() {
    let gateway = open_day().await;
    let file = |id: &str| {
        let fields = format!(
            "<MsgType>file</MsgType><Title>合同.pdf</Title><Description>d</Description>\
             <FileKey>k</FileKey><FileMd5>m</FileMd5><FileTotalLen>1</FileTotalLen><MsgId>{id}</MsgId>"
        );
        message(gateway.clock.now(), &fields)
    };
    let reply = sends(&gateway, &file("1")).await;
    assert!(reply.contains("收不到文件") && reply.contains("用文字说明"), "{reply}");
    says(&gateway, "工资没发", "2").await;
    let reply = sends(&gateway, &file("3")).await;
    assert!(reply.contains("BCS-2026-000001"), "{reply}");
    let noted = "SELECT count(*) FROM event WHERE kind = 'file_not_taken'";
    assert_eq!(number(&gateway.pool, noted).await, 1, "the handler sees that one was sent");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_and_came_is_not_demanded_again() {
    let gateway = open_day().await;
    says(&gateway, "社保卡办不下来", "1").await;
    let by = intake_gateway::domain::id::StaffId(1);
    let until = at("2026-11-26 16:30");
    change(&gateway, 1, |_| (), |t| t.claim(by).unwrap()).await;
    change(&gateway, 1, |_| (), |t| t.await_citizen("身份证复印件", until).unwrap()).await;
    let asked = says(&gateway, "进度", "2").await;
    assert!(asked.contains("等您补充：身份证复印件"), "{asked}");
    let came = sends(&gateway, &photo(gateway.clock.now(), "3")).await;
    assert!(came.contains("工作人员查看后"), "{came}");
    let stands = says(&gateway, "进度", "4").await;
    assert!(stands.contains("您补充的已经收到") && !stands.contains("等您补充"), "{stands}");
    // Asked for something else: what came before is not it.
    let limit = NewLimit { runs_from: until, due_at: until, provisional: false };
    change(&gateway, 1, |_| (), |t| t.resume(limit).unwrap()).await;
    change(&gateway, 1, |_| (), |t| t.await_citizen("户口本", until).unwrap()).await;
    let again = says(&gateway, "进度", "5").await;
    assert!(again.contains("等您补充：户口本"), "{again}");
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menus_first_entry_does_not_part_what_belongs_together() {
    let gateway = open_day().await;
    let now = gateway.clock.now();
    assert!(sends(&gateway, &tapped(now, "REPORT")).await.contains("请直接在这里用文字说明"));
    says(&gateway, "楼道的灯坏了", "1").await;
    let told = sends(&gateway, &tapped(now + TimeDelta::seconds(1), "REPORT")).await;
    assert!(told.contains("BCS-2026-000001 正在办理") && told.contains("新诉求"), "{told}");
    assert!(says(&gateway, "三楼的", "2").await.contains("补充到您的反映 BCS-2026-000001"));
    // 新诉求, and then how to reach them: no matter of its own.
    says(&gateway, "新诉求", "3").await;
    let contact = says(&gateway, "王芳 13900001234", "4").await;
    assert!(contact.contains("已记下您的联系方式"), "{contact}");
    assert_eq!(tickets(&gateway).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_scanned_a_counters_code_is_welcomed_and_the_ticket_says_where() {
    let gateway = open_day().await;
    let now = gateway.clock.now();
    let subscribe = "<MsgType>event</MsgType><Event>subscribe</Event>\
        <EventKey>qrscene_新台子镇便民服务中心</EventKey><Ticket>t</Ticket>";
    let reply = sends(&gateway, &message(now, subscribe)).await;
    assert!(reply.contains("欢迎关注"), "{reply}");
    assert_eq!(tickets(&gateway).await, 0);
    says(&gateway, "社保卡办不下来", "1").await;
    let scene = "SELECT count(*) FROM event WHERE data->>'scene' = '新台子镇便民服务中心'";
    assert_eq!(number(&gateway.pool, scene).await, 1);
    // Another code while the matter is open changes nothing of it.
    let scan =
        "<MsgType>event</MsgType><Event>SCAN</Event><EventKey>县大厅</EventKey><Ticket>t</Ticket>";
    let reply = sends(&gateway, &message(now + TimeDelta::seconds(1), scan)).await;
    assert!(reply.contains("请直接在这里用文字说明"), "{reply}");
    assert_eq!(messages(&gateway, 1).await, 1);
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_back_leave_or_gives_the_account_up_is_forgotten() {
    let gateway = open_day().await;
    let now = gateway.clock.now();
    says(&gateway, "社保卡办不下来", "1").await;
    says(&gateway, "王芳 13900001234", "2").await;
    let mut db = gateway.pool.acquire().await.unwrap();
    let remembered = "INSERT INTO conversation (office_id, thread, citizen_name, citizen_phone) \
        SELECT office_id, thread, '王芳', '13900001234' FROM ticket \
        ON CONFLICT (office_id, thread) DO UPDATE SET citizen_name = '王芳'";
    // The sender is a service of the platform; the citizen is named inside.
    let event = |what: &str| {
        let fields = format!(
            "<MsgType>event</MsgType><Event>{what}</Event><OpenID>{CITIZEN}</OpenID>\
             <AppID>wx5823bf96d3bd56c7</AppID><RevokeInfo>301</RevokeInfo>"
        );
        message(now, &fields)
            .replace(&format!("<FromUserName>{CITIZEN}<"), "<FromUserName>oPlatformsService<")
    };
    let known = "SELECT count(*) FROM conversation WHERE citizen_name IS NOT NULL";
    for (what, stays) in [
        ("user_info_modified", 1),
        ("user_authorization_revoke", 0),
        ("user_authorization_cancellation", 0),
    ] {
        sql(&mut db, remembered).await;
        assert_eq!(gateway.wechat_xml(&event(what)).await.text(), "success");
        assert_eq!(number(&gateway.pool, known).await, stays, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_reads_where_a_place_is_and_where_a_link_leads() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    sends(&gateway, &place(gateway.clock.now(), "2").replace("铁岭县政务服务中心", "")).await;
    let link = "<MsgType>link</MsgType><Title>照明规定</Title><Description></Description>\
        <Url>https://example.com/a?b=1&amp;c=2</Url><MsgId>3</MsgId>";
    sends(&gateway, &message(gateway.clock.now(), link)).await;
    let page =
        Desk::login(&gateway, "zhao.min").await.get("/desk/tickets/BCS-2026-000001").await.text();
    assert!(page.contains("位置（坐标 42.3,123.8）"), "{page}");
    assert!(page.contains("链接：照明规定（https://example.com/a?b=1&#38;c=2）"), "{page}");
    assert!(!page.contains("href=\"https://example.com"));
}

/// A turn takes a moment; a matter may be set aside at the desk and the citizen may leave meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_turn_did_not_change_stays_as_others_have_left_it_meanwhile() {
    let gateway = open_day().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    let given =
        Talk { name: Some("王芳".into()), phone: Some("13900001234".into()), ..Talk::default() };
    let (of, thread) = ((gateway.office, 2026), "wechat-main-oCitizen");
    store::conversation::put(&mut db, of, thread, &Talk::default(), &given).await.unwrap();
    let meanwhile =
        "UPDATE conversation SET citizen_name = NULL, citizen_phone = NULL, beside = true";
    sql(&mut db, meanwhile).await;
    let turned = Talk {
        next_is_new: Some(gateway.clock.now()),
        phone: Some("13900005678".into()),
        ..given.clone()
    };
    store::conversation::put(&mut db, of, thread, &given, &turned).await.unwrap();
    let kept = "SELECT count(*) FROM conversation WHERE next_is_new IS NOT NULL AND beside \
                AND citizen_name IS NULL AND citizen_phone = '13900005678'";
    assert_eq!(number(&gateway.pool, kept).await, 1);
}

/// Any course of a conversation, over two gateways: nothing that was said is lost, every repeat is
/// answered as the first time, and the register stays whole.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_course_a_conversation_takes_nothing_of_it_is_lost() {
    for seed in 0..6_u64 {
        let one = open_day().await;
        let two = Spec::at(at("2026-11-24 09:10")).on(&one.database_url).start().await;
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
        let mut told: Vec<(String, String)> = Vec::new();
        let mut stated = Vec::new();
        for step in 0..40_u64 {
            let now = one.clock.now();
            let gateway = if dice.of(2) == 0 { &one } else { &two };
            let id = (seed * 1000 + step + 1).to_string();
            let words = |said: &str| {
                let fields =
                    format!("<MsgType>text</MsgType><Content>{said}</Content><MsgId>{id}</MsgId>");
                message(now, &fields)
            };
            const SHORT: [&str; 13] = [
                "进度",
                "新诉求",
                "撤回",
                "确认",
                "不",
                "1",
                "2",
                "4",
                "评价",
                "人工",
                "帮助",
                "你好",
                "王芳 13900001234",
            ];
            let xml = match dice.of(10) {
                0..=2 => {
                    stated.push(id.clone());
                    words(&format!("第{step}件事没办成"))
                }
                3 | 4 => {
                    stated.push(id.clone());
                    photo(now, &id)
                }
                5..=7 => words(SHORT[dice.of(13) as usize]),
                8 => {
                    // The newest open matter is answered, or closed.
                    let open = "SELECT coalesce(max(ticket % 1000000000), 0) FROM ticket \
                                WHERE state = 'registered'";
                    let sequence = number(&one.pool, open).await as i32;
                    if sequence > 0 && dice.of(2) == 0 {
                        close(&one, sequence).await;
                    } else if sequence > 0 {
                        claim_and_resolve(&one, sequence).await;
                    }
                    continue;
                }
                _ => {
                    let minutes = [1, 11, 60, 3 * 24 * 60, 8 * 24 * 60][dice.of(5) as usize];
                    for gateway in [&one, &two] {
                        gateway.clock.set(now + TimeDelta::minutes(minutes));
                        gateway.app.waits.step().await.unwrap();
                    }
                    continue;
                }
            };
            let reply = sends(gateway, &xml).await;
            assert!(!reply.is_empty(), "{xml}");
            told.push((xml, reply));
            // The platform repeats itself, whenever it likes and to whichever gateway.
            let (xml, reply) = &told[dice.of(told.len() as u64) as usize];
            let other = if dice.of(2) == 0 { &one } else { &two };
            assert_eq!(&sends(other, xml).await, reply, "seed {seed}, step {step}: {xml}");
        }
        one.clock.set(one.clock.now() + TimeDelta::minutes(11));
        one.app.waits.step().await.unwrap();
        assert_eq!(number(&one.pool, "SELECT count(*) FROM held").await, 0, "seed {seed}");
        for id in stated {
            let kept = format!(
                "SELECT count(*) FROM message WHERE convert_from(raw, 'UTF8') LIKE '%<MsgId>{id}</MsgId>%'"
            );
            assert_eq!(number(&one.pool, &kept).await, 1, "seed {seed}: message {id}");
        }
        is_sound(&one).await;
        one.stop().await;
        two.stop().await;
    }
}

/// xorshift: the same course for the same seed.
struct Dice(u64);

impl Dice {
    fn of(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_it_is_the_old_matter_after_it_was_taken_up_again_reads_its_own_date() {
    let gateway = open_day().await;
    says(&gateway, "社保卡办不下来", "1").await;
    close(&gateway, 1).await;
    gateway.clock.set(at("2026-11-24 16:28"));
    says(&gateway, "卡还是没有拿到", "2").await;
    let office = gateway.app.offices.get(gateway.office).unwrap();
    let (level, now) = (intake_gateway::domain::level::Level::Duty, gateway.clock.now());
    let limit = intake_gateway::domain::promise::reopened(&office.calendar, level, now);
    change(&gateway, 1, |_| (), |t| t.reopen("重新办理", limit).unwrap()).await;
    // A limit that began now would end a day later.
    gateway.clock.set(at("2026-11-24 16:31"));
    let reply = says(&gateway, "1", "3").await;
    assert!(reply.contains("BCS-2026-000001 重新办理"), "{reply}");
    assert!(reply.contains("最晚11月25日（周三）16:30前"), "{reply}");
    let told = "SELECT count(*) FROM outbox WHERE kind = 'reopened'";
    assert_eq!(number(&gateway.pool, told).await, 0, "staff did it themselves");
    assert_eq!(messages(&gateway, 1).await, 2);
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_command_within_one_batch_waits_for_it() {
    let gateway = open_day().await;
    says(&gateway, "楼道的灯坏了", "1").await;
    let mut blocker = gateway.pool.begin().await.unwrap();
    sql(&mut blocker, "SELECT FROM register FOR UPDATE").await;
    let under_way = async {
        let sends =
            [("oOther", "水费", "2"), (CITIZEN, "新诉求", "3"), (CITIZEN, "社保卡办不下来", "4")];
        let gateway = &gateway;
        let sends = sends.into_iter().enumerate().map(|(before, (openid, text, id))| async move {
            // Each stands in the queue before the next one comes.
            until("it is its turn", async || {
                before == 0
                    || (waiting_for_a_lock(&gateway.pool).await == 1
                        && gateway.app.intake.waiting() == before - 1)
            })
            .await;
            gateway.wechat(openid, text, id).await.reply()
        });
        join_all(sends).await
    };
    let freed = async {
        until("both wait", async || gateway.app.intake.waiting() == 2).await;
        blocker.rollback().await.unwrap();
    };
    let (replies, ()) = tokio::join!(under_way, freed);
    assert!(replies[1].contains("另登记一件"), "{replies:?}");
    assert_eq!(number_in(&replies[2]), "BCS-2026-000003", "{replies:?}");
    assert_eq!((messages(&gateway, 1).await, messages(&gateway, 3).await), (1, 1));
    is_sound(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_new_is_new_though_the_old_matter_was_taken_up_again_meanwhile() {
    let gateway = open_day().await;
    says(&gateway, "社保卡办不下来", "1").await;
    close(&gateway, 1).await;
    let asked = says(&gateway, "失业金也没到", "2").await;
    assert!(asked.contains("BCS-2026-000001"), "{asked}");
    let office = gateway.app.offices.get(gateway.office).unwrap();
    let (level, now) = (intake_gateway::domain::level::Level::Duty, gateway.clock.now());
    let limit = intake_gateway::domain::promise::reopened(&office.calendar, level, now);
    change(&gateway, 1, |_| (), |t| t.reopen("重新办理", limit).unwrap()).await;
    assert_eq!(number_in(&says(&gateway, "2", "3").await), "BCS-2026-000002");
    assert_eq!((messages(&gateway, 1).await, messages(&gateway, 2).await), (1, 1));
    is_sound(&gateway).await;
}

//! PostgreSQL away, and the spool on: what WeChat and the telephone send is kept, sealed, answered in
//! time, and registered in order once the database is back; through crashes, damage and repeats.

use crate::{
    calls::{delivered, freeswitch, push},
    support::{
        Spec, TestGateway, at, database,
        gateway::{Answer, config, wechat_sender},
        number,
        proxy::Proxy,
        sql, until,
    },
    verify::faults,
};
use chrono::TimeDelta;
use futures::future::join_all;
use intake_gateway::{
    gateway::{Gateway, connect},
    secret,
    spool::OpenError,
};
use sqlx::PgPool;
use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const KEPT: &str = "您发来的内容已安全收到，不会丢失，不用重发。";

fn folder() -> PathBuf {
    let name = format!("spool-{}", hex::encode(secret::random::<6>()));
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn spec(folder: &Path) -> Spec {
    Spec::at(at("2026-11-24 10:00")).with(&settings(folder))
}

fn settings(folder: &Path) -> String {
    format!("[spool]\nfolder = '{}'\nlimit_mb = 1\n", folder.display())
}

/// A gateway with a spool, whose way to the database can break.
struct World {
    gateway: TestGateway,
    proxy: Proxy,
    folder: PathBuf,
    url: String,
    /// Past the proxy.
    pool: PgPool,
}

impl World {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(more: &str) -> Self {
        let url = database().await;
        let (proxy, through) = Proxy::of_database(&url).await;
        let folder = folder();
        let gateway = spec(&folder).with(more).on(&through).start().await;
        let pool = PgPool::connect(&url).await.unwrap();
        Self { gateway, proxy, folder, url, pool }
    }

    fn later(&self, seconds: i64) {
        self.gateway.clock.set(self.gateway.clock.now() + TimeDelta::seconds(seconds));
    }

    async fn writes(&self, openid: &str, text: &str, id: &str) {
        let answer = self.gateway.wechat(openid, text, id).await;
        assert!(answer.reply().starts_with(KEPT), "{}", answer.reply());
    }

    /// What WeChat delivers, and delivers again word for word.
    fn message(&self) -> String {
        wechat_sender().text("oA", "灯坏了", "1", self.gateway.clock.now().timestamp())
    }

    async fn keeps(&self, xml: &str) {
        let reply = self.gateway.wechat_xml(xml).await.reply();
        assert!(reply.starts_with(KEPT), "{reply}");
    }

    async fn back(&self) {
        self.proxy.mend();
        drained(&self.gateway).await;
    }

    async fn number(&self, query: &str) -> i64 {
        number(&self.pool, query).await
    }

    async fn tickets(&self) -> i64 {
        self.number("SELECT count(*) FROM ticket").await
    }

    /// Whose tickets they are, in the order of their numbers.
    async fn order(&self) -> Vec<String> {
        let query = "SELECT split_part(thread, ':', 3) FROM ticket ORDER BY ticket";
        sqlx::query_scalar(query).fetch_all(&self.pool).await.unwrap()
    }

    /// As a crash would leave it for the next start.
    fn as_it_lies(&self) -> PathBuf {
        let copy = folder();
        fs::create_dir_all(&copy).unwrap();
        fs::copy(self.folder.join("entries"), copy.join("entries")).unwrap();
        copy
    }

    /// Another gateway of the same database, on this folder.
    async fn another(&self, folder: &Path) -> TestGateway {
        spec(folder).on(&self.url).start().await
    }
}

async fn waiting(gateway: &TestGateway) -> usize {
    gateway.app.spool.standing().await.unwrap().waiting
}

async fn drained(gateway: &TestGateway) {
    until("the spool is drained", async || waiting(gateway).await == 0).await;
}

fn aside(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains("/aside-")).collect()
}

async fn told(pool: &PgPool) -> i64 {
    number(pool, "SELECT count(*) FROM outbox WHERE kind = 'number_follows'").await
}

async fn is_kept_and_registered_in_order(break_it: impl Fn(&Proxy)) {
    let world = World::new().await;
    world.gateway.wechat("oA", "灯坏了", "1").await.reply();
    break_it(&world.proxy);
    let began = Instant::now();
    world.writes("oB-citizen", "社保卡补办被退回三次", "b1").await;
    assert!(began.elapsed() < Duration::from_millis(4800), "{:?}", began.elapsed());
    // From now on nobody waits to find out.
    for (openid, text, id) in
        [("oC", "退休金没到账", "c1"), ("oB-citizen", "还有一件", "b2"), ("oD", "水费", "d1")]
    {
        world.later(1);
        let began = Instant::now();
        world.writes(openid, text, id).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    let entries = world.folder.join("entries");
    assert_eq!(fs::metadata(&entries).unwrap().permissions().mode() & 0o777, 0o600);
    let lies = fs::read(&entries).unwrap();
    for secret in ["社保卡", "补办", "oB-citizen", "msg_signature", "Encrypt", "wechat"] {
        let found = lies.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} can be read in the file");
    }
    world.later(600);
    let readiness = world.gateway.readiness().await;
    assert_eq!(readiness.status, 200, "citizens are heard: {}", readiness.text());
    let says = "4 entries wait for PostgreSQL, the oldest for 603 s";
    assert!(readiness.text().contains(says), "{}", readiness.text());
    assert!(world.gateway.metrics().await.contains("spool_waiting 4"));
    world.back().await;
    assert_eq!(world.order().await, ["oA", "oB-citizen", "oC", "oD"]);
    assert_eq!(world.number("SELECT last FROM register").await, 4);
    assert_eq!(world.number("SELECT count(*) FROM message WHERE ticket % 1000 = 2").await, 2);
    // As of when they wrote.
    let received = "SELECT count(*) FROM ticket
                    WHERE registered_at < timestamptz '2026-11-24 10:00:10+08'";
    assert_eq!(world.number(received).await, 4);
    assert_eq!(fs::metadata(&entries).unwrap().len(), 0);
    assert!(world.gateway.wechat("oE", "灯坏了", "e1").await.number().ends_with("000005"));
    assert_eq!(faults(&world.gateway).await, Vec::<String>::new());
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_the_database_refuses_is_kept_sealed_and_registered_in_order() {
    is_kept_and_registered_in_order(Proxy::cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_the_database_is_silent_is_kept_sealed_and_registered_in_order() {
    is_kept_and_registered_in_order(Proxy::silence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_three_times_around_an_outage_is_one_ticket_and_told_once() {
    let world = World::new().await;
    let xml = world.message();
    world.proxy.cut();
    for _ in 0..2 {
        world.keeps(&xml).await;
        world.later(5);
    }
    world.back().await;
    let third = world.gateway.wechat_xml(&xml).await;
    assert!(third.number().ends_with("000001"), "{}", third.reply());
    assert_eq!((world.tickets().await, told(&world.pool).await), (1, 1));
    assert_eq!(world.number("SELECT count(*) FROM message").await, 1);
    assert_eq!(world.number("SELECT count(*) FROM quarantine").await, 0);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_answered_is_not_told_again_and_one_whose_answer_was_lost_is() {
    for (seconds, times) in [(5, 0), (0, 1)] {
        let world = World::new().await;
        let xml = world.message();
        world.gateway.wechat_xml(&xml).await.number();
        // Another delivery is later than the one that was answered; the same one is the one whose
        // COMMIT came through and whose connection did not.
        world.later(seconds);
        world.proxy.cut();
        world.keeps(&xml).await;
        world.back().await;
        assert_eq!((world.tickets().await, told(&world.pool).await), (1, times), "{seconds} s");
        world.gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_is_drained_by_the_next_start_and_once_more_without_a_second_ticket() {
    let world = World::new().await;
    world.proxy.cut();
    for n in 0..5 {
        world.writes(&format!("o{n}"), "灯坏了", &format!("m{n}")).await;
    }
    let left = world.as_it_lies();
    world.later(60);
    let next = world.another(&left).await;
    drained(&next).await;
    assert_eq!((world.tickets().await, told(&world.pool).await), (5, 5));
    // And what the crash kept from being drained is drained once more.
    world.back().await;
    assert_eq!(world.order().await, ["o0", "o1", "o2", "o3", "o4"]);
    assert_eq!((told(&world.pool).await, aside(&left).len()), (5, 0));
    assert_eq!(faults(&next).await, Vec::<String>::new());
    for gateway in [next, world.gateway] {
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_leaves_is_drained_first_by_the_next_start() {
    let world = World::new().await;
    world.proxy.cut();
    world.writes("oA", "灯坏了", "1").await;
    let World { gateway, folder, url, pool, .. } = world;
    gateway.stop().await;
    let next = spec(&folder).on(&url).start().await;
    drained(&next).await;
    assert_eq!(number(&pool, "SELECT count(*) FROM ticket").await, 1);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_crash_broke_off_is_cut_and_damage_in_the_middle_takes_nothing_with_it() {
    let world = World::new().await;
    world.proxy.cut();
    for n in 0..3 {
        world.writes(&format!("o{n}"), "灯坏了", &format!("m{n}")).await;
    }
    let length = fs::metadata(world.folder.join("entries")).unwrap().len();
    let (torn, zeros, flipped, lost) =
        (world.as_it_lies(), world.as_it_lies(), world.as_it_lies(), world.as_it_lies());
    let file = |folder: &Path| {
        fs::OpenOptions::new().read(true).write(true).open(folder.join("entries")).unwrap()
    };
    file(&torn).set_len(length - 5).unwrap();
    file(&zeros).set_len(length + 4096).unwrap();
    file(&flipped).write_all_at(b"?", length / 2).unwrap();
    file(&lost).write_all_at(b"?", 0).unwrap();
    // Each on what the ones before have registered: none is registered twice.
    for (folder, tickets, files) in
        [(&torn, vec!["o0", "o1"], 0), (&flipped, vec!["o0", "o1", "o2"], 1)]
    {
        let next = world.another(folder).await;
        drained(&next).await;
        assert_eq!(
            (world.order().await, aside(folder).len()),
            (tickets.iter().map(|t| (*t).to_owned()).collect(), files)
        );
        if files > 0 {
            let says = next.readiness().await.text();
            assert!(says.contains("1 entries could not be taken in"), "{says}");
        }
        next.stop().await;
    }
    for (folder, files) in [(&zeros, 0), (&lost, 1)] {
        let next = world.another(folder).await;
        drained(&next).await;
        assert_eq!((world.tickets().await, aside(folder).len()), (3, files));
        next.stop().await;
    }
    world.back().await;
    assert_eq!((world.tickets().await, told(&world.pool).await), (3, 3));
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_databases_key_opens_nothing_and_what_is_set_aside_can_be_brought_back() {
    let world = World::new().await;
    world.proxy.cut();
    for n in 0..3 {
        world.writes(&format!("o{n}"), "灯坏了", &format!("m{n}")).await;
    }
    let left = world.as_it_lies();
    let stranger = spec(&left).start().await;
    drained(&stranger).await;
    assert_eq!(number(&stranger.pool, "SELECT count(*) FROM ticket").await, 0);
    assert_eq!(aside(&left).len(), 3);
    stranger.stop().await;
    // As the README says.
    let all = aside(&left).iter().flat_map(|file| fs::read(file).unwrap()).collect::<Vec<u8>>();
    fs::write(left.join("entries"), all).unwrap();
    aside(&left).iter().for_each(|file| fs::remove_file(file).unwrap());
    let next = world.another(&left).await;
    drained(&next).await;
    assert_eq!((world.tickets().await, aside(&left).len()), (3, 0));
    next.stop().await;
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_is_a_503_until_it_is_drained() {
    let world = World::new().await;
    world.proxy.cut();
    let long = "灯坏了。".repeat(3000);
    let mut kept = 0;
    let refused = loop {
        let answer = world.gateway.wechat(&format!("o{kept}"), &long, &format!("m{kept}")).await;
        if answer.status != 200 {
            break answer;
        }
        kept += 1;
        assert!(kept < 100, "one megabyte holds no hundred of these");
    };
    assert!(kept > 10, "{kept}");
    assert_eq!((refused.status, refused.headers["retry-after"].to_str().unwrap()), (503, "5"));
    let readiness = world.gateway.readiness().await;
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("it is full"), "{}", readiness.text());
    world.back().await;
    assert_eq!(world.tickets().await, kept);
    world.gateway.wechat("oZ", "灯坏了", "z").await.number();
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_belongs_to_one_process() {
    let world = World::new().await;
    let config = config(&world.url, &crate::support::redis_url(), "t", &settings(&world.folder));
    let pool = connect(&config).await.unwrap();
    let other = Gateway::new(&config, pool, world.gateway.clock.clone()).await.unwrap();
    // It works as without one, until the folder is free.
    other.open_spool(&config.spool);
    assert!(other.app.spool.is_barred() && other.app.spool.standing().await.is_none());
    let refusal = other.app.spool.open_again().unwrap_err();
    assert!(matches!(refusal, OpenError::InUse), "{refusal:?}");
    world.gateway.stop().await;
    other.app.spool.open_again().unwrap();
    assert_eq!(other.app.spool.standing().await.unwrap().waiting, 0);
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_goes_through_is_set_aside_and_delays_nobody() {
    let world = World::new().await;
    let mut db = world.pool.acquire().await.unwrap();
    // As if something were wrong with the database, and not with what was sent.
    sql(
        &mut db,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.text LIKE '%毒%' THEN RAISE EXCEPTION 'no' USING ERRCODE = '55000'; END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    world.proxy.cut();
    world.writes("oA", "灯坏了", "a").await;
    world.writes("oBad", "毒", "bad").await;
    // Who comes a second time ends what is drained together: all the others pass it one by one, and
    // are counted.
    world.writes("oA", "还是没修好", "a2").await;
    for n in 0..25 {
        world.writes(&format!("o{n}"), "灯坏了", &format!("m{n}")).await;
    }
    world.back().await;
    assert_eq!((world.tickets().await, aside(&world.folder).len()), (26, 1));
    assert_eq!(world.number("SELECT last FROM register").await, 26);
    let readiness = world.gateway.readiness().await;
    assert_eq!(readiness.status, 200);
    assert!(readiness.text().contains("lie in spool.folder as aside-"), "{}", readiness.text());
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_it_is_drained_goes_behind_it() {
    let world = World::new().await;
    world.gateway.wechat("oA", "灯坏了", "a").await.reply();
    world.proxy.cut();
    world.writes("oB", "先来的", "b1").await;
    // The database is back, and somebody holds the register.
    let mut lock = world.pool.begin().await.unwrap();
    sql(&mut lock, "SELECT FROM register FOR UPDATE").await;
    world.proxy.mend();
    until("it is being drained", async || {
        crate::support::waiting_for_a_lock(&world.pool).await > 0
    })
    .await;
    world.writes("oB", "后来的", "b2").await;
    lock.rollback().await.unwrap();
    drained(&world.gateway).await;
    let first = "SELECT count(*) FROM ticket WHERE problem = '先来的'";
    assert_eq!((world.number(first).await, world.tickets().await), (1, 2));
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_at_once_are_kept_and_numbered_without_a_gap() {
    let world = World::with("[http]\nconnections_per_address = 1000").await;
    world.proxy.cut();
    world.writes("o", "灯坏了", "m").await;
    let all = (0..300).map(|n| {
        let gateway = &world.gateway;
        async move { gateway.wechat(&format!("o{}", n % 200), "灯坏了", &format!("m{n}")).await }
    });
    let answers: Vec<Answer> = join_all(all).await;
    assert!(answers.iter().all(|answer| answer.reply().starts_with(KEPT)));
    world.back().await;
    assert_eq!(world.tickets().await, 201);
    assert_eq!(world.number("SELECT last FROM register").await, 201);
    assert_eq!(world.number("SELECT count(*) FROM message").await, 301);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_asks_is_asked_to_ask_again_and_an_emergency_is_sent_to_110() {
    let world = World::new().await;
    world.proxy.cut();
    world.writes("oA", "灯坏了", "a").await;
    let asks = world.gateway.wechat("oA", "进度", "b").await.reply();
    assert!(asks.contains("暂时查不到，请过一会儿再发一次"), "{asks}");
    let help = world.gateway.wechat("oA", "帮助", "c").await.reply();
    assert!(help.contains("回复“进度”查办理情况"), "{help}");
    assert_eq!(waiting(&world.gateway).await, 1);
    let urgent = world.gateway.wechat("oB", "有人要自杀", "d").await.reply();
    assert!(urgent.contains("110") && urgent.contains(KEPT), "{urgent}");
    let xml = wechat_sender().message(
        "oC",
        "event",
        &[("Event", "unsubscribe")],
        "",
        world.gateway.clock.now().timestamp(),
    );
    let left = world.gateway.wechat_xml(&xml).await;
    assert_eq!((left.status, left.text().as_str()), (200, "success"));
    world.back().await;
    assert_eq!(world.tickets().await, 2);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_telephone_tells_is_kept_as_well() {
    let world = World::with(&freeswitch("")).await;
    world.proxy.cut();
    let began = Instant::now();
    let webhook = world.gateway.voicemail("r1", "2026-11-24T09:00:00+08:00").await;
    assert_eq!((webhook.status, webhook.json()["spooled"].as_bool()), (202, Some(true)));
    assert!(began.elapsed() < Duration::from_secs(5));
    let body = delivered(&"7".repeat(36), "13900009999", "/x/msg.wav");
    let pushed = push(&world.gateway, body).await;
    assert_eq!((pushed.status, pushed.text().as_str()), (200, ""));
    let form = serde_json::json!({ "channel": "counter", "problem": "灯坏了",
        "citizen": { "name": "王芳", "phone": "13900001234" } });
    assert_eq!(world.gateway.entry("k", &form).await.status, 503);
    world.later(600);
    world.back().await;
    // The webhook's call, and the exchange's.
    assert_eq!(world.number("SELECT count(*) FROM call").await, 2);
    let received = "SELECT count(*) FROM ticket
                    WHERE registered_at = timestamptz '2026-11-24 10:00:00+08'";
    assert_eq!((world.number(received).await, world.tickets().await), (2, 2));
    let again = world.gateway.voicemail("r1", "2026-11-24T09:00:00+08:00").await;
    assert_eq!((again.status, again.json()["duplicate"].as_bool()), (200, Some(true)));
    assert_eq!(told(&world.pool).await, 0);
    world.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_through_an_outage() {
    let world = World::new().await;
    world.gateway.wechat("oA", "灯坏了", "a1").await.number();
    world.proxy.cut();
    world.writes("oB", "退休金没到账", "b1").await;
    let other = world.gateway.wechat("oA", "新诉求", "a2").await.reply();
    assert!(other.contains("您接下来发的内容会另登记一件"), "{other}");
    world.writes("oA", "水费算错了", "a3").await;
    let created = world.gateway.clock.now().timestamp();
    let photo = [("PicUrl", "http://mmbiz.qpic.cn/x"), ("MediaId", "m1")];
    let xml = wechat_sender().message("oC", "image", &photo, "c1", created);
    assert!(world.gateway.wechat_xml(&xml).await.reply().starts_with(KEPT));
    world.later(900);
    world.back().await;
    assert_eq!(world.order().await, ["oA", "oB", "oA"]);
    // Ten minutes without words are over since it was sent.
    world.gateway.app.waits.step().await.unwrap();
    assert_eq!(world.order().await, ["oA", "oB", "oA", "oC"]);
    let promised = "SELECT count(*) FROM outbox WHERE data @> '{\"tell_citizen\": true}'";
    assert_eq!(world.number(promised).await, 3, "all who were promised a number");
    assert_eq!(faults(&world.gateway).await, Vec::<String>::new());
    world.gateway.stop().await;
}

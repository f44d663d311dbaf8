//! WeChat's platform through what replicas share: the token in Redis, the counts in PostgreSQL.
//! The client itself is tried in `adapters/wechat/tests/platform.rs`.

use crate::support::{Spec, TestGateway, at, number, redis::OwnRedis, redis_url, sql, until};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use intake_gateway::{
    housekeeping,
    platform::{PgAllowances, RedisTokens, platform},
    secret,
};
use intake_standin_wechat::{Act as Does, How, Settings, StandIn};
use intake_wechat::{
    Account,
    platform::{
        Act, AllowanceStore, Api, Change, CustomMessage, Openid, Platform, QrLife, Token,
        TokenStore, Trouble,
    },
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::net::TcpListener;

const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

fn tokens(url: &str, prefix: &str) -> Arc<RedisTokens> {
    Arc::new(RedisTokens::new(url, prefix).unwrap())
}

fn prefix() -> String {
    format!("t{}", hex::encode(secret::random::<6>()))
}

/// The platform beside a gateway: what its citizens write is delivered there.
async fn beside(gateway: &TestGateway) -> (StandIn, Account) {
    let account = crate::support::gateway::account();
    let settings = Settings {
        app_id: account.app_id.clone(),
        secret: APP_SECRET.to_owned(),
        original_id: account.original_id.clone(),
        token: crate::support::gateway::TOKEN.to_owned(),
        encoding_aes_key: Some(crate::support::gateway::KEY.to_owned()),
        callback: format!("{}/channels/wechat/main", gateway.base),
        patience: Duration::from_secs(30),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clock = gateway.clock.clone();
    let standin = StandIn::new(settings, Arc::new(move || clock.now()), &listener).unwrap();
    tokio::spawn(standin.clone().serve(listener));
    let api = Api {
        secret: APP_SECRET.into(),
        base_url: standin.url().to_owned(),
        open_url: standin.url().to_owned(),
        answer_timeout_s: 10,
        templates: Vec::new(),
    };
    (standin, Account { api: Some(api), ..account })
}

fn replica(gateway: &TestGateway, account: &Account, tokens: &Arc<RedisTokens>) -> Platform {
    platform(account, gateway.office, gateway.pool.clone(), Arc::clone(tokens)).unwrap().unwrap()
}

#[tokio::test]
async fn replicas_share_one_token_through_redis() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    let (standin, account) = beside(&gateway).await;
    let prefix = prefix();
    let replicas = [(); 3].map(|()| replica(&gateway, &account, &tokens(&redis_url(), &prefix)));
    let all = async || {
        let calls = (0..60).map(|n| replicas[n % 3].qr_code("counter-1", QrLife::Permanent));
        for outcome in join_all(calls).await {
            outcome.unwrap();
        }
    };
    all().await;
    assert_eq!(standin.calls("stable_token"), 1);
    standin.expire_tokens();
    all().await;
    assert_eq!(standin.calls("stable_token"), 2);
    assert!(
        platform(
            &Account { api: None, ..account },
            gateway.office,
            gateway.pool.clone(),
            tokens(&redis_url(), &prefix)
        )
        .unwrap()
        .is_none()
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_redis_that_is_gone_costs_a_call_and_nothing_else() {
    let mut redis = OwnRedis::start().await;
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    let (standin, account) = beside(&gateway).await;
    let replica = replica(&gateway, &account, &tokens(&redis.url(), "t"));
    replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
    redis.end();
    // The one that was fetched here is good still.
    replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
    assert_eq!(standin.calls("stable_token"), 1);
    standin.expire_tokens();
    replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
    assert_eq!(standin.calls("stable_token"), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn only_the_token_that_failed_and_the_lock_that_is_ones_own_are_removed() {
    let store = tokens(&redis_url(), &prefix());
    let token = |text: &str| Token::new(text.to_owned().into());
    let held = async || store.get("wx1").await.unwrap().map(|token| token.expose().to_owned());
    let hour = Duration::from_secs(3600);
    assert_eq!(held().await, None);
    store.put("wx1", &token("new"), hour).await.unwrap();
    store.expire("wx1", &token("old")).await.unwrap();
    assert_eq!(held().await.as_deref(), Some("new"));
    assert!(store.get("wx2").await.unwrap().is_none(), "another account's");
    store.expire("wx1", &token("new")).await.unwrap();
    assert_eq!(held().await, None);

    assert!(store.lock("wx1", "a", hour).await.unwrap());
    assert!(!store.lock("wx1", "b", hour).await.unwrap());
    store.unlock("wx1", "b").await.unwrap();
    assert!(!store.lock("wx1", "b", hour).await.unwrap());
    store.unlock("wx1", "a").await.unwrap();
    assert!(store.lock("wx1", "b", hour).await.unwrap());
}

async fn allowed(
    store: &PgAllowances,
    citizen: &Openid,
    change: Change,
    now: DateTime<Utc>,
) -> Option<Act> {
    store.change("wx1", citizen, change, now).await.unwrap().1
}

#[tokio::test]
async fn twenty_replicas_take_five_messages_between_them() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    let now = gateway.clock.now();
    let store = PgAllowances { pool: gateway.pool.clone(), office: gateway.office };
    let citizen = Openid::new("oCounted0000000000000000001");
    let take = Change::Take { reserve: 0 };
    let acted = Change::Acted(Act::Message, now);
    assert_eq!(allowed(&store, &citizen, take, now).await, None);
    allowed(&store, &citizen, acted, now).await;
    let taken = join_all((0..20).map(|_| allowed(&store, &citizen, take, now))).await;
    assert_eq!(taken.iter().filter(|taken| taken.is_some()).count(), 5);
    allowed(&store, &citizen, Change::GiveBack(Act::Message), now).await;
    assert_eq!(allowed(&store, &citizen, take, now).await, Some(Act::Message));
    // A redelivery grants nothing anew; a tap does.
    allowed(&store, &citizen, acted, now).await;
    assert_eq!(allowed(&store, &citizen, take, now).await, None);
    allowed(&store, &citizen, Change::Acted(Act::Tap, now), now).await;
    assert_eq!(allowed(&store, &citizen, take, now).await, Some(Act::Tap));

    let rows = "SELECT count(*) FROM wechat_allowance";
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(number(&gateway.pool, rows).await, 1);
    gateway.clock.set(now + TimeDelta::hours(48) + TimeDelta::seconds(1));
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(number(&gateway.pool, rows).await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_is_tidied_away_at_this_moment_is_made_anew() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    let now = gateway.clock.now();
    let store = PgAllowances { pool: gateway.pool.clone(), office: gateway.office };
    let citizen = Openid::new("oCounted0000000000000000002");
    // Housekeeping may come by and take the row away before it is held.
    let mut tidying = loop {
        let mut db = gateway.pool.acquire().await.unwrap();
        let row = "INSERT INTO wechat_allowance VALUES (1, 'wx1', 'oCounted0000000000000000002')
                   ON CONFLICT DO NOTHING";
        sql(&mut db, row).await;
        drop(db);
        let mut tidying = gateway.pool.begin().await.unwrap();
        let hold = "SELECT 1 FROM wechat_allowance FOR UPDATE";
        if sqlx::query(hold).fetch_optional(&mut *tidying).await.unwrap().is_some() {
            break tidying;
        }
    };
    let acted = tokio::spawn(async move {
        allowed(&store, &citizen, Change::Acted(Act::Message, now), now).await;
        allowed(&store, &citizen, Change::Take { reserve: 0 }, now).await
    });
    // Not by housekeeping, which may come by as well.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO wechat_allowance%'";
    until("the row is waited for", async || number(&gateway.pool, waits).await == 1).await;
    sql(&mut tidying, "DELETE FROM wechat_allowance").await;
    tidying.commit().await.unwrap();
    assert_eq!(acted.await.unwrap(), Some(Act::Message));
    gateway.stop().await;
}

#[tokio::test]
async fn a_citizen_of_the_standin_is_registered_and_answered_later() {
    let gateway = Spec::at(at("2026-11-24 09:00")).start().await;
    let (standin, account) = beside(&gateway).await;
    let replica = replica(&gateway, &account, &tokens(&redis_url(), &prefix()));
    let openid = standin.citizens().remove(0);
    standin.act(&openid, Does::Text("社保卡补办被退了三次".to_owned())).await;
    standin.act(&openid, Does::Photo(None)).await;
    let citizen = Openid::new(&openid);
    let now = gateway.clock.now();
    let words = CustomMessage::Text("您好，卡已制好，请明天来取。".to_owned());
    let unheard = replica.send_custom(&citizen, &words, 0, now).await.unwrap_err();
    assert_eq!((unheard.trouble(), unheard.code()), (Trouble::OutsideWindow, None));
    replica.note(&citizen, Change::Acted(Act::Message, now), now).await.unwrap();
    replica.send_custom(&citizen, &words, 0, now).await.unwrap();
    let talk = standin.talk(&openid);
    let how: Vec<How> = talk.iter().map(|entry| entry.how).collect();
    assert_eq!(how, [How::Said, How::Passive, How::Said, How::Passive, How::Custom]);
    assert!(talk[1].text.contains("编号 BCS-2026-"), "{}", talk[1].text);
    assert!(talk[3].text.contains("补充到您的反映"), "{}", talk[3].text);
    gateway.stop().await;
}

/// The stand-in is a tool: what `serve` runs is the library, and no line of that knows it.
#[test]
fn the_library_does_not_know_the_standin() {
    fn look(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, found);
            } else if std::fs::read_to_string(&path)
                .is_ok_and(|text| text.contains("intake_standin"))
            {
                found.push(path.display().to_string());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    look(&root.join("src"), &mut found);
    let only = |path: &String| path.contains("src/commands/simulate/");
    assert!(!found.is_empty() && found.iter().all(only), "{found:?}");
    for adapter in ["contract", "wechat", "hotline", "counter", "notify"] {
        let manifest = root.join("adapters").join(adapter).join("Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        let linked = manifest.split("[dev-dependencies]").next().unwrap();
        assert!(!linked.contains("intake-standin"), "{adapter}");
    }
}

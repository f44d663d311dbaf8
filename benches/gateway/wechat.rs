//! The official account while its platform misbehaves, and a rush: what a citizen waits for must
//! not depend on what is asked of the platform.

use crate::{
    APP_ID, KEY, ORIGINAL_ID, Plan, TOKEN, WORDS,
    figures::{Figures, Spread},
    fresh_database,
    gateway::Gateway,
    load, office,
};
use bytes::Bytes;
use intake_gateway::clock::Clock;
use intake_standin_wechat::{PATIENCE, Settings, StandIn};
use intake_wechat::sender::Sender;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "bench-app-secret-000000000000001";
const CONNECTIONS: usize = 32;
/// The rush comes within this time.
const RUSH: Duration = Duration::from_secs(10);

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clock = Clock::system();
    let settings = Settings {
        app_id: APP_ID.to_owned(),
        secret: SECRET.to_owned(),
        original_id: ORIGINAL_ID.to_owned(),
        token: TOKEN.to_owned(),
        encoding_aes_key: Some(KEY.to_owned()),
        callback: String::new(),
        patience: PATIENCE,
    };
    let platform = StandIn::new(settings, Arc::new(move || clock.now()), &listener).unwrap();
    tokio::spawn(platform.clone().serve(listener));
    let api = format!("[wechat.api]\nsecret = '{SECRET}'\nbase_url = '{}'\n", platform.url());
    let (url, pool) = fresh_database(server, "intake_wechat").await;
    office(&pool).await;
    let gateway = Gateway::on_with(&url, pool, redis, "all", &api).await;
    load::run(gateway.address, 8, Duration::from_secs(1)).await;
    let hangs = hanging(plan, &gateway, &platform).await;
    let rush = rush(plan, &gateway, &platform).await;
    gateway.stop(true).await;
    json!({ "hanging": hangs, "rush": rush })
}

/// The same load while the platform answers and while it hangs, in turn; photos wait to be fetched
/// from it all the time, so that somebody is always asking it.
async fn hanging(plan: &Plan, gateway: &Gateway, platform: &StandIn) -> Value {
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let mut both = Vec::new();
        for hangs in [false, true] {
            platform.switch(|switches| switches.hangs = hangs);
            let mut sent = Vec::new();
            for n in 0..50 {
                let citizen = format!("oHang{round:04}{}{n:04}", u8::from(hangs));
                sent.push(words(&citizen));
                sent.push(photo(&citizen, &platform.photo(jpeg())));
            }
            timed(gateway.address, 4, sent, Duration::ZERO).await;
            both.push(load::run(gateway.address, CONNECTIONS, plan.cell).await);
        }
        platform.switch(|switches| switches.hangs = false);
        rounds.push(both);
    }
    let of = |n: usize| Spread::of(rounds.iter().map(move |both: &Vec<Figures>| both[n].p99_ms));
    let (answers, hangs) = (of(0), of(1));
    let ratio = Spread::of(rounds.iter().map(|both| both[1].p99_ms / both[0].p99_ms));
    println!(
        "\nWeChat, {CONNECTIONS} connections, callback to durable answer, p99: {answers} ms while the platform answers, {hangs} ms while it hangs; ratio {ratio}"
    );
    json!({ "p99_ms": answers, "p99_hanging_ms": hangs, "ratio": ratio })
}

/// So many citizens within ten seconds, each with words and a photo right after them.
async fn rush(plan: &Plan, gateway: &Gateway, platform: &StandIn) -> Value {
    let citizens = plan.citizens;
    let mut sent = Vec::with_capacity(citizens * 2);
    let picture = jpeg();
    // The photo comes some moments after the words: many others write in between.
    let lag = (citizens / 20).max(1);
    for n in 0..citizens + lag {
        if n < citizens {
            sent.push(words(&format!("oRush{n:08}")));
        }
        if let Some(n) = n.checked_sub(lag) {
            // Each another one: what is the same is kept once.
            let own = [&picture[..], &n.to_be_bytes()].concat();
            sent.push(photo(&format!("oRush{n:08}"), &platform.photo(own.into())));
        }
    }
    let tickets = gateway.tickets().await;
    let waiting = media(&gateway.pool).await;
    let began = Instant::now();
    let figures = timed(gateway.address, 64, sent, RUSH).await;
    let took = began.elapsed();
    assert_eq!(gateway.tickets().await - tickets, citizens as i64, "a ticket for each citizen");
    assert_eq!(media(&gateway.pool).await.0 - waiting.0, citizens as i64, "a photo of each");
    let mut turn = tokio::time::interval(Duration::from_millis(100));
    while media(&gateway.pool).await.1 > 0 {
        turn.tick().await;
    }
    let fetched = began.elapsed();
    let (_, peak) = gateway.memory_mib();
    println!(
        "WeChat, {citizens} citizens in {:.1} s, words and a photo of {} KB each: p50 {:.1}, p99 {:.1}, p99.9 {:.1} ms from when each was due; all photos kept and drawn anew after {:.0} s; memory peaked at {peak:.0} MiB",
        took.as_secs_f64(),
        picture.len() / 1024,
        figures.p50_ms,
        figures.p99_ms,
        figures.p999_ms,
        fetched.as_secs_f64()
    );
    json!({
        "citizens": citizens, "took_s": took.as_secs_f64(), "figures": figures,
        "photos_kept_after_s": fetched.as_secs_f64(), "photo_bytes": picture.len(), "peak_mib": peak,
    })
}

/// Media in all, and those that are not kept yet.
async fn media(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE state <> 'kept') FROM media")
        .fetch_one(pool)
        .await
        .unwrap()
}

fn message(citizen: &str, fields: &str) -> String {
    format!(
        "<xml><ToUserName><![CDATA[{ORIGINAL_ID}]]></ToUserName><FromUserName><![CDATA[{citizen}]]>\
         </FromUserName><CreateTime>{}</CreateTime>{fields}<MsgId>{}</MsgId></xml>",
        Clock::system().now().timestamp(),
        load::message_id()
    )
}

fn words(citizen: &str) -> String {
    let text = format!("<MsgType>text</MsgType><Content><![CDATA[{WORDS}]]></Content>");
    message(citizen, &text)
}

fn photo(citizen: &str, media: &str) -> String {
    let image = format!(
        "<MsgType>image</MsgType><PicUrl>http://mmbiz.qpic.cn/1</PicUrl><MediaId>{media}</MediaId>"
    );
    message(citizen, &image)
}

/// A photo as telephones send it through WeChat: 1080 pixels wide, with enough in it.
fn jpeg() -> Bytes {
    let mut noise = 1_u32;
    let picture = image::RgbImage::from_fn(1080, 810, |x, y| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = (noise >> 28) as u8;
        image::Rgb([(x / 5) as u8 ^ grain, (y / 4) as u8 ^ grain, ((x + y) / 8) as u8])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner().into()
}

/// Sends these in their order, evenly over `within` whatever the answers take, each timed from when
/// it was due; without `within`, one after the other.
async fn timed(
    address: SocketAddr,
    connections: usize,
    sent: Vec<String>,
    within: Duration,
) -> Figures {
    let sender = Arc::new(Sender::new(TOKEN, Some(KEY), APP_ID, ORIGINAL_ID));
    let (sent, next) = (Arc::new(sent), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (sender, sent, next) = (Arc::clone(&sender), Arc::clone(&sent), Arc::clone(&next));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut buffer, mut latencies) = (Vec::with_capacity(8192), Vec::new());
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(xml) = sent.get(n) else { return latencies };
                    let due = began + within.mul_f64(n as f64 / sent.len() as f64);
                    // Ends at once where it is past; a moment of its own needs no clock of ours.
                    let _ = tokio::time::timeout_at(due.into(), std::future::pending::<()>()).await;
                    let now = Clock::system().now().timestamp();
                    let (request, sent_at) = (load::request(&sender, xml, now), Instant::now());
                    let status = load::post(&mut stream, &mut buffer, &request).await;
                    assert_eq!(status, 200, "refused");
                    let from = if within.is_zero() { sent_at } else { due };
                    latencies.push(from.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let per_second = latencies.len() as f64 / began.elapsed().as_secs_f64();
    Figures::of(latencies, per_second)
}

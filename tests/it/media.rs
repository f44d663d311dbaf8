//! Photos, voices and videos of citizens: from WeChat's platform (its stand-in) to the ticket's page.

use crate::{
    desk::Desk,
    support::{
        Spec, TestGateway, at,
        gateway::{self, Answer, OFFICE, PASSWORD},
        number, sql, until,
    },
};
use axum::{
    Router,
    body::Bytes as Body,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use chrono::{DateTime, TimeDelta, Utc};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use intake_gateway::{
    domain::{policy::Policy, role::Role},
    gateway::Role as Process,
    media::{Hash, Variant},
    secret,
    store::{self, office::NewStaff},
};
use intake_standin_wechat::{Act, Settings, StandIn};
use sqlx::Connection;
use std::{
    collections::HashMap,
    io::Cursor,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

const APP_ID: &str = "wx00000000000media";
const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: &str = "2026-11-24 09:00";

/// A gateway and the platform behind it; nothing is fetched but by [`Scene::step`].
pub struct Scene {
    pub gateway: TestGateway,
    pub platform: StandIn,
    citizen: String,
}

impl Scene {
    pub async fn set() -> Self {
        Self::set_with(Process::Web, "").await
    }

    pub async fn set_with(role: Process, settings: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (token, key) = (gateway::TOKEN, gateway::KEY);
        let account = format!(
            "{settings}\n[[wechat]]\noffice = '{OFFICE}'\nid = 'photos'\napp_id = '{APP_ID}'\n\
             original_id = 'gh_photos'\ntoken = '{token}'\nencoding_aes_key = '{key}'\n\
             api = {{ secret = '{APP_SECRET}', base_url = '{url}', open_url = '{url}' }}"
        );
        let gateway = Spec::at(at(NOW)).with(&account).role(role).start().await;
        let settings = Settings {
            app_id: APP_ID.to_owned(),
            secret: APP_SECRET.to_owned(),
            original_id: "gh_photos".to_owned(),
            token: token.to_owned(),
            encoding_aes_key: Some(key.to_owned()),
            callback: format!("{}/channels/wechat/photos", gateway.base),
            patience: Duration::from_secs(30),
        };
        let clock = gateway.clock.clone();
        let platform = StandIn::new(settings, Arc::new(move || clock.now()), &listener).unwrap();
        tokio::spawn(platform.clone().serve(listener));
        let citizen = platform.citizens().remove(0);
        // What comes without words would wait for them.
        platform.act(&citizen, Act::Text("楼道的灯坏了".to_owned())).await;
        Self { gateway, platform, citizen }
    }

    pub async fn sends(&self, act: Act) {
        self.platform.act(&self.citizen, act).await;
    }

    pub async fn step(&self) -> bool {
        self.gateway.app.fetcher.step().await.unwrap()
    }

    pub async fn sends_and_it_comes(&self, act: Act) {
        self.sends(act).await;
        assert!(self.step().await);
        assert!(!self.step().await);
    }

    async fn officer(&self) -> Desk<'_> {
        Desk::login(&self.gateway, "zhao.min").await
    }

    async fn count(&self, of: &str) -> i64 {
        number(&self.gateway.pool, &format!("SELECT count(*) FROM {of}")).await
    }

    async fn next_try(&self) -> DateTime<Utc> {
        sqlx::query_scalar("SELECT next_try_at FROM media")
            .fetch_one(&self.gateway.pool)
            .await
            .unwrap()
    }
}

pub const TICKET: &str = "/desk/tickets/BCS-2026-000001";

/// Where the nth thing is that the citizen sent after the words.
fn medium(nth: i32, variant: &str) -> String {
    format!("/desk/media/BCS-2026-000001/{}/0/{variant}", nth + 1)
}

async fn part(desk: &Desk<'_>, scene: &Scene, path: &str, range: &str) -> Answer {
    let url = format!("{}{path}", scene.gateway.base);
    let request = scene.gateway.client.get(url).header("cookie", &desk.cookie);
    Answer::of(request.header("range", range).send().await.unwrap()).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    // Left red, right blue: which way it was turned shows.
    let paint = |x, _| if x < width / 2 { Rgb([200, 0, 0]) } else { Rgb([0, 0, 200]) };
    let picture = DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, paint));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Jpeg).unwrap();
    file.into_inner()
}

/// Puts a segment behind the file's first two bytes, where cameras put theirs.
fn with_segment(jpeg: &[u8], marker: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, content, &jpeg[2..]].concat()
}

/// EXIF of a phone held upright (orientation 6) that knew where it was: 42° 17' north.
fn exif() -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08".to_vec();
    exif.extend(*b"\0\x02");
    exif.extend(*b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0");
    exif.extend(*b"\x88\x25\0\x04\0\0\0\x01\0\0\0\x26");
    exif.extend(*b"\0\0\0\0");
    exif.extend(*b"\0\x02");
    exif.extend(*b"\0\x01\0\x02\0\0\0\x02N\0\0\0");
    exif.extend(*b"\0\x02\0\x05\0\0\0\x03\0\0\0\x44");
    exif.extend(*b"\0\0\0\0");
    for value in [42_u32, 1, 17, 1, 1003, 100] {
        exif.extend(value.to_be_bytes());
    }
    exif
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_is_shown_upright_and_without_the_place_where_it_was_taken() {
    let scene = Scene::set().await;
    let photo = with_segment(&jpeg(2000, 1000), 0xe1, &exif());
    scene.sends_and_it_comes(Act::Photo(Some(photo.clone().into()))).await;
    let desk = scene.officer().await;
    let page = desk.get(TICKET).await;
    assert!(page.text().contains(&medium(1, "thumb")), "{}", page.text());
    assert!(header(&page, "content-security-policy").contains("media-src 'self'"));

    for (variant, width, height) in [("preview", 800, 1600), ("thumb", 160, 320)] {
        let shown = desk.get(&medium(1, variant)).await;
        assert_eq!((shown.status, header(&shown, "content-type")), (200, "image/jpeg"));
        assert_eq!(header(&shown, "x-content-type-options"), "nosniff");
        assert_eq!(header(&shown, "content-disposition"), "inline");
        assert_eq!(header(&shown, "cache-control"), "private, no-store");
        assert!(header(&shown, "content-security-policy").starts_with("sandbox;"));
        assert!(!holds(&shown.body, b"Exif") && !holds(&shown.body, &1003_u32.to_be_bytes()));
        let picture = image::load_from_memory(&shown.body).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (width, height));
        let [red, _, blue] = picture.get_pixel(width / 2, height / 8).0;
        assert!(red > 150 && blue < 50, "turned the wrong way");
    }
    assert_eq!(scene.count("media_opened").await, 0);

    let original = desk.get(&medium(1, "original")).await;
    assert_eq!(original.body, photo);
    assert_eq!(header(&original, "content-type"), "application/octet-stream");
    assert_eq!(
        header(&original, "content-disposition"),
        "attachment; filename=\"BCS-2026-000001-2-0.jpg\""
    );
    assert_eq!(scene.count("media_opened WHERE variant = 'original'").await, 1);
    scene.gateway.stop().await;
}

/// A PNG of a hundred bytes that says that it is 50,000 pixels wide and high.
fn bomb() -> Vec<u8> {
    let small = DynamicImage::ImageRgb8(RgbImage::new(1, 1));
    let mut file = Cursor::new(Vec::new());
    small.write_to(&mut file, ImageFormat::Png).unwrap();
    let mut png = file.into_inner();
    png[16..20].copy_from_slice(&50_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&50_000_u32.to_be_bytes());
    let mut crc = u32::MAX;
    for byte in &png[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    png[29..33].copy_from_slice(&(!crc).to_be_bytes());
    png
}

#[tokio::test(flavor = "multi_thread")]
async fn s25_what_is_no_picture_is_given_out_as_a_file_only() {
    const SCRIPT: &[u8] = b"<html><script>alert(1)</script></html>";
    let scene = Scene::set().await;
    let desk = scene.officer().await;
    let files: [(&[u8], &str); 5] = [
        (&bomb(), "png"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>", "bin"),
        (b"PK\x03\x04\x14\0\0\0\0\0", "bin"),
        (b"MZ\x90\0\x03\0\0\0", "bin"),
        (b"\xff\xd8\xff\xe0<html><script>alert(1)</script>", "jpg"),
    ];
    for (index, (file, extension)) in files.into_iter().enumerate() {
        let seq = i32::try_from(index + 1).unwrap();
        scene.sends_and_it_comes(Act::Photo(Some(file.to_vec().into()))).await;
        for variant in ["preview", "thumb", "play", "else"] {
            assert_eq!(desk.get(&medium(seq, variant)).await.status, 404, "{variant}");
        }
        let original = desk.get(&medium(seq, "original")).await;
        assert_eq!((original.status, &original.body[..]), (200, file));
        assert_eq!(header(&original, "content-type"), "application/octet-stream");
        assert_eq!(header(&original, "x-content-type-options"), "nosniff");
        assert!(header(&original, "content-security-policy").starts_with("sandbox;"));
        let name = format!("attachment; filename=\"BCS-2026-000001-{}-0.{extension}\"", seq + 1);
        assert_eq!(header(&original, "content-disposition"), name);
    }
    let page = desk.get(TICKET).await.text();
    assert_eq!(page.matches("不能在这里显示").count(), 5);
    assert!(!page.contains("<img"));

    // A picture that is also a page: what is shown of it is the picture.
    let both = [&with_segment(&jpeg(40, 40), 0xfe, SCRIPT)[..], SCRIPT].concat();
    scene.sends_and_it_comes(Act::Photo(Some(both.into()))).await;
    let shown = desk.get(&medium(6, "preview")).await;
    assert_eq!((shown.status, header(&shown, "content-type")), (200, "image/jpeg"));
    assert!(!holds(&shown.body, b"script") && image::load_from_memory(&shown.body).is_ok());
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_with_holes_lies_on_white_and_of_one_that_moves_the_first_is_shown() {
    let scene = Scene::set().await;
    let glass = DynamicImage::ImageRgba8(image::RgbaImage::new(30, 20));
    for (seq, format) in [(1, ImageFormat::Png), (2, ImageFormat::Gif), (3, ImageFormat::WebP)] {
        let mut file = Cursor::new(Vec::new());
        glass.write_to(&mut file, format).unwrap();
        scene.sends_and_it_comes(Act::Photo(Some(file.into_inner().into()))).await;
        let shown = scene.officer().await.get(&medium(seq, "preview")).await;
        let picture = image::load_from_memory(&shown.body).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (30, 20));
        assert!(picture.pixels().all(|pixel| pixel.0.iter().all(|color| *color > 250)));
    }
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_can_be_played_in_parts_and_who_listened_is_noted() {
    let scene = Scene::set().await;
    scene.sends_and_it_comes(Act::Voice).await;
    let desk = scene.officer().await;
    let page = desk.get(TICKET).await.text();
    let address = medium(1, "play");
    assert!(page.contains(&format!("<audio controls preload=\"none\" src=\"{address}\">")));
    assert!(page.contains(&medium(1, "original")));

    // The wide one of the two that the platform has: a second at 16 kHz.
    let whole = desk.get(&address).await;
    assert_eq!((whole.status, header(&whole, "content-type")), (200, "audio/wav"));
    assert_eq!((whole.body.len(), header(&whole, "accept-ranges")), (44 + 32_000, "bytes"));
    assert_eq!(&whole.body[..4], b"RIFF");
    assert_eq!(scene.count("media_opened WHERE variant = 'play'").await, 1);
    scene.gateway.clock.set(at("2026-11-24 09:05"));
    let first = part(&desk, &scene, &address, "bytes=0-3").await;
    assert_eq!((first.status, &first.body[..]), (206, &b"RIFF"[..]));
    assert_eq!(header(&first, "content-range"), "bytes 0-3/32044");
    assert_eq!(scene.count("media_opened").await, 2);
    let last = part(&desk, &scene, &address, "bytes=32000-").await;
    assert_eq!((last.status, last.body.len(), header(&last, "content-length")), (206, 44, "44"));
    assert_eq!(scene.count("media_opened").await, 2, "a part of the same listening");
    let beyond = part(&desk, &scene, &address, "bytes=32044-").await;
    assert_eq!((beyond.status, header(&beyond, "content-range")), (416, "bytes */32044"));
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_is_fetched_from_its_own_place_and_given_out_as_a_file() {
    let scene = Scene::set().await;
    scene.sends_and_it_comes(Act::Video).await;
    let desk = scene.officer().await;
    let page = desk.get(TICKET).await.text();
    assert!(page.contains("请下载后观看") && !page.contains("<video"));
    let original = desk.get(&medium(1, "original")).await;
    assert_eq!(header(&original, "content-type"), "application/octet-stream");
    assert!(header(&original, "content-disposition").ends_with("-2-0.mp4\""));
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_comes_as_success_is_tried_again() {
    let scene = Scene::set().await;
    scene.sends(Act::Photo(None)).await;
    let desk = scene.officer().await;
    assert!(desk.get(TICKET).await.text().contains("照片正在从微信取回"));
    scene.platform.switch(|switches| switches.busy = true);
    assert!(scene.step().await);
    assert!(desk.get(TICKET).await.text().contains("照片暂时没有取回来，系统会自动再试"));
    assert_eq!(desk.get(&medium(1, "original")).await.status, 404);
    assert_eq!(scene.next_try().await, at(NOW) + TimeDelta::seconds(30));
    assert!(!scene.step().await, "not before its time");
    scene.platform.switch(|switches| switches.busy = false);
    scene.gateway.clock.set(at(NOW) + TimeDelta::seconds(30));
    assert!(scene.step().await);
    assert_eq!(desk.get(&medium(1, "preview")).await.status, 200);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_fetched_in_three_days_is_said_plainly() {
    let scene = Scene::set().await;
    scene.sends(Act::Photo(None)).await;
    scene.platform.switch(|switches| switches.busy = true);
    let mut tries = 0;
    while scene.step().await {
        tries += 1;
        if scene.count("media WHERE state = 'waiting'").await == 1 {
            scene.gateway.clock.set(scene.next_try().await);
        }
    }
    assert_eq!(scene.gateway.clock.now(), at(NOW) + TimeDelta::days(3));
    assert!((20..40).contains(&tries), "{tries} tries");
    let page = scene.officer().await.get(TICKET).await.text();
    assert!(page.contains("照片已过期：微信只保留 3 天"), "{page}");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_an_api_loses_no_photo_that_it_gets_one_for_in_time() {
    let scene = Scene::set().await;
    let xml = "<xml><ToUserName>gh_8a1b2c3d4e5f</ToUserName><FromUserName>oSomebody</FromUserName>\
        <CreateTime>1795482000</CreateTime><MsgType>image</MsgType><PicUrl>http://mmbiz.qpic.cn/a</PicUrl>\
        <MediaId>M1</MediaId><MsgId>24000000000000009</MsgId></xml>";
    scene.gateway.wechat("oSomebody", "楼道的灯坏了", "1").await.reply();
    assert_eq!(scene.gateway.wechat_xml(xml).await.status, 200);
    assert!(scene.step().await);
    assert_eq!(scene.next_try().await, at(NOW) + TimeDelta::hours(1));
    assert!(
        scene
            .officer()
            .await
            .get("/desk/tickets/BCS-2026-000002")
            .await
            .text()
            .contains("系统会自动再试")
    );
    scene.gateway.clock.set(at(NOW) + TimeDelta::days(3));
    assert!(scene.step().await);
    assert!(
        scene
            .officer()
            .await
            .get("/desk/tickets/BCS-2026-000002")
            .await
            .text()
            .contains("照片已过期")
    );
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_said_plainly_and_not_kept() {
    let scene = Scene::set_with(Process::Web, "[media]\nlimit_mb = 1").await;
    let large = [&jpeg(8, 8)[..], &vec![0; 1024 * 1024]].concat();
    scene.sends_and_it_comes(Act::Photo(Some(large.into()))).await;
    let page = scene.officer().await.get(TICKET).await.text();
    assert!(page.contains("照片太大，没有保存"), "{page}");
    assert_eq!(scene.count("media_object").await, 0);
    scene.gateway.stop().await;
}

/// What a crash leaves behind at each of its moments is made good by the next try.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_download_and_the_row_loses_nothing() {
    let scene = Scene::set().await;
    let photo = jpeg(30, 20);
    scene.sends(Act::Photo(Some(photo.clone().into()))).await;
    let (now, app) = (scene.gateway.clock.now(), &scene.gateway.app);
    let mut db = app.pool.acquire().await.unwrap();
    let taken = store::media::claim(&mut db, now, now + TimeDelta::minutes(6)).await.unwrap();
    let taken = taken.unwrap();
    // The content was written, the row was not.
    let hash = Hash::of(&photo);
    store::media::announce(&mut db, taken.key.office, &hash).await.unwrap();
    let office = taken.key.office;
    app.media.store.put(office, &hash, Variant::Original, photo.clone().into()).await.unwrap();
    drop(db);
    assert!(!scene.step().await, "somebody has it in hand");
    scene.gateway.clock.set(now + TimeDelta::minutes(6));
    assert!(scene.step().await);
    assert_eq!(scene.officer().await.get(&medium(1, "original")).await.body, photo);
    assert_eq!(scene.count("media_object").await, 1);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_fetch_what_was_committed_by_themselves_each_once() {
    let scene = Scene::set_with(Process::All, "").await;
    for n in 1..=12 {
        scene.sends(Act::Photo(Some(jpeg(20 + n, 20).into()))).await;
    }
    until("all are kept", async || scene.count("media WHERE state = 'kept'").await == 12).await;
    assert_eq!(scene.platform.calls("media/get"), 12);
    assert_eq!(scene.count("media WHERE tries > 1").await, 0);
    let metrics = scene.gateway.metrics().await;
    assert!(metrics.contains("media_fetches_total{result=\"kept\"}"));
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_officers_of_the_ticket_s_office_open_what_was_sent() {
    let scene = Scene::set().await;
    scene.sends_and_it_comes(Act::Photo(None)).await;
    let gateway = &scene.gateway;
    let mut db = gateway.pool.acquire().await.unwrap();
    let policy = serde_json::to_value(Policy::default()).unwrap();
    let other = store::office::create(&mut db, "yinzhou", "反映窗口", "BCS", &policy).await;
    let hash = secret::hash_password(PASSWORD).unwrap();
    let staff = NewStaff {
        login: "sun.li",
        name: "孙丽",
        role: Role::DutyOfficer,
        unit: None,
        email: None,
        mobile: None,
        password_hash: &hash,
    };
    store::office::put_staff(&mut db, other.unwrap(), &staff).await.unwrap();
    drop(db);
    let mut db = gateway.app.pool.acquire().await.unwrap();
    gateway.app.offices.reload(&mut db).await.unwrap();
    drop(db);
    for (login, status) in [("zhao.min", 200), ("sun.li", 404), ("admin", 403)] {
        let desk = Desk::login(gateway, login).await;
        for variant in ["thumb", "preview", "original"] {
            assert_eq!(desk.get(&medium(1, variant)).await.status, status, "{login} {variant}");
        }
    }
    let url = format!("{}{}", gateway.base, medium(1, "preview"));
    let nobody = Answer::of(gateway.client.get(url).send().await.unwrap()).await;
    assert_eq!((nobody.status, header(&nobody, "location")), (303, "/desk/login"));
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_kept_once_and_goes_a_day_after_the_last_that_names_it() {
    let scene = Scene::set().await;
    let photo = jpeg(30, 20);
    for _ in 0..2 {
        scene.sends_and_it_comes(Act::Photo(Some(photo.clone().into()))).await;
    }
    let app = &scene.gateway.app;
    let mut db = sqlx::PgConnection::connect(&scene.gateway.database_url).await.unwrap();
    let a_day = "UPDATE media_object SET unused_since = unused_since - interval '25 hours'";
    assert_eq!(scene.count("media_object WHERE unused_since IS NULL").await, 1);
    sql(&mut db, "DELETE FROM media WHERE seq = 2").await;
    sql(&mut db, a_day).await;
    assert_eq!(app.media.tidy().await.unwrap(), 0, "the other message names it");
    let desk = scene.officer().await;
    assert_eq!(desk.get(&medium(2, "original")).await.body, photo);

    sql(&mut db, "DELETE FROM media WHERE seq = 3").await;
    assert_eq!(app.media.tidy().await.unwrap(), 0, "not at once");
    sql(&mut db, a_day).await;
    // It comes again at the last moment.
    let hash = Hash::of(&photo);
    store::media::announce(&mut db, scene.gateway.office, &hash).await.unwrap();
    assert_eq!(app.media.tidy().await.unwrap(), 0, "somebody is about to name it");
    sql(&mut db, a_day).await;
    let there = async |variant| {
        app.media.store.size(scene.gateway.office, &hash, variant).await.unwrap().is_some()
    };
    assert!(there(Variant::Original).await && there(Variant::Thumb).await);
    assert_eq!(app.media.tidy().await.unwrap(), 1);
    assert!(!there(Variant::Original).await && !there(Variant::Thumb).await);
    assert_eq!(scene.count("media_object").await, 0);
    scene.gateway.stop().await;
}

/// A bucket in memory, which wants to see a signature.
type Bucket = Arc<Mutex<HashMap<String, Vec<u8>>>>;

async fn bucket(
    State(bucket): State<Bucket>,
    method: Method,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> impl IntoResponse {
    const DATE: (&str, &str) = ("last-modified", "Tue, 24 Nov 2026 01:00:00 GMT");
    let mut bucket = bucket.lock().unwrap();
    let signed = headers.get("authorization").is_some_and(|value| {
        value.to_str().unwrap().starts_with("AWS4-HMAC-SHA256 Credential=key-of-test/")
    });
    if !signed {
        return StatusCode::FORBIDDEN.into_response();
    }
    if method == Method::PUT {
        bucket.insert(name, body.to_vec());
        return [("etag", "\"1\"")].into_response();
    }
    if method == Method::DELETE {
        bucket.remove(&name);
        return StatusCode::NO_CONTENT.into_response();
    }
    let Some(bytes) = bucket.get(&name).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
        return ([("etag", "\"1\""), DATE], bytes).into_response();
    };
    let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
    let content_range = format!("bytes {from}-{to}/{}", bytes.len());
    let headers = [("etag", "\"1\""), DATE, ("content-range", content_range.as_str())];
    (StatusCode::PARTIAL_CONTENT, headers, bytes[from..=to].to_vec()).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_does_as_well_as_a_folder() {
    let kept = Bucket::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/media/{*name}", axum::routing::any(bucket))
        .with_state(Arc::clone(&kept));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = format!(
        "[media]\ns3_bucket = 'media'\ns3_endpoint = '{url}'\ns3_key_id = 'key-of-test'\n\
         s3_secret = 'secret-of-test'"
    );
    let scene = Scene::set_with(Process::Web, &settings).await;
    scene.sends_and_it_comes(Act::Voice).await;
    assert_eq!(kept.lock().unwrap().len(), 2);
    assert!(kept.lock().unwrap().keys().all(|name| name.starts_with("1/")));
    let desk = scene.officer().await;
    assert_eq!(desk.get(&medium(1, "play")).await.body.len(), 44 + 32_000);
    let piece = part(&desk, &scene, &medium(1, "play"), "bytes=8-11").await;
    assert_eq!((piece.status, &piece.body[..]), (206, &b"WAVE"[..]));

    let hash = Hash::of(&kept_original(&kept));
    let office = scene.gateway.office;
    scene.gateway.app.media.store.remove(office, &hash).await.unwrap();
    assert!(kept.lock().unwrap().is_empty());
    assert_eq!(desk.get(&medium(1, "play")).await.status, 404);
    scene.gateway.stop().await;
}

fn kept_original(bucket: &Bucket) -> Vec<u8> {
    let bucket = bucket.lock().unwrap();
    bucket.iter().find(|(name, _)| !name.contains('.')).unwrap().1.clone()
}

//! The platform's API against a server that behaves as the platform does, and against servers that
//! behave worse. Real HTTP; only the time is set by hand.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::Uri,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, future::join_all};
use intake_standin_wechat::{
    Act as Does, Consent, How, NOTICE, NOTICE_LONG_TERM, Settings, StandIn, TEMPLATE_PROGRESS,
};
use intake_wechat::{
    Account, Mode, ServiceWords, WechatChannel,
    message::{Content, Inbound},
    platform::{
        Act, Again, Api, Button, Change, CustomMessage, Field, MEDIA_KEPT, MEDIA_LIMIT,
        MemoryAllowances, MemoryTokens, Menu, Openid, Platform, PlatformError, QrLife,
        RESERVED_FOR_STAFF, StoreFuture, Template, Token, TokenStore, Trouble, Unavailable,
    },
    receipt::{Consented, Delivered},
    sender::Sender,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

const APP_ID: &str = "wx5f1c9e8a7b6d4c3e";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ORIGINAL_ID: &str = "gh_8a1b2c3d4e5f";
const TOKEN: &str = "gov_center_token_2026";
const KEY: &str = "Zm9vYmFyYmF6cXV4MDEyMzQ1Njc4OUFCQ0RFRkdISUp";

/// What came to the gateway's address, and how it answers: the last one stays.
#[derive(Clone)]
struct Gateway {
    url: String,
    came: Arc<Mutex<Vec<(String, String)>>>,
}

#[derive(Clone)]
enum Manner {
    Says(&'static str),
    Fails,
    Hangs,
    /// As the channel does.
    Answers(Arc<WechatChannel>),
}

type Stub = (Arc<Mutex<VecDeque<Manner>>>, Gateway, DateTime<Utc>);

async fn served(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl Gateway {
    async fn start(manners: impl IntoIterator<Item = Manner>, now: DateTime<Utc>) -> Self {
        let mut gateway = Self { url: String::new(), came: Arc::default() };
        let manners = Arc::new(Mutex::new(manners.into_iter().collect()));
        let stub: Stub = (manners, gateway.clone(), now);
        gateway.url = served(Router::new().fallback(take).with_state(stub)).await;
        gateway
    }

    fn bodies(&self) -> Vec<String> {
        self.came.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    /// Events of this name that came, in plain mode.
    fn events(&self, name: &str) -> Vec<intake_wechat::message::Event> {
        let events = self.bodies().into_iter().filter_map(|body| {
            match Inbound::parse(&body).unwrap().content {
                Content::Event(event) => Some(event),
                _ => None,
            }
        });
        events.filter(|event| event.name == name).collect()
    }
}

async fn take(State((manners, gateway, now)): State<Stub>, uri: Uri, body: String) -> Response {
    let query = uri.query().unwrap_or_default().to_owned();
    gateway.came.lock().unwrap().push((query.clone(), body.clone()));
    let manner = {
        let mut manners = manners.lock().unwrap();
        if manners.len() > 1 { manners.pop_front().unwrap() } else { manners[0].clone() }
    };
    match manner {
        Manner::Says(says) => says.into_response(),
        Manner::Fails => axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Manner::Hangs => std::future::pending().await,
        Manner::Answers(channel) => {
            use intake_contract::{Channel, Method, Request, Verified};
            let request = Request {
                method: Method::Post,
                query: &query,
                headers: &[],
                body: body.as_bytes(),
            };
            match channel.verify(request, now) {
                Ok(Verified::Answer(answer)) => answer.body.into_response(),
                Ok(Verified::Submit { submission, .. }) => panic!("{}", submission.source_id),
                Ok(Verified::Quarantine(item, _)) => panic!("{}", item.reason),
                Err(refusal) => panic!("{refusal}"),
            }
        }
    }
}

struct World {
    standin: StandIn,
    gateway: Gateway,
    clock: Arc<Mutex<DateTime<Utc>>>,
    api: Api,
    tokens: Arc<MemoryTokens>,
    citizen: Openid,
}

fn api(url: &str) -> Api {
    Api {
        secret: SECRET.into(),
        base_url: url.to_owned(),
        open_url: url.to_owned(),
        answer_timeout_s: 10,
        templates: Vec::new(),
    }
}

fn nine() -> DateTime<Utc> {
    "2026-11-24T09:00:00+08:00".parse().unwrap()
}

impl World {
    async fn new() -> Self {
        Self::with(None, [Manner::Says("success")], Duration::from_secs(5)).await
    }

    async fn with(
        key: Option<&str>,
        manners: impl IntoIterator<Item = Manner>,
        patience: Duration,
    ) -> Self {
        let gateway = Gateway::start(manners, nine()).await;
        let clock = Arc::new(Mutex::new(nine()));
        let settings = Settings {
            app_id: APP_ID.to_owned(),
            secret: SECRET.to_owned(),
            original_id: ORIGINAL_ID.to_owned(),
            token: TOKEN.to_owned(),
            encoding_aes_key: key.map(str::to_owned),
            callback: gateway.url.clone(),
            patience,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let now = Arc::clone(&clock);
        let standin =
            StandIn::new(settings, Arc::new(move || *now.lock().unwrap()), &listener).unwrap();
        tokio::spawn(standin.clone().serve(listener));
        let citizen = Openid::new(standin.citizens().remove(0));
        let api = api(standin.url());
        Self { standin, gateway, clock, api, tokens: Arc::default(), citizen }
    }

    fn now(&self) -> DateTime<Utc> {
        *self.clock.lock().unwrap()
    }

    fn later(&self, delta: TimeDelta) {
        *self.clock.lock().unwrap() += delta;
    }

    /// A replica of the gateway; all share the tokens, each has allowances of its own.
    fn replica(&self) -> Platform {
        let allowances = Arc::new(MemoryAllowances::default());
        Platform::new(APP_ID, &self.api, self.tokens.clone(), allowances).unwrap()
    }

    /// The citizen writes, and the replica hears of it.
    async fn writes(&self, replica: &Platform) {
        self.standin.act(self.citizen.as_str(), Does::Text("你好".to_owned())).await;
        let heard = Change::Acted(Act::Message, self.now());
        replica.note(&self.citizen, heard, self.now()).await.unwrap();
    }

    async fn taps(&self, replica: &Platform) {
        self.standin.act(self.citizen.as_str(), Does::Menu("NEW".to_owned())).await;
        let heard = Change::Acted(Act::Tap, self.now());
        replica.note(&self.citizen, heard, self.now()).await.unwrap();
    }

    async fn sends(&self, replica: &Platform, reserve: u8) -> Result<(), Trouble> {
        let words = CustomMessage::Text("您的反映有了新进展".to_owned());
        let sent = replica.send_custom(&self.citizen, &words, reserve, self.now()).await;
        sent.map_err(|error| error.trouble())
    }

    fn shown(&self, how: How) -> Vec<String> {
        let talk = self.standin.talk(self.citizen.as_str());
        talk.into_iter().filter(|entry| entry.how == how).map(|entry| entry.text).collect()
    }
}

fn progress() -> Vec<Field> {
    vec![
        Field::text("character_string1", "BCS-2026-000123").unwrap(),
        Field::text("thing2", "社会保障卡补办申请因材料不全被退回三次请予以协调").unwrap(),
        Field::text("phrase3", "正在办理").unwrap(),
        Field::at("time4", nine()),
    ]
}

#[tokio::test]
async fn fifty_callers_in_two_replicas_fetch_one_token() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica()];
    let calls = (0..50).map(|n| replicas[n % 2].qr_code("counter-1", QrLife::Permanent));
    for outcome in join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(world.standin.calls("stable_token"), 1);
}

#[tokio::test]
async fn a_token_that_ended_is_renewed_once_for_fifty_who_find_out() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica()];
    replicas[0].qr_code("counter-1", QrLife::Permanent).await.unwrap();
    world.standin.expire_tokens();
    let calls = (0..50).map(|n| replicas[n % 2].qr_code("counter-1", QrLife::Permanent));
    for outcome in join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(world.standin.calls("stable_token"), 2);
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_too_is_an_alarm_and_not_tried_again() {
    let world = World::new().await;
    let replica = world.replica();
    world.standin.switch(|s| s.next_codes = [0, 42_001, 0, 40_001].into());
    let error = replica.qr_code("counter-1", QrLife::Permanent).await.unwrap_err();
    assert_eq!((error.trouble(), error.code()), (Trouble::Token, Some(40_001)));
    assert!(error.for_the_administrator().is_some());
    assert_eq!(world.standin.calls("qrcode/create"), 2);
    assert_eq!(world.standin.calls("stable_token"), 2);
    replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
}

#[tokio::test]
async fn a_wrong_secret_is_said_to_the_administrator() {
    let world = World::new().await;
    let wrong = Api { secret: "f".repeat(32).into(), ..world.api.clone() };
    let allowances = Arc::new(MemoryAllowances::default());
    let replica = Platform::new(APP_ID, &wrong, world.tokens.clone(), allowances).unwrap();
    let calls = (0..20).map(|_| replica.qr_code("counter-1", QrLife::Permanent));
    for outcome in join_all(calls).await {
        let error = outcome.unwrap_err();
        assert_eq!((error.trouble(), error.code()), (Trouble::Credentials, Some(40_125)));
        assert!(error.for_the_administrator().unwrap().contains("api.secret"));
    }
    // Who waited for the one that asked has its answer.
    assert_eq!(world.standin.calls("stable_token"), 1);
}

/// A store that is down.
struct NoStore;

impl TokenStore for NoStore {
    fn get<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Option<Token>> {
        Box::pin(async { Err(Unavailable) })
    }
    fn put<'a>(&'a self, _: &'a str, _: &'a Token, _: Duration) -> StoreFuture<'a, ()> {
        Box::pin(async { Err(Unavailable) })
    }
    fn expire<'a>(&'a self, _: &'a str, _: &'a Token) -> StoreFuture<'a, ()> {
        Box::pin(async { Err(Unavailable) })
    }
    fn lock<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async { Err(Unavailable) })
    }
    fn unlock<'a>(&'a self, _: &'a str, _: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async { Err(Unavailable) })
    }
}

#[tokio::test]
async fn without_the_store_each_replica_asks_for_itself_and_once() {
    let world = World::new().await;
    let allowances = Arc::new(MemoryAllowances::default());
    let replica = Platform::new(APP_ID, &world.api, Arc::new(NoStore), allowances).unwrap();
    for _ in 0..3 {
        replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
    }
    assert_eq!(world.standin.calls("stable_token"), 1);
    world.standin.expire_tokens();
    replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
    assert_eq!(world.standin.calls("stable_token"), 2);
}

#[tokio::test]
async fn a_token_that_somebody_has_renewed_is_left_alone() {
    let store = MemoryTokens::default();
    let token = |text: &str| Token::new(text.to_owned().into());
    let held = async || store.get(APP_ID).await.unwrap().map(|held| held.expose().to_owned());
    store.put(APP_ID, &token("new"), Duration::from_secs(60)).await.unwrap();
    store.expire(APP_ID, &token("old")).await.unwrap();
    assert_eq!(held().await.as_deref(), Some("new"));
    store.expire(APP_ID, &token("new")).await.unwrap();
    assert_eq!(held().await, None);
}

#[tokio::test]
async fn a_replica_that_died_while_it_fetched_stops_nobody() {
    let world = World::new().await;
    assert!(world.tokens.lock(APP_ID, "gone", Duration::from_millis(300)).await.unwrap());
    world.replica().qr_code("counter-1", QrLife::Permanent).await.unwrap();
    assert_eq!(world.standin.calls("stable_token"), 1);
}

#[tokio::test]
async fn five_messages_follow_a_citizens_and_the_sixth_is_not_tried() {
    let world = World::new().await;
    let replica = world.replica();
    assert_eq!(world.sends(&replica, 0).await, Err(Trouble::OutsideWindow));
    world.writes(&replica).await;
    for _ in 0..3 {
        assert_eq!(world.sends(&replica, RESERVED_FOR_STAFF).await, Ok(()));
    }
    // The program's own are over, what staff ask still goes out.
    assert_eq!(world.sends(&replica, RESERVED_FOR_STAFF).await, Err(Trouble::CountExhausted));
    for _ in 0..2 {
        assert_eq!(world.sends(&replica, 0).await, Ok(()));
    }
    assert_eq!(world.sends(&replica, 0).await, Err(Trouble::CountExhausted));
    // The same message again is no new one; another one is.
    let again = Change::Acted(Act::Message, world.now());
    replica.note(&world.citizen, again, world.now()).await.unwrap();
    assert_eq!(world.sends(&replica, 0).await, Err(Trouble::CountExhausted));
    assert_eq!(world.standin.calls("message/custom/send"), 5);
    world.later(TimeDelta::seconds(1));
    world.writes(&replica).await;
    assert_eq!(world.sends(&replica, 0).await, Ok(()));
    world.later(TimeDelta::hours(48));
    assert_eq!(world.sends(&replica, 0).await, Err(Trouble::OutsideWindow));
    assert_eq!(world.shown(How::Custom).len(), 6);
}

#[tokio::test]
async fn three_messages_follow_a_tap_for_a_minute() {
    let world = World::new().await;
    let replica = world.replica();
    world.taps(&replica).await;
    for _ in 0..3 {
        assert_eq!(world.sends(&replica, RESERVED_FOR_STAFF).await, Ok(()));
    }
    assert_eq!(world.sends(&replica, 0).await, Err(Trouble::CountExhausted));
    world.taps(&replica).await;
    world.later(TimeDelta::minutes(1));
    assert_eq!(world.sends(&replica, 0).await, Err(Trouble::OutsideWindow));
}

#[tokio::test]
async fn where_the_platform_counts_otherwise_it_is_right() {
    let world = World::new().await;
    let replica = world.replica();
    replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
    for (code, trouble) in [(45_015, Trouble::OutsideWindow), (45_047, Trouble::CountExhausted)] {
        world.later(TimeDelta::seconds(1));
        let heard = Change::Acted(Act::Message, world.now());
        replica.note(&world.citizen, heard, world.now()).await.unwrap();
        world.standin.switch(|s| s.next_codes = [code].into());
        assert_eq!(world.sends(&replica, 0).await, Err(trouble));
        let asked = world.standin.calls("message/custom/send");
        assert_eq!(world.sends(&replica, 0).await, Err(trouble));
        assert_eq!(world.standin.calls("message/custom/send"), asked, "it was asked again");
    }
}

#[tokio::test]
async fn what_was_certainly_not_sent_is_not_counted() {
    let world = World::new().await;
    let replica = world.replica();
    world.writes(&replica).await;
    world.standin.switch(|s| s.busy = true);
    for _ in 0..6 {
        assert_eq!(world.sends(&replica, 0).await, Err(Trouble::Busy));
    }
    world.standin.switch(|s| s.busy = false);
    for _ in 0..5 {
        assert_eq!(world.sends(&replica, 0).await, Ok(()));
    }
}

#[tokio::test]
async fn a_platform_that_hangs_is_given_up_and_what_it_may_have_sent_is_counted() {
    let world = World::new().await;
    let quick = Api { answer_timeout_s: 1, ..world.api.clone() };
    let allowances = Arc::new(MemoryAllowances::default());
    let replica = Platform::new(APP_ID, &quick, world.tokens.clone(), allowances).unwrap();
    world.writes(&replica).await;
    assert_eq!(world.sends(&replica, 0).await, Ok(()));
    world.standin.switch(|s| s.hangs = true);
    let words = CustomMessage::Text("办好了".to_owned());
    let error = replica.send_custom(&world.citizen, &words, 0, world.now()).await.unwrap_err();
    assert_eq!((error.trouble(), error.again(nine())), (Trouble::NoAnswer, Again::Later));
    assert!(error.may_have_been_done());
    world.standin.switch(|s| s.hangs = false);
    for _ in 0..3 {
        assert_eq!(world.sends(&replica, 0).await, Ok(()));
    }
    assert_eq!(world.sends(&replica, 0).await, Err(Trouble::CountExhausted));
    assert_eq!(world.standin.calls("message/custom/send"), 5, "the fifth was the one that hung");
}

#[tokio::test]
async fn a_template_message_is_shown_once_and_its_receipt_may_come_first() {
    let world = World::new().await;
    let replica = world.replica();
    world.standin.switch(|s| s.receipts_first = true);
    let fields = progress();
    let link = Some("https://intake.example/c/1");
    let template =
        Template { to: &world.citizen, template_id: TEMPLATE_PROGRESS, link, fields: &fields };
    let sent = replica.send_template(template, "outbox-1").await.unwrap();
    let receipts: Vec<_> = world.gateway.events("TEMPLATESENDJOBFINISH");
    let receipts: Vec<_> = receipts.iter().flat_map(|event| event.receipts()).collect();
    assert_eq!(receipts.len(), 1, "the receipt is there before the answer");
    assert_eq!(receipts[0].msg_id, sent.msg_id);
    assert!(sent.msg_id.as_ref().unwrap().parse::<u64>().unwrap() > 1 << 53);
    assert_eq!(receipts[0].delivered, Delivered::Yes);
    // The answer was lost; the same again is the same message.
    assert_eq!(replica.send_template(template, "outbox-1").await.unwrap(), sent);
    assert_eq!(world.shown(How::Template).len(), 1);
    // Who refuses them is known by the receipt alone.
    world.standin.act(world.citizen.as_str(), Does::Block(true)).await;
    replica.send_template(template, "outbox-2").await.unwrap();
    let receipts = world.gateway.events("TEMPLATESENDJOBFINISH");
    assert_eq!(receipts[1].receipts()[0].delivered, Delivered::Refused);
    world.standin.act(world.citizen.as_str(), Does::Unfollow).await;
    let error = replica.send_template(template, "outbox-3").await.unwrap_err();
    assert_eq!((error.trouble(), error.is_permanent()), (Trouble::NotFollowing, true));
    let unknown = Template { template_id: "TM-OTHER", ..template };
    let other = Openid::new(world.standin.citizens().remove(1));
    let error = replica.send_template(Template { to: &other, ..unknown }, "x").await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Template);
}

#[tokio::test]
async fn a_notice_needs_a_consent_and_uses_it_up() {
    let world = World::new().await;
    let replica = world.replica();
    let citizen = world.citizen.as_str();
    let fields = &progress()[..2];
    let notice = Template { to: &world.citizen, template_id: NOTICE, link: None, fields };
    let refused = replica.send_notice(notice).await.unwrap_err();
    assert_eq!((refused.trouble(), refused.is_permanent()), (Trouble::NoConsent, true));
    for consent in [Consent::Give, Consent::Decline, Consent::Revoke, Consent::Give] {
        world.standin.act(citizen, Does::Consent(NOTICE.to_owned(), consent)).await;
    }
    let mut changes: Vec<_> = world.gateway.events("subscribe_msg_popup_event");
    changes.extend(world.gateway.events("subscribe_msg_change_event"));
    let changes: Vec<_> = changes.iter().flat_map(|event| event.consents()).collect();
    assert!(changes.iter().all(|change| change.template_id == NOTICE));
    let consented: Vec<_> = changes.iter().map(|change| change.consented).collect();
    let wanted = [Consented::Given, Consented::Declined, Consented::Given, Consented::Revoked];
    assert_eq!(consented, wanted);
    // In the order in which they came: given, declined, taken back, given again.
    let order = [Consented::Given, Consented::Declined, Consented::Revoked, Consented::Given];
    assert_eq!(order.into_iter().fold(0, |left, change| change.left_after(left)), 1);
    world.standin.switch(|s| s.receipts_first = true);
    let sent = replica.send_notice(notice).await.unwrap();
    let receipts = world.gateway.events("subscribe_msg_sent_event")[0].receipts();
    assert_eq!(receipts[0].msg_id, sent.msg_id);
    assert_eq!(receipts[0].template_id.as_deref(), Some(NOTICE));
    assert_eq!(receipts[0].delivered, Delivered::Yes);
    assert_eq!(replica.send_notice(notice).await.unwrap_err().trouble(), Trouble::NoConsent);
    let long_term = Does::Consent(NOTICE_LONG_TERM.to_owned(), Consent::Give);
    world.standin.act(citizen, long_term).await;
    for _ in 0..3 {
        let notice = Template { template_id: NOTICE_LONG_TERM, ..notice };
        replica.send_notice(notice).await.unwrap();
    }
    assert_eq!(world.shown(How::Notice).len(), 4);
}

fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let from = xml.find(&format!("<{name}><![CDATA[")).unwrap() + name.len() + 11;
    &xml[from..from + xml[from..].find("]]>").unwrap()]
}

#[tokio::test]
async fn what_citizens_send_is_fetched_until_its_three_days_are_over() {
    let world = World::new().await;
    let replica = world.replica();
    let photo = Bytes::from_static(b"\x89PNG\r\n\x1a\nnot much of a picture");
    for act in [Does::Photo(Some(photo.clone())), Does::Voice, Does::Video] {
        world.standin.act(world.citizen.as_str(), act).await;
    }
    let [image, voice, video] = &world.gateway.bodies()[..] else { panic!() };
    let whole = async |id: &str| replica.media(id, MEDIA_LIMIT).await?.whole().await;
    let fetched = whole(element(image, "MediaId")).await.unwrap();
    assert_eq!(fetched.bytes, photo);
    assert_eq!(fetched.content_type.as_deref(), Some("image/png"));
    assert_eq!(fetched.file_name.as_deref(), Some("photo.png"));
    let fetched = whole(element(voice, "MediaId16K")).await.unwrap();
    assert!(fetched.bytes.starts_with(b"#!AMR-WB\n"));
    world.standin.act(world.citizen.as_str(), Does::PageVoice).await;
    let spoken = world.standin.page_voice().unwrap();
    let fetched = replica.page_voice(&spoken, MEDIA_LIMIT).await.unwrap();
    assert!(fetched.whole().await.unwrap().bytes.starts_with(b"speex"));
    // A message's voice is not a page's, nor the other way round.
    assert_eq!(whole(&spoken).await.unwrap_err().trouble(), Trouble::Media);
    let other = replica.page_voice(element(voice, "MediaId"), MEDIA_LIMIT).await;
    assert_eq!(other.unwrap_err().trouble(), Trouble::Media);
    let fetched = whole(element(video, "MediaId")).await.unwrap();
    assert!(fetched.bytes.ends_with(b"isom"), "a video is fetched from its own place");
    assert_eq!(fetched.content_type.as_deref(), Some("video/mp4"));

    let limited = replica.media(element(image, "MediaId"), photo.len() - 1).await;
    assert_eq!(limited.unwrap_err().trouble(), Trouble::TooLarge);
    world.later(MEDIA_KEPT);
    let gone = whole(element(image, "MediaId")).await.unwrap_err();
    assert_eq!((gone.trouble(), gone.is_permanent()), (Trouble::Media, true));
}

#[tokio::test]
async fn a_picture_is_given_and_sent() {
    let world = World::new().await;
    let replica = world.replica();
    world.writes(&replica).await;
    let picture = b"\x89PNG\r\n\x1a\n--\r\n\0\xff";
    let (media_id, until) = replica.upload_image(picture, nine()).await.unwrap();
    assert_eq!(until, nine() + TimeDelta::days(3));
    assert_eq!(
        replica.media(&media_id, 99).await.unwrap().whole().await.unwrap().bytes,
        &picture[..]
    );
    let message = CustomMessage::Image { media_id };
    replica.send_custom(&world.citizen, &message, 0, nine()).await.unwrap();
    assert_eq!(world.shown(How::Custom), ["[图片]"]);
    let refused = replica.upload_image(b"GIF89a", nine()).await.unwrap_err();
    assert_eq!((refused.trouble(), refused.code()), (Trouble::Malformed, None));
}

#[tokio::test]
async fn the_menu_the_codes_and_the_visitors_are_the_accounts() {
    let world = World::new().await;
    let replica = world.replica();
    let click = |name: &str, key: &str| Button::Click { name: name.into(), key: key.into() };
    let view =
        Button::View { name: "查进度".into(), url: "https://intake.example/c/list".into() };
    let group = Button::Group {
        name: "服务".into(),
        buttons: vec![view.clone(), click("人工", "HUMAN")],
    };
    let menu = Menu { buttons: vec![click("我要反映", "NEW"), view.clone(), group] };
    menu.check().unwrap();
    replica.create_menu(&menu).await.unwrap();
    for wrong in [
        Menu { buttons: vec![] },
        Menu { buttons: vec![view.clone(), view.clone(), view.clone(), view.clone()] },
        Menu { buttons: vec![click("六个汉字太长", "A")] },
        Menu { buttons: vec![click("反映", &"K".repeat(129))] },
        Menu { buttons: vec![Button::Group { name: "服务".into(), buttons: vec![] }] },
    ] {
        assert!(wrong.check().is_err(), "{wrong:?}");
        assert!(replica.create_menu(&wrong).await.is_err(), "{wrong:?}");
    }

    let code = replica.qr_code("凡河镇", QrLife::Days(30)).await.unwrap();
    assert!(code.url.starts_with("http://weixin.qq.com/q/") && !code.ticket.is_empty());
    let refused = replica.qr_code("凡河镇", QrLife::Days(31)).await.unwrap_err();
    assert_eq!(refused.trouble(), Trouble::Malformed);

    let place = replica.visit_url("https://intake.example/c/visit?a=1&b=2", "abc123");
    assert!(place.ends_with("&scope=snsapi_base&state=abc123#wechat_redirect"), "{place}");
    let page = reqwest::get(&place).await.unwrap().text().await.unwrap();
    let from = page.find("code=").unwrap() + 5;
    let code = &page[from..from + 32];
    assert!(page.contains("https://intake.example/c/visit?a=1"), "{page}");
    assert_eq!(replica.visitor(code).await.unwrap(), world.citizen);
    // The page was loaded twice.
    let again = replica.visitor(code).await.unwrap_err();
    assert_eq!((again.trouble(), again.code()), (Trouble::Code, Some(40_163)));
    assert_eq!(replica.visitor("other").await.unwrap_err().code(), Some(40_029));
}

#[tokio::test]
async fn each_code_says_whether_and_when_to_try_again() {
    let world = World::new().await;
    let replica = world.replica();
    replica.qr_code("counter-1", QrLife::Permanent).await.unwrap();
    let in_ten = Again::NotBefore(nine() + TimeDelta::minutes(10));
    let midnight = Again::NotBefore("2026-11-25T00:00:00+08:00".parse().unwrap());
    let cases = [
        (-1, Trouble::Busy, Again::Later),
        (45_011, Trouble::TooFast, Again::NotBefore(nine() + TimeDelta::minutes(1))),
        (45_009, Trouble::Quota, midnight),
        (40_164, Trouble::AddressNotAllowed("127.0.0.1".parse().ok()), in_ten),
        (40_243, Trouble::Credentials, in_ten),
        (48_001, Trouble::NotGranted, in_ten),
        (48_004, Trouble::Banned, in_ten),
        (43_004, Trouble::NotFollowing, Again::Never),
        (43_019, Trouble::BlackListed, Again::Never),
        (40_003, Trouble::Openid, Again::Never),
        (45_015, Trouble::OutsideWindow, Again::Never),
        (45_047, Trouble::CountExhausted, Again::Never),
        (43_101, Trouble::NoConsent, Again::Never),
        (43_117, Trouble::TooFrequent, Again::NotBefore(nine() + TimeDelta::hours(1))),
        (40_037, Trouble::Template, Again::Never),
        (47_003, Trouble::Arguments, Again::Never),
        (45_002, Trouble::TooLong, Again::Never),
        (44_004, Trouble::Empty, Again::Never),
        (87_014, Trouble::Risky, Again::Never),
        (40_007, Trouble::Media, Again::Never),
        (65_400, Trouble::Unknown(65_400), Again::Later),
    ];
    for (code, trouble, again) in cases {
        world.standin.switch(|s| s.next_codes = [code].into());
        let error = replica.qr_code("counter-1", QrLife::Permanent).await.unwrap_err();
        assert_eq!((error.code(), error.trouble()), (Some(code), trouble), "{code}");
        assert_eq!(error.again(nine()), again, "{code}");
        assert!(!error.may_have_been_done(), "{code}");
        assert!(error.to_string().contains(&format!("(code {code})")), "{error}");
    }
}

fn replica_at(url: &str, seconds: u64) -> Platform {
    let api = Api { answer_timeout_s: seconds, ..api(url) };
    Platform::new(
        APP_ID,
        &api,
        Arc::new(MemoryTokens::default()),
        Arc::new(MemoryAllowances::default()),
    )
    .unwrap()
}

/// A server that issues a token and is odd in everything else.
async fn odd(how: fn() -> Response) -> String {
    let token = r#"{"access_token":"SECRET-TOKEN-77","expires_in":7200}"#;
    let router = Router::new()
        .route("/cgi-bin/stable_token", axum::routing::post(async move || token))
        .fallback(async move || how());
    served(router).await
}

#[tokio::test]
async fn what_is_not_the_platforms_answer_is_taken_for_none() {
    let endless = || {
        let piece = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]));
        Body::from_stream(futures::stream::repeat_with(piece).take(1000)).into_response()
    };
    let cases: [(fn() -> Response, Trouble); 7] = [
        (|| Redirect::temporary("http://127.0.0.1:9/").into_response(), Trouble::Redirected),
        (|| "<html>captive portal</html>".into_response(), Trouble::NotUnderstood),
        (|| "[]".into_response(), Trouble::NotUnderstood),
        (|| "".into_response(), Trouble::NotUnderstood),
        (|| r#"{"errcode":0}"#.into_response(), Trouble::NotUnderstood),
        (|| axum::http::StatusCode::BAD_GATEWAY.into_response(), Trouble::Http(502)),
        (endless, Trouble::TooLarge),
    ];
    for (how, trouble) in cases {
        let replica = replica_at(&odd(how).await, 10);
        let error = replica.qr_code("counter-1", QrLife::Permanent).await.unwrap_err();
        assert_eq!((error.trouble(), error.code()), (trouble, None));
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let error = replica_at(&url, 10).qr_code("counter-1", QrLife::Permanent).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::NoConnection);
    assert!(!error.may_have_been_done());
}

#[tokio::test]
async fn media_are_measured_while_they_come_and_fetched_from_the_platform_only() {
    let endless: fn() -> Response = || {
        let piece = || Ok::<_, std::io::Error>(Bytes::from_static(&[7; 4096]));
        Body::from_stream(futures::stream::repeat_with(piece).take(1000)).into_response()
    };
    let download = replica_at(&odd(endless).await, 10).media("m", 10_000).await.unwrap();
    assert_eq!(download.whole().await.unwrap_err().trouble(), Trouble::TooLarge);
    for (how, trouble) in [
        ((|| "<html>".into_response()) as fn() -> Response, Trouble::NotUnderstood),
        (|| r#"{"video_url":"http://169.254.169.254/"}"#.into_response(), Trouble::ForeignHost),
        (|| r#"{"video_url":"http://127.0.0.1:1/v"}"#.into_response(), Trouble::ForeignHost),
        (|| r#"{"video_url":"https://evilqq.com/v"}"#.into_response(), Trouble::ForeignHost),
        (|| r#"{"video_url":"file:///etc/passwd"}"#.into_response(), Trouble::ForeignHost),
        (|| r#" {"errcode":40007,"errmsg":"invalid media_id"}"#.into_response(), Trouble::Media),
    ] {
        let error = replica_at(&odd(how).await, 10).media("m", 10_000).await.unwrap_err();
        assert_eq!(error.trouble(), trouble);
    }
}

#[tokio::test]
async fn no_error_and_no_debug_shows_a_token_a_secret_an_openid_or_words() {
    let mut shown = String::new();
    let citizen = Openid::new("oSECRET-OPENID-77");
    let words = CustomMessage::Text("SECRET-WORDS-77".to_owned());
    let fields = [Field::text("thing1", "SECRET-WORDS-77").unwrap()];
    let template =
        Template { to: &citizen, template_id: "TM-PROGRESS", link: None, fields: &fields };
    let told: fn() -> Response = || {
        let says =
            r#"{"errcode":40003,"errmsg":"invalid openid oSECRET-OPENID-77 SECRET-TOKEN-77"}"#;
        says.into_response()
    };
    let cases: [fn() -> Response; 4] = [
        told,
        || Redirect::temporary("http://127.0.0.1:9/").into_response(),
        || "oSECRET-OPENID-77".into_response(),
        || {
            let broken = async { Err::<Bytes, _>(std::io::Error::other("SECRET-TOKEN-77")) };
            Body::from_stream(futures::stream::once(broken)).into_response()
        },
    ];
    let mut errors: Vec<PlatformError> = Vec::new();
    for how in cases {
        let replica = replica_at(&odd(how).await, 10);
        let heard = Change::Acted(Act::Message, nine());
        replica.note(&citizen, heard, nine()).await.unwrap();
        errors.push(replica.send_custom(&citizen, &words, 0, nine()).await.unwrap_err());
        errors.push(replica.send_template(template, "outbox-1").await.unwrap_err());
        errors.push(replica.visitor("code").await.unwrap_err());
        errors.extend(replica.media("m", 10).await.err());
        shown.push_str(&format!("{replica:?}"));
    }
    assert!(errors.len() >= 15);
    for error in &errors {
        shown.push_str(&format!("{error} {error:?} {:?}\n", error.for_the_administrator()));
        assert!(std::error::Error::source(error).is_none(), "a cause may hold an address");
    }
    let token = Token::new("SECRET-TOKEN-77".into());
    let api = api("http://127.0.0.1:1");
    shown.push_str(&format!("{citizen:?} {words:?} {template:?} {token:?} {api:?}"));
    for secret in ["SECRET-", "SECRET-OPENID", SECRET, "access_token="] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn channel() -> Arc<WechatChannel> {
    let account = Account {
        id: "main".to_owned(),
        app_id: APP_ID.to_owned(),
        original_id: ORIGINAL_ID.to_owned(),
        token: TOKEN.into(),
        token_previous: None,
        encoding_aes_key: Some(KEY.into()),
        encoding_aes_key_previous: None,
        mode: Mode::Safe,
        timestamp_window_s: 600,
        api: None,
    };
    Arc::new(WechatChannel::new(account, Arc::new(|| Arc::new(ServiceWords::default()))).unwrap())
}

#[tokio::test]
async fn the_standin_delivers_three_times_with_one_id_and_new_signatures() {
    let manners = [Manner::Hangs, Manner::Fails, Manner::Answers(channel())];
    let world = World::with(Some(KEY), manners, Duration::from_millis(300)).await;
    // A message without words is answered with how to report.
    world.standin.act(world.citizen.as_str(), Does::Text(String::new())).await;
    let came = world.gateway.came.lock().unwrap().clone();
    assert_eq!(came.len(), 3);
    let key = intake_wechat::crypto::Key::parse(KEY).unwrap();
    let mut ids: Vec<String> = Vec::new();
    for (_, body) in &came {
        let xml = key.decrypt(element(body, "Encrypt"), APP_ID).unwrap();
        ids.push(Inbound::parse(&xml).unwrap().identity());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one message");
    let signed: std::collections::HashSet<_> = came.iter().map(|(query, _)| query).collect();
    assert_eq!(signed.len(), 3, "each signed anew");
    let [reply] = &world.shown(How::Passive)[..] else { panic!() };
    assert!(reply.contains("办事遇到困难"), "{reply}");
}

#[tokio::test]
async fn who_answers_wrongly_or_not_at_all_is_said_to_be_unavailable() {
    for (manner, deliveries) in [(Manner::Fails, 3), (Manner::Says(r#"{"ok":true}"#), 1)] {
        let world = World::with(Some(KEY), [manner], Duration::from_millis(300)).await;
        world.standin.act(world.citizen.as_str(), Does::Text("你好".to_owned())).await;
        assert_eq!(world.gateway.bodies().len(), deliveries);
        let [says] = &world.shown(How::System)[..] else { panic!() };
        assert!(says.contains("暂时无法提供服务"), "{says}");
    }
}

#[tokio::test]
async fn stable_tokens_stay_plain_ones_replace_each_other_and_force_is_rationed() {
    let world = World::new().await;
    let client = reqwest::Client::new();
    let url = format!("{}/cgi-bin", world.standin.url());
    let stable = async |force: bool| -> serde_json::Value {
        let ask = serde_json::json!({ "grant_type": "client_credential", "appid": APP_ID, "secret": SECRET, "force_refresh": force });
        let answer = client.post(format!("{url}/stable_token")).json(&ask).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let works = async |answer: &serde_json::Value| -> i64 {
        let token = answer["access_token"].as_str().unwrap();
        let asked = client.get(format!("{url}/getcallbackip?access_token={token}")).send().await;
        let said: serde_json::Value =
            serde_json::from_slice(&asked.unwrap().bytes().await.unwrap()).unwrap();
        said["errcode"].as_i64().unwrap_or(0)
    };
    let first = stable(false).await;
    world.later(TimeDelta::minutes(100));
    let same = stable(false).await;
    assert_eq!(
        (&same["access_token"], &same["expires_in"]),
        (&first["access_token"], &serde_json::json!(1200))
    );
    world.later(TimeDelta::minutes(16));
    let second = stable(false).await;
    assert_ne!(second["access_token"], first["access_token"]);
    assert_eq!((works(&first).await, works(&second).await), (0, 0), "both, around the change");
    world.later(TimeDelta::minutes(5));
    assert_eq!((works(&first).await, works(&second).await), (42_001, 0));
    let forced = stable(true).await;
    assert_eq!((works(&second).await, works(&forced).await), (40_001, 0));
    assert_eq!(stable(true).await["errcode"], 45_009);

    let plain = async || -> serde_json::Value {
        let query = format!("grant_type=client_credential&appid={APP_ID}&secret={SECRET}");
        client.get(format!("{url}/token?{query}")).send().await.unwrap().json().await.unwrap()
    };
    let (one, two) = (plain().await, plain().await);
    assert_eq!((works(&one).await, works(&two).await), (0, 0));
    world.later(TimeDelta::minutes(5));
    assert_eq!((works(&one).await, works(&two).await), (42_001, 0));
    assert_eq!(works(&forced).await, 0, "the two kinds leave each other alone");
}

#[tokio::test]
async fn what_allows_messages_is_read_from_the_callback() {
    let sender = Sender::new(TOKEN, None, APP_ID, ORIGINAL_ID);
    let at = nine().timestamp();
    let of = |msg_type: &str, fields: &[(&str, &str)], id: &str| {
        Change::of(&Inbound::parse(&sender.message("o1", msg_type, fields, id, at)).unwrap())
    };
    let message = Some(Change::Acted(Act::Message, nine()));
    let tap = Some(Change::Acted(Act::Tap, nine()));
    assert_eq!(of("text", &[("Content", "你好")], "1"), message);
    assert_eq!(of("image", &[("PicUrl", "x"), ("MediaId", "m")], "2"), message);
    assert_eq!(of("text", &[("Content", "满意"), ("bizmsgmenuid", "101")], "3"), tap);
    for (event, change) in [
        ("CLICK", tap),
        ("subscribe", tap),
        ("SCAN", tap),
        ("scancode_waitmsg", tap),
        ("unsubscribe", Some(Change::Closed)),
        ("VIEW", None),
        ("LOCATION", None),
        ("TEMPLATESENDJOBFINISH", None),
        ("subscribe_msg_popup_event", None),
    ] {
        assert_eq!(of("event", &[("Event", event)], ""), change, "{event}");
    }
}

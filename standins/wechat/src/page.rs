//! Being the citizen: a page without scripts.

use super::{
    Act, Shared,
    act::{self, Consent},
    multipart,
    state::{self, Entry, How, NOTICE, NOTICE_LONG_TERM, Visit},
};
use askama::Template;
use axum::{
    Form, Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use bytes::Bytes;
use chrono::{FixedOffset, TimeDelta};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// A page waits so long for what was done, so that mostly the reply is there when it comes.
const MOMENT: Duration = Duration::from_millis(1200);

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/citizen/{n}/say", post(say))
        .route("/citizen/{n}/photo", post(photo))
        .route("/citizen/{n}/act", post(do_it))
        .route("/switch", post(switch))
        // Other sites that a browser shows must not be able to act here.
        .layer(middleware::from_fn(from_here))
        .route("/", get(async || Redirect::to("/citizen/0")))
        .route("/citizen/{n}", get(citizen))
        .route("/talk/{n}", get(talk))
        .route("/file/{id}", get(picture))
        .route("/connect/oauth2/authorize", get(authorize))
        .route("/style.css", get(style))
}

async fn from_here(headers: HeaderMap, request: Request, next: Next) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let foreign = text(header::ORIGIN)
        .is_some_and(|origin| origin.split_once("://").map(|(_, of)| of) != Some(host));
    if foreign { StatusCode::FORBIDDEN.into_response() } else { next.run(request).await }
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../assets/style.css"))
        .into_response()
}

fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An entry of the menu: `key` for a tap, `url` for a page.
struct Item {
    name: String,
    key: String,
    url: String,
}

fn items(menu: &Value) -> Vec<(String, Vec<Item>)> {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let item = |value: &Value| Item {
        name: text(value, "name"),
        key: text(value, "key"),
        url: text(value, "url"),
    };
    let top = menu["button"].as_array().map(Vec::as_slice).unwrap_or_default();
    top.iter()
        .map(|entry| match entry["sub_button"].as_array() {
            Some(below) => (text(entry, "name"), below.iter().map(item).collect()),
            None => (String::new(), vec![item(entry)]),
        })
        .collect()
}

/// What an entry of the menu is called.
pub(crate) fn menu_name(menu: &Value, key: &str) -> Option<String> {
    items(menu).into_iter().flat_map(|(_, items)| items).find(|i| i.key == key).map(|i| i.name)
}

#[derive(Template)]
#[template(path = "citizen.html")]
struct CitizenPage {
    n: usize,
    name: &'static str,
    follows: bool,
    blocks: bool,
    citizens: Vec<&'static str>,
    menu: Vec<(String, Vec<Item>)>,
    scenes: Vec<String>,
    allowance: String,
    consents: u32,
    long_term: bool,
    switches: state::Switches,
    notice: &'static str,
    notice_long_term: &'static str,
    callback: String,
}

async fn citizen(State(shared): State<Arc<Shared>>, Path(n): Path<usize>) -> Response {
    let now = shared.now();
    let state = shared.state();
    let Some(citizen) = state.citizens.get(n) else { return StatusCode::NOT_FOUND.into_response() };
    let left = |grant: Option<state::Grant>| grant.filter(|g| g.until > now).map(|g| g.left);
    let allowance = match (left(citizen.by_message), left(citizen.by_tap)) {
        (None, None) => "现在不能给这位市民发客服消息".to_owned(),
        (message, tap) => {
            let message = message.map(|left| format!("48 小时内还能发 {left} 条客服消息"));
            let tap = tap.map(|left| format!("点菜单后 1 分钟内还能发 {left} 条"));
            [message, tap].into_iter().flatten().collect::<Vec<_>>().join("；")
        }
    };
    let consents = |template: &str| citizen.consents.get(template).copied().unwrap_or(0);
    page(&CitizenPage {
        n,
        name: citizen.name,
        follows: citizen.follows,
        blocks: citizen.blocks,
        citizens: state.citizens.iter().map(|citizen| citizen.name).collect(),
        menu: items(&state.menu),
        scenes: state
            .codes
            .iter()
            .filter(|(_, _, until)| until.is_none_or(|until| until > now))
            .map(|(_, scene, _)| scene.clone())
            .collect(),
        allowance,
        consents: consents(NOTICE),
        long_term: consents(NOTICE_LONG_TERM) > 0,
        switches: state.switches.clone(),
        notice: NOTICE,
        notice_long_term: NOTICE_LONG_TERM,
        callback: shared.settings.callback.clone(),
    })
}

struct Line {
    time: String,
    class: &'static str,
    label: &'static str,
    entry: Entry,
}

#[derive(Template)]
#[template(path = "talk.html")]
struct TalkPage {
    n: usize,
    lines: Vec<Line>,
}

fn line(entry: &Entry) -> Line {
    let (class, label) = match entry.how {
        How::Said => ("said", ""),
        How::Did => ("did", ""),
        How::Passive => ("reply", "被动回复"),
        How::Custom => ("reply", "客服消息"),
        How::Template => ("card", "模板消息"),
        How::Notice => ("card", "订阅通知"),
        How::System => ("system", "微信提示"),
    };
    let local = FixedOffset::east_opt(8 * 3600).map(|zone| entry.at.with_timezone(&zone));
    let time = local.map(|at| at.format("%-m月%-d日 %H:%M:%S").to_string()).unwrap_or_default();
    let mut entry = entry.clone();
    if entry.link.is_none() && !matches!(entry.how, How::Said | How::Did) {
        // As on a telephone, an address can be tapped.
        let address = |word: &str| word.find("http").map(|at| word[at..].to_owned());
        entry.link = entry.text.split_whitespace().find_map(address);
    }
    Line { time, class, label, entry }
}

async fn talk(State(shared): State<Arc<Shared>>, Path(n): Path<usize>) -> Response {
    let state = shared.state();
    let Some(citizen) = state.citizens.get(n) else { return StatusCode::NOT_FOUND.into_response() };
    // The newest first: the page shows them from below, and opens where the newest is.
    page(&TalkPage { n, lines: citizen.talk.iter().rev().map(line).collect() })
}

/// Does it, and goes back to the page; slow deliveries go on by themselves.
async fn perform(shared: Arc<Shared>, n: usize, act: Act) -> Response {
    let Some(openid) = shared.state().citizens.get(n).map(|citizen| citizen.openid.clone()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let after = match &act {
        Act::View(url) => url.clone(),
        _ => format!("/citizen/{n}"),
    };
    let mut doing = tokio::spawn(async move { act::act(&shared, &openid, act).await });
    let _ = tokio::time::timeout(MOMENT, &mut doing).await;
    Redirect::to(&after).into_response()
}

#[derive(Deserialize)]
struct Said {
    text: String,
}

async fn say(
    State(shared): State<Arc<Shared>>,
    Path(n): Path<usize>,
    Form(said): Form<Said>,
) -> Response {
    let text = said.text.replace("\r\n", "\n");
    if text.trim().is_empty() {
        return Redirect::to(&format!("/citizen/{n}")).into_response();
    }
    perform(shared, n, Act::Text(text)).await
}

async fn photo(
    State(shared): State<Arc<Shared>>,
    Path(n): Path<usize>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let file = multipart::part(content_type.unwrap_or_default(), &body, "photo");
    let photo = file.filter(|file| !file.is_empty()).map(Bytes::copy_from_slice);
    if photo
        .as_ref()
        .is_some_and(|p| !matches!(**p, [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, ..]))
    {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "只能发 JPEG 或 PNG 照片").into_response();
    }
    perform(shared, n, Act::Photo(photo)).await
}

#[derive(Deserialize)]
struct Doing {
    act: String,
    #[serde(default)]
    of: String,
    #[serde(default)]
    words: String,
}

async fn do_it(
    State(shared): State<Arc<Shared>>,
    Path(n): Path<usize>,
    Form(doing): Form<Doing>,
) -> Response {
    let follows = shared.state().citizens.get(n).is_some_and(|citizen| citizen.follows);
    let Doing { act, of, words } = doing;
    let act = match act.as_str() {
        "voice" => Act::Voice,
        "video" => Act::Video,
        "location" => Act::Location,
        "link" => Act::Link,
        "sticker" => Act::Sticker,
        "menu" => Act::Menu(of),
        "view" => Act::View(of),
        "choose" => Act::Choose(of, words),
        "follow" => Act::Follow(None),
        "unfollow" => Act::Unfollow,
        "scan" if follows => Act::Scan(of),
        "scan" => Act::Follow(Some(of)),
        "consent" => Act::Consent(of, Consent::Give),
        "decline" => Act::Consent(of, Consent::Decline),
        "revoke" => Act::Consent(of, Consent::Revoke),
        "block" => Act::Block(true),
        "unblock" => Act::Block(false),
        _ => return StatusCode::BAD_REQUEST.into_response(),
    };
    perform(shared, n, act).await
}

#[derive(Deserialize)]
struct Switch {
    which: String,
    back: usize,
}

async fn switch(State(shared): State<Arc<Shared>>, Form(switch): Form<Switch>) -> Response {
    let now = shared.now();
    match switch.which.as_str() {
        "tokens" => shared.state().expire_tokens(now),
        which => state::switch(&shared, |switches| {
            let flip = match which {
                "hangs" => &mut switches.hangs,
                "busy" => &mut switches.busy,
                "quota" => &mut switches.quota_reached,
                "address" => &mut switches.address_refused,
                _ => &mut switches.receipts_first,
            };
            *flip = !*flip;
        }),
    }
    Redirect::to(&format!("/citizen/{}", switch.back)).into_response()
}

async fn picture(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let state = shared.state();
    match state.media.get(&id) {
        Some(stored) => {
            let headers =
                [(header::CONTENT_TYPE, stored.mime), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            (headers, stored.bytes.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Template)]
#[template(path = "visit.html")]
struct VisitPage {
    ways: Vec<(&'static str, String)>,
}

/// §8: where a browser is asked who it is. WeChat knows; here one says it.
async fn authorize(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let now = shared.now();
    let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let redirect = reqwest::Url::parse(get("redirect_uri"));
    let Ok(redirect) = redirect else {
        return (StatusCode::BAD_REQUEST, "redirect_uri 参数错误").into_response();
    };
    if get("appid") != shared.settings.app_id || get("scope") != "snsapi_base" {
        return (StatusCode::BAD_REQUEST, "appid 或 scope 参数错误").into_response();
    }
    let mut state = shared.state();
    let people: Vec<_> = state.citizens.iter().map(|c| (c.name, c.openid.clone())).collect();
    let mut ways = Vec::new();
    for (name, openid) in people {
        let code = hex::encode(rand::random::<[u8; 16]>());
        let mut url = redirect.clone();
        url.query_pairs_mut().append_pair("code", &code).append_pair("state", get("state"));
        let until = now + TimeDelta::minutes(5);
        state.visits.insert(code, Visit { openid, until, used: false });
        ways.push((name, url.into()));
    }
    page(&VisitPage { ways })
}

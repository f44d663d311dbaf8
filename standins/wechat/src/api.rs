//! What the gateway calls (§5–§8). Errors come with HTTP 200, and as plain text.

use super::{
    Shared,
    act::{notice_receipt, report, template_receipt},
    multipart,
    state::{
        Entry, How, Issued, NOTICE, NOTICE_FIELDS, NOTICE_LONG_TERM, State, Stored, TEMPLATES,
    },
};
use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, State as Of},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

const BODY_LIMIT: usize = 20 * 1024 * 1024;
/// Both tokens are good for so long around a change.
const OVERLAP: TimeDelta = TimeDelta::minutes(5);
const TOKEN_LIVES: TimeDelta = TimeDelta::hours(2);

type Parameters = HashMap<String, String>;
/// What was asked for, or the platform's code.
type Answer = Result<Response, i64>;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/cgi-bin/{*path}", any(call))
        .route("/sns/oauth2/access_token", get(visitor))
        .route("/video/{id}", get(video))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

fn refusal(code: i64) -> Response {
    let says = match code {
        -1 => "system error",
        40_001 => "invalid credential, access_token is invalid or not latest",
        40_003 => "invalid openid",
        40_007 => "invalid media_id",
        40_013 => "invalid appid",
        40_037 => "invalid template_id",
        40_125 => "invalid appsecret",
        40_164 => "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist",
        41_001 => "access_token missing",
        42_001 => "access_token expired",
        43_004 => "require subscribe",
        43_101 => "user refuse to accept the msg",
        45_009 => "reach max api daily quota limit",
        45_015 => "response out of time limit or subscription is canceled",
        45_047 => "out of response count limit",
        47_003 => "argument invalid! data.thing1.value invalid",
        _ => "refused",
    };
    let rid = hex::encode(rand::random::<[u8; 8]>());
    let body = json!({ "errcode": code, "errmsg": format!("{says} rid: {rid}") }).to_string();
    ([(header::CONTENT_TYPE, "text/plain")], body).into_response()
}

fn answer(outcome: Answer) -> Response {
    outcome.unwrap_or_else(refusal)
}

fn done() -> Answer {
    Ok(Json(json!({ "errcode": 0, "errmsg": "ok" })).into_response())
}

/// Waits while the platform hangs, then says how it behaves.
async fn mood(shared: &Shared, path: &str) -> Result<(), i64> {
    *shared.state().calls.entry(path.to_owned()).or_default() += 1;
    {
        let mut hangs = shared.hangs.subscribe();
        let _ = hangs.wait_for(|hangs| !hangs).await;
    }
    let mut state = shared.state();
    let switches = &mut state.switches;
    match switches.next_codes.pop_front() {
        Some(0) => return Ok(()),
        Some(code) => return Err(code),
        None => {}
    }
    if switches.busy {
        return Err(-1);
    }
    if switches.address_refused {
        return Err(40_164);
    }
    Ok(())
}

async fn call(
    Of(shared): Of<Arc<Shared>>,
    Path(path): Path<String>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    answer(dispatch(&shared, &path, &query, &headers, body).await)
}

async fn dispatch(
    shared: &Arc<Shared>,
    path: &str,
    query: &Parameters,
    headers: &HeaderMap,
    body: Bytes,
) -> Answer {
    mood(shared, path).await?;
    let now = shared.now();
    let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let document = || serde_json::from_slice::<Value>(&body).map_err(|_| 47_001);
    match path {
        "stable_token" => return stable_token(shared, &document()?, now),
        "token" => return plain_token(shared, query, now),
        _ => shared.state().check_token(get("access_token"), now)?,
    }
    match path {
        "message/custom/send" => custom(shared, &document()?, now),
        "message/template/send" => template(shared, &document()?, now).await,
        "message/subscribe/bizsend" => notice(shared, &document()?, now).await,
        "media/get" => file(shared, get("media_id"), false, now),
        "media/get/jssdk" => file(shared, get("media_id"), true, now),
        "media/upload" => upload(shared, headers, &body, now),
        "menu/create" => {
            let menu = document()?;
            check_menu(&menu)?;
            shared.state().menu = menu;
            done()
        }
        "menu/get" => {
            let menu = shared.state().menu.clone();
            if menu.is_null() {
                Err(46_003)
            } else {
                Ok(Json(json!({ "menu": menu })).into_response())
            }
        }
        "qrcode/create" => qr_code(shared, &document()?, now),
        "getcallbackip" => {
            Ok(Json(json!({ "ip_list": ["127.0.0.1", "101.226.103.0/25"] })).into_response())
        }
        _ => Err(48_001),
    }
}

impl State {
    fn check_token(&self, token: &str, now: DateTime<Utc>) -> Result<(), i64> {
        if token.is_empty() {
            return Err(41_001);
        }
        match self.tokens.iter().find(|issued| issued.token == token) {
            Some(issued) if issued.killed => Err(40_001),
            Some(issued) if issued.until <= now => Err(42_001),
            Some(_) => Ok(()),
            None => Err(40_001),
        }
    }

    fn issue(&mut self, stable: bool, now: DateTime<Utc>) -> Response {
        let token = format!("{}_{}", rand::random::<u8>(), hex::encode(rand::random::<[u8; 64]>()));
        let until = now + TOKEN_LIVES;
        self.tokens.push(Issued { token: token.clone(), until, stable, killed: false });
        Json(json!({ "access_token": token, "expires_in": TOKEN_LIVES.num_seconds() }))
            .into_response()
    }
}

fn stable_token(shared: &Shared, ask: &Value, now: DateTime<Utc>) -> Answer {
    if ask["grant_type"] != "client_credential" {
        return Err(40_002);
    }
    if ask["appid"] != shared.settings.app_id {
        return Err(40_013);
    }
    if ask["secret"] != shared.settings.secret {
        return Err(40_125);
    }
    let mut state = shared.state();
    if ask["force_refresh"] == true {
        state.forced.retain(|at| *at + TimeDelta::days(1) > now);
        let last = state.forced.last();
        if state.forced.len() >= 20 || last.is_some_and(|at| now - *at < TimeDelta::seconds(30)) {
            return Err(45_009);
        }
        state.forced.push(now);
        for token in state.tokens.iter_mut().filter(|token| token.stable) {
            token.killed = true;
        }
        return Ok(state.issue(true, now));
    }
    // The same until five minutes before its end; then a new one, beside which it lives out.
    let current = state
        .tokens
        .iter()
        .rfind(|token| token.stable && !token.killed && token.until - now > OVERLAP);
    match current {
        Some(current) => {
            let left = (current.until - now).num_seconds();
            Ok(Json(json!({ "access_token": current.token, "expires_in": left })).into_response())
        }
        None => Ok(state.issue(true, now)),
    }
}

/// The older call: every answer ends the token before it, five minutes later.
fn plain_token(shared: &Shared, query: &Parameters, now: DateTime<Utc>) -> Answer {
    let is = |name: &str, value: &str| query.get(name).is_some_and(|given| given == value);
    if !is("appid", &shared.settings.app_id) {
        return Err(40_013);
    }
    if !is("secret", &shared.settings.secret) {
        return Err(40_125);
    }
    let mut state = shared.state();
    for token in state.tokens.iter_mut().filter(|token| !token.stable) {
        token.until = token.until.min(now + OVERLAP);
    }
    Ok(state.issue(false, now))
}

fn field<'a>(document: &'a Value, name: &str) -> &'a str {
    document[name].as_str().unwrap_or_default()
}

fn custom(shared: &Shared, message: &Value, now: DateTime<Utc>) -> Answer {
    let to = field(message, "touser");
    let mut state = shared.state();
    if state.switches.quota_reached {
        return Err(45_009);
    }
    state.citizen(to).ok_or(40_003)?;
    let mut entry = Entry::new(now, How::Custom, "");
    match field(message, "msgtype") {
        "text" => {
            let content = field(&message["text"], "content");
            match content.len() {
                0 => return Err(44_004),
                2049.. => return Err(45_002),
                _ => content.clone_into(&mut entry.text),
            }
        }
        "image" => {
            let id = field(&message["image"], "media_id");
            state.file(id, now).ok_or(40_007)?;
            "[图片]".clone_into(&mut entry.text);
            entry.picture = Some(id.to_owned());
        }
        "msgmenu" => {
            let menu = &message["msgmenu"];
            field(menu, "head_content").clone_into(&mut entry.text);
            let list = menu["list"].as_array().ok_or(47_001)?;
            let option = |o: &Value| (field(o, "id").to_owned(), field(o, "content").to_owned());
            entry.options = list.iter().map(option).collect();
        }
        _ => return Err(40_008),
    }
    state.take(to, now)?;
    let citizen = state.citizen(to).ok_or(40_003)?;
    citizen.talk.push(entry);
    done()
}

/// Every field there, and of its kind (§6.2).
fn check_fields(data: &Value, fields: &[&str]) -> Result<Vec<String>, i64> {
    let mut lines = Vec::new();
    for name in fields {
        let value = field(&data[*name], "value");
        let length = value.chars().count();
        let fits = match name.trim_end_matches(char::is_numeric) {
            "thing" => length <= 20,
            "phrase" => length <= 5 && value.chars().all(|c| !c.is_ascii()),
            "character_string" => length <= 32 && value.is_ascii(),
            "time" => value.contains(':') && value.chars().any(|c| c.is_ascii_digit()),
            _ => true,
        };
        if length == 0 || !fits || value.contains('\n') {
            return Err(47_003);
        }
        lines.push(value.to_owned());
    }
    let known = data.as_object().map_or(0, serde_json::Map::len);
    if known == fields.len() { Ok(lines) } else { Err(47_003) }
}

fn shown(message: &Value, how: How, lines: &[String], now: DateTime<Utc>) -> Entry {
    let link = [field(message, "url"), field(message, "page")].into_iter().find(|l| !l.is_empty());
    Entry { link: link.map(str::to_owned), ..Entry::new(now, how, lines.join("\n")) }
}

/// Sends the receipt before the answer, or behind it: the platform does both.
async fn report_around(
    shared: &Arc<Shared>,
    msg_id: u64,
    to: &str,
    event: &'static str,
    fields: String,
) {
    let first = shared.state().switches.receipts_first || msg_id.is_multiple_of(2);
    if first {
        report(shared, to, event, &fields).await;
        return;
    }
    let (shared, to) = (Arc::clone(shared), to.to_owned());
    tokio::spawn(async move { report(&shared, &to, event, &fields).await });
}

async fn template(shared: &Arc<Shared>, message: &Value, now: DateTime<Utc>) -> Answer {
    let to = field(message, "touser");
    let (msg_id, status) = {
        let mut state = shared.state();
        if state.switches.quota_reached {
            return Err(45_009);
        }
        if !state.citizen(to).ok_or(40_003)?.follows {
            return Err(43_004);
        }
        let id = field(message, "template_id");
        let (_, fields) = TEMPLATES.iter().find(|(known, _)| *known == id).ok_or(40_037)?;
        let lines = check_fields(&message["data"], fields)?;
        let client_id = field(message, "client_msg_id").to_owned();
        let key = (to.to_owned(), client_id.clone());
        if let Some((msg_id, at)) = state.sent.get(&key)
            && !client_id.is_empty()
            && now - *at < TimeDelta::minutes(10)
        {
            // The same message: it is not shown again, and has had its receipt.
            return Ok(
                Json(json!({ "errcode": 0, "errmsg": "ok", "msgid": msg_id })).into_response()
            );
        }
        let msg_id = state.id();
        state.sent.insert(key, (msg_id, now));
        let citizen = state.citizen(to).ok_or(40_003)?;
        if citizen.blocks {
            (msg_id, "failed:user block")
        } else {
            citizen.talk.push(shown(message, How::Template, &lines, now));
            (msg_id, "success")
        }
    };
    report_around(shared, msg_id, to, "TEMPLATESENDJOBFINISH", template_receipt(msg_id, status))
        .await;
    Ok(Json(json!({ "errcode": 0, "errmsg": "ok", "msgid": msg_id })).into_response())
}

async fn notice(shared: &Arc<Shared>, message: &Value, now: DateTime<Utc>) -> Answer {
    let to = field(message, "touser");
    let template = field(message, "template_id");
    let msg_id = {
        let mut state = shared.state();
        if state.switches.quota_reached {
            return Err(45_009);
        }
        let citizen = state.citizen(to).ok_or(40_003)?;
        if template != NOTICE && template != NOTICE_LONG_TERM {
            return Err(40_037);
        }
        let lines = check_fields(&message["data"], NOTICE_FIELDS)?;
        let left = citizen.consents.get_mut(template).filter(|left| **left > 0).ok_or(43_101)?;
        if template == NOTICE {
            *left -= 1;
        }
        citizen.talk.push(shown(message, How::Notice, &lines, now));
        state.id()
    };
    let fields = notice_receipt(msg_id, template, 0, "success");
    report_around(shared, msg_id, to, "subscribe_msg_sent_event", fields).await;
    Ok(Json(json!({ "errcode": 0, "errmsg": "ok", "msgid": msg_id })).into_response())
}

/// A file; `of_a_page`: what the JS-SDK uploaded, which has a call of its own (§7).
fn file(shared: &Shared, id: &str, of_a_page: bool, now: DateTime<Utc>) -> Answer {
    let state = shared.state();
    let right = |stored: &&Stored| (stored.mime == "voice/speex") == of_a_page;
    let stored = state.file(id, now).filter(right).ok_or(40_007)?;
    if stored.mime == "video/mp4" {
        let url = format!("{}/video/{id}", shared.url);
        return Ok((
            [(header::CONTENT_TYPE, "text/plain")],
            json!({ "video_url": url }).to_string(),
        )
            .into_response());
    }
    let headers = [
        (header::CONTENT_TYPE, stored.mime.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", stored.name)),
    ];
    Ok((headers, Body::from(stored.bytes.clone())).into_response())
}

async fn video(Of(shared): Of<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let now = shared.now();
    let state = shared.state();
    match state.file(&id, now) {
        Some(stored) => {
            ([(header::CONTENT_TYPE, stored.mime)], stored.bytes.clone()).into_response()
        }
        None => axum::http::StatusCode::NOT_FOUND.into_response(),
    }
}

fn upload(shared: &Shared, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Answer {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let file = multipart::part(content_type.unwrap_or_default(), body, "media").ok_or(41_005)?;
    let mime = match file {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, ..] => "image/jpeg",
        _ => return Err(40_005),
    };
    let id = shared.state().keep(mime, "picture", Bytes::copy_from_slice(file), now);
    Ok(Json(json!({ "type": "image", "media_id": id, "created_at": now.timestamp() }))
        .into_response())
}

/// The limits of §8.
fn check_menu(menu: &Value) -> Result<(), i64> {
    let top = menu["button"].as_array().ok_or(40_016)?;
    if !(1..=3).contains(&top.len()) {
        return Err(40_016);
    }
    for button in top {
        let below = button["sub_button"].as_array();
        if !(1..=16).contains(&field(button, "name").len()) {
            return Err(40_018);
        }
        let Some(below) = below else {
            check_button(button)?;
            continue;
        };
        if !(1..=5).contains(&below.len()) {
            return Err(40_023);
        }
        for button in below {
            if !(1..=60).contains(&field(button, "name").len()) {
                return Err(40_025);
            }
            check_button(button)?;
        }
    }
    Ok(())
}

fn check_button(button: &Value) -> Result<(), i64> {
    match field(button, "type") {
        "click" if (1..=128).contains(&field(button, "key").len()) => Ok(()),
        "click" => Err(40_019),
        "view" if (1..=1024).contains(&field(button, "url").len()) => Ok(()),
        "view" => Err(40_020),
        _ => Err(40_017),
    }
}

fn qr_code(shared: &Shared, ask: &Value, now: DateTime<Utc>) -> Answer {
    let scene = field(&ask["action_info"]["scene"], "scene_str");
    if !(1..=64).contains(&scene.len()) {
        return Err(40_053);
    }
    let until = match (field(ask, "action_name"), ask["expire_seconds"].as_i64()) {
        ("QR_LIMIT_STR_SCENE", _) => None,
        ("QR_STR_SCENE", Some(seconds @ 1..=2_592_000)) => Some(now + TimeDelta::seconds(seconds)),
        _ => return Err(40_053),
    };
    let ticket = hex::encode(rand::random::<[u8; 24]>());
    let url = format!("http://weixin.qq.com/q/{}", &ticket[..12]);
    let seconds = until.map(|until| (until - now).num_seconds());
    shared.state().codes.push((ticket.clone(), scene.to_owned(), until));
    Ok(Json(json!({ "ticket": ticket, "expire_seconds": seconds, "url": url })).into_response())
}

/// §8: a code is good once.
async fn visitor(Of(shared): Of<Arc<Shared>>, Query(query): Query<Parameters>) -> Response {
    let outcome = async {
        mood(&shared, "sns/oauth2/access_token").await?;
        let is = |name: &str, value: &str| query.get(name).is_some_and(|given| given == value);
        if !is("appid", &shared.settings.app_id) {
            return Err(40_013);
        }
        if !is("secret", &shared.settings.secret) {
            return Err(40_125);
        }
        let now = shared.now();
        let mut state = shared.state();
        let code = query.get("code").ok_or(41_008)?;
        let visit = state.visits.get_mut(code).filter(|visit| visit.until > now).ok_or(40_029)?;
        if std::mem::replace(&mut visit.used, true) {
            return Err(40_163);
        }
        let token = hex::encode(rand::random::<[u8; 16]>());
        let mut visitor = json!({
            "access_token": token,
            "expires_in": 7200,
            "openid": visit.openid,
            "scope": "snsapi_base",
        });
        if state.switches.snapshot_users {
            visitor["openid"] = json!(format!("o{}", hex::encode(rand::random::<[u8; 13]>())));
            visitor["is_snapshotuser"] = json!(1);
        }
        Ok(Json(visitor).into_response())
    };
    answer(outcome.await)
}

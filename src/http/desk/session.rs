//! Logging in and out; who is behind a request (S21, S22, S23).

use super::{Failure, assets, html};
use crate::{
    http::{Shared, serve::Peer},
    secret,
    store::{
        self,
        access::{Attempt, Candidate, Session},
    },
};
use askama::Template;
use axum::{
    Form,
    extract::{Extension, FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use chrono::TimeDelta;
use serde::Deserialize;

/// Who is logged in.
pub(super) struct LoggedIn(pub(super) Session);

impl FromRequestParts<Shared> for LoggedIn {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Failure> {
        let token = cookie(&parts.headers, app).ok_or(Failure::NotLoggedIn)?;
        let digest = secret::digest(token);
        let now = app.clock.now();
        let idle_since = now - TimeDelta::minutes(app.desk.session_idle_min);
        let opened_since = now - TimeDelta::hours(app.desk.session_h);
        let mut db = app.pool.acquire().await?;
        let session = store::access::session(&mut db, &digest, idle_since, opened_since)
            .await?
            .ok_or(Failure::NotLoggedIn)?;
        // A page that refreshes itself is no sign that anybody sits before it. Once a minute is
        // enough to know that somebody does.
        if !unattended(parts) && now - session.seen_at > TimeDelta::minutes(1) {
            store::access::seen(&mut db, &digest, now).await?;
        }
        Ok(Self(session))
    }
}

/// Whether a page's script asks by itself, without a hand on it: it says so in a header, and where
/// it cannot send one, by where it asks.
fn unattended(parts: &Parts) -> bool {
    is_unattended(&parts.headers) || parts.uri.path() == "/desk/live"
}

/// Whether a request says so.
pub(super) fn is_unattended(headers: &HeaderMap) -> bool {
    headers.contains_key("x-unattended")
}

impl Session {
    /// Checks that a form came from a page of this session.
    pub(super) fn check_form(&self, csrf: &str) -> Result<(), Failure> {
        if secret::same(csrf, &self.csrf) { Ok(()) } else { Err(Failure::stale_form()) }
    }
}

fn cookie_name(app: &Shared) -> &'static str {
    // With the prefix browsers refuse it without TLS, from a subdomain, or for a path.
    if app.desk.insecure_cookie { "desk" } else { "__Host-desk" }
}

fn cookie<'a>(headers: &'a HeaderMap, app: &Shared) -> Option<&'a str> {
    let name = cookie_name(app);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn set_cookie(app: &Shared, token: &str, seconds: i64) -> Option<HeaderValue> {
    let secure = if app.desk.insecure_cookie { "" } else { "; Secure" };
    let name = cookie_name(app);
    HeaderValue::from_str(&format!(
        "{name}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}"
    ))
    .ok()
}

#[derive(Template)]
#[template(path = "desk/login.html")]
struct LoginPage {
    css: &'static str,
    login: String,
    error: Option<String>,
}

fn page(status: StatusCode, login: String, error: Option<String>) -> Response {
    let mut response = html(&LoginPage { css: assets::css(), login, error });
    *response.status_mut() = status;
    response
}

pub(super) async fn login_page() -> Response {
    page(StatusCode::OK, String::new(), None)
}

#[derive(Deserialize)]
pub(super) struct LoginForm {
    login: String,
    password: String,
}

pub(super) async fn login(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<Response, Failure> {
    if !same_site(&headers) {
        return Err(Failure::stale_form());
    }
    let login = form.login.trim().to_lowercase();
    // Names that nobody can have would only fill the table of attempts.
    if !could_be_login(&login) || form.password.len() > 256 {
        return Ok(page(StatusCode::UNAUTHORIZED, String::new(), Some(wrong())));
    }
    let address = peer.address.to_string();
    let now = app.clock.now();
    let allowed = app.desk.failures;
    let (candidate, locks) = {
        let lock_until = now + TimeDelta::minutes(app.desk.lock_min);
        let mut db = app.pool.acquire().await?;
        match store::access::attempt(&mut db, &login, &address, now, allowed, lock_until).await? {
            Attempt::Locked { until } => {
                tracing::info!("a login was refused: too many attempts");
                let says = format!(
                    "密码输错次数太多，请 {} 分钟后再试，或请管理员重设密码。",
                    minutes_up(until - now)
                );
                return Ok(page(StatusCode::TOO_MANY_REQUESTS, login, Some(says)));
            }
            Attempt::Counted { locks } => (store::access::candidate(&mut db, &login).await?, locks),
        }
    };
    let stored = candidate.as_ref().map(|candidate| candidate.password_hash.clone());
    let fits = secret::password_fits(form.password, stored).await;
    let mut db = app.pool.acquire().await?;
    let Ok(fits) = fits else {
        store::access::uncount(&mut db, &login, &address, allowed).await?;
        let says = "现在登录的人太多，请过几秒再试。".to_owned();
        return Ok(page(StatusCode::SERVICE_UNAVAILABLE, login, Some(says)));
    };
    let token = match candidate.filter(|_| fits) {
        Some(candidate) => open(&mut db, &candidate, now).await?,
        None => None,
    };
    let Some(token) = token else {
        tracing::info!(locks, "a login failed");
        return Ok(page(StatusCode::UNAUTHORIZED, login, Some(wrong())));
    };
    store::access::succeeded(&mut db, &login, &address).await?;
    let mut response = Redirect::to("/desk").into_response();
    if let Some(cookie) = set_cookie(&app, &token, app.desk.session_h * 3600) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The names that the staff's table allows.
fn could_be_login(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase();
    let bytes = text.as_bytes();
    (2..=32).contains(&bytes.len())
        && letter(bytes[0])
        && bytes.iter().all(|b| letter(*b) || b.is_ascii_digit() || b"._-".contains(b))
}

/// Whole minutes, upwards: who comes again then finds the door open.
fn minutes_up(left: TimeDelta) -> i64 {
    (left.num_milliseconds() + 59_999).div_euclid(60_000).max(1)
}

/// A session's token; none when the person was locked out, or got another password, meanwhile.
async fn open(
    db: &mut sqlx::PgConnection,
    candidate: &Candidate,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Option<String>, Failure> {
    let token = secret::token();
    let csrf = secret::token();
    let opened =
        store::access::open_session(db, candidate, &secret::digest(&token), &csrf, now).await?;
    Ok(opened.then_some(token))
}

/// The same words for a wrong name and a wrong password.
fn wrong() -> String {
    "账号或密码不对，请检查后再试。".to_owned()
}

/// A form of another site may not log anybody in here.
fn same_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return false;
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, from)| from == host)
        }
        _ => true,
    }
}

#[derive(Deserialize)]
pub(super) struct Csrf {
    pub(super) csrf: String,
}

pub(super) async fn logout(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    headers: HeaderMap,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    session.check_form(&form.csrf)?;
    if let Some(token) = cookie(&headers, &app) {
        let mut db = app.pool.acquire().await?;
        store::access::close_session(&mut db, &secret::digest(token)).await?;
    }
    let mut response = Redirect::to("/desk/login").into_response();
    if let Some(gone) = set_cookie(&app, "", 0) {
        response.headers_mut().insert(header::SET_COOKIE, gone);
    }
    Ok(response)
}

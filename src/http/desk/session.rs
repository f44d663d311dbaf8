//! Logging in and out; who is behind a request (S21, S22, S23).

use super::{Failure, assets, html};
use crate::{
    http::{Shared, serve::Peer},
    secret,
    store::{
        self,
        access::{Candidate, Session},
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
        // Live pages look every few seconds; once a minute is enough to know that it is in use.
        if now - session.seen_at > TimeDelta::minutes(1) {
            store::access::seen(&mut db, &digest, now).await?;
        }
        Ok(Self(session))
    }
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
    // Names are short; longer ones would only fill the table of failures.
    if login.len() > 32 || form.password.len() > 256 {
        return Ok(page(StatusCode::UNAUTHORIZED, String::new(), Some(wrong())));
    }
    let address = peer.address.to_string();
    let now = app.clock.now();
    let candidate = {
        let mut db = app.pool.acquire().await?;
        if let Some(until) = store::access::locked_until(&mut db, &login, &address, now).await? {
            let minutes = (until - now).num_seconds().div_euclid(60).max(1);
            let says = format!("密码输错次数太多，请 {minutes} 分钟后再试，或请管理员重设密码。");
            return Ok(page(StatusCode::TOO_MANY_REQUESTS, login, Some(says)));
        }
        store::access::candidate(&mut db, &login).await?
    };
    let stored = candidate.as_ref().map(|candidate| candidate.password_hash.clone());
    let fits = secret::password_fits(form.password, stored).await;
    let mut db = app.pool.acquire().await?;
    let Some(candidate) = candidate.filter(|_| fits) else {
        let lock_until = now + TimeDelta::minutes(app.desk.lock_min);
        let allowed = app.desk.failures;
        let locked =
            store::access::failed(&mut db, &login, &address, now, allowed, lock_until).await?;
        tracing::info!(locked, "a login failed");
        return Ok(page(StatusCode::UNAUTHORIZED, login, Some(wrong())));
    };
    store::access::succeeded(&mut db, &login, &address).await?;
    let token = open(&mut db, &candidate, now).await?;
    let mut response = Redirect::to("/desk").into_response();
    if let Some(cookie) = set_cookie(&app, &token, app.desk.session_h * 3600) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn open(
    db: &mut sqlx::PgConnection,
    candidate: &Candidate,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<String, Failure> {
    let token = secret::token();
    store::access::open_session(db, candidate, &secret::digest(&token), &secret::token(), now)
        .await?;
    Ok(token)
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

//! The citizens' pages (PAGES.md): one column, plain words, no script. A link opens one ticket; who
//! has none finds it by number and telephone, or comes from the account's menu.

mod assets;
mod find;
mod forms;
mod more;
mod page;
mod trail;
mod wechat;
mod words;

use super::{Shared, channels, serve::Peer};
use crate::{
    citizen::{self, token::Links},
    config,
    domain::{id::OfficeId, register::RegisterNumber},
    offices::Office,
    store::{self, StoreError},
};
use askama::Template;
use axum::{
    Form, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// What the pages stand on.
pub struct Pages {
    /// Makes and opens links to tickets.
    pub links: Arc<Links>,
    settings: config::Citizen,
    uploading: Uploading,
}

/// Uploads are read into memory: so many at a time, and one of a ticket, so that nobody takes all the
/// seats with one link and a slow telephone.
struct Uploading {
    seats: usize,
    taken: Mutex<HashSet<(OfficeId, RegisterNumber)>>,
}

/// A seat, until it is dropped.
struct Seat<'a>(&'a Uploading, (OfficeId, RegisterNumber));

impl Uploading {
    fn seat(&self, of: (OfficeId, RegisterNumber)) -> Option<Seat<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.len() < self.seats && taken.insert(of)).then_some(Seat(self, of))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Pages {
    /// With these links and settings.
    #[must_use]
    pub fn new(links: Arc<Links>, settings: config::Citizen) -> Self {
        let uploading = Uploading { seats: settings.uploads, taken: Mutex::default() };
        Self { links, settings, uploading }
    }
}

/// What a text is sent with: 500 characters, each nine bytes as a browser encodes Chinese.
const SHORT_FORM: usize = 16 * 1024;

/// The pages and short forms.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/c", get(find::page).post(find::find))
        .route("/c/wechat/{account}", get(wechat::list))
        .route("/c/assets/{name}", get(assets::serve))
        .route("/c/{token}", get(page::page))
        .route("/c/{token}/more", get(more::page))
        .route("/c/{token}/evaluate", get(forms::evaluate_page).post(forms::evaluate))
        .route("/c/{token}/withdraw", get(forms::withdraw_page).post(forms::withdraw))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::map_response(async |response| discreet(response)))
}

/// What may take longer than other requests: a slow telephone sends photos.
pub fn uploads() -> Router<Shared> {
    Router::new()
        .route("/c/{token}/more", post(more::send))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::map_response(async |response| discreet(response)))
}

/// The address opens the ticket: it goes to no other site, into no store and into no index.
fn discreet(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex, nofollow"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Puts a refusal of the framework into words; its headers stay.
pub fn restated(refusal: Response) -> Response {
    let (mut head, _) = refusal.into_parts();
    let (page, body) = discreet(Failure::of_status(head.status).into_response()).into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(page.headers);
    Response::from_parts(head, body)
}

/// A page, or what to say when it cannot be rendered.
fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// How to reach a person.
struct Contact {
    office: String,
    hours: String,
    phone: Option<String>,
}

impl Contact {
    fn of(office: &Office, now: DateTime<Utc>) -> Self {
        Self {
            office: office.name.clone(),
            hours: office.calendar.hours_said(crate::wording::day_of(now)),
            phone: office.policy.phone.clone(),
        }
    }

    fn css(&self) -> &'static str {
        assets::css()
    }
}

/// A link of somebody who holds it: which ticket, and the token to go on with.
struct Opened {
    office: Arc<Office>,
    ticket: RegisterNumber,
    token: String,
}

impl Opened {
    fn number(&self) -> String {
        self.ticket.display(&self.office.prefix)
    }

    /// Back to the ticket, which says what was done.
    fn done(&self, what: &str) -> Response {
        let done = if what.is_empty() { String::new() } else { format!("?done={what}") };
        Redirect::to(&format!("/c/{}{done}", self.token)).into_response()
    }
}

impl FromRequestParts<Shared> for Opened {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Failure> {
        let Path(token) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| Failure::no_link())?;
        let opened =
            app.citizen.links.open(&token, app.clock.now()).ok_or_else(Failure::no_link)?;
        let mut db = app.pool.acquire().await?;
        if citizen::is_revoked(&mut db, &opened).await? {
            return Err(Failure::no_link());
        }
        Ok(Self { office: opened.office, ticket: opened.ticket, token })
    }
}

/// A link whose holder sends a form: from this site, and not too often. Nothing of the form has been
/// read yet.
struct Sending(Opened);

impl FromRequestParts<Shared> for Sending {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Failure> {
        let opened = Opened::from_request_parts(parts, app).await?;
        if !same_site(&parts.headers) {
            return Err(Failure::foreign_form());
        }
        let now = app.clock.now();
        let mut db = app.pool.acquire().await?;
        let who = format!("posts:{}", opened.ticket.as_i64());
        let allowed = app.citizen.settings.posts_per_h;
        match attempt(&mut db, opened.office.id, &who, allowed, now).await? {
            Some(since) => Err(Failure::too_often(since, now)),
            None => Ok(Self(opened)),
        }
    }
}

/// Counts an attempt; says since when, once there were more than `allowed` within the hour.
async fn attempt(
    db: &mut sqlx::PgConnection,
    office: OfficeId,
    who: &str,
    allowed: i32,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let hour = now - TimeDelta::hours(1);
    store::citizen::attempt(db, office, who, (1, allowed), now, hour).await
}

/// A form of another site may do nothing here. The secret in the address vouches already; browsers
/// that hide where they come from (these pages ask them to) say so in `Sec-Fetch-Site`, older ones
/// not at all.
fn same_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    match (text("origin"), text("host")) {
        (Some("null"), _) | (None, _) => true,
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, from)| from == host)
        }
        (Some(_), None) => false,
    }
}

/// A short form, read whole within its size and time (S07, S08).
struct Short<T>(T);

impl<T: DeserializeOwned> FromRequest<Shared> for Short<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Failure> {
        let within =
            request.extensions().get::<Peer>().map_or(app.answer_within, |peer| peer.body_timeout);
        let (head, body) = request.into_parts();
        let body = channels::read(body, SHORT_FORM, within).await.map_err(|refusal| {
            Failure::of_status(StatusCode::from_u16(refusal.status).unwrap_or_default())
        })?;
        let request = Request::from_parts(head, Body::from(body));
        let form = Form::<T>::from_request(request, app).await;
        form.map(|Form(form)| Self(form)).map_err(|_| Failure::of_status(StatusCode::BAD_REQUEST))
    }
}

/// The parameters of a page, whatever else an app appends to its address.
type Query = axum::extract::Query<BTreeMap<String, String>>;

/// After a commit: the desk shows it, the relay tells it, its words are found.
fn committed(app: &Shared, office: OfficeId, urgent: bool) {
    app.live.changed(office);
    app.search.wake();
    app.fetcher.wake();
    if urgent {
        app.relay.wake_now();
    } else {
        app.relay.wake();
    }
}

/// Why a page is not shown, in words for the citizen.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    title: &'static str,
    text: String,
    /// The way on, where there is one at once: its words and its address.
    way: Option<(&'static str, &'static str)>,
    /// In seconds.
    retry_after: Option<i64>,
}

impl Failure {
    fn says(status: StatusCode, title: &'static str, text: impl Into<String>) -> Self {
        let way = Some(("按编号查找", "/c"));
        Self { status, title, text: text.into(), way, retry_after: None }
    }

    /// Never made, over, revoked: nobody learns which.
    fn no_link() -> Self {
        Self::says(
            StatusCode::NOT_FOUND,
            "这个链接打不开了",
            "链接可能过期了，或者没有复制完整。不影响您反映的事情。可以用登记编号和电话后四位查找；在微信里反映的，请从公众号菜单重新打开。",
        )
    }

    fn foreign_form() -> Self {
        Self::says(
            StatusCode::FORBIDDEN,
            "这次没有提交",
            "为了安全，只能在本页面里提交。请重新打开您的链接，再试一次。",
        )
    }

    fn too_often(since: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        let left = (since + TimeDelta::hours(1) - now).num_seconds().max(1);
        let text = format!(
            "操作次数太多了，请 {} 分钟后再试。着急的话，请拨打窗口电话或 12333。",
            (left + 59) / 60
        );
        let failure = Self::says(StatusCode::TOO_MANY_REQUESTS, "请稍后再试", text);
        Self { way: None, retry_after: Some(left), ..failure }
    }

    fn busy() -> Self {
        let failure = Self::says(
            StatusCode::SERVICE_UNAVAILABLE,
            "现在有点忙",
            "刚才的操作没有完成。请过半分钟，返回上一页再试一次，写好的内容还在。",
        );
        Self { way: None, retry_after: Some(30), ..failure }
    }

    /// What a bare status means, and what to do.
    fn of_status(status: StatusCode) -> Self {
        let (title, text) = match status {
            StatusCode::NOT_FOUND => {
                ("没有这一页", "地址可能没有复制完整。可以用登记编号和电话后四位查找您的反映。")
            }
            StatusCode::PAYLOAD_TOO_LARGE => (
                "内容太大",
                "这次没有收到。照片和文件一次最多 6 个，每个不超过 10 兆，加起来不超过 24 兆；文字不超过 2000 字。请返回上一页，分几次发送。",
            ),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("这种文件收不了", "请发送照片（JPG、PNG）或 PDF 文件。请返回上一页重新选择。")
            }
            StatusCode::REQUEST_TIMEOUT => (
                "网络太慢",
                "这次没有收到：内容没有在规定时间内传完。请换到信号好的地方，返回上一页再试一次。",
            ),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("不能这样打开", "这个地址只能通过页面上的按钮使用。请重新打开您的链接。")
            }
            status if status.is_server_error() => return Self { status, ..Self::busy() },
            _ => (
                "没有看懂这次提交",
                "这次没有收到：内容不完整，或者含有不能用的字符。请返回上一页，刷新后再试一次。",
            ),
        };
        Self::says(status, title, text)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_bad_input() {
            return Self::of_status(StatusCode::BAD_REQUEST);
        }
        tracing::error!(error = %crate::telemetry::causes(&error), "a citizen's page failed in the database");
        Self::busy()
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

#[derive(Template)]
#[template(path = "citizen/failure.html")]
struct FailurePage {
    title: &'static str,
    text: String,
    css: &'static str,
    way: Option<(&'static str, &'static str)>,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, title, text, way, retry_after } = self;
        let mut response = html(status, &FailurePage { title, text, css: assets::css(), way });
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

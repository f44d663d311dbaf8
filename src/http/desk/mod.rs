//! The staff's pages (PAGES.md): rendered here, complete without scripts; scripts only add live
//! changes and keys.

mod acts;
mod assets;
mod call_back;
mod counts;
mod hold;
mod media;
mod notices;
mod phone;
mod quarantine;
mod queue;
mod register;
mod replies;
mod session;
mod story;
mod ticket;

pub use counts::Tallies;

use super::{Shared, channels, serve::Peer};
use crate::{
    domain::role::Role,
    offices::Office,
    store::{self, StoreError, access::Session},
};
use askama::Template;
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Extension, Request, State},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use std::sync::Arc;

/// The longest text that the registration form takes is 20,000 characters, each nine bytes as a
/// browser encodes Chinese; an answer to the citizen and its opinion are shorter. The other forms
/// hold a few words.
const LONG_FORM: usize = 256 * 1024;
const SHORT_FORM: usize = 16 * 1024;

/// The desk's routes.
pub fn routes() -> Router<Shared> {
    let whole = |limit: usize| middleware::from_fn_with_state(limit, whole_form);
    let long = Router::new()
        .route("/desk/register", get(register::page).post(register::register))
        .route("/desk/tickets/{number}/{act}", post(acts::act))
        .route("/desk/tickets/{number}/recordings/{act}", post(hold::act));
    Router::new()
        .route("/desk", get(queue::page))
        .route("/desk/live", get(queue::live))
        .route("/desk/login", get(session::login_page).post(session::login))
        .route("/desk/logout", post(session::logout))
        .route("/desk/tickets/{number}", get(ticket::page))
        .route("/desk/tickets/{number}/replies/{id}/called", post(replies::called))
        .route("/desk/media/{number}/{seq}/{n}/{variant}", get(media::show))
        .route("/desk/notices", get(notices::page))
        .route("/desk/notices/{id}/resend", post(notices::resend))
        .route("/desk/quarantine", get(quarantine::page))
        .route("/desk/quarantine/{id}/replay", post(quarantine::replay))
        .route("/desk/quarantine/{id}/discard", post(quarantine::discard))
        .route("/desk/assets/{name}", get(assets::serve))
        .layer(whole(SHORT_FORM))
        .merge(long.layer(whole(LONG_FORM)))
        .layer(DefaultBodyLimit::disable())
}

/// Reads a form whole, within its size and time, before anything looks at it (S07, S08).
async fn whole_form(
    State(limit): State<usize>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match channels::read(body, limit, peer.body_timeout).await {
        Ok(body) => next.run(Request::from_parts(head, Body::from(body))).await,
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
            Failure::of_status(status).into_response()
        }
    }
}

/// Puts a refusal of the framework into words; its headers stay.
pub fn restated(refusal: Response) -> Response {
    let (mut head, _) = refusal.into_parts();
    let (page, body) = Failure::of_status(head.status).into_response().into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(page.headers);
    Response::from_parts(head, body)
}

/// What every page shows around its content.
struct Frame {
    office: Arc<Office>,
    session: Session,
    quarantined: i64,
    dead_notices: i64,
}

impl Frame {
    /// For who is logged in and works with tickets.
    async fn new(app: &Shared, session: Session) -> Result<Self, Failure> {
        must_see_tickets(&session)?;
        let office = app.offices.get(session.office).ok_or_else(Failure::gone)?;
        let mut db = app.pool.acquire().await?;
        let quarantined = store::quarantine::open_count(&mut db, session.office).await?;
        let dead_notices = store::notice::dead_count(&mut db, session.office).await?;
        Ok(Self { office, session, quarantined, dead_notices })
    }

    fn role(&self) -> &'static str {
        self.session.role.label()
    }

    fn receives(&self) -> bool {
        self.session.role.receives_citizens()
    }

    fn css(&self) -> &'static str {
        assets::css()
    }

    fn js(&self) -> &'static str {
        assets::js()
    }
}

/// A page, or what to say when it cannot be rendered.
fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Why a page is not shown, in words for the officer.
#[derive(Debug)]
enum Failure {
    /// Nobody is logged in.
    NotLoggedIn,
    /// Something to read, with a status.
    Says { status: StatusCode, title: &'static str, text: String },
    /// This account has no business here: how to leave, and come back as somebody else.
    WrongAccount { text: &'static str, csrf: String },
}

impl Failure {
    fn says(status: StatusCode, title: &'static str, text: impl Into<String>) -> Self {
        Self::Says { status, title, text: text.into() }
    }

    fn gone() -> Self {
        Self::says(
            StatusCode::NOT_FOUND,
            "没有找到",
            "没有这一页。编号可能写错了，请回到队列里查找。",
        )
    }

    fn not_yours(text: &str) -> Self {
        Self::says(StatusCode::FORBIDDEN, "没有权限", text)
    }

    /// What a bare status means for the officer, and what to do.
    fn of_status(status: StatusCode) -> Self {
        let (title, text) = match status {
            StatusCode::NOT_FOUND => return Self::gone(),
            StatusCode::PAYLOAD_TOO_LARGE => (
                "内容太长",
                "这次提交没有执行。内容超过了系统能收的长度，请返回上一页精简后再提交，写好的内容还在。",
            ),
            StatusCode::REQUEST_TIMEOUT => {
                ("网络太慢", "这次提交没有执行：内容没有在规定时间内传完。请返回上一页再试一次。")
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                ("不能这样打开", "这个地址只能通过页面上的按钮使用。请回到队列里操作。")
            }
            status if status.is_server_error() => {
                ("系统忙", "刚才的操作可能没有执行。请过半分钟刷新再看；一直不行请联系管理员。")
            }
            _ => (
                "没有看懂这次提交",
                "这次提交没有执行：内容不完整，或者含有不能用的字符。请返回上一页，刷新后再试一次。",
            ),
        };
        Self::says(status, title, text)
    }

    fn stale_form() -> Self {
        Self::says(
            StatusCode::FORBIDDEN,
            "页面已经过期",
            "为了安全，这次提交没有执行。请返回上一页，刷新后再试一次。",
        )
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_bad_input() {
            return Self::of_status(StatusCode::BAD_REQUEST);
        }
        tracing::error!(error = %crate::telemetry::causes(&error), "a page failed in the database");
        Self::says(
            StatusCode::SERVICE_UNAVAILABLE,
            "暂时打不开",
            "数据库没有响应，刚才的操作没有执行。请过半分钟刷新再试；一直不行请联系管理员。",
        )
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

#[derive(Template)]
#[template(path = "desk/failure.html")]
struct FailurePage {
    title: &'static str,
    text: String,
    css: &'static str,
    js: &'static str,
    /// For the button that logs out.
    csrf: Option<String>,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, title, text, csrf) = match self {
            Self::NotLoggedIn => return Redirect::to("/desk/login").into_response(),
            Self::Says { status, title, text } => (status, title, text, None),
            Self::WrongAccount { text, csrf } => {
                (StatusCode::FORBIDDEN, "没有权限", text.to_owned(), Some(csrf))
            }
        };
        let (css, js) = (assets::css(), assets::js());
        let mut response = html(&FailurePage { title, text, css, js, csrf });
        *response.status_mut() = status;
        response
    }
}

/// Refuses the account that manages accounts (RULES.md, "Who works with it").
fn must_see_tickets(session: &Session) -> Result<(), Failure> {
    if session.role.sees_tickets() {
        return Ok(());
    }
    Err(Failure::WrongAccount {
        text: "管理员账号只管理账号和设置，看不到群众的反映。请用值班账号登录。",
        csrf: session.csrf.clone(),
    })
}

/// Refuses roles that do not receive citizens and dispatch what they say (RULES.md, "Who works with it").
fn must_receive(role: Role) -> Result<(), Failure> {
    if role.receives_citizens() {
        return Ok(());
    }
    Err(Failure::not_yours("您的角色可以查看，不能登记、认领、转办或答复。请由窗口值班人员办理。"))
}

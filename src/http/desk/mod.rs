//! The staff's pages (PAGES.md): rendered here, complete without scripts; scripts only add live
//! changes and keys.

mod assets;
mod notices;
mod quarantine;
mod queue;
mod register;
mod session;
mod story;
mod ticket;

use super::Shared;
use crate::{
    domain::role::Role,
    offices::Office,
    store::{self, StoreError, access::Session},
};
use askama::Template;
use axum::{
    Router,
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use std::sync::Arc;

/// The desk's routes.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/desk", get(queue::page))
        .route("/desk/live", get(queue::live))
        .route("/desk/login", get(session::login_page).post(session::login))
        .route("/desk/logout", post(session::logout))
        .route("/desk/register", get(register::page).post(register::register))
        .route("/desk/tickets/{number}", get(ticket::page))
        .route("/desk/tickets/{number}/claim", post(ticket::claim))
        .route("/desk/notices", get(notices::page))
        .route("/desk/notices/{id}/resend", post(notices::resend))
        .route("/desk/quarantine", get(quarantine::page))
        .route("/desk/quarantine/{id}/replay", post(quarantine::replay))
        .route("/desk/quarantine/{id}/discard", post(quarantine::discard))
        .route("/desk/assets/{name}", get(assets::serve))
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
        if !session.role.sees_tickets() {
            return Err(Failure::not_yours(
                "管理员账号只管理账号和设置，看不到群众的反映。请用值班账号登录。",
            ));
        }
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
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::NotLoggedIn => Redirect::to("/desk/login").into_response(),
            Self::Says { status, title, text } => {
                let mut response = html(&FailurePage { title, text, css: assets::css() });
                *response.status_mut() = status;
                response
            }
        }
    }
}

/// Refuses roles that do not receive citizens (RULES.md, "Who works with it").
fn must_receive(role: Role) -> Result<(), Failure> {
    if role.receives_citizens() {
        return Ok(());
    }
    Err(Failure::not_yours("您的角色可以查看，不能登记或认领。请由窗口值班人员办理。"))
}

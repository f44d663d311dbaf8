//! What the citizen of a ticket was told, and whom somebody has to telephone.

use super::{
    Failure, must_receive, notices,
    session::{Csrf, LoggedIn},
};
use crate::{
    citizen::token::Links,
    domain::{id::ReplyId, register::RegisterNumber},
    http::Shared,
    offices::Office,
    reply::{self, Path as Way},
    store::{
        self,
        reply::{AttemptRow, ReplyRow},
    },
    wording,
};
use axum::{
    Form,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use intake_contract::Delivery;

/// One thing that the citizen is told.
pub(super) struct Telling {
    pub(super) id: i64,
    /// `pending`, `sent`, `failed`, `call`, `called`.
    pub(super) state: String,
    pub(super) status: String,
    pub(super) words: String,
    /// When that was: its end, or its beginning while it has none.
    pub(super) at: String,
    pub(super) at_exact: String,
    /// What did not work, a line each.
    pub(super) tried: Vec<String>,
}

impl Telling {
    pub(super) fn new(
        row: &ReplyRow,
        office: &Office,
        ticket: RegisterNumber,
        links: &Links,
        now: DateTime<Utc>,
    ) -> Self {
        let link = links.url(office.id, ticket, row.created_at);
        // On the telephone there is no page below.
        let on_telephone = matches!(row.state.as_str(), "call" | "called");
        let link = link.as_deref().filter(|_| !on_telephone);
        let words = reply::words(office, ticket, row.kind, &row.facts, link, row.created_at);
        Self {
            id: row.id.0,
            state: row.state.clone(),
            status: status(row, now),
            words: if on_telephone { words.spoken() } else { words.written() },
            at: wording::moment(row.ended_at.unwrap_or(row.created_at), now),
            at_exact: wording::exact(row.ended_at.unwrap_or(row.created_at)),
            tried: row.attempts.iter().filter_map(|one| unsuccessful(one, now)).collect(),
        }
    }
}

fn label(attempt: &AttemptRow) -> &'static str {
    Way::parse(&attempt.path).map_or("", Way::label)
}

fn status(row: &ReplyRow, now: DateTime<Utc>) -> String {
    match row.state.as_str() {
        "sent" => {
            let Some(last) = row.attempts.iter().rfind(|one| one.outcome == "taken") else {
                return "已发出".to_owned();
            };
            let arrived = match last.delivery {
                Some(Delivery::Arrived) => "，已送达",
                _ => "",
            };
            format!("已用{}发出{arrived}", label(last))
        }
        "called" => {
            format!("{}已打电话告诉群众", row.called_by.as_deref().unwrap_or("工作人员"))
        }
        "call" => "发不出去，请打电话告诉群众".to_owned(),
        "failed" => "没有发出；这一条不必打电话".to_owned(),
        _ if row.next_try_at <= now => "正在发送".to_owned(),
        _ if row.attempts.is_empty() => {
            format!("等到{}发送", wording::moment(row.next_try_at, now))
        }
        _ => format!("还没有发出，{}再试", wording::moment(row.next_try_at, now)),
    }
}

/// `09:12 微信消息：群众没有关注公众号（43004）`; `None` for what was taken and not lost.
fn unsuccessful(attempt: &AttemptRow, now: DateTime<Utc>) -> Option<String> {
    let lost = match attempt.delivery {
        Some(Delivery::Refused) => Some("群众不接收"),
        Some(Delivery::TooMany) => Some("发得太频繁，被微信拦下"),
        Some(Delivery::Failed) => Some("没有送达"),
        Some(Delivery::Arrived) | None => None,
    };
    let why = match (attempt.outcome.as_str(), lost) {
        (_, Some(lost)) => lost.to_owned(),
        ("taken", None) => return None,
        ("under_way", None) => return None,
        (_, None) => {
            attempt.says.as_deref().map_or_else(|| "没有成功".to_owned(), notices::in_words)
        }
    };
    let code = attempt.code.map(|code| format!("（{code}）")).unwrap_or_default();
    let at = wording::moment(attempt.began_at, now);
    Some(format!("{at} {}：{why}{code}", label(attempt)))
}

pub(super) async fn called(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path((number, id)): Path<(String, i64)>,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    session.check_form(&form.csrf)?;
    must_receive(session.role)?;
    let office = app.offices.get(session.office).ok_or_else(Failure::gone)?;
    let ticket = RegisterNumber::parse(&number, &office.prefix).map_err(|_| Failure::gone())?;
    let now = app.clock.now();
    let mut db = app.pool.acquire().await?;
    // Somebody else was faster, or the message arrived after all: as good.
    store::reply::called(&mut db, office.id, ticket, ReplyId(id), session.staff, now).await?;
    app.live.changed(office.id);
    let number = ticket.display(&office.prefix);
    Ok(Redirect::to(&format!("/desk/tickets/{number}?done=called")).into_response())
}

//! What came from a verified sender and could not be understood.

use super::{
    Failure, Frame, html, must_receive,
    session::{Csrf, LoggedIn},
};
use crate::{
    domain::id::QuarantineId,
    http::Shared,
    quarantine::{self, ReplayError},
    store::{self, quarantine::Item},
    wording,
};
use askama::Template;
use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};

struct Line {
    id: i64,
    source: String,
    reason: &'static str,
    content: String,
    open: bool,
    state: String,
    ticket: Option<String>,
    at: String,
    at_exact: String,
}

impl Line {
    fn new(item: &Item, prefix: &str, now: DateTime<Utc>) -> Self {
        const SHOWN: usize = 2000;
        let text = String::from_utf8_lossy(&item.raw);
        let content = intake_contract::clean_text(&text).chars().take(SHOWN).collect();
        let reason = match item.reason.as_str() {
            "unknown_type" => "不认识的消息类型",
            "unknown_event" => "不认识的事件类型",
            "bad_xml" => "内容不是完整的 XML",
            "missing_field" => "缺少必要的字段",
            "bad_json" => "内容不是约定的 JSON",
            "bad_version" => "接口版本不认识",
            "zoneless_time" => "时间没有时区",
            "bad_time" => "时间格式不对",
            "bad_field" => "字段内容不对",
            "bad_key" => "来电或录音的编号缺失或过长",
            "too_large" => "内容太大",
            "unknown_form" => "不是这个来源约定的格式",
            "bad_audio" => "录音与描述对不上，只留下了描述",
            "call_differs" => "来电编号已被另一通来电使用，号码或时间对不上",
            "out_of_bounds" => "内容超出了系统能收的长度",
            "id_reused" => "与第一次登记的内容不同，来源编号却相同",
            "refused_by_database" => "数据库不接受",
            _ => "无法识别",
        };
        Self {
            id: item.id.0,
            source: item.source.clone(),
            reason,
            content,
            open: item.state == "open",
            state: match (item.state.as_str(), &item.handled) {
                ("open", _) => "待处理".to_owned(),
                (state, handled) => {
                    let what = if state == "replayed" { "已重新受理" } else { "已忽略" };
                    let by = handled
                        .as_ref()
                        .map(|(by, at)| format!("（{by}，{}）", wording::moment(*at, now)));
                    format!("{what}{}", by.unwrap_or_default())
                }
            },
            ticket: item.ticket.map(|ticket| ticket.display(prefix)),
            at: wording::moment(item.received_at, now),
            at_exact: wording::exact(item.received_at),
        }
    }
}

#[derive(Template)]
#[template(path = "desk/quarantine.html")]
struct QuarantinePage {
    frame: Frame,
    title: String,
    section: &'static str,
    items: Vec<Line>,
}

pub(super) async fn page(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
) -> Result<Response, Failure> {
    const NEWEST: i64 = 100;
    let frame = Frame::new(&app, session).await?;
    let now = app.clock.now();
    let mut db = app.pool.acquire().await?;
    let found = store::quarantine::list(&mut db, frame.session.office, NEWEST).await?;
    drop(db);
    let items = found.iter().map(|item| Line::new(item, &frame.office.prefix, now)).collect();
    Ok(html(&QuarantinePage { title: "隔离区".to_owned(), section: "quarantine", items, frame }))
}

pub(super) async fn replay(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path(id): Path<i64>,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    session.check_form(&form.csrf)?;
    must_receive(session.role)?;
    match quarantine::replay(&app, session.office, QuarantineId(id), &session.login).await {
        Ok(Some(ticket)) => {
            let office = app.offices.get(session.office).ok_or_else(Failure::gone)?;
            let number = ticket.display(&office.prefix);
            Ok(Redirect::to(&format!("/desk/tickets/{number}")).into_response())
        }
        Ok(None) | Err(ReplayError::Gone) => Ok(Redirect::to("/desk/quarantine").into_response()),
        Err(ReplayError::NotUnderstood) => Err(Failure::says(
            StatusCode::UNPROCESSABLE_ENTITY,
            "还是无法识别",
            "系统仍然读不懂这条内容，它还留在隔离区。如果能看出群众反映的事，请用“登记反映”手工登记，再把这条忽略。",
        )),
        Err(ReplayError::Busy) => Err(Failure::says(
            StatusCode::SERVICE_UNAVAILABLE,
            "系统忙",
            "没有重新受理，这条内容还在隔离区。请过几秒再试。",
        )),
        Err(ReplayError::Store(error)) => Err(error.into()),
    }
}

pub(super) async fn discard(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path(id): Path<i64>,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    session.check_form(&form.csrf)?;
    must_receive(session.role)?;
    let mut db = app.pool.acquire().await?;
    let now = app.clock.now();
    let id = QuarantineId(id);
    let handled = store::quarantine::handled(
        &mut db,
        session.office,
        id,
        "discarded",
        &session.login,
        now,
        None,
    );
    match handled.await {
        // Somebody else was faster.
        Ok(()) | Err(store::StoreError::RowCount { .. }) => {
            Ok(Redirect::to("/desk/quarantine").into_response())
        }
        Err(error) => Err(error.into()),
    }
}

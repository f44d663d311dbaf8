//! What the staff were told: sent, on the way, and what did not arrive.

use super::{
    Failure, Frame, html, must_see_tickets,
    session::{Csrf, LoggedIn},
};
use crate::{
    domain::id::NoticeId,
    http::Shared,
    relay,
    store::{self, notice::NoticeRow},
    wording,
};
use askama::Template;
use axum::{
    Form,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};

struct Line {
    id: i64,
    title: String,
    lines: Vec<String>,
    ticket: Option<String>,
    /// `sent`, `pending`, `dead`.
    state: &'static str,
    state_label: String,
    way: String,
    to: String,
    at: String,
    at_exact: String,
    error: Option<String>,
}

impl Line {
    fn new(row: NoticeRow, prefix: &str, now: DateTime<Utc>) -> Self {
        let (state, state_label) = match row.state.as_str() {
            "sent" => ("sent", "已送达".to_owned()),
            "dead" => ("dead", format!("没有送达（试了 {} 次）", row.attempts)),
            _ if row.attempts > 0 => ("pending", format!("正在重试（第 {} 次）", row.attempts)),
            _ => ("pending", "等待发送".to_owned()),
        };
        let at = row.sent_at.unwrap_or(row.created_at);
        Self {
            id: row.id.0,
            title: row.title,
            lines: row.lines,
            ticket: row.ticket.map(|ticket| ticket.display(prefix)),
            state,
            state_label,
            way: if row.target == relay::DESK { "本页".to_owned() } else { row.target },
            to: row.recipients.join("、"),
            at: wording::moment(at, now),
            at_exact: wording::exact(at),
            error: row.last_error.map(|says| in_words(&says)),
        }
    }
}

/// What a way of telling said, as the officer reads it: what it means, and what to do. What is in
/// Chinese already stays.
pub(super) fn in_words(says: &str) -> String {
    if let Some(names) = says.strip_prefix("not told: ") {
        return format!("没有通知到：{}", names.replace(", ", "、"));
    }
    if !says.is_ascii() {
        return says.to_owned();
    }
    let means = match says {
        "no answer in time" | "the mail server did not answer in time" => "对方没有按时回应",
        "no connection" | "the connection broke" => "连不上对方",
        "the answer is too long" | "the answer broke off" | "the answer is not the robot's" => {
            "对方的回应看不懂，请管理员检查这个通知方式的地址"
        }
        "no such way is configured any more" => "这个通知方式已从配置中去掉",
        "all of them are told the same and more by another notice" => "已合并到另一条通知",
        "nobody who is told has an e-mail address, and `to` is empty" => {
            "要通知的人没有登记邮箱，请管理员补上"
        }
        "the message could not be composed" | "the message could not be addressed" => {
            "邮件写不成，请管理员检查邮箱地址"
        }
        _ if says.starts_with("the mail server") => {
            return format!("邮件服务器没有收下{}，请管理员检查", number_in(says));
        }
        _ => return format!("对方没有收下{}，请管理员检查这个通知方式的设置", number_in(says)),
    };
    means.to_owned()
}

/// The code that stands at the end, in brackets.
fn number_in(says: &str) -> String {
    match says.rsplit(' ').next().filter(|code| code.bytes().all(|b| b.is_ascii_digit())) {
        Some(code) => format!("（{code}）"),
        None => String::new(),
    }
}

#[derive(Template)]
#[template(path = "desk/notices.html")]
struct NoticesPage {
    frame: Frame,
    title: String,
    section: &'static str,
    notices: Vec<Line>,
}

pub(super) async fn page(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
) -> Result<Response, Failure> {
    const NEWEST: i64 = 100;
    let frame = Frame::new(&app, session).await?;
    let now = app.clock.now();
    let mut db = app.pool.acquire().await?;
    let rows = store::notice::list(&mut db, frame.session.office, NEWEST).await?;
    drop(db);
    let notices = rows.into_iter().map(|row| Line::new(row, &frame.office.prefix, now)).collect();
    Ok(html(&NoticesPage { title: "通知".to_owned(), section: "notices", notices, frame }))
}

pub(super) async fn resend(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path(id): Path<i64>,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    session.check_form(&form.csrf)?;
    must_see_tickets(&session)?;
    let mut db = app.pool.acquire().await?;
    // Not dead any more: somebody else was faster, which is as good.
    store::notice::revive(&mut db, session.office, NoticeId(id), app.clock.now()).await?;
    app.relay.wake_now();
    Ok(Redirect::to("/desk/notices").into_response())
}

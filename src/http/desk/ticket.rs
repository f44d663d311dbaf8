//! One ticket, as a story from top to bottom.

use super::{
    Failure, Frame, html, must_receive,
    queue::state_label,
    session::{Csrf, LoggedIn},
    story::{self, Chapter},
};
use crate::{
    desk::{self, DeskError},
    domain::{
        calendar::{Reason, Why},
        event::Actor,
        id::UnitId,
        register::RegisterNumber,
        ticket::NotAllowed,
    },
    http::Shared,
    offices::Office,
    store::{self, access::Session, office::Unit, queue::QueueRow},
    wording,
};
use askama::Template;
use axum::{
    Form,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde::Deserialize;
use std::sync::Arc;

/// A day of the strip that shows why a limit falls where it does.
struct StripDay {
    date: String,
    weekday: &'static str,
    /// `第 1 天`, or why the day does not count.
    says: String,
    /// `received`, `accepted`, `counted`, `skipped`.
    kind: &'static str,
    provisional: bool,
    last: bool,
}

/// The promise, and why that date.
struct Promise {
    accepted_day: String,
    follow_up: Option<String>,
    due: String,
    due_exact: String,
    until: String,
    /// Whether `until` says more than the date: little time is left, or none.
    pressing: bool,
    provisional: Option<String>,
    level: i16,
    level_label: &'static str,
    strip: Vec<StripDay>,
}

#[derive(Template)]
#[template(path = "desk/ticket.html")]
struct TicketPage {
    frame: Frame,
    title: String,
    section: &'static str,
    number: String,
    done: Option<&'static str>,
    /// What became of the half-written form that led here: `sent`, or `used` by another content.
    draft: &'static str,
    channel: &'static str,
    channel_key: &'static str,
    state: &'static str,
    urgent: bool,
    late: bool,
    name: Option<String>,
    phone: Option<String>,
    accountable: Option<String>,
    came: String,
    came_exact: String,
    promise: Promise,
    story: Vec<Chapter>,
    can_claim: bool,
    /// Where it is with.
    unit: Option<String>,
    /// Where it can be referred to; none when it cannot.
    units: Vec<Unit>,
}

#[derive(Deserialize)]
pub(super) struct TicketQuery {
    #[serde(default)]
    done: String,
}

pub(super) async fn page(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path(number): Path<String>,
    Query(query): Query<TicketQuery>,
) -> Result<Response, Failure> {
    let frame = Frame::new(&app, session).await?;
    let ticket =
        RegisterNumber::parse(&number, &frame.office.prefix).map_err(|_| Failure::gone())?;
    let mut db = app.pool.acquire().await?;
    let whole = store::ticket::whole(&mut db, frame.session.office, ticket)
        .await?
        .ok_or_else(Failure::gone)?;
    let media = store::media::of_ticket(&mut db, frame.session.office, ticket).await?;
    let mut units = store::office::units(&mut db, frame.session.office).await?;
    drop(db);
    let now = app.clock.now();
    let row = &whole.row;
    let done = match query.done.as_str() {
        "registered" => Some("已登记。请把编号告诉群众。"),
        "registered_before" => Some(
            "之前已登记，内容以第一次为准。如果是另一件事，请再登记一次，写过的内容还在表单里。",
        ),
        "claimed" => Some("已认领，由您负责到底。"),
        "referred" => Some("已转办。负责人不变，经过见下面的记录。"),
        _ => None,
    };
    let story = story::tell(&whole, &media, &ticket.display(&frame.office.prefix), &units, now);
    // R7.b: what somebody answers for and has no result yet.
    if !(frame.receives() && matches!(row.state.as_str(), "accepted" | "in_progress")) {
        units.clear();
    }
    units.retain(|unit| row.unit.as_ref() != Some(&unit.name));
    Ok(html(&TicketPage {
        title: ticket.display(&frame.office.prefix),
        section: "queue",
        number: ticket.display(&frame.office.prefix),
        done,
        draft: match query.done.as_str() {
            "registered" => "sent",
            "registered_before" => "used",
            _ => "",
        },
        channel: row.channel.label(),
        channel_key: row.channel.as_str(),
        state: state_label(&row.state),
        urgent: row.urgent,
        late: is_open(row) && row.due_at <= now,
        name: row.citizen_name.clone(),
        phone: row.citizen_phone.clone(),
        accountable: row.accountable.clone(),
        came: wording::moment(row.registered_at, now),
        came_exact: wording::exact(row.registered_at),
        promise: promise(row, &frame.office, now),
        story,
        can_claim: row.state == "registered" && frame.receives(),
        unit: row.unit.clone(),
        units,
        frame,
    }))
}

fn is_open(row: &QueueRow) -> bool {
    row.state != "closed"
}

fn promise(row: &QueueRow, office: &Office, now: DateTime<Utc>) -> Promise {
    let why = office.calendar.why(row.accepted_at, row.level.number() as u8);
    // The strip explains this very date; where a person or an amendment kept another one, or the
    // limit ran from a hand-up, the trail does.
    let explained = why.due.at == row.due_at;
    let strip = if explained { strip(row.registered_at, office, &why) } else { Vec::new() };
    Promise {
        accepted_day: wording::day(why.received_day, now),
        follow_up: row.follow_up_at.map(|at| wording::moment(at, now)),
        due: wording::moment(row.due_at, now),
        due_exact: wording::exact(row.due_at),
        until: wording::until(row.due_at, now),
        pressing: is_open(row) && row.due_at - now < chrono::TimeDelta::hours(4),
        provisional: row.provisional.then(|| {
            let year = why.due.needs_year;
            year.map_or_else(
                || "日期暂定。".to_owned(),
                |year| format!("日期暂定：国务院还没有公布{year}年的放假安排，公布后自动重算。"),
            )
        }),
        level: row.level.number(),
        level_label: row.level.label(),
        strip,
    }
}

/// Every day from receipt to the limit: what came in out of hours waits for a working day to be
/// accepted on, and the days of waiting have their reasons too.
fn strip(registered_at: DateTime<Utc>, office: &Office, why: &Why) -> Vec<StripDay> {
    let of = |date: NaiveDate, kind, says: String, provisional| StripDay {
        date: format!("{}/{}", date.month(), date.day()),
        weekday: wording::weekday(date.weekday()),
        says,
        kind,
        provisional,
        last: false,
    };
    let (came, accepted) = (wording::day_of(registered_at), why.received_day);
    let before = came.iter_days().take_while(|date| *date < accepted).map(|date| {
        let day = office.calendar.day(date);
        let provisional = day.needs_year.is_some();
        match (date == came, day.working) {
            (true, true) => of(date, "received", "收到；已下班".to_owned(), provisional),
            (true, false) => of(date, "received", format!("收到；{}", day.reason), provisional),
            (false, _) => of(date, "skipped", day.reason.to_string(), provisional),
        }
    });
    let says =
        if came < accepted { "受理当天，不计" } else { "收到，受理当天，不计" };
    let provisional = office.calendar.day(accepted).needs_year.is_some();
    let acceptance = of(accepted, "accepted", says.to_owned(), provisional);
    let after = why.days.iter().map(|day| {
        let (kind, says) = match day.counted {
            Some(number) if day.reason == Reason::Weekday => ("counted", format!("第 {number} 天")),
            Some(number) => ("counted", format!("第 {number} 天，{}", day.reason)),
            None => ("skipped", day.reason.to_string()),
        };
        of(day.date, kind, says, day.provisional)
    });
    let mut days: Vec<StripDay> = before.chain([acceptance]).chain(after).collect();
    if let Some(day) = days.last_mut() {
        day.last = true;
    }
    days
}

pub(super) async fn claim(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path(number): Path<String>,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    session.check_form(&form.csrf)?;
    must_receive(session.role)?;
    let (office, ticket) = named(&app, &session, &number)?;
    let claimed = desk::claim(&app.pool, &app.clock, office.id, ticket, session.staff).await;
    answer(&app, &office, ticket, "claimed", claimed)
}

#[derive(Deserialize)]
pub(super) struct Referral {
    csrf: String,
    #[serde(default)]
    unit: String,
}

pub(super) async fn refer(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path(number): Path<String>,
    Form(form): Form<Referral>,
) -> Result<Response, Failure> {
    session.check_form(&form.csrf)?;
    must_receive(session.role)?;
    let (office, ticket) = named(&app, &session, &number)?;
    let by = Actor::Staff(session.staff);
    let referred = match form.unit.parse().map(UnitId) {
        Ok(unit) => desk::refer(&app.pool, &app.clock, office.id, ticket, unit, by).await,
        Err(_) => Err(DeskError::NoUnit),
    };
    answer(&app, &office, ticket, "referred", referred)
}

fn named(
    app: &Shared,
    session: &Session,
    number: &str,
) -> Result<(Arc<Office>, RegisterNumber), Failure> {
    let office = app.offices.get(session.office).ok_or_else(Failure::gone)?;
    let ticket = RegisterNumber::parse(number, &office.prefix).map_err(|_| Failure::gone())?;
    Ok((office, ticket))
}

/// Back to the ticket, which says what was done; or what to do instead.
fn answer(
    app: &Shared,
    office: &Office,
    ticket: RegisterNumber,
    what: &str,
    done: Result<(), DeskError>,
) -> Result<Response, Failure> {
    let (status, title, text) = match done {
        Ok(()) => {
            app.live.changed(office.id);
            let number = ticket.display(&office.prefix);
            return Ok(Redirect::to(&format!("/desk/tickets/{number}?done={what}")).into_response());
        }
        Err(DeskError::NoTicket) => return Err(Failure::gone()),
        Err(DeskError::Store(error)) => return Err(error.into()),
        Err(DeskError::NoUnit) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "没有选股室",
            "这次转办没有执行。请返回上一页，先选好要转给哪个股室，再点“转办”。",
        ),
        Err(DeskError::NotAllowed(NotAllowed::AlreadyClaimed)) => (
            StatusCode::CONFLICT,
            "已经有人认领",
            "这件反映刚刚由别人认领了。请返回队列，选下一件。",
        ),
        Err(DeskError::NotAllowed(NotAllowed::NotClaimed)) => (
            StatusCode::CONFLICT,
            "还没有人认领",
            "首次接待负责制：先认领，再转办。请返回上一页，先点“认领”。",
        ),
        Err(DeskError::NotAllowed(NotAllowed::NotWaiting)) => (
            StatusCode::CONFLICT,
            "正在等群众补充",
            "这件反映在等群众补充材料，补齐后才能转办。请返回上一页查看要补什么。",
        ),
        Err(DeskError::NotAllowed(_)) => {
            (StatusCode::CONFLICT, "现在不能这样办", "这件反映已经有结果。请刷新页面查看最新情况。")
        }
    };
    Err(Failure::says(status, title, text))
}

//! One ticket, as a story from top to bottom.

use super::{
    Failure, Frame,
    acts::{self, Offers, Written},
    call_back,
    hold::Holding,
    html, phone,
    queue::state_label,
    replies::Telling,
    session::LoggedIn,
    story::{self, Chapter},
};
use crate::{
    domain::{
        calendar::{Reason, Why},
        register::RegisterNumber,
        ticket::{Closing, State as TicketState},
    },
    http::Shared,
    offices::Office,
    store::{self, access::Session, ticket::Whole},
    wording,
};
use askama::Template;
use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

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
    /// Whether the days are counted from a later day than that of acceptance.
    moved: bool,
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
    /// Why something was not done.
    says: Option<String>,
    /// What became of the half-written form that led here: `sent`, or `used` by another content.
    draft: &'static str,
    /// The form that was sent, and is done with.
    sent: String,
    /// The form that could not be carried out, as it was filled in.
    failed: &'static str,
    written: Written,
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
    offers: Offers,
    /// The number of the newest event that the page shows.
    seen: i32,
    /// What the citizen was told, oldest first.
    replies: Vec<Telling>,
    /// How often the citizen called.
    phone_calls: phone::Calls,
    /// Whether they are still to be called back.
    call_back: call_back::Try,
    /// Whether its recordings are held.
    holding: Option<Holding>,
    /// Where it is with.
    unit: Option<String>,
    cause: Option<&'static str>,
    /// What the citizen was asked for, and by when.
    waiting: Option<(String, String)>,
    /// What it came to, and what the citizen thinks of it.
    result: Option<(&'static str, Option<&'static str>)>,
}

impl TicketPage {
    /// What stood in a field of a form that was sent back.
    fn was(&self, act: &str, field: &str) -> &str {
        if self.failed == act { self.written.get(field) } else { "" }
    }

    /// Whether something had been chosen in it.
    fn chose(&self, act: &str, field: &str, value: &str) -> bool {
        self.failed == act && self.written.has(field, value)
    }

    /// What stands in a field: as it was sent, else what is proposed.
    fn or<'a>(&'a self, act: &str, field: &str, proposed: &'a str) -> &'a str {
        if self.failed == act { self.written.get(field) } else { proposed }
    }
}

#[derive(Deserialize)]
pub(super) struct TicketQuery {
    #[serde(default)]
    done: String,
}

/// What led to the page.
#[derive(Default)]
pub(super) struct Shown {
    /// The form that was sent; empty when none was.
    pub(super) act: &'static str,
    pub(super) written: Written,
    pub(super) says: Option<String>,
    /// What was done before, as the address says.
    pub(super) done: Option<String>,
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
    show(&app, frame, ticket, Shown { done: Some(query.done), ..Shown::default() }).await
}

/// The page of a ticket as it stands.
pub(super) async fn show(
    app: &Shared,
    frame: Frame,
    ticket: RegisterNumber,
    shown: Shown,
) -> Result<Response, Failure> {
    let mut db = app.pool.acquire().await?;
    let whole = store::ticket::whole(&mut db, frame.session.office, ticket)
        .await?
        .ok_or_else(Failure::gone)?;
    let units = store::office::units(&mut db, frame.session.office).await?;
    let mut taken_in = BTreeMap::new();
    for from in story::taken_in(&whole).into_iter().take(TAKEN_IN) {
        let Ok(other) = RegisterNumber::parse(&from, &frame.office.prefix) else { continue };
        let said = store::ticket::messages(&mut db, frame.session.office, other).await?;
        taken_in.insert(from, said);
    }
    let replies = store::reply::of_ticket(&mut db, frame.session.office, ticket).await?;
    let media = store::media::of_ticket(&mut db, frame.session.office, ticket).await?;
    let calls = store::call::of_ticket(&mut db, frame.session.office, ticket).await?;
    let to_call = store::call_back::read(&mut db, frame.session.office, ticket).await?;
    let held = store::recording::held(&mut db, frame.session.office, ticket).await?;
    drop(db);
    let now = app.clock.now();
    let row = &whole.row;
    let became = shown.done.unwrap_or_default();
    let story =
        story::tell(&whole, &media, &ticket.display(&frame.office.prefix), &taken_in, &units, now);
    let replies = replies
        .iter()
        .map(|row| Telling::new(row, &frame.office, ticket, &app.citizen.links, now))
        .collect();
    let offers = acts::offers(&whole, &frame.office, &frame.session, &units, now);
    let done = acts::done(&became);
    Ok(html(&TicketPage {
        title: ticket.display(&frame.office.prefix),
        section: "queue",
        number: ticket.display(&frame.office.prefix),
        done,
        says: shown.says,
        draft: match became.as_str() {
            "registered" => "sent",
            "registered_before" => "used",
            _ => "",
        },
        sent: done.map_or_else(String::new, |_| became.clone()),
        failed: shown.act,
        written: shown.written,
        channel: row.channel.label(),
        channel_key: row.channel.as_str(),
        state: state_label(&row.state),
        urgent: row.urgent,
        late: is_pressing(&whole) && row.due_at <= now,
        name: row.citizen_name.clone(),
        phone: row.citizen_phone.clone(),
        accountable: row.accountable.clone(),
        came: wording::moment(row.registered_at, now),
        came_exact: wording::exact(row.registered_at),
        promise: promise(&whole, &frame.office, now),
        story,
        offers,
        seen: whole.events.last().map_or(0, |event| event.seq),
        replies,
        phone_calls: phone::show(&calls, now),
        call_back: call_back::Try::of(to_call, now),
        holding: Holding::of(&media, held, &frame),
        unit: row.unit.clone(),
        cause: whole.cause.map(story::cause_label),
        waiting: match &whole.state {
            Some(TicketState::AwaitingCitizen { missing, until, .. }) => {
                Some((missing.clone(), wording::moment(*until, now)))
            }
            _ => None,
        },
        result: match &whole.state {
            Some(TicketState::Resolved { outcome, .. }) => {
                Some((story::outcome_label(outcome), None))
            }
            Some(TicketState::Evaluated { outcome, evaluation, .. }) => {
                Some((story::outcome_label(outcome), Some(evaluation.label())))
            }
            Some(TicketState::Closed { outcome, closing, .. }) => {
                let grade = match closing {
                    Closing::Evaluated(evaluation) => Some(evaluation.label()),
                    Closing::WithoutEvaluation(_) => None,
                };
                Some((story::outcome_label(outcome), grade))
            }
            _ => None,
        },
        frame,
    }))
}

/// So many tickets that ended in favour of one are shown with what was said on them.
const TAKEN_IN: usize = 5;

/// Whether a limit runs.
fn is_pressing(whole: &Whole) -> bool {
    whole.state.as_ref().is_some_and(TicketState::is_pressing)
}

fn promise(whole: &Whole, office: &Office, now: DateTime<Utc>) -> Promise {
    let row = &whole.row;
    // After a pause or a reopening the days are counted from there.
    let from = whole.runs_from.unwrap_or(row.accepted_at);
    let why = office.calendar.why(from, row.level.number() as u8);
    // The strip explains this very date; where a person or an amendment kept another one, or the
    // limit ran from a hand-up, the trail does.
    let explained = why.due.at == row.due_at;
    let strip = match (explained, whole.runs_from) {
        (true, None) => strip(row.registered_at, office, &why),
        (true, Some(from)) => strip(from, office, &why),
        (false, _) => Vec::new(),
    };
    Promise {
        accepted_day: wording::day(why.received_day, now),
        follow_up: row.follow_up_at.map(|at| wording::moment(at, now)),
        due: wording::moment(row.due_at, now),
        due_exact: wording::exact(row.due_at),
        until: wording::until(row.due_at, now),
        pressing: is_pressing(whole) && row.due_at - now < chrono::TimeDelta::hours(4),
        moved: whole.runs_from.is_some(),
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

/// The office of who is logged in, and a ticket by what a path calls it.
pub(super) fn named(
    app: &Shared,
    session: &Session,
    number: &str,
) -> Result<(Arc<Office>, RegisterNumber), Failure> {
    let office = app.offices.get(session.office).ok_or_else(Failure::gone)?;
    let ticket = RegisterNumber::parse(number, &office.prefix).map_err(|_| Failure::gone())?;
    Ok((office, ticket))
}

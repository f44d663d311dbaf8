//! The queue: what to work on next.

use super::{Failure, Frame, call_back, counts::counts, html, session::LoggedIn};
use crate::{
    domain::{id::UnitId, level::Level, register::RegisterNumber, ticket::State as TicketState},
    http::Shared,
    search::words::Words,
    store::{
        self,
        access::Session,
        office::Unit,
        queue::{Counts, Cursor, Filter, PRESSING, Page, QueueRow},
        search::Which,
    },
    wording,
};
use askama::Template;
use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use futures::stream;
use intake_contract::{ChannelKind, china, clean_text};
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};

const PAGE: i64 = 50;

/// The saved views.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum View {
    #[default]
    Today,
    Unclaimed,
    CallBack,
    Mine,
    Soon,
    Overdue,
    Resolved,
    All,
    Closed,
}

impl View {
    const ALL: [Self; 9] = [
        Self::Today,
        Self::Unclaimed,
        Self::CallBack,
        Self::Mine,
        Self::Soon,
        Self::Overdue,
        Self::Resolved,
        Self::All,
        Self::Closed,
    ];

    fn key(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Unclaimed => "unclaimed",
            Self::CallBack => "call_back",
            Self::Mine => "mine",
            Self::Soon => "soon",
            Self::Overdue => "overdue",
            Self::Resolved => "resolved",
            Self::All => "all",
            Self::Closed => "closed",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Today => "今日待办",
            Self::Unclaimed => "待认领",
            Self::CallBack => "待回拨",
            Self::Mine => "我负责的",
            Self::Soon => "即将到期",
            Self::Overdue => "已逾期",
            Self::Resolved => "待评价",
            Self::All => "全部",
            Self::Closed => "已销号",
        }
    }

    fn count(self, counts: &Counts) -> i64 {
        match self {
            Self::Today => counts.today,
            Self::Unclaimed => counts.unclaimed,
            Self::CallBack => counts.call_back,
            Self::Mine => counts.mine,
            Self::Soon => counts.soon,
            Self::Overdue => counts.overdue,
            Self::Resolved => counts.resolved,
            Self::All => counts.all,
            Self::Closed => counts.closed,
        }
    }
}

/// The moments that views are cut by.
#[derive(Clone, Copy)]
pub(super) struct Cuts {
    pub(super) now: DateTime<Utc>,
    pub(super) end_of_today: DateTime<Utc>,
    pub(super) soon: DateTime<Utc>,
}

impl Cuts {
    fn at(now: DateTime<Utc>) -> Self {
        let end_of_today = end_of(wording::day_of(now)).unwrap_or(now);
        Self { now, end_of_today, soon: now + TimeDelta::hours(24) }
    }
}

fn end_of(day: NaiveDate) -> Option<DateTime<Utc>> {
    let next = day.succ_opt()?.and_time(NaiveTime::MIN);
    Some(china().from_local_datetime(&next).single()?.to_utc())
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct QueueQuery {
    #[serde(default)]
    view: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    level: String,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    state: String,
    /// Due on this day or before it.
    #[serde(default)]
    due: String,
    #[serde(default)]
    q: String,
    #[serde(default)]
    after: String,
    /// In the view of calls: which one is shown whole.
    #[serde(default)]
    pub(super) at: String,
    /// In the view of calls: what was noted just now, and of which ticket.
    #[serde(default)]
    pub(super) done: String,
    #[serde(default)]
    pub(super) of: String,
}

impl QueueQuery {
    /// Unknown values filter nothing: an old bookmark still shows the queue.
    fn view(&self) -> View {
        View::ALL.into_iter().find(|view| view.key() == self.view).unwrap_or_default()
    }

    /// What was asked, as it is meant: without what no text can hold, and without what the
    /// view says itself.
    fn cleaned(mut self) -> Self {
        self.q = clean_text(&self.q).trim().to_owned();
        match self.view() {
            View::Unclaimed | View::Resolved | View::Closed => self.state.clear(),
            View::Overdue => self.due.clear(),
            _ => {}
        }
        self
    }

    fn filter(&self, view: View, session: &Session, cuts: Cuts) -> Filter {
        let mut filter = Filter {
            channel: ChannelKind::parse(&self.channel),
            level: self.level.parse().ok().and_then(Level::from_number),
            unit: self.unit.parse().ok().map(UnitId),
            state: TicketState::NAMES.into_iter().find(|name| *name == self.state),
            due_before: self.due.parse().ok().and_then(end_of),
            ..Filter::default()
        };
        if matches!(view, View::Today | View::Soon | View::Overdue) {
            filter.state = filter.state.or(Some(PRESSING));
        }
        match view {
            View::Today => filter.to_do_before = Some(cuts.end_of_today),
            View::Unclaimed => filter.unclaimed = true,
            View::Mine => filter.accountable = Some(session.staff),
            View::Soon => {
                filter.due_from = Some(cuts.now);
                filter.due_before =
                    Some(filter.due_before.map_or(cuts.soon, |at| at.min(cuts.soon)));
            }
            View::Overdue => filter.due_before = Some(cuts.now),
            View::Resolved => filter.state = Some("resolved"),
            View::All | View::Closed | View::CallBack => {}
        }
        filter
    }

    fn given(&self) -> [(&'static str, &str); 6] {
        [
            ("channel", &self.channel),
            ("level", &self.level),
            ("unit", &self.unit),
            ("state", &self.state),
            ("due", &self.due),
            ("q", &self.q),
        ]
    }

    fn is_filtered(&self) -> bool {
        self.given().into_iter().any(|(_, value)| !value.is_empty())
    }

    /// The address of this list from a place on.
    fn address(&self, view: View, after: Option<Cursor>) -> String {
        let mut address = format!("/desk?view={}", view.key());
        for (key, value) in self.given() {
            if !value.trim().is_empty() {
                address.push_str(&format!("&{key}={}", percent(value.trim())));
            }
        }
        if let Some(after) = after {
            address.push_str(&format!("&after={}", after.encode()));
        }
        address
    }
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

pub(super) struct ViewLink {
    pub(super) label: &'static str,
    pub(super) href: String,
    pub(super) count: i64,
    pub(super) current: bool,
    pub(super) alarming: bool,
}

struct Choice {
    value: String,
    label: String,
    chosen: bool,
}

/// A ticket in one line.
struct Row {
    number: String,
    /// `late`, `close`, `today`, `later`: colours the bar; the words say the same.
    urgency: &'static str,
    due: String,
    due_exact: String,
    provisional: bool,
    urgent: bool,
    channel: &'static str,
    channel_key: &'static str,
    problem: String,
    person: String,
    accountable: Option<String>,
    unit: Option<String>,
    level: i16,
    state: &'static str,
    came: String,
    came_exact: String,
}

pub(super) fn state_label(state: &str) -> &'static str {
    match state {
        "registered" => "待认领",
        "accepted" => "已认领",
        "in_progress" => "办理中",
        "awaiting_citizen" => "等群众补充",
        "resolved" => "待评价",
        "evaluated" => "已评价",
        _ => "已销号",
    }
}

impl Row {
    fn new(row: &QueueRow, prefix: &str, now: DateTime<Utc>) -> Self {
        let left = row.due_at - now;
        // Nothing is due any more, or not now.
        let waits = !matches!(row.state.as_str(), "registered" | "accepted" | "in_progress");
        let urgency = if waits {
            "later"
        } else if left <= TimeDelta::zero() {
            "late"
        } else if left < TimeDelta::hours(4) {
            "close"
        } else if wording::day_of(row.due_at) == wording::day_of(now) {
            "today"
        } else {
            "later"
        };
        let name = row.citizen_name.as_deref().map(wording::masked_name);
        let phone = row.citizen_phone.as_deref().map(wording::masked_phone);
        let person = match (name, phone) {
            (Some(name), Some(phone)) => format!("{name} {phone}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) if row.channel == ChannelKind::Wechat => "微信用户".to_owned(),
            (None, None) => "未留姓名".to_owned(),
        };
        Self {
            number: row.ticket.display(prefix),
            urgency,
            due: if waits {
                state_label(&row.state).to_owned()
            } else {
                wording::until(row.due_at, now)
            },
            due_exact: wording::exact(row.due_at),
            provisional: row.provisional,
            urgent: row.urgent,
            channel: row.channel.label(),
            channel_key: row.channel.as_str(),
            problem: row.problem.clone(),
            person,
            accountable: row.accountable.clone(),
            unit: row.unit.clone(),
            level: row.level.number(),
            state: state_label(&row.state),
            came: wording::moment(row.registered_at, now),
            came_exact: wording::exact(row.registered_at),
        }
    }
}

#[derive(Template)]
#[template(path = "desk/queue.html")]
struct QueuePage {
    frame: Frame,
    title: String,
    section: &'static str,
    views: Vec<ViewLink>,
    view: &'static str,
    channels: Vec<Choice>,
    levels: Vec<Choice>,
    /// None in an office without units.
    units: Vec<Choice>,
    /// None in a view of one state.
    states: Vec<Choice>,
    /// None where the view says by when.
    due: Option<String>,
    q: String,
    filtered: bool,
    rows: Vec<Row>,
    next: Option<String>,
    /// The first page of the same list; none on it.
    first: Option<String>,
    clear: String,
    empty: String,
}

pub(super) async fn page(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    headers: HeaderMap,
    Query(query): Query<QueueQuery>,
) -> Result<Response, Failure> {
    let now = app.clock.now();
    let cuts = Cuts::at(now);
    let query = query.cleaned();
    let view = query.view();
    let frame = Frame::new(&app, session).await?;
    let session = &frame.session;
    if view == View::CallBack {
        let counts = counts(&app, session.office, session.staff, cuts).await?;
        let views = links(view, &counts);
        let unattended = super::session::is_unattended(&headers);
        return call_back::show(&app, frame, views, &query, unattended).await;
    }
    let filter = query.filter(view, session, cuts);
    let after = Cursor::decode(&query.after);
    let mut db = app.pool.acquire().await?;
    // A whole number is that ticket, in whatever view, also when it is closed.
    let units = store::office::units(&mut db, session.office).await?;
    let found = match RegisterNumber::parse(&query.q, &frame.office.prefix) {
        Ok(number) => {
            let row = store::queue::by_number(&mut db, session.office, number).await?;
            Page { rows: row.into_iter().collect(), next: None }
        }
        Err(_) => {
            let which = if view == View::Closed { Which::Closed } else { Which::Open };
            let words = Words::of(&query.q);
            let words = words.as_ref();
            store::search::list(&mut db, session.office, which, &filter, words, after, PAGE).await?
        }
    };
    drop(db);
    let counts = counts(&app, session.office, session.staff, cuts).await?;
    let next = found.next.map(|cursor| query.address(view, Some(cursor)));
    let rows = found.rows.iter().map(|row| Row::new(row, &frame.office.prefix, now)).collect();
    let views = links(view, &counts);
    let channels = ChannelKind::ALL.map(|kind| (kind.as_str().to_owned(), kind.label().to_owned()));
    let levels = Level::ALL.map(|level| {
        (level.number().to_string(), format!("{} 级 {}", level.number(), level.label()))
    });
    Ok(html(&QueuePage {
        title: view.label().to_owned(),
        section: "queue",
        views,
        view: view.key(),
        channels: choices("全部渠道", &query.channel, channels.to_vec()),
        levels: choices("全部级别", &query.level, levels.to_vec()),
        filtered: query.is_filtered(),
        first: after.map(|_| query.address(view, None)),
        clear: format!("/desk?view={}", view.key()),
        empty: if next.is_some() {
            "前面的反映里没有符合条件的，请点“下一页”接着往后找。".to_owned()
        } else {
            nothing(view, &query, &frame, now)
        },
        units: choices("全部股室", &query.unit, of_units(&units)),
        states: choices("全部状态", &query.state, of_states(view)),
        due: (view != View::Overdue).then(|| query.due.clone()),
        q: query.q.clone(),
        rows,
        next,
        frame,
    }))
}

/// The views, with what is in each.
fn links(view: View, counts: &Counts) -> Vec<ViewLink> {
    let link = |one: View| ViewLink {
        label: one.label(),
        href: format!("/desk?view={}", one.key()),
        count: one.count(counts),
        current: one == view,
        alarming: one == View::Overdue && counts.overdue > 0,
    };
    View::ALL.into_iter().map(link).collect()
}

/// What a filter offers, all first; nothing where there is nothing to choose.
fn choices(all: &str, chosen: &str, of: Vec<(String, String)>) -> Vec<Choice> {
    let all = (!of.is_empty()).then(|| (String::new(), all.to_owned()));
    let choices = all.into_iter().chain(of);
    choices.map(|(value, label)| Choice { chosen: value == chosen, value, label }).collect()
}

fn of_units(units: &[Unit]) -> Vec<(String, String)> {
    units.iter().map(|unit| (unit.id.to_string(), unit.name.clone())).collect()
}

fn of_states(view: View) -> Vec<(String, String)> {
    if matches!(view, View::Unclaimed | View::Resolved | View::Closed) {
        return Vec::new();
    }
    let open = TicketState::NAMES.into_iter().filter(|state| *state != "closed");
    open.map(|state| (state.to_owned(), state_label(state).to_owned())).collect()
}

/// The empty state: kind, and useful.
fn nothing(view: View, query: &QueueQuery, frame: &Frame, now: DateTime<Utc>) -> String {
    if query.is_filtered() {
        return "没有符合条件的反映。换个条件，或清除筛选再看。".to_owned();
    }
    let opens = if frame.office.calendar.is_open(now) {
        "有新的反映会自动出现在这里。".to_owned()
    } else {
        let next = frame.office.calendar.next_open(now).value;
        format!("下一个办公时段{} 开始。", wording::moment(next, now))
    };
    match view {
        View::Today => format!("现在没有待办。{opens}"),
        View::Overdue => "没有逾期的反映，很好。".to_owned(),
        View::Mine => format!("您名下没有在办的反映。{opens}"),
        View::Soon => "24 小时内没有到期的反映。".to_owned(),
        View::Resolved => "没有等群众评价的反映。答复办结以后会列在这里。".to_owned(),
        View::Closed => "还没有销号的反映。".to_owned(),
        _ => format!("这里没有反映。{opens}"),
    }
}

/// Without data a browser would not tell the page.
fn changed() -> Event {
    Event::default().event("changed").data("queue")
}

/// Says that something changed; what it is, the page asks for itself.
pub(super) async fn live(State(app): State<Shared>, LoggedIn(session): LoggedIn) -> Response {
    // Then the browser comes again, and whoever has been locked out meanwhile does not get in.
    const FOR_AT_MOST: Duration = Duration::from_secs(600);
    struct Watching {
        changes: tokio::sync::broadcast::Receiver<crate::domain::id::OfficeId>,
        office: crate::domain::id::OfficeId,
        ends: tokio::time::Instant,
        closing: tokio_util::sync::CancellationToken,
        greeted: bool,
    }
    let watching = Watching {
        changes: app.live.watch(),
        office: session.office,
        ends: tokio::time::Instant::now() + FOR_AT_MOST,
        closing: app.closing.clone(),
        greeted: false,
    };
    let events = stream::unfold(watching, async |mut watching| {
        if !std::mem::replace(&mut watching.greeted, true) {
            // Whatever came between the page and this connection.
            return Some((Ok::<_, Infallible>(changed()), watching));
        }
        loop {
            tokio::select! {
                () = watching.closing.cancelled() => return None,
                () = tokio::time::sleep_until(watching.ends) => return None,
                change = watching.changes.recv() => match change {
                    Ok(office) if office != watching.office => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
                    // Also when some were missed.
                    _ => return Some((Ok(changed()), watching)),
                },
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

//! Whom to call back, and the next one of them whole: number, recordings, one key for each way that a
//! try can end (R5.2, R7.d).

use super::{
    Failure, Frame, acts, html, phone,
    queue::{QueueQuery, ViewLink},
    story::{self, Chapter},
};
use crate::{
    domain::{
        call_back::{CallBack, State, TRIES},
        register::RegisterNumber,
    },
    http::Shared,
    offices::Office,
    store::{
        self,
        call_back::{Line, Part},
    },
    wording,
};
use askama::Template;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// So many are listed of each part; the others come up as these are called.
const LISTED: i64 = 50;
/// Of what the citizen said, the newest.
const SAID: usize = 6;

/// One to be called, in a line.
struct Row {
    number: String,
    href: String,
    /// `late`, `close`, `today`, `later`: colours the bar; the words say the same.
    urgency: &'static str,
    urgent: bool,
    when: String,
    when_exact: String,
    person: String,
    waits: String,
    waits_exact: String,
    calls: i32,
    tries: String,
    problem: String,
    accountable: Option<String>,
    current: bool,
}

/// A part of the list.
struct Listed {
    title: &'static str,
    hint: &'static str,
    count: i64,
    rows: Vec<Row>,
}

/// The one that is to be called next, or was chosen.
pub(super) struct Card {
    number: String,
    name: Option<String>,
    due: String,
    urgent: bool,
    calls: phone::Calls,
    said: Vec<Chapter>,
    pub(super) try_: Try,
    seen: i32,
}

/// What can be noted of a try.
#[derive(Default)]
pub(super) struct Try {
    /// The four ways that it can end.
    pub(super) waiting: bool,
    /// What was noted can be taken back.
    pub(super) noted: bool,
    /// Where it is with.
    pub(super) says: String,
}

impl Try {
    pub(super) fn of(call_back: Option<CallBack>, now: DateTime<Utc>) -> Self {
        let Some(one) = call_back else { return Self::default() };
        let waiting = one.state == State::Waiting;
        let tried = one.tries > 0 || one.next_try_at > now;
        let says = match one.state {
            State::Waiting if one.next_try_at > now => {
                let at = wording::moment(one.next_try_at, now);
                match one.tries {
                    0 => format!("刚才占线，{at}再打。"),
                    tries => format!("已有 {tries} 次无人接听，{at}再打。"),
                }
            }
            State::Waiting if tried => format!("已有 {} 次无人接听，再打一次。", one.tries),
            State::Waiting => "等回拨。".to_owned(),
            State::Withheld => "对方没有显示号码，无法回拨。请听录音，看能不能办。".to_owned(),
            State::Reached => "已经接通过。".to_owned(),
            State::Unreachable => {
                format!("{TRIES} 次不同时间都无人接听，可以按“多次联系不上”答复办结。")
            }
            State::WrongNumber => "空号，或者不是本人，没有再列入待回拨。".to_owned(),
            State::Over => return Self::default(),
        };
        let noted = match one.state {
            State::Waiting => one.next_try_at > now,
            State::Reached | State::Unreachable | State::WrongNumber => true,
            State::Withheld | State::Over => false,
        };
        Self { waiting, noted, says }
    }
}

#[derive(Template)]
#[template(path = "desk/call_back.html")]
struct CallBackPage {
    frame: Frame,
    title: &'static str,
    section: &'static str,
    views: Vec<ViewLink>,
    /// What was noted just now, and of which ticket.
    done: Option<(&'static str, String)>,
    parts: Vec<Listed>,
    card: Option<Card>,
    empty: String,
}

pub(super) async fn show(
    app: &Shared,
    frame: Frame,
    views: Vec<ViewLink>,
    query: &QueueQuery,
    unattended: bool,
) -> Result<Response, Failure> {
    let (office, now) = (&frame.office, app.clock.now());
    let mut db = app.pool.acquire().await?;
    let counts = store::call_back::counts(&mut db, office.id, now).await?;
    let mut lists = Vec::new();
    for part in [Part::Now, Part::Later, Part::Withheld] {
        lists.push(store::call_back::list(&mut db, office.id, part, now, LISTED).await?);
    }
    let to_tell = store::call_back::to_tell(&mut db, office.id, LISTED).await?;
    let chosen = RegisterNumber::parse(&query.at, &office.prefix).ok();
    let next = chosen.or_else(|| lists.iter().flatten().next().map(|line| line.ticket));
    let current = next.map(|ticket| ticket.display(&office.prefix)).unwrap_or_default();
    // The page that asks by itself exchanges the list only.
    let card = match next.filter(|_| !unattended) {
        Some(ticket) => card(&mut db, office, ticket, now).await?,
        None => None,
    };
    // P05: who does not call sees what lists show.
    let card = card.map(|mut card| {
        if !frame.receives() {
            card.name = card.name.as_deref().map(wording::masked_name);
            card.calls.number = card.calls.number.as_deref().map(wording::masked_phone);
            card.calls.dials.clear();
            for call in &mut card.calls.calls {
                call.number = call.number.as_deref().map(wording::masked_phone);
            }
        }
        card
    });
    drop(db);
    let row = |line: Line| row(line, office, &current, now);
    let mut rows = lists.into_iter().map(|lines| lines.into_iter().map(row).collect());
    let mut part =
        |title, hint, count| Listed { title, hint, count, rows: rows.next().unwrap_or_default() };
    let mut parts = vec![
        part("现在回拨", "紧急的在先，其次先到期的，再次等得久的。", counts.now),
        part("稍后再打", "到时间自动回到上面。", counts.later),
        part("没有显示号码", "无法回拨，请听录音。", counts.withheld),
    ];
    parts.push(Listed {
        title: "请打电话告诉群众",
        hint: "微信和短信都没有送到；要说的话在那一件上。",
        count: counts.replies,
        rows: to_tell.into_iter().map(|(ticket, at)| telling(ticket, at, office, now)).collect(),
    });
    parts.retain(|part| !part.rows.is_empty());
    let opens = match office.calendar.is_open(now) {
        true => "有新的来电会自动出现在这里。".to_owned(),
        false => {
            let next = office.calendar.next_open(now).value;
            format!("下一个办公时段{} 开始。", wording::moment(next, now))
        }
    };
    let noted = RegisterNumber::parse(&query.of, &office.prefix).ok();
    let done = acts::done(&query.done).zip(noted.map(|of| of.display(&office.prefix)));
    Ok(html(&CallBackPage {
        title: "待回拨",
        section: "queue",
        views,
        done,
        parts,
        card,
        empty: format!("没有要回的电话。{opens}"),
        frame,
    }))
}

async fn card(
    db: &mut PgConnection,
    office: &Office,
    ticket: RegisterNumber,
    now: DateTime<Utc>,
) -> Result<Option<Card>, Failure> {
    let Some(whole) = store::ticket::whole(db, office.id, ticket).await? else { return Ok(None) };
    let Some(call_back) = store::call_back::read(db, office.id, ticket).await? else {
        return Ok(None);
    };
    let calls = store::call::of_ticket(db, office.id, ticket).await?;
    let media = store::media::of_ticket(db, office.id, ticket).await?;
    let number = ticket.display(&office.prefix);
    let mut said = story::tell(&whole, &media, &number, &BTreeMap::new(), &[], now);
    said.retain(|chapter| chapter.kind == "said");
    said.drain(..said.len().saturating_sub(SAID));
    Ok(Some(Card {
        name: whole.row.citizen_name.clone(),
        due: wording::until(whole.row.due_at, now),
        urgent: whole.row.urgent,
        calls: phone::show(&calls, now),
        said,
        try_: Try::of(Some(call_back), now),
        seen: whole.events.last().map_or(0, |event| event.seq),
        number,
    }))
}

fn row(line: Line, office: &Office, current: &str, now: DateTime<Utc>) -> Row {
    let left = line.due_at - now;
    let urgency = if line.state == "awaiting_citizen" {
        "later"
    } else if left <= TimeDelta::zero() {
        "late"
    } else if left < TimeDelta::hours(4) {
        "close"
    } else if wording::day_of(line.due_at) == wording::day_of(now) {
        "today"
    } else {
        "later"
    };
    let name = line.name.as_deref().map(wording::masked_name);
    let phone = line.phone.as_deref().map(wording::masked_phone);
    let person = [name, phone].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let later = line.next_try_at > now && !line.withheld;
    let (when, exact) = match later {
        true => (format!("{}再打", wording::moment(line.next_try_at, now)), line.next_try_at),
        false => (wording::until(line.due_at, now), line.due_at),
    };
    let number = line.ticket.display(&office.prefix);
    Row {
        href: format!("/desk?view=call_back&at={number}"),
        urgency,
        urgent: line.urgent,
        when,
        when_exact: wording::exact(exact),
        person: if person.is_empty() { "没有显示号码".to_owned() } else { person },
        waits: format!("等了 {}", wording::span(now - line.waits_since)),
        waits_exact: wording::exact(line.waits_since),
        calls: line.calls,
        tries: match line.tries {
            0 => String::new(),
            tries => format!("{tries} 次无人接听"),
        },
        problem: line.problem,
        accountable: line.accountable,
        current: number == current,
        number,
    }
}

fn telling(ticket: RegisterNumber, at: DateTime<Utc>, office: &Office, now: DateTime<Utc>) -> Row {
    let number = ticket.display(&office.prefix);
    Row {
        href: format!("/desk/tickets/{number}"),
        urgency: "close",
        urgent: false,
        when: "答复没有送到".to_owned(),
        when_exact: wording::exact(at),
        person: String::new(),
        waits: format!("等了 {}", wording::span(now - at)),
        waits_exact: wording::exact(at),
        calls: 0,
        tries: String::new(),
        problem: "打开这一件，照着写好的话打电话告诉群众".to_owned(),
        accountable: None,
        current: false,
        number,
    }
}

//! The API (DESIGN.md §5): JSON, bearer tokens with scopes, problem details, lists by cursor.

mod acts;

pub use acts::act;

use super::{
    Shared,
    problem::{FieldProblem, Problem},
    serve::Peer,
};
use crate::{
    desk::{self, DeskError},
    domain::{
        event::Actor,
        id::{OfficeId, UnitId},
        level::Level,
        register::RegisterNumber,
        ticket::{NotAllowed, State as TicketState},
    },
    intake::{AcceptError, Accepted},
    reply,
    search::words::Words,
    secret,
    store::{
        self,
        access::ApiToken,
        queue::{Cursor, Filter, Page, QueueRow},
        search::Which,
    },
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Extension, FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeZone, Utc};
use intake_contract::{ChannelKind, china, clean_text};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

const BODY_LIMIT: usize = 128 * 1024;
const PAGE: i64 = 50;
const LONGEST_PAGE: i64 = 200;

/// A verified caller.
pub struct Caller(ApiToken);

impl Caller {
    fn may(&self, scope: &str) -> Result<(), Problem> {
        if self.0.scopes.iter().any(|has| has == scope) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "Not allowed")
            .detail(format!("this token lacks the scope {scope}")))
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let unknown = || {
            Problem::new(StatusCode::UNAUTHORIZED, "Not authenticated")
                .detail("send Authorization: Bearer with a valid token")
        };
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(unknown)?;
        let mut db = app.pool.acquire().await?;
        let found = store::access::api_token(&mut db, &secret::digest(token)).await?;
        found.map(Caller).ok_or_else(unknown)
    }
}

/// The description of this API.
pub async fn openapi() -> Response {
    let body = include_str!("openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Registers what was said at the counter or on the window's telephone. The same
/// `Idempotency-Key` with the same body answers with the ticket that it made.
pub async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, Problem> {
    caller.may("tickets:write")?;
    let key = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key is missing")
                .detail("send a unique Idempotency-Key with each entry, and the same one when you repeat it")
        })?
        .to_owned();
    let body = read_body(request, peer).await?;
    let entry: intake_counter::Entry = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "The body is no entry")
            .detail(error.to_string())
    })?;
    let source = format!("api:{}", caller.0.name);
    let submission = entry.into_submission(&source, &key, None, body).map_err(|errors| {
        let errors = errors
            .into_iter()
            .map(|error| FieldProblem {
                field: error.field.to_string(),
                message: error.message.to_string(),
            })
            .collect();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "The entry is not complete").fields(errors)
    })?;
    match app.intake.accept(caller.0.office, submission).await {
        Ok(Accepted::Ticket { differs: true, .. }) => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Idempotency-Key was used before")
                .detail("this Idempotency-Key came with another body; use a new one"))
        }
        Ok(accepted) => match accepted.ticket() {
            Some(ticket) => {
                let whole = load(&app, &caller, ticket).await?;
                Ok((StatusCode::CREATED, Json(Item::from(&app, &caller, &whole.row)?))
                    .into_response())
            }
            None => {
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "The entry cannot be stored")
                    .detail("it was kept for the staff to look at"))
            }
        },
        Err(AcceptError::Busy(busy)) => Err(Problem::busy(busy.retry_after_s)),
        Err(AcceptError::Invalid(error)) => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "The entry is out of bounds")
                .detail(error.to_string()))
        }
        Err(AcceptError::NoOffice) => Err(Problem::new(StatusCode::NOT_FOUND, "No such office")),
    }
}

async fn read_body(request: Request<Body>, peer: Peer) -> Result<Bytes, Problem> {
    let read = super::channels::read(request.into_body(), BODY_LIMIT, peer.body_timeout).await;
    read.map_err(|refusal| {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        Problem::new(status, "The body cannot be read")
    })
}

/// What may be asked of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    state: Option<String>,
    channel: Option<String>,
    level: Option<String>,
    unit: Option<String>,
    due_from: Option<String>,
    due_before: Option<String>,
    q: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

/// The open queue, most urgent first; or what is closed, newest first.
pub async fn list(
    State(app): State<Shared>,
    caller: Caller,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.may("tickets:read")?;
    let wrong =
        |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "The query is wrong").detail(detail);
    let Query(query) = query.map_err(|error| wrong(&error.body_text()))?;
    // An empty value means: not filtered.
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (which, state) = match query.state.as_deref() {
        None | Some("" | "open") => (Which::Open, None),
        Some("closed") => (Which::Closed, None),
        Some(asked) => {
            let known = TicketState::NAMES.into_iter().find(|name| *name == asked);
            let values = || wrong(&format!("state is open, {}", TicketState::NAMES.join(", ")));
            (Which::Open, Some(known.ok_or_else(values)?))
        }
    };
    let channel = given(query.channel)
        .map(|text| {
            ChannelKind::parse(&text)
                .ok_or_else(|| wrong("channel is wechat, hotline, window_phone or counter"))
        })
        .transpose()?;
    let level = given(query.level)
        .map(|text| {
            let level = text.parse().ok().and_then(Level::from_number);
            level.ok_or_else(|| wrong("level is 1, 3 or 5"))
        })
        .transpose()?;
    let instant = |key: &str, text: Option<String>| {
        let at = given(text).map(|text| {
            moment(&text).ok_or_else(|| {
                wrong(&format!(
                    "{key} is a date as 2026-11-25 or an instant as 2026-11-25T16:30:00+08:00"
                ))
            })
        });
        at.transpose()
    };
    let due_from = instant("due_from", query.due_from)?;
    let due_before = instant("due_before", query.due_before)?;
    let limit = given(query.limit)
        .map(|text| {
            let limit = text.parse().ok().filter(|limit| (1..=LONGEST_PAGE).contains(limit));
            limit.ok_or_else(|| wrong("limit is 1 to 200"))
        })
        .transpose()?
        .unwrap_or(PAGE);
    let after = given(query.after)
        .map(|text| Cursor::decode(&text).ok_or_else(|| wrong("after is no cursor of this list")))
        .transpose()?;
    let words = given(query.q);
    if words.as_deref().is_some_and(|words| words != clean_text(words)) {
        return Err(wrong("q holds control characters"));
    }
    let office = caller.0.office;
    let prefix = app.offices.get(office).map(|office| office.prefix.clone()).unwrap_or_default();
    let number = words.as_deref().and_then(|words| RegisterNumber::parse(words, &prefix).ok());
    let words = words.as_deref().and_then(Words::of);
    let mut db = app.pool.acquire().await?;
    let unit = match given(query.unit) {
        Some(name) => Some(unit_named(&mut db, office, &name).await?.map_err(|values| {
            wrong(&format!("unit is {}", if values.is_empty() { "none yet" } else { &values }))
        })?),
        None => None,
    };
    let filter = Filter { channel, level, unit, state, due_from, due_before, ..Filter::default() };
    let page = if let Some(number) = number {
        let found = store::queue::by_number(&mut db, office, number).await?;
        Page { rows: found.filter(|row| filter.allows(row)).into_iter().collect(), next: None }
    } else {
        store::search::list(&mut db, office, which, &filter, words.as_ref(), after, limit).await?
    };
    drop(db);
    let next = page.next.map(|cursor| cursor.encode());
    let items = page.rows.iter().map(|row| Item::from(&app, &caller, row));
    let items = items.collect::<Result<Vec<_>, _>>()?;
    Ok(Json(serde_json::json!({ "items": items, "next": next })).into_response())
}

/// An instant, or the beginning of a day in the office's zone. A plus sign that nobody encoded has
/// become a space.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    let day = || {
        let day: NaiveDate = text.parse().ok()?;
        Some(china().from_local_datetime(&day.and_time(NaiveTime::MIN)).single()?.to_utc())
    };
    let instant = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    instant.map(|at| at.to_utc()).ok().or_else(day)
}

/// The unit of this name, or the names that there are.
async fn unit_named(
    db: &mut PgConnection,
    office: OfficeId,
    name: &str,
) -> Result<Result<UnitId, String>, Problem> {
    let units = store::office::units(db, office).await?;
    Ok(match units.iter().find(|unit| unit.name == name) {
        Some(unit) => Ok(unit.id),
        None => Err(units.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>().join(", ")),
    })
}

/// What a referral says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Referral {
    unit: String,
}

/// R7.b, R7.c: refers a ticket to a unit; the same again changes nothing.
pub async fn refer(
    State(app): State<Shared>,
    caller: Caller,
    Path(number): Path<String>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    caller.may("tickets:write")?;
    let ticket = numbered(&app, &caller, &number)?;
    let body = read_body(request, peer).await?;
    let wrong = |detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "The body is no referral").detail(detail)
    };
    let referral: Referral =
        serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    let office = caller.0.office;
    let mut db = app.pool.acquire().await?;
    let unit = unit_named(&mut db, office, &referral.unit).await?;
    let unit = unit.map_err(|values| wrong(format!("unit is one of: {values}")))?;
    drop(db);
    let by = Actor::Program(caller.0.name.clone());
    let not_now = |detail: &str| {
        Err(Problem::new(StatusCode::CONFLICT, "It cannot be referred now").detail(detail))
    };
    match desk::refer(&app.pool, &app.clock, office, ticket, unit, by).await {
        Ok(()) => {}
        Err(DeskError::NoTicket | DeskError::NoUnit) => return Err(no_ticket()),
        Err(DeskError::Store(error)) => return Err(error.into()),
        Err(DeskError::NotAllowed(NotAllowed::NotClaimed)) => {
            return not_now("somebody of the staff has to claim it first");
        }
        Err(DeskError::NotAllowed(NotAllowed::Waiting)) => {
            return not_now("it waits for the citizen");
        }
        Err(_) => return not_now("it has a result"),
    }
    app.live.changed(office);
    let whole = load(&app, &caller, ticket).await?;
    Ok(Json(Item::from(&app, &caller, &whole.row)?).into_response())
}

/// One ticket, with its messages, its events and what the citizen was told.
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path(number): Path<String>,
) -> Result<Response, Problem> {
    caller.may("tickets:read")?;
    let ticket = numbered(&app, &caller, &number)?;
    let whole = load(&app, &caller, ticket).await?;
    let messages: Vec<_> = whole
        .messages
        .iter()
        .map(|message| {
            serde_json::json!({
                "seq": message.seq,
                "occurred_at": local(message.occurred_at),
                "received_at": local(message.received_at),
                "text": message.text,
                "attachments": message.attachments,
            })
        })
        .collect();
    let events: Vec<_> = whole
        .events
        .iter()
        .map(|event| {
            let data: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
            serde_json::json!({
                "seq": event.seq, "at": local(event.at), "actor": event.actor,
                "kind": event.kind, "data": data,
            })
        })
        .collect();
    let replies = replies(&app, &caller, ticket).await?;
    let item = Item::from(&app, &caller, &whole.row)?;
    let mut body = serde_json::to_value(item).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("messages".to_owned(), messages.into());
        fields.insert("events".to_owned(), events.into());
        fields.insert("replies".to_owned(), replies.into());
    }
    Ok(Json(body).into_response())
}

/// What the citizen was told, and how.
async fn replies(
    app: &Shared,
    caller: &Caller,
    ticket: RegisterNumber,
) -> Result<Vec<serde_json::Value>, Problem> {
    let office = app.offices.get(caller.0.office).ok_or_else(no_ticket)?;
    let mut db = app.pool.acquire().await?;
    let rows = store::reply::of_ticket(&mut db, office.id, ticket).await?;
    let replies = rows.iter().map(|row| {
        let link = app.citizen.links.url(office.id, ticket, row.created_at);
        let link = link.as_deref();
        let words = reply::words(&office, ticket, row.kind, &row.facts, link, row.created_at);
        let attempts = row.attempts.iter().map(|one| {
            serde_json::json!({
                "path": one.path, "at": local(one.began_at), "outcome": one.outcome,
                "code": one.code, "says": one.says, "delivery": one.delivery,
            })
        });
        serde_json::json!({
            "kind": row.kind, "state": row.state, "text": words.written(),
            "created_at": local(row.created_at), "ended_at": row.ended_at.map(local),
            "called_by": row.called_by, "attempts": attempts.collect::<Vec<_>>(),
        })
    });
    Ok(replies.collect())
}

async fn load(
    app: &Shared,
    caller: &Caller,
    ticket: RegisterNumber,
) -> Result<store::ticket::Whole, Problem> {
    let mut db = app.pool.acquire().await?;
    store::ticket::whole(&mut db, caller.0.office, ticket).await?.ok_or_else(no_ticket)
}

fn no_ticket() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "No such ticket")
}

/// A ticket by what a path calls it.
fn numbered(app: &Shared, caller: &Caller, number: &str) -> Result<RegisterNumber, Problem> {
    let office = app.offices.get(caller.0.office).ok_or_else(no_ticket)?;
    RegisterNumber::parse(number, &office.prefix).map_err(|_| no_ticket())
}

/// RFC 3339 in the office's zone.
fn local(at: DateTime<Utc>) -> String {
    at.with_timezone(&china()).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false)
}

/// A ticket as the API shows it.
#[derive(Debug, Serialize)]
struct Item {
    number: String,
    channel: ChannelKind,
    state: String,
    level: Level,
    urgent: bool,
    overdue: bool,
    problem: String,
    citizen: Citizen,
    accountable: Option<String>,
    unit: Option<String>,
    registered_at: String,
    accepted_at: String,
    follow_up_at: Option<String>,
    due_at: String,
    provisional: bool,
}

#[derive(Debug, Serialize)]
struct Citizen {
    name: Option<String>,
    phone: Option<String>,
}

impl Item {
    fn from(app: &Shared, caller: &Caller, row: &QueueRow) -> Result<Self, Problem> {
        let office = app
            .offices
            .get(caller.0.office)
            .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "No such office"))?;
        Ok(Self {
            number: row.ticket.display(&office.prefix),
            channel: row.channel,
            state: row.state.clone(),
            level: row.level,
            urgent: row.urgent,
            overdue: row.overdue,
            problem: row.problem.clone(),
            citizen: Citizen { name: row.citizen_name.clone(), phone: row.citizen_phone.clone() },
            accountable: row.accountable.clone(),
            unit: row.unit.clone(),
            registered_at: local(row.registered_at),
            accepted_at: local(row.accepted_at),
            follow_up_at: row.follow_up_at.map(local),
            due_at: local(row.due_at),
            provisional: row.provisional,
        })
    }
}

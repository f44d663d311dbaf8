//! What programs of the office do on a ticket: one address for each act, as officers do it.

use super::{Caller, Item, load, no_ticket, numbered, read_body};
use crate::{
    desk::{self, Act, DAYS_TO_BRING, Deed, DeskError, LONGEST_TEXT},
    domain::{event::Actor, ticket::NotAllowed},
    http::{Shared, announce, problem::Problem, serve::Peer},
};
use axum::{
    Json,
    body::Body,
    extract::{Extension, Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::Value;

/// Does something to a ticket, as its address says. The body may name the newest event that the
/// caller has `seen`: then the same again does nothing, and what has changed since is refused.
pub async fn act(
    State(app): State<Shared>,
    caller: Caller,
    Path((number, name)): Path<(String, String)>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    if !Act::NAMES.contains(&name.as_str()) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "No such address"));
    }
    caller.may("tickets:write")?;
    let ticket = numbered(&app, &caller, &number)?;
    let office = app.offices.get(caller.0.office).ok_or_else(no_ticket)?;
    let body = read_body(request, peer).await?;
    let (act, seen) = read(&name, &body)?;
    let by = Actor::Program(caller.0.name.clone());
    let (pool, clock, office) = (&app.pool, &app.clock, &*office);
    let deed = Deed { pool, clock, office, ticket, by: &by, seen };
    let done = desk::perform(deed, &act).await.map_err(refusal)?;
    announce(&app, office.id, &done).await;
    let (status, shown) = match done.made {
        Some(made) => (StatusCode::CREATED, made),
        None => (StatusCode::OK, ticket),
    };
    let whole = load(&app, &caller, shown).await?;
    Ok((status, Json(Item::from(&app, &caller, &whole.row)?)).into_response())
}

fn read(name: &str, body: &[u8]) -> Result<(Act, Option<i32>), Problem> {
    let wrong = |detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "The body does not fit").detail(detail)
    };
    let body = if body.is_empty() { b"{}" } else { body };
    let mut body: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    let seen = match body.remove("seen") {
        None | Some(Value::Null) => None,
        Some(seen) => {
            let number = seen.as_i64().and_then(|seen| i32::try_from(seen).ok());
            Some(number.ok_or_else(|| wrong("seen is the seq of an event".to_owned()))?)
        }
    };
    let act = serde_json::from_value(serde_json::json!({ name: body }));
    Ok((act.map_err(|error| wrong(error.to_string()))?, seen))
}

fn refusal(error: DeskError) -> Problem {
    let conflict =
        |detail: &str| Problem::new(StatusCode::CONFLICT, "It cannot be done now").detail(detail);
    let wrong = |detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "The body does not fit").detail(detail)
    };
    match error {
        DeskError::NoTicket => no_ticket(),
        DeskError::Store(error) => error.into(),
        DeskError::NoUnit => wrong("no such unit".to_owned()),
        DeskError::NoOther => wrong("the other ticket is not there".to_owned()),
        DeskError::SameTicket => wrong("the other ticket is this one".to_owned()),
        DeskError::OtherEnded => conflict("the other ticket has a result"),
        DeskError::NoWorkingDay => wrong(format!(
            "until is a working day to come, as 2026-12-02; without it the office waits {DAYS_TO_BRING} working days"
        )),
        DeskError::NoPhone => wrong("not a telephone number".to_owned()),
        DeskError::TooLong => wrong(format!("a text has {LONGEST_TEXT} characters at most")),
        DeskError::NoMessage => wrong("messages are seq of messages of this ticket".to_owned()),
        DeskError::NothingStays => wrong("one message must stay".to_owned()),
        DeskError::AlreadySplit => {
            conflict("one of these messages is registered on its own already")
        }
        DeskError::Changed => conflict("the ticket has changed since; read it again"),
        DeskError::NotAllowed(NotAllowed::TextMissing) => {
            wrong("a text that the rules ask for is empty".to_owned())
        }
        DeskError::NotAllowed(reason) => conflict(&reason.to_string()),
    }
}

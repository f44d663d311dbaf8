//! The citizen's judgement (R7.d), and taking a matter back.

use super::{Contact, Failure, Opened, Sending, Shared, Short, committed, html, page::whole};
use crate::{
    citizen::{self, CitizenError},
    domain::ticket::{Evaluation, NotAllowed, Outcome, State},
};
use askama::Template;
use axum::{extract::State as Of, http::StatusCode, response::Response};
use serde::Deserialize;
use sqlx::Connection;

#[derive(Template)]
#[template(path = "citizen/evaluate.html")]
struct EvaluatePage {
    contact: Contact,
    token: String,
    number: String,
    grades: [Evaluation; 5],
    chosen: Option<Evaluation>,
    text: String,
    error: Option<&'static str>,
}

impl EvaluatePage {
    fn new(app: &Shared, opened: Opened) -> Self {
        let (number, token) = (opened.number(), opened.token);
        let contact = Contact::of(&opened.office, app.clock.now());
        let (chosen, text, error) = (None, String::new(), None);
        Self { contact, token, number, grades: Evaluation::ALL, chosen, text, error }
    }
}

pub(super) async fn evaluate_page(
    Of(app): Of<Shared>,
    opened: Opened,
) -> Result<Response, Failure> {
    match whole(&app, &opened).await?.1 {
        State::Resolved { outcome: Outcome::Withdrawn, .. } => Ok(opened.done("")),
        State::Resolved { .. } => Ok(html(StatusCode::OK, &EvaluatePage::new(&app, opened))),
        State::Evaluated { .. } => Ok(opened.done("evaluated_before")),
        _ => Ok(opened.done("")),
    }
}

#[derive(Deserialize)]
pub(super) struct Judgement {
    #[serde(default)]
    grade: String,
    #[serde(default)]
    text: String,
}

pub(super) async fn evaluate(
    Of(app): Of<Shared>,
    Sending(opened): Sending,
    Short(form): Short<Judgement>,
) -> Result<Response, Failure> {
    let again = |opened, chosen, error| {
        let page = EvaluatePage::new(&app, opened);
        let page = EvaluatePage { chosen, text: form.text.clone(), error: Some(error), ..page };
        Ok(html(StatusCode::UNPROCESSABLE_ENTITY, &page))
    };
    let Some(grade) = Evaluation::parse(&form.grade) else {
        return again(opened, None, "请先选一项评价，再点“提交评价”。");
    };
    let mut db = app.pool.acquire().await?;
    let mut transaction = db.begin().await?;
    let (office, ticket, now) = (&opened.office, opened.ticket, app.clock.now());
    let done = citizen::evaluate(&mut transaction, office, ticket, grade, &form.text, now).await;
    match done {
        Ok(()) => {
            transaction.commit().await?;
            committed(&app, office.id, false);
            Ok(opened.done("evaluated"))
        }
        Err(CitizenError::TooLong) => again(opened, Some(grade), "说明最多 500 字，请精简一下。"),
        Err(CitizenError::NotAllowed(NotAllowed::AlreadyResolved)) => {
            Ok(opened.done("evaluated_before"))
        }
        // Not resolved yet, taken up again, or struck off: the page says where it stands.
        Err(CitizenError::NotAllowed(_)) => Ok(opened.done("")),
        Err(CitizenError::NoTicket) => Err(Failure::no_link()),
        Err(CitizenError::Store(error)) => Err(error.into()),
    }
}

#[derive(Template)]
#[template(path = "citizen/withdraw.html")]
struct WithdrawPage {
    contact: Contact,
    token: String,
    number: String,
    text: String,
    error: Option<&'static str>,
}

impl WithdrawPage {
    fn new(app: &Shared, opened: Opened) -> Self {
        let (number, token) = (opened.number(), opened.token);
        let contact = Contact::of(&opened.office, app.clock.now());
        Self { contact, token, number, text: String::new(), error: None }
    }
}

pub(super) async fn withdraw_page(
    Of(app): Of<Shared>,
    opened: Opened,
) -> Result<Response, Failure> {
    let state = whole(&app, &opened).await?.1;
    if state.is_pressing() || matches!(state, State::AwaitingCitizen { .. }) {
        Ok(html(StatusCode::OK, &WithdrawPage::new(&app, opened)))
    } else {
        Ok(opened.done("resolved_before"))
    }
}

#[derive(Deserialize)]
pub(super) struct Withdrawal {
    #[serde(default)]
    text: String,
}

pub(super) async fn withdraw(
    Of(app): Of<Shared>,
    Sending(opened): Sending,
    Short(form): Short<Withdrawal>,
) -> Result<Response, Failure> {
    let mut db = app.pool.acquire().await?;
    let mut transaction = db.begin().await?;
    let (office, ticket, now) = (&opened.office, opened.ticket, app.clock.now());
    match citizen::withdraw(&mut transaction, office, ticket, &form.text, now).await {
        Ok(()) => {
            transaction.commit().await?;
            committed(&app, office.id, false);
            Ok(opened.done("withdrawn"))
        }
        Err(CitizenError::TooLong) => {
            let error = Some("原因最多 500 字，请精简一下。");
            let page = WithdrawPage { text: form.text, error, ..WithdrawPage::new(&app, opened) };
            Ok(html(StatusCode::UNPROCESSABLE_ENTITY, &page))
        }
        // Sent twice, most likely: it is taken back, or has another result.
        Err(CitizenError::NotAllowed(_)) => {
            let withdrawn = matches!(
                whole(&app, &opened).await?.1,
                State::Resolved { outcome: Outcome::Withdrawn, .. }
            );
            Ok(opened.done(if withdrawn { "withdrawn" } else { "resolved_before" }))
        }
        Err(CitizenError::NoTicket) => Err(Failure::no_link()),
        Err(CitizenError::Store(error)) => Err(error.into()),
    }
}

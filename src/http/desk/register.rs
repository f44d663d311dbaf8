//! The registration form for the counter and the window's telephone.

use super::{Failure, Frame, html, must_receive, session::LoggedIn};
use crate::{
    http::Shared,
    intake::{AcceptError, Accepted},
    secret,
};
use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use intake_counter::{Entry, FieldError, Person};
use serde::{Deserialize, Serialize};

#[derive(Template)]
#[template(path = "desk/register.html")]
struct RegisterPage {
    frame: Frame,
    title: String,
    section: &'static str,
    entry: Written,
    errors: Vec<FieldError>,
    says: Option<&'static str>,
}

impl RegisterPage {
    fn error(&self, field: &str) -> Option<&'static str> {
        self.errors.iter().find(|error| error.field == field).map(|error| error.message)
    }
}

/// The form as it was filled in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Written {
    #[serde(default)]
    channel: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    phone: String,
    #[serde(default)]
    problem: String,
    #[serde(default)]
    urgent: String,
    /// Made with the empty form: sending the form twice registers once.
    #[serde(default)]
    entry: String,
    #[serde(default)]
    #[serde(skip_serializing)]
    csrf: String,
}

#[derive(Deserialize)]
pub(super) struct RegisterQuery {
    #[serde(default)]
    channel: String,
}

fn show(
    frame: Frame,
    entry: Written,
    errors: Vec<FieldError>,
    says: Option<&'static str>,
) -> Response {
    let title = "登记反映".to_owned();
    html(&RegisterPage { frame, title, section: "register", entry, errors, says })
}

pub(super) async fn page(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Query(query): Query<RegisterQuery>,
) -> Result<Response, Failure> {
    must_receive(session.role)?;
    let frame = Frame::new(&app, session).await?;
    let channel = if query.channel == "window_phone" { "window_phone" } else { "counter" };
    let entry =
        Written { channel: channel.to_owned(), entry: secret::token(), ..Written::default() };
    Ok(show(frame, entry, Vec::new(), None))
}

pub(super) async fn register(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Form(written): Form<Written>,
) -> Result<Response, Failure> {
    session.check_form(&written.csrf)?;
    must_receive(session.role)?;
    let office = session.office;
    let login = session.login.clone();
    let frame = Frame::new(&app, session).await?;
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.trim().is_empty());
    let entry = Entry {
        channel: written.channel.clone(),
        citizen: Person { name: given(&written.name), phone: given(&written.phone) },
        problem: written.problem.clone(),
        urgent: !written.urgent.is_empty(),
    };
    let raw = serde_json::to_vec(&written).unwrap_or_default();
    let source = format!("desk:{login}");
    let submission = match entry.into_submission(&source, &written.entry, Some(&login), raw.into())
    {
        Ok(submission) => submission,
        Err(errors) => {
            let mut response =
                show(frame, written, errors, Some("还没有登记，请看下面红色的提示。"));
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            return Ok(response);
        }
    };
    let prefix = frame.office.prefix.clone();
    match app.intake.accept(office, submission).await {
        Ok(Accepted::Ticket { made, differs, .. }) => {
            let number = made.ticket.display(&prefix);
            // Sent twice, with the content changed in between: the first one stands.
            let done = if differs { "registered_before" } else { "registered" };
            Ok(Redirect::to(&format!("/desk/tickets/{number}?done={done}")).into_response())
        }
        Ok(Accepted::Quarantined | Accepted::Said { .. }) => {
            Ok(Redirect::to("/desk/quarantine").into_response())
        }
        Err(AcceptError::Invalid(_)) => {
            let errors = vec![FieldError {
                field: "problem", message: "内容太长，请精简后再登记"
            }];
            let mut response =
                show(frame, written, errors, Some("还没有登记，请看下面红色的提示。"));
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            Ok(response)
        }
        Err(AcceptError::Busy(_) | AcceptError::NoOffice) => {
            let says =
                "系统忙，还没有登记成功。内容都在下面，请过几秒再按一次“登记”，不会重复编号。";
            let mut response = show(frame, written, Vec::new(), Some(says));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        }
    }
}

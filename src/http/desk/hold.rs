//! Holding a ticket's recordings, and letting them go by the rule again.

use super::{
    Failure, Frame,
    acts::Written,
    session::LoggedIn,
    ticket::{Shown, named, show},
};
use crate::{
    desk::{self, Deed, DeskError, LONGEST_TEXT},
    domain::{event::Actor, ticket::NotAllowed},
    http::{Shared, announce},
    store::media::{MediaRow, Standing},
};
use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};

/// What the page offers.
pub(super) struct Holding {
    /// Whether they are held now.
    pub(super) held: bool,
    /// `hold` or `release`, where this person may.
    pub(super) act: Option<&'static str>,
}

impl Holding {
    /// For a ticket with recordings that are here or to come and somebody who may hold them; `None`
    /// for others, unless they are held.
    pub(super) fn of(media: &[MediaRow], held: bool, frame: &Frame) -> Option<Self> {
        let here = |row: &MediaRow| {
            row.recorded && matches!(row.standing, Standing::Kept(_) | Standing::Waiting { .. })
        };
        let act = if held { "release" } else { "hold" };
        let act = frame.session.role.holds_recordings().then_some(act);
        (held || act.is_some() && media.iter().any(here)).then_some(Self { held, act })
    }
}

/// Carries the form out, and answers with the ticket's page.
pub(super) async fn act(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path((number, name)): Path<(String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let written = Written::of(fields);
    session.check_form(written.get("csrf"))?;
    let act = ["hold", "release"].into_iter().find(|one| *one == name).ok_or_else(Failure::gone)?;
    if !session.role.holds_recordings() {
        return Err(Failure::says(
            StatusCode::FORBIDDEN,
            "没有权限",
            "保留录音和取消保留由带班领导、中心班子或办公室办理。",
        ));
    }
    let (office, ticket) = named(&app, &session, &number)?;
    let by = Actor::Staff(session.staff);
    let seen = written.get("seen").parse().ok();
    let deed = Deed { pool: &app.pool, clock: &app.clock, office: &office, ticket, by: &by, seen };
    let says = match desk::hold(deed, act == "hold", written.get("reason")).await {
        Ok(done) => {
            announce(&app, office.id, &done).await;
            let number = ticket.display(&office.prefix);
            return Ok(Redirect::to(&format!("/desk/tickets/{number}?done={act}")).into_response());
        }
        Err(DeskError::NoTicket) => return Err(Failure::gone()),
        Err(DeskError::Store(error)) => return Err(error.into()),
        Err(DeskError::NotAllowed(NotAllowed::TextMissing)) => "先写原因，再点按钮。".to_owned(),
        Err(DeskError::TooLong) => format!("写得太长了，最多 {LONGEST_TEXT} 个字，请精简。"),
        Err(_) => "这件反映刚刚有变化。请先看下面最新的记录，再点一次。".to_owned(),
    };
    let frame = Frame::new(&app, session).await?;
    let says = Some(format!("没有执行：{says}"));
    let mut response = show(&app, frame, ticket, Shown { act, written, says, done: None }).await?;
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    Ok(response)
}

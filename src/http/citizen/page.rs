//! One ticket, for the citizen whose matter it is.

use super::{
    Contact, Failure, Opened, Query, html,
    trail::{self, Step},
    words::{self, Promise, outcome_detail},
};
use crate::{
    domain::ticket::{Outcome, State},
    http::Shared,
    store::{self, ticket::Whole},
    wording::said,
};
use askama::Template;
use axum::{extract::State as Of, http::StatusCode, response::Response};

/// What a page shows of the citizen's own words, in characters.
const PROBLEM: usize = 60;
/// So many steps are shown, the newest first.
const STEPS: usize = 24;
/// Of the steps the words are shown so far, in bytes altogether; of those beyond so many characters
/// each. With the answer and what is asked above, which are never cut, the page stays small.
const TOLD: usize = 3 * 1024;
const SHORT: usize = 40;

/// What is asked of the citizen.
struct Asked {
    missing: String,
    until: String,
    late: bool,
    /// Something came since.
    came: bool,
}

#[derive(Template)]
#[template(path = "citizen/ticket.html")]
struct TicketPage {
    contact: Contact,
    token: String,
    number: String,
    stands: String,
    done: Option<&'static str>,
    problem: String,
    promise: Option<Promise>,
    asked: Option<Asked>,
    result: Option<String>,
    /// The newest words of the office.
    answer: Option<Step>,
    may_add: bool,
    may_evaluate: bool,
    may_withdraw: bool,
    steps: Vec<Step>,
}

/// A ticket with its state; a link to none is none.
pub(super) async fn whole(app: &Shared, opened: &Opened) -> Result<(Whole, State), Failure> {
    let mut db = app.pool.acquire().await?;
    let whole = store::ticket::whole(&mut db, opened.office.id, opened.ticket)
        .await?
        .ok_or_else(Failure::no_link)?;
    let state = store::citizen::state(&mut db, opened.office.id, opened.ticket)
        .await?
        .ok_or_else(Failure::no_link)?;
    Ok((whole, state))
}

pub(super) async fn page(
    Of(app): Of<Shared>,
    opened: Opened,
    query: Query,
) -> Result<Response, Failure> {
    let (whole, state) = whole(&app, &opened).await?;
    let now = app.clock.now();
    let row = &whole.row;
    let done = match query.get("done").map(String::as_str) {
        Some("more") => Some("收到了，已补充到这件反映，工作人员会看到。"),
        Some("more_before") => Some("这些内容之前已经收到，没有重复登记。"),
        Some("evaluated") => Some("您的评价收到了，谢谢您。"),
        Some("evaluated_before") => Some("您之前已经评价过了，以第一次为准。谢谢您。"),
        Some("withdrawn") => Some("已经撤回。以后需要，随时可以再向我们反映。"),
        Some("resolved_before") => Some("这件事已经有结果了，不用再撤回。"),
        _ => None,
    };
    let asked = match &state {
        State::AwaitingCitizen { missing, until, .. } => {
            let (until, late) = (said(*until, now), *until <= now);
            Some(Asked { missing: missing.clone(), until, late, came: whole.material_came })
        }
        _ => None,
    };
    let outcome = match &state {
        State::Resolved { outcome, .. }
        | State::Evaluated { outcome, .. }
        | State::Closed { outcome, .. } => Some(outcome),
        _ => None,
    };
    let withdrawn = outcome == Some(&Outcome::Withdrawn);
    let result = outcome.and_then(|outcome| outcome_detail(outcome, now));
    let mut steps = trail::tell(&whole, now);
    // Said once: above, where it is looked for.
    let newest = steps.iter().position(|step| step.answer && step.text.is_some());
    let answer = newest.map(|at| steps.remove(at));
    // An old telephone loads it all: the trail of a long matter is cut, its newest answers never.
    steps.truncate(STEPS);
    let mut told = 0;
    for text in steps.iter_mut().filter_map(|step| step.text.as_mut()) {
        told += text.len();
        if told <= TOLD {
            continue;
        }
        if let Some((end, _)) = text.char_indices().nth(SHORT) {
            text.truncate(end);
            text.push_str("……（全文请向窗口询问）");
        }
    }
    let mut problem: String = row.problem.chars().take(PROBLEM).collect();
    if problem.len() < row.problem.len() {
        problem.push('…');
    }
    Ok(html(
        StatusCode::OK,
        &TicketPage {
            contact: Contact::of(&opened.office, now),
            number: opened.number(),
            stands: match whole.material_came {
                true => "您补充的已经收到，等工作人员查看。".to_owned(),
                false => words::stands(&state, row, now),
            },
            done,
            problem,
            promise: words::promise(&state, (row, whole.runs_from), &opened.office, now),
            asked,
            result: result.filter(|result| {
                answer.as_ref().and_then(|step| step.text.as_ref()) != Some(result)
            }),
            answer,
            may_add: !matches!(state, State::Closed { .. }) && !withdrawn,
            may_evaluate: matches!(state, State::Resolved { .. }) && !withdrawn,
            may_withdraw: state.is_pressing() || matches!(state, State::AwaitingCitizen { .. }),
            steps,
            token: opened.token,
        },
    ))
}

//! Who has no link finds the matter by its number and the telephone that was left (S20).

use super::{Contact, Failure, Query, Shared, Short, assets, attempt, html, same_site};
use crate::{
    citizen::finding::{ends_in, last_four, neighbourhood, number},
    http::serve::Peer,
    offices::Office,
    store,
};
use askama::Template;
use axum::{
    extract::{Extension, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "citizen/find.html")]
struct FindPage {
    css: &'static str,
    /// Of the office that is asked, where that is clear.
    contact: Option<Contact>,
    /// To choose from, where there are several: code and name.
    offices: Vec<(String, String)>,
    office: String,
    example: String,
    number: String,
    error: Option<&'static str>,
}

/// The offices by name, and the one that is meant: by its code, or because it is the only one.
fn meant(app: &Shared, code: &str) -> (Vec<Arc<Office>>, Option<Arc<Office>>) {
    let mut offices: Vec<_> = app.offices.all().values().cloned().collect();
    offices.sort_by(|a, b| a.name.cmp(&b.name));
    let meant = match offices.as_slice() {
        [only] => Some(Arc::clone(only)),
        several => several.iter().find(|office| office.code == code).cloned(),
    };
    (offices, meant)
}

fn show(
    app: &Shared,
    code: &str,
    status: StatusCode,
    (typed, error): (String, Option<&'static str>),
) -> Response {
    let (offices, meant) = meant(app, code);
    let now = app.clock.now();
    let prefix = meant.as_ref().map_or("BCS", |office| office.prefix.as_str());
    let several = offices.len() > 1;
    let page = FindPage {
        css: assets::css(),
        example: format!("{prefix}-2026-000123"),
        offices: offices
            .iter()
            .filter(|_| several)
            .map(|office| (office.code.clone(), office.name.clone()))
            .collect(),
        office: code.to_owned(),
        contact: meant.map(|office| Contact::of(&office, now)),
        number: typed,
        error,
    };
    html(status, &page)
}

pub(super) async fn page(State(app): State<Shared>, query: Query) -> Response {
    let code = query.get("office").map(String::as_str).unwrap_or_default();
    show(&app, code, StatusCode::OK, (String::new(), None))
}

#[derive(Deserialize)]
pub(super) struct Finding {
    #[serde(default)]
    office: String,
    #[serde(default)]
    number: String,
    #[serde(default)]
    phone: String,
}

pub(super) async fn find(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Short(form): Short<Finding>,
) -> Result<Response, Failure> {
    if !same_site(&headers) {
        return Err(Failure::foreign_form());
    }
    let now = app.clock.now();
    let typed: String = form.number.trim().chars().take(40).collect();
    let again = |status, error| Ok(show(&app, &form.office, status, (typed.clone(), Some(error))));
    let (_, Some(office)) = meant(&app, &form.office) else {
        return again(StatusCode::UNPROCESSABLE_ENTITY, "请先选择您反映的是哪个窗口。");
    };
    let Some(four) = last_four(&form.phone) else {
        return again(StatusCode::UNPROCESSABLE_ENTITY, "请填写电话号码的最后四位数字。");
    };
    let Some(ticket) = number(&typed, &office.prefix, now) else {
        return again(
            StatusCode::UNPROCESSABLE_ENTITY,
            "编号没有看懂。请照着短信、微信或回执上的编号填写。",
        );
    };
    // Counted before it is looked at, and taken back when it was right.
    let allowed = app.citizen.settings.lookups_per_h;
    // Behind one address of a mobile network stands a whole town.
    const TOWN: i32 = 6;
    let who = [
        (format!("from:{}", neighbourhood(peer.address)), allowed.saturating_mul(TOWN)),
        (format!("for:{}", ticket.as_i64()), allowed),
    ];
    let mut db = app.pool.acquire().await?;
    for (who, allowed) in &who {
        let allowed = *allowed;
        if let Some(since) = attempt(&mut db, office.id, who, allowed, now).await? {
            tracing::info!("looking for a matter was refused: too many attempts");
            return Err(Failure::too_often(since, now));
        }
    }
    let phone = store::citizen::phone(&mut db, office.id, ticket).await?;
    if !ends_in(phone.as_deref(), four) {
        return again(
            StatusCode::NOT_FOUND,
            "没有找到。请核对编号和电话后四位：电话要填当时留给我们的那一个。在微信里反映的，请从公众号菜单打开。",
        );
    }
    for (who, _) in &who {
        store::citizen::take_back(&mut db, office.id, who).await?;
    }
    match app.citizen.links.path(office.id, ticket, now) {
        Some(path) => Ok(Redirect::to(&path).into_response()),
        None => Err(Failure::busy()),
    }
}

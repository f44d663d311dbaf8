//! From the account's menu: who taps it sees their own matters. WeChat says who it is (wechat.md §8,
//! `snsapi_base`); the openid stands in no address and no log, and in a sealed cookie for ten minutes.

use super::{Contact, Failure, Query, Shared, attempt, html, words::stands_briefly};
use crate::{
    citizen::{
        finding::neighbourhood,
        token::{unwrap, wrap},
    },
    domain::id::OfficeId,
    http::serve::Peer,
    offices::Office,
    secret,
    store::{self, citizen::OwnRow},
    wording,
};
use askama::Template;
use axum::{
    extract::{Extension, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_wechat::platform::{Platform, Trouble};

/// How long WeChat's word is good.
const GOOD_FOR: TimeDelta = TimeDelta::minutes(10);
/// Closed matters are listed for so long.
const LISTED_FOR: TimeDelta = TimeDelta::days(90);
/// Of each kind at most.
const LISTED: i64 = 20;

/// What a browser is sent away with; the answer must bring it back.
const STATE: &str = "c-state";
/// Who it is, sealed.
const WHO: &str = "c-who";

struct Line {
    path: String,
    number: String,
    stands: &'static str,
    open: bool,
    problem: String,
    came: String,
}

#[derive(Template)]
#[template(path = "citizen/list.html")]
struct ListPage {
    contact: Contact,
    lines: Vec<Line>,
}

pub(super) async fn list(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(account): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let source = format!("wechat:{account}");
    let found = app.accounts.all().find(|one| one.source == source);
    let (Some(crate::platform::Sending { office, platform, .. }), Some(base)) =
        (found, app.citizen.links.base())
    else {
        return Err(Failure::says(
            StatusCode::NOT_FOUND,
            "暂时不能从这里打开",
            "请用登记编号和电话后四位查找您的反映。",
        ));
    };
    let office = app.offices.get(*office).ok_or_else(Failure::busy)?;
    let (now, here) = (app.clock.now(), format!("/c/wechat/{account}"));
    let purpose = format!("wechat visitor {account}");
    let known = cookie(&headers, &app, WHO).and_then(|who| unwrap(&office, &purpose, who, now));
    if let Some(openid) = known {
        // A code that was loaded twice, or stands in a page that was reloaded, is not needed.
        if query.contains_key("code") {
            return Ok(Redirect::to(&here).into_response());
        }
        return own(&app, &office, &format!("wechat:{account}:{openid}"), now).await;
    }
    let Some(code) = query.get("code") else {
        if query.contains_key("again") {
            return Err(once_more());
        }
        let state = secret::token();
        let to = platform.visit_url(&format!("{base}{here}"), &state);
        return Ok(with_cookie(Redirect::to(&to).into_response(), &app, STATE, &state));
    };
    let returned = query.get("state").map(String::as_str).unwrap_or_default();
    if !cookie(&headers, &app, STATE).is_some_and(|state| secret::same(state, returned)) {
        return Err(once_more());
    }
    // Each is a question to WeChat: counted before it is asked, taken back when it was a citizen.
    let from = format!("visit:{}", neighbourhood(peer.address));
    let allowed = app.citizen.settings.visits_per_h;
    let counted = attempt(&mut *app.pool.acquire().await?, office.id, &from, allowed, now).await?;
    if let Some(since) = counted {
        return Err(Failure::too_often(since, now));
    }
    match visitor(platform, code).await? {
        Some(openid) => {
            store::citizen::take_back(&mut *app.pool.acquire().await?, office.id, &from).await?;
            let who = wrap(&office, &purpose, &openid, now + GOOD_FOR);
            Ok(with_cookie(Redirect::to(&here).into_response(), &app, WHO, &who))
        }
        // The same code was loaded a moment ago: that answer has brought the cookie by now.
        None => Ok(Redirect::to(&format!("{here}?again=1")).into_response()),
    }
}

/// Who came with this code; `None` when it was used already.
async fn visitor(platform: &Platform, code: &str) -> Result<Option<String>, Failure> {
    match platform.visitor(code).await {
        Ok(openid) => Ok(Some(openid.as_str().to_owned())),
        Err(error) => match error.trouble() {
            Trouble::Code => Ok(None),
            Trouble::SnapshotUser => Err(Failure::says(
                StatusCode::FORBIDDEN,
                "请打开完整页面",
                "微信现在显示的是预览，看不到您的反映。请点右下角的“使用完整服务”，再打开一次；也可以用登记编号查找。",
            )),
            _ => {
                tracing::warn!(%error, "WeChat did not say who opened the list");
                Err(Failure::busy())
            }
        },
    }
}

fn once_more() -> Failure {
    Failure::says(
        StatusCode::FORBIDDEN,
        "请再打开一次",
        "这次没有认出您的微信。请关闭本页，从公众号菜单重新打开；也可以用登记编号查找。",
    )
}

async fn own(
    app: &Shared,
    office: &Office,
    thread: &str,
    now: DateTime<Utc>,
) -> Result<Response, Failure> {
    let mut db = app.pool.acquire().await?;
    let rows =
        store::citizen::of_thread(&mut db, office.id, thread, now - LISTED_FOR, LISTED).await?;
    let lines = rows.into_iter().filter_map(|row| line(app, office, row, now)).collect();
    Ok(html(StatusCode::OK, &ListPage { contact: Contact::of(office, now), lines }))
}

fn line(app: &Shared, office: &Office, row: OwnRow, now: DateTime<Utc>) -> Option<Line> {
    const PROBLEM: usize = 40;
    let id: OfficeId = office.id;
    let mut problem: String = row.problem.chars().take(PROBLEM).collect();
    if problem.len() < row.problem.len() {
        problem.push('…');
    }
    Some(Line {
        path: app.citizen.links.path(id, row.ticket, now)?,
        number: row.ticket.display(&office.prefix),
        stands: stands_briefly(&row.state),
        open: row.state != "closed",
        problem,
        came: wording::day_in_sentence(wording::day_of(row.registered_at), now),
    })
}

fn cookie_name(app: &Shared, name: &str) -> String {
    // With the prefix browsers refuse it without TLS, from a subdomain, or for a path.
    if app.desk.insecure_cookie { name.to_owned() } else { format!("__Host-{name}") }
}

fn cookie<'a>(headers: &'a HeaderMap, app: &Shared, name: &str) -> Option<&'a str> {
    let name = cookie_name(app, name);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn with_cookie(mut response: Response, app: &Shared, name: &str, value: &str) -> Response {
    let secure = if app.desk.insecure_cookie { "" } else { "; Secure" };
    let (name, seconds) = (cookie_name(app, name), GOOD_FOR.num_seconds());
    let cookie =
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

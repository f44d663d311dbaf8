//! Everything that speaks HTTP: the routes, on one screen.

pub mod api;
pub mod channels;
pub mod citizen;
pub mod desk;
pub mod live;
pub mod ops;
mod phone;
pub mod problem;
pub mod serve;

use crate::{
    calls::Sources,
    clock::Clock,
    config,
    desk::Done,
    domain::id::OfficeId,
    hearing::Hearing,
    intake::{Intake, held::Waits},
    media::{Fetcher, Keeper, Transcriber},
    offices::Offices,
    platform::Accounts,
    relay::Relay,
    reply::Replies,
    schedule::runner::Runner,
    search::Indexer,
    spool::Spool,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use intake_contract::Channel;
use sqlx::PgPool;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What handlers share.
pub struct App {
    /// PostgreSQL.
    pub pool: PgPool,
    /// The offices as known.
    pub offices: Arc<Offices>,
    /// The time.
    pub clock: Clock,
    /// The door for submissions.
    pub intake: Intake,
    /// What takes submissions in while the database is away.
    pub spool: Spool,
    /// The schedule.
    pub schedule: Arc<Runner>,
    /// The relay.
    pub relay: Arc<Relay>,
    /// WeChat's accounts that can send.
    pub accounts: Arc<Accounts>,
    /// What channels hear besides submissions.
    pub hearing: Arc<Hearing>,
    /// What citizens are told.
    pub replies: Arc<Replies>,
    /// What fills the index of words.
    pub search: Arc<Indexer>,
    /// What registers by itself what waited for words.
    pub waits: Arc<Waits>,
    /// What citizens sent, kept.
    pub media: Arc<Keeper>,
    /// What fetches it.
    pub fetcher: Arc<Fetcher>,
    /// What writes recordings down.
    pub transcriber: Arc<Transcriber>,
    /// Who watches the queue.
    pub live: live::Live,
    /// The channels by `wechat/{account}` or `hotline/{source}`, each with its office.
    pub channels: Channels,
    /// Who tells of calls.
    pub sources: Arc<Sources>,
    /// What stands beside the saved views.
    pub tallies: desk::Tallies,
    /// Settings of the desk.
    pub desk: config::Desk,
    /// Settings of the telephone.
    pub calls: config::Calls,
    /// What the citizens' pages stand on.
    pub citizen: citizen::Pages,
    /// For every answer; live pages have begun theirs by then.
    pub answer_within: Duration,
    /// Ends live pages when the process stops.
    pub closing: CancellationToken,
}

/// Shared with every handler.
pub type Shared = Arc<App>;

/// The channels by `wechat/{account}` or `hotline/{source}`, each with its office.
pub type Channels = HashMap<String, (OfficeId, Arc<dyn Channel>)>;

/// The public listener's routes.
pub fn public(app: Shared) -> Router {
    Router::new()
        .route("/", get(async || axum::response::Redirect::to("/desk")))
        // Channels: signed by the platform; limits by channel, before anything is read.
        .route(
            "/channels/wechat/{account}",
            get(channels::wechat).post(channels::wechat).layer(DefaultBodyLimit::disable()),
        )
        .route(
            "/channels/hotline/{source}",
            post(channels::hotline).layer(DefaultBodyLimit::disable()),
        )
        // The API: bearer tokens.
        .route("/api/v1/openapi.json", get(api::openapi))
        .route("/api/v1/tickets", get(api::list).post(api::create))
        .route("/api/v1/tickets/{number}", get(api::show))
        .route("/api/v1/tickets/{number}/refer", post(api::refer))
        .route("/api/v1/tickets/{number}/{act}", post(api::act))
        // The desk: cookie sessions.
        .merge(desk::routes())
        // The citizens' pages: a secret in the address.
        .merge(citizen::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&app), in_time))
        // With a limit of their own.
        .merge(citizen::uploads())
        // One layer rather than three: each boxes every request's future anew.
        .layer(middleware::from_fn(outermost))
        .with_state(app)
}

/// Wakes what waits for what staff do: live pages, the relay, the schedule, the index of words.
/// All of it would find out by itself.
async fn announce(app: &Shared, office: OfficeId, done: &Done) {
    app.live.changed(office);
    app.search.wake();
    if done.urgent {
        app.relay.wake_now();
    } else {
        app.relay.wake();
    }
    app.schedule.enter(&done.timers).await;
}

/// The operations listener's routes.
pub fn operations(app: Shared) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ops::ready))
        .route("/metrics", get(ops::metrics))
        .route("/hotline/{source}/scan", post(ops::scan))
        .with_state(app)
}

/// Nobody waits for ever: a handler that takes longer is given up.
async fn in_time(State(app): State<Shared>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.answer_within, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let retry = [(header::RETRY_AFTER, "5")];
            (StatusCode::SERVICE_UNAVAILABLE, retry, "busy\n").into_response()
        }
    }
}

/// What every request and every answer passes.
async fn outermost(request: Request, next: Next) -> Response {
    let reader = Reader::of(request.uri().path());
    let response = match serve::refusal(&request) {
        Some(status) => status.into_response(),
        None => next.run(request).await,
    };
    safe_headers(in_the_readers_words(reader, response))
}

/// Who reads an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Program,
    Officer,
    Citizen,
    /// A platform's server, or whoever asks for what is not there.
    Channel,
}

impl Reader {
    fn of(path: &str) -> Self {
        match path.split('/').nth(1) {
            Some("api") => Self::Program,
            Some("desk") => Self::Officer,
            Some("c") => Self::Citizen,
            _ => Self::Channel,
        }
    }
}

/// A refusal of the framework is an English word or nothing: programs get a problem, officers and
/// citizens a page that says what to do.
fn in_the_readers_words(reader: Reader, response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_page = kind.is_some_and(|kind| kind.starts_with("text/html"));
    match reader {
        Reader::Program if kind != Some("application/problem+json") => problem::restated(response),
        Reader::Officer if !is_page => desk::restated(response),
        Reader::Citizen if !is_page => citizen::restated(response),
        _ => response,
    }
}

/// On every answer (S15). The desk's pages run no inline script and load nothing from elsewhere.
fn safe_headers(mut response: Response) -> Response {
    const ALWAYS: [(HeaderName, &str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
             media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
             object-src 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

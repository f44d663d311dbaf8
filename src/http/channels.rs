//! The channels' addresses: size limit, then the channel verifies, then the intake keeps, then the
//! channel answers. A refusal tells the sender its status and nothing else.

use super::{App, Shared, phone, serve::Peer};
use crate::{
    calls,
    domain::{id::OfficeId, register::RegisterNumber},
    intake::{AcceptError, Accepted},
    spool::Letter,
    store, telemetry,
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::{
        HeaderValue, Method as HttpMethod, Request as HttpRequest, StatusCode, header,
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use intake_contract::{
    Answer, Busy, Channel, ChannelKind, Heard, Method, Outcome, Quarantine, Refusal, Request,
    Respond, Said, Submission, Verified,
};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// The official account's callback.
pub async fn wechat(
    State(app): State<Shared>,
    Path(account): Path<String>,
    Extension(peer): Extension<Peer>,
    request: HttpRequest<Body>,
) -> Response {
    receive(&app, &format!("wechat/{account}"), peer, request).await
}

/// The voicemail webhook.
pub async fn hotline(
    State(app): State<Shared>,
    Path(source): Path<String>,
    Extension(peer): Extension<Peer>,
    request: HttpRequest<Body>,
) -> Response {
    let address = format!("hotline/{source}");
    // In a form of its own; else it is the signed webhook.
    if let Some(source) = app.sources.0.get(&format!("hotline:{source}"))
        && let Some(push) = &source.push
    {
        return phone::receive(&app, source, push, &address, peer, request).await;
    }
    receive(&app, &address, peer, request).await
}

async fn receive(app: &Shared, key: &str, peer: Peer, request: HttpRequest<Body>) -> Response {
    let began = Instant::now();
    // An address that is not configured looks like any other refusal.
    let Some((office, channel)) = app.channels.get(key) else {
        return refused("unknown", Refusal::new(404, "no_such_channel"));
    };
    let kind = channel.kind().as_str();
    let (head, body) = request.into_parts();
    let limit = channel.body_limit();
    let source =
        key.strip_prefix("hotline/").and_then(|id| app.sources.0.get(&format!("hotline:{id}")));
    let read = match source {
        Some(source) => phone::read_webhook(app, source, &head, body, limit, peer).await,
        None => read(body, limit, peer.body_timeout).await.map(|body| (body, None)),
    };
    let (body, audio) = match read {
        Ok(read) => read,
        Err(refusal) if refusal.status == 503 => return busy(5),
        Err(refusal) => return refused(kind, refusal),
    };
    let names = header_names(&head);
    let request = as_adapters_see_it(&head, &names, &body);
    let at = app.clock.now();
    let (verified, heard) = match channel.hear(request, at) {
        Ok(verified) => verified,
        Err(refusal) => return refused(kind, refusal),
    };
    let (content, reply) = match verified {
        Verified::Answer(answer) => (Content::Nothing, Reply::Ready(answer)),
        Verified::Quarantine(item, answer) => (Content::Aside(item), Reply::Ready(answer)),
        Verified::Submit { submission, respond } => {
            (Content::Said(submission), Reply::Ask(respond))
        }
    };
    // RD3.2, as the intake judges it.
    let alarms = match &content {
        Content::Said(submission) => app.offices.get(*office).is_some_and(|office| {
            submission.urgent || office.policy.sounds_urgent(&submission.text)
        }),
        Content::Nothing | Content::Aside(_) => false,
    };
    let keeps_nothing = matches!(content, Content::Nothing) && heard.is_empty();
    let is_for_now = matches!(&content, Content::Said(said) if said.meaning.is_for_now());
    // Who brings a recording along is a machine that comes again.
    let can_wait = !keeps_nothing && !is_for_now && audio.is_none();
    let behind = (can_wait || is_for_now) && app.spool.comes_first().await;
    let became = if behind {
        Err(NotDelivered::Busy(Busy { retry_after_s: 5 }))
    } else {
        carry_out(app, (*office, channel.kind()), content, heard, audio, at).await
    };
    let now = app.clock.now();
    let response = match (became, reply) {
        (Ok(Became::Accepted(accepted)), Reply::Ask(respond)) => {
            let prefix = app.offices.get(*office).map(|o| o.prefix.clone());
            let mut outcome = accepted.outcome(prefix.as_deref().unwrap_or_default());
            with_pages(app, *office, prefix.as_deref(), &accepted, &mut outcome);
            if let Outcome::Durable { receipt, .. } = &mut outcome {
                receipt.alarms = alarms;
                receipt.alarm_reaches = app.relay.reaches_people(*office);
            }
            ready(respond(&outcome, now))
        }
        (Ok(Became::Unvouched(reason)), _) => ready(unvouched(reason)),
        (Ok(_), Reply::Ready(answer)) => ready(answer),
        (Ok(_), Reply::Ask(respond)) => ready(respond(&Outcome::Quarantined, now)),
        (Err(NotDelivered::NoOffice), _) => refused(kind, Refusal::new(404, "no_such_office")),
        (Err(NotDelivered::Busy(retry)), reply) => {
            let kept = can_wait && {
                let sent = Sent { address: key, head: &head, body: body.clone(), peer: &peer };
                app.spool.keep(&sent.letter(*office, at)).await
            };
            match (kept, reply) {
                (true, Reply::Ready(answer)) => ready(answer),
                (true, Reply::Ask(respond)) => ready(respond(&Outcome::Spooled { alarms }, now)),
                (false, Reply::Ready(_)) => busy(retry.retry_after_s),
                (false, Reply::Ask(respond)) => {
                    let mut response = ready(respond(&Outcome::Busy(retry), now));
                    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                        let after = retry.retry_after_s.into();
                        response.headers_mut().insert(header::RETRY_AFTER, after);
                    }
                    response
                }
            }
        }
    };
    metrics::histogram!(telemetry::CHANNEL_SECONDS, "channel" => kind)
        .record(began.elapsed().as_secs_f64());
    response
}

/// What a verified request asks to be kept.
pub(crate) enum Content {
    /// Nothing, or only what was heard beside it.
    Nothing,
    /// What nobody understood.
    Aside(Quarantine),
    /// What a citizen said.
    Said(Box<Submission>),
}

/// How its sender is answered.
enum Reply {
    Ready(Answer),
    /// Once the outcome is known.
    Ask(Respond),
}

/// What was kept.
enum Became {
    /// As it was asked for, or in the quarantine.
    Kept,
    Accepted(Accepted),
    /// In the quarantine, without the recording that came along, for this reason.
    Unvouched(&'static str),
}

/// Why nothing was kept.
#[derive(Debug)]
pub(crate) enum NotDelivered {
    /// Try again.
    Busy(Busy),
    NoOffice,
}

/// Keeps what was received at `at`: the one way in, for what has just come and for what the spool took.
async fn carry_out(
    app: &App,
    (office, channel): (OfficeId, ChannelKind),
    content: Content,
    heard: Vec<Heard>,
    audio: Option<Bytes>,
    at: DateTime<Utc>,
) -> Result<Became, NotDelivered> {
    let kind = channel.as_str();
    const BUSY: NotDelivered = NotDelivered::Busy(Busy { retry_after_s: 5 });
    // What a platform reports and will not report again is kept before it is answered.
    if !heard.is_empty() && !app.hearing.hear(office, heard).await {
        return Err(BUSY);
    }
    let submission = match content {
        Content::Nothing => return Ok(Became::Kept),
        Content::Aside(item) => {
            let kept = keep(app, office, kind, &item, at).await;
            return if kept { Ok(Became::Kept) } else { Err(BUSY) };
        }
        Content::Said(submission) => submission,
    };
    let (source, raw) = (submission.source.clone(), submission.raw.clone());
    let put_aside = async |reason| {
        // By content: several of them may carry one identity, or one too long to keep.
        let source_id = format!("sha256:{}", hex::encode(Sha256::digest(&raw)));
        let source = source.clone();
        let item = Quarantine { source, source_id, reason, raw: raw.to_vec() };
        keep(app, office, kind, &item, at).await
    };
    let brought = match audio.map(|audio| phone::vouched(&submission.raw, audio)) {
        None => None,
        Some(Ok(brought)) => Some(brought),
        // Somebody called all the same: staff see the description, without the recording.
        Some(Err(_)) if !put_aside("bad_audio").await => return Err(BUSY),
        Some(Err(reason)) => return Ok(Became::Unvouched(reason)),
    };
    let accepted = match channel {
        ChannelKind::Hotline => calls::accept(app, office, *submission, brought, at).await,
        _ => app.intake.accept_at(office, *submission, at).await,
    };
    match accepted {
        // The first one stands, and its answer is the answer; what came under its identity this time
        // is for a person to read.
        Ok(Accepted::Ticket { differs: true, .. } | Accepted::Said { differs: true, .. })
            if !put_aside("id_reused").await =>
        {
            Err(BUSY)
        }
        Ok(accepted) => Ok(Became::Accepted(accepted)),
        Err(AcceptError::Busy(busy)) => Err(NotDelivered::Busy(busy)),
        // From a verified sender, and longer than anything should be: behind it is somebody who wrote
        // or called all the same.
        Err(AcceptError::Invalid(_)) if put_aside("out_of_bounds").await => Ok(Became::Kept),
        Err(AcceptError::Invalid(_)) => Err(BUSY),
        Err(AcceptError::NoOffice) => Err(NotDelivered::NoOffice),
    }
}

/// A request that was read, to be put into the spool.
pub(super) struct Sent<'a> {
    /// `wechat/main`, `hotline/pbx1`.
    pub(super) address: &'a str,
    pub(super) head: &'a Parts,
    pub(super) body: Bytes,
    pub(super) peer: &'a Peer,
}

impl Sent<'_> {
    pub(super) fn letter(self, office: OfficeId, received_at: DateTime<Utc>) -> Letter {
        let Self { address, head, body, peer } = self;
        let headers = header_names(head).into_iter();
        Letter {
            office,
            received_at,
            address: address.to_owned(),
            peer: peer.address,
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            body,
        }
    }
}

/// A letter of the spool that was read again.
pub(crate) enum Parcel {
    /// Of a channel.
    Channel { office: OfficeId, channel: ChannelKind, content: Content, heard: Vec<Heard> },
    /// Of a source of calls with a form of its own.
    Push(phone::Push),
}

impl Parcel {
    /// Whose it is, where the order matters: nothing of one citizen overtakes the other.
    pub(crate) fn lane(&self) -> Option<&str> {
        match self {
            Self::Channel { content: Content::Said(submission), .. } => {
                submission.thread.as_deref()
            }
            Self::Channel { .. } | Self::Push(_) => None,
        }
    }
}

/// What a letter of the spool came to.
pub(crate) struct Delivered {
    pub(crate) office: OfficeId,
    pub(crate) kind: ChannelKind,
    /// What it became, where it said something.
    pub(crate) accepted: Option<Accepted>,
}

/// Reads a letter as it was read when it came.
///
/// # Errors
/// A word for why it cannot be: its channel is not configured any more, or with another secret.
pub(crate) fn reopen(app: &App, letter: &Letter) -> Result<Parcel, &'static str> {
    let at = letter.received_at;
    if let Some(id) = letter.address.strip_prefix("hotline/")
        && let Some(source) = app.sources.0.get(&format!("hotline:{id}"))
        && source.push.is_some()
    {
        return letter
            .with_request(|request| phone::verify(source, request, letter.peer, at))
            .map(Parcel::Push)
            .map_err(|refusal| refusal.reason);
    }
    let (office, channel) = app.channels.get(&letter.address).ok_or("no_such_channel")?;
    let heard = letter.with_request(|request| channel.hear(request, at));
    let (verified, heard) = heard.map_err(|refusal| refusal.reason)?;
    let content = match verified {
        Verified::Answer(_) => Content::Nothing,
        Verified::Quarantine(item, _) => Content::Aside(item),
        Verified::Submit { submission, .. } => Content::Said(submission),
    };
    Ok(Parcel::Channel { office: *office, channel: channel.kind(), content, heard })
}

/// Does with a letter of the spool what would have been done when it was received, at `at`.
pub(crate) async fn deliver(
    app: &App,
    parcel: Parcel,
    at: DateTime<Utc>,
) -> Result<Delivered, NotDelivered> {
    match parcel {
        Parcel::Channel { office, channel, content, heard } => {
            let accepted = match carry_out(app, (office, channel), content, heard, None, at).await?
            {
                Became::Accepted(accepted) => Some(accepted),
                Became::Kept | Became::Unvouched(_) => None,
            };
            Ok(Delivered { office, kind: channel, accepted })
        }
        Parcel::Push(push) => {
            let office = push.source.office;
            let kept = phone::carry_out(app, push, at).await;
            kept.map_err(|()| NotDelivered::Busy(Busy { retry_after_s: 5 }))?;
            Ok(Delivered { office, kind: ChannelKind::Hotline, accepted: None })
        }
    }
}

/// The recording is not the one of the signed description.
fn unvouched(reason: &'static str) -> Answer {
    let body = serde_json::json!({ "error": reason, "quarantined": true });
    Answer { status: 422, content_type: "application/json", body: body.to_string().into_bytes() }
}

/// The links to the citizen's pages of what the answer speaks of: made of the moment when it was
/// first answered, so that a repeat has the same.
fn with_pages(
    app: &Shared,
    office: OfficeId,
    prefix: Option<&str>,
    accepted: &Accepted,
    outcome: &mut Outcome,
) {
    let page = |number: &str, at| {
        let ticket = RegisterNumber::parse(number, prefix?).ok()?;
        app.citizen.links.url(office, ticket, at)
    };
    match (accepted, outcome) {
        (Accepted::Ticket { received_at, .. }, Outcome::Durable { receipt, .. }) => {
            receipt.page = page(&receipt.number, *received_at);
        }
        (Accepted::Said { received_at, .. }, Outcome::Said(said)) => match said {
            Said::Progress(standings) => {
                for one in standings {
                    one.page = page(&one.number, *received_at);
                }
            }
            Said::GradeWanted { number, page: link }
            | Said::NoFiles { number: Some(number), page: link } => {
                *link = page(number, *received_at);
            }
            _ => {}
        },
        _ => {}
    }
}

/// Keeps what a verified sender sent where staff see it; false when that was not possible now.
pub(super) async fn keep(
    app: &App,
    office: OfficeId,
    channel: &'static str,
    item: &Quarantine,
    now: DateTime<Utc>,
) -> bool {
    let kept = store::within(Duration::from_secs(3), async {
        let mut db = app.pool.acquire().await?;
        store::quarantine::keep(&mut db, office, item, now).await
    });
    match kept.await {
        Ok(()) => {
            tracing::warn!(
                channel,
                reason = item.reason,
                "verified content could not be taken as it is; it is in the quarantine"
            );
            true
        }
        Err(error) => {
            let error = telemetry::causes(&error);
            tracing::warn!(channel, %error, "verified content could not be kept; the sender may try again");
            false
        }
    }
}

/// The headers as adapters see them: names in lower case, values raw.
pub(super) fn header_names(head: &Parts) -> Vec<(&str, &[u8])> {
    head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// A request that was read within its limits.
pub(super) fn as_adapters_see_it<'a>(
    head: &'a Parts,
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a [u8],
) -> Request<'a> {
    Request {
        method: if head.method == HttpMethod::GET { Method::Get } else { Method::Post },
        query: head.uri.query().unwrap_or_default(),
        headers,
        body,
    }
}

/// What is read of a body that is too long and thrown away, in bytes: its sender reads the answer then,
/// and does not find a broken connection.
const THROWN_AWAY: usize = 1024 * 1024;
const THROWN_AWAY_WITHIN: Duration = Duration::from_secs(2);

/// A body whole, within its size and time (S07, S08).
///
/// # Errors
/// 408, 413, or 400 when it breaks off.
pub(super) async fn read(body: Body, limit: usize, within: Duration) -> Result<Bytes, Refusal> {
    let mut pieces = body.into_data_stream();
    let broken = |_| Refusal::new(400, "broken_body");
    let gather = async {
        let Some(first) = pieces.next().await.transpose().map_err(broken)? else {
            return Ok(Some(Bytes::new()));
        };
        if first.len() > limit {
            return Ok(None);
        }
        let mut whole = BytesMut::from(first);
        while let Some(piece) = pieces.next().await.transpose().map_err(broken)? {
            if whole.len() + piece.len() > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    };
    let gathered = tokio::time::timeout(within, gather).await;
    if let Some(whole) = gathered.unwrap_or(Err(Refusal::new(408, "slow_body")))? {
        return Ok(whole);
    }
    let throw_away = async {
        let mut left = THROWN_AWAY;
        while let Some(Ok(piece)) = pieces.next().await
            && left > piece.len()
        {
            left -= piece.len();
        }
    };
    drop(tokio::time::timeout(THROWN_AWAY_WITHIN.min(within), throw_away).await);
    Err(Refusal::new(413, "too_large"))
}

pub(super) fn ready(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let kind = HeaderValue::from_static(answer.content_type);
    (status, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
}

pub(super) fn refused(channel: &'static str, refusal: Refusal) -> Response {
    metrics::counter!(telemetry::REFUSALS, "channel" => channel, "reason" => refusal.reason)
        .increment(1);
    tracing::info!(
        channel,
        reason = refusal.reason,
        status = refusal.status,
        "a request was refused"
    );
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "refused\n").into_response()
}

pub(super) fn busy(retry_after_s: u32) -> Response {
    let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, retry_after_s.into());
    response
}

/// The channels as a map key: `wechat/{id}`.
#[must_use]
pub fn key(channel: &dyn Channel, id: &str) -> String {
    format!("{}/{id}", channel.kind().as_str())
}

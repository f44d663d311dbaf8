//! The channels' addresses: size limit, then the channel verifies, then the intake keeps, then the
//! channel answers. A refusal tells the sender its status and nothing else.

use super::{App, Shared, phone, serve::Peer};
use crate::{
    calls,
    domain::{id::OfficeId, register::RegisterNumber},
    intake::{AcceptError, Accepted},
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
    Answer, Busy, Channel, ChannelKind, Method, Outcome, Quarantine, Refusal, Request, Said,
    Verified,
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
    // In a form of its own; else it is the signed webhook.
    if let Some(source) = app.sources.0.get(&format!("hotline:{source}"))
        && let Some(push) = &source.push
    {
        return phone::receive(&app, source, push, peer, request).await;
    }
    receive(&app, &format!("hotline/{source}"), peer, request).await
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
    let now = app.clock.now();
    let verified = match channel.hear(request, now) {
        Ok((verified, heard)) => {
            // What a platform reports and will not report again is kept before it is answered.
            if !heard.is_empty() && !app.hearing.hear(*office, heard).await {
                return busy(5);
            }
            Ok(verified)
        }
        Err(refusal) => Err(refusal),
    };
    let response = match verified {
        Err(refusal) => refused(kind, refusal),
        Ok(Verified::Answer(answer)) => ready(answer),
        Ok(Verified::Quarantine(item, answer)) => {
            if keep(app, *office, kind, &item, now).await {
                ready(answer)
            } else {
                busy(5)
            }
        }
        Ok(Verified::Submit { submission, respond }) => {
            let (source, raw) = (submission.source.clone(), submission.raw.clone());
            let put_aside = async |reason| {
                // By content: several of them may carry one identity, or one too long to keep.
                let source_id = format!("sha256:{}", hex::encode(Sha256::digest(&raw)));
                let source = source.clone();
                let item = Quarantine { source, source_id, reason, raw: raw.to_vec() };
                keep(app, *office, kind, &item, now).await
            };
            // RD3.2, as the intake judges it.
            let alarms = app.offices.get(*office).is_some_and(|office| {
                submission.urgent || office.policy.sounds_urgent(&submission.text)
            });
            let brought = match audio.map(|audio| phone::vouched(&submission.raw, audio)) {
                None => None,
                Some(Ok(brought)) => Some(brought),
                // Somebody called all the same: staff see the description, without the recording.
                Some(Err(_)) if !put_aside("bad_audio").await => return busy(5),
                Some(Err(reason)) => return ready(unvouched(reason)),
            };
            let accepted = match submission.channel {
                ChannelKind::Hotline => calls::accept(app, *office, *submission, brought).await,
                _ => app.intake.accept(*office, *submission).await,
            };
            match accepted {
                // The first one stands, and its answer is the answer; what came under its identity
                // this time is for a person to read.
                Ok(
                    Accepted::Ticket { differs: true, .. } | Accepted::Said { differs: true, .. },
                ) if !put_aside("id_reused").await => busy(5),
                Ok(accepted) => {
                    let prefix = app.offices.get(*office).map(|o| o.prefix.clone());
                    let mut outcome = accepted.outcome(prefix.as_deref().unwrap_or_default());
                    with_pages(app, *office, prefix.as_deref(), &accepted, &mut outcome);
                    if let Outcome::Durable { receipt, .. } = &mut outcome {
                        receipt.alarms = alarms;
                        receipt.alarm_reaches = app.relay.reaches_people(*office);
                    }
                    ready(respond(&outcome, app.clock.now()))
                }
                Err(AcceptError::Busy(Busy { retry_after_s })) => {
                    let answer = respond(&Outcome::Busy(Busy { retry_after_s }), app.clock.now());
                    let mut response = ready(answer);
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    response.headers_mut().insert(header::RETRY_AFTER, retry_after_s.into());
                    response
                }
                // From a verified sender, and longer than anything should be: behind it is somebody
                // who wrote or called all the same.
                Err(AcceptError::Invalid(_)) => {
                    if put_aside("out_of_bounds").await {
                        ready(respond(&Outcome::Quarantined, app.clock.now()))
                    } else {
                        busy(5)
                    }
                }
                Err(AcceptError::NoOffice) => refused(kind, Refusal::new(404, "no_such_office")),
            }
        }
    };
    metrics::histogram!(telemetry::CHANNEL_SECONDS, "channel" => kind)
        .record(began.elapsed().as_secs_f64());
    response
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

//! Pushes of exchanges and vendors: verified, read, kept, and only then acknowledged in the form that
//! their sender takes for "received".

use super::{
    App,
    channels::{Sent, as_adapters_see_it, busy, header_names, keep, read, ready, refused},
    serve::Peer,
};
use crate::{
    calls::{self, Source},
    telemetry,
};
use axum::{
    body::Body,
    extract::Request as HttpRequest,
    http::{header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use intake_contract::{Quarantine, Refusal, Request};
use intake_hotline::{PushSource, Received, Voicemail};
use sha2::{Digest, Sha256};
use std::{net::IpAddr, sync::Arc, time::Instant};
use tokio::sync::Semaphore;

const CHANNEL: &str = "hotline";
/// Webhooks that bring a recording along, read at a time: nobody has vouched for them by then.
static READING: Semaphore = Semaphore::const_new(4);
/// Of what is written around the recording.
const AROUND: usize = 64 * 1024;

/// Reads what the signed webhook sent: the description, and the recording where one came along.
pub(super) async fn read_webhook(
    app: &App,
    source: &Source,
    head: &Parts,
    body: Body,
    limit: usize,
    peer: Peer,
) -> Result<(Bytes, Option<Bytes>), Refusal> {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let Some(boundary) = kind.and_then(intake_hotline::boundary) else {
        return Ok((read(body, limit, peer.body_timeout).await?, None));
    };
    // A first look, so that strangers take nobody's seat.
    let key = head.headers.get("x-hotline-key").and_then(|key| key.to_str().ok());
    if !source.settings.keys.iter().any(|known| Some(known.id.as_str()) == key) {
        return Err(Refusal::new(401, "bad_signature"));
    }
    // The sender comes again, as it does while the database is away.
    let Ok(_seat) = READING.try_acquire() else { return Err(Refusal::new(503, "busy")) };
    let largest = app.media.limit() + limit + AROUND;
    // The whole request has its limit too; the rest of that is for keeping it.
    let within = (app.answer_within * 3 / 4).max(peer.body_timeout);
    let body = read(body, largest, within).await?;
    let parts = intake_hotline::parts(&boundary, &body)?;
    let too_large = Refusal::new(413, "too_large");
    let fits = parts.event.len() <= limit
        && parts.audio.as_ref().is_none_or(|audio| audio.len() <= app.media.limit());
    if fits { Ok((parts.event, parts.audio)) } else { Err(too_large) }
}

/// The recording that came along with a verified description, if that vouches for it; else why not.
pub(super) fn vouched(event: &[u8], audio: Bytes) -> Result<calls::Brought, &'static str> {
    let hash = Voicemail::parse(event).ok().and_then(|told| told.audio_sha256);
    let digest: [u8; 32] = Sha256::digest(&audio).into();
    match hash {
        None => Err("audio_unsigned"),
        Some(hash) if hash.eq_ignore_ascii_case(&hex::encode(digest)) => {
            Ok(calls::Brought { digest, content: audio })
        }
        Some(_) => Err("audio_hash"),
    }
}

/// A push that was verified and read.
pub(crate) struct Push {
    pub(crate) source: Arc<Source>,
    received: Received,
    original: Vec<u8>,
}

/// Verifies and reads a push of a source that has a form of its own, received at `at` from `peer`.
pub(super) fn verify(
    source: &Arc<Source>,
    request: Request<'_>,
    peer: IpAddr,
    at: DateTime<Utc>,
) -> Result<Push, Refusal> {
    let push = source.push.as_ref().ok_or(Refusal::new(404, "no_such_channel"))?;
    let received = push.verify(request, Some(peer), at)?;
    Ok(Push { source: Arc::clone(source), received, original: push.original(request) })
}

/// Keeps what a push told, received at `at`; an error when that was not possible now.
pub(super) async fn carry_out(app: &App, push: Push, at: DateTime<Utc>) -> Result<(), ()> {
    let Push { source, received, original } = push;
    if let Some(unread) = received.unread {
        let item = Quarantine {
            source: source.name.clone(),
            source_id: format!("sha256:{}", hex::encode(Sha256::digest(&original))),
            reason: unread.reason(),
            raw: original.clone(),
        };
        if !keep(app, source.office, CHANNEL, &item, at).await {
            return Err(());
        }
    }
    let heard = async {
        let calls = calls::scan::tied(app, &source, received.calls).await?;
        calls::hear(app, &source, calls, &original, at).await
    };
    heard.await.map(drop).map_err(|error| {
        tracing::warn!(error = %telemetry::causes(&error), "a call could not be kept; its sender may try again");
    })
}

/// One push of a source, `address` as `hotline/pbx1`.
pub(super) async fn receive(
    app: &App,
    source: &Arc<Source>,
    push: &PushSource,
    address: &str,
    peer: Peer,
    request: HttpRequest<Body>,
) -> Response {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let body = match read(body, push.body_limit(), peer.body_timeout).await {
        Ok(body) => body,
        Err(refusal) => return refused(CHANNEL, refusal),
    };
    let names = header_names(&head);
    let at = app.clock.now();
    let request = as_adapters_see_it(&head, &names, &body);
    let push = match verify(source, request, peer.address, at) {
        Ok(push) => push,
        Err(refusal) => return refused(CHANNEL, refusal),
    };
    let answer = push.received.answer.clone();
    let kept = !app.spool.comes_first().await && carry_out(app, push, at).await.is_ok();
    if !kept {
        let sent = Sent { address, head: &head, body: body.clone(), peer: &peer };
        if !app.spool.keep(&sent.letter(source.office, at)).await {
            return busy(5);
        }
    }
    metrics::histogram!(telemetry::CHANNEL_SECONDS, "channel" => CHANNEL)
        .record(began.elapsed().as_secs_f64());
    ready(answer)
}

//! Pushes of exchanges and vendors: verified, read, kept, and only then acknowledged in the form that
//! their sender takes for "received".

use super::{
    App,
    channels::{as_adapters_see_it, busy, header_names, keep, read, ready, refused},
    serve::Peer,
};
use crate::{
    calls::{self, Source},
    telemetry,
};
use axum::{body::Body, extract::Request as HttpRequest, response::Response};
use intake_contract::Quarantine;
use intake_hotline::PushSource;
use sha2::{Digest, Sha256};
use std::time::Instant;

const CHANNEL: &str = "hotline";

/// One push of a source.
pub(super) async fn receive(
    app: &App,
    source: &Source,
    push: &PushSource,
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
    let request = as_adapters_see_it(&head, &names, &body);
    let now = app.clock.now();
    let received = match push.verify(request, Some(peer.address), now) {
        Ok(received) => received,
        Err(refusal) => return refused(CHANNEL, refusal),
    };
    let original = push.original(request);
    if let Some(unread) = received.unread {
        let item = Quarantine {
            source: source.name.clone(),
            source_id: format!("sha256:{}", hex::encode(Sha256::digest(&original))),
            reason: unread.reason(),
            raw: original.clone(),
        };
        if !keep(app, source.office, CHANNEL, &item, now).await {
            return busy(5);
        }
    }
    if let Err(error) = calls::hear(app, source, received.calls, &original).await {
        tracing::warn!(error = %telemetry::causes(&error), "a call could not be kept; its sender may try again");
        return busy(5);
    }
    metrics::histogram!(telemetry::CHANNEL_SECONDS, "channel" => CHANNEL)
        .record(began.elapsed().as_secs_f64());
    ready(received.answer)
}

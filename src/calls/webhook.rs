//! The signed webhook's voicemails: their sender hears the ticket's number, so that they go through the
//! intake while it waits. With the recording, where one came along.

use super::{
    REUSED, WITHIN, apart, reconcile,
    rules::{Verdict, verdict},
    settle, take, thread, words,
};
use crate::{
    domain::id::OfficeId,
    http::App,
    intake::{AcceptError, Accepted},
    store::{
        self, StoreError,
        call::{self as rows, Key},
    },
    telemetry,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use intake_contract::Submission;
use intake_hotline::{Caller, Voicemail, recording_key};
use std::time::Duration;

/// Of a recording that is brought along.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// A recording that a signed description brought along and vouches for.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as what they are")]
pub struct Brought {
    pub digest: [u8; 32],
    pub content: Bytes,
}

/// A signed voicemail of the webhook, received at `at`: its call is kept, and the submission goes through the intake in
/// the thread of its call. A recording that came along is kept before anything is answered; with a
/// repeat too, for the first one may have come without.
///
/// # Errors
/// As [`crate::intake::Intake::accept`].
pub async fn accept(
    app: &App,
    office: OfficeId,
    submission: Submission,
    brought: Option<Brought>,
    at: DateTime<Utc>,
) -> Result<Accepted, AcceptError> {
    let Some(brought) = brought else { return accept_told(app, office, submission, at).await };
    let now = app.clock.now();
    let (source, recording) = (submission.source.clone(), recording_key(&submission.source_id));
    let kept = store::within(KEPT_WITHIN, async {
        let mut db = app.pool.acquire().await?;
        store::citizen::keep_upload(&mut db, office, &brought.digest, &brought.content, now).await
    });
    kept.await.map_err(busy)?;
    let accepted = accept_told(app, office, submission, at).await?;
    let reference = format!("upload:{}", hex::encode(brought.digest));
    let differs = matches!(accepted, Accepted::Ticket { differs: true, .. });
    let attached = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        let of = (office, source.as_str());
        // Another content under the same identity is none of the first one's recording.
        if differs || !rows::expect_upload(&mut db, of, &recording, &reference, now).await? {
            let digest = &brought.digest;
            store::citizen::forget_upload(&mut db, office, digest, &reference, now).await?;
        }
        Ok::<_, StoreError>(())
    });
    attached.await.map_err(busy)?;
    app.fetcher.wake();
    Ok(accepted)
}

fn busy(error: StoreError) -> AcceptError {
    tracing::warn!(error = %telemetry::causes(&error), "a call could not be kept; its sender may try again");
    AcceptError::Busy(intake_contract::Busy { retry_after_s: 5 })
}

async fn accept_told(
    app: &App,
    office: OfficeId,
    mut submission: Submission,
    at: DateTime<Utc>,
) -> Result<Accepted, AcceptError> {
    let source = app.sources.of(office, &submission.source);
    let read = source.and_then(|source| {
        let voicemail = Voicemail::parse(&submission.raw).ok()?;
        Some((source, voicemail.call(&source.name, &source.settings.numbering).ok()?))
    });
    let Some((source, facts)) = read else {
        return app.intake.accept_at(office, submission, at).await;
    };
    let mut key = Key { office, source: source.name.clone(), call: facts.call_key.clone() };
    let (id, other) = (submission.source_id.clone(), facts.clone());
    let recording = facts.recordings.keys().next().cloned().unwrap_or_else(|| id.clone());
    let (raw, offices) = (submission.raw.clone(), app.offices.get(office));
    let known = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        rows::of_recording(&mut db, (office, &source.name), &recording).await
    });
    let read = async |key: &Key| {
        let read =
            store::within(WITHIN, async { rows::read(&mut *app.pool.acquire().await?, key).await });
        read.await.map_err(busy)
    };
    match known.await.map_err(busy)? {
        // What repeats an identity with another content is none of the call's facts: the intake says
        // that it differs.
        Some(known) => key.call = known,
        None => {
            let held = read(&key).await?;
            // Another call under a used identity: one of its own.
            let is_other =
                held.is_some_and(|held| reconcile::contradicts(&held.facts, &facts, REUSED));
            let facts = if is_other { apart(facts) } else { facts };
            key.call.clone_from(&facts.call_key);
            take(app, source, vec![facts], &raw, at).await.map_err(busy)?;
        }
    }
    if let (Some(call), Some(office)) = (read(&key).await?, offices) {
        if reconcile::contradicts(&call.facts, &other, REUSED) {
            return app.intake.accept_at(office.id, submission, at).await;
        }
        let thread = thread(app, source, &office, &key, &call).await.map_err(busy)?;
        submission.thread = Some(thread);
        submission.citizen.phone = call.facts.caller.as_ref().and_then(Caller::dialled);
        if verdict(&call.facts, &office.calendar, call.spoken_at) == Verdict::Missed {
            submission.text = words::missed(&call);
        }
    }
    let accepted = app.intake.accept_at(office, submission, at).await?;
    let linked = store::within(WITHIN, async {
        rows::link(&mut *app.pool.acquire().await?, &key, Some(&recording), &id).await
    });
    linked.await.map_err(busy)?;
    // The file, and nothing more: the ticket is there.
    if let Err(error) = settle(app, &key, at).await {
        tracing::info!(error = %telemetry::causes(&error), "a call is kept; its recording follows");
    }
    Ok(accepted)
}

//! What is of no use any more, removed now and then. Every replica does it: the same again removes
//! nothing.

use crate::{http::Shared, lifecycle::Wake, media, store, store::StoreError, telemetry};
use chrono::TimeDelta;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(3600);
/// A platform repeats a callback within minutes; an outage is longer (wechat.md §0).
const REPEATED_WITHIN: TimeDelta = TimeDelta::days(7);
/// Who has left for so long is asked anew, by the platform's own error.
const LEFT_FOR_GOOD: TimeDelta = TimeDelta::days(30);

/// Tidies up every hour until `shutdown`.
pub async fn run(app: Shared, shutdown: CancellationToken) {
    let turn = Wake::default();
    while !shutdown.is_cancelled() {
        if let Err(error) = tidy(&app).await {
            tracing::warn!(error = %telemetry::causes(&error), "what is over could not be removed");
        }
        let removed = media::remove_old(&app.pool, &app.offices, &app.sources, app.clock.now());
        match tokio::time::timeout(MEDIA_WITHIN, removed).await {
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %telemetry::causes(&error), "recordings whose time is over could not be removed");
            }
        }
        match tokio::time::timeout(MEDIA_WITHIN, app.media.tidy()).await {
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %telemetry::causes(&error), "content that nobody names could not be removed");
            }
        }
        turn.wait(EVERY, &shutdown).await;
    }
}

/// Originals of calls that go at a time: more than come in an hour.
const ORIGINALS: i64 = 10_000;
/// What is removed at a time takes this long at most.
const MEDIA_WITHIN: Duration = Duration::from_secs(300);

/// Removes attempts to log in or to find a matter that nobody counts any more, sessions that are
/// over, what WeChat allowed to send and allows no more, what it reported and will not repeat, files
/// that no message has waited for, and what sources told of calls word for word.
///
/// # Errors
/// [`StoreError`].
pub async fn tidy(app: &Shared) -> Result<u64, StoreError> {
    let (now, desk) = (app.clock.now(), &app.desk);
    store::within(Duration::from_secs(60), async {
        let mut db = app.pool.acquire().await?;
        let logins = store::access::purge(
            &mut db,
            now,
            now - TimeDelta::minutes(desk.lock_min),
            now - TimeDelta::minutes(desk.session_idle_min),
            now - TimeDelta::hours(desk.session_h),
        )
        .await?;
        let allowed = store::allowance::purge(&mut db, now).await?;
        let heard =
            store::heard::purge(&mut db, now - REPEATED_WITHIN, now - LEFT_FOR_GOOD).await?;
        let attempts = store::citizen::purge(&mut db, now - TimeDelta::hours(1)).await?;
        let uploads = store::citizen::purge_uploads(&mut db, now - REPEATED_WITHIN).await?;
        let kept_for = TimeDelta::days(app.calls.keep_originals_days.into());
        let originals = store::reconcile::purge_parts(&mut db, now - kept_for, ORIGINALS).await?;
        Ok(logins + allowed + heard + attempts + uploads + originals)
    })
    .await
}

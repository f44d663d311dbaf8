//! Logs and metrics. No personal data in either (invariant 8): ids, kinds and counts only.

use crate::lifecycle::Wake;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{sync::OnceLock, time::Duration};
use tokio_util::sync::CancellationToken;

/// Submissions by channel and outcome: registered, appended, repeated, quarantined, queue_full,
/// unavailable, timeout. What is in the spool counts when it is drained.
pub const SUBMISSIONS: &str = "intake_submissions_total";
/// Requests refused on a channel, by channel and reason.
pub const REFUSALS: &str = "intake_refusals_total";
/// Entries of the spool by what became of them: kept, drained, aside (could not be read, or is refused
/// for good), full, failed (the disk).
pub const SPOOL: &str = "spool_entries_total";
/// Entries that wait in the spool for the database.
pub const SPOOL_WAITING: &str = "spool_waiting";
/// Seconds since the oldest of them was received.
pub const SPOOL_OLDEST_S: &str = "spool_oldest_seconds";
/// Bytes that they take.
pub const SPOOL_BYTES: &str = "spool_bytes";
/// Entries that were set aside and lie in the folder.
pub const SPOOL_ASIDE: &str = "spool_set_aside";
/// Submissions that wait for a writer.
pub const QUEUE_WAITING: &str = "intake_queue_waiting";
/// Looks of the schedule at what is due, since start.
pub const SCHEDULE_STEPS: &str = "schedule_steps";
/// Submissions in one transaction.
pub const BATCH_SIZE: &str = "intake_batch_size";
/// Batches that another writer overtook, so that they were decided again under locks.
pub const BATCHES_OVERTAKEN: &str = "intake_batches_overtaken_total";
/// Seconds from a channel's request to its answer.
pub const CHANNEL_SECONDS: &str = "intake_channel_seconds";
/// Timers that took effect, by kind.
pub const TIMERS_FIRED: &str = "schedule_timers_fired_total";
/// Timers that the sweep fired straight from PostgreSQL.
pub const TIMERS_SWEPT: &str = "schedule_timers_swept_total";
/// Timers that could not be carried out and are tried again.
pub const TIMERS_PARKED: &str = "schedule_timers_parked_total";
/// Steps of the schedule that failed.
pub const SCHEDULE_ERRORS: &str = "schedule_errors_total";
/// Times the index was filled anew.
pub const SCHEDULE_REBUILDS: &str = "schedule_rebuilds_total";
/// Attempts to tell the staff, by target and result.
pub const NOTICES: &str = "relay_notices_total";
/// Attempts to tell citizens, by path and result: taken, over, later, uncertain, call.
pub const REPLIES: &str = "reply_attempts_total";
/// What channels heard that could not be noted: windows that are thought to be closed.
pub const HEARD_LOST: &str = "channel_heard_lost_total";
/// Days from today to the last one that a notice covers, by office.
pub const CALENDAR_DAYS_AHEAD: &str = "calendar_days_known_ahead";
/// Tickets entered into the index of words, anew or again.
pub const SEARCH_INDEXED: &str = "search_tickets_indexed_total";
/// Tries to fetch what citizens sent, by result: kept, put_off, given_up.
pub const MEDIA_FETCHES: &str = "media_fetches_total";
/// Calls that were compared with what their source says, by result: held, repaired, missing, differs.
pub const CALLS_RECONCILED: &str = "calls_reconciled_total";
/// Connections refused because there were too many.
pub const CONNECTIONS_REFUSED: &str = "http_connections_refused_total";

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts metrics, once for the process; further calls return the same.
pub fn metrics() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&[
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 32.0,
                64.0, 128.0, 256.0,
            ])
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        // Only a second recorder could fail here, and there is none.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

/// Puts what was measured where it takes no more room, until `shutdown`: who asks for the metrics
/// does it as well, but perhaps nobody asks.
pub async fn tidy(shutdown: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(30);
    let turn = Wake::default();
    while !shutdown.is_cancelled() {
        turn.wait(EVERY, &shutdown).await;
        metrics().run_upkeep();
    }
}

/// What is wrong with a filter; a word alone must be a level, or a misspelt one would be taken for
/// the name of a module and silence everything else.
#[must_use]
pub fn filter_fault(filter: &str) -> Option<&'static str> {
    use tracing_subscriber::filter::{EnvFilter, LevelFilter};
    let alone = |part: &str| !part.contains(['=', '[']);
    let levels = filter.split(',').map(str::trim).filter(|part| alone(part));
    if levels.clone().any(|level| level.parse::<LevelFilter>().is_err()) {
        return Some(
            "holds a word that is no level; off, error, warn, info, debug, trace are, or module=level",
        );
    }
    EnvFilter::try_new(filter).err().map(|_| "cannot be read; it looks like info,sqlx=warn")
}

/// Starts logs on standard error: readable lines, or JSON for a collector.
pub fn logs(json: bool, filter: &str) {
    use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let started = if json {
        registry.with(lines.json()).try_init()
    } else {
        registry.with(lines.with_ansi(false)).try_init()
    };
    // A test may have started them already.
    let _ = started;
}

/// An error with all its causes on one line.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    // A database's message may quote the row that it refused: the first line, without details.
    text.lines().next().unwrap_or_default().to_owned()
}

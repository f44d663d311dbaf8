//! What was kept without words and got none: registered by itself when its time has come. A
//! reconciler: it reads what is due and may be stopped anywhere; a crash only delays.

use super::{OnCommit, Settings, conversation};
use crate::{
    clock::Clock,
    domain::id::OfficeId,
    lifecycle::Wake,
    offices::Offices,
    store::{self, StoreError},
    telemetry,
};
use sqlx::{Connection, PgPool};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(5);
const AT_A_TIME: i64 = 200;
const WITHIN: Duration = Duration::from_secs(10);

/// Registers what waits no longer.
pub struct Waits {
    pool: PgPool,
    offices: Arc<Offices>,
    clock: Clock,
    settings: Settings,
    on_commit: OnCommit,
}

impl Waits {
    /// One for a process.
    #[must_use]
    pub fn new(
        pool: PgPool,
        offices: Arc<Offices>,
        clock: Clock,
        settings: Settings,
        on_commit: OnCommit,
    ) -> Arc<Self> {
        Arc::new(Self { pool, offices, clock, settings, on_commit })
    }

    /// Looks every few seconds until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let turn = Wake::default();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.step().await {
                tracing::warn!(error = %telemetry::causes(&error), "what waits for words could not be registered; trying again");
            }
            turn.wait(LOOK_EVERY, &shutdown).await;
        }
    }

    /// One look: registers everything that is due; returns in how many conversations. One that
    /// fails stops no other.
    ///
    /// # Errors
    /// The last [`StoreError`]; what did not fail is done.
    pub async fn step(&self) -> Result<usize, StoreError> {
        let mut done = 0;
        loop {
            let now = self.clock.now();
            let due = store::within(WITHIN, async {
                let mut db = self.pool.acquire().await?;
                store::conversation::due(&mut db, now, AT_A_TIME).await
            })
            .await?;
            let (count, mut failed) = (due.len(), None);
            for (office, thread) in due {
                match store::within(WITHIN, self.register(office, &thread)).await {
                    Ok(()) => done += 1,
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            if (count as i64) < AT_A_TIME {
                return Ok(done);
            }
        }
    }

    async fn register(&self, office: OfficeId, thread: &str) -> Result<(), StoreError> {
        let Some(office) = self.offices.get(office) else { return Ok(()) };
        let mut db = self.pool.acquire().await?;
        let mut transaction = db.begin().await?;
        let now = self.clock.now();
        let made =
            conversation::by_itself(&mut transaction, &office, thread, now, &self.settings).await?;
        transaction.commit().await?;
        if let Some(committed) = made {
            (self.on_commit)(&committed);
        }
        Ok(())
    }
}

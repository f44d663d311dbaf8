//! Takes what waits, commits it, answers.

use super::{
    Accepted, OnCommit, RETRY_AFTER_S, Settings, Waiting,
    batch::{Batch, Guard, Known},
    incoming::Incoming,
};
use crate::store::{self, StoreError};
use intake_contract::Busy;
use sqlx::{Connection, PgConnection, PgPool};
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Runtime,
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;

pub(super) struct Writer {
    pub(super) pool: PgPool,
    pub(super) waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    pub(super) settings: Settings,
    pub(super) on_commit: OnCommit,
    pub(super) closing: CancellationToken,
    /// This writer's connection, once it has one.
    pub(super) own: Option<PgConnection>,
    /// How many of the next batches take their locks first.
    pub(super) careful: u32,
    /// Of this writer's own commits.
    pub(super) known: Known,
}

/// After another writer overtook a batch.
const CAREFUL_FOR: u32 = 16;

/// Of one attempt at a batch, everything included; less than the sender's patience.
const ATTEMPT_WITHIN: Duration = Duration::from_millis(2500);
/// Of one statement, on the server: what an attempt gave up must not stand in the next one's way.
const STATEMENT_WITHIN: Duration = Duration::from_millis(2000);

impl Writer {
    /// Runs on a thread and a runtime of its own: with many requests under way, an answer of the
    /// database would else wait for its turn behind all of them, and everybody for it.
    pub(super) fn run_alone(self, runtime: Runtime) {
        runtime.block_on(self.run());
    }

    async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.settings.batch);
        loop {
            // Writers take turns at the queue, not at the database: while one commits, the next
            // one already gathers.
            {
                let mut waiting = self.waiting.lock().await;
                tokio::select! {
                    biased;
                    _ = waiting.recv_many(&mut batch, self.settings.batch) => {}
                    () = self.closing.cancelled() => return, // and nothing waits
                }
            }
            self.commit(std::mem::take(&mut batch)).await;
        }
    }

    async fn commit(&mut self, batch: Vec<Waiting>) {
        metrics::histogram!(crate::telemetry::BATCH_SIZE).record(batch.len() as f64);
        if self.careful > 0 {
            self.careful -= 1;
        } else {
            match self.attempt(&batch, Guard::Unchanged).await {
                Ok(accepted) => return answer(batch, accepted),
                Err(error) => {
                    if error.is_overtaken() {
                        metrics::counter!(crate::telemetry::BATCHES_OVERTAKEN).increment(1);
                    } else {
                        tracing::warn!(error = %causes(&error), batch = batch.len(), "a batch failed; trying it once more");
                    }
                    // Whoever overtook this batch is likely to do it again.
                    self.careful = CAREFUL_FOR;
                }
            }
        }
        match self.attempt(&batch, Guard::Locked).await {
            Ok(accepted) => answer(batch, accepted),
            // Deadlock, failover, a dropped connection: the same once more, before any sender
            // has lost patience.
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %causes(&error), batch = batch.len(), "a batch failed; trying it once more");
                match self.attempt(&batch, Guard::Locked).await {
                    Ok(accepted) => answer(batch, accepted),
                    Err(error) if error.is_transient() => busy(batch, &error),
                    Err(error) => self.one_by_one(batch, &error).await,
                }
            }
            Err(error) => self.one_by_one(batch, &error).await,
        }
    }

    async fn attempt(
        &mut self,
        batch: &[Waiting],
        guard: Guard,
    ) -> Result<Vec<Accepted>, StoreError> {
        // Kept only when it came through whole: after a failure its state is anybody's guess.
        let own = self.own.take();
        let work = async {
            let mut db = match own {
                Some(db) => db,
                None => store::own_connection(&self.pool, STATEMENT_WITHIN).await?,
            };
            let batch = Batch::new(batch);
            let kept = batch.commit(&mut db, &self.settings, guard, &mut self.known).await;
            Ok::<_, StoreError>((db, kept))
        };
        let (db, kept) = store::within(ATTEMPT_WITHIN, work).await?;
        // An answer of the server, even a refusal, leaves the connection as good as before.
        if kept.as_ref().map_or_else(StoreError::is_overtaken, |_| true) {
            self.own = Some(db);
        }
        let (accepted, committed) = kept?;
        (self.on_commit)(&committed);
        Ok(accepted)
    }

    /// Something in the batch is poison: each by itself, and the quarantine for what is refused.
    async fn one_by_one(&mut self, batch: Vec<Waiting>, error: &StoreError) {
        tracing::warn!(error = %causes(error), batch = batch.len(), "the database refused a batch; trying one by one");
        for waiting in batch {
            let one = [waiting];
            let result = match self.attempt(&one, Guard::Locked).await {
                Err(error) if !error.is_transient() => {
                    tracing::error!(
                        error = %causes(&error), channel = one[0].incoming.submission.channel.as_str(),
                        "a submission was refused by the database and goes to the quarantine"
                    );
                    self.quarantine(&one[0].incoming).await
                }
                other => other,
            };
            match result {
                Ok(accepted) => answer(one.into(), accepted),
                Err(error) => busy(one.into(), &error),
            }
        }
    }

    async fn quarantine(&self, waiting: &Incoming) -> Result<Vec<Accepted>, StoreError> {
        let work = async {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            store::quarantine::keep_refused(
                &mut transaction,
                waiting.office.id,
                &waiting.submission,
                waiting.digest,
                waiting.received_at,
            )
            .await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(vec![Accepted::Quarantined])
        };
        store::within(ATTEMPT_WITHIN, work).await
    }
}

fn answer(batch: Vec<Waiting>, accepted: Vec<Accepted>) {
    for (waiting, accepted) in batch.into_iter().zip(accepted) {
        // A sender that has hung up loses only the answer; a repeat gets it.
        let _ = waiting.answer.send(Ok(accepted));
    }
}

fn busy(batch: Vec<Waiting>, error: &StoreError) {
    tracing::error!(error = %causes(error), batch = batch.len(), "a batch could not be kept; its senders are asked to try again");
    for waiting in batch {
        let _ = waiting.answer.send(Err(Busy { retry_after_s: RETRY_AFTER_S }));
    }
}

fn causes(error: &StoreError) -> String {
    crate::telemetry::causes(error)
}

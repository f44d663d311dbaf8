//! Live pages: tells who watches that an office's queue has changed.
//!
//! This process' own commits are told at once. What other replicas do is found by asking the
//! database for a small number every two seconds, while anybody watches; no LISTEN/NOTIFY, which
//! breaks behind poolers.

use crate::{domain::id::OfficeId, lifecycle::Wake, store};
use sqlx::PgPool;
use std::{collections::HashMap, time::Duration};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

const ASK_EVERY: Duration = Duration::from_secs(2);

/// The hub of one process.
#[derive(Clone)]
pub struct Live(broadcast::Sender<OfficeId>);

impl Default for Live {
    fn default() -> Self {
        Self(broadcast::channel(256).0)
    }
}

impl Live {
    /// Something changed in this office's queue.
    pub fn changed(&self, office: OfficeId) {
        // Nobody watching is fine.
        let _ = self.0.send(office);
    }

    /// Everything that changes from now on; a receiver that falls behind learns that it did.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<OfficeId> {
        self.0.subscribe()
    }

    /// Asks the database until `shutdown`, for what other replicas did.
    pub async fn ask(
        self,
        pool: PgPool,
        offices: std::sync::Arc<crate::offices::Offices>,
        shutdown: CancellationToken,
    ) {
        let turn = Wake::default();
        let mut known: HashMap<OfficeId, (i64, i64)> = HashMap::new();
        while !shutdown.is_cancelled() {
            turn.wait(ASK_EVERY, &shutdown).await;
            if self.0.receiver_count() == 0 {
                known.clear();
                continue;
            }
            for office in offices.all().keys() {
                let pulse = store::within(ASK_EVERY * 2, async {
                    let mut db = pool.acquire().await?;
                    store::queue::pulse(&mut db, *office).await
                });
                let Ok(pulse) = pulse.await else { break };
                if known.insert(*office, pulse).is_some_and(|before| before != pulse) {
                    self.changed(*office);
                }
            }
        }
    }
}

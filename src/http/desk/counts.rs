//! The counts beside the saved views.
//!
//! A number that is not true sends people to an empty list, and a counter kept by every transaction
//! would be one more row that all of intake waits for. So the open queue is counted, as it is: at
//! each page where that is a matter of a millisecond or two; where tens of thousands are open, in
//! the background, for everybody at once, as often as a twentieth of one core allows.

use super::{Failure, queue::Cuts};
use crate::{
    domain::id::{OfficeId, StaffId},
    http::Shared,
    store::{
        self, StoreError,
        queue::{Counts, Tally},
    },
    telemetry,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Up to so many open tickets are counted anew each time.
const COUNTED_AT_ONCE: i64 = 2000;
/// Of what it took to count, until it is counted again.
const REST: u32 = 20;
/// Nobody is shown what was counted longer ago.
const OLDEST: Duration = Duration::from_secs(10);

/// What was counted last, of each office.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<HashMap<OfficeId, Last>>);

#[derive(Debug, Clone)]
struct Last {
    tally: Arc<Tally>,
    at: Instant,
    took: Duration,
    counting: bool,
}

impl Tallies {
    /// The last count that may still be shown, and whether it is time to count again.
    fn last(&self, office: OfficeId) -> Option<(Arc<Tally>, bool)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = all.get_mut(&office)?;
        let age = last.at.elapsed();
        if last.tally.open() <= COUNTED_AT_ONCE || age > OLDEST {
            return None;
        }
        let again = !last.counting && age > last.took * REST;
        last.counting |= again;
        Some((Arc::clone(&last.tally), again))
    }

    fn counted(&self, office: OfficeId, tally: &Arc<Tally>, began: Instant) {
        let last =
            Last { tally: Arc::clone(tally), at: began, took: began.elapsed(), counting: false };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(office, last);
    }

    fn failed(&self, office: OfficeId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = all.get_mut(&office) {
            last.counting = false;
        }
    }
}

/// What stands beside this person's views.
pub(super) async fn counts(
    app: &Shared,
    office: OfficeId,
    staff: StaffId,
    cuts: Cuts,
) -> Result<Counts, Failure> {
    let tally = match app.tallies.last(office) {
        None => count(app, office, cuts).await?,
        Some((tally, again)) => {
            if again {
                let app = Arc::clone(app);
                tokio::spawn(async move {
                    if let Err(error) = count(&app, office, cuts).await {
                        app.tallies.failed(office);
                        tracing::debug!(error = %telemetry::causes(&error), "the queue could not be counted");
                    }
                });
            }
            tally
        }
    };
    Ok(tally.counts(staff))
}

async fn count(app: &Shared, office: OfficeId, cuts: Cuts) -> Result<Arc<Tally>, StoreError> {
    let mut db = app.pool.acquire().await?;
    let began = Instant::now();
    let tally =
        store::queue::tally(&mut db, office, cuts.now, cuts.end_of_today, cuts.soon).await?;
    let tally = Arc::new(tally);
    app.tallies.counted(office, &tally, began);
    Ok(tally)
}

//! Takes what waits, commits it, answers.
//!
//! Writers take turns. Whose turn it is gathers a batch, decides it and numbers it, and gives the
//! turn on before it writes: so one batch is written while the next one is decided, and each knows
//! from the flight before it where the register will stand. PostgreSQL lets a batch commit only
//! after the one whose numbers it continues (see [`store::intake::Order`]).

use super::{
    Accepted, OnCommit, RETRY_AFTER_S, Settings, Waiting,
    batch::{self, Batch, Known},
};
use crate::store::{self, StoreError, intake::Order};
use intake_contract::Busy;
use sqlx::{Connection, PgConnection, PgPool};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    sync::{Mutex, MutexGuard, Notify, mpsc},
};
use tokio_util::sync::CancellationToken;

pub(super) struct Writer {
    pub(super) pool: PgPool,
    pub(super) turns: Arc<Turns>,
    pub(super) settings: Settings,
    pub(super) on_commit: OnCommit,
    pub(super) closing: CancellationToken,
    /// This writer's connection, once it has one.
    pub(super) own: Option<PgConnection>,
}

/// Whose turn it is.
pub(super) struct Turns {
    turn: Mutex<Turn>,
    /// Somebody has a batch in hand and needs the turn: who waits for senders gives it up.
    wanted: Notify,
}

/// What the writer has whose turn it is.
pub(super) struct Turn {
    waiting: mpsc::Receiver<Waiting>,
    known: Known,
    /// Batches being written, the oldest first.
    flights: Vec<Arc<Flight>>,
    /// The next flight's.
    token: i32,
    /// How many of the next batches take their locks first and are written alone.
    careful: u32,
}

/// A batch that is being written.
struct Flight {
    token: i32,
    /// Whose messages it holds: none of them is decided anew before it is over.
    batch: batch::Footprint,
    landed: AtomicBool,
    over: CancellationToken,
}

impl Flight {
    /// Once it is over.
    async fn has_landed(&self) -> bool {
        self.over.cancelled().await;
        self.landed.load(Ordering::SeqCst)
    }
}

/// Ends the flight, whatever happens to who flies it.
struct Flying(Arc<Flight>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.over.cancel();
    }
}

/// Why a batch was not written at the first attempt.
enum Missed {
    /// It was guessed to be new and is not.
    Guess,
    /// The batch whose numbers it continued did not come through.
    Before,
    /// All else.
    Failed(StoreError),
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// After another gateway overtook a batch: it is likely to do it again.
const CAREFUL_FOR: u32 = 16;
/// Before a batch takes the locks.
const LIGHT_ATTEMPTS: u32 = 3;

/// Of one attempt at a batch, everything included; less than the sender's patience.
const ATTEMPT_WITHIN: Duration = Duration::from_millis(2500);
/// Of one statement, on the server: what an attempt gave up must not stand in the next one's way.
const STATEMENT_WITHIN: Duration = Duration::from_millis(2000);

impl Turns {
    pub(super) fn new(waiting: mpsc::Receiver<Waiting>) -> Self {
        let token = i32::from_ne_bytes(crate::secret::random::<4>());
        let (known, flights, careful) = (Known::default(), Vec::new(), 0);
        let turn = Mutex::new(Turn { waiting, known, flights, token, careful });
        Self { turn, wanted: Notify::new() }
    }

    /// The turn, for a batch that is in hand.
    async fn again(&self) -> MutexGuard<'_, Turn> {
        let mut turn = pin!(self.turn.lock());
        // In the line first: who is asked to give the turn up stands in it next.
        match futures::poll!(&mut turn) {
            Poll::Ready(turn) => turn,
            Poll::Pending => {
                self.wanted.notify_one();
                turn.await
            }
        }
    }
}

impl Turn {
    /// Forgets flights that are over; and what was known from those that failed.
    fn clear(&mut self) {
        let known = &mut self.known;
        self.flights.retain(|flight| {
            let over = flight.over.is_cancelled();
            if over && !flight.landed.load(Ordering::SeqCst) {
                known.forget(&flight.batch);
            }
            !over
        });
    }

    /// Waits for the flights that this batch must not overtake.
    async fn until_apart(&mut self, batch: &Batch<'_>) {
        for flight in &self.flights {
            if flight.batch.touches(batch) {
                flight.over.cancelled().await;
            }
        }
        self.clear();
    }

    async fn until_alone(&mut self) {
        for flight in &self.flights {
            flight.over.cancelled().await;
        }
        self.clear();
    }

    /// Lets a decided batch go: from now on the next one may be decided.
    fn take_off(&mut self, batch: batch::Footprint) -> (Flying, Option<Arc<Flight>>) {
        self.token = self.token.wrapping_add(1);
        let before = self.flights.last().map(Arc::clone);
        let flight = Arc::new(Flight {
            token: self.token,
            batch,
            landed: AtomicBool::new(false),
            over: CancellationToken::new(),
        });
        self.flights.push(Arc::clone(&flight));
        (Flying(flight), before)
    }
}

impl Writer {
    /// Runs on a thread and a runtime of its own: with many requests under way, an answer of the
    /// database would else wait for its turn behind all of them, and everybody for it.
    pub(super) fn run_alone(self, runtime: Runtime) {
        runtime.block_on(self.run());
    }

    async fn run(mut self) {
        let turns = Arc::clone(&self.turns);
        let mut batch = Vec::with_capacity(self.settings.batch);
        loop {
            let mut turn = turns.turn.lock().await;
            tokio::select! {
                biased;
                () = turns.wanted.notified() => continue,
                _ = turn.waiting.recv_many(&mut batch, self.settings.batch) => {}
                () = self.closing.cancelled() => return, // and nothing waits
            }
            self.commit(std::mem::take(&mut batch), &turns, turn).await;
        }
    }

    async fn commit<'t>(
        &mut self,
        batch: Vec<Waiting>,
        turns: &'t Turns,
        mut turn: MutexGuard<'t, Turn>,
    ) {
        metrics::histogram!(crate::telemetry::BATCH_SIZE).record(batch.len() as f64);
        let mut may_guess = true;
        for _ in 0..LIGHT_ATTEMPTS {
            if turn.careful > 0 {
                turn.careful -= 1;
                break;
            }
            match self.attempt_light(&batch, turn, may_guess).await {
                Ok(accepted) => return answer(batch, accepted),
                Err(Missed::Guess) => may_guess = false,
                Err(Missed::Before) => {}
                Err(Missed::Failed(error)) => {
                    if error.is_overtaken() {
                        metrics::counter!(crate::telemetry::BATCHES_OVERTAKEN).increment(1);
                    } else {
                        tracing::warn!(error = %causes(&error), batch = batch.len(), "a batch failed; trying it once more");
                    }
                    turn = turns.again().await;
                    turn.careful = CAREFUL_FOR;
                    break;
                }
            }
            turn = turns.again().await;
        }
        // With the turn kept: what takes its locks is written alone.
        turn.until_alone().await;
        match self.attempt_locked(&batch).await {
            Ok(accepted) => answer(batch, accepted),
            // Deadlock, failover, a dropped connection: the same once more, before any sender
            // has lost patience.
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %causes(&error), batch = batch.len(), "a batch failed; trying it once more");
                match self.attempt_locked(&batch).await {
                    Ok(accepted) => answer(batch, accepted),
                    Err(error) if error.is_transient() => busy(batch, &error),
                    Err(error) => self.one_by_one(batch, &error).await,
                }
            }
            Err(error) => self.one_by_one(batch, &error).await,
        }
    }

    /// Without locks: decided while the batch before may still be written, and written while the
    /// next one is decided.
    async fn attempt_light(
        &mut self,
        batch: &[Waiting],
        mut turn: MutexGuard<'_, Turn>,
        may_guess: bool,
    ) -> Result<Vec<Accepted>, Missed> {
        let own = self.own.take();
        let quiet = self.settings.quiet;
        let work = async {
            let batch = Batch::new(batch);
            turn.until_apart(&batch).await;
            let mut db = self.connection(own).await?;
            let Turn { known, flights, .. } = &mut *turn;
            let guess = if may_guess { known.guess(&batch) } else { None };
            let guessed = guess.is_some();
            let seen = match guess {
                Some(seen) => seen,
                None => {
                    let mut seen = batch.look(&mut db).await?;
                    for flight in flights.iter() {
                        flight.batch.foresee(&batch, &mut seen);
                    }
                    seen
                }
            };
            let built = batch.build(&seen, quiet)?;
            let Some(writes) = &built.writes else { return Ok((db, Ok(batch.answers(built)))) };
            let footprint = batch.footprint(writes);
            turn.known.learn(&footprint);
            let (flying, before) = turn.take_off(footprint);
            drop(turn);
            let order =
                Order { token: flying.0.token, after: before.as_ref().map(|flight| flight.token) };
            let written = batch::write(&mut db, writes, guessed, order).await;
            let missed = match written {
                Ok(true) => {
                    flying.0.landed.store(true, Ordering::SeqCst);
                    return Ok((db, Ok(batch.answers(built))));
                }
                Ok(false) => Missed::Guess,
                Err(error) => match before {
                    Some(before) if error.is_overtaken() && !before.has_landed().await => {
                        Missed::Before
                    }
                    _ => Missed::Failed(error),
                },
            };
            Ok::<_, StoreError>((db, Err(missed)))
        };
        let (db, done) = store::within(ATTEMPT_WITHIN, work).await?;
        // An answer of the server, even a refusal, leaves the connection as good as before.
        let answered = match &done {
            Err(Missed::Failed(error)) => error.is_overtaken(),
            _ => true,
        };
        if answered {
            self.own = Some(db);
        }
        let (accepted, committed) = done?;
        (self.on_commit)(&committed);
        Ok(accepted)
    }

    /// Under the locks of everything that the batch rests on.
    async fn attempt_locked(&mut self, batch: &[Waiting]) -> Result<Vec<Accepted>, StoreError> {
        // Kept only when it came through whole: after a failure its state is anybody's guess.
        let own = self.own.take();
        let work = async {
            let mut db = self.connection(own).await?;
            let done = batch::commit_locked(&mut db, batch, self.settings.quiet).await;
            Ok::<_, StoreError>((db, done))
        };
        let (db, done) = store::within(ATTEMPT_WITHIN, work).await?;
        let (accepted, committed) = done?;
        self.own = Some(db);
        (self.on_commit)(&committed);
        Ok(accepted)
    }

    async fn connection(&self, own: Option<PgConnection>) -> Result<PgConnection, StoreError> {
        match own {
            Some(db) => Ok(db),
            None => store::own_connection(&self.pool, STATEMENT_WITHIN).await,
        }
    }

    /// Something in the batch is poison: each by itself, and the quarantine for what is refused.
    async fn one_by_one(&mut self, batch: Vec<Waiting>, error: &StoreError) {
        tracing::warn!(error = %causes(error), batch = batch.len(), "the database refused a batch; trying one by one");
        for waiting in batch {
            let one = [waiting];
            let result = match self.attempt_locked(&one).await {
                Err(error) if !error.is_transient() => {
                    tracing::error!(
                        error = %causes(&error), channel = one[0].submission.channel.as_str(),
                        "a submission was refused by the database and goes to the quarantine"
                    );
                    self.quarantine(&one[0]).await
                }
                other => other,
            };
            match result {
                Ok(accepted) => answer(one.into(), accepted),
                Err(error) => busy(one.into(), &error),
            }
        }
    }

    async fn quarantine(&self, waiting: &Waiting) -> Result<Vec<Accepted>, StoreError> {
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

//! Finding tickets by words: the worker that fills the index of words, after the answer.
//!
//! A text index costs ten times what a ticket costs, so that the transaction a citizen waits for
//! writes nothing of it, not even a row that says there is work. The worker finds its work by what
//! is there anyway:
//!
//! **New tickets** by their numbers. The register's row is locked until the batch commits, so numbers
//! appear without gap and in their order: what lies between the last number that is in the index and
//! the last one that was given out is new, and complete. A register that was never looked at (this
//! table came with a database full of tickets) is taken from its newest end: what comes in now is in
//! at once, the years before follow backwards, batch by batch.
//!
//! **What has changed since** by comparison. Only an open ticket grows and only an open one closes, so
//! the worker goes through those that the index holds to be open, and looks whether there is a later
//! message or an end. That takes some microseconds a ticket, and is done twice a second as long as it
//! takes no more than a twentieth of one core: with ten thousand open tickets that is so, with a
//! hundred thousand what an old ticket grew by is found some seconds later. While nothing is written,
//! nothing is compared. Closing costs the officer nothing; a closed ticket that is still in the smaller
//! index is there without need, and who searches asks the ticket itself and sees nothing of it.
//!
//! Other signs of growth are not to be relied on. The outbox holds one effect for a burst of messages,
//! is emptied by the relay, and keeps what can wait until the morning. And the last pages of the table
//! of messages hold most new rows but not all: a short one fills what an old page has left.
//!
//! Each step can be repeated and taken by two replicas at once: an entry is replaced by a later one
//! only. That one replica at a time does it (a row in `lease`) saves work.

pub mod words;

use crate::{
    domain::{id::OfficeId, register::RegisterNumber},
    lifecycle::Wake,
    store::{
        self, StoreError,
        search::{Document, Entered, Progress},
    },
    telemetry,
};
use sqlx::{Connection, PgConnection, PgPool};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use words::Entries;

/// A look at what is new costs two short statements.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// How often another replica asks whether it is its turn.
const ASK_EVERY: Duration = Duration::from_secs(3);
const LEASE_S: f64 = 15.0;
/// So that a batch is never so long that the lease ends meanwhile.
const BATCH: i32 = 500;
const COMPARE_AT_ONCE: i64 = 1000;
/// Of what a comparison took, until the next one.
const COMPARE_REST: u32 = 20;
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// The worker of one replica.
pub struct Indexer {
    pool: PgPool,
    owner: String,
    wake: Wake,
    compared: Mutex<Option<Compared>>,
    indexed: AtomicU64,
}

/// What is remembered of the last comparison; nothing of it is needed.
#[derive(Debug)]
struct Compared {
    began: Instant,
    took: Duration,
    moment: String,
}

/// What a step did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stepped {
    /// Tickets entered, anew or again.
    pub indexed: usize,
    /// Whether there is more to do at once.
    pub more: bool,
}

impl Indexer {
    /// A worker; nothing runs yet.
    #[must_use]
    pub fn new(pool: PgPool, owner: String) -> Arc<Self> {
        Arc::new(Self {
            pool,
            owner,
            wake: Wake::default(),
            compared: Mutex::default(),
            indexed: AtomicU64::new(0),
        })
    }

    /// Looks again in a moment: something was committed.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Tickets entered since start, anew or again.
    #[must_use]
    pub fn indexed(&self) -> u64 {
        self.indexed.load(Ordering::Relaxed)
    }

    /// Enters what is new until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        // What is committed within so long is entered together.
        const GATHER: Duration = Duration::from_millis(100);
        let never = Wake::default();
        let mut failing = false;
        let mut asked: Option<(Instant, bool)> = None;
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            let turn = match asked {
                Some((at, turn)) if at.elapsed() < ASK_EVERY => Ok(turn),
                _ => self.take_turn(asked.is_some_and(|(_, turn)| turn)).await,
            };
            let stepped = match turn {
                Ok(true) => {
                    asked = asked.filter(|(at, turn)| *turn && at.elapsed() < ASK_EVERY);
                    asked = asked.or(Some((Instant::now(), true)));
                    self.step().await
                }
                Ok(false) => {
                    asked = None;
                    never.wait(ASK_EVERY, &shutdown).await;
                    continue;
                }
                Err(error) => Err(error),
            };
            match stepped {
                Ok(stepped) => {
                    failing = false;
                    if stepped.more {
                        // Behind, as after a rush or on an old database: half of the time is left
                        // to those who take in and read.
                        never.wait(began.elapsed(), &shutdown).await;
                    } else {
                        self.wake.wait(LOOK_EVERY, &shutdown).await;
                        never.wait(GATHER, &shutdown).await;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            error = %telemetry::causes(&error),
                            "what tickets are found by could not be brought up to date; trying again"
                        );
                    }
                    never.wait(ASK_EVERY, &shutdown).await;
                }
            }
        }
        let given_back = store::within(Duration::from_secs(2), async {
            let mut db = self.pool.acquire().await?;
            store::lease::give_back(&mut db, "search", &self.owner).await
        });
        // It ends by itself.
        let _ = given_back.await;
    }

    async fn take_turn(&self, had: bool) -> Result<bool, StoreError> {
        let turn = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::lease::take(&mut db, "search", &self.owner, LEASE_S).await
        })
        .await?;
        if turn && !had {
            // Nothing is known of what another one saw.
            *self.compared.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(turn)
    }

    /// One look: enters what is new, compares when it is time, and goes on with what is old.
    ///
    /// # Errors
    /// [`StoreError`]; what was entered stays.
    pub async fn step(&self) -> Result<Stepped, StoreError> {
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            let mut indexed = 0;
            let mut more = false;
            let mut old = None;
            for mut progress in store::search::unfinished(&mut db).await? {
                if progress.last < progress.given || progress.first > progress.given {
                    let (count, done) = self.enter_new(&mut db, progress).await?;
                    indexed += count;
                    more |= done.last < progress.given;
                    progress = done;
                }
                old = old.or(Some(progress).filter(|progress| progress.first > 1));
            }
            if self.is_time_to_compare(&mut db).await? {
                indexed += self.compare(&mut db).await?;
            }
            if let Some(old) = old {
                // However much comes in, what is old is not put off for ever.
                indexed += self.enter_old(&mut db, old).await?;
                more = true;
            }
            Ok(Stepped { indexed, more })
        })
        .await
    }

    /// The next numbers that were given out since; of a register that was never looked at, the
    /// newest. Returns how many there were, and how far that brings the index.
    async fn enter_new(
        &self,
        db: &mut PgConnection,
        progress: Progress,
    ) -> Result<(usize, Progress), StoreError> {
        let (from, to) = if progress.first > progress.given {
            ((progress.given - BATCH + 1).max(1), progress.given)
        } else {
            (progress.last + 1, progress.given.min(progress.last + BATCH))
        };
        let entered = self.enter_numbers(db, progress, (from, to)).await?;
        Ok((entered, progress.with(from, to)))
    }

    /// The next batch towards the beginning of a register.
    async fn enter_old(
        &self,
        db: &mut PgConnection,
        progress: Progress,
    ) -> Result<usize, StoreError> {
        let from = (progress.first - BATCH).max(1);
        self.enter_numbers(db, progress, (from, progress.first - 1)).await
    }

    async fn enter_numbers(
        &self,
        db: &mut PgConnection,
        progress: Progress,
        (from, to): (i32, i32),
    ) -> Result<usize, StoreError> {
        let number = |sequence| {
            RegisterNumber::new(progress.year, sequence)
                .map_err(|_| StoreError::BadRow { table: "register", column: "last" })
        };
        let range = (number(from)?, number(to)?);
        let documents = store::search::registered(db, progress.office, range).await?;
        let done =
            Progress { first: progress.first.min(from), last: progress.last.max(to), ..progress };
        self.enter(db, &documents, Some(&done)).await
    }

    async fn is_time_to_compare(&self, db: &mut PgConnection) -> Result<bool, StoreError> {
        let rested = |last: &Compared| last.began.elapsed() >= last.took * COMPARE_REST;
        if !self.last_compared(|last| last.is_none_or(rested)) {
            return Ok(false);
        }
        let moment = store::search::moment(db).await?;
        Ok(self.last_compared(|last| last.is_none_or(|last| last.moment != moment)))
    }

    /// Goes through what is held to be open and enters again what is not as it is held.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn compare(&self, db: &mut PgConnection) -> Result<usize, StoreError> {
        let began = Instant::now();
        let moment = store::search::moment(db).await?;
        let mut after = (OfficeId(0), 0);
        let mut entered = 0;
        loop {
            let held = store::search::held_open(db, after, COMPARE_AT_ONCE).await?;
            let stale = held.iter().filter(|one| one.stale).filter_map(|one| {
                RegisterNumber::from_i64(one.ticket).ok().map(|ticket| (one.office, ticket))
            });
            entered += self.enter_tickets(db, &stale.collect::<Vec<_>>()).await?;
            match held.last() {
                Some(last) if held.len() as i64 == COMPARE_AT_ONCE => {
                    after = (last.office, last.ticket);
                }
                _ => break,
            }
        }
        let compared = Compared { began, took: began.elapsed(), moment };
        *self.compared.lock().unwrap_or_else(PoisonError::into_inner) = Some(compared);
        Ok(entered)
    }

    async fn enter_tickets(
        &self,
        db: &mut PgConnection,
        tickets: &[(OfficeId, RegisterNumber)],
    ) -> Result<usize, StoreError> {
        let mut entered = 0;
        for some in tickets.chunks(BATCH as usize) {
            let documents = store::search::documents(db, some).await?;
            entered += self.enter(db, &documents, None).await?;
        }
        Ok(entered)
    }

    /// Enters tickets, and how far that brings the index, in one transaction.
    async fn enter(
        &self,
        db: &mut PgConnection,
        documents: &[Document],
        progress: Option<&Progress>,
    ) -> Result<usize, StoreError> {
        let entered = read(documents.iter());
        if documents.is_empty() && progress.is_none() {
            return Ok(0);
        }
        let mut transaction = db.begin().await?;
        match store::search::enter(&mut transaction, &entered).await {
            Ok(()) => {}
            Err(error @ StoreError::Refused(_)) => {
                drop(transaction);
                tracing::error!(
                    error = %telemetry::causes(&error),
                    "the words of some tickets were refused; they are entered one by one"
                );
                self.enter_one_by_one(db, documents).await?;
                transaction = db.begin().await?;
            }
            Err(error) => return Err(error),
        }
        if let Some(progress) = progress {
            store::search::went_on(&mut transaction, progress).await?;
        }
        transaction.commit().await?;
        if let Err(error) = store::search::put_in_place(db).await {
            // Without the right to do so PostgreSQL does it by itself, later.
            tracing::debug!(error = %telemetry::causes(&error), "entries were left to autovacuum");
        }
        self.indexed.fetch_add(documents.len() as u64, Ordering::Relaxed);
        metrics::counter!(telemetry::SEARCH_INDEXED).increment(documents.len() as u64);
        Ok(documents.len())
    }

    /// One ticket whose words the database does not take must not keep all others from being found.
    async fn enter_one_by_one(
        &self,
        db: &mut PgConnection,
        documents: &[Document],
    ) -> Result<(), StoreError> {
        for document in documents {
            let mut entered = read(std::iter::once(document));
            if let Err(StoreError::Refused(_)) = store::search::enter(db, &entered).await {
                tracing::error!(
                    office.id = document.office.0,
                    ticket.number = document.ticket.as_i64(),
                    "a ticket's words were refused; it is found by its number only"
                );
                entered.entries = vec![Entries::of(document.ticket).joined()];
                store::search::enter(db, &entered).await?;
            }
        }
        Ok(())
    }

    fn last_compared<T>(&self, with: impl FnOnce(Option<&Compared>) -> T) -> T {
        with(self.compared.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }
}

fn read<'a>(documents: impl Iterator<Item = &'a Document>) -> Entered {
    let mut entered = Entered::default();
    for document in documents {
        let mut entries = Entries::of(document.ticket);
        let fields = [&document.name, &document.phone];
        fields.into_iter().flatten().for_each(|field| entries.read(field));
        entries.read(&document.problem);
        document.texts.iter().for_each(|text| entries.read(text));
        entered.office.push(document.office.0);
        entered.ticket.push(document.ticket.as_i64());
        entered.is_open.push(document.is_open);
        entered.seq.push(document.seq);
        entered.entries.push(entries.joined());
    }
    entered
}

//! While PostgreSQL is away: what verified senders send is kept in a file of this process, encrypted
//! and on the disk before they are answered, and goes through the same door as everything else once
//! the database is back (invariant 2).
//!
//! **What is kept is the request** (`letter`), word for word, with the moment of its receipt. Draining
//! hands it to the channel that verified it, as of that moment; so there is no second way in, and a
//! ticket's dates count from when the citizen wrote. What is done twice, after a crash or because the
//! COMMIT came through and its answer did not, finds itself by its identity.
//!
//! **Nothing overtakes.** While something lies here, what comes goes behind it, at once and without
//! asking the database. When the database answers again, what comes waits a moment for the spool to
//! be empty, so that it ends under load as well. What is drained together never holds two of one
//! citizen.
//!
//! **Nothing is lost and nothing stands in the way.** What cannot be read, or is refused for good, is
//! set aside in a file of its own; so is what does not go through while many others do. Everything
//! else waits for as long as it takes.

mod letter;
mod log;

pub use letter::Letter;
pub use log::Standing;

use crate::{
    clock::Clock,
    domain::id::OfficeId,
    http::{
        App, Shared,
        channels::{self, Delivered, NotDelivered},
    },
    intake::Accepted,
    lifecycle::Wake,
    offices::Offices,
    store::{self, StoreError, intake::Made},
    telemetry,
};
use chrono::{DateTime, Utc};
use futures::{FutureExt, future::join_all};
use intake_contract::ChannelKind;
use log::{Entry, Log, NotKept};
use sqlx::Connection;
use std::{
    collections::HashSet,
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Entries that wait for the disk; more get 503.
const WAITING: usize = 1024;
/// A disk that takes longer than this is none that a sender can wait for.
const KEPT_WITHIN: Duration = Duration::from_secs(1);
/// How long what comes waits for the spool to be empty, once the database answers. With the intake's
/// own limit it is less than WeChat's 5 s.
const PATIENCE: Duration = Duration::from_millis(800);
/// Between two tries while the database is away.
const RETRY: Duration = Duration::from_millis(500);
/// The longest wait of an empty spool.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// To find out whether the database answers.
const ASKED_WITHIN: Duration = Duration::from_secs(1);
/// Drained together.
const AT_A_TIME: usize = 64;
/// Of those that did not go through before, this many are tried before all is left for a while.
const TRIED: usize = 3;
/// So many others went through: it is not the database that stands in an entry's way.
const PASSED_BY: u32 = 20;
/// Of the calls that see to it that a citizen is told the number.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// Why a folder cannot be the spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another gateway uses this folder; each needs one of its own")]
    InUse,
    /// It cannot be read or written.
    #[error("the folder cannot be read or written")]
    Io(#[source] io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What comes goes to the database.
    Empty,
    /// Something lies here, and the database answers.
    Draining,
    /// Something lies here, and the database does not answer.
    Away,
}

/// An entry on its way to the disk.
type Writing = (Vec<u8>, oneshot::Sender<Result<(), NotKept>>);
/// `None` once it is closed.
type SharedLog = Arc<Mutex<Option<Log>>>;

/// The spool of one process; off until it is opened.
pub struct Spool {
    offices: Arc<Offices>,
    clock: Clock,
    /// The folder, and how many bytes may lie there.
    place: OnceLock<(PathBuf, u64)>,
    open: OnceLock<Open>,
}

struct Open {
    log: SharedLog,
    writer: mpsc::Sender<Writing>,
    state: Arc<watch::Sender<State>>,
    wake: Arc<Wake>,
}

impl Spool {
    /// A spool that is off.
    #[must_use]
    pub fn new(offices: Arc<Offices>, clock: Clock) -> Self {
        Self { offices, clock, place: OnceLock::new(), open: OnceLock::new() }
    }

    /// Switches it on, in this folder, which is this process' from now on; at most `limit` bytes lie
    /// there. What is found there is drained first. Where it fails, [`run`] tries it again: the process
    /// before this one may be about to end.
    ///
    /// # Errors
    /// [`OpenError`]; it is off until then.
    pub fn open(&self, folder: &Path, limit: u64) -> Result<(), OpenError> {
        let _ = self.place.set((folder.to_owned(), limit));
        self.open_again()
    }

    /// As [`Self::open`], of the folder that was named then; what is on stays on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_again(&self) -> Result<(), OpenError> {
        let Some((folder, limit)) = self.place.get() else { return Ok(()) };
        if self.open.get().is_some() {
            return Ok(());
        }
        let log = Log::open(folder, *limit)?;
        // What lies here from before, the database has to answer for first.
        let found = if log.is_empty() { State::Empty } else { State::Away };
        let state = Arc::new(watch::Sender::new(found));
        let log = Arc::new(Mutex::new(Some(log)));
        let wake = Arc::new(Wake::default());
        let (writer, waiting) = mpsc::channel(WAITING);
        let shared = (Arc::clone(&log), Arc::clone(&state), Arc::clone(&wake));
        std::thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || write(waiting, &shared.0, &shared.1, &shared.2))?;
        let _ = self.open.set(Open { log, writer, state, wake });
        Ok(())
    }

    /// Whether it should take something and cannot: its folder is another's, or cannot be written.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.place.get().is_some() && self.open.get().is_none()
    }

    /// Whether what comes now has to go behind what lies here. Waits a moment where the database is
    /// back and the spool about to be empty.
    pub async fn comes_first(&self) -> bool {
        let Some(open) = self.open.get() else { return false };
        let now = *open.state.borrow();
        match now {
            State::Empty => false,
            State::Away => true,
            State::Draining => {
                let mut state = open.state.subscribe();
                let ends = state.wait_for(|state| *state != State::Draining);
                let ended = tokio::time::timeout(PATIENCE, ends).await;
                !matches!(ended, Ok(Ok(state)) if *state == State::Empty)
            }
        }
    }

    /// Keeps a letter; true once it is on the disk. When it is false nothing may be answered as
    /// received: the spool is off or full, or the disk fails.
    pub async fn keep(&self, letter: &Letter) -> bool {
        let Some(open) = self.open.get() else { return false };
        let sealed = self.offices.get(letter.office).and_then(|office| letter.seal(&office));
        let kept = match sealed {
            None => Err(NotKept::Full),
            Some(entry) => open.write(entry).await,
        };
        let outcome = match kept {
            Ok(()) => "kept",
            Err(NotKept::Full) => "full",
            Err(NotKept::Failed) => "failed",
        };
        metrics::counter!(telemetry::SPOOL, "outcome" => outcome).increment(1);
        kept.is_ok()
    }

    /// How it stands; `None` while it is off.
    pub async fn standing(&self) -> Option<Standing> {
        let open = self.open.get()?;
        open.with(|log| Ok(log.standing())).await
    }

    /// How long ago the oldest entry was received, in seconds; 0 where none waits.
    #[must_use]
    pub fn age_s(&self, standing: &Standing) -> f64 {
        let age = |us| self.clock.now().timestamp_micros().saturating_sub(us) as f64 / 1e6;
        standing.oldest_us.map_or(0.0, age).max(0.0)
    }

    /// Gives the folder up. What lies there stays for the next one.
    pub fn close(&self) {
        if let Some(open) = self.open.get() {
            open.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Drains the oldest entries, if the database answers; whether all of these went through and
    /// there may be more.
    pub async fn step(&self, app: &App) -> bool {
        let Some(open) = self.open.get() else { return false };
        if *open.state.borrow() == State::Empty {
            return false;
        }
        if !answers(app).await {
            open.becomes(State::Draining, State::Away);
            return false;
        }
        open.becomes(State::Away, State::Draining);
        let Some(entries) = open.with(|log| log.oldest(AT_A_TIME)).await else {
            open.becomes(State::Draining, State::Away);
            return false;
        };
        if entries.is_empty() {
            // All of it is done, and only the state was not told.
            open.leave(Vec::new()).await;
            return false;
        }
        // Where something did not go through before, one after the other: it may be one of these that
        // takes the others down with it.
        let together = !entries.iter().any(|entry| entry.passed_by > 0);
        let ended = if together {
            self.drain_together(app, open, &entries).await
        } else {
            self.drain_one_by_one(app, open, &entries).await
        };
        if !ended {
            open.becomes(State::Draining, State::Away);
        }
        ended && *open.state.borrow() != State::Empty
    }

    /// Those at the front, until the first citizen comes a second time.
    async fn drain_together(&self, app: &App, open: &Open, entries: &[Entry]) -> bool {
        let mut lanes = HashSet::new();
        let mut together = Vec::new();
        let mut aside = true;
        for entry in entries {
            match self.read(app, entry) {
                Err(reason) => aside &= open.set_aside(entry, reason).await,
                Ok(read) => {
                    if let Some(lane) = read.1.lane()
                        && !lanes.insert(lane.to_owned())
                    {
                        break;
                    }
                    together.push((entry, read));
                }
            }
        }
        // Each stands in the intake's queue before the next one begins: in their order.
        let deliver = together
            .into_iter()
            .map(async |(entry, (at, parcel))| (entry, self.deliver(app, parcel, at).await));
        let mut done = Vec::new();
        let mut failed = None;
        for (entry, end) in join_all(deliver).await {
            match end {
                End::Done { .. } => done.push(entry.at),
                End::Never(reason) => aside &= open.set_aside(entry, reason).await,
                End::NotNow => failed = failed.or(Some(entry.at)),
            }
        }
        open.done(done).await;
        if let Some(at) = failed {
            open.passed_by(at, 1).await;
        }
        failed.is_none() && aside
    }

    /// Each by itself, passing by what does not go through and whatever its citizen sent after it.
    async fn drain_one_by_one(&self, app: &App, open: &Open, entries: &[Entry]) -> bool {
        let mut lanes = HashSet::new();
        let mut failed: Vec<&Entry> = Vec::new();
        let mut aside = true;
        for entry in entries {
            let (at, parcel) = match self.read(app, entry) {
                Ok(read) => read,
                Err(reason) => {
                    aside &= open.set_aside(entry, reason).await;
                    continue;
                }
            };
            let lane = parcel.lane().map(ToOwned::to_owned);
            if lane.as_ref().is_some_and(|lane| lanes.contains(lane)) {
                continue;
            }
            match self.deliver(app, parcel, at).await {
                End::Never(reason) => aside &= open.set_aside(entry, reason).await,
                End::Done { fresh } => {
                    open.done(vec![entry.at]).await;
                    for one in failed.iter().filter(|_| fresh) {
                        if open.passed_by(one.at, 1).await >= PASSED_BY {
                            aside &= open.set_aside(one, "not_taken").await;
                        }
                    }
                }
                End::NotNow => {
                    failed.push(entry);
                    lanes.extend(lane);
                    if failed.len() == TRIED {
                        break;
                    }
                }
            }
        }
        failed.is_empty() && aside
    }

    fn read(
        &self,
        app: &App,
        entry: &Entry,
    ) -> Result<(DateTime<Utc>, channels::Parcel), &'static str> {
        let head = log::Head::read(&entry.bytes).ok_or("damaged")?;
        let office = self.offices.get(OfficeId(head.office));
        let office = office.ok_or("no_such_office")?;
        let letter = Letter::unseal(&entry.bytes, &office).ok_or("cannot_be_opened")?;
        let parcel = channels::reopen(app, &letter)?;
        Ok((letter.received_at, parcel))
    }

    async fn deliver(&self, app: &App, parcel: channels::Parcel, at: DateTime<Utc>) -> End {
        // One that breaks the program off must not do it at every start.
        let delivery = AssertUnwindSafe(channels::deliver(app, parcel, at)).catch_unwind();
        let Delivered { office, kind, accepted } = match delivery.await {
            Err(_) => return End::Never("breaks_off"),
            Ok(Err(NotDelivered::NoOffice)) => return End::Never("no_such_office"),
            Ok(Err(NotDelivered::Busy(_))) => return End::NotNow,
            Ok(Ok(delivered)) => delivered,
        };
        let fresh = matches!(
            accepted,
            Some(Accepted::Ticket { repeated: false, .. } | Accepted::Said { repeated: false, .. })
        );
        // Of what an earlier delivery made, that one's answer has told.
        if let Some(Accepted::Ticket { made, received_at, differs: false, .. }) = accepted
            && kind == ChannelKind::Wechat
            && received_at == at
        {
            let told = store::within(TOLD_WITHIN, self.tell(app, office, &made, at));
            if let Err(error) = told.await {
                let error = telemetry::causes(&error);
                tracing::warn!(%error, "a citizen could not be told the number yet; trying again");
                return End::NotNow;
            }
        }
        End::Done { fresh }
    }

    /// Sees to it that the citizen, who was answered without a number, is told it, once for all that
    /// they wrote meanwhile.
    async fn tell(
        &self,
        app: &App,
        office: OfficeId,
        made: &Made,
        wrote_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let data = serde_json::json!({
            "tell_citizen": true, "asks": made.asks, "wrote_at": wrote_at,
        });
        let mut db = app.pool.acquire().await?;
        let mut transaction = db.begin().await?;
        let of = (office, made.ticket);
        let now = self.clock.now();
        let new = store::reply::number_follows(&mut transaction, of, &data, wrote_at, now).await?;
        transaction.commit().await?;
        if new {
            app.relay.wake();
        }
        Ok(())
    }
}

/// How a delivery ended.
enum End {
    /// In the database; `fresh` when it was not there before.
    Done { fresh: bool },
    /// The database would not take it now.
    NotNow,
    /// It never will.
    Never(&'static str),
}

impl Open {
    async fn write(&self, entry: Vec<u8>) -> Result<(), NotKept> {
        let (answer, answered) = oneshot::channel();
        self.writer.try_send((entry, answer)).map_err(|_| NotKept::Failed)?;
        match tokio::time::timeout(KEPT_WITHIN, answered).await {
            Ok(Ok(kept)) => kept,
            // It may be there all the same; the same again does no harm.
            _ => Err(NotKept::Failed),
        }
    }

    fn becomes(&self, from: State, to: State) {
        self.state.send_if_modified(|state| {
            let changes = *state == from;
            if changes {
                *state = to;
            }
            changes
        });
    }

    /// Works on the file, on a thread that may wait; `None` when it is closed or the disk fails.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let log = Arc::clone(&self.log);
        let worked = tokio::task::spawn_blocking(move || {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.as_mut().map(work)
        });
        match worked.await.ok()?? {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(error = %error, "the spool's folder fails; it is tried again");
                None
            }
        }
    }

    async fn done(&self, places: Vec<u64>) {
        if places.is_empty() {
            return;
        }
        metrics::counter!(telemetry::SPOOL, "outcome" => "drained").increment(places.len() as u64);
        self.leave(places).await;
    }

    /// The last one switches over to the database, before another can come behind it.
    async fn leave(&self, places: Vec<u64>) {
        let state = Arc::clone(&self.state);
        let empty = self.with(move |log| {
            let empty = log.done(&places);
            if empty {
                state.send_replace(State::Empty);
            }
            Ok(empty)
        });
        if empty.await == Some(true) {
            tracing::info!("the spool is empty");
        }
    }

    async fn passed_by(&self, at: u64, others: u32) -> u32 {
        self.with(move |log| Ok(log.passed_by(at, others))).await.unwrap_or_default()
    }

    /// Keeps it in a file of its own, out of the way of the others; false when the disk fails.
    async fn set_aside(&self, entry: &Entry, reason: &'static str) -> bool {
        let (at, bytes) = (entry.at, entry.bytes.clone());
        // Before it leaves the file; should that fail, it stays where it is.
        let kept = self.with(move |log| log.put_aside(&bytes)).await.is_some();
        if kept {
            metrics::counter!(telemetry::SPOOL, "outcome" => "aside").increment(1);
            tracing::error!(
                reason,
                "an entry of the spool was set aside in a file of its own in spool.folder; somebody should look at it"
            );
            self.leave(vec![at]).await;
        }
        kept
    }
}

/// Writes what has gathered, and answers.
fn write(
    mut waiting: mpsc::Receiver<Writing>,
    log: &SharedLog,
    state: &watch::Sender<State>,
    wake: &Wake,
) {
    while let Some(first) = waiting.blocking_recv() {
        let (mut entries, mut answers) = (vec![first.0], vec![first.1]);
        while let Ok((entry, answer)) = waiting.try_recv() {
            entries.push(entry);
            answers.push(answer);
        }
        let kept = {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(log) = log.as_mut() else { return };
            let kept = log.append(&entries);
            if !log.is_empty() {
                let began = state.send_if_modified(|state| {
                    let begins = *state == State::Empty;
                    if begins {
                        *state = State::Away;
                    }
                    begins
                });
                if began {
                    tracing::warn!(
                        "submissions cannot be committed; what comes is kept in the spool until they can"
                    );
                }
            }
            kept
        };
        wake.wake();
        for (answer, kept) in answers.into_iter().zip(kept) {
            // Who has hung up comes again.
            let _ = answer.send(kept);
        }
    }
}

async fn answers(app: &App) -> bool {
    let asked = store::within(ASKED_WITHIN, async {
        app.pool.acquire().await?.ping().await?;
        Ok::<_, StoreError>(())
    });
    asked.await.is_ok()
}

/// Drains until `shutdown`.
pub async fn run(app: Shared, shutdown: CancellationToken) {
    let pause = Wake::default();
    while app.spool.is_barred() && !shutdown.is_cancelled() {
        pause.wait(LOOK_EVERY, &shutdown).await;
        if app.spool.open_again().is_ok() {
            tracing::info!("the spool's folder is free now, and in use");
        }
    }
    let Some(open) = app.spool.open.get() else { return };
    while !shutdown.is_cancelled() {
        if app.spool.step(&app).await {
            continue;
        }
        if *open.state.borrow() == State::Empty {
            open.wake.wait(LOOK_EVERY, &shutdown).await;
        } else {
            // What comes meanwhile is no sign that the database is back.
            pause.wait(RETRY, &shutdown).await;
        }
    }
}

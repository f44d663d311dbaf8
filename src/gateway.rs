//! Wires the parts into one process, and stops it in order: no more requests, then what was taken
//! in is committed and answered, then the workers.

use crate::{
    amend,
    calls::{self, Source, Sources},
    citizen::token::Links,
    clock::Clock,
    config::{self, Config},
    domain::id::OfficeId,
    hearing::{Hearing, Waiting},
    housekeeping,
    http::{self, App, Shared, live::Live, serve::Limits},
    intake::{Committed, Intake, OnCommit, held::Waits},
    lifecycle::Wake,
    media::{Fetcher, Helpers, Keeper, Store, Transcriber},
    offices::{Office, Offices},
    platform::{self, Accounts, RedisTokens, Sending},
    relay::{Relay, Targets},
    reply::{Replies, SmsGateways},
    schedule::{
        TimerKey,
        fire::{Done, offices_of},
        index::Index,
        runner::{OnFired, Runner},
    },
    search::Indexer,
    secret,
    spool::{self, Spool},
    store::{self, StoreError},
    telemetry, wording,
};
use chrono::NaiveDate;
use intake_contract::Channel;
use intake_wechat::{ServiceWords, WechatChannel, WordsNow};
use secrecy::ExposeSecret;
use sqlx::{
    Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    collections::HashMap,
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The schema, as the program needs it.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Why the gateway does not start, in a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{says}")]
pub struct StartError {
    says: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StartError {
    /// Without a cause.
    #[must_use]
    pub fn new(says: impl Into<String>) -> Self {
        Self { says: says.into(), source: None }
    }

    /// With its cause.
    #[must_use]
    pub fn caused(
        says: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { says: says.into(), source: Some(source.into()) }
    }
}

/// What this process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// Requests only.
    Web,
    /// Timers and notices only.
    Worker,
}

/// For a connection that comes back to show that it is alive.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// Connections to the configured database, each with its limit for a statement.
///
/// # Errors
/// When the URL cannot be understood or nobody answers there.
pub async fn connect(config: &Config) -> Result<PgPool, StartError> {
    let options =
        PgConnectOptions::from_str(config.database_url.expose_secret()).map_err(|_| {
            StartError::new("database_url cannot be understood; it looks like postgres://user:password@host/name")
        })?;
    let session = format!(
        "{}; SET statement_timeout = {}",
        store::SESSION,
        config.database.statement_timeout_ms
    );
    PgPoolOptions::new()
        .max_connections(config.database.connections)
        .acquire_timeout(Duration::from_millis(config.database.acquire_timeout_ms))
        .after_connect(move |connection, _| {
            let session = session.clone();
            Box::pin(async move {
                // Not start-up parameters: poolers refuse those.
                sqlx::raw_sql(sqlx::AssertSqlSafe(session)).execute(connection).await.map(|_| ())
            })
        })
        .after_release(|connection, _| {
            // A call that was given up may have left a connection on which nothing answers any
            // more; the pool itself would wait for it without limit, and lose the place.
            Box::pin(async move {
                match tokio::time::timeout(RELEASE_WITHIN, connection.ping()).await {
                    Ok(alive) => alive.map(|()| true),
                    Err(_) => Err(sqlx::Error::PoolTimedOut),
                }
            })
        })
        .connect_with(options)
        .await
        .map_err(|error| {
            StartError::caused("PostgreSQL does not answer at database_url; is it running?", error)
        })
}

/// A gateway, put together; nothing runs but the intake's writers.
pub struct Gateway {
    /// What handlers share.
    pub app: Shared,
    limits: Limits,
    writers: TaskTracker,
    workers: TaskTracker,
    stop_requests: CancellationToken,
    stop_workers: CancellationToken,
    /// Until housekeeping starts.
    waiting: Mutex<Option<Waiting>>,
}

impl Gateway {
    /// Puts it together on a migrated database.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn new(config: &Config, pool: PgPool, clock: Clock) -> Result<Self, StartError> {
        telemetry::metrics();
        // Every client of the process is built on it; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        check_schema(&pool).await?;
        let offices = Arc::new(Offices::default());
        let read = |error: StoreError| StartError::caused("the offices cannot be read", error);
        let mut db = pool.acquire().await.map_err(|error| read(error.into()))?;
        offices.reload(&mut db).await.map_err(read)?;
        drop(db);

        let index = Index::new(config.redis_url.expose_secret(), &config.schedule.prefix).map_err(
            |_| {
                StartError::new("redis_url cannot be understood; it looks like redis://host:6379/0")
            },
        )?;
        let live = Live::default();
        let owner = format!("{}-{}", std::process::id(), &secret::token()[..8]);
        let (on_fired, relay_slot) = on_fired(live.clone());
        let settings = config.schedule.settings();
        let schedule = Runner::new(
            pool.clone(),
            index,
            Arc::clone(&offices),
            settings,
            owner.clone(),
            on_fired,
        );
        let search = Indexer::new(pool.clone(), owner);
        let relay = Relay::new(
            pool.clone(),
            Arc::clone(&offices),
            clock.clone(),
            config.relay.settings(&config.http.public_url),
            targets(config, &offices)?,
        );
        // Set once, here: the schedule wakes the relay, which is made after it.
        let _ = relay_slot.set(Arc::clone(&relay));
        let accounts = Arc::new(accounts(config, &offices, &pool)?);
        let told = Arc::new(Wake::default());
        relay.tell_citizens(Arc::clone(&accounts), Arc::clone(&told));
        let (hearing, waiting) =
            Hearing::new(pool.clone(), clock.clone(), Arc::clone(&accounts), Arc::clone(&told));
        let days = config.citizen.link_days;
        let links = Arc::new(Links::new(Arc::clone(&offices), config.citizen_url(), days));
        let replies = Replies::new(
            pool.clone(),
            Arc::clone(&offices),
            clock.clone(),
            config.relay.replies(),
            (Arc::clone(&accounts), sms(config, &offices)?),
            (Arc::clone(&relay), told),
            Arc::clone(&links),
        );

        let (channels, sources) = channels(config, &offices, &clock)?;
        let sources = Arc::new(sources);
        let store = Store::open(&config.media)
            .map_err(|(key, says)| StartError::new(format!("{key} {says}")))?;
        let limit = config.media.limit_mb * 1024 * 1024;
        let helpers = Helpers {
            ffmpeg: (!config.media.ffmpeg.is_empty()).then(|| config.media.ffmpeg.clone().into()),
            transcribe: !config.transcribe.command.is_empty(),
        };
        let media = Arc::new(Keeper::new(pool.clone(), store, limit, helpers));
        let transcriber = Transcriber::new(
            pool.clone(),
            Arc::clone(&media),
            config.transcribe.clone(),
            clock.clone(),
        );
        let fetcher = Fetcher::new(
            pool.clone(),
            Arc::clone(&media),
            (Arc::clone(&accounts), Arc::clone(&sources)),
            clock.clone(),
            config.media.parallel,
        );

        let stop_workers = CancellationToken::new();
        let workers = TaskTracker::new();
        let timers = entering(Arc::clone(&schedule), &workers, stop_workers.clone());
        let on_commit = on_commit(
            live.clone(),
            Arc::clone(&relay),
            Arc::clone(&search),
            Arc::clone(&fetcher),
            timers,
        );
        let waits = Waits::new(
            pool.clone(),
            Arc::clone(&offices),
            clock.clone(),
            config.intake.settings(),
            Arc::clone(&on_commit),
        );
        let writers = TaskTracker::new();
        let intake = Intake::open(
            pool.clone(),
            Arc::clone(&offices),
            clock.clone(),
            config.intake.settings(),
            on_commit,
            &writers,
        )
        .map_err(|error| StartError::caused("no thread for the intake", error))?;
        let limits = Limits {
            connections: config.http.connections,
            per_address: config.http.connections_per_address,
            trusted: config.http.trusted_proxies.clone(),
            header_timeout: Duration::from_secs(config.http.header_timeout_s),
            body_timeout: Duration::from_secs(config.http.body_timeout_s),
            drain: Duration::from_secs(config.http.answer_timeout_s),
        };
        let app = Arc::new(App {
            spool: Spool::new(Arc::clone(&offices), clock.clone()),
            channels,
            sources,
            citizen: http::citizen::Pages::new(links, config.citizen.clone()),
            pool,
            offices,
            clock,
            intake,
            schedule,
            relay,
            accounts,
            hearing,
            replies,
            search,
            waits,
            media,
            fetcher,
            transcriber,
            live,
            tallies: http::desk::Tallies::default(),
            desk: config.desk.clone(),
            calls: config.calls.clone(),
            answer_within: Duration::from_secs(config.http.answer_timeout_s),
            closing: CancellationToken::new(),
        });
        let stop_requests = CancellationToken::new();
        let waiting = Mutex::new(Some(waiting));
        Ok(Self { app, limits, writers, workers, stop_requests, stop_workers, waiting })
    }

    /// Switches the spool on where the settings name a folder; its process has it alone. For one that
    /// takes requests in. Where the folder cannot be used the gateway works as without one, and says so.
    pub fn open_spool(&self, settings: &config::Spool) {
        if settings.folder.is_empty() {
            return;
        }
        let folder = Path::new(&settings.folder);
        if let Err(error) = self.app.spool.open(folder, settings.limit_mb * 1024 * 1024) {
            tracing::error!(
                error = %telemetry::causes(&error),
                "spool.folder: {} cannot be used: while PostgreSQL is away this process answers 503; give it a folder of its own that it may write to",
                settings.folder
            );
        }
    }

    /// Starts the timers' and the notices' loops.
    pub fn start_workers(&self) {
        let stop = || self.stop_workers.clone();
        let schedule = &self.app.schedule;
        self.workers.spawn(Arc::clone(schedule).run(stop()));
        self.workers.spawn(Arc::clone(schedule).listen(stop()));
        self.workers.spawn(Arc::clone(schedule).keep_true(stop()));
        self.workers.spawn(Arc::clone(&self.app.relay).run(stop()));
        self.workers.spawn(Arc::clone(&self.app.replies).run(stop()));
        self.workers.spawn(Arc::clone(&self.app.search).run(stop()));
        self.workers.spawn(Arc::clone(&self.app.waits).run(stop()));
        self.workers.spawn(Arc::clone(&self.app.fetcher).run(stop()));
        self.workers.spawn(Arc::clone(&self.app.transcriber).run(stop()));
        self.workers.spawn(calls::run(Arc::clone(&self.app), stop()));
        self.workers.spawn(calls::scan::run(Arc::clone(&self.app), stop()));
        self.workers.spawn(calls::reconcile::run(Arc::clone(&self.app), stop()));
    }

    /// Starts what every process needs: offices read again when they change, live pages, tidying up.
    pub fn start_housekeeping(&self) {
        let app = &self.app;
        let stop = || self.stop_workers.clone();
        let live = app.live.clone();
        self.workers.spawn(live.ask(app.pool.clone(), Arc::clone(&app.offices), stop()));
        self.workers.spawn(amend::follow(Arc::clone(app), stop()));
        self.workers.spawn(housekeeping::run(Arc::clone(app), stop()));
        self.workers.spawn(telemetry::tidy(stop()));
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            self.workers.spawn(Arc::clone(&app.hearing).note(waiting, stop()));
        }
        self.workers.spawn(spool::run(Arc::clone(app), stop()));
    }

    /// Serves until `stop`, then finishes what is under way.
    pub async fn serve(
        self,
        public: TcpListener,
        ops: TcpListener,
        role: Role,
        stop: CancellationToken,
    ) {
        self.start_housekeeping();
        if role != Role::Web {
            self.start_workers();
        }
        let app = &self.app;
        let limits = self.limits.clone();
        let requests = &self.stop_requests;
        let operations = tokio::spawn(http::serve::serve(
            ops,
            http::operations(Arc::clone(app)),
            limits.clone(),
            self.stop_workers.clone(),
        ));
        let door = (role != Role::Worker).then(|| {
            let router = http::public(Arc::clone(app));
            tokio::spawn(http::serve::serve(public, router, limits, requests.clone()))
        });
        stop.cancelled().await;
        tracing::info!("stopping: requests under way are finished first");
        // Live pages would stay open for ever.
        app.closing.cancel();
        requests.cancel();
        if let Some(door) = door {
            let _ = door.await;
        }
        self.close().await;
        let _ = operations.await;
        tracing::info!("stopped");
    }

    /// Commits what was taken in, then ends the workers.
    pub async fn close(self) {
        let Self { app, writers, workers, stop_workers, .. } = self;
        app.intake.close();
        writers.close();
        writers.wait().await;
        stop_workers.cancel();
        workers.close();
        workers.wait().await;
        app.spool.close();
    }
}

/// Whether the tables are there, as this program needs them.
///
/// # Errors
/// Says what to do where they are not.
pub async fn check_schema(pool: &PgPool) -> Result<(), StartError> {
    let needed = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let found: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(pool)
            .await
            .unwrap_or(None);
    match found {
        Some(found) if found >= needed => Ok(()),
        _ => Err(StartError::new("the database's tables are missing or old: run `intake migrate`")),
    }
}

type RelaySlot = Arc<std::sync::OnceLock<Arc<Relay>>>;

fn on_fired(live: Live) -> (OnFired, RelaySlot) {
    let slot = RelaySlot::default();
    let relay = Arc::clone(&slot);
    let on_fired: OnFired = Arc::new(move |done: &Done| {
        for office in offices_of(&done.fired) {
            live.changed(office);
        }
        if let Some(relay) = relay.get() {
            relay.wake();
        }
    });
    (on_fired, slot)
}

fn on_commit(
    live: Live,
    relay: Arc<Relay>,
    search: Arc<Indexer>,
    fetcher: Arc<Fetcher>,
    timers: mpsc::Sender<Vec<TimerKey>>,
) -> OnCommit {
    Arc::new(move |committed: &Committed| {
        for office in &committed.offices {
            live.changed(*office);
        }
        search.wake();
        if committed.attachments {
            fetcher.wake();
        }
        if committed.urgent {
            relay.wake_now();
        } else if committed.effects {
            relay.wake();
        }
        if !committed.timers.is_empty() {
            // Full when Redis is slow: then the sweep finds them.
            let _ = timers.try_send(committed.timers.clone());
        }
    })
}

/// Enters new timers into Redis beside the commits, never before an answer.
fn entering(
    schedule: Arc<Runner>,
    workers: &TaskTracker,
    stop: CancellationToken,
) -> mpsc::Sender<Vec<TimerKey>> {
    const BATCHES: usize = 256;
    const MOMENT: Duration = Duration::from_millis(20);
    let gather = Wake::default();
    let (sender, mut receiver) = mpsc::channel::<Vec<TimerKey>>(BATCHES);
    workers.spawn(async move {
        let mut batches = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                taken = receiver.recv_many(&mut batches, BATCHES) => if taken == 0 { return },
            }
            // Nothing of a new ticket is due at once: what follows on its heels goes along.
            gather.wait(MOMENT, &stop).await;
            while let Ok(more) = receiver.try_recv() {
                batches.push(more);
            }
            let timers: Vec<TimerKey> = batches.drain(..).flatten().collect();
            schedule.enter(&timers).await;
        }
    });
    sender
}

fn office_of(offices: &Offices, key: &str, code: &str) -> Result<Arc<Office>, StartError> {
    offices.by_code(code).ok_or_else(|| {
        StartError::new(format!(
            "{key}.office: there is no office with the code {code}; create it with `intake office add`"
        ))
    })
}

/// What an account says of its office, made anew where the office or the day is another one: its
/// hours may change on a day that was entered long before.
fn service_words(offices: &Arc<Offices>, id: OfficeId, clock: &Clock) -> WordsNow {
    let (offices, clock) = (Arc::clone(offices), clock.clone());
    let last: Mutex<Option<(i32, NaiveDate, Arc<ServiceWords>)>> = Mutex::default();
    Arc::new(move || {
        let today = wording::day_of(clock.now());
        let office = offices.get(id);
        let version = office.as_ref().map_or(0, |office| office.calendar_version);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, day, words)) if (*of, *day) == (version, today) => Arc::clone(words),
            _ => {
                let words = office.map_or_else(ServiceWords::default, |office| ServiceWords {
                    office_name: office.name.clone(),
                    opening_hours: office.calendar.hours_said(today),
                    phone: office.policy.phone.clone(),
                });
                let words = Arc::new(words);
                *last = Some((version, today, Arc::clone(&words)));
                words
            }
        }
    })
}

fn channels(
    config: &Config,
    offices: &Arc<Offices>,
    clock: &Clock,
) -> Result<(http::Channels, Sources), StartError> {
    let mut channels: http::Channels = HashMap::new();
    let mut sources = Sources::default();
    for (index, entry) in config.wechat.iter().enumerate() {
        let key = format!("wechat[{index}]");
        let office = office_of(offices, &key, &entry.office)?;
        let words = service_words(offices, office.id, clock);
        let channel = WechatChannel::new(entry.settings.clone(), words)
            .map_err(|error| StartError::new(format!("{key}.{error}")))?;
        add(&mut channels, &key, &entry.settings.id, office.id, Arc::new(channel))?;
    }
    for (index, entry) in config.hotline.iter().enumerate() {
        let key = format!("hotline[{index}]");
        let office = office_of(offices, &key, &entry.office)?;
        let (source, channel) = Source::new(office.id, &entry.settings)
            .map_err(|(what, says)| StartError::new(format!("{key}.{what} {says}")))?;
        if let Some(channel) = channel {
            add(&mut channels, &key, &entry.settings.id, office.id, Arc::new(channel))?;
        }
        if sources.0.insert(source.name.clone(), Arc::new(source)).is_some() {
            let id = &entry.settings.id;
            return Err(StartError::new(format!("{key}.id: {id} occurs twice")));
        }
    }
    Ok((channels, sources))
}

fn add(
    channels: &mut http::Channels,
    key: &str,
    id: &str,
    office: OfficeId,
    channel: Arc<dyn Channel>,
) -> Result<(), StartError> {
    let address = http::channels::key(channel.as_ref(), id);
    if channels.insert(address, (office, channel)).is_some() {
        return Err(StartError::new(format!("{key}.id: {id} occurs twice")));
    }
    Ok(())
}

/// The accounts that can send. Their tokens are shared by all replicas, by one store for a process.
fn accounts(config: &Config, offices: &Offices, pool: &PgPool) -> Result<Accounts, StartError> {
    let tokens = RedisTokens::new(config.redis_url.expose_secret(), &config.schedule.prefix)
        .map_err(|_| StartError::new("redis_url cannot be understood"))?;
    let tokens = Arc::new(tokens);
    let mut accounts = Vec::new();
    for (index, entry) in config.wechat.iter().enumerate() {
        let key = format!("wechat[{index}]");
        let office = office_of(offices, &key, &entry.office)?.id;
        let account = &entry.settings;
        let platform = platform::platform(account, office, pool.clone(), Arc::clone(&tokens))
            .map_err(|(what, says)| StartError::new(format!("{key}.{what} {says}")))?;
        let (Some(platform), Some(api)) = (platform, &account.api) else { continue };
        accounts.push(Sending {
            office,
            source: format!("wechat:{}", account.id),
            app_id: account.app_id.clone(),
            templates: api.templates.clone(),
            platform,
        });
    }
    Ok(Accounts::new(accounts))
}

fn sms(config: &Config, offices: &Offices) -> Result<SmsGateways, StartError> {
    let mut gateways = SmsGateways::new();
    for (index, entry) in config.sms.iter().enumerate() {
        let key = format!("sms[{index}]");
        let office = office_of(offices, &key, &entry.office)?;
        let sms = entry.settings.sms();
        let sms = sms.map_err(|error| StartError::new(format!("{key}.{error}")))?;
        gateways.insert(office.id, sms);
    }
    Ok(gateways)
}

fn targets(config: &Config, offices: &Offices) -> Result<Targets, StartError> {
    let mut targets = Targets::new();
    for (index, entry) in config.notify.iter().enumerate() {
        let key = format!("notify[{index}]");
        let office = office_of(offices, &key, &entry.office)?;
        let notifier = intake_notify::notifier(&entry.target)
            .map_err(|error| StartError::new(format!("{key}.{error}")))?;
        targets.entry(office.id).or_default().push((entry.name.clone(), notifier));
    }
    Ok(targets)
}

/// Applies the migrations that are missing; the same again changes nothing.
///
/// # Errors
/// [`StartError`].
pub async fn migrate(pool: &PgPool) -> Result<(), StartError> {
    let wrong = "the database's tables could not be brought up to date";
    let replaced = replace_parsed_body(pool).await;
    replaced.map_err(|error| StartError::caused(wrong, error))?;
    let run = async {
        // A session of its own: what makes requests answer in time would end the building of an
        // index, and forbid the plans that whole tables are compared by.
        let mut db = pool.acquire().await?.detach();
        sqlx::raw_sql(store::MIGRATING).execute(&mut db).await?;
        MIGRATIONS.run(&mut db).await?;
        Ok::<_, sqlx::migrate::MigrateError>(db.close().await?)
    };
    run.await.map_err(|error| StartError::caused(wrong, error))
}

/// The digest of migration 10 as it was: its function had a parsed body, with which PostgreSQL 15.20
/// lets no later migration add a column to `ticket`.
const MIGRATION_10_BEFORE: &str = "330e703fd7ae288c1ab108ff3a3503a0ab710504ec3a13a32935c2a95621c1689152862be46b3e88ba8870f2f4b537ff";

/// Gives a database that has migration 10 as it was what it has now; the same again changes nothing.
async fn replace_parsed_body(pool: &PgPool) -> Result<(), sqlx::Error> {
    let Some(now) = MIGRATIONS.iter().find(|migration| migration.version == 10) else {
        return Ok(());
    };
    let function =
        now.sql.as_str().split("CREATE FUNCTION ").find(|part| part.starts_with("in_hand_of("));
    let function = function.and_then(|part| part.split_inclusive("$$;").next());
    let mut transaction = pool.begin().await?;
    let migrated: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *transaction)
        .await?;
    if let Some(function) = function.filter(|_| migrated) {
        let was_before = sqlx::query(
            "UPDATE _sqlx_migrations SET checksum = $1
             WHERE version = 10 AND checksum = decode($2, 'hex')",
        )
        .bind(now.checksum.as_ref())
        .bind(MIGRATION_10_BEFORE)
        .execute(&mut *transaction)
        .await?;
        if was_before.rows_affected() > 0 {
            let replace = format!("CREATE OR REPLACE FUNCTION {function}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(replace)).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await
}

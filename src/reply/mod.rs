//! Telling citizens, by the right path (wechat.md §6.4).
//!
//! What a citizen should know is an effect first; the relay makes replies of them (`plan`). A step
//! takes what is due, decides the path anew from what was tried (`path`), writes down the attempt,
//! makes it, and writes down how it ended. An attempt that nobody came back from is one that may
//! have been sent: what can be repeated under its identity is, what cannot is waited for and then
//! goes by another path. Where no path is left, the ticket says that somebody has to telephone, with
//! the words, and the handler is told.
//!
//! Every account, and the text messages of every office, is a lane with its own room: a platform that
//! hangs holds up nothing else.

mod path;
mod plan;
mod words;

pub use path::Path;
pub use plan::{AT_A_TIME, plan};
pub use words::{Words, words};

use crate::{
    citizen::token::Links,
    clock::Clock,
    domain::{conversation::grade_options, id::OfficeId, ticket::State},
    lifecycle::Wake,
    offices::{Office, Offices},
    platform::{Accounts, Sending},
    relay::{Lane, Relay, UnderWay},
    store::{
        self, StoreError,
        heard::Standing,
        reply::{AttemptEnded, Begun, Due, Matched, Then},
    },
    telemetry,
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{Correspondent, Delivery, SendError, Telling};
use intake_notify::Sms;
use intake_wechat::platform::{
    Again, By, CustomMessage, Filling, Openid, PlatformError, RESERVED_FOR_STAFF, Template,
    TemplateSettings, Trouble,
};
use path::{Next, PATIENCE};
use sqlx::{Connection, PgPool};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The lane of text messages, and of what has no other.
pub const SMS: &str = "sms";

/// One attempt is given up after this; an account's own limit is shorter.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(60);
/// What a process that died held is taken over after this.
const LEASE: TimeDelta = TimeDelta::minutes(3);
/// What was decided longer ago than this may be over by now.
const LATE: TimeDelta = TimeDelta::minutes(10);
/// Of one call on the database.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// The first wait on a path that does not work now; doubles.
const FIRST_RETRY: TimeDelta = TimeDelta::seconds(30);
const LONGEST_RETRY: TimeDelta = TimeDelta::minutes(10);
/// A custom message's own limit, in bytes (§6.1).
const MESSAGE_LIMIT: usize = 2048;
/// A text message is read on a small screen and paid by its length.
const SMS_LIMIT: usize = 1000;

/// How replies are sent; see `relay` in config/default.toml.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest wait between two looks.
    pub look_every: Duration,
    /// Attempts under way at a time, in each lane.
    pub parallel: usize,
}

/// Where text messages go, by office.
pub type SmsGateways = HashMap<OfficeId, Sms>;

/// The replies of one replica.
pub struct Replies {
    pool: PgPool,
    offices: Arc<Offices>,
    clock: Clock,
    settings: Settings,
    accounts: Arc<Accounts>,
    links: Arc<Links>,
    sms: SmsGateways,
    relay: Arc<Relay>,
    wake: Arc<Wake>,
}

/// How an attempt ended, before it is written down.
struct End {
    outcome: Outcome,
    code: Option<i64>,
    says: Option<String>,
    message_id: Option<String>,
}

enum Outcome {
    Taken,
    /// By another path.
    Over,
    /// By the same, not before then.
    Later(Option<DateTime<Utc>>),
    /// It may have been sent.
    Uncertain,
}

impl End {
    fn over(says: impl Into<String>) -> Self {
        Self { outcome: Outcome::Over, code: None, says: Some(says.into()), message_id: None }
    }

    fn taken(message_id: Option<String>) -> Self {
        Self { outcome: Outcome::Taken, code: None, says: None, message_id }
    }
}

/// What a reply can be sent by now.
struct Ways<'a> {
    account: Option<(&'a Sending, Correspondent)>,
    standing: Standing,
    sms: Option<(&'a Sms, String)>,
}

impl Ways<'_> {
    fn template(&self, path: Path, kind: Telling) -> Option<&TemplateSettings> {
        let (account, _) = self.account.as_ref()?;
        let by = match path {
            Path::Notice => By::Notice,
            Path::Template => By::Template,
            Path::Custom | Path::Sms => return None,
        };
        account.templates.iter().find(|one| {
            let consented =
                by == By::Template || one.long_term || self.standing.consents.contains(&one.id);
            one.by == by && one.kinds.contains(&kind) && consented
        })
    }

    /// Whether there is such a path for this kind of reply now.
    fn has(&self, path: Path, kind: Telling) -> bool {
        match path {
            Path::Sms => self.sms.is_some(),
            _ if self.standing.gone || self.account.is_none() => false,
            Path::Custom => true,
            Path::Notice | Path::Template => self.template(path, kind).is_some(),
        }
    }
}

impl Replies {
    /// They; nothing runs yet. `wake` is rung by whoever knows of something to send.
    #[must_use]
    pub fn new(
        pool: PgPool,
        offices: Arc<Offices>,
        clock: Clock,
        settings: Settings,
        (accounts, sms): (Arc<Accounts>, SmsGateways),
        (relay, wake): (Arc<Relay>, Arc<Wake>),
        links: Arc<Links>,
    ) -> Arc<Self> {
        Arc::new(Self { pool, offices, clock, settings, accounts, sms, relay, wake, links })
    }

    /// Sends until `shutdown`; what is under way then is ended.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut under_way = UnderWay::default();
        while !shutdown.is_cancelled() {
            self.rehome().await.unwrap_or_else(|error| cannot_send(&error));
            let look_again = Instant::now() + self.settings.look_every;
            let mut lanes = self.lanes();
            loop {
                let started = self.start(&lanes, &mut under_way).await;
                started.map(drop).unwrap_or_else(|error| cannot_send(&error));
                let left = look_again.saturating_duration_since(Instant::now());
                tokio::select! {
                    // One that ended may have gone over into another lane.
                    Some(_) = under_way.ended() => lanes = self.lanes(),
                    _ = self.wake.wait(left, &shutdown) => break,
                }
            }
        }
        while under_way.ended().await.is_some() {}
    }

    /// One look: sends what is due, until all of it has ended. Returns how many replies were looked
    /// at.
    ///
    /// # Errors
    /// [`StoreError`]; what did not fail is done.
    pub async fn step(self: &Arc<Self>) -> Result<usize, StoreError> {
        let mut failed = self.rehome().await.err();
        let mut under_way = UnderWay::default();
        let lanes = self.lanes();
        let mut looked_at = 0;
        loop {
            match self.start(&lanes, &mut under_way).await {
                Ok(started) => looked_at += started,
                Err(error) => failed = Some(error),
            }
            if under_way.ended().await.is_none() {
                break;
            }
        }
        failed.map_or(Ok(looked_at), Err)
    }

    fn lanes_of(&self, office: OfficeId) -> Vec<String> {
        let accounts = self.accounts.all().filter(|account| account.office == office);
        accounts.map(|account| account.source.clone()).chain([SMS.to_owned()]).collect()
    }

    fn lanes(&self) -> BTreeSet<Lane> {
        let offices = self.offices.all();
        let lanes = offices.keys().flat_map(|office| {
            let lane = |target| Lane { office: *office, target };
            self.lanes_of(*office).into_iter().map(lane)
        });
        lanes.collect()
    }

    async fn rehome(&self) -> Result<(), StoreError> {
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            for office in self.offices.all().keys() {
                store::reply::rehome(&mut db, *office, &self.lanes_of(*office), SMS).await?;
            }
            Ok(())
        })
        .await
    }

    /// Begins attempts in these lanes, as many as there is room for in each.
    async fn start(
        self: &Arc<Self>,
        lanes: &BTreeSet<Lane>,
        under_way: &mut UnderWay,
    ) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let rooms: Vec<(OfficeId, String, i64)> = lanes
            .iter()
            .filter_map(|lane| {
                let free = self.settings.parallel.saturating_sub(under_way.of(lane));
                let room = i64::try_from(free).unwrap_or(i64::MAX);
                (free > 0).then(|| (lane.office, lane.target.clone(), room))
            })
            .collect();
        if rooms.is_empty() {
            return Ok(0);
        }
        let taken = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            let taken = store::reply::take(&mut transaction, now, now + LEASE, &rooms).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(taken)
        })
        .await?;
        let count = taken.len();
        for due in taken {
            let lane = Lane { office: due.office, target: due.lane.clone() };
            let replies = Arc::clone(self);
            under_way.begin(lane, async move {
                if let Err(error) = replies.attempt(&due).await {
                    // The lease ends and it is looked at again.
                    let error = telemetry::causes(&error);
                    tracing::warn!(reply.id = due.id.0, %error, "a reply could not be attempted");
                }
            });
        }
        Ok(count)
    }

    async fn attempt(&self, due: &Due) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(office) = self.offices.get(due.office) else { return Ok(()) };
        let may_at = plan::may_be_told_at(&office, due.kind, &due.facts, now);
        if may_at > now {
            return self.move_on(due, &Then::Again(may_at, due.lane.clone())).await;
        }
        let Some(facts) = self.still_true(due).await? else {
            return self.move_on(due, &Then::Failed).await;
        };
        let ways = self.ways(due).await?;
        let path = match path::next(|path| ways.has(path, due.kind), &due.before, now) {
            Next::Try(path) => path,
            Next::Wait(until) => return self.in_doubt(due, &ways, until).await,
            Next::Over => return self.give_up(due, &office).await,
        };
        let lane = match (&ways.account, path) {
            (Some((account, _)), Path::Custom | Path::Notice | Path::Template) => &account.source,
            _ => SMS,
        };
        if lane != due.lane {
            return self.move_on(due, &Then::Again(now, lane.to_owned())).await;
        }
        let template = ways.template(path, due.kind);
        let recipient = match (path, &ways.account, &ways.sms) {
            (Path::Sms, _, Some((_, mobile))) => mobile.as_str(),
            (_, Some((_, citizen)), _) => citizen.as_str(),
            _ => return Ok(()),
        };
        let template_id = template.map(|template| template.id.as_str());
        let begun = Begun { path: path.as_str(), source: lane, recipient, template_id };
        if !self.begin(due, &begun).await? {
            return Ok(());
        }
        let link = self.links.url(office.id, due.ticket, due.created_at);
        let link = link.filter(|_| carries_link(path, due.thread.as_deref()));
        let words = words(&office, due.ticket, due.kind, &facts, link.as_deref(), now);
        let call = self.send(due, &office, &ways, path, &words, link.as_deref());
        let end = tokio::time::timeout(ATTEMPT_WITHIN, call).await.unwrap_or_else(|_| End {
            outcome: Outcome::Uncertain,
            code: None,
            says: Some("没有在时限内回答".to_owned()),
            message_id: None,
        });
        self.end(due, &begun, path, end).await
    }

    /// The facts as they are now; `None` for what is over and need not be told any more. What is
    /// told late, for it waited for the morning, for another path or for the citizen's next message,
    /// is looked at anew.
    async fn still_true(&self, due: &Due) -> Result<Option<serde_json::Value>, StoreError> {
        let late = self.clock.now() - due.created_at > LATE;
        if !late && due.kind != Telling::Raised {
            return Ok(Some(due.facts.clone()));
        }
        let stands = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::citizen::stands(&mut db, due.office, due.ticket).await
        });
        let Some(stands) = stands.await? else { return Ok(None) };
        let mut facts = due.facts.clone();
        let level = facts.get("level").and_then(serde_json::Value::as_i64);
        let holds = match due.kind {
            Telling::Registered => {
                // R7.2: who gave them meanwhile is not asked.
                if facts.get("asks").and_then(serde_json::Value::as_bool) == Some(true) {
                    facts["asks"] = (!stands.named).into();
                }
                // Who was answered from the spool without a number is told it, however the matter
                // stands by then; an answer is promised only while one is owed.
                let promised = facts.get("wrote_at").is_some();
                facts["owed"] = stands.state.is_pressing().into();
                stands.state.is_pressing()
                    || (promised && !matches!(stands.state, State::Closed { .. }))
            }
            Telling::Raised => {
                let higher = level.is_some_and(|level| i64::from(due.level) > level);
                stands.state.is_pressing() && !higher
            }
            Telling::Claimed | Telling::Reopened => stands.state.is_pressing(),
            Telling::Awaiting => {
                matches!(stands.state, State::AwaitingCitizen { .. }) && !stands.material_came
            }
            Telling::Resolved => matches!(
                stands.state,
                State::Resolved { .. } | State::Evaluated { .. } | State::Closed { .. }
            ),
            Telling::Said => true,
        };
        Ok(holds.then_some(facts))
    }

    async fn ways(&self, due: &Due) -> Result<Ways<'_>, StoreError> {
        let account = self.accounts.of_thread(due.office, due.thread.as_deref());
        let account = account.map(|(account, citizen)| (account, Correspondent::new(citizen)));
        let standing = match &account {
            None => Standing::default(),
            Some((account, citizen)) => {
                store::within(CALL_WITHIN, async {
                    let mut db = self.pool.acquire().await?;
                    let app_id = &account.app_id;
                    store::heard::standing(&mut db, due.office, app_id, citizen).await
                })
                .await?
            }
        };
        let mobile = due.phone.as_deref().and_then(intake_notify::mobile);
        let sms = self.sms.get(&due.office).zip(mobile);
        Ok(Ways { account, standing, sms })
    }

    /// Writes down the attempt, and that an earlier one was never ended.
    async fn begin(&self, due: &Due, begun: &Begun<'_>) -> Result<bool, StoreError> {
        let now = self.clock.now();
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            store::reply::abandon(&mut transaction, due, now).await?;
            let begun = store::reply::begin(&mut transaction, due, begun, now).await?;
            transaction.commit().await?;
            Ok(begun)
        })
        .await
    }

    async fn send(
        &self,
        due: &Due,
        office: &Office,
        ways: &Ways<'_>,
        path: Path,
        words: &Words,
        link: Option<&str>,
    ) -> End {
        let now = self.clock.now();
        // What the other side knows it by, the same in every attempt and for no other reply.
        let id = format!("reply-{}-{}", office.code, due.id);
        if path == Path::Sms {
            let Some((sms, mobile)) = &ways.sms else { return End::over("没有短信网关") };
            return match sms.send(&id, mobile, &words.within(SMS_LIMIT), now).await {
                Ok(message_id) => End::taken(message_id),
                Err(SendError::Permanent { reason }) => End::over(reason),
                Err(SendError::Retry { reason, after }) => {
                    let after = after.and_then(|after| TimeDelta::from_std(after).ok());
                    let outcome = Outcome::Later(after.map(|after| now + after));
                    End { outcome, code: None, says: Some(reason), message_id: None }
                }
            };
        }
        let Some((account, citizen)) = &ways.account else { return End::over("没有公众号") };
        let openid = Openid::new(citizen.as_str());
        let sent = match (path, ways.template(path, due.kind)) {
            (Path::Custom, _) => {
                let text = match due.kind {
                    // R7.d: judged where it is read, by a tap.
                    Telling::Resolved => CustomMessage::Choice {
                        head: words.above_grades(MESSAGE_LIMIT),
                        options: grade_options(due.ticket),
                    },
                    _ => CustomMessage::Text(words.within(MESSAGE_LIMIT)),
                };
                let reserve = if is_staffs_own(due.kind) { 0 } else { RESERVED_FOR_STAFF };
                let sent = account.platform.send_custom(&openid, &text, reserve, now).await;
                sent.map(|()| None)
            }
            (_, None) => return End::over("没有可用的模板"),
            (_, Some(template)) => {
                let number = due.ticket.display(&office.prefix);
                let phone = office.policy.phone.as_deref().unwrap_or(&office.name);
                let fields = template.fill(&Filling {
                    number: &number,
                    state: words.state,
                    says: &words.says,
                    date: words.date,
                    office: &office.name,
                    phone,
                });
                let fields = match fields {
                    Ok(fields) => fields,
                    Err(error) => return End::over(format!("模板字段填不进去：{error}")),
                };
                // Half an answer is none, unless the rest stands on a page.
                let whole =
                    link.is_some() || fields.iter().any(|field| field.value() == words.says);
                if !whole && is_to_be_read(due.kind) {
                    return End::over("内容长，模板放不下，也没有查询页可以打开");
                }
                let message =
                    Template { to: &openid, template_id: &template.id, link, fields: &fields };
                let sent = match path {
                    Path::Notice => {
                        self.send_notice(due, account, citizen, template, message).await
                    }
                    _ => account.platform.send_template(message, &id).await,
                };
                sent.map(|sent| sent.msg_id)
            }
        };
        match sent {
            Ok(message_id) => End::taken(message_id),
            Err(error) => judged(&error, now),
        }
    }

    /// A one-time template takes one consent, which is counted before: what was certainly not sent
    /// gives it back.
    async fn send_notice(
        &self,
        due: &Due,
        account: &Sending,
        citizen: &Correspondent,
        template: &TemplateSettings,
        message: Template<'_>,
    ) -> Result<intake_wechat::platform::TemplateSent, PlatformError> {
        let (office, app_id) = (due.office, &account.app_id);
        if !template.long_term {
            let taken = store::within(CALL_WITHIN, async {
                let mut db = self.pool.acquire().await?;
                store::heard::take_consent(&mut db, office, app_id, citizen, &template.id).await
            });
            // If it cannot be counted, the platform's answer is the truth.
            taken.await.map(drop).unwrap_or_else(|error| cannot_send(&error));
        }
        let sent = account.platform.send_notice(message).await;
        let Err(error) = &sent else { return sent };
        let none_left = error.trouble() == Trouble::NoConsent;
        if none_left || !(template.long_term || error.may_have_been_done()) {
            let corrected = store::within(CALL_WITHIN, async {
                let mut db = self.pool.acquire().await?;
                let id = &template.id;
                store::heard::set_consent(&mut db, office, app_id, citizen, id, !none_left).await
            });
            corrected.await.unwrap_or_else(|error| cannot_send(&error));
        }
        sent
    }

    /// Writes down how an attempt ended, and what follows; one transaction. A receipt may have come
    /// before.
    async fn end(
        &self,
        due: &Due,
        begun: &Begun<'_>,
        path: Path,
        end: End,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let first = due.before.iter().find(|one| one.path == path.as_str());
        let first = first.map_or(now, |one| one.began_at);
        let here = |at| Then::Again(at, due.lane.clone());
        let (outcome, then) = match end.outcome {
            Outcome::Taken => ("taken", Then::Sent),
            Outcome::Over => ("over", here(now)),
            Outcome::Uncertain if matches!(path, Path::Custom | Path::Notice) => {
                ("uncertain", here(now + path::IN_DOUBT))
            }
            Outcome::Uncertain => ("uncertain", here(now + FIRST_RETRY)),
            Outcome::Later(at) => match at.unwrap_or(now + backoff(due, path)) {
                at if at >= first + PATIENCE => ("over", here(now)),
                at => ("later", here(at)),
            },
        };
        metrics::counter!(telemetry::REPLIES, "path" => path.as_str(), "result" => outcome)
            .increment(1);
        let ended = AttemptEnded {
            outcome,
            code: end.code,
            says: end.says.as_deref(),
            message_id: end.message_id.as_deref(),
        };
        let attempt = due.attempt;
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            let db = &mut *transaction;
            let named = match &end.message_id {
                Some(id) => store::reply::named(db, due, begun.source, id, now).await?,
                None => None,
            };
            store::reply::attempted(db, due, &ended, now).await?;
            store::reply::move_on(db, due, &then, now).await?;
            let mut matched = named.map(|delivery| Matched { reply: due.id, attempt, delivery });
            if end.message_id.is_none() && matches!(outcome, "taken" | "uncertain") {
                let since = now - LEASE;
                let (source, recipient) = (begun.source, begun.recipient);
                matched = store::reply::adopt(db, due.office, source, recipient, since).await?;
            }
            if let Some(matched) = matched {
                store::reply::delivered(db, due.office, matched, now).await?;
                if matched.delivery != Delivery::Arrived {
                    self.wake.wake();
                }
            }
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// No path is left: somebody telephones, unless it is not worth it.
    async fn give_up(&self, due: &Due, office: &Office) -> Result<(), StoreError> {
        let now = self.clock.now();
        if due.kind == Telling::Claimed {
            return self.move_on(due, &Then::Failed).await;
        }
        let told_from = office.staff_told_from(now);
        let moved = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            store::reply::abandon(&mut transaction, due, now).await?;
            let moved = store::reply::move_on(&mut transaction, due, &Then::Call, now).await?;
            if moved {
                store::reply::tell_staff_to_call(&mut transaction, due, now, told_from).await?;
            }
            transaction.commit().await?;
            Ok::<_, StoreError>(moved)
        })
        .await?;
        if moved {
            metrics::counter!(telemetry::REPLIES, "path" => "call", "result" => "call")
                .increment(1);
            self.relay.wake();
        }
        Ok(())
    }

    /// Waits for what may have been sent; its receipt may be here already.
    async fn in_doubt(
        &self,
        due: &Due,
        ways: &Ways<'_>,
        until: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.move_on(due, &Then::Again(until, due.lane.clone())).await?;
        let Some((account, citizen)) = &ways.account else { return Ok(()) };
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            let db = &mut *transaction;
            let (office, source, who) = (due.office, &account.source, citizen.as_str());
            let since = now - path::IN_DOUBT - LEASE;
            if let Some(matched) = store::reply::adopt(db, office, source, who, since).await? {
                store::reply::delivered(db, office, matched, now).await?;
            }
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    async fn move_on(&self, due: &Due, then: &Then) -> Result<(), StoreError> {
        let now = self.clock.now();
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            store::reply::abandon(&mut transaction, due, now).await?;
            store::reply::move_on(&mut transaction, due, then, now).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }
}

/// Whether a message may bring the link to the citizen's page, with which one can act. A number that
/// was read off a chat may be somebody else's; who telephoned has shown that it is theirs.
fn carries_link(path: Path, thread: Option<&str>) -> bool {
    path != Path::Sms || !thread.is_some_and(|thread| thread.starts_with("wechat:"))
}

/// What an officer said or decided goes before what the gateway tells by itself: it may use the
/// messages that are kept for staff.
fn is_staffs_own(kind: Telling) -> bool {
    matches!(kind, Telling::Said | Telling::Awaiting | Telling::Resolved | Telling::Reopened)
}

/// Of these the words count, of the others that it happened.
fn is_to_be_read(kind: Telling) -> bool {
    matches!(kind, Telling::Said | Telling::Awaiting | Telling::Resolved)
}

fn backoff(due: &Due, path: Path) -> TimeDelta {
    let tried = due.before.iter().filter(|one| one.path == path.as_str()).count();
    let doubled = 1_i32 << tried.min(10);
    (FIRST_RETRY * doubled).min(LONGEST_RETRY)
}

/// What follows from the platform's refusal.
fn judged(error: &PlatformError, now: DateTime<Utc>) -> End {
    if let Some(says) = error.for_the_administrator() {
        tracing::error!(%error, "WeChat refuses: {says}");
    }
    let outcome = match (error.trouble(), error.again(now)) {
        // Of this account or citizen; no time is named at which it would be otherwise.
        (Trouble::NotGranted | Trouble::Banned, _) | (_, Again::Never) => Outcome::Over,
        _ if error.may_have_been_done() => Outcome::Uncertain,
        (_, Again::NotBefore(at)) => Outcome::Later(Some(at)),
        (_, Again::Later) => Outcome::Later(None),
    };
    let says = Some(for_staff(error.trouble()));
    End { outcome, code: error.code(), says, message_id: None }
}

/// Why a message was not taken, as an officer reads it.
fn for_staff(trouble: Trouble) -> String {
    match trouble {
        Trouble::NotFollowing => "群众没有关注公众号".to_owned(),
        Trouble::BlackListed => "群众在公众号的黑名单里".to_owned(),
        Trouble::OutsideWindow => "群众 48 小时内没有来信，不能直接发消息".to_owned(),
        Trouble::CountExhausted => "群众来信后能发的条数已用完".to_owned(),
        Trouble::NoConsent => "群众没有同意接收通知，或同意的次数已用完".to_owned(),
        Trouble::TooFrequent => "给这位群众的通知太频繁".to_owned(),
        Trouble::Quota => "公众号当天的发送次数已用完".to_owned(),
        Trouble::Risky => "微信认为内容违规".to_owned(),
        Trouble::Template | Trouble::Arguments => "模板设置不对，请告诉管理员".to_owned(),
        Trouble::Credentials | Trouble::AddressNotAllowed(_) | Trouble::NotGranted => {
            "公众号接口设置不对，请告诉管理员".to_owned()
        }
        Trouble::NoConnection => "连不上微信".to_owned(),
        Trouble::NoAnswer | Trouble::BrokeOff => "微信没有回答，不知道是否已发出".to_owned(),
        Trouble::Busy | Trouble::TooFast => "微信正忙".to_owned(),
        _ => "微信没有接受".to_owned(),
    }
}

fn cannot_send(error: &StoreError) {
    tracing::warn!(error = %telemetry::causes(error), "replies could not be sent; trying again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_message_takes_the_link_to_a_number_that_was_read_off_a_chat() {
        let chat = Some("wechat:main:oCitizen");
        assert!(!carries_link(Path::Sms, chat));
        assert!(carries_link(Path::Custom, chat));
        for caller in [Some("hotline:pbx1:13900001234"), None] {
            assert!(carries_link(Path::Sms, caller));
        }
    }
}

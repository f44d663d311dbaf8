//! From the outbox to the people on duty.
//!
//! Two steps, each of which reads the truth again and can be repeated: `plan` makes notices of
//! effects (what is pending for the same people becomes one notice, so that an opening brings one
//! digest and a burst one message), `send` attempts each notice by its way. Whom a notice reaches is
//! decided when it is sent (RD1.2): who is on duty now, else the lead on duty of the week, else the
//! office; never nobody. A way that is down holds up no other.

mod words;

use crate::{
    clock::Clock,
    domain::{id::OfficeId, id::StaffId, role::Role},
    lifecycle::Wake,
    offices::{Office, Offices},
    store::{
        self, StoreError,
        notice::{Attempt, Effect, Ended, NewNotice},
        office::{Contact, Duty},
    },
    telemetry,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use intake_contract::{Notice, Notifier, Recipient, SendError};
use rand::RngExt;
use sqlx::{Connection, PgConnection, PgPool};
use std::{collections::BTreeMap, collections::HashMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How the relay works; see `relay` in config/default.toml.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest wait between two looks.
    pub look_every: Duration,
    /// Attempts before a notice is dead.
    pub attempts: i32,
    /// The first wait after a failure; doubles, with jitter.
    pub first_retry: Duration,
    /// The longest wait between attempts.
    pub longest_retry: Duration,
    /// Attempts under way at a time, over all ways.
    pub parallel: usize,
    /// Where the desk is, for links; empty for none.
    pub desk_url: String,
}

/// The ways of one office, by name. The desk's own list of notices is always one of them: a notice
/// is kept there whatever else fails.
pub type Targets = HashMap<OfficeId, Vec<(String, Arc<dyn Notifier>)>>;

/// The way that only shows on the desk.
pub const DESK: &str = "desk";

/// One attempt is given up after this; the adapter's own limit is shorter.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(20);
/// Of one call on the database.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// What can wait so long gathers: a rush is one message to the group, not twenty, and robots allow
/// about twenty a minute.
const MOMENT: Duration = Duration::from_secs(1);
const EFFECTS_AT_A_TIME: i64 = 2000;
/// What is told at an opening gathers so long: what came in overnight and what is to be followed up
/// are one digest.
pub const GATHER_S: i64 = 5;
const NOTICES_AT_A_TIME: i64 = 100;

/// The relay of one replica.
pub struct Relay {
    pool: PgPool,
    offices: Arc<Offices>,
    clock: Clock,
    settings: Settings,
    targets: Targets,
    wake: Wake,
    urgent: Wake,
}

impl Relay {
    /// A relay; nothing runs yet.
    #[must_use]
    pub fn new(
        pool: PgPool,
        offices: Arc<Offices>,
        clock: Clock,
        settings: Settings,
        targets: Targets,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool,
            offices,
            clock,
            settings,
            targets,
            wake: Wake::default(),
            urgent: Wake::default(),
        })
    }

    /// Looks again in a moment: what comes in within it is told as one.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Looks again at once.
    pub fn wake_now(&self) {
        self.urgent.wake();
        self.wake.wake();
    }

    /// Plans and sends until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.step().await {
                tracing::warn!(error = %telemetry::causes(&error), "notices could not be sent; trying again");
            }
            self.wake.wait(self.settings.look_every, &shutdown).await;
            self.urgent.wait(MOMENT, &shutdown).await;
        }
    }

    /// One look: plans what is due, sends what is due. Returns how many notices were attempted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn step(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        for office in self.offices.all().values() {
            store::within(CALL_WITHIN, self.plan(office, now)).await?;
        }
        let mut attempted = 0;
        loop {
            let lease_until = now + TimeDelta::from_std(ATTEMPT_WITHIN * 3).unwrap_or_default();
            let taken = store::within(CALL_WITHIN, async {
                let mut db = self.pool.acquire().await?;
                store::notice::take(&mut db, now, lease_until, NOTICES_AT_A_TIME).await
            })
            .await?;
            if taken.is_empty() {
                return Ok(attempted);
            }
            attempted += taken.len();
            // Each attempt for itself: one that hangs holds its place, not the others'.
            futures::stream::iter(taken)
                .for_each_concurrent(self.settings.parallel, |attempt| self.attempt(attempt))
                .await;
        }
    }

    /// Makes notices of an office's effects whose time has come.
    async fn plan(&self, office: &Office, now: DateTime<Utc>) -> Result<(), StoreError> {
        loop {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            let effects =
                store::notice::take_effects(&mut transaction, office.id, now, EFFECTS_AT_A_TIME)
                    .await?;
            if effects.is_empty() {
                return Ok(());
            }
            let mut groups: BTreeMap<(bool, Audience), Vec<&Effect>> = BTreeMap::new();
            for effect in &effects {
                for audience in audiences(effect) {
                    groups.entry((!effect.urgent, audience)).or_default().push(effect);
                }
            }
            for ((_, audience), effects) in groups {
                let said = words::compose(office, &effects, now);
                for target in self.ways(office.id) {
                    let notice = NewNotice {
                        target,
                        audience: &audience.stored(),
                        title: &said.title,
                        lines: &said.lines,
                        ticket: said.ticket,
                        urgent: said.urgent,
                        at: now,
                    };
                    store::notice::add(&mut transaction, office.id, &notice).await?;
                }
            }
            let ids: Vec<i64> = effects.iter().map(|effect| effect.id).collect();
            store::notice::effects_done(&mut transaction, office.id, &ids).await?;
            transaction.commit().await?;
            if (effects.len() as i64) < EFFECTS_AT_A_TIME {
                return Ok(());
            }
        }
    }

    fn ways(&self, office: OfficeId) -> impl Iterator<Item = &str> {
        let configured = self.targets.get(&office).into_iter().flatten();
        std::iter::once(DESK).chain(configured.map(|(name, _)| name.as_str()))
    }

    async fn attempt(&self, attempt: Attempt) {
        let now = self.clock.now();
        let (recipients, ended) = match self.deliver(&attempt, now).await {
            Ok(done) => done,
            Err(error) => {
                // Nothing was sent; the lease ends and the notice comes again.
                tracing::warn!(error = %telemetry::causes(&error), notice.id = attempt.id.0, "a notice could not be attempted");
                return;
            }
        };
        let result = match &ended {
            End::Sent => "sent",
            End::Retry(..) => "retry",
            End::Dead(_) => "dead",
        };
        metrics::counter!(telemetry::NOTICES, "target" => attempt.target.clone(), "result" => result)
            .increment(1);
        let ended = match &ended {
            End::Sent => Ended::Sent,
            End::Retry(at, reason) => Ended::Retry(*at, reason),
            End::Dead(reason) => {
                tracing::error!(
                    notice.id = attempt.id.0,
                    target = attempt.target,
                    reason,
                    "a notice is dead; staff can send it again from the desk"
                );
                Ended::Dead(reason)
            }
        };
        let recorded = async {
            let mut db = self.pool.acquire().await?;
            store::notice::ended(&mut db, &attempt, &recipients, &ended, now).await
        };
        if let Err(error) = store::within(CALL_WITHIN, recorded).await {
            tracing::warn!(error = %telemetry::causes(&error), notice.id = attempt.id.0, "a notice's end could not be recorded; it may be sent twice");
        }
    }

    async fn deliver(
        &self,
        attempt: &Attempt,
        now: DateTime<Utc>,
    ) -> Result<(Vec<String>, End), StoreError> {
        let audience = Audience::read(&attempt.audience);
        let recipients = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            resolve(&mut db, attempt.office, &audience, now).await
        })
        .await?;
        let names = recipients.iter().map(|contact| contact.name.clone()).collect();
        if attempt.target == DESK {
            return Ok((names, End::Sent));
        }
        let way = self
            .targets
            .get(&attempt.office)
            .and_then(|ways| ways.iter().find(|(name, _)| *name == attempt.target));
        let Some((_, notifier)) = way else {
            return Ok((names, End::Dead("no such way is configured any more".to_owned())));
        };
        let notice = Notice {
            idempotency_key: format!("intake-{}-{}", attempt.office, attempt.id),
            title: attempt.title.clone(),
            lines: attempt.lines.clone(),
            link: self.link(attempt),
            recipients: recipients
                .into_iter()
                .map(|c| Recipient { name: c.name, email: c.email, mobile: c.mobile })
                .collect(),
            urgent: attempt.urgent,
        };
        let ended = match tokio::time::timeout(ATTEMPT_WITHIN, notifier.send(&notice, now)).await {
            Ok(Ok(_)) => End::Sent,
            Ok(Err(SendError::Permanent { reason })) => End::Dead(reason),
            Ok(Err(SendError::Retry { reason, after })) => self.later(attempt, now, reason, after),
            Err(_) => self.later(attempt, now, "no answer in time".to_owned(), None),
        };
        Ok((names, ended))
    }

    fn link(&self, attempt: &Attempt) -> Option<String> {
        let base = self.settings.desk_url.trim_end_matches('/');
        if base.is_empty() {
            return None;
        }
        let office = self.offices.get(attempt.office)?;
        Some(match attempt.ticket {
            Some(ticket) => format!("{base}/desk/tickets/{}", ticket.display(&office.prefix)),
            None => format!("{base}/desk"),
        })
    }

    /// Exponential with jitter, or what the other side asked for if that is longer.
    fn later(
        &self,
        attempt: &Attempt,
        now: DateTime<Utc>,
        reason: String,
        after: Option<Duration>,
    ) -> End {
        if attempt.attempts >= self.settings.attempts {
            return End::Dead(reason);
        }
        let doubled =
            2_u32.saturating_pow(attempt.attempts.saturating_sub(1).unsigned_abs().min(16));
        let wait =
            self.settings.first_retry.saturating_mul(doubled).min(self.settings.longest_retry);
        #[expect(clippy::disallowed_methods, reason = "jitter; nothing depends on its value")]
        let jitter = wait.mul_f64(rand::rng().random_range(0.0..0.25));
        let wait = (wait + jitter).max(after.unwrap_or_default());
        End::Retry(now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::hours(1)), reason)
    }
}

enum End {
    Sent,
    Retry(DateTime<Utc>, String),
    Dead(String),
}

/// Whom an effect concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Audience {
    /// Whoever is on duty when it is sent.
    Duty,
    /// The accountable person (R7.e).
    Person(i32),
    /// 带班领导: told of every rise.
    Lead,
    /// 中心班子: level 3.
    Leadership,
    /// 局党组: level 5.
    PartyGroup,
}

impl Audience {
    fn stored(&self) -> String {
        match self {
            Self::Duty => "duty".to_owned(),
            Self::Person(id) => format!("staff:{id}"),
            Self::Lead => "lead".to_owned(),
            Self::Leadership => "leadership".to_owned(),
            Self::PartyGroup => "party_group".to_owned(),
        }
    }

    fn read(text: &str) -> Self {
        match text {
            "lead" => Self::Lead,
            "leadership" => Self::Leadership,
            "party_group" => Self::PartyGroup,
            other => other
                .strip_prefix("staff:")
                .and_then(|id| id.parse().ok())
                .map_or(Self::Duty, Self::Person),
        }
    }
}

fn audiences(effect: &Effect) -> Vec<Audience> {
    let accountable = effect.data.get("accountable").and_then(serde_json::Value::as_i64);
    let handler =
        accountable.and_then(|id| i32::try_from(id).ok()).map_or(Audience::Duty, Audience::Person);
    let of_level = match effect.level {
        5 => Audience::PartyGroup,
        3 => Audience::Leadership,
        _ => handler.clone(),
    };
    match effect.kind.as_str() {
        // RD3.2: an emergency alerts the lead on duty at any hour.
        "registered" | "grew" if effect.urgent => vec![Audience::Duty, Audience::Lead],
        "raised" | "overdue" => vec![of_level, Audience::Lead],
        "limit_near" if effect.level == 1 => vec![handler],
        "limit_near" => vec![of_level, handler],
        "grew" => vec![handler],
        _ => vec![Audience::Duty],
    }
}

/// The people behind an audience, now. Falls back until there is somebody: on duty now, the lead
/// on duty of the week, the office, anybody who receives citizens.
async fn resolve(
    db: &mut PgConnection,
    office: OfficeId,
    audience: &Audience,
    now: DateTime<Utc>,
) -> Result<Vec<Contact>, StoreError> {
    use store::office::{contact, on_duty, with_role};
    let first = match audience {
        Audience::Duty => Vec::new(),
        Audience::Person(id) => contact(db, office, StaffId(*id)).await?.into_iter().collect(),
        Audience::Lead => on_duty(db, office, Duty::Lead, now).await?,
        Audience::Leadership => with_role(db, office, Role::Leadership).await?,
        Audience::PartyGroup => with_role(db, office, Role::PartyGroup).await?,
    };
    if !first.is_empty() {
        return Ok(first);
    }
    for duty in [Duty::Officer, Duty::Lead] {
        let on_duty = on_duty(db, office, duty, now).await?;
        if !on_duty.is_empty() {
            return Ok(on_duty);
        }
    }
    for role in [Role::Office, Role::LeadOnDuty, Role::DutyOfficer, Role::Administrator] {
        let people = with_role(db, office, role).await?;
        if !people.is_empty() {
            return Ok(people);
        }
    }
    // An office without staff: the way itself (a group, a mailbox) is all there is.
    Ok(vec![Contact { name: "办公室".to_owned(), email: None, mobile: None }])
}

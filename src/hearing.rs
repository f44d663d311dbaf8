//! What channels hear besides submissions. What is told once (a consent, a receipt, that somebody
//! left) is kept before the sender is answered, each once. What only opens a window for a while is
//! noted beside the answers, many at a time, and may be lost: whoever is then thought to be out of
//! reach is told by another path. Neither the platform nor Redis is asked.

use crate::{
    clock::Clock,
    domain::id::OfficeId,
    lifecycle::Wake,
    platform::Accounts,
    store::{self, StoreError, heard::Acts, reply::NewReceipt},
    telemetry,
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{Heard, News};
use intake_wechat::platform::{Act, Change, Openid};
use sqlx::{Connection, PgConnection, PgPool};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// As the intake's limit: WeChat gives up after 5 s.
const KEPT_WITHIN: Duration = Duration::from_secs(3);
/// Acts that may wait to be noted; more are lost.
const WAITING: usize = 4096;
/// Noted at a time.
const AT_A_TIME: usize = 512;
/// What follows on the heels of an act goes along.
const MOMENT: Duration = Duration::from_millis(50);
/// Receipts are matched by recipient this far back, where they name no message.
const RECEIPT_WITHIN: TimeDelta = TimeDelta::hours(1);

/// What listens for the whole process.
pub struct Hearing {
    pool: PgPool,
    clock: Clock,
    accounts: Arc<Accounts>,
    acts: mpsc::Sender<(OfficeId, Heard)>,
    /// Woken when a receipt sends a reply on.
    replies: Arc<Wake>,
}

/// The threads of those who wrote, each with its office and the lane of what they are told.
fn threads(acts: &[(OfficeId, Heard)]) -> (Vec<i32>, Vec<String>, Vec<String>) {
    let wrote = acts.iter().filter(|(_, one)| matches!(one.news, News::Wrote));
    let mut threads: Vec<(i32, String, String)> = wrote
        .map(|(office, one)| {
            let thread = format!("{}:{}", one.source, one.correspondent.as_str());
            (office.0, thread, one.source.clone())
        })
        .collect();
    threads.sort();
    threads.dedup();
    let (offices, rest): (Vec<_>, Vec<_>) =
        threads.into_iter().map(|(office, thread, lane)| (office, (thread, lane))).unzip();
    let (threads, lanes) = rest.into_iter().unzip();
    (offices, threads, lanes)
}

/// What waits to be noted.
pub struct Waiting(mpsc::Receiver<(OfficeId, Heard)>);

impl Hearing {
    /// It, and what [`Self::note`] works on.
    #[must_use]
    pub fn new(
        pool: PgPool,
        clock: Clock,
        accounts: Arc<Accounts>,
        replies: Arc<Wake>,
    ) -> (Arc<Self>, Waiting) {
        let (acts, waiting) = mpsc::channel(WAITING);
        (Arc::new(Self { pool, clock, accounts, acts, replies }), Waiting(waiting))
    }

    /// Takes what a verified request told; false when what must not be lost could not be kept now:
    /// the sender should try again. Of accounts that send nothing, nothing is kept but who is to be
    /// forgotten.
    pub async fn hear(&self, office: OfficeId, heard: Vec<Heard>) -> bool {
        let known = heard
            .into_iter()
            .filter(|one| one.news.forgets() || self.accounts.get(office, &one.source).is_some());
        let (passing, lasting): (Vec<Heard>, Vec<Heard>) =
            known.partition(|one| one.news.is_passing());
        for one in passing {
            if self.acts.try_send((office, one)).is_err() {
                metrics::counter!(telemetry::HEARD_LOST).increment(1);
            }
        }
        if lasting.is_empty() {
            return true;
        }
        match store::within(KEPT_WITHIN, self.keep(office, &lasting)).await {
            Ok(()) => true,
            Err(error) => {
                let error = telemetry::causes(&error);
                tracing::warn!(office.id = office.0, %error, "what a platform reported could not be kept; it may report again");
                false
            }
        }
    }

    async fn keep(&self, office: OfficeId, heard: &[Heard]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut db = self.pool.acquire().await?;
        let mut transaction = db.begin().await?;
        for one in heard {
            if store::heard::note(&mut transaction, office, one, now).await? {
                self.learn(&mut transaction, office, one, now).await?;
            }
        }
        transaction.commit().await?;
        if heard.iter().any(|one| matches!(one.news, News::Delivered { .. })) {
            self.replies.wake();
        }
        Ok(())
    }

    async fn learn(
        &self,
        db: &mut PgConnection,
        office: OfficeId,
        heard: &Heard,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let citizen = &heard.correspondent;
        if heard.news.forgets() {
            let thread = format!("{}:{}", heard.source, citizen.as_str());
            store::heard::forget(db, office, &thread).await?;
        }
        let Some(account) = self.accounts.get(office, &heard.source) else { return Ok(()) };
        let app_id = &account.app_id;
        match &heard.news {
            News::Wrote | News::Tapped | News::TookBack => Ok(()),
            News::Left => {
                store::heard::left(db, office, app_id, citizen, heard.at).await?;
                let openid = Openid::new(citizen.as_str());
                store::allowance::change(db, office, app_id, &openid, Change::Closed, now).await?;
                Ok(())
            }
            News::Consent { template_id, change } => {
                let change = (*change, heard.at);
                store::heard::consented(db, office, app_id, citizen, template_id, change).await
            }
            News::Delivered { message_id, template_id, delivery } => {
                let receipt = NewReceipt {
                    source: &heard.source,
                    // One that names no message is matched by its recipient only.
                    message_id: message_id.as_deref().unwrap_or(&heard.identity),
                    template_id: template_id.as_deref(),
                    correspondent: citizen,
                    delivery: *delivery,
                    at: now,
                };
                let mut matched = store::reply::receipt(db, office, &receipt).await?;
                if matched.is_none() {
                    let since = now - RECEIPT_WITHIN;
                    let (source, who) = (&heard.source, citizen.as_str());
                    matched = store::reply::adopt(db, office, source, who, since).await?;
                }
                match matched {
                    Some(matched) => store::reply::delivered(db, office, matched, now).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Notes acts beside the answers, until `shutdown`.
    pub async fn note(self: Arc<Self>, waiting: Waiting, shutdown: CancellationToken) {
        let Waiting(mut waiting) = waiting;
        let gather = Wake::default();
        let mut acts = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                taken = waiting.recv_many(&mut acts, AT_A_TIME) => if taken == 0 { return },
            }
            gather.wait(MOMENT, &shutdown).await;
            while acts.len() < AT_A_TIME
                && let Ok(more) = waiting.try_recv()
            {
                acts.push(more);
            }
            let noted = acts.len();
            let wrote = threads(&acts);
            let (acts, now) = (self.newest(acts.drain(..)), self.clock.now());
            let done = store::within(KEPT_WITHIN, async {
                let mut db = self.pool.acquire().await?;
                store::heard::acted(&mut db, &acts).await?;
                // Now that they can be written to, nobody needs to telephone.
                let (office, thread, lane) = &wrote;
                store::reply::wrote_again(&mut db, (office, thread, lane), now).await
            });
            match done.await {
                Ok(0) => {}
                Ok(_) => self.replies.wake(),
                Err(error) => {
                    metrics::counter!(telemetry::HEARD_LOST).increment(noted as u64);
                    let error = telemetry::causes(&error);
                    tracing::warn!(%error, "what citizens allow to be sent could not be noted");
                }
            }
        }
    }

    /// Each citizen once, with the newest of their acts of each kind.
    fn newest(&self, heard: impl Iterator<Item = (OfficeId, Heard)>) -> Acts {
        type Until = (Option<DateTime<Utc>>, Option<DateTime<Utc>>, DateTime<Utc>);
        let mut newest: BTreeMap<(i32, String, String), Until> = BTreeMap::new();
        for (office, one) in heard {
            let Some(account) = self.accounts.get(office, &one.source) else { continue };
            let citizen = one.correspondent.as_str().to_owned();
            let key = (office.0, account.app_id.clone(), citizen);
            let (message, tap, at) = newest.entry(key).or_insert((None, None, one.at));
            match one.news {
                News::Wrote => *message = (*message).max(Some(one.at + Act::Message.lasts())),
                _ => *tap = (*tap).max(Some(one.at + Act::Tap.lasts())),
            }
            *at = (*at).max(one.at);
        }
        let mut acts = Acts::default();
        for ((office, app_id, openid), (message_until, tap_until, at)) in newest {
            acts.office.push(office);
            acts.app_id.push(app_id);
            acts.openid.push(openid);
            acts.message_until.push(message_until);
            acts.tap_until.push(tap_until);
            acts.at.push(at);
        }
        acts
    }
}

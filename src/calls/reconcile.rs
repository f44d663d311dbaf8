//! Pushes are made at least once and then never again, folders are moved, programs have faults: every
//! night what each source says of its calls is held against what is here (hotline.md §5-6), what is
//! missing is brought in through the same door as ever, and what remains is told to staff.
//!
//! Three questions of each source. What does it say, and is it here: the spool and the call records
//! of Asterisk, the folder of FreeSWITCH, a vendor's own list. Has every call the ticket that it
//! should have, every recording its message. Does nothing wait for a file that nobody will bring.

use super::{
    Source, SourceKind, decide, hear, pull,
    rules::{Verdict, verdict},
    scan,
};
use crate::{
    domain::id::OfficeId,
    http::App,
    lifecycle::Wake,
    store::{
        self, StoreError,
        call::{self as rows, Call, Key},
        reconcile::{self as outcomes, Among, Outcome},
    },
    telemetry,
};
use chrono::{DateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use intake_contract::china;
use intake_hotline::{CallEvent, Caller, Unread};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Whether what is missing is brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is.
    Yes,
    /// It is only counted.
    No,
}

/// Between two looks whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Of one statement.
const WITHIN: Duration = Duration::from_secs(10);
/// Longer than all sources take.
const LEASE_S: f64 = 3600.0;
const LEASE: &str = "reconcile-calls";
/// What is fresher may still be on its way.
const FRESH: TimeDelta = TimeDelta::minutes(10);
/// A missed call waits an hour at most until it counts as one.
const SETTLED: TimeDelta = TimeDelta::minutes(70);
/// Two accounts of a call's beginning that are further apart speak of different calls.
const APART: TimeDelta = TimeDelta::minutes(5);
const PAGE: i64 = 500;

/// Compares every night, one replica at a time, until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let (turn, owner) = (Wake::default(), crate::secret::token());
    loop {
        // First a moment in which the folders are looked through: what lay there while nobody was up
        // is nothing that was missed.
        turn.wait(LOOK_EVERY, &shutdown).await;
        if shutdown.is_cancelled() {
            return;
        }
        if let Err(error) = step(&app, &owner).await {
            tracing::warn!(error = %telemetry::causes(&error), "calls could not be compared; trying again");
        }
    }
}

/// Compares the sources whose time has come since they were compared last; returns what it came to.
/// `owner`: of this replica.
///
/// # Errors
/// [`StoreError`]; what was not compared is compared at the next look.
pub async fn step(app: &App, owner: &str) -> Result<Vec<Outcome>, StoreError> {
    let due = due_at(app.clock.now(), app.calls.reconcile_at());
    let mut waiting = Vec::new();
    for source in app.sources.0.values() {
        if is_due(app, source, due).await? {
            waiting.push(Arc::clone(source));
        }
    }
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let turn = store::within(WITHIN, async {
        store::lease::take(&mut *app.pool.acquire().await?, LEASE, owner, LEASE_S).await
    });
    if !turn.await? {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    let mut failed = None;
    for source in waiting {
        // Another replica may have done it before it gave up its turn.
        let compared = async {
            match is_due(app, &source, due).await? {
                true => {
                    reconcile(app, &source, app.calls.reconcile_days, Repair::Yes).await.map(Some)
                }
                false => Ok(None),
            }
        };
        // One that fails holds up no other.
        match compared.await {
            Ok(outcome) => all.extend(outcome),
            Err(error) => failed = Some(error),
        }
    }
    store::within(WITHIN, async {
        store::lease::give_back(&mut *app.pool.acquire().await?, LEASE, owner).await
    })
    .await?;
    failed.map_or(Ok(all), Err)
}

async fn is_due(app: &App, source: &Source, due: DateTime<Utc>) -> Result<bool, StoreError> {
    let last = store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        outcomes::last(&mut db, source.office, &source.name).await
    });
    Ok(last.await?.is_none_or(|last| last < due))
}

/// The last time at which it was to be done.
fn due_at(now: DateTime<Utc>, at: NaiveTime) -> DateTime<Utc> {
    let today = now.with_timezone(&china()).date_naive();
    let on = |day: chrono::NaiveDate| {
        china().from_local_datetime(&day.and_time(at)).single().map_or(now, |at| at.to_utc())
    };
    match on(today) {
        due if due <= now => due,
        _ => today.pred_opt().map_or(now, on),
    }
}

/// Compares one source, so many days back; what was repaired or found wrong is kept.
///
/// # Errors
/// [`StoreError`].
pub async fn reconcile(
    app: &App,
    source: &Source,
    days: u32,
    repair: Repair,
) -> Result<Outcome, StoreError> {
    let now = app.clock.now();
    let since = now - TimeDelta::days(days.into());
    let mut work = Work {
        app,
        source,
        repair,
        outcome: Outcome {
            office: source.office,
            source: source.name.clone(),
            at: now,
            since,
            told: None,
            held: 0,
            repaired: 0,
            missing: 0,
            differs: 0,
            says: None,
        },
    };
    match said(app, source, (since, now)).await? {
        Said::List { told, unread, more_unread } => {
            work.compare(told, (since, now - FRESH)).await?;
            work.put_aside(&unread, more_unread).await?;
        }
        Said::None(why) => {
            let counted = work.counted(since, now).await?;
            work.outcome.held = i32::try_from(counted.0).unwrap_or(i32::MAX);
            work.says(why.to_owned());
        }
        Said::Failed(why) => {
            work.outcome.missing += 1;
            work.says(why);
        }
    }
    work.finish_calls(since, now - SETTLED).await?;
    let (_, lost) = work.counted(since, now).await?;
    if lost > 0 {
        work.outcome.missing += i32::try_from(lost).unwrap_or(i32::MAX);
        work.says(format!("the messages of {lost} recordings are gone"));
    }
    work.end_waiting(now, days).await?;
    let outcome = work.outcome;
    if repair == Repair::Yes {
        store::within(WITHIN, async {
            outcomes::keep(&mut *app.pool.acquire().await?, &outcome).await
        })
        .await?;
        report(&outcome);
    }
    Ok(outcome)
}

fn report(outcome: &Outcome) {
    let counts = [
        ("held", outcome.held),
        ("repaired", outcome.repaired),
        ("missing", outcome.missing),
        ("differs", outcome.differs),
    ];
    for (result, count) in counts {
        let count = u64::try_from(count).unwrap_or(0);
        metrics::counter!(telemetry::CALLS_RECONCILED, "result" => result).increment(count);
    }
    if outcome.repaired + outcome.missing + outcome.differs > 0 {
        tracing::warn!(
            source = outcome.source,
            calls.repaired = outcome.repaired,
            calls.missing = outcome.missing,
            calls.differ = outcome.differs,
            says = outcome.says,
            "calls were not as their source says"
        );
    }
}

/// What a source says of its calls.
enum Said {
    /// These, and entries that cannot be read, with so many more of their kind.
    List { told: Vec<(CallEvent, Vec<u8>)>, unread: Vec<(Unread, Vec<u8>)>, more_unread: usize },
    /// It keeps no list.
    None(&'static str),
    /// It should have one, and gave none.
    Failed(String),
}

async fn said(
    app: &App,
    source: &Source,
    between: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Said, StoreError> {
    let of_folders = |found: scan::InFolders| {
        let told = found.told.into_iter().map(|told| (told.call, told.raw)).collect();
        Said::List { told, unread: found.unread, more_unread: found.more_unread }
    };
    let settings = &source.settings;
    Ok(match settings.kind {
        SourceKind::Asterisk if !settings.spools.is_empty() => {
            let away = settings.spools.iter().chain(&settings.cdr_csv).find(|path| !path.exists());
            match away {
                Some(path) => Said::Failed(format!("{} is not there", path.display())),
                None => {
                    of_folders(scan::in_spool(app, source, &scan::Seen::new(), between.0).await?)
                }
            }
        }
        SourceKind::Freeswitch => match &settings.err_log_dir {
            Some(folder) if folder.is_dir() => of_folders(scan::in_err_log(source, folder).await),
            Some(folder) => Said::Failed(format!("{} is not there", folder.display())),
            None => Said::None("without err_log_dir nothing tells what could not be delivered"),
        },
        SourceKind::Vendor => match pull::list(source, between).await {
            Ok(Some(list)) => Said::List { told: list.calls, unread: list.unread, more_unread: 0 },
            Ok(None) => {
                Said::None("its mapping or [hotline.pull] names no list that can be asked for")
            }
            Err(why) => Said::Failed(why),
        },
        SourceKind::Webhook | SourceKind::Twilio | SourceKind::Asterisk => {
            Said::None("it tells of each call once and keeps no list")
        }
    })
}

struct Work<'a> {
    app: &'a App,
    source: &'a Source,
    repair: Repair,
    outcome: Outcome,
}

impl Work<'_> {
    fn of(&self) -> (OfficeId, &str) {
        (self.source.office, &self.source.name)
    }

    fn says(&mut self, more: String) {
        self.outcome.says = Some(match self.outcome.says.take() {
            Some(says) => format!("{says}; {more}"),
            None => more,
        });
    }

    async fn read(&self, key: &Key) -> Result<Option<Call>, StoreError> {
        store::within(WITHIN, async { rows::read(&mut *self.app.pool.acquire().await?, key).await })
            .await
    }

    /// The parts of each call that fall between two moments, under the key by which it is held.
    async fn compare(
        &mut self,
        told: Vec<(CallEvent, Vec<u8>)>,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
    ) -> Result<(), StoreError> {
        let mut calls: BTreeMap<String, Vec<(CallEvent, Vec<u8>)>> = BTreeMap::new();
        for (mut call, raw) in told {
            let at = call.ended_at.or(call.spoken_at());
            if at.is_some_and(|at| at < from || at > to) {
                continue;
            }
            call.call_key = self.key_of(&call).await?;
            calls.entry(call.call_key.clone()).or_default().push((call, raw));
        }
        self.outcome.told = Some(i32::try_from(calls.len()).unwrap_or(i32::MAX));
        for (key, parts) in calls {
            let key =
                Key { office: self.source.office, source: self.source.name.clone(), call: key };
            self.compare_one(&key, parts).await?;
        }
        Ok(())
    }

    /// What cannot be read waits for a person, and is missing until somebody has dealt with it.
    async fn put_aside(
        &mut self,
        unread: &[(Unread, Vec<u8>)],
        more: usize,
    ) -> Result<(), StoreError> {
        let mut ids = Vec::with_capacity(unread.len());
        for (why, raw) in unread {
            let item = scan::aside(self.source, *why, raw);
            if self.repair == Repair::Yes {
                let mut db = self.app.pool.acquire().await?;
                store::quarantine::keep(&mut db, self.source.office, &item, self.outcome.at)
                    .await?;
            }
            ids.push(item.source_id);
        }
        let handled = store::within(WITHIN, async {
            let mut db = self.app.pool.acquire().await?;
            store::quarantine::handled_of(&mut db, self.of(), &ids).await
        });
        let handled = usize::try_from(handled.await?).unwrap_or(0);
        ids.sort_unstable();
        ids.dedup();
        let waiting = ids.len().saturating_sub(handled) + more;
        if waiting > 0 {
            self.outcome.missing += i32::try_from(waiting).unwrap_or(i32::MAX);
            self.says(match (self.repair, more) {
                (Repair::No, _) => format!("{waiting} could not be read"),
                (Repair::Yes, 0) => {
                    format!("{waiting} could not be read and wait in the quarantine")
                }
                (Repair::Yes, _) => {
                    format!("{waiting} could not be read; the newest wait in the quarantine")
                }
            });
        }
        Ok(())
    }

    /// The key by which a call is held: that of its recording, of its channel, of the call that is
    /// alike where the list names calls otherwise; else its own.
    async fn key_of(&self, call: &CallEvent) -> Result<String, StoreError> {
        let mut db = self.app.pool.acquire().await?;
        for recording in call.recordings.keys() {
            if let Some(key) = rows::of_recording(&mut db, self.of(), recording).await? {
                return Ok(key);
            }
        }
        drop(db);
        let alike = alike(self.app, self.source, call, Among::Pushed).await?;
        Ok(alike.unwrap_or_else(|| call.call_key.clone()))
    }

    async fn compare_one(
        &mut self,
        key: &Key,
        parts: Vec<(CallEvent, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let before = self.read(key).await?;
        let lacks = |held: &Option<Call>, part: &CallEvent| match held {
            None => true,
            Some(held) => {
                // Another place of a recording that is held is nothing that it lacks.
                part.clone().merge(held.facts.clone()).is_ok_and(|merged| merged != held.facts)
            }
        };
        if let Some(held) = &before {
            self.outcome.held += 1;
            if parts.iter().any(|(part, _)| contradicts(&held.facts, part, APART)) {
                self.outcome.differs += 1;
                return Ok(());
            }
        }
        if !parts.iter().any(|(part, _)| lacks(&before, part)) {
            return Ok(());
        }
        if self.repair == Repair::Yes {
            for (part, raw) in &parts {
                let now = self.app.clock.now();
                hear(self.app, self.source, vec![part.clone()], raw, now).await?;
            }
            let after = self.read(key).await?;
            if !parts.iter().any(|(part, _)| lacks(&after, part)) {
                self.outcome.repaired += 1;
                return Ok(());
            }
        }
        self.outcome.missing += 1;
        Ok(())
    }

    /// Calls that should have a ticket and have none, recordings without their message.
    async fn finish_calls(
        &mut self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let Some(office) = self.app.offices.get(self.source.office) else { return Ok(()) };
        let mut after = (from, String::new());
        loop {
            let page = store::within(WITHIN, async {
                let mut db = self.app.pool.acquire().await?;
                let after = (after.0, after.1.as_str());
                outcomes::unfinished(&mut db, self.of(), (after, to), PAGE).await
            })
            .await?;
            for one in &page {
                let Some(call) = self.read(&one.key).await? else { continue };
                let should = match verdict(&call.facts, &office.calendar, call.spoken_at) {
                    Verdict::Message => true,
                    Verdict::Missed => {
                        call.ticket.is_none()
                            && self.source.settings.missed_calls != super::MissedCalls::Off
                    }
                    Verdict::Nothing => false,
                };
                if !should || (call.ticket.is_some() && self.is_whole(&one.key, &call).await?) {
                    continue;
                }
                if self.repair == Repair::Yes {
                    // Told long ago: nothing of it is on the way any more.
                    decide(self.app, &one.key, self.app.clock.now(), true).await?;
                    let call = self.read(&one.key).await?;
                    if let Some(call) = call
                        && call.ticket.is_some()
                        && self.is_whole(&one.key, &call).await?
                    {
                        self.outcome.repaired += 1;
                        continue;
                    }
                }
                self.outcome.missing += 1;
            }
            match page.last() {
                Some(last) if page.len() as i64 == PAGE => {
                    after = (last.told_at, last.key.call.clone());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether every recording in which there is something to hear has its message. One that is known
    /// of another call has it there.
    async fn is_whole(&self, key: &Key, call: &Call) -> Result<bool, StoreError> {
        let recordings = store::within(WITHIN, async {
            rows::recordings(&mut *self.app.pool.acquire().await?, key).await
        })
        .await?;
        Ok(call.facts.recordings.iter().filter(|(_, one)| one.says_something()).all(|(name, _)| {
            recordings.iter().find(|row| row.key == *name).is_none_or(|row| row.message.is_some())
        }))
    }

    async fn counted(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<(i64, i64), StoreError> {
        store::within(WITHIN, async {
            let mut db = self.app.pool.acquire().await?;
            outcomes::counted(&mut db, self.of(), (from, to)).await
        })
        .await
    }

    /// Nothing that was announced is waited for longer than the settings say.
    async fn end_waiting(&mut self, now: DateTime<Utc>, days: u32) -> Result<(), StoreError> {
        if self.repair == Repair::No {
            return Ok(());
        }
        let to = now - TimeDelta::days(self.source.settings.audio.days.into());
        let from = to - TimeDelta::days(days.into());
        let announced = store::within(WITHIN, async {
            let mut db = self.app.pool.acquire().await?;
            outcomes::announced(&mut db, self.of(), (from, to)).await
        })
        .await?;
        let mut ended = 0;
        for recording in &announced {
            ended += u32::from(
                store::within(WITHIN, async {
                    let mut db = self.app.pool.acquire().await?;
                    outcomes::end_waiting(&mut db, self.of(), recording).await
                })
                .await?,
            );
        }
        if ended > 0 {
            self.says(format!("{ended} recordings never came and are not waited for any more"));
        }
        Ok(())
    }
}

/// The key by which a call is held whose source names it in one way where it pushes and in another
/// where it lists; `None` where it does not, or where the call is held by its own or not at all.
pub(super) async fn alike(
    app: &App,
    source: &Source,
    call: &CallEvent,
    among: Among,
) -> Result<Option<String>, StoreError> {
    let pull = source.push.as_ref().and_then(|push| push.mapping()?.pull());
    let (Some(within_s), Some(at)) = (pull.and_then(|pull| pull.alike_within_s), call.started_at)
    else {
        return Ok(None);
    };
    let key =
        Key { office: source.office, source: source.name.clone(), call: call.call_key.clone() };
    store::within(WITHIN, async {
        let mut db = app.pool.acquire().await?;
        if rows::read(&mut db, &key).await?.is_some() {
            return Ok(None);
        }
        let of = (source.office, source.name.as_str());
        outcomes::alike(&mut db, of, (call, among), at, i32::from(within_s)).await
    })
    .await
}

/// Whether two accounts of a call cannot both be right: another number, another time.
pub(super) fn contradicts(held: &CallEvent, told: &CallEvent, apart: TimeDelta) -> bool {
    let number = |call: &CallEvent| match &call.caller {
        Some(Caller::Known(number)) => Some(number.e164.clone()),
        _ => None,
    };
    let other_number = matches!((number(held), number(told)), (Some(a), Some(b)) if a != b);
    let other_time = matches!((held.started_at, told.started_at),
        (Some(a), Some(b)) if (a - b).abs() > apart);
    other_number || other_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_its_time_of_chinas_day_and_not_before() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).expect("a time").to_utc();
        let time = NaiveTime::from_hms_opt(2, 30, 0).expect("a time");
        let due = |now: &str| due_at(at(now), time);
        assert_eq!(due("2026-11-24T02:30:00+08:00"), at("2026-11-24T02:30:00+08:00"));
        assert_eq!(due("2026-11-24T02:29:59+08:00"), at("2026-11-23T02:30:00+08:00"));
        assert_eq!(due("2026-11-24T23:00:00+08:00"), at("2026-11-24T02:30:00+08:00"));
    }
}

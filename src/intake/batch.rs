//! One transaction for a batch: recognise repeats, thread, number, chain, write.

use super::{
    Accepted, Committed, Settings, Waiting, builder::Builder, conversation, incoming::Incoming,
};
use crate::{
    domain::{conversation::Talk, id::OfficeId},
    store::{
        StoreError,
        intake::{
            self as store, Arrival, Basis, Numbers, Recalled, RegisterStands, Seen, Told, Writes,
        },
    },
};
use chrono::{DateTime, Utc};
use intake_contract::{ChannelKind, Meaning};
use sqlx::{Connection, PgConnection};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
    time::Duration,
};

/// A batch, each identity once: the same id twice would be numbered twice.
pub(super) struct Batch<'a> {
    whole: &'a [Waiting],
    /// The first of each identity stands for all.
    unique: Vec<&'a Incoming>,
    /// Which of `unique` stands for each of `whole`.
    stands_for: Vec<usize>,
    arrivals: Vec<Arrival<'a>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(whole: &'a [Waiting]) -> Self {
        let mut first_of: HashMap<(OfficeId, &str, &str), usize> =
            HashMap::with_capacity(whole.len());
        let mut unique: Vec<&Incoming> = Vec::with_capacity(whole.len());
        let stands_for = whole
            .iter()
            .map(|waiting| {
                *first_of.entry(key(&waiting.incoming)).or_insert_with(|| {
                    unique.push(&waiting.incoming);
                    unique.len() - 1
                })
            })
            .collect();
        let arrivals = unique.iter().map(|incoming| incoming.arrival()).collect();
        Self { whole, unique, stands_for, arrivals }
    }

    /// Registers the batch and says what each submission became, in order; returns after COMMIT.
    ///
    /// What stands for itself goes first, all of it in one statement; what needs its conversation
    /// to be understood follows in a transaction of its own, which sees what the first one made.
    pub(super) async fn commit(
        &self,
        db: &mut PgConnection,
        settings: &Settings,
        guard: Guard,
        known: &mut Known,
    ) -> Result<(Vec<Accepted>, Committed), StoreError> {
        if guard == Guard::Unchanged
            && let Some(seen) = known.guess(self)
        {
            let mut built = build(&self.unique, &seen, settings.quiet)?;
            match store::write(db, &built.writes, Basis::Guessed).await {
                Ok(true) => {
                    known.learn(self, &built.writes);
                    return Ok(self.answers(&mut built));
                }
                Ok(false) => {}
                Err(error) if error.is_overtaken() => {}
                Err(error) => return Err(error),
            }
        }
        let mut built = match guard {
            Guard::Unchanged => {
                let mut seen = store::look(db, &self.arrivals).await?;
                if seen.iter().any(|seen| seen.register.is_none()) {
                    store::begin_years(db, &self.years()).await?;
                    seen = store::look(db, &self.arrivals).await?;
                }
                let mut built = build(&self.unique, &seen, settings.quiet)?;
                store::write(db, &built.writes, Basis::Seen).await?;
                if built.needs_turns() {
                    let mut transaction = db.begin().await?;
                    store::lock(&mut transaction, &self.arrivals).await?;
                    self.take_turns(&mut transaction, &mut built, settings).await?;
                    transaction.commit().await?;
                }
                built
            }
            Guard::Locked => {
                let mut transaction = db.begin().await?;
                store::begin_years(&mut transaction, &self.years()).await?;
                store::lock(&mut transaction, &self.arrivals).await?;
                let seen = store::look(&mut transaction, &self.arrivals).await?;
                let mut built = build(&self.unique, &seen, settings.quiet)?;
                store::write(&mut transaction, &built.writes, Basis::Seen).await?;
                self.take_turns(&mut transaction, &mut built, settings).await?;
                transaction.commit().await?;
                built
            }
        };
        known.learn(self, &built.writes);
        Ok(self.answers(&mut built))
    }

    /// What was left for its conversation, one after the other, under the register's lock.
    async fn take_turns(
        &self,
        db: &mut PgConnection,
        built: &mut Built<'_>,
        settings: &Settings,
    ) -> Result<(), StoreError> {
        for (at, became) in built.became.iter_mut().enumerate() {
            if became.is_none() {
                let incoming = self.unique[at];
                let turn = conversation::take(db, incoming, settings).await?;
                built.committed.add(turn.committed);
                *became = Some(turn.became);
            }
        }
        Ok(())
    }

    /// The registers that it needs.
    fn years(&self) -> Vec<(OfficeId, i32)> {
        let mut years: Vec<_> = self.arrivals.iter().map(|a| (a.office, a.year)).collect();
        years.sort_unstable();
        years.dedup();
        years
    }

    /// What is remembered of it: identities, and citizens whose messages grow one ticket. As hashes:
    /// two that meet only cost a look.
    fn traces(&self) -> impl Iterator<Item = u64> {
        self.arrivals.iter().flat_map(|arrival| {
            let Arrival { office, source, source_id, thread, .. } = arrival;
            let identity = TRACES.hash_one((office, source, source_id));
            std::iter::once(identity).chain(thread.map(|thread| TRACES.hash_one((office, thread))))
        })
    }

    /// What each sender is told.
    fn answers(&self, built: &mut Built<'_>) -> (Vec<Accepted>, Committed) {
        let mut told = vec![false; self.unique.len()];
        let accepted = self
            .whole
            .iter()
            .zip(&self.stands_for)
            .map(|(waiting, &at)| {
                let repeated = std::mem::replace(&mut told[at], true);
                let became = built.became[at].clone().unwrap_or(Became::QUARANTINED);
                became.told_to(&waiting.incoming, repeated)
            })
            .collect();
        (accepted, std::mem::take(&mut built.committed))
    }
}

static TRACES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// How a batch guards itself against those who write at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Looks, then writes if nothing has changed: two round trips, no lock held in between. May be
    /// overtaken. What is likely to be new is written without looking, in one round trip; the
    /// statement itself notices a wrong guess, and then it looks.
    Unchanged,
    /// Takes the locks first: never overtaken by another intake.
    Locked,
}

/// What a writer remembers of its own commits: enough to guess, never to decide.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Where each register stood.
    registers: HashMap<(OfficeId, i32), RegisterStands>,
    /// Traces of what came lately: a citizen's next message grows a ticket, the same identity is a
    /// repeat. The newest two generations.
    lately: [HashSet<u64>; 2],
}

impl Known {
    const GENERATION: usize = 8192;

    /// That everything in a batch is new, where that is likely.
    fn guess(&self, batch: &Batch<'_>) -> Option<Vec<Seen>> {
        if batch.traces().any(|trace| self.lately.iter().any(|those| those.contains(&trace))) {
            return None;
        }
        if batch.unique.iter().any(|one| one.submission.meaning != Meaning::Statement) {
            return None;
        }
        let new = |arrival: &Arrival<'_>| {
            let Arrival { office, year, taken_by: None, .. } = arrival else { return None };
            let register = Some(*self.registers.get(&(*office, *year))?);
            let (before, open_ticket, talk) = (None, None, None);
            Some(Seen { before, open_ticket, register, talk, taken_by: None })
        };
        batch.arrivals.iter().map(new).collect()
    }

    fn learn(&mut self, batch: &Batch<'_>, writes: &Writes<'_>) {
        let Numbers { office, year, last, turns, count } = &writes.numbers;
        for (at, last) in last.iter().enumerate() {
            let stands = RegisterStands { last: last + count[at], turns: turns[at] };
            self.registers.insert((OfficeId(office[at]), year[at]), stands);
        }
        self.lately[0].extend(batch.traces());
        if self.lately[0].len() > Self::GENERATION {
            self.lately.swap(0, 1);
            self.lately[0].clear();
        }
    }
}

fn key(incoming: &Incoming) -> (OfficeId, &str, &str) {
    let Incoming { office, submission, .. } = incoming;
    (office.id, submission.source.as_str(), submission.source_id.as_str())
}

/// What one identity became, whoever of the batch brought it.
#[derive(Clone)]
pub(super) struct Became {
    told: Told,
    received_at: DateTime<Utc>,
    digest: [u8; 32],
    /// Not in this batch, but in an earlier one.
    before: bool,
}

impl Became {
    const QUARANTINED: Self = Self {
        told: Told::Quarantined,
        received_at: DateTime::UNIX_EPOCH,
        digest: [0; 32],
        before: true,
    };

    /// Something new.
    pub(super) fn now(incoming: &Incoming, told: Told) -> Self {
        let Incoming { received_at, digest, .. } = *incoming;
        Self { told, received_at, digest, before: false }
    }

    /// What was recalled.
    pub(super) fn before(recalled: &Recalled) -> Self {
        Self {
            told: recalled.told.clone(),
            received_at: recalled.received_at,
            digest: recalled.digest.as_slice().try_into().unwrap_or_default(),
            before: true,
        }
    }

    fn told_to(self, incoming: &Incoming, repeated: bool) -> Accepted {
        let Self { told, received_at, digest, before } = self;
        let (repeated, differs) = (repeated || before, digest != incoming.digest);
        match told {
            Told::Quarantined => Accepted::Quarantined,
            Told::Made(made) => Accepted::Ticket { made, received_at, repeated, differs },
            Told::Said(said) => Accepted::Said { said, received_at, repeated, differs },
        }
    }
}

/// What a batch becomes, given what the database knows.
struct Built<'a> {
    /// `None` for what needs its conversation to be understood.
    became: Vec<Option<Became>>,
    committed: Committed,
    writes: Writes<'a>,
}

impl Built<'_> {
    fn needs_turns(&self) -> bool {
        self.became.iter().any(Option::is_none)
    }
}

fn build<'a>(
    unique: &[&'a Incoming],
    seen: &[Seen],
    quiet: Duration,
) -> Result<Built<'a>, StoreError> {
    let mut builder = Builder::new(quiet);
    // Whose turn is still to come: what they sent after it waits for it.
    let mut turning: HashSet<(OfficeId, &str)> = HashSet::new();
    let became = unique
        .iter()
        .zip(seen)
        .map(|(incoming, seen)| {
            if let Some(before) = &seen.before {
                return Ok(Some(Became::before(before)));
            }
            let whose =
                incoming.submission.thread.as_deref().map(|thread| (incoming.office.id, thread));
            if needs_turn(incoming, seen) || whose.is_some_and(|whose| turning.contains(&whose)) {
                turning.extend(whose);
                return Ok(None);
            }
            let made = builder.add(incoming, seen)?;
            Ok(Some(Became::now(incoming, Told::Made(made))))
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    let (writes, committed) = builder.finish();
    Ok(Built { became, committed, writes })
}

/// Whether it cannot be understood without its conversation.
fn needs_turn(incoming: &Incoming, seen: &Seen) -> bool {
    let Incoming { submission, received_at, alarms, .. } = incoming;
    // A recording cannot be asked what it is about.
    if submission.thread.is_none() || submission.channel == ChannelKind::Hotline {
        return false;
    }
    let (message, has_open) = (seen.message(submission, *alarms), seen.open_ticket.is_some());
    match &seen.talk {
        Some(talk) => talk.matters(message, has_open, *received_at),
        None => Talk::default().matters(message, has_open, *received_at),
    }
}

//! One transaction for a batch: recognise repeats, thread, number, chain, write.

use super::{Accepted, Committed, Waiting};
use crate::{
    domain::{
        chain::{Entry, Link, START},
        event::{Actor, Happened},
        id::OfficeId,
        promise::promise,
        register::RegisterNumber,
        timer::TimerKind,
    },
    schedule::TimerKey,
    store::{
        StoreError,
        intake::{self as store, Arrival, Basis, Growing, Made, Order, Seen, Writes},
    },
};
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use intake_contract::{ChannelKind, Submission, china};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
    time::Duration,
};

/// Of an original, for the trail and for recognising a repeat with other content.
pub(super) fn digest(raw: &[u8]) -> [u8; 32] {
    Sha256::digest(raw).into()
}

/// A batch, each identity once: the same id twice would be numbered twice.
pub(super) struct Batch<'a> {
    whole: &'a [Waiting],
    /// The first of each identity stands for all.
    unique: Vec<&'a Waiting>,
    /// Which of `unique` stands for each of `whole`.
    stands_for: Vec<usize>,
    arrivals: Vec<Arrival<'a>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(whole: &'a [Waiting]) -> Self {
        let mut first_of: HashMap<(OfficeId, &str, &str), usize> =
            HashMap::with_capacity(whole.len());
        let mut unique: Vec<&Waiting> = Vec::with_capacity(whole.len());
        let stands_for = whole
            .iter()
            .map(|waiting| {
                *first_of.entry(key(waiting)).or_insert_with(|| {
                    unique.push(waiting);
                    unique.len() - 1
                })
            })
            .collect();
        let arrivals = unique.iter().map(|waiting| arrival(waiting)).collect();
        Self { whole, unique, stands_for, arrivals }
    }

    /// What the database knows, with every register begun that the batch needs.
    pub(super) async fn look(&self, db: &mut PgConnection) -> Result<Vec<Seen>, StoreError> {
        let seen = store::look(db, &self.arrivals).await?;
        let mut unbegun: Vec<_> = self
            .arrivals
            .iter()
            .zip(&seen)
            .filter(|(_, seen)| seen.last_of_year.is_none())
            .map(|(arrival, _)| (arrival.office, arrival.year))
            .collect();
        if unbegun.is_empty() {
            return Ok(seen);
        }
        unbegun.sort_unstable();
        unbegun.dedup();
        store::begin_years(db, &unbegun).await?;
        store::look(db, &self.arrivals).await
    }

    pub(super) fn build(&self, seen: &[Seen], quiet: Duration) -> Result<Built<'a>, StoreError> {
        build(&self.unique, seen, quiet)
    }

    pub(super) fn footprint(&self, writes: &Writes<'_>) -> Footprint {
        let n = &writes.numbers;
        let tips = (0..n.office.len())
            .map(|at| ((OfficeId(n.office[at]), n.year[at]), n.last[at] + n.count[at]))
            .collect();
        Footprint { traces: self.traces().collect(), tips }
    }

    /// What two batches must not both hold while one of them is being written: identities, and
    /// citizens whose messages grow one ticket. As hashes: two that meet only cost a wait.
    fn traces(&self) -> impl Iterator<Item = u64> {
        self.arrivals.iter().flat_map(|arrival| {
            let Arrival { office, source, source_id, thread, .. } = arrival;
            let identity = TRACES.hash_one((office, source, source_id));
            std::iter::once(identity).chain(thread.map(|thread| TRACES.hash_one((office, thread))))
        })
    }

    /// What each sender is told.
    pub(super) fn answers(&self, built: Built<'_>) -> (Vec<Accepted>, Committed) {
        let mut told = vec![false; self.unique.len()];
        let accepted = self
            .whole
            .iter()
            .zip(&self.stands_for)
            .map(|(waiting, &at)| {
                let repeated = std::mem::replace(&mut told[at], true);
                built.became[at].clone().told_to(waiting, repeated)
            })
            .collect();
        (accepted, built.committed)
    }
}

static TRACES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What is remembered of a batch that is being written.
pub(super) struct Footprint {
    traces: HashSet<u64>,
    /// Where each register stands after it.
    tips: HashMap<(OfficeId, i32), i32>,
}

impl Footprint {
    pub(super) fn touches(&self, batch: &Batch<'_>) -> bool {
        batch.traces().any(|trace| self.traces.contains(&trace))
    }

    /// The registers as they will be, rather than as the database showed them.
    pub(super) fn foresee(&self, batch: &Batch<'_>, seen: &mut [Seen]) {
        for (arrival, seen) in batch.arrivals.iter().zip(seen) {
            if let Some(last) = self.tips.get(&(arrival.office, arrival.year)) {
                seen.last_of_year = Some(*last);
            }
        }
    }
}

/// Writes a decided batch in one statement. False when a guess was wrong: then nothing was written.
pub(super) async fn write(
    db: &mut PgConnection,
    writes: &Writes<'_>,
    guessed: bool,
    order: Order,
) -> Result<bool, StoreError> {
    let basis = if guessed { Basis::Guessed } else { Basis::Seen };
    store::write(db, writes, basis, Some(order)).await
}

/// Registers a batch under the locks of all that it rests on: never overtaken by another intake.
pub(super) async fn commit_locked(
    db: &mut PgConnection,
    batch: &[Waiting],
    quiet: Duration,
) -> Result<(Vec<Accepted>, Committed), StoreError> {
    let batch = Batch::new(batch);
    let mut transaction = db.begin().await?;
    let mut years: Vec<_> = batch.arrivals.iter().map(|a| (a.office, a.year)).collect();
    years.sort_unstable();
    years.dedup();
    store::begin_years(&mut transaction, &years).await?;
    store::lock(&mut transaction, &batch.arrivals).await?;
    let seen = store::look(&mut transaction, &batch.arrivals).await?;
    let built = batch.build(&seen, quiet)?;
    if let Some(writes) = &built.writes {
        store::write(&mut transaction, writes, Basis::Seen, None).await?;
    }
    transaction.commit().await?;
    Ok(batch.answers(built))
}

/// What the gateway remembers of its own commits: enough to guess, never to decide.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Where each register stood, or will once what is being written is there.
    registers: HashMap<(OfficeId, i32), i32>,
    /// Traces of what came lately: a citizen's next message grows a ticket, the same identity is a
    /// repeat. The newest two generations.
    lately: [HashSet<u64>; 2],
}

impl Known {
    const GENERATION: usize = 8192;

    /// That everything in a batch is new, where that is likely.
    pub(super) fn guess(&self, batch: &Batch<'_>) -> Option<Vec<Seen>> {
        if batch.traces().any(|trace| self.lately.iter().any(|those| those.contains(&trace))) {
            return None;
        }
        let new = |arrival: &Arrival<'_>| {
            let Arrival { office, year, taken_by: None, .. } = arrival else { return None };
            let last_of_year = Some(*self.registers.get(&(*office, *year))?);
            Some(Seen { before: None, open_ticket: None, last_of_year, taken_by: None })
        };
        batch.arrivals.iter().map(new).collect()
    }

    pub(super) fn learn(&mut self, footprint: &Footprint) {
        self.registers.extend(&footprint.tips);
        self.lately[0].extend(&footprint.traces);
        if self.lately[0].len() > Self::GENERATION {
            self.lately.swap(0, 1);
            self.lately[0].clear();
        }
    }

    /// Takes back what a batch that did not come through made known of the registers.
    pub(super) fn forget(&mut self, footprint: &Footprint) {
        for register in footprint.tips.keys() {
            self.registers.remove(register);
        }
    }
}

fn key(waiting: &Waiting) -> (OfficeId, &str, &str) {
    let Waiting { office, submission, .. } = waiting;
    (office.id, submission.source.as_str(), submission.source_id.as_str())
}

fn arrival(waiting: &Waiting) -> Arrival<'_> {
    Arrival {
        office: waiting.office.id,
        source: &waiting.submission.source,
        source_id: &waiting.submission.source_id,
        thread: waiting.submission.thread.as_deref(),
        year: year(waiting.received_at),
        taken_by: waiting.submission.taken_by.as_deref(),
    }
}

/// The year whose register a moment belongs to.
fn year(at: DateTime<Utc>) -> i32 {
    at.with_timezone(&china()).year()
}

/// What one identity became, whoever of the batch brought it.
#[derive(Clone)]
enum Became {
    /// A ticket, or a message on one: in this batch, or (`before`) in an earlier one.
    Ticket { made: Made, received_at: DateTime<Utc>, digest: [u8; 32], before: bool },
    /// Refused by the database, earlier.
    Quarantined,
}

impl Became {
    fn told_to(self, waiting: &Waiting, repeated: bool) -> Accepted {
        match self {
            Self::Quarantined => Accepted::Quarantined,
            Self::Ticket { made, received_at, digest, before } => Accepted::Ticket {
                made,
                received_at,
                repeated: repeated || before,
                differs: digest != waiting.digest,
            },
        }
    }
}

/// What a batch becomes, given what the database knows.
pub(super) struct Built<'a> {
    became: Vec<Became>,
    committed: Committed,
    /// `None` when there is nothing new.
    pub(super) writes: Option<Writes<'a>>,
}

fn build<'a>(
    unique: &[&'a Waiting],
    seen: &[Seen],
    quiet: Duration,
) -> Result<Built<'a>, StoreError> {
    let mut builder = Builder::new(quiet);
    let became = unique
        .iter()
        .zip(seen)
        .map(|(waiting, seen)| match &seen.before {
            None => {
                let made = builder.add(waiting, seen)?;
                let Waiting { received_at, digest, .. } = **waiting;
                Ok(Became::Ticket { made, received_at, digest, before: false })
            }
            Some(before) => Ok(match before.made {
                None => Became::Quarantined,
                Some(made) => Became::Ticket {
                    made,
                    received_at: before.received_at,
                    digest: before.digest.as_slice().try_into().unwrap_or_default(),
                    before: true,
                },
            }),
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    Ok(builder.finish(became))
}

/// The end of a ticket's chain while the batch adds to it.
struct Head {
    events: i32,
    chain: Link,
    made: Made,
    urgent: bool,
    grows: Grows,
}

#[derive(Clone, Copy)]
enum Grows {
    /// This batch registers it; its row in `writes.tickets`.
    New(usize),
    /// It was open before, with this many events.
    Open(i32),
}

impl Head {
    fn open(growing: &Growing) -> Self {
        let made = Made {
            ticket: growing.ticket,
            appended: true,
            follow_up_at: growing.follow_up_at,
            due_at: growing.due_at,
            provisional: growing.provisional,
        };
        let grows = Grows::Open(growing.events);
        let Growing { events, chain, urgent, .. } = *growing;
        Self { events, chain, made, urgent, grows }
    }
}

/// Builds the rows of a batch.
struct Builder<'a> {
    writes: Writes<'a>,
    committed: Committed,
    heads: BTreeMap<(OfficeId, RegisterNumber), Head>,
    /// Tickets that this batch opened, by thread.
    opened: BTreeMap<(OfficeId, &'a str), RegisterNumber>,
    /// Of each office's year: the last number before, and how many this batch takes.
    numbers: BTreeMap<(OfficeId, i32), (i32, i32)>,
    quiet: TimeDelta,
}

impl<'a> Builder<'a> {
    fn new(quiet: Duration) -> Self {
        Self {
            writes: Writes::default(),
            committed: Committed::default(),
            heads: BTreeMap::new(),
            opened: BTreeMap::new(),
            numbers: BTreeMap::new(),
            quiet: TimeDelta::from_std(quiet).unwrap_or_default(),
        }
    }

    fn add(&mut self, waiting: &'a Waiting, seen: &Seen) -> Result<Made, StoreError> {
        let office = waiting.office.id;
        if !self.committed.offices.contains(&office) {
            self.committed.offices.push(office);
        }
        let thread = waiting.submission.thread.as_deref();
        let opened = thread.and_then(|thread| self.opened.get(&(office, thread)).copied());
        let made = match (&seen.open_ticket, opened) {
            (Some(growing), _) => {
                self.heads.entry((office, growing.ticket)).or_insert_with(|| Head::open(growing));
                self.append(waiting, growing.ticket)?
            }
            (None, Some(ticket)) => self.append(waiting, ticket)?,
            (None, None) => self.open(waiting, seen)?,
        };
        // The ticket's newest event is this submission's, unless the register took it up at once:
        // then its first.
        let seq = if made.appended { self.head(office, made.ticket)?.events } else { 1 };
        let inbound = &mut self.writes.inbound;
        inbound.office.push(office.0);
        inbound.source.push(&waiting.submission.source);
        inbound.source_id.push(&waiting.submission.source_id);
        inbound.digest.push(waiting.digest);
        inbound.received_at.push(waiting.received_at);
        inbound.ticket.push(made.ticket.as_i64());
        inbound.seq.push(seq);
        inbound.appended.push(made.appended);
        inbound.follow_up_at.push(made.follow_up_at);
        inbound.due_at.push(made.due_at);
        inbound.provisional.push(made.provisional);
        Ok(made)
    }

    /// The next number of the register (R7.1).
    fn next_number(
        &mut self,
        office: OfficeId,
        year: i32,
        last: Option<i32>,
    ) -> Result<RegisterNumber, StoreError> {
        // Begun before the look, so it was there to be seen.
        let wrong = StoreError::BadRow { table: "register", column: "last" };
        let Some(last) = last else { return Err(wrong) };
        let (last, count) = self.numbers.entry((office, year)).or_insert((last, 0));
        *count += 1;
        RegisterNumber::new(year, *last + *count).map_err(|_| wrong)
    }

    /// R7.1: a new ticket.
    fn open(&mut self, waiting: &'a Waiting, seen: &Seen) -> Result<Made, StoreError> {
        let Waiting { office, submission, received_at, digest, .. } = waiting;
        let accountable = seen.taken_by;
        let ticket = self.next_number(office.id, year(*received_at), seen.last_of_year)?;

        // A recording was said when it was recorded; everything else when it came.
        let said_at = match (submission.channel, submission.occurred_at) {
            (ChannelKind::Hotline, Some(at)) => at.min(*received_at),
            _ => *received_at,
        };
        let promise = promise(&office.calendar, *received_at, said_at);
        let urgent = submission.urgent || office.policy.sounds_urgent(&submission.text);
        let made = Made {
            ticket,
            appended: false,
            follow_up_at: promise.follow_up_at,
            due_at: promise.due_at,
            provisional: promise.provisional,
        };

        let tickets = &mut self.writes.tickets;
        tickets.office.push(office.id.0);
        tickets.ticket.push(ticket.as_i64());
        tickets.channel.push(submission.channel.as_str());
        tickets.state.push(if accountable.is_some() { "accepted" } else { "registered" });
        tickets.urgency.push(if urgent { 0 } else { 1 });
        tickets.problem.push(first_words(submission));
        tickets.name.push(submission.citizen.name.as_deref());
        tickets.phone.push(submission.citizen.phone.as_deref());
        tickets.thread.push(submission.thread.as_deref());
        tickets.registered_at.push(*received_at);
        tickets.accepted_at.push(promise.accepted_at);
        tickets.follow_up_at.push(promise.follow_up_at);
        tickets.due_at.push(promise.due_at);
        tickets.provisional.push(promise.provisional);
        tickets.needs_year.push(promise.needs_year);
        tickets.calendar_version.push(office.calendar_version);
        tickets.accountable.push(accountable.map(|id| id.0));
        tickets.events.push(0);
        tickets.chain.push(START.0);
        let grows = Grows::New(tickets.ticket.len() - 1);
        self.heads
            .insert((office.id, ticket), Head { events: 0, chain: START, made, urgent, grows });
        if let Some(thread) = submission.thread.as_deref() {
            self.opened.insert((office.id, thread), ticket);
        }

        let registered = Happened::Registered {
            channel: submission.channel,
            digest: hex::encode(digest),
            accepted_at: promise.accepted_at,
            follow_up_at: promise.follow_up_at,
            due_at: promise.due_at,
            provisional: promise.provisional,
            urgent,
        };
        let by = accountable.map_or(Actor::Citizen, Actor::Staff);
        self.happen(waiting, ticket, by, &registered, Some(submission))?;
        if let Some(by) = accountable {
            let claimed = Happened::Claimed { by };
            self.happen(waiting, ticket, Actor::Staff(by), &claimed, None)?;
        }

        let warn_at = office.calendar.warn_at(promise.due_at);
        let timers = [
            (TimerKind::FollowUp, promise.follow_up_at),
            (TimerKind::Warning, Some(warn_at)),
            (TimerKind::Limit, Some(promise.due_at)),
        ];
        for (kind, due_at) in timers {
            let Some(due_at) = due_at else { continue };
            let timers = &mut self.writes.timers;
            timers.office.push(office.id.0);
            timers.ticket.push(ticket.as_i64());
            timers.kind.push(kind.number());
            timers.due_at.push(due_at);
            self.committed.timers.push(TimerKey {
                office: office.id,
                ticket,
                kind,
                generation: 1,
                due_at,
            });
        }
        self.effect(waiting, "registered", ticket, urgent, *received_at);
        Ok(made)
    }

    /// One more message on the citizen's open ticket.
    fn append(&mut self, waiting: &'a Waiting, ticket: RegisterNumber) -> Result<Made, StoreError> {
        let Waiting { office, submission, received_at, digest, .. } = waiting;
        let alarming = submission.urgent || office.policy.sounds_urgent(&submission.text);
        let head = self.head(office.id, ticket)?;
        let becomes_urgent = alarming && !head.urgent;
        head.urgent |= alarming;
        let received = Happened::MessageReceived {
            channel: submission.channel,
            digest: hex::encode(digest),
            urgent: becomes_urgent,
        };
        self.happen(waiting, ticket, Actor::Citizen, &received, Some(submission))?;
        let head = self.head(office.id, ticket)?;
        // RD3.2: what is added to an emergency is told at any hour as well.
        let urgent = head.urgent;
        let first_growth = matches!(head.grows, Grows::Open(was) if head.events == was + 1);
        let made = Made { appended: true, ..head.made };
        if first_growth || becomes_urgent {
            // Not at once: a burst is told as one (the relay joins what is pending for a ticket).
            self.effect(waiting, "grew", ticket, urgent, *received_at + self.quiet);
        }
        Ok(made)
    }

    fn head(&mut self, office: OfficeId, ticket: RegisterNumber) -> Result<&mut Head, StoreError> {
        self.heads.get_mut(&(office, ticket)).ok_or(StoreError::RowCount {
            table: "ticket",
            changed: 0,
            wanted: 1,
        })
    }

    fn happen(
        &mut self,
        waiting: &Waiting,
        ticket: RegisterNumber,
        actor: Actor,
        happened: &Happened,
        message: Option<&'a Submission>,
    ) -> Result<(), StoreError> {
        let (kind, data) = happened.stored();
        let actor = actor.stored();
        let office = waiting.office.id;
        let at = waiting.received_at;
        let head = self.head(office, ticket)?;
        head.events += 1;
        let seq = head.events;
        let entry = Entry { office, ticket, seq, at, actor: &actor, kind: &kind, data: &data };
        head.chain = entry.link(head.chain);
        let hash = head.chain.0;

        let events = &mut self.writes.events;
        events.office.push(office.0);
        events.ticket.push(ticket.as_i64());
        events.seq.push(seq);
        events.at.push(at);
        events.actor.push(actor);
        events.kind.push(kind);
        events.data.push(data);
        events.hash.push(hash);
        events.occurred_at.push(message.map(|m| m.occurred_at.unwrap_or(at)));
        events.text.push(message.map(|m| m.text.as_str()).unwrap_or_default());
        events.attachments.push(
            message
                .filter(|m| !m.attachments.is_empty())
                .and_then(|m| serde_json::to_value(&m.attachments).ok()),
        );
        events.raw.push(message.map(|m| m.raw.as_ref()).unwrap_or_default());
        Ok(())
    }

    /// Something to tell the staff: now while the office is open or when it cannot wait, else at
    /// the next opening.
    fn effect(
        &mut self,
        waiting: &Waiting,
        kind: &'static str,
        ticket: RegisterNumber,
        urgent: bool,
        from: DateTime<Utc>,
    ) {
        let Waiting { office, received_at, .. } = waiting;
        let opens = office.calendar.next_open(from).value;
        let not_before = if urgent {
            *received_at
        } else if opens > from {
            opens + TimeDelta::seconds(crate::relay::GATHER_S)
        } else {
            opens
        };
        let effects = &mut self.writes.effects;
        effects.office.push(office.id.0);
        effects.kind.push(kind);
        effects.ticket.push(ticket.as_i64());
        effects.urgent.push(urgent);
        effects.created_at.push(*received_at);
        effects.not_before.push(not_before);
        self.committed.effects |= not_before <= *received_at;
        self.committed.urgent |= urgent;
    }

    /// Carries the chains' ends to the rows of their tickets, and what is locked into the order of
    /// the locks.
    fn finish(mut self, became: Vec<Became>) -> Built<'a> {
        let writes = &mut self.writes;
        for ((office, year), (last, count)) in &self.numbers {
            writes.numbers.office.push(office.0);
            writes.numbers.year.push(*year);
            writes.numbers.last.push(*last);
            writes.numbers.count.push(*count);
        }
        for ((office, ticket), head) in &self.heads {
            match head.grows {
                Grows::New(row) => {
                    writes.tickets.urgency[row] = if head.urgent { 0 } else { 1 };
                    writes.tickets.events[row] = head.events;
                    writes.tickets.chain[row] = head.chain.0;
                }
                Grows::Open(was) => {
                    writes.grown.office.push(office.0);
                    writes.grown.ticket.push(ticket.as_i64());
                    writes.grown.urgency.push(if head.urgent { 0 } else { 1 });
                    writes.grown.was.push(was);
                    writes.grown.events.push(head.events);
                    writes.grown.chain.push(head.chain.0);
                }
            }
        }
        let writes = (!writes.inbound.office.is_empty()).then_some(self.writes);
        Built { became, committed: self.committed, writes }
    }
}

/// The first words of the problem, for lists; the message keeps all of them.
fn first_words(submission: &Submission) -> String {
    const CHARS: usize = 48;
    let text = submission.text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        let what = submission.attachments.first().map(|attachment| match attachment.kind {
            intake_contract::AttachmentKind::Image => "〔图片〕",
            intake_contract::AttachmentKind::Voice => "〔语音〕",
            intake_contract::AttachmentKind::Video => "〔视频〕",
            intake_contract::AttachmentKind::Location => "〔位置〕",
            intake_contract::AttachmentKind::Link => "〔链接〕",
        });
        return what.unwrap_or_default().to_owned();
    }
    let mut words: String = text.chars().take(CHARS).collect();
    if text.chars().nth(CHARS).is_some() {
        words.push('…');
    }
    words
}

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
        intake::{
            self as store, Arrival, Basis, Growing, Made, NewEvent, NewTicket, Numbers, Seen,
            Writes,
        },
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

    /// Registers the batch and says what each submission became, in order; returns after COMMIT.
    pub(super) async fn commit(
        &self,
        db: &mut PgConnection,
        quiet: Duration,
        guard: Guard,
        known: &mut Known,
    ) -> Result<(Vec<Accepted>, Committed), StoreError> {
        if guard == Guard::Unchanged
            && let Some(seen) = known.guess(self)
        {
            let built = build(&self.unique, &seen, quiet)?;
            if store::write(db, &built.writes, Basis::Guessed).await? {
                known.learn(self, &built.writes);
                return Ok(self.answers(built));
            }
        }
        let built = match guard {
            Guard::Unchanged => {
                let mut seen = store::look(db, &self.arrivals).await?;
                if seen.iter().any(|seen| seen.last_of_year.is_none()) {
                    store::begin_years(db, &self.years()).await?;
                    seen = store::look(db, &self.arrivals).await?;
                }
                let built = build(&self.unique, &seen, quiet)?;
                store::write(db, &built.writes, Basis::Seen).await?;
                built
            }
            Guard::Locked => {
                let mut transaction = db.begin().await?;
                store::begin_years(&mut transaction, &self.years()).await?;
                store::lock(&mut transaction, &self.arrivals).await?;
                let seen = store::look(&mut transaction, &self.arrivals).await?;
                let built = build(&self.unique, &seen, quiet)?;
                store::write(&mut transaction, &built.writes, Basis::Seen).await?;
                transaction.commit().await?;
                built
            }
        };
        known.learn(self, &built.writes);
        Ok(self.answers(built))
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
    fn answers(&self, built: Built<'_>) -> (Vec<Accepted>, Committed) {
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
    registers: HashMap<(OfficeId, i32), i32>,
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
        let new = |arrival: &Arrival<'_>| {
            let Arrival { office, year, taken_by: None, .. } = arrival else { return None };
            let last_of_year = Some(*self.registers.get(&(*office, *year))?);
            Some(Seen { before: None, open_ticket: None, last_of_year, taken_by: None })
        };
        batch.arrivals.iter().map(new).collect()
    }

    fn learn(&mut self, batch: &Batch<'_>, writes: &Writes<'_>) {
        let Numbers { office, year, last, count } = &writes.numbers;
        for (at, last) in last.iter().enumerate() {
            self.registers.insert((OfficeId(office[at]), year[at]), last + count[at]);
        }
        self.lately[0].extend(batch.traces());
        if self.lately[0].len() > Self::GENERATION {
            self.lately.swap(0, 1);
            self.lately[0].clear();
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
struct Built<'a> {
    became: Vec<Became>,
    committed: Committed,
    writes: Writes<'a>,
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
        let (made, row) = match (&seen.open_ticket, opened) {
            (Some(growing), _) => {
                self.heads.entry((office, growing.ticket)).or_insert_with(|| Head::open(growing));
                self.append(waiting, growing.ticket)?
            }
            (None, Some(ticket)) => self.append(waiting, ticket)?,
            (None, None) => self.open(waiting, seen)?,
        };
        let event = &mut self.writes.events[row];
        event.source = Some(&waiting.submission.source);
        event.source_id = Some(&waiting.submission.source_id);
        event.digest = Some(waiting.digest);
        event.appended = Some(made.appended);
        event.follow_up_at = made.follow_up_at;
        event.due_at = Some(made.due_at);
        event.provisional = Some(made.provisional);
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

    /// R7.1: a new ticket. With the row of its event.
    fn open(&mut self, waiting: &'a Waiting, seen: &Seen) -> Result<(Made, usize), StoreError> {
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

        let warn_at = office.calendar.warn_at(promise.due_at);
        self.writes.tickets.push(NewTicket {
            office_id: office.id.0,
            ticket: ticket.as_i64(),
            channel: submission.channel.as_str(),
            state: if accountable.is_some() { "accepted" } else { "registered" },
            urgency: if urgent { 0 } else { 1 },
            problem: first_words(submission),
            citizen_name: submission.citizen.name.as_deref(),
            citizen_phone: submission.citizen.phone.as_deref(),
            thread: submission.thread.as_deref(),
            registered_at: *received_at,
            accepted_at: promise.accepted_at,
            follow_up_at: promise.follow_up_at,
            warn_at,
            due_at: promise.due_at,
            provisional: promise.provisional,
            needs_year: promise.needs_year,
            calendar_version: office.calendar_version,
            accountable: accountable.map(|id| id.0),
            events: 0,
            chain: START.0,
        });
        let grows = Grows::New(self.writes.tickets.len() - 1);
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
        let row = self.happen(waiting, ticket, by, &registered, Some(submission))?;
        if let Some(by) = accountable {
            let claimed = Happened::Claimed { by };
            self.happen(waiting, ticket, Actor::Staff(by), &claimed, None)?;
        }

        let timers = [
            (TimerKind::FollowUp, promise.follow_up_at),
            (TimerKind::Warning, Some(warn_at)),
            (TimerKind::Limit, Some(promise.due_at)),
        ];
        for (kind, due_at) in timers {
            let Some(due_at) = due_at else { continue };
            self.committed.timers.push(TimerKey {
                office: office.id,
                ticket,
                kind,
                generation: 1,
                due_at,
            });
        }
        self.effect(waiting, row, "registered", urgent, *received_at);
        Ok((made, row))
    }

    /// One more message on the citizen's open ticket. With the row of its event.
    fn append(
        &mut self,
        waiting: &'a Waiting,
        ticket: RegisterNumber,
    ) -> Result<(Made, usize), StoreError> {
        let Waiting { office, submission, received_at, digest, .. } = waiting;
        let alarming = submission.urgent || office.policy.sounds_urgent(&submission.text);
        let head = self.head(office.id, ticket)?;
        let becomes_urgent = alarming && !head.urgent;
        head.urgent |= alarming;
        let received = Happened::MessageReceived {
            channel: submission.channel,
            digest: hex::encode(digest),
            urgent: becomes_urgent,
            page: false,
        };
        let row = self.happen(waiting, ticket, Actor::Citizen, &received, Some(submission))?;
        let head = self.head(office.id, ticket)?;
        // RD3.2: what is added to an emergency is told at any hour as well.
        let urgent = head.urgent;
        let first_growth = matches!(head.grows, Grows::Open(was) if head.events == was + 1);
        let made = Made { appended: true, ..head.made };
        if first_growth || becomes_urgent {
            // Not at once: a burst is told as one (the relay joins what is pending for a ticket).
            self.effect(waiting, row, "grew", urgent, *received_at + self.quiet);
        }
        Ok((made, row))
    }

    fn head(&mut self, office: OfficeId, ticket: RegisterNumber) -> Result<&mut Head, StoreError> {
        self.heads.get_mut(&(office, ticket)).ok_or(StoreError::RowCount {
            table: "ticket",
            changed: 0,
            wanted: 1,
        })
    }

    /// The next event of a ticket; its row.
    fn happen(
        &mut self,
        waiting: &Waiting,
        ticket: RegisterNumber,
        actor: Actor,
        happened: &Happened,
        message: Option<&'a Submission>,
    ) -> Result<usize, StoreError> {
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

        self.writes.events.push(NewEvent {
            office_id: office.0,
            ticket: ticket.as_i64(),
            seq,
            at,
            actor,
            kind,
            data,
            hash,
            occurred_at: message.map(|m| m.occurred_at.unwrap_or(at)),
            text: message.map(|m| m.text.as_str()),
            attachments: message
                .filter(|m| !m.attachments.is_empty())
                .and_then(|m| serde_json::to_value(&m.attachments).ok()),
            raw: message.map(|m| m.raw.as_ref()),
            ..NewEvent::default()
        });
        Ok(self.writes.events.len() - 1)
    }

    /// Something to tell the staff: now while the office is open or when it cannot wait, else at
    /// the next opening.
    fn effect(
        &mut self,
        waiting: &Waiting,
        row: usize,
        kind: &'static str,
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
        let event = &mut self.writes.events[row];
        event.effect = Some(kind);
        event.effect_urgent = Some(urgent);
        event.effect_not_before = Some(not_before);
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
                    let new = &mut writes.tickets[row];
                    new.urgency = if head.urgent { 0 } else { 1 };
                    new.events = head.events;
                    new.chain = head.chain.0;
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
        Built { became, committed: self.committed, writes: self.writes }
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
            intake_contract::AttachmentKind::File => "〔文件〕",
        });
        return what.unwrap_or_default().to_owned();
    }
    let mut words: String = text.chars().take(CHARS).collect();
    if text.chars().nth(CHARS).is_some() {
        words.push('…');
    }
    words
}

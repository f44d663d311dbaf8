//! One transaction for a batch: deduplicate, thread, number, chain, write.

use super::{Accepted, Committed, Waiting};
use crate::{
    domain::{
        chain::{Entry, Link, START},
        event::{Actor, Happened},
        id::{OfficeId, StaffId},
        promise::promise,
        register::RegisterNumber,
        timer::TimerKind,
    },
    schedule::TimerKey,
    store::{
        StoreError,
        intake::{self as store, Arrival, Growing, Made, Writes, push_timer},
    },
};
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use intake_contract::{ChannelKind, china};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::{collections::HashMap, time::Duration};

/// Of an original, for the trail and for recognising a repeat with other content.
pub(super) fn digest(raw: &[u8]) -> [u8; 32] {
    Sha256::digest(raw).into()
}

/// Registers a batch within the caller's transaction and says what each became, in order.
pub(super) async fn register(
    db: &mut PgConnection,
    batch: &[Waiting],
    quiet: Duration,
) -> Result<(Vec<Accepted>, Committed), StoreError> {
    // The same id twice in one batch: the first stands for all, or it would be numbered twice.
    let mut first_of: HashMap<(OfficeId, &str, &str), usize> = HashMap::with_capacity(batch.len());
    let mut unique: Vec<usize> = Vec::with_capacity(batch.len());
    let stands_for: Vec<usize> = batch
        .iter()
        .enumerate()
        .map(|(index, waiting)| {
            *first_of.entry(key(waiting)).or_insert_with(|| {
                unique.push(index);
                unique.len() - 1
            })
        })
        .collect();

    let arrivals: Vec<Arrival<'_>> = unique.iter().map(|&index| arrival(&batch[index])).collect();
    let admitted = store::admit(db, &arrivals).await?;

    let mut made: Vec<Option<Made>> = vec![None; unique.len()];
    let mut builder = Builder::new(quiet);
    let appended_to: Vec<(OfficeId, RegisterNumber)> = {
        let mut tickets: Vec<_> = admitted
            .iter()
            .filter_map(|a| Some((arrivals[a.index].office, a.open_ticket?)))
            .collect();
        tickets.sort_unstable();
        tickets.dedup();
        tickets
    };
    if !appended_to.is_empty() {
        for growing in store::lock_growing(db, &appended_to).await? {
            builder.heads.insert((growing.office, growing.ticket), Head::open(&growing));
        }
    }
    builder.count_new(&arrivals, &admitted);
    for admission in &admitted {
        let waiting = &batch[unique[admission.index]];
        let accountable = match &waiting.submission.taken_by {
            Some(login) => store::staff_by_login(db, waiting.office.id, login).await?,
            None => None,
        };
        made[admission.index] = Some(builder.add(waiting, admission.open_ticket, accountable)?);
    }
    builder.finish();
    if !builder.writes.results.office.is_empty() {
        store::write(db, &builder.writes).await?;
    }

    // What was not admitted was there before: it is answered as it was then.
    let missing: Vec<usize> = (0..unique.len()).filter(|&at| made[at].is_none()).collect();
    let mut recalled: HashMap<usize, store::Recalled> = HashMap::new();
    if !missing.is_empty() {
        let keys: Vec<_> = missing.iter().map(|&at| key(&batch[unique[at]])).collect();
        for found in store::recall(db, &keys).await? {
            recalled.insert(missing[found.index], found);
        }
    }
    let accepted = batch
        .iter()
        .enumerate()
        .map(|(index, waiting)| {
            let at = stands_for[index];
            if let Some(made) = made[at] {
                return Ok(Accepted::Ticket {
                    made,
                    received_at: batch[unique[at]].received_at,
                    repeated: unique[at] != index,
                    differs: batch[unique[at]].digest != waiting.digest,
                });
            }
            let found = recalled.get(&at).ok_or(StoreError::RowCount {
                table: "inbound",
                changed: 0,
                wanted: 1,
            })?;
            Ok(match found.made {
                Some(made) => Accepted::Ticket {
                    made,
                    received_at: found.received_at,
                    repeated: true,
                    differs: found.digest != waiting.digest,
                },
                None => Accepted::Quarantined,
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    Ok((accepted, builder.committed))
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
        digest: waiting.digest,
        received_at: waiting.received_at,
        thread: waiting.submission.thread.as_deref(),
        year: year(waiting.received_at),
    }
}

/// The year whose register a moment belongs to.
fn year(at: DateTime<Utc>) -> i32 {
    at.with_timezone(&china()).year()
}

/// The end of a ticket's chain while the batch adds to it.
struct Head {
    events: i32,
    chain: Link,
    made: Made,
    /// Its row in `writes.tickets`, for a ticket that this batch registers.
    row: Option<usize>,
    grew: bool,
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
        Self { events: growing.events, chain: growing.chain, made, row: None, grew: false }
    }
}

/// Builds the rows of a batch.
struct Builder<'a> {
    writes: Writes,
    committed: Committed,
    heads: HashMap<(OfficeId, RegisterNumber), Head>,
    /// Tickets that this batch opened, by thread.
    opened: HashMap<(OfficeId, &'a str), RegisterNumber>,
    /// The next sequence of each office's year.
    next: HashMap<(OfficeId, i32), i32>,
    quiet: TimeDelta,
}

impl<'a> Builder<'a> {
    fn new(quiet: Duration) -> Self {
        Self {
            writes: Writes::default(),
            committed: Committed::default(),
            heads: HashMap::new(),
            opened: HashMap::new(),
            next: HashMap::new(),
            quiet: TimeDelta::from_std(quiet).unwrap_or_default(),
        }
    }

    /// The register gave the last of its numbers; the first follows from how many are needed.
    fn count_new(&mut self, arrivals: &[Arrival<'a>], admitted: &[store::Admitted]) {
        let mut threads: HashMap<(OfficeId, &str), ()> = HashMap::new();
        let mut needed: HashMap<(OfficeId, i32), (i32, i32)> = HashMap::new();
        for admission in admitted {
            let arrival = &arrivals[admission.index];
            let opens = admission.open_ticket.is_none()
                && arrival
                    .thread
                    .is_none_or(|thread| threads.insert((arrival.office, thread), ()).is_none());
            if opens && let Some(last) = admission.last_of_year {
                needed.entry((arrival.office, arrival.year)).or_insert((last, 0)).1 += 1;
            }
        }
        self.next =
            needed.into_iter().map(|(key, (last, count))| (key, last - count + 1)).collect();
    }

    fn add(
        &mut self,
        waiting: &'a Waiting,
        open_ticket: Option<RegisterNumber>,
        accountable: Option<StaffId>,
    ) -> Result<Made, StoreError> {
        let office = waiting.office.id;
        if !self.committed.offices.contains(&office) {
            self.committed.offices.push(office);
        }
        let thread = waiting.submission.thread.as_deref();
        let grows = open_ticket
            .or_else(|| thread.and_then(|thread| self.opened.get(&(office, thread)).copied()));
        let made = match grows {
            Some(ticket) => self.append(waiting, ticket)?,
            None => self.open(waiting, accountable)?,
        };
        let results = &mut self.writes.results;
        results.office.push(office.0);
        results.source.push(waiting.submission.source.clone());
        results.source_id.push(waiting.submission.source_id.clone());
        results.ticket.push(made.ticket.as_i64());
        results.appended.push(made.appended);
        results.follow_up_at.push(made.follow_up_at);
        results.due_at.push(made.due_at);
        results.provisional.push(made.provisional);
        Ok(made)
    }

    /// R7.1: a new ticket.
    fn open(
        &mut self,
        waiting: &'a Waiting,
        accountable: Option<StaffId>,
    ) -> Result<Made, StoreError> {
        let Waiting { office, submission, received_at, digest, .. } = waiting;
        let year = year(*received_at);
        let next = self.next.get_mut(&(office.id, year)).ok_or(StoreError::RowCount {
            table: "register",
            changed: 0,
            wanted: 1,
        })?;
        let ticket = RegisterNumber::new(year, *next)
            .map_err(|_| StoreError::BadRow { table: "register", column: "last" })?;
        *next += 1;

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
        tickets.channel.push(submission.channel.as_str().to_owned());
        let state = if accountable.is_some() { "accepted" } else { "registered" };
        tickets.state.push(state.to_owned());
        tickets.urgency.push(if urgent { 0 } else { 1 });
        tickets.problem.push(first_words(submission));
        tickets.name.push(submission.citizen.name.clone());
        tickets.phone.push(submission.citizen.phone.clone());
        tickets.thread.push(submission.thread.clone());
        tickets.registered_at.push(*received_at);
        tickets.accepted_at.push(promise.accepted_at);
        tickets.follow_up_at.push(promise.follow_up_at);
        tickets.due_at.push(promise.due_at);
        tickets.provisional.push(promise.provisional);
        tickets.needs_year.push(promise.needs_year);
        tickets.calendar_version.push(office.calendar_version);
        tickets.accountable.push(accountable.map(|id| id.0));
        tickets.events.push(0);
        tickets.chain.push(Vec::new());
        let row = Some(tickets.ticket.len() - 1);
        self.heads
            .insert((office.id, ticket), Head { events: 0, chain: START, made, row, grew: false });
        if let Some(thread) = submission.thread.as_deref() {
            self.opened.insert((office.id, thread), ticket);
            self.writes.threads.office.push(office.id.0);
            self.writes.threads.thread.push(thread.to_owned());
            self.writes.threads.ticket.push(ticket.as_i64());
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
            push_timer(&mut self.writes.timers, office.id, ticket, kind, due_at);
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
    fn append(&mut self, waiting: &Waiting, ticket: RegisterNumber) -> Result<Made, StoreError> {
        let Waiting { office, submission, received_at, digest, .. } = waiting;
        let received =
            Happened::MessageReceived { channel: submission.channel, digest: hex::encode(digest) };
        self.happen(waiting, ticket, Actor::Citizen, &received, Some(submission))?;
        let head = self.head(office.id, ticket)?;
        let first_growth = !std::mem::replace(&mut head.grew, true) && head.row.is_none();
        let made = Made { appended: true, ..head.made };
        let urgent = submission.urgent || office.policy.sounds_urgent(&submission.text);
        if first_growth || urgent {
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
        message: Option<&intake_contract::Submission>,
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
        let hash = head.chain.0.to_vec();

        let events = &mut self.writes.events;
        events.office.push(office.0);
        events.ticket.push(ticket.as_i64());
        events.seq.push(seq);
        events.at.push(at);
        events.actor.push(actor);
        events.kind.push(kind);
        events.data.push(data);
        events.hash.push(hash);
        events.source.push(message.map(|m| m.source.clone()));
        events.source_id.push(message.map(|m| m.source_id.clone()));
        events.occurred_at.push(message.and_then(|m| m.occurred_at).unwrap_or(at));
        events.text.push(message.map(|m| m.text.clone()).unwrap_or_default());
        events.attachments.push(
            message
                .filter(|m| !m.attachments.is_empty())
                .and_then(|m| serde_json::to_value(&m.attachments).ok()),
        );
        events.raw.push(message.map(|m| m.raw.to_vec()).unwrap_or_default());
        Ok(())
    }

    /// Something to tell the staff: now while the office is open or when it cannot wait, else at
    /// the next opening.
    fn effect(
        &mut self,
        waiting: &Waiting,
        kind: &str,
        ticket: RegisterNumber,
        urgent: bool,
        from: DateTime<Utc>,
    ) {
        let Waiting { office, submission, received_at, .. } = waiting;
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
        effects.kind.push(kind.to_owned());
        effects.ticket.push(ticket.as_i64());
        effects.urgent.push(urgent);
        effects.data.push(serde_json::json!({ "channel": submission.channel }));
        effects.created_at.push(*received_at);
        effects.not_before.push(not_before);
        self.committed.effects |= not_before <= *received_at;
    }

    /// Carries the chains' ends to the rows of their tickets.
    fn finish(&mut self) {
        for ((office, ticket), head) in &self.heads {
            match head.row {
                Some(row) => {
                    self.writes.tickets.events[row] = head.events;
                    self.writes.tickets.chain[row] = head.chain.0.to_vec();
                }
                None => {
                    self.writes.grown.office.push(office.0);
                    self.writes.grown.ticket.push(ticket.as_i64());
                    self.writes.grown.events.push(head.events);
                    self.writes.grown.chain.push(head.chain.0.to_vec());
                }
            }
        }
    }
}

/// The first words of the problem, for lists; the message keeps all of them.
fn first_words(submission: &intake_contract::Submission) -> String {
    const CHARS: usize = 80;
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

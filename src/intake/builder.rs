//! The rows of a batch: which ticket each submission opens or grows, its number and dates, what is
//! recorded, what is told, and which timers are armed. Nothing here asks the database.

use super::{
    Committed,
    incoming::{Incoming, first_words, is_placeholder, year},
};
use crate::{
    domain::{
        chain::{Entry, Link, START},
        contact::{self, Contact},
        event::{Actor, Happened},
        id::OfficeId,
        promise::promise,
        register::RegisterNumber,
        timer::TimerKind,
    },
    schedule::TimerKey,
    store::{
        StoreError,
        intake::{Growing, Made, NewEvent, NewTicket, RegisterStands, Seen, Stood, Writes},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{ChannelKind, Citizen, Meaning};
use std::{collections::BTreeMap, time::Duration};

/// The end of a ticket's chain while the batch adds to it.
struct Head {
    events: i32,
    chain: Link,
    made: Made,
    urgent: bool,
    /// What the form needs (R7.2) and the batch brings.
    contact: Contact,
    /// R7.2: when its citizen was asked for the name that it still lacks.
    asked_at: Option<DateTime<Utc>>,
    /// The first words that the batch brings.
    problem: Option<String>,
    /// Whether the handler is told of what the batch adds, by what it or one before it wrote.
    told: bool,
    /// When, where the batch wrote it.
    growth_told_at: Option<DateTime<Utc>>,
    /// When the newest message came.
    came_at: DateTime<Utc>,
    grows: Grows,
}

/// So long a text that is nothing but a name answers the question for it.
const NAMED_WITHIN: TimeDelta = TimeDelta::hours(24);

#[derive(Clone, Copy)]
enum Grows {
    /// This batch registers it; its row in `writes.tickets`.
    New(usize),
    /// It was open before, with this many events.
    Open(i32),
}

impl Head {
    fn open(growing: &Growing, now: DateTime<Utc>) -> Self {
        // What is about to be told may be composed before this is there.
        const IN_TIME: TimeDelta = TimeDelta::seconds(5);
        let told = growing.growth_told_at.is_some_and(|at| at - now > IN_TIME);
        let made = Made {
            ticket: growing.ticket,
            appended: true,
            follow_up_at: growing.follow_up_at,
            due_at: growing.due_at,
            provisional: growing.provisional,
            asks: false,
            stood: growing.stood,
        };
        let grows = Grows::Open(growing.events);
        let Growing { events, chain, urgent, asked_at, .. } = *growing;
        let (contact, problem) = (Contact::default(), None);
        Self {
            events,
            chain,
            made,
            urgent,
            contact,
            asked_at,
            problem,
            told,
            growth_told_at: None,
            came_at: now,
            grows,
        }
    }
}

/// Builds the rows of a batch.
pub(super) struct Builder<'a> {
    writes: Writes<'a>,
    committed: Committed,
    heads: BTreeMap<(OfficeId, RegisterNumber), Head>,
    /// Tickets that this batch opened, by thread.
    opened: BTreeMap<(OfficeId, &'a str), RegisterNumber>,
    /// Of each office's year: how its register stood before, and how many numbers this batch takes.
    numbers: BTreeMap<(OfficeId, i32), (RegisterStands, i32)>,
    quiet: TimeDelta,
}

impl<'a> Builder<'a> {
    pub(super) fn new(quiet: Duration) -> Self {
        Self {
            writes: Writes::default(),
            committed: Committed::default(),
            heads: BTreeMap::new(),
            opened: BTreeMap::new(),
            numbers: BTreeMap::new(),
            quiet: TimeDelta::from_std(quiet).unwrap_or_default(),
        }
    }

    /// Grows the citizen's open ticket or makes a new one; records the identity and what its sender
    /// is told.
    pub(super) fn add(&mut self, waiting: &'a Incoming, seen: &Seen) -> Result<Made, StoreError> {
        let (made, row) = self.place(waiting, seen)?;
        let event = &mut self.writes.events[row];
        event.source = Some(&waiting.submission.source);
        event.source_id = Some(&waiting.submission.source_id);
        event.digest = Some(waiting.digest);
        event.appended = Some(made.appended);
        event.follow_up_at = made.follow_up_at;
        event.due_at = Some(made.due_at);
        event.provisional = Some(made.provisional);
        event.asks = Some(made.asks);
        event.stood = made.stood.stored();
        Ok(made)
    }

    /// As [`Self::add`], for what was kept and answered earlier, whose identity is recorded: which
    /// ticket it joins, and its place in the trail.
    pub(super) fn join(
        &mut self,
        held: &'a Incoming,
        seen: &Seen,
    ) -> Result<(Made, i32), StoreError> {
        let (made, row) = self.place(held, seen)?;
        let event = &mut self.writes.events[row];
        // Without its identity there, which is recorded.
        event.source = Some(&held.submission.source);
        Ok((made, event.seq))
    }

    /// What is registered in this batch is told to the citizen by the way that arrives.
    pub(super) fn tell_citizen(&mut self) {
        for event in &mut self.writes.events {
            if event.effect == Some("registered") {
                // R7.2: asked for by whichever way the number is told.
                let asks = event.asks == Some(true);
                event.effect_data = Some(serde_json::json!({ "tell_citizen": true, "asks": asks }));
            }
        }
    }

    fn place(&mut self, waiting: &'a Incoming, seen: &Seen) -> Result<(Made, usize), StoreError> {
        let office = waiting.office.id;
        if !self.committed.offices.contains(&office) {
            self.committed.offices.push(office);
        }
        let thread = waiting.submission.thread.as_deref();
        let opened = thread.and_then(|thread| self.opened.get(&(office, thread)).copied());
        match (&seen.open_ticket, opened) {
            (Some(growing), _) => {
                self.heads
                    .entry((office, growing.ticket))
                    .or_insert_with(|| Head::open(growing, waiting.received_at));
                self.append(waiting, growing.ticket)
            }
            (None, Some(ticket)) => self.append(waiting, ticket),
            (None, None) => self.open(waiting, seen),
        }
    }

    /// The next number of the register (R7.1).
    fn next_number(
        &mut self,
        office: OfficeId,
        year: i32,
        register: Option<RegisterStands>,
    ) -> Result<RegisterNumber, StoreError> {
        // Begun before the look, so it was there to be seen.
        let wrong = StoreError::BadRow { table: "register", column: "last" };
        let Some(register) = register else { return Err(wrong) };
        let (before, count) = self.numbers.entry((office, year)).or_insert((register, 0));
        *count += 1;
        RegisterNumber::new(year, before.last + *count).map_err(|_| wrong)
    }

    /// R7.1: a new ticket. With the row of its event.
    fn open(&mut self, waiting: &'a Incoming, seen: &Seen) -> Result<(Made, usize), StoreError> {
        let Incoming { office, submission, received_at, digest, .. } = waiting;
        let accountable = seen.taken_by;
        let ticket = self.next_number(office.id, year(*received_at), seen.register)?;

        // A recording was said when it was recorded; everything else when it came.
        let said_at = match (submission.channel, submission.occurred_at) {
            (ChannelKind::Hotline, Some(at)) => at.min(*received_at),
            _ => *received_at,
        };
        let promise = promise(&office.calendar, *received_at, said_at);
        let chats = submission.channel == ChannelKind::Wechat;
        let contact = match &seen.talk {
            _ if !chats => {
                let Citizen { name, phone } = submission.citizen.clone();
                Contact { name, phone }
            }
            // R7.2: what was given for an earlier matter is not asked for again.
            talk => {
                let given = waiting.given.clone();
                let (name, phone) = talk.as_ref().map_or((&None, &None), |t| (&t.name, &t.phone));
                Contact {
                    name: given.name.or_else(|| name.clone()),
                    phone: given.phone.or_else(|| phone.clone()),
                }
            }
        };
        let urgent = waiting.alarms;
        let made = Made {
            ticket,
            appended: false,
            follow_up_at: promise.follow_up_at,
            due_at: promise.due_at,
            provisional: promise.provisional,
            stood: Stood::InHand,
            asks: chats && (contact.name.is_none() || contact.phone.is_none()),
        };

        let asked_at = contact.name.is_none().then_some(*received_at);
        let warn_at = office.calendar.warn_at(promise.due_at);
        self.writes.tickets.push(NewTicket {
            office_id: office.id.0,
            ticket: ticket.as_i64(),
            channel: submission.channel.as_str(),
            state: if accountable.is_some() { "accepted" } else { "registered" },
            urgency: if urgent { 0 } else { 1 },
            problem: waiting.problem.clone(),
            citizen_name: contact.name,
            citizen_phone: contact.phone,
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
        self.heads.insert(
            (office.id, ticket),
            Head {
                events: 0,
                chain: START,
                made,
                urgent,
                contact: Contact::default(),
                asked_at,
                problem: None,
                told: true,
                growth_told_at: None,
                came_at: *received_at,
                grows,
            },
        );
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
            scene: seen.talk.as_ref().and_then(|talk| talk.scene.clone()),
        };
        let by = accountable.map_or(Actor::Citizen, Actor::Staff);
        let row = self.happen(waiting, ticket, by, &registered, true)?;
        if let Some(by) = accountable {
            let claimed = Happened::Claimed { by };
            self.happen(waiting, ticket, Actor::Staff(by), &claimed, false)?;
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
        waiting: &'a Incoming,
        ticket: RegisterNumber,
    ) -> Result<(Made, usize), StoreError> {
        let Incoming { office, submission, received_at, digest, alarms: alarming, .. } = waiting;
        let (quiet, alarming) = (self.quiet, *alarming);
        let head = self.head(office.id, ticket)?;
        // Soon after we asked; 「麻烦您」 and 「高兴」 later on are no names.
        let asked = submission.meaning == Meaning::Statement
            && head.asked_at.is_some_and(|at| *received_at - at < NAMED_WITHIN);
        head.came_at = *received_at;
        let becomes_urgent = alarming && !head.urgent;
        head.urgent |= alarming;
        let given = match submission.channel {
            ChannelKind::Wechat if asked => contact::recognise(&submission.text, asked),
            ChannelKind::Wechat => waiting.given.clone(),
            // The number may come after the recording; calls of one ticket are one caller's.
            ChannelKind::Hotline => Contact { name: None, phone: submission.citizen.phone.clone() },
            _ => Contact::default(),
        };
        let contact = !given.is_empty();
        if contact {
            let Contact { name, phone } = given;
            head.asked_at = head.asked_at.filter(|_| name.is_none());
            head.contact.name = name.or(head.contact.name.take());
            head.contact.phone = phone.or(head.contact.phone.take());
        }
        let received = Happened::MessageReceived {
            channel: submission.channel,
            digest: hex::encode(digest),
            urgent: becomes_urgent,
            page: false,
            contact,
        };
        let row = self.happen(waiting, ticket, Actor::Citizen, &received, true)?;
        let head = self.head(office.id, ticket)?;
        // RD3.2: what is added to an emergency is told at any hour as well.
        let urgent = head.urgent;
        let first_growth = matches!(head.grows, Grows::Open(was) if head.events == was + 1);
        if submission.meaning == Meaning::Statement && head.problem.is_none() {
            head.problem =
                Some(first_words(&submission.text, &[])).filter(|words| !words.is_empty());
        }
        let stood = match head.made.stood {
            Stood::InHand if contact => Stood::ContactNoted,
            stood => stood,
        };
        let made = Made { appended: true, asks: false, stood, ..head.made };
        // 「好的」 is worth nobody's while, unless we wait for an answer.
        let answers =
            || made.stood == Stood::AwaitingCitizen || submission.text.contains(char::is_numeric);
        let quietly = submission.meaning == Meaning::Greeting && !answers();
        // An emergency is told message by message: nothing of it waits.
        if (!quietly && (!head.told || (urgent && first_growth))) || becomes_urgent {
            let told_at = match urgent {
                true => *received_at,
                false => office.staff_told_from(*received_at + quiet),
            };
            (head.told, head.growth_told_at) = (true, Some(told_at));
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

    /// The next event of a ticket, which records the message or what came of it; its row.
    fn happen(
        &mut self,
        waiting: &'a Incoming,
        ticket: RegisterNumber,
        actor: Actor,
        happened: &Happened,
        is_message: bool,
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
        let message = is_message.then_some(&waiting.submission);
        self.committed.attachments |= message.is_some_and(|m| !m.attachments.is_empty());

        let mut event = NewEvent {
            office_id: office.0,
            ticket: ticket.as_i64(),
            seq,
            at,
            actor,
            kind,
            data,
            hash,
            occurred_at: message.map(|m| m.occurred_at.unwrap_or(at)),
            attachments: message
                .filter(|m| !m.attachments.is_empty())
                .and_then(|m| serde_json::to_value(&m.attachments).ok()),
            sent_order: message.and_then(|_| waiting.sent_order()),
            ..NewEvent::default()
        };
        if let Some(message) = message {
            event.with_message(&message.text, &message.raw, waiting.words_at);
        }
        self.writes.events.push(event);
        Ok(self.writes.events.len() - 1)
    }

    /// Something to tell the staff: now while the office is open or when it cannot wait, else at
    /// the next opening.
    fn effect(
        &mut self,
        waiting: &Incoming,
        row: usize,
        kind: &'static str,
        urgent: bool,
        from: DateTime<Utc>,
    ) {
        let Incoming { office, received_at, .. } = waiting;
        let not_before = if urgent { *received_at } else { office.staff_told_from(from) };
        let event = &mut self.writes.events[row];
        event.effect = Some(kind);
        event.effect_urgent = Some(urgent);
        event.effect_not_before = Some(not_before);
        self.committed.effects |= not_before <= *received_at;
        self.committed.urgent |= urgent;
    }

    /// Carries the chains' ends to the rows of their tickets, and what is locked into the order of
    /// the locks.
    pub(super) fn finish(mut self) -> (Writes<'a>, Committed) {
        let writes = &mut self.writes;
        for ((office, year), (before, count)) in &self.numbers {
            writes.numbers.office.push(office.0);
            writes.numbers.year.push(*year);
            writes.numbers.last.push(before.last);
            writes.numbers.turns.push(before.turns);
            writes.numbers.count.push(*count);
        }
        for ((office, ticket), head) in self.heads {
            let Contact { name, phone } = head.contact;
            match head.grows {
                Grows::New(row) => {
                    let new = &mut writes.tickets[row];
                    new.urgency = if head.urgent { 0 } else { 1 };
                    new.events = head.events;
                    new.chain = head.chain.0;
                    new.citizen_name = name.or(new.citizen_name.take());
                    new.citizen_phone = phone.or(new.citizen_phone.take());
                    if is_placeholder(&new.problem) {
                        new.problem = head.problem.unwrap_or(std::mem::take(&mut new.problem));
                    }
                }
                Grows::Open(was) => {
                    writes.grown.office.push(office.0);
                    writes.grown.ticket.push(ticket.as_i64());
                    writes.grown.urgency.push(if head.urgent { 0 } else { 1 });
                    writes.grown.was.push(was);
                    writes.grown.events.push(head.events);
                    writes.grown.chain.push(head.chain.0);
                    writes.grown.name.push(name);
                    writes.grown.phone.push(phone);
                    writes.grown.problem.push(head.problem);
                    writes.grown.growth_told_at.push(head.growth_told_at);
                    writes.grown.came_at.push(head.came_at);
                }
            }
        }
        (self.writes, self.committed)
    }
}

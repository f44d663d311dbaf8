//! Two matters in one ticket, and one matter in two.

use super::{Deed, DeskError, Done, Found};
use crate::{
    domain::{
        chain::{Entry, Link, START},
        event::{Actor, Happened},
        id::OfficeId,
        ladder::timers_ahead,
        level::Level,
        promise::promise,
        register::RegisterNumber,
        ticket::{Outcome, State},
        timer::TimerKind,
    },
    intake::first_words,
    store::{
        self, StoreError,
        intake::{Arrival, Basis, NewEvent, NewTicket, Numbers, RegisterStands, Writes, words_at},
    },
};
use chrono::{DateTime, Datelike, Utc};
use intake_contract::{Attachment, ChannelKind, china};
use sha2::{Digest, Sha256};

/// The source of messages that were copied into a ticket of their own; their identity there is the
/// ticket that they came to and their number in it, so that none is registered twice.
const SOURCE: &str = "split";

/// Registers some of a ticket's messages as a matter of its own, with the next number of the
/// register. Its dates are those that it would have had: from when the earliest of these messages
/// came. Who answers for the one answers for the other (R7.e). The messages stay where they are and
/// are copied; what the citizen writes from now on goes where it went before.
///
/// # Errors
/// [`DeskError`].
pub async fn split(deed: Deed<'_>, messages: &[i32]) -> Result<Done, DeskError> {
    let mut chosen = messages.to_vec();
    chosen.sort_unstable();
    chosen.dedup();
    let (office, prefix) = (deed.office, &deed.office.prefix);
    let now = deed.clock.now();
    let year = now.with_timezone(&china()).year();
    // The register before the ticket: the order of locks.
    let mut transaction = deed.pool.begin().await?;
    store::intake::begin_years(&mut transaction, &[(office.id, year)]).await?;
    let source_id = deed.ticket.display(prefix);
    let arrival = Arrival {
        office: office.id,
        source: SOURCE,
        source_id: &source_id,
        thread: None,
        year,
        taken_by: None,
    };
    store::intake::lock(&mut transaction, std::slice::from_ref(&arrival)).await?;
    let seen = store::intake::look(&mut transaction, &[arrival]).await?;
    let register = seen.first().and_then(|seen| seen.register);
    let RegisterStands { last, turns } = register.unwrap_or_default();
    let new = RegisterNumber::new(year, last + 1)
        .map_err(|_| StoreError::BadRow { table: "register", column: "last" })?;

    let locked = deed.lock(&mut transaction).await?;
    let same =
        |h: &Happened| matches!(h, Happened::SpunOff { messages, .. } if *messages == chosen);
    let mut work = match deed.go_on(transaction, locked, same).await? {
        Found::New(work) => work,
        Found::Again(Happened::SpunOff { into, .. }) => {
            let made = RegisterNumber::parse(&into, prefix).ok();
            return Ok(Done { made, ..Done::default() });
        }
        Found::Again(_) => return Ok(Done::default()),
    };
    let happened = work.locked.ticket.spin_off(&new.display(prefix), chosen.clone())?;
    let db = &mut work.transaction;
    let originals = store::ticket::originals(db, office.id, deed.ticket, &chosen).await?;
    if originals.is_empty() || originals.len() != chosen.len() {
        return Err(DeskError::NoMessage);
    }
    if store::ticket::message_count(db, office.id, deed.ticket).await? == originals.len() as i64 {
        return Err(DeskError::NothingStays);
    }
    let before = store::ticket::happened_after(db, office.id, deed.ticket, 0).await?;
    let taken = before.iter().any(|(_, happened)| match happened {
        Some(Happened::SpunOff { messages, .. }) => messages.iter().any(|seq| chosen.contains(seq)),
        _ => false,
    });
    if taken {
        return Err(DeskError::AlreadySplit);
    }
    let row = store::queue::by_number(db, office.id, deed.ticket).await?;
    let row = row.ok_or(DeskError::NoTicket)?;

    let came = originals.iter().map(|one| one.received_at).min().unwrap_or(now);
    let said = originals.iter().map(|one| one.occurred_at).min().unwrap_or(came);
    // As at intake: a recording was said when it was recorded, everything else when it came.
    let said = if row.channel == ChannelKind::Hotline { said.min(came) } else { came };
    let promise = promise(&office.calendar, came, said);
    let urgent = originals.iter().any(|one| office.policy.sounds_urgent(&one.text));
    let first = &originals[0];
    let attachments: Vec<Attachment> = first
        .attachments
        .clone()
        .and_then(|stored| serde_json::from_value(stored).ok())
        .unwrap_or_default();
    let accountable = work.locked.ticket.accountable;
    let mut trail = Trail {
        office: office.id,
        ticket: new,
        now,
        by: deed.by,
        events: Vec::new(),
        chain: START,
    };
    let identities: Vec<String> =
        originals.iter().map(|one| format!("{source_id}/{}", one.seq)).collect();
    for (place, (one, identity)) in originals.iter().zip(&identities).enumerate() {
        let digest = hex::encode(Sha256::digest(&one.raw));
        let kept = match place {
            0 => Happened::Registered {
                channel: row.channel,
                digest,
                accepted_at: promise.accepted_at,
                follow_up_at: promise.follow_up_at,
                due_at: promise.due_at,
                provisional: promise.provisional,
                urgent,
                scene: None,
            },
            _ => {
                let (channel, urgent, page, contact) = (row.channel, false, false, false);
                Happened::MessageReceived { channel, digest, urgent, page, contact }
            }
        };
        let event = trail.append(&kept);
        event.occurred_at = Some(one.occurred_at);
        event.attachments.clone_from(&one.attachments);
        event.with_message(&one.text, &one.raw, words_at(&one.text, &one.raw));
        event.source = Some(SOURCE);
        event.source_id = Some(identity);
        event.digest = Some(Sha256::digest(&one.raw).into());
        event.appended = Some(place > 0);
        event.follow_up_at = promise.follow_up_at;
        event.due_at = Some(promise.due_at);
        event.provisional = Some(promise.provisional);
    }
    trail.append(&Happened::SpunOffFrom { from: source_id.clone() });
    if let Some(by) = accountable {
        trail.append(&Happened::Claimed { by });
    }
    let ticket = NewTicket {
        office_id: office.id.0,
        ticket: new.as_i64(),
        channel: row.channel.as_str(),
        state: if accountable.is_some() { "accepted" } else { "registered" },
        urgency: if urgent { 0 } else { 1 },
        problem: first_words(&first.text, &attachments),
        citizen_name: row.citizen_name.clone(),
        citizen_phone: row.citizen_phone.clone(),
        // It stands beside the one that the citizen's messages grow: see `spun_off`.
        thread: None,
        registered_at: came,
        accepted_at: promise.accepted_at,
        follow_up_at: promise.follow_up_at,
        warn_at: office.calendar.warn_at(promise.due_at),
        due_at: promise.due_at,
        provisional: promise.provisional,
        needs_year: promise.needs_year,
        calendar_version: office.calendar_version,
        accountable: accountable.map(|id| id.0),
        events: trail.events.len() as i32,
        chain: trail.chain.0,
    };
    let numbers = Numbers {
        office: vec![office.id.0],
        year: vec![year],
        last: vec![last],
        turns: vec![turns],
        count: vec![1],
    };
    let writes =
        Writes { numbers, tickets: vec![ticket], events: trail.events, ..Writes::default() };
    store::intake::write(db, &writes, Basis::Seen).await?;
    let seqs: Vec<(i32, i32)> =
        originals.iter().enumerate().map(|(at, one)| (one.seq, at as i32 + 1)).collect();
    store::media::copy(db, office.id, (deed.ticket, new), &seqs).await?;
    store::ticket::spun_off(db, office.id, new, deed.ticket).await?;
    // What is past by now is no more to be reminded of; the limit itself is, at once.
    store::timer::cancel_all(db, office.id, new).await?;
    let mut timers = timers_ahead(&office.calendar, Level::Duty, promise.due_at, now);
    timers.extend(promise.follow_up_at.filter(|at| *at > now).map(|at| (TimerKind::FollowUp, at)));
    let armed = store::timer::arm(db, office.id, new, &timers).await?;
    let said = format!(
        "您在 {source_id} 里说到的另一件事，已单独登记，编号 {}，分开办理。",
        new.display(prefix)
    );
    let data = serde_json::json!({ "from": source_id, "tell_citizen": true, "text": said });
    store::ticket::tell(db, (office.id, new), "spun_off", false, &data, (now, now)).await?;
    work.write(&happened).await?;
    work.done.timers.extend(armed);
    work.done.made = Some(new);
    work.commit().await
}

/// The trail of a new ticket.
struct Trail<'a> {
    office: OfficeId,
    ticket: RegisterNumber,
    now: DateTime<Utc>,
    by: &'a Actor,
    events: Vec<NewEvent<'a>>,
    chain: Link,
}

impl<'a> Trail<'a> {
    fn append(&mut self, happened: &Happened) -> &mut NewEvent<'a> {
        let (kind, data) = happened.stored();
        let (office, actor) = (self.office, self.by.stored());
        let seq = self.events.len() as i32 + 1;
        let (ticket, at) = (self.ticket, self.now);
        let entry = Entry { office, ticket, seq, at, actor: &actor, kind: &kind, data: &data };
        self.chain = entry.link(self.chain);
        let event = NewEvent {
            office_id: office.0,
            ticket: ticket.as_i64(),
            seq,
            at,
            hash: self.chain.0,
            actor,
            kind,
            data,
            ..NewEvent::default()
        };
        self.events.push(event);
        let last = self.events.len() - 1;
        &mut self.events[last]
    }
}

/// Ends a ticket in favour of another one, which is the same matter: it is struck off as a duplicate,
/// the other one's trail says so, and its page shows the messages. What the citizen writes from now
/// on goes there, unless that one grows by the messages of somebody else. Who joins what nobody has
/// taken up has received it (R7.e).
///
/// # Errors
/// [`DeskError`].
pub async fn join(deed: Deed<'_>, into: &str) -> Result<Done, DeskError> {
    let (office, prefix) = (deed.office, &deed.office.prefix);
    let other = RegisterNumber::parse(into, prefix).map_err(|_| DeskError::NoOther)?;
    if other == deed.ticket {
        return Err(DeskError::SameTicket);
    }
    let (from, into) = (deed.ticket.display(prefix), other.display(prefix));
    // The lower number first: the order of locks.
    let mut transaction = deed.pool.begin().await?;
    let (locked, there) = if other < deed.ticket {
        let there = store::ticket::lock(&mut transaction, office.id, other).await?;
        (deed.lock(&mut transaction).await?, there)
    } else {
        let locked = deed.lock(&mut transaction).await?;
        (locked, store::ticket::lock(&mut transaction, office.id, other).await?)
    };
    let mut there = there.ok_or(DeskError::NoOther)?;
    let same = |h: &Happened| match h {
        Happened::Resolved { outcome: Outcome::Duplicate { of }, .. } => *of == into,
        _ => false,
    };
    let Found::New(mut work) = deed.go_on(transaction, locked, same).await? else {
        return Ok(Done::default());
    };
    if let (State::Registered, Actor::Staff(by)) = (&work.locked.ticket.state, deed.by) {
        let happened = work.locked.ticket.claim(*by)?;
        work.write(&happened).await?;
    }
    let took_in = there.ticket.take_in(&from).map_err(|_| DeskError::OtherEnded)?;
    let opinion = format!("与{into}是同一件事，并入{into}办理。");
    let answer =
        format!("您反映的{from}与{into}是同一件事，已并入{into}一起办理，请以{into}为准。");
    let outcome = Outcome::Duplicate { of: into.clone() };
    let resolved = work.locked.ticket.resolve(outcome, &opinion, &answer)?;
    // Whoever waits to be called back waits there; before the result ends their waiting.
    store::call::hand_on(&mut work.transaction, office.id, (deed.ticket, other)).await?;
    work.write(&resolved).await?;
    let closed = work.locked.ticket.close(Some(&format!("并入{into}")))?;
    work.write(&closed).await?;
    work.stop_timers().await?;
    let data = serde_json::json!({ "into": into, "tell_citizen": true, "text": answer });
    work.tell_citizen("joined", &data).await?;
    let (now, opens) = (work.now, work.opens());
    let db = &mut work.transaction;
    store::ticket::write(db, &mut there, deed.by.clone(), &took_in, now).await?;
    store::ticket::take_over(db, office.id, other, &work.locked).await?;
    let data = serde_json::json!({});
    store::ticket::tell(db, (office.id, other), "took_in", false, &data, (now, opens)).await?;
    work.commit().await
}

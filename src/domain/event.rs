//! What can happen to a ticket (RD4.2). Stored as `kind` and `data`; only ever appended.

use super::{
    call_back::Answer,
    id::{StaffId, UnitId},
    level::Level,
    ticket::{Cause, Closing, Evaluation, Outcome},
};
use chrono::{DateTime, Utc};
use intake_contract::ChannelKind;
use serde::{Deserialize, Serialize};

/// An event's particulars. New kinds may come; a stored kind keeps its meaning for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum Happened {
    /// R7.1: entered in the register, with its first message.
    Registered {
        /// Where it came in.
        channel: ChannelKind,
        /// SHA-256 of the original, in hex.
        digest: String,
        /// R6: when the limits start to run.
        accepted_at: DateTime<Utc>,
        /// R5.2.
        follow_up_at: Option<DateTime<Utc>>,
        /// Level 1's limit.
        due_at: DateTime<Utc>,
        /// The date rests on an unannounced calendar.
        provisional: bool,
        /// RD3.2.
        urgent: bool,
        /// The QR code by which the citizen came: which counter, which township.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scene: Option<String>,
    },
    /// The citizen said more.
    MessageReceived {
        /// Where.
        channel: ChannelKind,
        /// SHA-256 of the original, in hex.
        digest: String,
        /// RD3.2: these words made the matter an emergency.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        urgent: bool,
        /// On the citizen's page of the ticket; the channel is then the ticket's own.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        page: bool,
        /// R7.2: they gave a name or a telephone for the form.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        contact: bool,
    },
    /// R7.e: the first receiver; answers for the matter to the end.
    Claimed {
        /// Who.
        by: StaffId,
    },
    /// What triage found (R7.a, R7.b, R7.c).
    Triaged {
        /// Which of the three.
        cause: Cause,
    },
    /// Dispatched to a unit.
    Referred {
        /// To whom.
        unit: UnitId,
    },
    /// R5.2: the office opened; work on it starts.
    FollowUpDue {
        /// The timer's generation.
        generation: i32,
    },
    /// The limit falls on this day.
    LimitNear {
        /// The timer's generation.
        generation: i32,
        /// The limit.
        due_at: DateTime<Utc>,
    },
    /// R6: went up a level.
    Raised {
        /// From.
        from: Level,
        /// To.
        to: Level,
        /// The new level's limit.
        due_at: DateTime<Utc>,
        /// The date rests on an unannounced calendar.
        provisional: bool,
        /// The opinion with which an officer handed it up; `None` when the limit did it.
        opinion: Option<String>,
        /// When it entered the level: the instant of the limit. `None` in old events: then when
        /// the event was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entered_at: Option<DateTime<Utc>>,
    },
    /// R6.5: the last limit passed.
    Overdue {
        /// The timer's generation.
        generation: i32,
    },
    /// A date moved because the calendar changed (scheduling.md A7.6).
    DateMoved {
        /// Which timer.
        timer: String,
        /// Before.
        from: DateTime<Utc>,
        /// After.
        to: DateTime<Utc>,
        /// The calendar's version now.
        calendar_version: i32,
        /// Whether the new date is provisional.
        provisional: bool,
    },
    /// The calendar would move a date earlier than is fair; it was kept for a person to decide.
    DateKept {
        /// The date in force.
        kept: DateTime<Utc>,
        /// What the calendar says now.
        computed: DateTime<Utc>,
        /// The calendar's version now.
        calendar_version: i32,
    },
    /// The citizen has been asked for material and the matter waits.
    AwaitingCitizen {
        /// What is missing: everything, at once (R7.a 一次性告知).
        missing: String,
        /// By when.
        until: DateTime<Utc>,
    },
    /// The citizen asked to talk to a person (人工).
    PersonWanted,
    /// The citizen says that it is about a matter that was closed.
    SameMatter {
        /// Its number as it is printed.
        of: String,
    },
    /// The citizen sent a file, of which the channel brings the name only; they were told how else.
    FileNotTaken,
    /// R7.2: an officer put name and telephone right; what they are stands on the ticket alone.
    ContactCorrected,
    /// Every link to the citizen's page that was given out until now opens nothing more.
    LinksRevoked,
    /// Somebody tried to call the citizen back (R5.2).
    CalledBack {
        /// What came of it.
        answer: Answer,
        /// Tries that nobody answered, at different times (R7.d).
        tries: i32,
        /// When the next one is; `None` when there is none to come.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_try_at: Option<DateTime<Utc>>,
    },
    /// The date came by which the citizen was asked to bring what is missing, and it still waits.
    MaterialDue {
        /// The timer's generation.
        generation: i32,
    },
    /// Work goes on, and the limit runs on.
    Resumed {
        /// The limit now; `None` where none runs any more: it had passed before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due_at: Option<DateTime<Utc>>,
        /// From when the limits run now ([`super::promise::resumed`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runs_from: Option<DateTime<Utc>>,
        /// The date rests on an unannounced calendar.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        provisional: bool,
    },
    /// An officer wrote to the citizen.
    ToldCitizen {
        /// The words.
        text: String,
    },
    /// There is a result, and the citizen was told.
    Resolved {
        /// Which.
        outcome: Outcome,
        /// R7.2: the handling opinion.
        opinion: String,
        /// What the citizen was told; `None` in old events.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<String>,
    },
    /// R7.d: the citizen judged the result.
    Evaluated {
        /// How.
        evaluation: Evaluation,
        /// In the citizen's own words, where there are any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// RS2.1: struck off the register (销号).
    Closed {
        /// With what feedback.
        closing: Closing,
    },
    /// Taken up again under the same number.
    Reopened {
        /// Why.
        reason: String,
        /// The new limit.
        due_at: DateTime<Utc>,
        /// From when the limits run now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runs_from: Option<DateTime<Utc>>,
        /// The date rests on an unannounced calendar.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        provisional: bool,
    },
    /// Some of its messages are another matter, which has a number of its own now; they stay here.
    SpunOff {
        /// That number, as displayed.
        into: String,
        /// The messages, by the numbers of their events here.
        messages: Vec<i32>,
    },
    /// Registered by an officer from messages of another ticket, copied in their order.
    SpunOffFrom {
        /// That ticket's number, as displayed.
        from: String,
    },
    /// 保留录音: its recordings go by no rule.
    RecordingsHeld {
        /// Why.
        reason: String,
    },
    /// Its recordings go by the rule again.
    RecordingsReleased {
        /// Why.
        reason: String,
    },
    /// Recordings went by the rule of their source.
    RecordingsRemoved {
        /// The messages that they came with, by the numbers of their events.
        messages: Vec<i32>,
        /// The rule: so many days after closure.
        days: u32,
    },
    /// Another ticket is the same matter: it ended in favour of this one.
    TookIn {
        /// That ticket's number, as displayed.
        from: String,
    },
}

impl Happened {
    /// Splits into the stored form: the kind and the JSON text that the hash covers.
    #[must_use]
    pub fn stored(&self) -> (String, String) {
        // Serialising an enum of plain data cannot fail; were it to, the trail would say so.
        let value = serde_json::to_value(self).unwrap_or_default();
        let kind = value.get("kind").and_then(|kind| kind.as_str()).unwrap_or("unknown").to_owned();
        let data = value.get("data").map_or_else(|| "{}".to_owned(), ToString::to_string);
        (kind, data)
    }

    /// Reads the stored form; `None` for kinds of another version of the program.
    #[must_use]
    pub fn read(kind: &str, data: &str) -> Option<Self> {
        let data: serde_json::Value = serde_json::from_str(data).ok()?;
        let empty = data.as_object().is_some_and(serde_json::Map::is_empty);
        // A kind that has particulars now may have had none when it was stored.
        let whole = serde_json::json!({ "kind": kind, "data": data });
        serde_json::from_value(whole)
            .or_else(|error| match empty {
                true => serde_json::from_value(serde_json::json!({ "kind": kind })),
                false => Err(error),
            })
            .ok()
    }
}

/// Who made an event happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The person who reports.
    Citizen,
    /// One of the staff.
    Staff(StaffId),
    /// A program of the office, by the name of its token.
    Program(String),
    /// The gateway itself: a limit, an amendment.
    Gateway,
}

impl Actor {
    /// The database's form.
    #[must_use]
    pub fn stored(&self) -> String {
        match self {
            Self::Citizen => "citizen".to_owned(),
            Self::Staff(id) => format!("staff:{id}"),
            Self::Program(name) => format!("api:{name}"),
            Self::Gateway => "gateway".to_owned(),
        }
    }
}

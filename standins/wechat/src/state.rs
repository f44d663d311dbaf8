//! What the platform remembers.

use super::Shared;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// The account's templates: id, and the fields that a message must fill.
pub(crate) const TEMPLATES: [(&str, &[&str]); 2] = [
    (TEMPLATE_PROGRESS, &["character_string1", "thing2", "phrase3", "time4"]),
    (TEMPLATE_EVALUATE, &["character_string1", "thing2"]),
];
/// A template message on how the matter stands: `character_string1`, `thing2`, `phrase3`, `time4`.
pub const TEMPLATE_PROGRESS: &str = "TM-PROGRESS";
/// A template message that asks for an evaluation: `character_string1`, `thing2`.
pub const TEMPLATE_EVALUATE: &str = "TM-EVALUATE";
/// A subscription notice that needs a consent for each: `character_string1`, `thing2`.
pub const NOTICE: &str = "SUB-ONCE";
/// A subscription notice that needs one consent for all: `character_string1`, `thing2`.
pub const NOTICE_LONG_TERM: &str = "SUB-LONG-TERM";
pub(crate) const NOTICE_FIELDS: &[&str] = &["character_string1", "thing2"];

/// How an entry came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The citizen said it.
    Said,
    /// The citizen did it: tapped, followed, scanned.
    Did,
    /// In answer to a delivery.
    Passive,
    /// By custom/send.
    Custom,
    /// By template/send.
    Template,
    /// By subscribe/bizsend.
    Notice,
    /// The platform itself.
    System,
}

/// Something in a citizen's conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: DateTime<Utc>,
    /// How it came.
    pub how: How,
    /// The words.
    pub text: String,
    /// The picture, where it is one.
    pub picture: Option<String>,
    /// Options to tap: id and words.
    pub options: Vec<(String, String)>,
    /// Where it leads.
    pub link: Option<String>,
}

impl Entry {
    pub(crate) fn new(at: DateTime<Utc>, how: How, text: impl Into<String>) -> Self {
        Self { at, how, text: text.into(), picture: None, options: Vec::new(), link: None }
    }
}

/// How the platform behaves.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    /// Calls get no answer until this is off again.
    pub hangs: bool,
    /// Calls are answered `-1`.
    pub busy: bool,
    /// Messages are answered `45009`.
    pub quota_reached: bool,
    /// The caller's address is answered `40164`.
    pub address_refused: bool,
    /// The next calls are answered with these codes, one each; 0 lets a call through.
    pub next_codes: VecDeque<i64>,
    /// The receipts of all messages come before the calls are answered; otherwise of every second.
    pub receipts_first: bool,
    /// Whoever opens a page does so in a snapshot, as somebody who does not exist (§8).
    pub snapshot_users: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) until: DateTime<Utc>,
    pub(crate) left: u8,
}

#[derive(Debug)]
pub(crate) struct Citizen {
    pub(crate) openid: String,
    pub(crate) name: &'static str,
    pub(crate) follows: bool,
    /// Refuses template messages: the receipt says so.
    pub(crate) blocks: bool,
    /// Five in 48 hours after a message; three in a minute after a tap (§6.1).
    pub(crate) by_message: Option<Grant>,
    pub(crate) by_tap: Option<Grant>,
    /// Consents left, by template.
    pub(crate) consents: BTreeMap<String, u32>,
    pub(crate) talk: Vec<Entry>,
}

pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) until: DateTime<Utc>,
    pub(crate) stable: bool,
    /// Replaced before its time: another code than one whose time is over.
    pub(crate) killed: bool,
}

pub(crate) struct Stored {
    pub(crate) mime: &'static str,
    pub(crate) name: &'static str,
    pub(crate) bytes: Bytes,
    pub(crate) at: DateTime<Utc>,
}

pub(crate) struct Visit {
    pub(crate) openid: String,
    pub(crate) until: DateTime<Utc>,
    pub(crate) used: bool,
}

pub(crate) struct State {
    pub(crate) citizens: Vec<Citizen>,
    pub(crate) switches: Switches,
    pub(crate) tokens: Vec<Issued>,
    pub(crate) forced: Vec<DateTime<Utc>>,
    pub(crate) media: HashMap<String, Stored>,
    /// The last voice that was recorded on a page.
    pub(crate) page_voice: Option<String>,
    /// The menu, as it was given.
    pub(crate) menu: Value,
    /// QR codes: ticket, scene, until when.
    pub(crate) codes: Vec<(String, String, Option<DateTime<Utc>>)>,
    pub(crate) visits: HashMap<String, Visit>,
    /// Template messages by citizen and `client_msg_id`: the id given.
    pub(crate) sent: HashMap<(String, String), (u64, DateTime<Utc>)>,
    pub(crate) calls: HashMap<String, usize>,
    next_id: u64,
}

const CITIZENS: [(&str, &str); 4] = [
    ("oStandIn-WangFang", "王芳"),
    ("oStandIn-LiuYang", "刘洋"),
    ("oStandIn-ChenGuiying", "陈桂英"),
    ("oStandIn-ZhangWei", "张伟"),
];

impl State {
    pub(crate) fn new() -> Self {
        let citizen = |(openid, name): (&str, &'static str)| Citizen {
            openid: format!("{openid}-0000000001"),
            name,
            follows: true,
            blocks: false,
            by_message: None,
            by_tap: None,
            consents: BTreeMap::new(),
            talk: Vec::new(),
        };
        Self {
            citizens: CITIZENS.into_iter().map(citizen).collect(),
            switches: Switches::default(),
            tokens: Vec::new(),
            forced: Vec::new(),
            media: HashMap::new(),
            page_voice: None,
            menu: Value::Null,
            codes: Vec::new(),
            visits: HashMap::new(),
            sent: HashMap::new(),
            calls: HashMap::new(),
            // Beyond what a double holds exactly (§10, pitfall 12), and new at each start, or a
            // gateway that remembers would take the first messages for repeats.
            next_id: 3_557_254_367_000_000_000 + u64::from(rand::random::<u32>()) * 100_000,
        }
    }

    pub(crate) fn citizen(&mut self, openid: &str) -> Option<&mut Citizen> {
        self.citizens.iter_mut().find(|citizen| citizen.openid == openid)
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn keep(
        &mut self,
        mime: &'static str,
        name: &'static str,
        bytes: Bytes,
        at: DateTime<Utc>,
    ) -> String {
        let id = hex::encode(rand::random::<[u8; 32]>());
        self.media.insert(id.clone(), Stored { mime, name, bytes, at });
        id
    }

    /// A file, unless its three days are over.
    pub(crate) fn file(&self, id: &str, now: DateTime<Utc>) -> Option<&Stored> {
        self.media.get(id).filter(|stored| stored.at + TimeDelta::days(3) > now)
    }

    pub(crate) fn expire_tokens(&mut self, now: DateTime<Utc>) {
        for token in &mut self.tokens {
            token.until = token.until.min(now);
        }
    }

    /// §6.1, as the platform counts: 45015 when nothing is recent, 45047 when nothing is left.
    pub(crate) fn take(&mut self, openid: &str, now: DateTime<Utc>) -> Result<(), i64> {
        let citizen = self.citizen(openid).ok_or(40_003)?;
        if !citizen.follows {
            return Err(45_015);
        }
        let recent = |grant: &&mut Grant| grant.until > now;
        let mut open = false;
        for grant in [&mut citizen.by_tap, &mut citizen.by_message] {
            let Some(grant) = grant.as_mut().filter(recent) else { continue };
            open = true;
            if grant.left > 0 {
                grant.left -= 1;
                return Ok(());
            }
        }
        Err(if open { 45_047 } else { 45_015 })
    }
}

pub(crate) fn switch(shared: &Shared, change: impl FnOnce(&mut Switches)) {
    let hangs = {
        let mut state = shared.state();
        change(&mut state.switches);
        state.switches.hangs
    };
    shared.hangs.send_replace(hangs);
}

//! What a verified callback tells the gateway besides: windows that open, consents, receipts (§3,
//! §6).

use crate::{
    message::{Content, EventKind, Inbound},
    platform::{Act, Change},
    receipt::{Consented, Delivered},
};
use chrono::{DateTime, Utc};
use intake_contract::{ConsentChange, Correspondent, Delivery, Heard, LIMITS, News, clean_text};
use std::collections::HashMap;

/// What can be kept of a name that the platform gives, whatever it sends.
fn name(text: &str) -> String {
    clean_text(text).chars().take(LIMITS.source_id / 4).collect()
}

impl Inbound {
    /// What this callback of the account `source` tells. One event may change several consents, and
    /// within a second a citizen may answer for several templates: each has its identity by the
    /// template and the answer, and by its place among the same ones.
    #[must_use]
    pub fn heard(&self, source: &str, now: DateTime<Utc>) -> Vec<Heard> {
        let mut news = Vec::new();
        let mut whose = None;
        match Change::of(self) {
            Some(Change::Acted(Act::Message, _)) => news.push(News::Wrote),
            Some(Change::Acted(Act::Tap, _)) => news.push(News::Tapped),
            _ => {}
        }
        if let Content::Event(event) = &self.content {
            match (&event.kind, event.name.as_str()) {
                (EventKind::Unsubscribe, _) => news.push(News::Left),
                (EventKind::PrivacyChange { openid }, what) => {
                    whose = Some(openid.as_str()).filter(|openid| !openid.is_empty());
                    match what {
                        // The account itself is given up.
                        "user_authorization_cancellation" => news.push(News::Left),
                        "user_authorization_revoke" => news.push(News::TookBack),
                        _ => {}
                    }
                }
                _ => {}
            }
            let consents = event.consents().into_iter();
            news.extend(consents.map(|one| News::Consent {
                template_id: name(&one.template_id),
                change: match one.consented {
                    Consented::Given => ConsentChange::Given,
                    Consented::Declined | Consented::Restored => ConsentChange::Unchanged,
                    Consented::Revoked => ConsentChange::Revoked,
                },
            }));
            let receipts = event.receipts().into_iter();
            news.extend(receipts.map(|one| News::Delivered {
                message_id: one.msg_id.as_deref().map(name),
                template_id: one.template_id.as_deref().map(name),
                delivery: match one.delivered {
                    Delivered::Yes => Delivery::Arrived,
                    Delivered::Refused => Delivery::Refused,
                    Delivered::TooFrequent => Delivery::TooMany,
                    Delivered::Failed | Delivered::Otherwise(_) => Delivery::Failed,
                },
            }));
        }
        if news.is_empty() {
            return Vec::new();
        }
        // Several names long, and still an identity: what is cut off makes no two things one.
        let identity = match self.identity() {
            plain if plain.len() <= LIMITS.source_id && plain == clean_text(&plain) => plain,
            strange => format!("sha1:{}", crate::crypto::signature(&[&strange])),
        };
        let mut seen: HashMap<String, usize> = HashMap::new();
        news.into_iter()
            .map(|news| {
                let which = match &news {
                    News::Consent { template_id, change } => format!("{template_id}/{change:?}"),
                    News::Delivered { message_id, template_id, .. } => {
                        let part = |id: &Option<String>| id.clone().unwrap_or_default();
                        format!("{}/{}", part(message_id), part(template_id))
                    }
                    News::Wrote | News::Tapped | News::Left | News::TookBack => String::new(),
                };
                let place = seen.entry(which.clone()).or_default();
                *place += 1;
                Heard {
                    source: source.to_owned(),
                    identity: format!("{identity}/{which}/{place}"),
                    correspondent: Correspondent::new(name(whose.unwrap_or(&self.from))),
                    // Nobody acted later than now: a window must not be open for years.
                    at: self.created_at.map_or(now, |at| at.min(now)),
                    news,
                }
            })
            .collect()
    }
}

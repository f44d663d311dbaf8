//! A submission on its way into the register, with what can be read off it by itself. The task that
//! brings it reads it; the writer, for whom everybody waits, finds it done. (What was kept for its
//! words is read again when it is registered.)

use crate::{
    domain::contact::{self, Contact},
    offices::Office,
    store::intake::{Arrival, words_at},
};
use chrono::{DateTime, Datelike, Utc};
use intake_contract::{Attachment, AttachmentKind, ChannelKind, Submission, china};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What the writer takes.
pub(super) struct Incoming {
    pub(super) office: Arc<Office>,
    pub(super) submission: Submission,
    pub(super) received_at: DateTime<Utc>,
    /// Of the original, for the trail and for recognising a repeat with other content.
    pub(super) digest: [u8; 32],
    /// RD3.2.
    pub(super) alarms: bool,
    /// R7.2: what a chat's words give; asked for nothing.
    pub(super) given: Contact,
    /// The first words of the problem.
    pub(super) problem: String,
    /// Where the words stand in the original.
    pub(super) words_at: Option<i32>,
}

impl Incoming {
    pub(super) fn new(
        office: Arc<Office>,
        submission: Submission,
        received_at: DateTime<Utc>,
    ) -> Self {
        let Submission { text, raw, .. } = &submission;
        let given = match submission.channel {
            ChannelKind::Wechat => contact::recognise(text, false),
            _ => Contact::default(),
        };
        Self {
            received_at,
            digest: Sha256::digest(raw).into(),
            alarms: submission.urgent || office.policy.sounds_urgent(text),
            given,
            problem: first_words(text, &submission.attachments),
            words_at: words_at(text, raw),
            office,
            submission,
        }
    }

    /// What has to be known of it before it can be numbered.
    pub(super) fn arrival(&self) -> Arrival<'_> {
        Arrival {
            office: self.office.id,
            source: &self.submission.source,
            source_id: &self.submission.source_id,
            thread: self.submission.thread.as_deref(),
            year: year(self.received_at),
            taken_by: self.submission.taken_by.as_deref(),
        }
    }

    /// Where a message stands among those of its second: WeChat's identities begin with the
    /// platform's number, which grows (wechat.md §10).
    pub(super) fn sent_order(&self) -> Option<i64> {
        let wechat = self.submission.channel == ChannelKind::Wechat;
        self.submission.source_id.split('/').next().filter(|_| wechat)?.parse().ok()
    }
}

/// The year whose register a moment belongs to.
pub(super) fn year(at: DateTime<Utc>) -> i32 {
    at.with_timezone(&china()).year()
}

/// Of [`first_words`]: stands for what came without words.
pub(super) fn is_placeholder(problem: &str) -> bool {
    problem.starts_with('〔') && problem.ends_with('〕') && problem.chars().count() == 4
}

/// The first words of the problem, for lists; the message keeps all of them.
pub(crate) fn first_words(text: &str, attachments: &[Attachment]) -> String {
    const CHARS: usize = 48;
    let mut words = String::new();
    let mut count = 0;
    for part in text.split_whitespace() {
        let space = (!words.is_empty()).then_some(' ');
        for c in space.into_iter().chain(part.chars()) {
            if count == CHARS {
                words.push('…');
                return words;
            }
            words.push(c);
            count += 1;
        }
    }
    if words.is_empty() {
        let what = attachments.first().map(|attachment| match attachment.kind {
            AttachmentKind::Image => "〔图片〕",
            AttachmentKind::Voice => "〔语音〕",
            AttachmentKind::Video => "〔视频〕",
            AttachmentKind::Location => "〔位置〕",
            AttachmentKind::Link => "〔链接〕",
            AttachmentKind::File => "〔文件〕",
        });
        return what.unwrap_or_default().to_owned();
    }
    words
}

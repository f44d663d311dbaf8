//! What is said of calls, to officers.

use crate::store::call::Call;
use intake_hotline::{Caller, Outcome, Recording};

/// An outcome as the database has it.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Failed => "failed",
        Outcome::Blocked => "blocked",
        Outcome::Missed => "missed",
        Outcome::GaveUp => "gave_up",
        Outcome::Closed => "closed",
        Outcome::Silent => "silent",
        Outcome::TooShort => "too_short",
        Outcome::Answered => "answered",
        Outcome::MessageLeft => "message_left",
    }
}

/// How a call without a message ended.
#[must_use]
pub fn ended(call: &Call) -> &'static str {
    match call.facts.outcome {
        Some(Outcome::Failed) => "没有接通",
        Some(Outcome::Blocked) => "被电话系统拦截",
        Some(Outcome::Missed) => "没有人接听",
        Some(Outcome::GaveUp) => "没有留言就挂断了",
        Some(Outcome::Closed) => "非办公时间，没有留言",
        Some(Outcome::Silent) => "没有说话",
        Some(Outcome::TooShort | Outcome::MessageLeft) => "录音太短，听不出内容",
        Some(Outcome::Answered) => "已经接听",
        None => "没有留言",
    }
}

/// A message that was left.
pub(super) fn message(call: &Call, recording: &Recording) -> String {
    let mut said = match recording.ms {
        Some(ms) => format!("电话录音，时长 {} 秒。", ms / 1000),
        None => "电话录音。".to_owned(),
    };
    if recording.audio.is_none() {
        said.push_str("录音待到。");
    }
    add_doubts(&mut said, call);
    said
}

/// A call without a message.
pub(super) fn missed(call: &Call) -> String {
    let mut said = format!("未接来电，{}。", ended(call));
    add_doubts(&mut said, call);
    said
}

/// The number that came later.
pub(super) fn caller(call: &Call) -> String {
    let number = call.facts.caller.as_ref().and_then(Caller::dialled).unwrap_or_default();
    format!("电话系统补来了号码：{number}。")
}

/// Beside a recording.
pub(super) fn label(call: &Call, recording: &Recording) -> String {
    let callee = call.facts.callee.as_deref();
    let mut label = callee.map_or_else(|| "来电".to_owned(), |callee| format!("拨打 {callee}"));
    if let Some(ms) = recording.ms {
        label.push_str(&format!("，录音 {} 秒", ms / 1000));
    }
    label
}

fn add_doubts(said: &mut String, call: &Call) {
    match &call.facts.caller {
        Some(Caller::Anonymous) => said.push_str("对方未显示号码，无法回拨。"),
        None => said.push_str("电话系统还没有给出号码。"),
        Some(Caller::Known(_) | Caller::Raw(_)) => {}
    }
    if !call.facts.time_is_plausible(call.told_at) {
        said.push_str("来电时间与系统时间相差过大，以收到时间为准。");
    }
}

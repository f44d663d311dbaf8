//! A ticket's trail in words.

use super::media::Piece;
use crate::{
    domain::{
        call_back::Answer,
        event::Happened,
        ticket::{Cause, Closing, Outcome},
        timer::TimerKind,
    },
    store::{
        media::MediaRow,
        office::Unit,
        ticket::{EventRow, MessageRow, Whole},
    },
    wording,
};
use chrono::{DateTime, Utc};
use intake_contract::{Attachment, AttachmentKind};
use std::collections::BTreeMap;

/// One step of the story.
pub(super) struct Chapter {
    /// `said` for the citizen's words, `done` for everything else.
    pub(super) kind: &'static str,
    pub(super) who: String,
    pub(super) at: String,
    pub(super) at_exact: String,
    pub(super) title: String,
    pub(super) text: Option<String>,
    pub(super) attachments: Vec<Piece>,
    /// When it was said, where that is another time: messages that were copied from another ticket.
    pub(super) said_at: Option<String>,
    /// The number of the ticket that it is about.
    pub(super) about: Option<String>,
    /// What was said on that ticket, where it ended in favour of this one.
    pub(super) quotes: Vec<Quote>,
}

/// A message that stands on another ticket.
pub(super) struct Quote {
    pub(super) at: String,
    pub(super) at_exact: String,
    pub(super) text: String,
    pub(super) attachments: Vec<String>,
}

/// Tickets that ended in favour of this one, as displayed.
pub(super) fn taken_in(whole: &Whole) -> Vec<String> {
    let happened = whole.events.iter().filter_map(|e| Happened::read(&e.kind, &e.data));
    happened
        .filter_map(|happened| match happened {
            Happened::TookIn { from } => Some(from),
            _ => None,
        })
        .collect()
}

/// The story from the first event to the last; messages stand where they were received. `number` as
/// it stands in addresses.
pub(super) fn tell(
    whole: &Whole,
    media: &[MediaRow],
    number: &str,
    taken_in: &BTreeMap<String, Vec<MessageRow>>,
    units: &[Unit],
    now: DateTime<Utc>,
) -> Vec<Chapter> {
    let split: BTreeMap<i32, String> = spun_off(whole);
    let piece = |seq: i32, n: usize, one: &Attachment| {
        let row = media.iter().find(|row| row.seq == seq && usize::try_from(row.n) == Ok(n));
        match row {
            Some(row) => Piece::sent(row, number, attachment(one), now),
            None => Piece::said(attachment(one)),
        }
    };
    whole
        .events
        .iter()
        .map(|event| {
            let happened = Happened::read(&event.kind, &event.data);
            let message = whole.messages.iter().find(|message| message.seq == event.seq);
            let title = match &happened {
                Some(happened) => title(happened, units, now),
                None => format!("有一条新版本才认得的记录（{}）", event.kind),
            };
            let copied = message.filter(|_| event.actor.starts_with("staff:"));
            let words = message.map(|m| m.text.clone()).or_else(|| words(happened.as_ref()));
            let about = split.get(&event.seq).cloned().or_else(|| about(happened.as_ref()));
            let quoted = match &happened {
                Some(Happened::TookIn { from }) => taken_in.get(from),
                _ => None,
            };
            Chapter {
                kind: if message.is_some() { "said" } else { "done" },
                who: who(event),
                at: wording::moment(event.at, now),
                at_exact: wording::exact(event.at),
                title: match split.get(&event.seq) {
                    Some(_) => format!("{title}（已另立一件）"),
                    None => title,
                },
                text: words.filter(|text| !text.is_empty()),
                attachments: message
                    .map(|m| {
                        let numbered = m.attachments.iter().enumerate();
                        numbered.map(|(n, one)| piece(m.seq, n, one)).collect()
                    })
                    .unwrap_or_default(),
                said_at: copied
                    .filter(|m| m.occurred_at < event.at)
                    .map(|m| wording::moment(m.occurred_at, now)),
                about,
                quotes: quoted.into_iter().flatten().map(|m| quote(m, now)).collect(),
            }
        })
        .collect()
}

fn quote(message: &MessageRow, now: DateTime<Utc>) -> Quote {
    Quote {
        at: wording::moment(message.occurred_at, now),
        at_exact: wording::exact(message.occurred_at),
        text: message.text.clone(),
        attachments: message.attachments.iter().map(attachment).collect(),
    }
}

/// Which messages are a matter of their own by now, and under which number.
pub(super) fn spun_off(whole: &Whole) -> BTreeMap<i32, String> {
    let happened = whole.events.iter().filter_map(|e| Happened::read(&e.kind, &e.data));
    happened
        .filter_map(|happened| match happened {
            Happened::SpunOff { into, messages } => Some((into, messages)),
            _ => None,
        })
        .flat_map(|(into, messages)| messages.into_iter().map(move |seq| (seq, into.clone())))
        .collect()
}

/// What an officer wrote, at its full length.
fn words(happened: Option<&Happened>) -> Option<String> {
    match happened? {
        Happened::ToldCitizen { text } => Some(text.clone()),
        Happened::AwaitingCitizen { missing, .. } => Some(missing.clone()),
        Happened::Raised { opinion, .. } => opinion.clone(),
        Happened::Resolved { answer, .. } => answer.clone(),
        _ => None,
    }
}

fn about(happened: Option<&Happened>) -> Option<String> {
    match happened? {
        Happened::SpunOff { into, .. } => Some(into.clone()),
        Happened::SpunOffFrom { from } | Happened::TookIn { from } => Some(from.clone()),
        Happened::Resolved { outcome: Outcome::Duplicate { of }, .. } => Some(of.clone()),
        _ => None,
    }
}

fn who(event: &EventRow) -> String {
    match (event.actor.as_str(), &event.actor_name) {
        ("citizen", _) => "群众".to_owned(),
        ("gateway", _) => "系统".to_owned(),
        (_, Some(name)) => name.clone(),
        (actor, None) => match actor.strip_prefix("api:") {
            Some(program) => format!("接口 {program}"),
            None => "工作人员".to_owned(),
        },
    }
}

fn attachment(attachment: &Attachment) -> String {
    let what = match attachment.kind {
        AttachmentKind::Image => "照片",
        AttachmentKind::Voice => "录音",
        AttachmentKind::Video => "视频",
        AttachmentKind::Location => "位置",
        AttachmentKind::Link => "链接",
        AttachmentKind::File => "文件",
    };
    // Where it is, as words: whoever wrote it may lead anywhere, so that nothing here is to be clicked.
    let place = match attachment.kind {
        AttachmentKind::Location => format!("（坐标 {}）", attachment.reference),
        AttachmentKind::Link => format!("（{}）", attachment.reference),
        _ => String::new(),
    };
    match &attachment.label {
        Some(label) => format!("{what}：{label}{place}"),
        None => format!("{what}{place}"),
    }
}

fn title(happened: &Happened, units: &[Unit], now: DateTime<Utc>) -> String {
    let say = |at: &DateTime<Utc>| wording::moment(*at, now);
    let provisional = |is: &bool| if *is { "（暂定）" } else { "" };
    match happened {
        Happened::Registered { channel, follow_up_at, due_at, provisional: p, scene, .. } => {
            let starts = match follow_up_at {
                Some(at) => format!("{}开始办理", say(at)),
                None => "当时开始办理".to_owned(),
            };
            let scene = match scene {
                Some(scene) => format!("（扫码：{scene}）"),
                None => String::new(),
            };
            format!(
                "通过{}{scene}反映，登记编号；承诺{starts}，{}前办结{}",
                channel.label(),
                say(due_at),
                provisional(p)
            )
        }
        Happened::MessageReceived { channel, urgent, page, .. } => {
            let place = if *page { "查询页" } else { channel.label() };
            let urgent = if *urgent { "，列为紧急" } else { "" };
            format!("通过{place}补充{urgent}")
        }
        Happened::Claimed { .. } => "认领，首次接待，负责到底".to_owned(),
        Happened::Triaged { cause } => {
            format!("判定原因：{}", cause_label(*cause))
        }
        Happened::Referred { unit } => match units.iter().find(|known| known.id == *unit) {
            Some(unit) => format!("转办给{}", unit.name),
            None => "转办给股室".to_owned(),
        },
        Happened::FollowUpDue { .. } => "到了承诺的开始时间，提醒值班人员跟进".to_owned(),
        Happened::LimitNear { due_at, .. } => format!("提醒：{}到期", say(due_at)),
        Happened::Raised { to, due_at, provisional: p, opinion, .. } => {
            let how =
                if opinion.is_some() { "提请升级" } else { "到期未办结，自动升级" };
            format!(
                "{how}到 {} 级（{}），{}前办结{}",
                to.number(),
                to.label(),
                say(due_at),
                provisional(p)
            )
        }
        Happened::Overdue { .. } => "5 级也到期未办结，标记为逾期".to_owned(),
        Happened::DateMoved { timer, from, to, provisional: p, .. } => {
            let what =
                if timer == TimerKind::FollowUp.as_str() { "开始时间" } else { "办结期限" };
            if from == to {
                let now = if *p { "改为暂定" } else { "由暂定转为确定" };
                format!("{what}{}{now}", say(to))
            } else {
                format!(
                    "工作日历或期限规定变动，{what}由{}调整为{}{}",
                    say(from),
                    say(to),
                    provisional(p)
                )
            }
        }
        Happened::DateKept { kept, computed, .. } => format!(
            "工作日历或期限规定变动后应为{}，为不让期限突然提前，仍保留{}，请带班领导决定",
            say(computed),
            say(kept)
        ),
        Happened::AwaitingCitizen { until, .. } => {
            format!("一次性告知群众，请在{}前补来；期限暂停", say(until))
        }
        Happened::PersonWanted => "群众要求人工联系".to_owned(),
        Happened::SameMatter { of } => format!("群众说与已办结的 {of} 是一回事"),
        Happened::ContactCorrected => "更正了反映人的姓名、电话".to_owned(),
        Happened::FileNotTaken => {
            "群众发来文件，公众号收不到，已告知改发照片或在查询页上传".to_owned()
        }
        Happened::LinksRevoked => "作废了以前发给群众的查询链接".to_owned(),
        Happened::CalledBack { answer, tries, next_try_at } => {
            let again = next_try_at.as_ref().map(|at| format!("，{}再打", say(at)));
            let again = again.unwrap_or_default();
            match answer {
                Answer::Reached => "回拨：已接通".to_owned(),
                Answer::Busy => format!("回拨：占线{again}"),
                Answer::NoAnswer if next_try_at.is_none() => {
                    format!("回拨：无人接听，{tries} 次不同时间都没有接通")
                }
                Answer::NoAnswer => format!("回拨：无人接听（第 {tries} 次）{again}"),
                Answer::WrongNumber => "回拨：空号，或者不是本人".to_owned(),
                Answer::Again => "更正：上一次回拨记错了，重新等回拨".to_owned(),
            }
        }
        Happened::MaterialDue { .. } => "材料到期还没有补来，提醒负责人".to_owned(),
        Happened::Resumed { due_at: Some(due_at), provisional: p, .. } => {
            format!("材料已补，继续办理；期限接着算，{}前办结{}", say(due_at), provisional(p))
        }
        Happened::Resumed { .. } => "材料已补，继续办理".to_owned(),
        Happened::ToldCitizen { .. } => "回复群众".to_owned(),
        Happened::Resolved { outcome, opinion, .. } => {
            let outcome = match outcome {
                Outcome::ConditionallyAccepted { missing, until } => {
                    format!("容缺受理，{}前补齐：{missing}", say(until))
                }
                Outcome::Refused { basis } => format!("否定备案，依据：{basis}"),
                other => outcome_label(other).to_owned(),
            };
            format!("答复办结，{outcome}；办理意见：{opinion}")
        }
        Happened::Evaluated { evaluation, text } => match text {
            Some(text) => format!("群众评价：{}。{text}", evaluation.label()),
            None => format!("群众评价：{}", evaluation.label()),
        },
        Happened::Closed { closing } => match closing {
            Closing::Evaluated(_) => "销号".to_owned(),
            Closing::WithoutEvaluation(reason) => format!("销号（没有评价：{reason}）"),
        },
        Happened::Reopened { reason, due_at, provisional: p, .. } => {
            format!("重新办理：{reason}；期限重新算，{}前办结{}", say(due_at), provisional(p))
        }
        Happened::SpunOff { messages, .. } => {
            format!("发现是两件事，把 {} 条消息另立一件", messages.len())
        }
        Happened::SpunOffFrom { .. } => "从另一件拆出".to_owned(),
        Happened::RecordingsHeld { reason } => {
            format!("保留录音，不按规定删除；原因：{reason}")
        }
        Happened::RecordingsReleased { reason } => {
            format!("取消保留，录音按规定删除；原因：{reason}")
        }
        Happened::RecordingsRemoved { messages, days } => {
            format!("{} 条录音按规定删除（销号后保存 {days} 天）", messages.len())
        }
        Happened::TookIn { .. } => "另一件是同一件事，并入这里办理".to_owned(),
    }
}

pub(super) fn cause_label(cause: Cause) -> &'static str {
    match cause {
        Cause::Citizen => "群众方面",
        Cause::Staff => "工作人员方面",
        Cause::Objective => "客观方面",
    }
}

pub(super) fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Solved => "已解决",
        Outcome::Guided => "已引导到对应窗口",
        Outcome::ConditionallyAccepted { .. } => "容缺受理",
        Outcome::Refused { .. } => "否定备案",
        Outcome::OutOfScope => "不属于受理范围，已解释",
        Outcome::Withdrawn => "群众撤回",
        Outcome::Unreachable => "多次联系不上",
        Outcome::Duplicate { .. } => "与另一件重复",
    }
}

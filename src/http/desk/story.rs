//! A ticket's trail in words.

use crate::{
    domain::{
        event::Happened,
        ticket::{Cause, Closing, Outcome},
        timer::TimerKind,
    },
    store::{
        office::Unit,
        ticket::{EventRow, Whole},
    },
    wording,
};
use chrono::{DateTime, Utc};
use intake_contract::{Attachment, AttachmentKind};

/// One step of the story.
pub(super) struct Chapter {
    /// `said` for the citizen's words, `done` for everything else.
    pub(super) kind: &'static str,
    pub(super) who: String,
    pub(super) at: String,
    pub(super) at_exact: String,
    pub(super) title: String,
    pub(super) text: Option<String>,
    pub(super) attachments: Vec<String>,
}

/// The story from the first event to the last; messages stand where they were received.
pub(super) fn tell(whole: &Whole, units: &[Unit], now: DateTime<Utc>) -> Vec<Chapter> {
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
            Chapter {
                kind: if message.is_some() { "said" } else { "done" },
                who: who(event),
                at: wording::moment(event.at, now),
                at_exact: wording::exact(event.at),
                title,
                text: message.map(|m| m.text.clone()).filter(|text| !text.is_empty()),
                attachments: message
                    .map(|m| m.attachments.iter().map(attachment).collect())
                    .unwrap_or_default(),
            }
        })
        .collect()
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
        AttachmentKind::Image => "图片",
        AttachmentKind::Voice => "录音",
        AttachmentKind::Video => "视频",
        AttachmentKind::Location => "位置",
        AttachmentKind::Link => "链接",
        AttachmentKind::File => "文件",
    };
    match &attachment.label {
        Some(label) => format!("{what}:{label}"),
        None => what.to_owned(),
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
            let cause = match cause {
                Cause::Citizen => "群众方面",
                Cause::Staff => "工作人员方面",
                Cause::Objective => "客观方面",
            };
            format!("判定原因：{cause}")
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
                format!("工作日历变动，{what}由{}调整为{}{}", say(from), say(to), provisional(p))
            }
        }
        Happened::DateKept { kept, computed, .. } => format!(
            "工作日历变动后应为{}，为不让期限突然提前，仍保留{}，请带班领导决定",
            say(computed),
            say(kept)
        ),
        Happened::AwaitingCitizen { missing, until } => {
            format!("一次性告知群众补充：{missing}，{}前", say(until))
        }
        Happened::PersonWanted => "群众要求人工联系".to_owned(),
        Happened::Resumed => "材料已补，继续办理".to_owned(),
        Happened::Resolved { outcome, opinion } => {
            let outcome = match outcome {
                Outcome::Solved => "已解决",
                Outcome::Guided => "已引导到对应窗口",
                Outcome::ConditionallyAccepted { .. } => "容缺受理",
                Outcome::Refused { .. } => "否定备案",
                Outcome::OutOfScope => "不属于受理范围，已解释",
                Outcome::Withdrawn => "群众撤回",
                Outcome::Unreachable => "多次联系不上",
                Outcome::Duplicate { .. } => "与另一件重复",
            };
            format!("{outcome}；办理意见：{opinion}")
        }
        Happened::Evaluated { evaluation, text } => match text {
            Some(text) => format!("群众评价：{}。{text}", evaluation.label()),
            None => format!("群众评价：{}", evaluation.label()),
        },
        Happened::Closed { closing } => match closing {
            Closing::Evaluated(_) => "销号".to_owned(),
            Closing::WithoutEvaluation(reason) => format!("销号（没有评价：{reason}）"),
        },
        Happened::Reopened { reason, due_at } => {
            format!("重新办理：{reason}，{}前办结", say(due_at))
        }
    }
}

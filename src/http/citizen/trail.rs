//! A ticket's trail as the citizen may see it: what was done for them and what they did, without
//! names of staff and without what is written for the house.

use super::words::{outcome, outcome_detail};
use crate::{
    domain::{call_back::Answer, event::Happened, level::Level, ticket::Outcome, timer::TimerKind},
    store::ticket::{EventRow, Whole},
    wording::said,
};
use chrono::{DateTime, Utc};

/// One step.
pub(super) struct Step {
    pub(super) at: String,
    pub(super) title: String,
    pub(super) text: Option<String>,
    /// The office's own words to the citizen.
    pub(super) answer: bool,
}

/// From the newest to the first.
pub(super) fn tell(whole: &Whole, now: DateTime<Utc>) -> Vec<Step> {
    whole.events.iter().rev().filter_map(|event| step(event, whole, now)).collect()
}

fn step(event: &EventRow, whole: &Whole, now: DateTime<Utc>) -> Option<Step> {
    let of = |title: String, text: Option<String>, answer| {
        Some(Step { at: said(event.at, now), title, text, answer })
    };
    // What the office told, whichever version wrote it down: words for the citizen are under these
    // names, words for the house are not.
    let told = |field: &str| -> Option<String> {
        let data: serde_json::Value = serde_json::from_str(&event.data).ok()?;
        let text = data.get(field)?.as_str()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    if matches!(event.kind.as_str(), "told_citizen" | "said") {
        return told("text").and_then(|text| of("窗口答复您".to_owned(), Some(text), true));
    }
    let answer_by = |due_at: &DateTime<Utc>, provisional: bool| match provisional {
        true => "答复日期要等国务院公布放假安排后才能确定".to_owned(),
        false => format!("最晚{}前给您答复", said(*due_at, now)),
    };
    match Happened::read(&event.kind, &event.data)? {
        Happened::Registered { channel, .. } => {
            of(format!("收到您的反映（{}），已登记", channel.label()), None, false)
        }
        Happened::MessageReceived { .. } => {
            let message = whole.messages.iter().find(|message| message.seq == event.seq);
            let title = match message.map_or(0, |message| message.attachments.len()) {
                0 => "您补充了情况".to_owned(),
                files => format!("您补充了情况，带 {files} 个照片或文件"),
            };
            of(title, None, false)
        }
        Happened::Claimed { .. } => of("窗口已受理，由专人负责到底".to_owned(), None, false),
        Happened::Referred { .. } => of("已转交有关科室办理".to_owned(), None, false),
        Happened::Raised { to, due_at, provisional, .. } => {
            let whom = match to {
                Level::PartyGroup => "局党组",
                Level::Leadership | Level::Duty => "中心领导",
            };
            of(format!("已交{whom}研究，{}", answer_by(&due_at, provisional)), None, false)
        }
        Happened::Overdue { .. } => of("超过了答应您的日期，已报告上级领导".to_owned(), None, false),
        Happened::DateMoved { timer, from, to, provisional, .. } if from != to => {
            let title = if timer == TimerKind::FollowUp.as_str() {
                format!("放假安排或办理期限有变动，改为{}开始办理", said(to, now))
            } else {
                format!("放假安排或办理期限有变动，{}", answer_by(&to, provisional))
            };
            of(title, None, false)
        }
        Happened::AwaitingCitizen { missing, until } => {
            // What is asked now stands above, where it is looked for.
            let asked = whole.row.state == "awaiting_citizen" && last_of_kind(event, whole);
            let title = format!("请您在{}前补充材料", said(until, now));
            of(title, (!asked).then_some(missing), false)
        }
        Happened::Resumed { due_at: Some(due_at), provisional, .. } => {
            of(format!("材料收到，继续办理，{}", answer_by(&due_at, provisional)), None, false)
        }
        Happened::Resumed { .. } => of("材料收到，继续办理".to_owned(), None, false),
        Happened::SpunOff { into, .. } => {
            of(format!("您说到的另一件事已单独登记，编号 {into}"), None, false)
        }
        Happened::SpunOffFrom { from } => of(format!("由您的反映 {from} 分出"), None, false),
        Happened::Resolved { outcome: Outcome::Withdrawn, .. } => {
            of("您撤回了这件反映".to_owned(), None, false)
        }
        Happened::Resolved { outcome: o, .. } => {
            let text = told("answer").or_else(|| outcome_detail(&o, now));
            of(format!("办理结果：{}", outcome(&o)), text, true)
        }
        Happened::Evaluated { evaluation, text } => {
            of(format!("您的评价：{}", evaluation.label()), text, false)
        }
        Happened::Closed { .. } => of("已办结".to_owned(), None, false),
        Happened::Reopened { due_at, provisional, .. } => {
            of(format!("重新办理，{}", answer_by(&due_at, provisional)), None, false)
        }
        Happened::SameMatter { of: old } => {
            of(format!("您说和 {old} 是一件事，已记下"), None, false)
        }
        Happened::ContactCorrected => of("工作人员更正了您的姓名、电话".to_owned(), None, false),
        Happened::FileNotTaken => of("您发来的文件没有收到，请在这里上传".to_owned(), None, false),
        Happened::PersonWanted => of("您要求人工联系，已记下".to_owned(), None, false),
        Happened::CalledBack { answer, next_try_at, .. } => {
            let tried = match answer {
                Answer::Reached => return of("和您通了电话".to_owned(), None, false),
                Answer::Busy => "给您回电话，占线",
                Answer::NoAnswer => "给您回电话，没有人接",
                Answer::WrongNumber => "给您回电话，号码打不通或者不是本人",
                // What went before was a mistake of the house.
                Answer::Again => return None,
            };
            let then = match next_try_at {
                Some(at) => format!("；{}以后再打", said(at, now)),
                None => String::new(),
            };
            of(format!("{tried}{then}"), None, false)
        }
        // Work inside the house.
        Happened::Triaged { .. }
        | Happened::FollowUpDue { .. }
        | Happened::LimitNear { .. }
        | Happened::MaterialDue { .. }
        | Happened::LinksRevoked
        | Happened::RecordingsHeld { .. }
        | Happened::RecordingsReleased { .. }
        | Happened::RecordingsRemoved { .. }
        // Told above, by its kind.
        | Happened::ToldCitizen { .. }
        // Somebody else's words: that it is the same matter is told on the other one.
        | Happened::TookIn { .. }
        | Happened::DateMoved { .. }
        | Happened::DateKept { .. } => None,
    }
}

fn last_of_kind(event: &EventRow, whole: &Whole) -> bool {
    !whole.events.iter().any(|later| later.seq > event.seq && later.kind == event.kind)
}

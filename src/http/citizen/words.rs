//! What a citizen reads of a ticket: where it stands, what was promised and why.

use crate::{
    domain::{
        calendar::{Reason, Why},
        level::Level,
        ticket::{Outcome, State},
    },
    offices::Office,
    store::queue::QueueRow,
    wording::{self, said},
};
use chrono::{DateTime, NaiveDate, Utc};

/// How a matter ended.
pub(super) fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Solved => "已解决",
        Outcome::Guided => "已告诉您到哪个窗口办理",
        Outcome::ConditionallyAccepted { .. } => "已先受理，缺的材料可以后补",
        Outcome::Refused { .. } => "按规定不能办理",
        Outcome::OutOfScope => "不属于本窗口受理范围",
        Outcome::Withdrawn => "您已撤回",
        Outcome::Unreachable => "多次没有联系上您，先结束办理",
        Outcome::Duplicate { .. } => "与您的另一件反映合并办理",
    }
}

/// What the result needs to be understood by; `None` where its name says all.
pub(super) fn outcome_detail(outcome: &Outcome, now: DateTime<Utc>) -> Option<String> {
    match outcome {
        Outcome::ConditionallyAccepted { missing, until } => {
            Some(format!("请在{}前补交：{missing}", said(*until, now)))
        }
        Outcome::Refused { basis } => Some(format!("依据：{basis}")),
        Outcome::Duplicate { of } => Some(format!("编号 {of}")),
        _ => None,
    }
}

/// Where the matter stands, in one sentence.
pub(super) fn stands(state: &State, row: &QueueRow, now: DateTime<Utc>) -> String {
    match state {
        State::Registered if row.follow_up_at.is_some_and(|at| now < at) => {
            "已登记，窗口上班后开始办理。".to_owned()
        }
        State::Registered => "已登记，窗口正在安排人员办理。".to_owned(),
        State::Accepted | State::InProgress { .. } => match row.level {
            Level::Duty => "正在办理。".to_owned(),
            Level::Leadership => "正在办理，已交中心领导研究。".to_owned(),
            Level::PartyGroup => "正在办理，已交局党组研究。".to_owned(),
        },
        State::AwaitingCitizen { .. } => "需要您补充材料。".to_owned(),
        State::Resolved { outcome: Outcome::Withdrawn, .. } => "您已撤回，不再办理。".to_owned(),
        State::Resolved { outcome, .. } => {
            format!("有结果了：{}。请您评价。", self::outcome(outcome))
        }
        State::Evaluated { outcome, .. } => {
            format!("有结果了：{}。您已评价，谢谢您。", self::outcome(outcome))
        }
        State::Closed { outcome, .. } => format!("已办结：{}。", self::outcome(outcome)),
    }
}

/// In a list: where the matter stands, in a few words.
pub(super) fn stands_briefly(state: &str) -> &'static str {
    match state {
        "registered" => "已登记",
        "awaiting_citizen" => "需要您补充材料",
        "resolved" => "有结果了，请您评价",
        "evaluated" => "有结果了，您已评价",
        "withdrawn" => "您已撤回",
        "closed" => "已办结",
        _ => "正在办理",
    }
}

/// What was promised, and why that date.
pub(super) struct Promise {
    pub(super) starts: Option<String>,
    pub(super) answer: String,
    pub(super) why: Vec<String>,
}

/// The promise of what is still to be answered; `None` once it is, or while it waits for the citizen.
/// A date that rests on a calendar that nobody has announced is not told as a fact.
pub(super) fn promise(
    state: &State,
    (row, runs_from): (&QueueRow, Option<DateTime<Utc>>),
    office: &Office,
    now: DateTime<Utc>,
) -> Option<Promise> {
    if !state.is_pressing() {
        return None;
    }
    let starts = row.follow_up_at.filter(|at| *state == State::Registered && now < *at);
    let starts = starts.map(|at| match row.provisional {
        true => "我们上班后开始办理。".to_owned(),
        false => format!("我们{}开始办理。", said(at, now)),
    });
    if row.overdue || row.due_at <= now {
        let answer = "已超过答应您的日期，很抱歉。我们已报告上级领导，会尽快答复您。".to_owned();
        return Some(Promise { starts, answer, why: Vec::new() });
    }
    if row.provisional {
        let answer = "答复日期要等国务院公布放假安排后才能确定，我们会尽快办理。".to_owned();
        return Some(Promise { starts, answer, why: Vec::new() });
    }
    let answer = format!("最晚{}前给您答复。", said(row.due_at, now));
    let from = runs_from.unwrap_or(row.accepted_at);
    let why = office.calendar.why(from, row.level.number() as u8);
    // Where a person or an amendment kept another date, the calendar does not explain it.
    let why = match why.due.at == row.due_at {
        true => reasons(row, runs_from.is_some(), office, &why, now),
        false => Vec::new(),
    };
    Some(Promise { starts, answer, why })
}

/// Which days do not count, from receipt to the limit.
fn reasons(
    row: &QueueRow,
    moved: bool,
    office: &Office,
    why: &Why,
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut says = Vec::new();
    let counted = why.days.iter().filter(|day| day.counted.is_some()).count();
    let day = wording::day_in_sentence(why.received_day, now);
    // After a pause or a reopening the days are counted from another day.
    says.push(match moved {
        true => format!("期限暂停或者重新算过，相当于从{day}算起，当天不算，下一个工作日起算 {counted} 个工作日。"),
        false => format!("从{day}起算，当天不算，再数 {counted} 个工作日。"),
    });
    let came = if moved { why.received_day } else { wording::day_of(row.registered_at) };
    let before = came
        .iter_days()
        .take_while(|date| *date < why.received_day)
        .map(|date| office.calendar.day(date))
        .filter(|day| !day.working)
        .map(|day| (day.date, day.reason));
    let after = why.days.iter().filter(|day| day.counted.is_none());
    let skipped = before.chain(after.map(|day| (day.date, day.reason.clone())));
    // Days in a row with the same reason are one line.
    let mut runs: Vec<(NaiveDate, NaiveDate, Reason)> = Vec::new();
    for (date, reason) in skipped {
        match runs.last_mut() {
            Some((_, last, same)) if *same == reason && last.succ_opt() == Some(date) => {
                *last = date;
            }
            _ => runs.push((date, date, reason)),
        }
    }
    says.extend(runs.into_iter().map(|(first, last, reason)| {
        let is = if reason == Reason::Weekend { "是" } else { "" };
        if first == last {
            format!("{}{is}{reason}，不算。", wording::day_in_sentence(first, now))
        } else {
            format!(
                "{}到{}{is}{reason}，不算。",
                wording::day_in_sentence(first, now),
                wording::day_in_sentence(last, now)
            )
        }
    }));
    says
}

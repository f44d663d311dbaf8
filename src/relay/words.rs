//! What notices say. No citizen's name, telephone or words: these stay on the desk.

use crate::{
    domain::{register::RegisterNumber, ticket::Evaluation},
    offices::Office,
    store::{notice::Effect, reconcile::ClosedHours},
    wording,
};
use chrono::{DateTime, Utc};
use intake_contract::ChannelKind;
use std::collections::BTreeMap;

/// A notice's words.
pub(super) struct Said {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    pub(super) ticket: Option<RegisterNumber>,
    pub(super) urgent: bool,
}

/// Tickets that a digest names one by one; the rest is a number.
const NAMED: usize = 10;

pub(super) fn compose(office: &Office, effects: &[&Effect], now: DateTime<Utc>) -> Said {
    let urgent = effects.iter().any(|effect| effect.urgent);
    // What happened to one ticket several times is one line about it, the latest.
    let mut tickets: BTreeMap<RegisterNumber, Vec<&Effect>> = BTreeMap::new();
    for effect in effects {
        tickets.entry(effect.ticket).or_default().push(effect);
    }
    let mark = if urgent { "【紧急】" } else { "" };
    if let [(ticket, about)] = tickets.iter().collect::<Vec<_>>().as_slice() {
        let Some(effect) = about.last() else {
            return Said { title: String::new(), lines: Vec::new(), ticket: None, urgent };
        };
        return Said {
            title: format!("{mark}{}：{}", headline(about, now), ticket.display(&office.prefix)),
            lines: vec![facts(office, effect, now)],
            ticket: Some(**ticket),
            urgent,
        };
    }
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    for about in tickets.values() {
        *by_kind.entry(headline(about, now)).or_default() += 1;
    }
    let summary: Vec<String> =
        by_kind.iter().map(|(kind, count)| format!("{kind} {count} 件")).collect();
    let mut lines: Vec<String> = tickets
        .iter()
        .take(NAMED)
        .map(|(ticket, about)| {
            let facts = about.last().map(|effect| facts(office, effect, now)).unwrap_or_default();
            format!("{}（{}）{facts}", ticket.display(&office.prefix), headline(about, now))
        })
        .collect();
    if tickets.len() > NAMED {
        lines.push(format!("……共 {} 件，请到反映窗口系统查看。", tickets.len()));
    }
    Said { title: format!("{mark}{}", summary.join("，")), lines, ticket: None, urgent }
}

/// What came in by telephone while the office was closed; `None` where nothing did and nothing was
/// amiss.
pub(super) fn telephone(closed: &ClosedHours) -> Option<Said> {
    let ClosedHours { messages, missed, waiting, repaired, wrong } = *closed;
    let mut lines = Vec::new();
    if messages + missed > 0 {
        let waiting = match waiting {
            0 => "没有待回拨的".to_owned(),
            waiting => format!("待回拨 {waiting} 件，见“待回拨”"),
        };
        lines.push(format!("下班期间电话：留言 {messages} 通，未接 {missed} 通；{waiting}。"));
    }
    if repaired > 0 {
        lines.push(format!("电话对账：有 {repaired} 通当时没有收到，已经补上。"));
    }
    if wrong > 0 {
        lines.push(format!(
            "电话对账：有 {wrong} 处与电话系统对不上，没能补上，请管理员用 intake hotline reconcile 查看。"
        ));
    }
    let title = "下班期间的电话".to_owned();
    (!lines.is_empty()).then_some(Said { title, lines, ticket: None, urgent: false })
}

fn headline(about: &[&Effect], now: DateTime<Utc>) -> String {
    // The gravest of what happened to a ticket names it.
    const BY_GRAVITY: [(&str, &str); 16] = [
        ("overdue", "已逾期"),
        ("raised", "已升级"),
        ("date_kept", "期限待带班领导定"),
        ("half_closure", "期限当天半天停办"),
        ("evaluated", "群众不满意"),
        ("limit_near", "到期"),
        ("reopened", "重新办理"),
        ("material_due", "材料到期未补"),
        ("registered", "新反映"),
        ("call_citizen", "请打电话告诉群众"),
        ("follow_up", "待跟进"),
        ("person_wanted", "群众要求人工联系"),
        ("same_matter", "群众说与已办结的一件是同一件事"),
        ("withdrawn", "群众撤回"),
        ("grew", "群众补充"),
        ("took_in", "并入一件"),
    ];
    for (kind, words) in BY_GRAVITY {
        // The latest of its kind: that is the date in force.
        let Some(effect) = about.iter().rfind(|effect| effect.kind == kind) else { continue };
        if kind == "material_due" && effect.material_came {
            return "材料已补，待查看".to_owned();
        }
        if kind != "limit_near" {
            return words.to_owned();
        }
        // What is stored is read later: the date stands beside the word.
        let (due, today) = (wording::day_of(effect.due_at), wording::day_of(now));
        let day = wording::day(due, now);
        return if due == today {
            format!("今天（{day}）{words}")
        } else {
            format!("{day} {words}")
        };
    }
    "有变化".to_owned()
}

/// A7.7: a new limit on a day of which the office closed a half, for the lead on duty to decide.
pub(super) fn lands_in_half_closure(office: &Office, effect: &Effect) -> bool {
    matches!(effect.kind.as_str(), "registered" | "raised" | "reopened" | "half_closure")
        && office.calendar.in_half_closure(effect.due_at)
}

/// No 今天, no 明天: notices are kept, tried again, read the next morning.
fn facts(office: &Office, effect: &Effect, now: DateTime<Utc>) -> String {
    let said = |at: DateTime<Utc>| {
        format!("{} {}", wording::day(wording::day_of(at), now), wording::clock(at))
    };
    let channel = ChannelKind::parse(&effect.channel).map_or("", ChannelKind::label);
    if effect.kind == "material_due" {
        let level = effect.level.number();
        return format!("{channel}，{level} 级，期限暂停中；请继续办理、再联系群众，或答复办结");
    }
    // These matters have a result: their limit says nothing any more.
    match effect.kind.as_str() {
        "evaluated" => {
            let grade = effect.data.get("evaluation").and_then(|grade| grade.as_str());
            let grade = grade.and_then(Evaluation::parse).map_or("不满意", Evaluation::label);
            return format!("{channel}，{} 级，评价为{grade}，请到系统查看", effect.level.number());
        }
        "withdrawn" => return format!("{channel}，{} 级，已由群众撤回", effect.level.number()),
        _ => {}
    }
    let due = said(effect.due_at);
    let provisional = if effect.provisional { "（暂定）" } else { "" };
    let mut facts = format!("{channel}，{} 级，{due}前办结{provisional}", effect.level.number());
    let computed =
        effect.data.get("computed").and_then(|at| serde_json::from_value(at.clone()).ok());
    if let (true, Some(computed)) = (effect.kind == "date_kept", computed) {
        facts.push_str(&format!(
            "；按变动后的日历和期限规定应为{}前，请决定是否提前",
            said(computed)
        ));
    }
    if lands_in_half_closure(office, effect) {
        facts.push_str("；当天半天停办，请带班领导决定");
    }
    facts
}

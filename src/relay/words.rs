//! What notices say. No citizen's name, telephone or words: these stay on the desk.

use crate::{domain::register::RegisterNumber, offices::Office, store::notice::Effect, wording};
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
            title: format!("{mark}{}：{}", headline(about), ticket.display(&office.prefix)),
            lines: vec![facts(effect, now)],
            ticket: Some(**ticket),
            urgent,
        };
    }
    let mut by_kind: BTreeMap<&str, usize> = BTreeMap::new();
    for about in tickets.values() {
        *by_kind.entry(headline(about)).or_default() += 1;
    }
    let summary: Vec<String> =
        by_kind.iter().map(|(kind, count)| format!("{kind} {count} 件")).collect();
    let mut lines: Vec<String> = tickets
        .iter()
        .take(NAMED)
        .map(|(ticket, about)| {
            let facts = about.last().map(|effect| facts(effect, now)).unwrap_or_default();
            format!("{}（{}）{facts}", ticket.display(&office.prefix), headline(about))
        })
        .collect();
    if tickets.len() > NAMED {
        lines.push(format!("……共 {} 件，请到反映窗口系统查看。", tickets.len()));
    }
    Said { title: format!("{mark}{}", summary.join(",")), lines, ticket: None, urgent }
}

fn headline(about: &[&Effect]) -> &'static str {
    // The gravest of what happened to a ticket names it.
    const BY_GRAVITY: [(&str, &str); 6] = [
        ("overdue", "已逾期"),
        ("raised", "已升级"),
        ("limit_near", "今天到期"),
        ("registered", "新反映"),
        ("follow_up", "待跟进"),
        ("grew", "群众补充"),
    ];
    BY_GRAVITY
        .iter()
        .find(|(kind, _)| about.iter().any(|effect| effect.kind == *kind))
        .map_or("有变化", |(_, words)| words)
}

fn facts(effect: &Effect, now: DateTime<Utc>) -> String {
    let channel = ChannelKind::parse(&effect.channel).map_or("", ChannelKind::label);
    let due = wording::moment(effect.due_at, now);
    let provisional = if effect.provisional { "（暂定）" } else { "" };
    format!("{channel}，{} 级，{due}前办结{provisional}", effect.level)
}

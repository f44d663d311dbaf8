//! What a message asks for, as far as its form tells: a statement, a greeting, a command (§10).
//!
//! Commands are matched on the whole text only: 「我要查进度，社保卡办了三个月」 states something.

use crate::message::{Event, EventKind, Message};
use intake_contract::{Command, Meaning, clean_text};

/// What the text as a whole asks for, without marks around it.
fn command(text: &str) -> Option<Command> {
    Some(match text {
        "我要反映" => Command::Report,
        "新诉求" | "新的诉求" | "新反映" | "新问题" => Command::NewMatter,
        "进度" | "查进度" | "查询进度" | "进度查询" | "办理进度" | "查询" => {
            Command::Progress
        }
        "评价" | "我要评价" => Command::Evaluate,
        "撤回" | "取消" | "撤销" | "我要撤回" => Command::Withdraw,
        "人工" | "人工服务" | "转人工" | "人工客服" | "人工电话" => {
            Command::Person
        }
        "帮助" | "帮助信息" | "help" | "?" => Command::Help,
        _ => return None,
    })
}

/// What an event asks for; `None` where there is nothing to remember of it.
pub(crate) fn of_event(event: &Event) -> Option<Command> {
    /// The platform's limit, in characters.
    const SCENE: usize = 64;
    let arrived = |scene: &str, follows| {
        let scene: String = clean_text(scene).trim().chars().take(SCENE).collect();
        (!scene.is_empty()).then_some(Command::Arrived { scene, follows })
    };
    match &event.kind {
        EventKind::Click => menu(&event.key),
        EventKind::Scan { .. } => arrived(&event.key, false),
        EventKind::Subscribe { scene, .. } => arrived(scene.as_deref()?, true),
        _ => None,
    }
}

/// What a menu entry's key asks for; `None` for keys of somebody else.
fn menu(key: &str) -> Option<Command> {
    Some(match key {
        "REPORT" => Command::Report,
        "NEW" => Command::NewMatter,
        "PROGRESS" => Command::Progress,
        "EVALUATE" => Command::Evaluate,
        "WITHDRAW" => Command::Withdraw,
        "PERSON" => Command::Person,
        "HELP" => Command::Help,
        _ => return None,
    })
}

/// What a message asks for.
pub(crate) fn of(message: &Message) -> Meaning {
    match message {
        Message::Text { menu_id: Some(id), .. } if id.contains('/') => {
            Meaning::Command(Command::Choice(id.clone()))
        }
        Message::Text { content, .. } => of_text(content),
        // Spoken or shown: it can state anything, and nobody here can tell that it does not.
        Message::Voice { .. } | Message::Video { .. } => Meaning::Statement,
        Message::Image { .. } | Message::Location { .. } | Message::Link { .. } => Meaning::Bare,
        Message::File { .. } => Meaning::Command(Command::File),
    }
}

fn of_text(text: &str) -> Meaning {
    let around =
        |c: char| c.is_whitespace() || "，。！!~～、；;：:“”\"「」【】[]()（）.".contains(c);
    let plain = text.trim_matches(around);
    // No command is longer.
    if plain.len() <= LONGEST_PHRASE {
        let plain = plain.replace('？', "?").to_lowercase();
        if let Some(command) = command(plain.strip_prefix('#').unwrap_or(&plain)) {
            return Meaning::Command(command);
        }
    }
    if is_greeting(text) { Meaning::Greeting } else { Meaning::Statement }
}

/// Of a command or a greeting, in bytes, with what may stand around it.
const LONGEST_PHRASE: usize = 30;

const GREETINGS: [&str; 33] = [
    "你好",
    "您好",
    "你好啊",
    "您好啊",
    "你们好",
    "大家好",
    "在吗",
    "在么",
    "在不在",
    "有人吗",
    "有人在吗",
    "早上好",
    "上午好",
    "中午好",
    "下午好",
    "晚上好",
    "早",
    "嗨",
    "哈喽",
    "喂",
    "hi",
    "hello",
    "hey",
    "谢谢",
    "谢谢您",
    "多谢",
    "好的",
    "好",
    "嗯",
    "收到",
    "ok",
    "请问",
    "打扰了",
];

/// What the platform delivers instead of a sticker.
const UNDELIVERED: &str = "【收到不支持的消息类型，暂无法显示】";

/// A greeting, thanks, a sticker (`[微笑]`, emoji), marks, or a bare number: opens nothing.
fn is_greeting(text: &str) -> bool {
    if text.trim() == UNDELIVERED {
        return true;
    }
    let spoken = without_stickers(text);
    // `你好，在吗？` is two greetings.
    let mut parts = spoken.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    let Some(first) = parts.next() else { return true };
    if greets(first) {
        return parts.all(greets);
    }
    first.chars().count() <= 2 && first.chars().all(char::is_numeric) && parts.next().is_none()
}

/// Whether a text without marks in it is a greeting.
fn greets(text: &str) -> bool {
    if text.len() > LONGEST_PHRASE {
        return false;
    }
    let text = text.to_lowercase();
    let text = text.trim_end_matches(['啊', '呀', '哦', '哈', '了']);
    text.is_empty() || GREETINGS.contains(&text)
}

/// Without WeChat's sticker codes: `[微笑]`, `/::)`. Four characters at most stand in brackets, so
/// that `[2026]年的补贴没发` keeps its year.
fn without_stickers(text: &str) -> String {
    const LONGEST: usize = 4;
    let mut rest = text;
    let mut kept = String::new();
    while let Some(from) = rest.find('[') {
        let (before, bracket) = rest.split_at(from);
        kept.push_str(before);
        let code = bracket[1..].split_once(']').filter(|(code, _)| {
            (1..=LONGEST).contains(&code.chars().count()) && code.chars().all(|c| c.is_alphabetic())
        });
        match code {
            Some((_, after)) => rest = after,
            None => {
                kept.push('[');
                rest = &bracket[1..];
            }
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_nothing_is_told_from_what_states_something() {
        for greeting in [
            "你好",
            "您好！",
            "在吗？",
            "你好，在吗",
            "hello",
            "[微笑]",
            "😀",
            "？？？",
            "1",
            "12",
            "谢谢啊",
            "[微笑][微笑] 你好",
            "。",
            "  好的 ",
            "收到了",
            "【收到不支持的消息类型，暂无法显示】",
        ] {
            assert_eq!(of_text(greeting), Meaning::Greeting, "{greeting}");
        }
        for statement in [
            "你好，我的社保卡办不下来",
            "灯坏了",
            "进度太慢了",
            "我要查进度，社保卡办了三个月",
            "[2026]年的补贴没发",
            "工资",
            "123456",
            "13900001234",
            "谢谢你们，可是还没解决",
            "请问退休怎么办",
        ] {
            assert_eq!(of_text(statement), Meaning::Statement, "{statement}");
        }
    }

    #[test]
    fn commands_are_whole_texts() {
        for (text, command) in [
            ("进度", Command::Progress),
            ("「进度」", Command::Progress),
            (" 新诉求。", Command::NewMatter),
            ("评价", Command::Evaluate),
            ("撤回！", Command::Withdraw),
            ("人工", Command::Person),
            ("帮助", Command::Help),
            ("？", Command::Help),
            ("HELP", Command::Help),
        ] {
            assert_eq!(of_text(text), Meaning::Command(command), "{text}");
        }
    }
}

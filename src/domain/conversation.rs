//! What a citizen's next message becomes, given what was said before.
//!
//! Number first: what states something is registered at once, or grows the citizen's open ticket.
//! The rest of this is for what cannot be understood by itself: a photo without words, a message
//! soon after its matter was closed, a command, the answer to a question.

use super::{contact, register::RegisterNumber, ticket::Evaluation};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{Command, Meaning};

/// For so long after closing a citizen is asked whether a message belongs to the closed matter.
const REMEMBERED: TimeDelta = TimeDelta::days(7);
/// For so long the question which matter it is waits for its answer.
const ANSWERED_WITHIN: TimeDelta = TimeDelta::hours(2);
/// For so long a question waits whose answer cannot be taken back: judged is judged.
const CONFIRMED_WITHIN: TimeDelta = TimeDelta::minutes(30);
/// What the other matter is may take longer to write: the citizen asked for it.
const DESCRIBED_WITHIN: TimeDelta = TimeDelta::hours(24);
/// So many messages are kept without a ticket; with the next one they are registered. Whoever sends
/// a whole album waits for no words, and what is registered in one go stays small.
const KEPT: i32 = 30;

/// What is remembered of a citizen's conversation beside the tickets themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Talk {
    /// What we asked last, and when.
    pub question: Option<(Question, DateTime<Utc>)>,
    /// 新诉求: their next words are another matter than the open one; since when. Whatever else is
    /// asked and answered in between.
    pub next_is_new: Option<DateTime<Utc>>,
    /// How many messages are kept without a ticket.
    pub held: i32,
    /// When they are registered by themselves.
    pub by_itself_at: Option<DateTime<Utc>>,
    /// The matter that was closed last, and when.
    pub closed: Option<(RegisterNumber, DateTime<Utc>)>,
    /// An open matter was set aside for another one.
    pub beside: bool,
    /// As given earlier (R7.2).
    pub name: Option<String>,
    /// As given earlier (R7.2).
    pub phone: Option<String>,
    /// The QR code by which they came last: which counter, which township.
    pub scene: Option<String>,
}

/// A question of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Does what is kept belong to this closed matter, or is it a new one?
    OldOrNew(RegisterNumber),
    /// It got no answer, and what was kept was registered by itself: was it this closed matter?
    SameAs(RegisterNumber),
    /// How satisfied with the result (R7.d)?
    Grade(RegisterNumber),
    /// Really withdraw it?
    Withdraw(RegisterNumber),
}

/// What a message becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It grows the open ticket, with what was kept.
    Append,
    /// It grows the open ticket, and nobody need be told.
    AppendQuietly,
    /// A new ticket, with what was kept; an open one is set aside.
    Open,
    /// Kept, until words come.
    HoldForWords,
    /// Kept, until the citizen says whether it belongs to this closed matter.
    HoldForChoice(RegisterNumber),
    /// The closed matter is taken up again with what was kept.
    Reopen(RegisterNumber),
    /// What was registered by itself is about this closed matter: the handler is told.
    SameMatter(RegisterNumber),
    /// What was kept is a new matter.
    OpenHeld,
    /// What was kept belongs to the open matter.
    AppendHeld,
    /// Asked once more: does it belong to this closed matter?
    AskChoice(RegisterNumber),
    /// Where things stand.
    TellProgress,
    /// How satisfied?
    AskGrade,
    /// R7.d.
    Grade(RegisterNumber, Evaluation),
    /// Really?
    AskWithdrawal,
    /// By the citizen.
    Withdraw(RegisterNumber),
    /// Not after all.
    KeepOpen(RegisterNumber),
    /// Which is the other matter?
    AskWhatIsNew,
    /// How to reach a person; the handler is told.
    TellPerson,
    /// What can be done here.
    TellHelp,
    /// Has just begun to follow.
    TellWelcome,
    /// How to add to the open matter, and how to report another one.
    TellHowToAdd,
    /// How to report.
    TellHowToReport,
    /// How to send a file.
    TellNoFiles,
}

/// What the message asks for and says.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// As its channel understood its form.
    pub meaning: &'a Meaning,
    /// Its words.
    pub text: &'a str,
    /// RD3.2: they sound like an emergency.
    pub alarms: bool,
    /// The open matter, where it has a result that nobody has judged yet.
    pub to_judge: Option<RegisterNumber>,
}

impl Talk {
    /// Whether a message needs more than the citizen's open ticket to be understood; what does not
    /// goes the short way, many at a time.
    #[must_use]
    pub fn matters(&self, message: Message<'_>, has_open: bool, now: DateTime<Utc>) -> bool {
        if judges(message).is_some() {
            return true;
        }
        let meaning = message.meaning;
        let waits = self.held > 0 || self.question(now).is_some() || self.next_is_new(now);
        match meaning {
            Meaning::Command(_) => true,
            Meaning::Statement if has_open => waits || self.closed_lately(now).is_some(),
            Meaning::Statement => waits || self.beside || self.closed_lately(now).is_some(),
            Meaning::Bare => waits || !has_open || self.closed_lately(now).is_some(),
            Meaning::Greeting => waits || !has_open,
        }
    }

    fn question(&self, now: DateTime<Utc>) -> Option<Question> {
        let (question, asked_at) = self.question?;
        let within = match question {
            Question::OldOrNew(_) | Question::SameAs(_) => ANSWERED_WITHIN,
            Question::Grade(_) | Question::Withdraw(_) => CONFIRMED_WITHIN,
        };
        (now - asked_at < within).then_some(question)
    }

    fn next_is_new(&self, now: DateTime<Utc>) -> bool {
        self.next_is_new.is_some_and(|since| now - since < DESCRIBED_WITHIN)
    }

    fn closed_lately(&self, now: DateTime<Utc>) -> Option<RegisterNumber> {
        let (ticket, closed_at) = self.closed?;
        (now - closed_at < REMEMBERED).then_some(ticket)
    }

    /// What a message becomes.
    #[must_use]
    pub fn turn(&self, message: Message<'_>, has_open: bool, now: DateTime<Utc>) -> Turn {
        let question = self.question(now);
        if let Some(answered) = question.and_then(|question| answer(question, message, has_open)) {
            return answered;
        }
        if let Some(judged) = judges(message) {
            return judged;
        }
        // Somebody in danger is asked nothing first.
        if message.alarms && *message.meaning == Meaning::Statement {
            return if has_open { Turn::Append } else { Turn::Open };
        }
        let beside_open = self.next_is_new(now);
        match message.meaning {
            Meaning::Command(command) => match command {
                Command::Progress => Turn::TellProgress,
                Command::Evaluate => Turn::AskGrade,
                Command::Withdraw => Turn::AskWithdrawal,
                Command::Person => Turn::TellPerson,
                Command::Help => Turn::TellHelp,
                Command::File => Turn::TellNoFiles,
                Command::Report if has_open && !beside_open => Turn::TellHowToAdd,
                Command::Report | Command::NewMatter if has_open => Turn::AskWhatIsNew,
                Command::Report | Command::NewMatter => Turn::TellHowToReport,
                Command::Arrived { follows: true, .. } => Turn::TellWelcome,
                Command::Arrived { .. } => Turn::TellHowToReport,
                Command::Choice(id) => chosen(id).unwrap_or(Turn::TellHelp),
            },
            Meaning::Greeting => match question {
                // Neither a yes nor a no: asked once more.
                Some(Question::OldOrNew(ticket)) => Turn::AskChoice(ticket),
                Some(Question::Withdraw(_)) => Turn::AskWithdrawal,
                Some(Question::Grade(_)) => Turn::AskGrade,
                // 「谢谢」 is no matter: what was kept and what comes stay beside.
                _ if beside_open && has_open => Turn::AskWhatIsNew,
                _ if has_open => Turn::AppendQuietly,
                _ => Turn::TellHowToReport,
            },
            // How to reach them is no matter of its own.
            Meaning::Statement
                if beside_open && has_open && contact::is_only_contact(message.text) =>
            {
                Turn::Append
            }
            Meaning::Statement if beside_open => Turn::Open,
            Meaning::Bare if beside_open && self.held >= KEPT => Turn::Open,
            Meaning::Bare if beside_open => Turn::HoldForWords,
            // Soon after closing, beside another open matter: which of the two, or a third?
            Meaning::Statement | Meaning::Bare if has_open && self.held < KEPT => {
                match (question, self.closed_lately(now)) {
                    (Some(Question::OldOrNew(ticket)), _) | (_, Some(ticket)) => {
                        Turn::HoldForChoice(ticket)
                    }
                    _ => Turn::Append,
                }
            }
            Meaning::Statement | Meaning::Bare if has_open => Turn::Append,
            Meaning::Statement | Meaning::Bare if self.held >= KEPT => Turn::Open,
            Meaning::Statement | Meaning::Bare => {
                let bare = *message.meaning == Meaning::Bare;
                match (question, self.closed_lately(now)) {
                    (Some(Question::OldOrNew(ticket)), _) => Turn::HoldForChoice(ticket),
                    // What waits for words waits for these.
                    (_, Some(_)) if self.held > 0 && !bare => Turn::Open,
                    (_, Some(_)) if self.held > 0 => Turn::HoldForWords,
                    (_, Some(ticket)) => Turn::HoldForChoice(ticket),
                    _ if bare => Turn::HoldForWords,
                    _ => Turn::Open,
                }
            }
        }
    }
}

/// What a message means as the answer to a question; `None` when it is none.
fn answer(question: Question, message: Message<'_>, has_open: bool) -> Option<Turn> {
    let text = plain(message.text);
    match (question, message.meaning) {
        (Question::OldOrNew(_), Meaning::Command(Command::NewMatter)) => Some(Turn::OpenHeld),
        (_, Meaning::Command(_)) => None,
        (Question::OldOrNew(ticket), _) => match text.as_str() {
            "1" | "是" | "老的" | "旧的" | "原来的" | "原件" | "原单" | "补充原单" | "补充"
            | "还是那件" | "那件" => Some(Turn::Reopen(ticket)),
            "2" | "不是" | "新的" | "新" | "新事" | "新的事" => Some(Turn::OpenHeld),
            "3" if has_open => Some(Turn::AppendHeld),
            _ => None,
        },
        (Question::SameAs(ticket), _) => match text.as_str() {
            "1" | "是" | "老的" | "旧的" | "原来的" | "原件" | "原单" | "还是那件" | "那件"
                if has_open =>
            {
                Some(Turn::SameMatter(ticket))
            }
            "1" | "2" | "不是" | "新的" | "新" | "新事" | "新的事" => {
                Some(Turn::TellProgress)
            }
            _ => None,
        },
        (Question::Grade(ticket), _) => grade(&text).map(|grade| Turn::Grade(ticket, grade)),
        (Question::Withdraw(ticket), _) => match text.as_str() {
            // Nothing that also answers somebody else: 「好的」 may be meant for the handler.
            "确认" | "确定" | "确认撤回" | "确定撤回" | "我要撤回" => {
                Some(Turn::Withdraw(ticket))
            }
            "不" | "不是" | "不撤回" | "不撤" | "不撤了" | "不要" | "否" | "不用" | "算了" => {
                Some(Turn::KeepOpen(ticket))
            }
            _ => None,
        },
    }
}

/// The name of a grade, to a result that waits to be judged: nobody has to ask first.
fn judges(message: Message<'_>) -> Option<Turn> {
    let ticket = message.to_judge?;
    let text = plain(message.text);
    let named = *message.meaning == Meaning::Statement && text.contains("满意");
    named.then(|| grade(&text)).flatten().map(|grade| Turn::Grade(ticket, grade))
}

/// A grade by its number or its name.
#[must_use]
fn grade(text: &str) -> Option<Evaluation> {
    Some(match text {
        "1" | "非常满意" | "很满意" | "十分满意" => Evaluation::VerySatisfied,
        "2" | "满意" => Evaluation::Satisfied,
        "3" | "基本满意" | "还可以" | "一般" => Evaluation::FairlySatisfied,
        "4" | "不满意" => Evaluation::Dissatisfied,
        "5" | "非常不满意" | "很不满意" | "十分不满意" => {
            Evaluation::VeryDissatisfied
        }
        _ => return None,
    })
}

/// The options of the question how satisfied the citizen is (R7.d), for a message whose options can
/// be tapped: what comes back, and what is read.
#[must_use]
pub fn grade_options(ticket: RegisterNumber) -> Vec<(String, String)> {
    let option = |(n, grade): (usize, Evaluation)| {
        (format!("grade/{}/{}", ticket.as_i64(), n + 1), grade.label().to_owned())
    };
    Evaluation::ALL.into_iter().enumerate().map(option).collect()
}

/// An option of [`grade_options`], tapped. Whose ticket it is is for the caller to check: old
/// options stay tappable.
fn chosen(id: &str) -> Option<Turn> {
    let (ticket, number) = id.strip_prefix("grade/")?.split_once('/')?;
    let ticket = RegisterNumber::from_i64(ticket.parse().ok()?).ok()?;
    Some(Turn::Grade(ticket, grade(number)?))
}

/// Without marks around it, digits as digits.
fn plain(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| match c {
            '０'..='９' => char::from_u32(c as u32 - '０' as u32 + '0' as u32).unwrap_or(c),
            _ => c,
        })
        .collect();
    text.trim_matches(|c: char| c.is_whitespace() || "，。！!.、“”\"「」".contains(c)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(sequence: i32) -> RegisterNumber {
        RegisterNumber::new(2026, sequence).unwrap()
    }

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-24T09:00:00+08:00").unwrap().to_utc()
    }

    fn says(text: &str) -> Message<'_> {
        means(&Meaning::Statement, text)
    }

    fn means<'a>(meaning: &'a Meaning, text: &'a str) -> Message<'a> {
        Message { meaning, text, alarms: false, to_judge: None }
    }

    const PHOTO: Message<'_> =
        Message { meaning: &Meaning::Bare, text: "", alarms: false, to_judge: None };

    #[test]
    fn a_photo_waits_for_words_unless_a_ticket_is_open() {
        let talk = Talk::default();
        assert_eq!(talk.turn(PHOTO, false, now()), Turn::HoldForWords);
        assert_eq!(talk.turn(PHOTO, true, now()), Turn::Append);
        assert!(!talk.matters(PHOTO, true, now()));
        let holding = Talk { held: 1, ..talk };
        assert_eq!(holding.turn(says("灯坏了"), false, now()), Turn::Open);
        assert!(holding.matters(says(""), true, now()), "what is kept goes along");
        let full = Talk { held: KEPT, ..holding };
        assert_eq!(full.turn(PHOTO, false, now()), Turn::Open, "an album is no heap");
    }

    #[test]
    fn for_seven_days_after_closing_the_citizen_is_asked() {
        let closed = |ago| Talk { closed: Some((number(1), now() - ago)), ..Talk::default() };
        let lately = closed(TimeDelta::days(6));
        assert_eq!(lately.turn(says("灯又坏了"), false, now()), Turn::HoldForChoice(number(1)));
        let asked = Talk {
            held: 1,
            question: Some((Question::OldOrNew(number(1)), now())),
            ..lately.clone()
        };
        assert_eq!(asked.turn(says("1"), false, now()), Turn::Reopen(number(1)));
        assert_eq!(asked.turn(says("２。"), false, now()), Turn::OpenHeld);
        assert_eq!(asked.turn(says("街上的灯"), false, now()), Turn::HoldForChoice(number(1)));
        assert_eq!(closed(TimeDelta::days(7)).turn(says("灯坏了"), false, now()), Turn::Open);
    }

    #[test]
    fn an_answer_is_one_while_its_question_waits() {
        let asked = |question| Talk { question: Some((question, now())), ..Talk::default() };
        let grade = asked(Question::Grade(number(1)));
        let judged = Turn::Grade(number(1), Evaluation::Dissatisfied);
        assert_eq!(grade.turn(says("4"), true, now()), judged);
        assert_eq!(grade.turn(says("不满意"), true, now()), judged);
        assert_eq!(grade.turn(says("4"), true, now() + CONFIRMED_WITHIN), Turn::Append);
        let withdraw = asked(Question::Withdraw(number(1)));
        assert_eq!(withdraw.turn(says("确认"), true, now()), Turn::Withdraw(number(1)));
        assert_eq!(withdraw.turn(says("不"), true, now()), Turn::KeepOpen(number(1)));
        assert_eq!(withdraw.turn(says("再等等看"), true, now()), Turn::Append);
        let good = means(&Meaning::Greeting, "好的");
        assert_eq!(withdraw.turn(good, true, now()), Turn::AskWithdrawal, "meant for whom?");
        let same = asked(Question::SameAs(number(1)));
        assert_eq!(same.turn(says("1"), true, now()), Turn::SameMatter(number(1)));
        assert_eq!(same.turn(says("2"), true, now()), Turn::TellProgress);
        assert_eq!(same.turn(says("灯又坏了"), true, now()), Turn::Append);
        let new = Talk { next_is_new: Some(now()), ..Talk::default() };
        assert_eq!(new.turn(says("还有路坏了"), true, now()), Turn::Open);
        assert_eq!(new.turn(PHOTO, true, now()), Turn::HoldForWords);
        assert_eq!(new.turn(says("王芳 13900001234"), true, now()), Turn::Append);
        let thanks = means(&Meaning::Greeting, "谢谢");
        assert_eq!(new.turn(thanks, true, now()), Turn::AskWhatIsNew);
        let late = now() + TimeDelta::hours(24);
        assert_eq!(new.turn(says("还有路坏了"), true, late), Turn::Append);
    }

    #[test]
    fn a_question_in_between_does_not_forget_that_the_next_words_are_a_new_matter() {
        let question = Some((Question::Withdraw(number(1)), now()));
        let both = Talk { next_is_new: Some(now()), question, ..Talk::default() };
        assert_eq!(both.turn(says("不"), true, now()), Turn::KeepOpen(number(1)));
        assert_eq!(both.turn(says("还有路坏了"), true, now()), Turn::Open);
        let thanks = means(&Meaning::Greeting, "谢谢");
        assert_eq!(both.turn(thanks, true, now()), Turn::AskWithdrawal);
    }

    #[test]
    fn rd3_2_who_is_in_danger_is_not_asked_which_matter_it_is() {
        let closed = Some((number(1), now() - TimeDelta::days(1)));
        let talk = Talk { closed, ..Talk::default() };
        let danger = Message { alarms: true, ..says("我要跳楼") };
        assert_eq!(talk.turn(danger, false, now()), Turn::Open);
        assert_eq!(talk.turn(danger, true, now()), Turn::Append);
        assert_eq!(talk.turn(says("灯坏了"), false, now()), Turn::HoldForChoice(number(1)));
    }

    #[test]
    fn r7_d_the_name_of_a_grade_judges_a_result_though_nobody_asked() {
        let talk = Talk::default();
        let judged = Message { to_judge: Some(number(1)), ..says("不满意。") };
        assert!(talk.matters(judged, true, now()));
        let turn = Turn::Grade(number(1), Evaluation::Dissatisfied);
        assert_eq!(talk.turn(judged, true, now()), turn);
        let words =
            Message { to_judge: Some(number(1)), ..says("对结果不满意，还没解决") };
        assert!(!talk.matters(words, true, now()));
        let digit = Message { to_judge: Some(number(1)), ..says("4") };
        assert!(!talk.matters(digit, true, now()), "a number alone may be anything");
        assert!(!talk.matters(says("不满意"), true, now()), "there is nothing to judge");
    }

    #[test]
    fn r7_d_every_option_that_is_offered_means_its_grade_when_it_is_tapped() {
        for ((id, words), grade) in grade_options(number(7)).into_iter().zip(Evaluation::ALL) {
            let command = Meaning::Command(Command::Choice(id));
            let message = means(&command, &words);
            assert_eq!(Talk::default().turn(message, true, now()), Turn::Grade(number(7), grade));
        }
    }

    #[test]
    fn a_tapped_option_says_which_ticket_it_is_about() {
        let id = format!("grade/{}/2", number(7).as_i64());
        let command = Meaning::Command(Command::Choice(id));
        let message = means(&command, "满意");
        let judged = Turn::Grade(number(7), Evaluation::Satisfied);
        assert_eq!(Talk::default().turn(message, true, now()), judged);
        let strange = Meaning::Command(Command::Choice("vote/1/2".to_owned()));
        let message = means(&strange, "满意");
        assert_eq!(Talk::default().turn(message, true, now()), Turn::TellHelp);
    }
}

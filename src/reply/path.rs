//! Which path is next (wechat.md §6.4): custom message, subscription notice, template message, text
//! message; then somebody telephones. Decided from what was tried, each time anew.

use crate::store::reply::Tried;
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::Delivery;

/// A way to a citizen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// 客服消息: who wrote recently.
    Custom,
    /// 订阅通知: who consented.
    Notice,
    /// 模板消息.
    Template,
    /// 短信.
    Sms,
}

impl Path {
    /// In the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::Custom, Self::Notice, Self::Template, Self::Sms];

    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Notice => "notice",
            Self::Template => "template",
            Self::Sms => "sms",
        }
    }

    /// As staff read it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Custom => "微信消息",
            Self::Notice => "微信订阅通知",
            Self::Template => "微信模板消息",
            Self::Sms => "短信",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.as_str() == text)
    }

    /// What is sent again under the same identity is the same message to the other side: WeChat
    /// keeps a `client_msg_id` for ten minutes, an SMS gateway its `Idempotency-Key`.
    fn repeats_do_no_harm(self) -> bool {
        matches!(self, Self::Template | Self::Sms)
    }
}

/// A path that does not work now is tried again for so long; then the next one. Somebody who waits
/// for an answer is better served by a text message in half an hour than by WeChat tomorrow.
pub(super) const PATIENCE: TimeDelta = TimeDelta::minutes(30);
/// What may have been sent and cannot be repeated without harm is waited for so long: a receipt, if
/// one comes, says what became of it. Then the next path, never the same one: the citizen may read
/// the same twice, and never nothing.
pub(super) const IN_DOUBT: TimeDelta = TimeDelta::minutes(10);
/// Within the platform's ten minutes, with room for a clock and a slow call.
const SAME_MESSAGE: TimeDelta = TimeDelta::minutes(8);

/// What is to be done with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Attempt this.
    Try(Path),
    /// Look again then.
    Wait(DateTime<Utc>),
    /// No path is left.
    Over,
}

/// The next thing to do, where `open` says which paths there are for this reply now. Whoever asks
/// holds the reply: an attempt that is still under way is one that nobody came back from.
pub(super) fn next(open: impl Fn(Path) -> bool, before: &[Tried], now: DateTime<Utc>) -> Next {
    for path in Path::ALL {
        let mut tried = before.iter().filter(|one| one.path == path.as_str());
        let in_doubt = |one: &&Tried| matches!(one.outcome.as_str(), "uncertain" | "under_way");
        let doubtful = tried.clone().find(in_doubt);
        let Some(first) = tried.clone().next() else {
            if open(path) {
                return Next::Try(path);
            }
            continue;
        };
        if tried.any(is_over) {
            continue;
        }
        match doubtful {
            // Though the path may have closed meanwhile: the message that went used the consent up.
            Some(one) if !path.repeats_do_no_harm() => {
                let until = one.began_at + IN_DOUBT;
                if now < until {
                    return Next::Wait(until);
                }
            }
            Some(one) if path == Path::Template && now >= one.began_at + SAME_MESSAGE => {}
            _ if now >= first.began_at + PATIENCE => {}
            _ if open(path) => return Next::Try(path),
            _ => {}
        }
    }
    Next::Over
}

fn is_over(one: &Tried) -> bool {
    let lost = one.delivery.is_some_and(|delivery| delivery != Delivery::Arrived);
    lost || matches!(one.outcome.as_str(), "over" | "taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    fn tried(path: Path, outcome: &str, minute: i64) -> Tried {
        let (path, outcome) = (path.as_str().to_owned(), outcome.to_owned());
        Tried { path, outcome, began_at: at(minute), delivery: None }
    }

    fn next_at(before: &[Tried], minute: i64) -> Next {
        next(|_| true, before, at(minute))
    }

    #[test]
    fn paths_are_tried_in_their_order_and_what_is_over_is_over() {
        use Path::{Custom, Notice, Sms, Template};
        let mut before = Vec::new();
        for path in [Custom, Notice, Template, Sms] {
            assert_eq!(next_at(&before, 0), Next::Try(path));
            before.push(tried(path, "over", 0));
        }
        assert_eq!(next_at(&before, 0), Next::Over);
        assert_eq!(next(|path| path == Sms, &[], at(0)), Next::Try(Sms));
    }

    #[test]
    fn a_path_that_fails_for_now_is_tried_for_half_an_hour() {
        let before = [tried(Path::Custom, "later", 0), tried(Path::Custom, "later", 5)];
        assert_eq!(next_at(&before, 29), Next::Try(Path::Custom));
        assert_eq!(next_at(&before, 30), Next::Try(Path::Notice));
    }

    #[test]
    fn what_may_have_been_sent_is_not_sent_again_blindly() {
        for outcome in ["uncertain", "under_way"] {
            let custom = [tried(Path::Custom, outcome, 0)];
            assert_eq!(next_at(&custom, 9), Next::Wait(at(10)));
            assert_eq!(next_at(&custom, 10), Next::Try(Path::Notice));
            // Also when it cannot be gone again: what may have been sent took the last consent.
            let notice = [tried(Path::Notice, outcome, 0)];
            assert_eq!(next(|path| path == Path::Sms, &notice, at(9)), Next::Wait(at(10)));
            assert_eq!(next(|path| path == Path::Sms, &notice, at(10)), Next::Try(Path::Sms));
            let only = |wanted| move |path| path == wanted;
            // The same identity again is the same message, for as long as that is remembered.
            let template = [tried(Path::Template, outcome, 0)];
            assert_eq!(next(only(Path::Template), &template, at(7)), Next::Try(Path::Template));
            assert_eq!(next(only(Path::Template), &template, at(8)), Next::Over);
            let sms = [tried(Path::Sms, outcome, 0)];
            assert_eq!(next(only(Path::Sms), &sms, at(20)), Next::Try(Path::Sms));
        }
    }

    #[test]
    fn what_did_not_arrive_goes_by_the_next_path() {
        let lost = Tried { delivery: Some(Delivery::Refused), ..tried(Path::Template, "taken", 0) };
        let before = [tried(Path::Custom, "over", 0), tried(Path::Notice, "over", 0), lost];
        assert_eq!(next_at(&before, 0), Next::Try(Path::Sms));
    }
}

//! The platform's codes as values, and what follows from each (§5, §6).

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use intake_contract::china;
use std::{fmt, net::IpAddr};

/// What went wrong. The numbers are the platform's `errcode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// 40001, 40014, 42001: the access token is bad or over, and a fresh one was refused too.
    Token,
    /// 40001 or 40125 when a token was asked for, 40013, 40243: AppID or AppSecret are wrong, or
    /// the secret is frozen.
    Credentials,
    /// 40164: the caller's address is not on the account's list. The address, if it was said.
    AddressNotAllowed(Option<IpAddr>),
    /// 48001: the account may not use this call.
    NotGranted,
    /// 48004, 50002: the account or the citizen is banned or restricted.
    Banned,
    /// -1: busy.
    Busy,
    /// 45011: too many calls in a minute.
    TooFast,
    /// 45009, 48006: the day's calls are used up.
    Quota,
    /// 43004, 43005: the citizen does not follow the account.
    NotFollowing,
    /// 43019: the citizen is on the account's black list.
    BlackListed,
    /// 40003: there is no such citizen here.
    Openid,
    /// 45015: the citizen said nothing within the time for custom messages (§6.1).
    OutsideWindow,
    /// 45047: the custom messages for what the citizen said are used up (§6.1).
    CountExhausted,
    /// 43101: no consent, or none left (§6.3).
    NoConsent,
    /// 43116, 43117: this citizen was sent too many template messages.
    TooFrequent,
    /// 40037: there is no such template.
    Template,
    /// 47003: a field of the template does not fit.
    Arguments,
    /// 45002, 45001, 40006, 40009: longer or larger than allowed.
    TooLong,
    /// 44002, 44004: empty.
    Empty,
    /// 87014, 45157: the platform found the content unlawful.
    Risky,
    /// 40007: no such media, or its three days are over (§7).
    Media,
    /// 40004, 40005, 40008, 40016 to 40020, 40023 to 40027, 40035, 40054, 40055, 40058, 47001:
    /// what was sent does not make sense to the platform.
    Malformed,
    /// 40029, 40163, 41008: the code of a browser's visit is wrong, over, or was used (§8).
    Code,
    /// The browser's visitor is a snapshot user, nobody in particular (§8).
    SnapshotUser,
    /// Another code.
    Unknown(i64),
    /// No connection: nothing was sent.
    NoConnection,
    /// No answer in time; it may have been done.
    NoAnswer,
    /// The answer broke off; it may have been done.
    BrokeOff,
    /// A redirect, which is not followed.
    Redirected,
    /// Another HTTP status than 200.
    Http(u16),
    /// The answer is not what the platform says.
    NotUnderstood,
    /// The answer or the media are larger than what is read.
    TooLarge,
    /// The media's address is at a host that is not the platform's.
    ForeignHost,
    /// The gateway's own store did not answer: nothing was sent.
    Store,
}

/// Whether another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It would fail in the same way: another path, or a person.
    Never,
    /// By the caller's own growing intervals.
    Later,
    /// Not before this moment.
    NotBefore(DateTime<Utc>),
}

/// Why a call came to nothing. Holds no address, token, openid or content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlatformError {
    call: &'static str,
    trouble: Trouble,
    code: Option<i64>,
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.trouble.says())?;
        if let Trouble::AddressNotAllowed(Some(address)) = self.trouble {
            write!(f, " ({address})")?;
        }
        if let Trouble::Http(status) = self.trouble {
            write!(f, " {status}")?;
        }
        match self.code {
            Some(code) => write!(f, " (code {code})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PlatformError {}

/// The call that every other one begins with.
pub(super) const TOKEN_CALL: &str = "stable_token";

/// What an administrator has to mend is looked at again in this time.
const MENDED_WITHIN: TimeDelta = TimeDelta::minutes(10);
/// The platform names no time after which a citizen may be sent templates again.
const LESS_OFTEN: TimeDelta = TimeDelta::hours(1);

impl Trouble {
    /// What an `errcode` means.
    #[must_use]
    pub fn of(code: i64, address: Option<IpAddr>) -> Self {
        match code {
            -1 => Self::Busy,
            40_001 | 40_014 | 42_001 => Self::Token,
            40_013 | 40_125 | 40_243 => Self::Credentials,
            40_164 => Self::AddressNotAllowed(address),
            48_001 => Self::NotGranted,
            48_004 | 50_002 => Self::Banned,
            45_011 => Self::TooFast,
            45_009 | 48_006 => Self::Quota,
            43_004 | 43_005 => Self::NotFollowing,
            43_019 => Self::BlackListed,
            40_003 => Self::Openid,
            45_015 => Self::OutsideWindow,
            45_047 => Self::CountExhausted,
            43_101 => Self::NoConsent,
            43_116 | 43_117 => Self::TooFrequent,
            40_037 => Self::Template,
            47_003 => Self::Arguments,
            45_001 | 45_002 | 40_006 | 40_009 => Self::TooLong,
            44_002 | 44_004 => Self::Empty,
            45_157 | 87_014 => Self::Risky,
            40_007 => Self::Media,
            40_004
            | 40_005
            | 40_008
            | 40_016..=40_020
            | 40_023..=40_027
            | 40_035
            | 40_054
            | 40_055
            | 40_058
            | 47_001 => Self::Malformed,
            40_029 | 40_163 | 41_008 => Self::Code,
            code => Self::Unknown(code),
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Token => "the access token is refused",
            Self::Credentials => "AppID or AppSecret are refused",
            Self::AddressNotAllowed(_) => "this machine's address is not on the account's list",
            Self::NotGranted => "the account may not use this call",
            Self::Banned => "banned or restricted",
            Self::Busy => "the platform is busy",
            Self::TooFast => "too many calls in a minute",
            Self::Quota => "the day's calls are used up",
            Self::NotFollowing => "the citizen does not follow the account",
            Self::BlackListed => "the citizen is on the black list",
            Self::Openid => "no such citizen",
            Self::OutsideWindow => "the citizen has said nothing recently",
            Self::CountExhausted => "the custom messages are used up",
            Self::NoConsent => "no consent is left",
            Self::TooFrequent => "the citizen was sent too many",
            Self::Template => "no such template",
            Self::Arguments => "a field does not fit the template",
            Self::TooLong => "too long or too large",
            Self::Empty => "empty",
            Self::Risky => "the content was found unlawful",
            Self::Media => "no such media, or expired",
            Self::Malformed => "the platform cannot make sense of it",
            Self::Code => "the visit's code is wrong, over or used",
            Self::SnapshotUser => "the visitor is a snapshot user",
            Self::Unknown(_) => "refused",
            Self::NoConnection => "no connection",
            Self::NoAnswer => "no answer in time",
            Self::BrokeOff => "the answer broke off",
            Self::Redirected => "a redirect, which is not followed",
            Self::Http(_) => "HTTP",
            Self::NotUnderstood => "the answer is not the platform's",
            Self::TooLarge => "more than is read",
            Self::ForeignHost => "the media are at a host that is not the platform's",
            Self::Store => "the gateway's store does not answer",
        }
    }
}

impl PlatformError {
    pub(super) fn new(call: &'static str, trouble: Trouble) -> Self {
        Self { call, trouble, code: None }
    }

    pub(super) fn of(call: &'static str, code: i64, address: Option<IpAddr>) -> Self {
        let trouble = match (Trouble::of(code, address), call) {
            // Nobody has a token yet: the secret itself was refused.
            (Trouble::Token, TOKEN_CALL) => Trouble::Credentials,
            (trouble, _) => trouble,
        };
        Self { call, trouble, code: Some(code) }
    }

    /// What went wrong.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// The platform's code; `None` when the platform did not say one, or was not asked.
    #[must_use]
    pub fn code(&self) -> Option<i64> {
        self.code
    }

    /// Whether and when to try again. For a message to a citizen, `Never` means: by another path.
    #[must_use]
    pub fn again(&self, now: DateTime<Utc>) -> Again {
        match self.trouble {
            Trouble::NotFollowing
            | Trouble::BlackListed
            | Trouble::Openid
            | Trouble::OutsideWindow
            | Trouble::CountExhausted
            | Trouble::NoConsent
            | Trouble::Template
            | Trouble::Arguments
            | Trouble::TooLong
            | Trouble::Empty
            | Trouble::Risky
            | Trouble::Media
            | Trouble::Malformed
            | Trouble::Code
            | Trouble::SnapshotUser
            | Trouble::TooLarge
            | Trouble::ForeignHost => Again::Never,
            Trouble::TooFast => Again::NotBefore(next_minute(now)),
            Trouble::Quota => Again::NotBefore(tomorrow(now)),
            Trouble::TooFrequent => Again::NotBefore(now + LESS_OFTEN),
            Trouble::Token
            | Trouble::Credentials
            | Trouble::AddressNotAllowed(_)
            | Trouble::NotGranted
            | Trouble::Banned => Again::NotBefore(now + MENDED_WITHIN),
            Trouble::Busy
            | Trouble::Unknown(_)
            | Trouble::NoConnection
            | Trouble::NoAnswer
            | Trouble::BrokeOff
            | Trouble::Redirected
            | Trouble::Http(_)
            | Trouble::NotUnderstood
            | Trouble::Store => Again::Later,
        }
    }

    /// Another try would fail in the same way.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self.again(DateTime::UNIX_EPOCH), Again::Never)
    }

    /// The platform may have done what was asked: a repeat of a message that has no identity can
    /// arrive twice. Where no token was had, nothing was asked.
    #[must_use]
    pub fn may_have_been_done(&self) -> bool {
        if self.call == TOKEN_CALL {
            return false;
        }
        matches!(
            self.trouble,
            Trouble::NoAnswer | Trouble::BrokeOff | Trouble::NotUnderstood | Trouble::TooLarge
        ) || matches!(self.trouble, Trouble::Http(status) if status >= 500)
    }

    /// What only an administrator can mend, in a sentence; the log and the commands say it.
    #[must_use]
    pub fn for_the_administrator(&self) -> Option<String> {
        Some(match self.trouble {
            Trouble::Token => {
                "the platform refuses even a fresh access token: does another system renew it with force_refresh?".to_owned()
            }
            Trouble::Credentials => {
                "the platform refuses AppID and AppSecret: compare api.secret with the developer pages; it may be frozen there".to_owned()
            }
            Trouble::AddressNotAllowed(address) => {
                let which = address.map_or_else(|| "this machine's".to_owned(), |a| a.to_string());
                format!("enter the address {which} into the account's list of allowed addresses")
            }
            Trouble::NotGranted => {
                format!("the account may not use {}: is it verified, and a service account?", self.call)
            }
            Trouble::Banned => "the platform has banned or restricted the account or the citizen".to_owned(),
            Trouble::Template => "a template's id is not the account's".to_owned(),
            _ => return None,
        })
    }
}

fn next_minute(now: DateTime<Utc>) -> DateTime<Utc> {
    let minute = TimeDelta::minutes(1);
    now.duration_trunc(minute).unwrap_or(now) + minute
}

/// The platform's days begin at midnight in China.
fn tomorrow(now: DateTime<Utc>) -> DateTime<Utc> {
    let local = now.with_timezone(&china());
    let day = TimeDelta::days(1);
    let midnight = local.date_naive().and_time(chrono::NaiveTime::MIN) + day;
    midnight.and_local_timezone(china()).single().map_or(now + day, |at| at.to_utc())
}

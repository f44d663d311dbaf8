//! Points in time and spans as exchanges and vendors write them (hotline.md §1, §2).

use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};
use serde::Deserialize;

/// The zone in which a source writes times without one. Exchanges stamp by their own clock's zone,
/// and the same setting means one thing to FreeSWITCH and nothing to Asterisk (§5-7): it is said for
/// each source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Zone(FixedOffset);

impl Zone {
    /// China Standard Time, +08:00.
    #[must_use]
    pub fn china() -> Self {
        Self(intake_contract::china())
    }

    /// `UTC`, `Asia/Shanghai` or an offset such as `+08:00`. Other names would need a table of the
    /// world's zones, for exchanges that stand in China or run on UTC.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Asia/Shanghai" | "PRC" => Some(Self::china()),
            "UTC" | "Z" => FixedOffset::east_opt(0).map(Self),
            offset => offset.parse().ok().map(Self),
        }
    }

    /// A time that is written without a zone: `2026-11-23 23:45:09`, with `T`, with fractions.
    #[must_use]
    pub fn naive(self, text: &str) -> Option<DateTime<Utc>> {
        const FORMS: [&str; 3] =
            ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y/%m/%d %H:%M:%S%.f"];
        let naive = FORMS.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())?;
        believable(naive.and_local_timezone(self.0).single()?.to_utc())
    }
}

impl TryFrom<String> for Zone {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("must be UTC, Asia/Shanghai or an offset such as +08:00")
    }
}

/// How a point in time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// Seconds since 1970.
    EpochS,
    /// Milliseconds since 1970.
    EpochMs,
    /// Microseconds since 1970.
    EpochUs,
    /// Without a zone; the source's counts.
    Naive,
    /// RFC 3339, also with an offset without colon (`+0000`, as Asterisk writes).
    Rfc3339,
    /// As in e-mails.
    Rfc2822,
}

impl TimeFormat {
    /// Reads a time; `None` for what is no time, for 0 (exchanges write it for "never"), and for
    /// years in which no call was made.
    #[must_use]
    pub fn read(self, text: &str, zone: Zone) -> Option<DateTime<Utc>> {
        let text = text.trim();
        let at = match self {
            Self::EpochS => DateTime::from_timestamp(whole(text)?, 0)?,
            Self::EpochMs => DateTime::from_timestamp_millis(whole(text)?)?,
            Self::EpochUs => DateTime::from_timestamp_micros(whole(text)?)?,
            Self::Naive => return zone.naive(text),
            Self::Rfc3339 => DateTime::parse_from_rfc3339(text)
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
                .ok()?
                .to_utc(),
            Self::Rfc2822 => DateTime::parse_from_rfc2822(text).ok()?.to_utc(),
        };
        believable(at)
    }

    /// Writes a time; of those without a zone, by this one.
    #[must_use]
    pub fn write(self, at: DateTime<Utc>, zone: Zone) -> String {
        match self {
            Self::EpochS => at.timestamp().to_string(),
            Self::EpochMs => at.timestamp_millis().to_string(),
            Self::EpochUs => at.timestamp_micros().to_string(),
            Self::Naive => at.with_timezone(&zone.0).format("%Y-%m-%d %H:%M:%S").to_string(),
            Self::Rfc3339 => at.with_timezone(&zone.0).to_rfc3339(),
            Self::Rfc2822 => at.with_timezone(&zone.0).to_rfc2822(),
        }
    }
}

/// The integer part of a decimal number.
fn whole(text: &str) -> Option<i64> {
    text.split('.').next()?.parse().ok()
}

fn believable(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    /// 2000 to 2100.
    const YEARS: std::ops::Range<i64> = 946_684_800..4_102_444_800;
    YEARS.contains(&at.timestamp()).then_some(at)
}

/// How a span is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds, also with fractions.
    #[default]
    S,
    /// Milliseconds.
    Ms,
    /// `00:00:09` or `00:09`.
    Hms,
}

impl Unit {
    /// A span in milliseconds; `None` for what is none, is negative, or longer than a day.
    #[must_use]
    pub fn millis(self, text: &str) -> Option<u32> {
        /// No call is longer.
        const DAY_MS: f64 = 86_400_000.0;
        // Some write the unit behind the number.
        let text = text.trim().trim_end_matches(['秒', 's']).trim_end();
        let decimal = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            text.parse::<f64>().ok().filter(|_| plain)
        };
        let ms = match self {
            Self::S => decimal(text)? * 1000.0,
            Self::Ms => decimal(text)?,
            Self::Hms => {
                let parts: Vec<&str> = text.split(':').collect();
                if !(2..=3).contains(&parts.len()) {
                    return None;
                }
                let mut s = 0.0;
                for part in parts {
                    s = s * 60.0 + decimal(part)?;
                }
                s * 1000.0
            }
        };
        // In range, so nothing is cut off but the fraction.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a day")]
        (0.0..=DAY_MS).contains(&ms).then(|| ms.round() as u32)
    }
}

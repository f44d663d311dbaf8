//! The sources of calls as the configuration describes them: `[[hotline]]` in config/default.toml.

use crate::{domain::id::OfficeId, lifecycle::Wake};
use chrono::{DateTime, Utc};
use intake_hotline::{
    Auth, Format, HotlineChannel, Key, Mapping, Numbering, PullAuth, PushSource, Source as Webhook,
    Verify, Zone,
};
use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;
use std::path::PathBuf;

/// How a source tells of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The signed webhook.
    #[default]
    Webhook,
    /// FreeSWITCH pushes call records.
    Freeswitch,
    /// A vendor pushes in a form of its own, described by a mapping.
    Vendor,
    /// Twilio's callbacks.
    Twilio,
    /// Asterisk's spool is looked through.
    Asterisk,
}

/// When calls without a message become tickets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedCalls {
    /// Never; they are kept as calls.
    Off,
    /// One ticket for each caller, line and closed period.
    #[default]
    Aggregate,
    /// Each.
    Always,
}

fn scan_every_s() -> u64 {
    15
}

fn missed_after_s() -> u64 {
    60
}

fn audio_days() -> u32 {
    3
}

fn keep_days() -> u32 {
    180
}

fn replay_window_s() -> i64 {
    300
}

/// A source's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Settings {
    pub id: String,
    #[serde(default)]
    pub kind: Kind,
    #[serde(default)]
    pub keys: Vec<Key>,
    #[serde(default = "replay_window_s")]
    pub replay_window_s: i64,
    pub verify: Option<Verify>,
    #[serde(default)]
    pub mapping: String,
    #[serde(default)]
    pub line: String,
    #[serde(default)]
    pub numbering: Numbering,
    #[serde(default)]
    pub missed_calls: MissedCalls,
    #[serde(default = "missed_after_s")]
    pub missed_after_s: u64,
    #[serde(default)]
    pub err_log_dir: Option<PathBuf>,
    #[serde(default)]
    pub spools: Vec<PathBuf>,
    #[serde(default)]
    pub cdr_csv: Option<PathBuf>,
    #[serde(default)]
    pub zone: Option<Zone>,
    #[serde(default)]
    pub events_zone: Option<Zone>,
    #[serde(default)]
    pub contexts: Vec<String>,
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    #[serde(default = "scan_every_s")]
    pub scan_every_s: u64,
    #[serde(default)]
    pub audio: Audio,
    #[serde(default)]
    pub pull: Option<Pull>,
}

/// Where a vendor's own list of calls is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    pub base_url: String,
    #[serde(default)]
    pub inside: bool,
    #[serde(default)]
    pub user: String,
    pub password: Option<SecretString>,
    pub token: Option<SecretString>,
}

/// Where recordings may be fetched from; nothing named, nothing fetched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Audio {
    pub roots: Vec<PathBuf>,
    pub hosts: Vec<String>,
    pub inside_hosts: Vec<String>,
    pub allow_http: bool,
    pub user: String,
    pub password: Option<SecretString>,
    pub days: u32,
    pub keep_days: u32,
}

impl Default for Audio {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            hosts: Vec::new(),
            inside_hosts: Vec::new(),
            allow_http: false,
            user: String::new(),
            password: None,
            days: audio_days(),
            keep_days: keep_days(),
        }
    }
}

/// A setting is wrong: its key below the entry, and what is wrong with it.
pub type Wrong = (&'static str, String);

impl Settings {
    /// Checks the settings, mappings on their examples included.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        let wrong = |key, says: &str| Err((key, says.to_owned()));
        match self.kind {
            Kind::Webhook => {
                self.webhook().check().map_err(|error| (error.key, error.says.to_owned()))?;
            }
            Kind::Freeswitch | Kind::Vendor | Kind::Twilio => {
                self.push()?;
            }
            Kind::Asterisk => {
                // The same name as in the other ways, by their own check.
                let push =
                    PushSource::new(&self.id, unused(), self.numbering.clone(), Format::Freeswitch);
                push.map_err(|error| (error.key, error.says.to_owned()))?;
                if self.spools.is_empty() && self.verify.is_none() {
                    let says = "is missing: the folders of Asterisk's voicemail, or verify for \
                                events that are posted";
                    return wrong("spools", says);
                }
                if self.verify.is_some() {
                    self.push()?;
                }
            }
        }
        let of = |kinds: &[Kind]| kinds.contains(&self.kind);
        let out_of_place = [
            ("keys", !self.keys.is_empty() && !of(&[Kind::Webhook])),
            ("verify", self.verify.is_some() && of(&[Kind::Webhook])),
            ("pull", self.pull.is_some() && !of(&[Kind::Vendor])),
            ("mapping", !self.mapping.is_empty() && !of(&[Kind::Vendor])),
            ("err_log_dir", self.err_log_dir.is_some() && !of(&[Kind::Freeswitch])),
            ("spools", !self.spools.is_empty() && !of(&[Kind::Asterisk])),
            ("cdr_csv", self.cdr_csv.is_some() && !of(&[Kind::Asterisk])),
            ("events_zone", self.events_zone.is_some() && !of(&[Kind::Asterisk])),
            ("since", self.since.is_some() && self.spools.is_empty()),
            ("contexts", !self.contexts.is_empty() && !of(&[Kind::Asterisk])),
        ];
        if let Some((key, _)) = out_of_place.into_iter().find(|(_, is)| *is) {
            return wrong(key, "says nothing to a source of this kind");
        }
        let events = self.kind == Kind::Asterisk && self.verify.is_some();
        let events = events && self.events_zone.is_none();
        if (self.cdr_csv.is_some() || events) && self.zone.is_none() {
            let says = "is missing: Asterisk writes the times of call records without one, by the \
                        machine's clock; UTC or Asia/Shanghai";
            return wrong("zone", says);
        }
        if let Some(pull) = &self.pull {
            pull.check(&self.mapping()?)?;
        }
        if !(1..=3600).contains(&self.scan_every_s) {
            return wrong("scan_every_s", "must be 1 to 3600");
        }
        if self.missed_after_s > 3600 {
            return wrong("missed_after_s", "must be 0 to 3600");
        }
        if self.line.len() > 40 || self.line.chars().any(char::is_control) {
            return wrong("line", "must be a short name");
        }
        self.audio.check()
    }

    /// The signed webhook's own settings.
    #[must_use]
    pub fn webhook(&self) -> Webhook {
        Webhook {
            id: self.id.clone(),
            keys: self.keys.clone(),
            replay_window_s: self.replay_window_s,
        }
    }

    /// What verifies and reads pushes; for the kinds that push in a form of their own.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn push(&self) -> Result<PushSource, Wrong> {
        let format = match self.kind {
            Kind::Twilio => Format::Twilio,
            Kind::Vendor => Format::Mapped(Box::new(self.mapping()?)),
            Kind::Asterisk => Format::Asterisk {
                zone: self.events_zone.or(self.zone).unwrap_or_else(Zone::china),
                contexts: self.contexts.clone(),
            },
            Kind::Webhook | Kind::Freeswitch => Format::Freeswitch,
        };
        let Some(verify) = self.verify.clone() else {
            return Err(("verify", "is missing: how the sender proves who it is".to_owned()));
        };
        PushSource::new(&self.id, verify, self.numbering.clone(), format)
            .map_err(|error| (error.key, error.says.to_owned()))
    }

    fn mapping(&self) -> Result<Mapping, Wrong> {
        let mapping = match self.mapping.as_str() {
            "" => return Err(("mapping", "is missing: a shipped one, or mapping_file".to_owned())),
            text if text.contains('\n') => Mapping::load(text),
            name => Mapping::shipped(name),
        };
        mapping.map_err(|error| ("mapping", format!("cannot be used: {error}")))
    }
}

/// Verifies nothing that exists.
fn unused() -> Verify {
    let token = "never used by anybody".to_owned().into();
    Verify { auth: Auth::Bearer { token }, allow_ips: Vec::new() }
}

impl Pull {
    fn check(&self, mapping: &Mapping) -> Result<(), Wrong> {
        let wrong = |key, says: &str| Err((key, says.to_owned()));
        let Some(asked) = mapping.pull() else {
            return wrong("pull", "has no use: the mapping describes no list of calls");
        };
        let url = Url::parse(&self.base_url).ok().filter(|url| {
            url.host_str().is_some_and(|host| !host.is_empty())
                && url.path() == "/"
                && url.query().is_none()
                && url.username().is_empty()
        });
        match url.as_ref().map(Url::scheme) {
            Some("https") => {}
            Some("http") if self.inside => {}
            Some("http") => {
                return wrong("pull.base_url", "is http: say inside = true for a host inside");
            }
            _ => return wrong("pull.base_url", "must be a host's address: https://pbx.example"),
        }
        if self.password.is_some() == self.user.is_empty() {
            return wrong("pull.user", "and pull.password belong together");
        }
        let (given, needed) = match asked.auth {
            PullAuth::Basic => (self.password.is_some(), "pull.user"),
            _ if asked.logs_in() => (self.password.is_some(), "pull.user"),
            _ => (self.token.is_some(), "pull.token"),
        };
        if given { Ok(()) } else { wrong(needed, "is missing: this vendor's list asks for it") }
    }
}

impl Audio {
    fn check(&self) -> Result<(), Wrong> {
        let wrong = |key, says: &str| Err((key, says.to_owned()));
        if self.roots.iter().any(|root| root.is_relative() || root.parent().is_none()) {
            return wrong("audio.roots", "must be whole paths of folders, not of everything");
        }
        let is_host = |host: &String| {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
            name.contains(['.', ':']) && name.chars().all(plain) || name == "localhost"
        };
        if !self.hosts.iter().all(is_host) {
            return wrong(
                "audio.hosts",
                "must be names such as recordings.example or *.example.com",
            );
        }
        if !self.inside_hosts.iter().all(is_host)
            || self.inside_hosts.iter().any(|host| host.starts_with('*'))
        {
            return wrong("audio.inside_hosts", "must be names or addresses, each written out");
        }
        if self.password.is_some() == self.user.is_empty() {
            return wrong("audio.user", "and audio.password belong together");
        }
        if !(1..=400).contains(&self.days) {
            return wrong("audio.days", "must be 1 to 400");
        }
        if self.keep_days > 36_500 {
            return wrong("audio.keep_days", "must be 0 (for ever) to 36500");
        }
        Ok(())
    }
}

/// A source of calls, ready for use.
pub struct Source {
    /// Whose calls they are.
    pub office: OfficeId,
    /// Who vouches for them: `hotline:pbx1`.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    /// What verifies and reads what it pushes in a form of its own.
    pub push: Option<PushSource>,
    /// Its folders are looked through at once when it is woken.
    pub look: Wake,
}

impl Source {
    /// Whether there are folders to look through.
    #[must_use]
    pub fn has_folders(&self) -> bool {
        !self.settings.spools.is_empty() || self.settings.err_log_dir.is_some()
    }

    /// A source of an office, and the signed webhook's channel where it is one.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn new(
        office: OfficeId,
        settings: &Settings,
    ) -> Result<(Self, Option<HotlineChannel>), Wrong> {
        settings.check()?;
        let (push, channel) = match settings.kind {
            Kind::Asterisk if settings.verify.is_none() => (None, None),
            Kind::Webhook => {
                let channel = HotlineChannel::new(settings.webhook());
                let channel = channel.map_err(|error| (error.key, error.says.to_owned()))?;
                (None, Some(channel))
            }
            Kind::Freeswitch | Kind::Vendor | Kind::Twilio | Kind::Asterisk => {
                (Some(settings.push()?), None)
            }
        };
        let name = format!("hotline:{}", settings.id);
        Ok((
            Self { office, name, settings: settings.clone(), push, look: Wake::default() },
            channel,
        ))
    }
}

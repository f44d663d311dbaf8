//! Settings: the defaults that are compiled in, then a file, then the environment.
//!
//! A refusal names the key and says what is expected, never what stood there: that may be a secret.

use crate::schedule::index::CALL_LIMIT;
use chrono::NaiveTime;
use figment::{Figment, providers::Env};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{net::IpAddr, net::SocketAddr, path::Path, time::Duration};

/// Every key with its unit and default.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// The settings of one process.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Config {
    pub database_url: SecretString,
    pub redis_url: SecretString,
    pub http: Http,
    pub ops: Ops,
    pub log: Log,
    pub database: Database,
    pub intake: Intake,
    pub spool: Spool,
    pub schedule: Schedule,
    pub relay: Relay,
    pub media: Media,
    pub transcribe: Transcribe,
    pub desk: Desk,
    pub citizen: Citizen,
    pub calls: Calls,
    #[serde(deserialize_with = "apart")]
    pub wechat: Vec<Belonging<intake_wechat::Account>>,
    #[serde(deserialize_with = "apart")]
    pub hotline: Vec<Belonging<crate::calls::Settings>>,
    #[serde(deserialize_with = "apart")]
    pub notify: Vec<Notify>,
    #[serde(deserialize_with = "apart")]
    pub sms: Vec<Belonging<intake_notify::SmsGateway>>,
}

/// The lists of adapters are read apart from the rest, entry by entry.
fn apart<'de, T, D: Deserializer<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    serde::de::IgnoredAny::deserialize(input).map(|_| Vec::new())
}

/// An adapter's settings, and whose it is.
#[derive(Debug)]
pub struct Belonging<T> {
    /// The office's code.
    pub office: String,
    /// What the adapter reads.
    pub settings: T,
}

/// A way to tell the staff.
#[derive(Debug)]
pub struct Notify {
    /// The office's code.
    pub office: String,
    /// Its name in the list of notices.
    pub name: String,
    /// What the adapter reads.
    pub target: intake_notify::Target,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Http {
    pub listen: SocketAddr,
    pub public_url: String,
    pub trusted_proxies: Vec<IpAddr>,
    pub connections: usize,
    pub connections_per_address: usize,
    pub header_timeout_s: u64,
    pub body_timeout_s: u64,
    pub answer_timeout_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Ops {
    pub listen: SocketAddr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Log {
    pub json: bool,
    pub filter: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Database {
    pub connections: u32,
    pub acquire_timeout_ms: u64,
    pub statement_timeout_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Intake {
    pub queue: usize,
    pub writers: usize,
    pub batch: usize,
    pub answer_within_ms: u64,
    pub quiet_s: u64,
    pub wait_for_words_min: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Spool {
    pub folder: String,
    pub limit_mb: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Schedule {
    pub prefix: String,
    pub batch: usize,
    pub workers: usize,
    pub lease_s: u64,
    pub look_every_s: u64,
    pub reconcile_every_s: u64,
    pub late_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Relay {
    pub look_every_s: u64,
    pub attempts: i32,
    pub first_retry_s: u64,
    pub longest_retry_s: u64,
    pub parallel: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Media {
    pub folder: String,
    pub s3_bucket: String,
    pub s3_endpoint: String,
    pub s3_region: String,
    pub s3_key_id: SecretString,
    pub s3_secret: SecretString,
    pub limit_mb: usize,
    pub parallel: usize,
    pub ffmpeg: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Transcribe {
    pub command: Vec<String>,
    pub timeout_s: u64,
    pub tries: i32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Desk {
    pub session_idle_min: i64,
    pub session_h: i64,
    pub failures: i32,
    pub lock_min: i64,
    pub insecure_cookie: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Citizen {
    pub public_url: String,
    pub link_days: i64,
    pub lookups_per_h: i32,
    pub posts_per_h: i32,
    pub visits_per_h: i32,
    pub uploads: usize,
    pub upload_mb_per_h: i32,
    pub upload_timeout_s: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each key means")]
pub struct Calls {
    pub reconcile_at: String,
    pub reconcile_days: u32,
    pub keep_originals_days: u32,
}

impl Calls {
    /// The time of day in China at which calls are compared with what their sources say.
    #[must_use]
    pub fn reconcile_at(&self) -> NaiveTime {
        self.time().unwrap_or_default()
    }

    fn time(&self) -> Option<NaiveTime> {
        NaiveTime::parse_from_str(&self.reconcile_at, "%H:%M").ok()
    }
}

/// What is wrong with the settings, in a sentence that names the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads the settings: defaults, `file` where given, `DATABASE_URL` and `REDIS_URL`, then
    /// `INTAKE_SECTION__KEY`.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_over("", file)
    }

    /// As [`Self::load`], with other defaults for some keys: the demo's.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_over(defaults: &str, file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut layers = vec![parse("the defaults", DEFAULTS)?, parse("the defaults", defaults)?];
        if let Some(file) = file {
            let name = format!("the configuration file {}", file.display());
            let text = std::fs::read_to_string(file).map_err(|_| {
                ConfigError(format!("{name} cannot be read; give another one with --config"))
            })?;
            layers.push(parse(&name, &text)?);
        }
        layers.push(environment(Env::raw().only(&["DATABASE_URL", "REDIS_URL"]))?);
        layers.push(environment(Env::prefixed("INTAKE_").ignore(&["CONFIG"]).split("__"))?);
        Self::from_layers(layers)
    }

    /// Reads settings that were put together elsewhere: the demo, tests.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::from_layers(vec![parse("the defaults", DEFAULTS)?, parse("the settings", text)?])
    }

    fn from_layers(layers: Vec<Map<String, Value>>) -> Result<Self, ConfigError> {
        let mut settings = Map::new();
        for layer in layers {
            put_over(&mut settings, layer);
        }
        read_files(&mut settings, "")?;
        let wechat = entries(&mut settings, "wechat", Belonging::read)?;
        let hotline = entries(&mut settings, "hotline", Belonging::read)?;
        let notify = entries(&mut settings, "notify", Notify::read)?;
        let sms = entries(&mut settings, "sms", Belonging::read)?;
        let config = Self { wechat, hotline, notify, sms, ..read(settings, "")? };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError(text));
        for (key, url, scheme) in [
            ("database_url", &self.database_url, "postgres"),
            ("redis_url", &self.redis_url, "redis"),
        ] {
            let url = url.expose_secret();
            if url.is_empty() {
                return wrong(format!(
                    "{key} is missing: set it in the configuration file or as {}",
                    key.to_uppercase()
                ));
            }
            if !(url.starts_with(scheme) || scheme == "redis" && url.starts_with("unix")) {
                return wrong(format!("{key} is no {scheme} URL"));
            }
        }
        for (key, value, least, most) in self.numbers() {
            if !(least..=most).contains(&value) {
                return wrong(format!("{key} must be {least} to {most}"));
            }
        }
        if self.relay.longest_retry_s < self.relay.first_retry_s {
            return wrong(
                "relay.longest_retry_s must not be less than relay.first_retry_s".to_owned(),
            );
        }
        if let Some(says) = crate::telemetry::filter_fault(&self.log.filter) {
            return wrong(format!("log.filter {says}"));
        }
        self.media.check().map_err(ConfigError)?;
        let program = self.transcribe.command.first();
        if program.is_some_and(|program| !Path::new(program).is_absolute()) {
            return wrong("transcribe.command[0] must be the whole path of a program".to_owned());
        }
        if self.calls.time().is_none() {
            return wrong("calls.reconcile_at must be a time of day: 02:30".to_owned());
        }
        let fits = self.schedule.prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if self.schedule.prefix.is_empty() || !fits {
            return wrong("schedule.prefix must be letters, digits and hyphens".to_owned());
        }
        for (index, entry) in self.wechat.iter().enumerate() {
            let check = entry.settings.check();
            check.map_err(|error| ConfigError(format!("wechat[{index}].{error}")))?;
            let id = &entry.settings.id;
            if self.wechat[..index].iter().any(|other| other.settings.id == *id) {
                return wrong(format!("wechat[{index}].id: {id} occurs twice"));
            }
        }
        for (index, entry) in self.hotline.iter().enumerate() {
            let check = entry.settings.check();
            check.map_err(|(key, says)| ConfigError(format!("hotline[{index}].{key} {says}")))?;
            let id = &entry.settings.id;
            if self.hotline[..index].iter().any(|other| other.settings.id == *id) {
                return wrong(format!("hotline[{index}].id: {id} occurs twice"));
            }
        }
        for (index, entry) in self.notify.iter().enumerate() {
            let check = entry.target.check();
            check.map_err(|error| ConfigError(format!("notify[{index}].{error}")))?;
            if entry.name.is_empty() || entry.name == crate::relay::DESK {
                return wrong(format!("notify[{index}].name must not be empty or `desk`"));
            }
            let mut before = self.notify[..index].iter();
            if before.any(|other| (&other.office, &other.name) == (&entry.office, &entry.name)) {
                let name = &entry.name;
                return wrong(format!("notify[{index}].name: the office has a {name} already"));
            }
        }
        for (index, entry) in self.sms.iter().enumerate() {
            let check = entry.settings.check();
            check.map_err(|error| ConfigError(format!("sms[{index}].{error}")))?;
            if self.sms[..index].iter().any(|other| other.office == entry.office) {
                return wrong(format!("sms[{index}].office has a gateway already: one is enough"));
            }
        }
        Ok(())
    }

    /// Every number with the least and the most that makes sense: beyond it something would wait
    /// for ever, spin, overflow, or never happen.
    fn numbers(&self) -> [(&'static str, i128, i128, i128); 43] {
        const HOUR_S: i128 = 3600;
        const DAY_S: i128 = 24 * HOUR_S;
        let Self {
            http,
            database,
            intake,
            spool,
            schedule,
            relay,
            media,
            transcribe,
            desk,
            citizen,
            calls,
            ..
        } = self;
        [
            ("http.connections", http.connections as i128, 1, 100_000),
            ("http.connections_per_address", http.connections_per_address as i128, 1, 100_000),
            ("http.header_timeout_s", http.header_timeout_s.into(), 1, 300),
            ("http.body_timeout_s", http.body_timeout_s.into(), 1, 300),
            ("http.answer_timeout_s", http.answer_timeout_s.into(), 1, 300),
            ("database.connections", database.connections.into(), 2, 1000),
            ("database.acquire_timeout_ms", database.acquire_timeout_ms.into(), 10, 60_000),
            ("database.statement_timeout_ms", database.statement_timeout_ms.into(), 100, 600_000),
            ("intake.queue", intake.queue as i128, 1, 1_000_000),
            ("intake.writers", intake.writers as i128, 1, 64),
            ("intake.batch", intake.batch as i128, 1, 10_000),
            // WeChat gives up after 5 s, network included.
            ("intake.answer_within_ms", intake.answer_within_ms.into(), 100, 3999),
            ("intake.quiet_s", intake.quiet_s.into(), 0, DAY_S),
            ("intake.wait_for_words_min", intake.wait_for_words_min.into(), 1, 24 * 60),
            ("spool.limit_mb", spool.limit_mb.into(), 1, 4096),
            ("schedule.batch", schedule.batch as i128, 1, CALL_LIMIT as i128),
            ("schedule.workers", schedule.workers as i128, 1, 64),
            ("schedule.lease_s", schedule.lease_s.into(), 1, HOUR_S),
            ("schedule.look_every_s", schedule.look_every_s.into(), 1, HOUR_S),
            ("schedule.reconcile_every_s", schedule.reconcile_every_s.into(), 1, HOUR_S),
            ("schedule.late_s", schedule.late_s.into(), 0, HOUR_S),
            ("relay.look_every_s", relay.look_every_s.into(), 1, HOUR_S),
            ("relay.attempts", relay.attempts.into(), 1, 1000),
            ("relay.first_retry_s", relay.first_retry_s.into(), 1, DAY_S),
            ("relay.longest_retry_s", relay.longest_retry_s.into(), 1, 7 * DAY_S),
            ("relay.parallel", relay.parallel as i128, 1, 1000),
            ("media.limit_mb", media.limit_mb as i128, 1, 100),
            ("media.parallel", media.parallel as i128, 1, 64),
            ("transcribe.timeout_s", transcribe.timeout_s.into(), 1, HOUR_S),
            ("transcribe.tries", transcribe.tries.into(), 1, 4),
            ("desk.session_idle_min", desk.session_idle_min.into(), 1, 24 * 60),
            ("desk.session_h", desk.session_h.into(), 1, 7 * 24),
            ("desk.failures", desk.failures.into(), 1, 100),
            ("desk.lock_min", desk.lock_min.into(), 1, 24 * 60),
            ("citizen.link_days", citizen.link_days.into(), 1, 3650),
            ("citizen.lookups_per_h", citizen.lookups_per_h.into(), 1, 1000),
            ("citizen.posts_per_h", citizen.posts_per_h.into(), 1, 1000),
            ("citizen.visits_per_h", citizen.visits_per_h.into(), 1, 100_000),
            ("citizen.uploads", citizen.uploads as i128, 1, 100),
            ("citizen.upload_mb_per_h", citizen.upload_mb_per_h.into(), 25, 10_000),
            ("citizen.upload_timeout_s", citizen.upload_timeout_s.into(), 1, 600),
            ("calls.reconcile_days", calls.reconcile_days.into(), 1, 30),
            ("calls.keep_originals_days", calls.keep_originals_days.into(), 1, 3650),
        ]
    }

    /// Where citizens' telephones reach the gateway; empty when nobody said.
    #[must_use]
    pub fn citizen_url(&self) -> &str {
        match self.citizen.public_url.as_str() {
            "" => &self.http.public_url,
            url => url,
        }
    }

    /// What is risky though allowed, each a sentence that names the key.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.desk.insecure_cookie {
            warnings.push(
                "desk.insecure_cookie is on: logins travel unencrypted unless a proxy adds TLS"
                    .to_owned(),
            );
        }
        if !self.ops.listen.ip().is_loopback() {
            warnings
                .push("ops.listen is not on loopback: keep health and metrics inside".to_owned());
        }
        for entry in &self.wechat {
            if entry.settings.api.is_none() {
                warnings.push(format!(
                    "wechat account {} has no api.secret: photos and voices that citizens send cannot be fetched, and are gone after three days",
                    entry.settings.id
                ));
            }
            if entry.settings.is_plain() {
                warnings.push(format!(
                    "wechat account {} runs in plain mode, whose signature does not cover the message: for test accounts only",
                    entry.settings.id
                ));
            }
        }
        for entry in &self.wechat {
            let by_sms = self.sms.iter().any(|sms| sms.office == entry.office);
            if entry.settings.api.is_none() && !by_sms {
                warnings.push(format!(
                    "wechat account {} has no [wechat.api] and its office no [[sms]]: what citizens should know has to be told by telephone",
                    entry.settings.id
                ));
            }
        }
        let media = &self.media;
        if media.s3_bucket.is_empty() && !Path::new(&media.folder).is_absolute() {
            warnings.push(format!(
                "media.folder is {}, a folder below the one the gateway is started in: give a path that begins with / and is backed up, or media.s3_bucket",
                media.folder
            ));
        }
        let spool = &self.spool.folder;
        if spool.is_empty() {
            warnings.push(
                "spool.folder is empty: while PostgreSQL is away WeChat and exchanges are answered 503, and what their platform does not send again is lost; name a folder"
                    .to_owned(),
            );
        } else if !Path::new(spool).is_absolute() {
            warnings.push(format!(
                "spool.folder is {spool}, a folder below the one the gateway is started in: give a path that begins with /, on a disk of this machine"
            ));
        }
        if media.s3_endpoint.starts_with("http://") {
            warnings.push(
                "media.s3_endpoint is http: what citizens sent travels unencrypted".to_owned(),
            );
        }
        if self.citizen_url().is_empty() {
            warnings.push(
                "citizen.public_url and http.public_url are empty: citizens are given no links, and the list in WeChat's menu does not open"
                    .to_owned(),
            );
        }
        if self.notify.is_empty() {
            warnings.push("notify is empty: notices show on the desk only".to_owned());
        }
        warnings
    }
}

impl Media {
    fn check(&self) -> Result<(), String> {
        let wrong = |text: &str| Err(text.to_owned());
        if !self.ffmpeg.is_empty() && !Path::new(&self.ffmpeg).is_absolute() {
            return wrong("media.ffmpeg must be the whole path of the program");
        }
        if self.s3_bucket.is_empty() {
            return match self.folder.is_empty() {
                true => wrong("media.folder is missing: name a folder, or media.s3_bucket"),
                false => Ok(()),
            };
        }
        let endpoint = &self.s3_endpoint;
        if !(endpoint.is_empty()
            || endpoint.starts_with("https://")
            || endpoint.starts_with("http://"))
        {
            return wrong("media.s3_endpoint is no address: it looks like https://s3.example.cn");
        }
        for (key, value) in [("s3_key_id", &self.s3_key_id), ("s3_secret", &self.s3_secret)] {
            if value.expose_secret().is_empty() {
                return Err(format!("media.{key} is missing: media.s3_bucket needs it"));
            }
        }
        Ok(())
    }
}

impl Intake {
    /// For [`crate::intake::Intake`].
    #[must_use]
    pub fn settings(&self) -> crate::intake::Settings {
        crate::intake::Settings {
            queue: self.queue,
            writers: self.writers,
            batch: self.batch,
            answer_within: Duration::from_millis(self.answer_within_ms),
            quiet: Duration::from_secs(self.quiet_s),
            wait_for_words: Duration::from_secs(self.wait_for_words_min * 60),
        }
    }
}

impl Schedule {
    /// For [`crate::schedule::runner::Runner`].
    #[must_use]
    pub fn settings(&self) -> crate::schedule::runner::Settings {
        crate::schedule::runner::Settings {
            batch: self.batch,
            workers: self.workers,
            lease: Duration::from_secs(self.lease_s),
            look_every: Duration::from_secs(self.look_every_s),
            reconcile_every: Duration::from_secs(self.reconcile_every_s),
            late: Duration::from_secs(self.late_s),
        }
    }
}

impl Relay {
    /// For [`crate::relay::Relay`].
    #[must_use]
    pub fn settings(&self, desk_url: &str) -> crate::relay::Settings {
        crate::relay::Settings {
            look_every: Duration::from_secs(self.look_every_s),
            attempts: self.attempts,
            first_retry: Duration::from_secs(self.first_retry_s),
            longest_retry: Duration::from_secs(self.longest_retry_s),
            parallel: self.parallel,
            desk_url: desk_url.to_owned(),
        }
    }

    /// For [`crate::reply::Replies`].
    #[must_use]
    pub fn replies(&self) -> crate::reply::Settings {
        crate::reply::Settings {
            look_every: Duration::from_secs(self.look_every_s),
            parallel: self.parallel,
        }
    }
}

impl<T: DeserializeOwned> Belonging<T> {
    fn read(mut table: Map<String, Value>, at: &str) -> Result<Self, ConfigError> {
        Ok(Self { office: take(&mut table, "office", at)?, settings: read(table, at)? })
    }
}

impl Notify {
    fn read(mut table: Map<String, Value>, at: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            office: take(&mut table, "office", at)?,
            name: take(&mut table, "name", at)?,
            target: read(table, at)?,
        })
    }
}

/// A document's settings. Its parser would quote the line that it stumbles over, secrets and all.
fn parse(name: &str, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let table: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError(format!("{name} is no TOML in line {line}: {}", error.message()))
    })?;
    match serde_json::to_value(table) {
        Ok(Value::Object(settings)) => Ok(settings),
        _ => Err(ConfigError(format!("{name} holds what no setting can be"))),
    }
}

fn environment(variables: Env) -> Result<Map<String, Value>, ConfigError> {
    Figment::from(variables)
        .extract()
        .map_err(|_| ConfigError("the variables INTAKE_… cannot be read as settings".to_owned()))
}

/// Puts a layer over what stands below it. A secret and the file that holds it are two ways to set
/// the same key: the higher layer wins, whichever way it uses.
fn put_over(below: &mut Map<String, Value>, layer: Map<String, Value>) {
    let given: Vec<String> = layer.keys().cloned().collect();
    for (key, value) in layer {
        let other = match key.strip_suffix("_file") {
            Some(name) => name.to_owned(),
            None => format!("{key}_file"),
        };
        if !given.contains(&other) {
            below.remove(&other);
        }
        match (below.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => put_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Takes a key out of an adapter's table, so that the rest can be read strictly by the adapter.
fn take(
    table: &mut Map<String, Value>,
    key: &'static str,
    at: &str,
) -> Result<String, ConfigError> {
    match table.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(ConfigError(format!("{at}{key} must be a string"))),
        None => Err(ConfigError(format!("{at}{key} is missing"))),
    }
}

/// The tables of a list, each read with its place.
fn entries<T>(
    settings: &mut Map<String, Value>,
    key: &str,
    read: impl Fn(Map<String, Value>, &str) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let list = settings.insert(key.to_owned(), Value::Array(Vec::new()));
    let Some(Value::Array(list)) = list else {
        return Err(ConfigError(format!("{key} must be a list, each entry begun with [[{key}]]")));
    };
    list.into_iter()
        .enumerate()
        .map(|(index, entry)| match entry {
            Value::Object(table) => read(table, &format!("{key}[{index}].")),
            _ => Err(ConfigError(format!("{key}[{index}] must be a table"))),
        })
        .collect()
}

/// Reads a table strictly.
fn read<T: DeserializeOwned>(table: Map<String, Value>, at: &str) -> Result<T, ConfigError> {
    let table = Value::Object(table);
    serde_json::from_value(table.clone())
        .map_err(|error| ConfigError(says::<T>(&error.to_string(), table, at)))
}

/// The complaint in the words of the configuration: with the key, without the value.
fn says<T: DeserializeOwned>(complaint: &str, table: Value, at: &str) -> String {
    let quoted = |text: &str| text.split('`').nth(1).unwrap_or_default().to_owned();
    if complaint.starts_with("missing field") {
        // Which table of several it is missing in, the reader does not say.
        return format!("{at}{} is missing", quoted(complaint));
    }
    let key = format!("{at}{}", culprit::<T>(complaint, table));
    let (what, expected) = complaint.rsplit_once(", expected ").unwrap_or((complaint, ""));
    if what.starts_with("unknown field") {
        return format!("{key} is not known; known are {}", expected.trim_start_matches("one of "));
    }
    match expected {
        "u16" | "u32" | "u64" | "usize" => format!("{key} must be a whole number, not negative"),
        "i16" | "i32" | "i64" => format!("{key} must be a whole number"),
        "" => format!("{key} cannot be read: {what}"),
        expected => format!("{key} must be {expected}"),
    }
}

/// Which key a complaint is about: the one without which there is none, or another one. (The
/// readers of tables with a `kind` do not say.)
fn culprit<T: DeserializeOwned>(complaint: &str, whole: Value) -> String {
    let (mut pointer, mut said) = (String::new(), String::new());
    loop {
        let Some(here) = whole.pointer(&pointer) else { return said };
        let mut parts: Vec<String> = match here {
            Value::Object(table) => table.keys().cloned().collect(),
            Value::Array(list) => (0..list.len()).map(|index| index.to_string()).collect(),
            _ => return said,
        };
        // Without its kind every table is wrong.
        parts.sort_by_key(|part| part == "kind");
        let found = parts.into_iter().find(|part| {
            let mut without = whole.clone();
            match without.pointer_mut(&pointer) {
                Some(Value::Object(table)) => drop(table.remove(part)),
                Some(Value::Array(list)) => {
                    drop(part.parse().ok().map(|index: usize| list.remove(index)));
                }
                _ => {}
            }
            let now = serde_json::from_value::<T>(without).err();
            now.is_none_or(|error| error.to_string() != complaint)
        });
        let Some(part) = found else { return said };
        match here {
            Value::Array(_) => said.push_str(&format!("[{part}]")),
            _ if said.is_empty() => said.push_str(&part),
            _ => said.push_str(&format!(".{part}")),
        }
        pointer.push_str(&format!("/{part}"));
    }
}

/// Replaces each `key_file` by `key` with the file's content.
fn read_files(table: &mut Map<String, Value>, at: &str) -> Result<(), ConfigError> {
    let files: Vec<(String, String)> = table
        .keys()
        .filter_map(|key| Some((key.clone(), key.strip_suffix("_file")?.to_owned())))
        .collect();
    for (key, name) in files {
        let Some(Value::String(path)) = table.remove(&key) else {
            return Err(ConfigError(format!("{at}{key} must be the path of a file")));
        };
        let content = std::fs::read_to_string(&path).map_err(|error| {
            ConfigError(format!("{at}{key}: the file {path} cannot be read: {error}"))
        })?;
        if table.get(&name).is_some_and(|value| value.as_str() != Some("")) {
            return Err(ConfigError(format!("{at}{name} and {at}{key} are both given")));
        }
        table.insert(name, content.trim().to_owned().into());
    }
    for (key, inner) in table {
        match inner {
            Value::Object(table) => read_files(table, &format!("{at}{key}."))?,
            Value::Array(list) => {
                for (index, entry) in list.iter_mut().enumerate() {
                    let Value::Object(table) = entry else { continue };
                    read_files(table, &format!("{at}{key}[{index}]."))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Settings: the defaults that are compiled in, then a file, then the environment.

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
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
    pub schedule: Schedule,
    pub relay: Relay,
    pub desk: Desk,
    pub wechat: Vec<Belonging<intake_wechat::Account>>,
    pub hotline: Vec<Belonging<intake_hotline::Source>>,
    pub notify: Vec<Notify>,
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
pub struct Desk {
    pub session_idle_min: i64,
    pub session_h: i64,
    pub failures: i32,
    pub lock_min: i64,
    pub insecure_cookie: bool,
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
        let mut figment = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(defaults));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError(format!(
                    "the configuration file {} cannot be read; give another one with --config",
                    file.display()
                )));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let figment = figment
            .merge(Env::raw().only(&["DATABASE_URL", "REDIS_URL"]))
            .merge(Env::prefixed("INTAKE_").ignore(&["CONFIG"]).split("__"));
        Self::from_figment(figment)
    }

    /// Reads settings that were put together elsewhere: the demo, tests.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::from_figment(Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(text)))
    }

    fn from_figment(figment: Figment) -> Result<Self, ConfigError> {
        let mut value: serde_json::Value = figment.extract().map_err(|error| says(&error))?;
        read_files(&mut value, "")?;
        let config: Self =
            Figment::from(Serialized::defaults(value)).extract().map_err(|error| says(&error))?;
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
        let positive = [
            ("intake.queue", self.intake.queue),
            ("intake.writers", self.intake.writers),
            ("intake.batch", self.intake.batch),
            ("schedule.batch", self.schedule.batch),
            ("schedule.workers", self.schedule.workers),
            ("relay.parallel", self.relay.parallel),
            ("http.connections", self.http.connections),
        ];
        for (key, value) in positive {
            if value == 0 {
                return wrong(format!("{key} must be at least 1"));
            }
        }
        if self.schedule.batch > crate::schedule::index::CALL_LIMIT {
            return wrong("schedule.batch must be 1000 at most".to_owned());
        }
        let fits = self.schedule.prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if self.schedule.prefix.is_empty() || !fits {
            return wrong("schedule.prefix must be letters, digits and hyphens".to_owned());
        }
        for (index, entry) in self.wechat.iter().enumerate() {
            entry
                .settings
                .check()
                .map_err(|error| ConfigError(format!("wechat[{index}]: {error}")))?;
        }
        for (index, entry) in self.hotline.iter().enumerate() {
            entry
                .settings
                .check()
                .map_err(|error| ConfigError(format!("hotline[{index}]: {error}")))?;
        }
        for (index, entry) in self.notify.iter().enumerate() {
            entry
                .target
                .check()
                .map_err(|error| ConfigError(format!("notify[{index}]: {error}")))?;
            if entry.name.is_empty() || entry.name == crate::relay::DESK {
                return wrong(format!("notify[{index}].name must not be empty or `desk`"));
            }
        }
        Ok(())
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
            if entry.settings.is_plain() {
                warnings.push(format!(
                    "wechat account {} runs in plain mode, whose signature does not cover the message: for test accounts only",
                    entry.settings.id
                ));
            }
        }
        if self.notify.is_empty() {
            warnings.push("notify is empty: notices show on the desk only".to_owned());
        }
        warnings
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
}

/// Takes a key out of an adapter's table, so that the rest can be read strictly by the adapter.
fn take<E: serde::de::Error>(
    table: &mut serde_json::Map<String, serde_json::Value>,
    key: &'static str,
) -> Result<String, E> {
    match table.remove(key) {
        Some(serde_json::Value::String(text)) => Ok(text),
        _ => Err(E::missing_field(key)),
    }
}

fn rest<T: DeserializeOwned, E: serde::de::Error>(
    table: serde_json::Map<String, serde_json::Value>,
) -> Result<T, E> {
    serde_json::from_value(table.into()).map_err(E::custom)
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Belonging<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut table = serde_json::Map::deserialize(input)?;
        Ok(Self { office: take(&mut table, "office")?, settings: rest(table)? })
    }
}

impl<'de> Deserialize<'de> for Notify {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut table = serde_json::Map::deserialize(input)?;
        Ok(Self {
            office: take(&mut table, "office")?,
            name: take(&mut table, "name")?,
            target: rest(table)?,
        })
    }
}

/// Replaces each `key_file` by `key` with the file's content.
fn read_files(value: &mut serde_json::Value, at: &str) -> Result<(), ConfigError> {
    match value {
        serde_json::Value::Object(table) => {
            let files: Vec<String> =
                table.keys().filter(|key| key.ends_with("_file")).cloned().collect();
            for key in files {
                let Some(serde_json::Value::String(path)) = table.remove(&key) else {
                    return Err(ConfigError(format!("{at}{key} must be the path of a file")));
                };
                let content = std::fs::read_to_string(&path).map_err(|error| {
                    ConfigError(format!("{at}{key}: the file {path} cannot be read: {error}"))
                })?;
                let name = key.trim_end_matches("_file").to_owned();
                let given = table.get(&name).is_some_and(|v| v.as_str() != Some(""));
                if given {
                    return Err(ConfigError(format!("{at}{name} and {at}{key} are both given")));
                }
                table.insert(name, content.trim().to_owned().into());
            }
            for (key, inner) in table {
                read_files(inner, &format!("{at}{key}."))?;
            }
            Ok(())
        }
        serde_json::Value::Array(list) => {
            list.iter_mut().try_for_each(|inner| read_files(inner, at))
        }
        _ => Ok(()),
    }
}

fn says(error: &figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let at = if key.is_empty() { String::new() } else { format!("{key}: ") };
    ConfigError(format!("{at}{}", error.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: &str = "database_url = 'postgres://x'\nredis_url = 'redis://x'\n";

    fn refusal(text: &str) -> String {
        Config::from_toml(&format!("{NEEDED}{text}")).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_complete_but_for_the_two_servers() {
        assert!(Config::from_toml(NEEDED).is_ok());
        let missing = Config::from_toml("").unwrap_err().to_string();
        assert!(missing.contains("DATABASE_URL"), "{missing}");
    }

    #[test]
    fn a_wrong_setting_is_refused_by_its_key() {
        for (text, key) in [
            ("[http]\nlisten = 'nowhere'", "http.listen"),
            ("[http]\nlissten = '127.0.0.1:1'", "lissten"),
            ("[intake]\nwriters = 0", "intake.writers"),
            ("[schedule]\nbatch = 8000", "schedule.batch"),
            ("[intake]\nqueue = 'many'", "intake.queue"),
            ("[desk]\nlock_min_file = '/nonexistent'", "desk.lock_min_file"),
            ("[[wechat]]\nid = 'a'", "office"),
            ("[[notify]]\noffice = 'a'\nname = 'desk'\nkind = 'fax'", "fax"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(key), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_secret_can_stand_in_a_file() {
        let path = std::env::temp_dir().join(format!("intake-secret-{}", std::process::id()));
        std::fs::write(&path, "postgres://from-file\n").unwrap();
        let text = format!("database_url_file = '{}'\nredis_url = 'redis://x'", path.display());
        let config = Config::from_toml(&text).unwrap();
        assert_eq!(config.database_url.expose_secret(), "postgres://from-file");
        assert!(!format!("{config:?}").contains("from-file"));
        std::fs::remove_file(&path).unwrap();
    }
}

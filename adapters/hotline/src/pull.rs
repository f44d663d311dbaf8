//! A vendor's own list of calls, which is asked for when what was pushed is compared: the part `pull`
//! of a mapping. It says what to ask and where in the answer the calls stand; who asks, of which
//! host and with whose password, the gateway's settings say.

use crate::{
    call::{CallEvent, Unread},
    json,
    mapping::{Fixture, Rule},
    time::{TimeFormat, Zone},
};
use chrono::{DateTime, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// Calls in one page at most: what tells of more is not read.
pub(crate) const PAGE: u32 = 200;

/// How a list is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// Path and query, with `{from}`, `{to}`, `{page}`, `{size}`, `{token}` in it.
    path: String,
    /// The body, where the list is asked for by POST, with the same in it.
    body: Option<String>,
    /// How the asker proves who it is.
    pub auth: PullAuth,
    /// Asked first, where the proof is a token that is given out for a while.
    login: Option<Login>,
    /// How `{from}` and `{to}` are written.
    #[serde(default = "epoch")]
    time: TimeFormat,
    /// Pointer to the list of calls in the answer.
    pub(crate) each: String,
    /// The number of the first page.
    #[serde(default = "one")]
    pub first_page: u32,
    /// Calls in one page.
    pub size: u32,
    /// The newest come first, so that a page of older ones is the last that is needed.
    #[serde(default)]
    pub newest_first: bool,
    /// The list names calls otherwise than pushes do: one of the same caller that began within so
    /// many seconds is the same.
    pub alike_within_s: Option<u16>,
    /// How a recording is asked for that a push or the list names.
    recording: Option<Recording>,
    pub(crate) map: Vec<Rule>,
    pub(crate) fixture: Vec<Fixture>,
}

fn epoch() -> TimeFormat {
    TimeFormat::EpochS
}

fn one() -> u32 {
    1
}

/// Where the proof stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullAuth {
    /// `{token}` in the path.
    Path,
    /// `Authorization: Bearer …`.
    Bearer,
    /// `Authorization: Basic …`.
    Basic,
}

/// Asks for a token, with `{user}` and `{password}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    path: String,
    body: String,
    /// Pointer to it in the answer.
    token: String,
}

/// Asks for the address of a recording, and then for the recording.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    /// Path and query, with `{name}` and `{token}`.
    path: String,
    /// Pointer to the address in the answer, which is a path on the same host.
    link: String,
    /// Path and query of the recording, with `{link}` and `{token}`.
    file: String,
}

/// A request, below the address that the settings name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Path and query.
    pub path: String,
    /// JSON; with it the request is a POST.
    pub body: Option<String>,
}

/// What a page of a list tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// How many entries it has.
    pub entries: usize,
    /// Those that are calls, each with its original.
    pub calls: Vec<(CallEvent, String)>,
    /// Those that cannot be read, and why.
    pub unread: Vec<(Unread, String)>,
}

impl Pull {
    pub(crate) fn check(&self) -> Result<(), String> {
        let recording = self.recording.as_ref();
        let paths = [
            Some(&self.path),
            self.login.as_ref().map(|login| &login.path),
            recording.map(|recording| &recording.path),
        ];
        if let Some(bad) = paths.into_iter().flatten().find(|path| !path.starts_with('/')) {
            return Err(format!("pull: {bad} is no path: one starts with /"));
        }
        let pointers = [
            Some(&self.each),
            self.login.as_ref().map(|login| &login.token),
            recording.map(|recording| &recording.link),
        ];
        if let Some(bad) = pointers.into_iter().flatten().find(|one| !json::is_pointer(one)) {
            return Err(format!("pull: {bad} is no pointer: one starts with /"));
        }
        if recording.is_some_and(|recording| {
            !recording.path.contains("{name}") || !recording.file.starts_with("{link}")
        }) {
            return Err(
                "pull.recording: path must hold {name}, file must begin with {link}".to_owned()
            );
        }
        if !(1..=PAGE).contains(&self.size) {
            return Err(format!("pull.size must be 1 to {PAGE}"));
        }
        let has = |name: &str| {
            self.path.contains(name) || self.body.as_ref().is_some_and(|body| body.contains(name))
        };
        if !has("{page}") {
            return Err("pull: {page} stands neither in path nor in body".to_owned());
        }
        if !has("{from}") && !self.newest_first {
            return Err(
                "pull: {from} stands neither in path nor in body, and newest_first is not set"
                    .to_owned(),
            );
        }
        if has("{token}") != (self.auth == PullAuth::Path) {
            return Err("pull: {token} and auth = \"path\" belong together".to_owned());
        }
        if self.auth == PullAuth::Basic && self.login.is_some() {
            return Err("pull.login gives a token, which auth = \"basic\" does not use".to_owned());
        }
        Ok(())
    }

    /// Whether the settings' user and password buy a token first.
    #[must_use]
    pub fn logs_in(&self) -> bool {
        self.login.is_some()
    }

    /// What is asked for a token; `None` where none is given out.
    #[must_use]
    pub fn login(&self, user: &str, password: &str) -> Option<Ask> {
        let login = self.login.as_ref()?;
        let values = [("user", user.to_owned()), ("password", password.to_owned())];
        Some(Ask { path: login.path.clone(), body: Some(filled(&login.body, &values, as_json)) })
    }

    /// The token in the answer.
    #[must_use]
    pub fn token(&self, answer: &str) -> Option<String> {
        json::at(answer, &self.login.as_ref()?.token, &[])
    }

    /// Whether recordings can be asked for by the names that pushes and the list give them.
    #[must_use]
    pub fn gives_recordings(&self) -> bool {
        self.recording.is_some()
    }

    /// What is asked for the address of a recording.
    #[must_use]
    pub fn recording(&self, name: &str, token: &str) -> Option<Ask> {
        let values = [("name", name.to_owned()), ("token", token.to_owned())];
        let path = filled(&self.recording.as_ref()?.path, &values, as_query);
        Some(Ask { path, body: None })
    }

    /// What is asked for the recording, by the answer that told its address: a path on the same host,
    /// and nothing that leads to another one.
    #[must_use]
    pub fn file(&self, answer: &str, token: &str) -> Option<Ask> {
        let recording = self.recording.as_ref()?;
        let link = json::at(answer, &recording.link, &[])?;
        // A tab or a line's end in it is nothing to who reads addresses.
        let leaves = |c: char| c == '\\' || c.is_control();
        let is_path = link.starts_with('/') && !link.starts_with("//") && !link.contains(leaves);
        let rest = recording.file.strip_prefix("{link}").filter(|_| is_path)?;
        let rest = filled(rest, &[("token", token.to_owned())], as_query);
        Some(Ask { path: format!("{link}{rest}"), body: None })
    }

    /// What is asked for a page.
    #[must_use]
    pub fn ask(
        &self,
        page: u32,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        token: &str,
        zone: Zone,
    ) -> Ask {
        let values = [
            ("from", self.time.write(from, zone)),
            ("to", self.time.write(to, zone)),
            ("page", page.to_string()),
            ("size", self.size.to_string()),
            ("token", token.to_owned()),
        ];
        Ask {
            path: filled(&self.path, &values, as_query),
            body: self.body.as_ref().map(|body| filled(body, &values, as_json)),
        }
    }
}

fn as_query(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// What stands between the quotes of a JSON text.
fn as_json(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn filled(template: &str, values: &[(&str, String)], written: fn(&str) -> String) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    // One pass: what was filled in is not looked through for names again.
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let found = values.iter().find_map(|(name, value)| {
            let after = from[1..].strip_prefix(name)?.strip_prefix('}')?;
            Some((value, after))
        });
        match found {
            Some((value, after)) => {
                text.push_str(&written(value));
                rest = after;
            }
            None => {
                text.push('{');
                rest = &from[1..];
            }
        }
    }
    text.push_str(rest);
    text
}

//! Vendors that push in a form of their own, described by a file instead of a program (hotline.md
//! §2e): `config/hotline/*.toml`.
//!
//! A mapping says where each fact stands and how it is written. Each carries examples with what they
//! must come to, and is checked against them whenever it is loaded: a mapping that does not do what
//! it says is refused, at start and not by the first call.
//!
//! A place is a pointer into the body (`/SessionId`, RFC 6901), a parameter of the address
//! (`?action`) or a header (`header:x-push-uuid`). A list of places means the first that says
//! something. Where one push tells of several calls, `whole:/eventType` looks at what stands around
//! them.

use crate::{
    call::{AudioRef, CallEvent, Kind, Outcome, Recording, Unread},
    json,
    phone::{Caller, Numbering},
    pull::{PAGE, Page, Pull},
    text::{BODY_LIMIT, KEY, decode, fact, field, form, percent},
    time::{TimeFormat, Unit, Zone},
};
use chrono::{DateTime, Utc};
use intake_contract::{Answer, Method, Request};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The mappings that come with the gateway: name and text.
pub const SHIPPED: [(&str, &str); 4] = [
    ("tencent-tccc", include_str!("../../../config/hotline/tencent-tccc.toml")),
    ("aliyun-vms", include_str!("../../../config/hotline/aliyun-vms.toml")),
    ("huawei-voicecall", include_str!("../../../config/hotline/huawei-voicecall.toml")),
    ("yeastar-p", include_str!("../../../config/hotline/yeastar-p.toml")),
];

/// Calls in one push. Vendors put up to 50 together; what tells of more is kept for staff instead.
const CALLS: usize = 200;

/// A vendor's form.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The vendor's name, for people.
    pub title: String,
    /// The zone of times that are written without one.
    tz: Zone,
    /// How the body is wrapped.
    #[serde(default)]
    body: Body,
    /// Pointers to texts that hold JSON, which is stepped into.
    #[serde(default)]
    strings: Vec<String>,
    /// Pointer to the list of calls, where one push tells of several; pointers of `map` start at its
    /// elements then.
    each: Option<String>,
    /// Where the push's own identity stands.
    delivery_id: Option<String>,
    /// What the vendor takes for "received".
    ack: Ack,
    /// What is understood; the first one whose conditions hold is taken, and where none does, the
    /// push is acknowledged and tells of no call.
    map: Vec<Rule>,
    /// Examples.
    fixture: Vec<Fixture>,
    /// The vendor's own list of calls, where it has one that can be asked for.
    pull: Option<Pull>,
}

/// How a body is wrapped.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    #[default]
    Json,
    /// The form's fields are what JSON's would be.
    Form,
    /// JSON in this field of a form.
    FormJson(String),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    status: u16,
    json: Option<serde_json::Value>,
    text: Option<String>,
}

/// One kind of push.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    kind: Kind,
    /// Places and the values one of which must stand there; `*` is any that says something.
    #[serde(default)]
    when: BTreeMap<String, Vec<String>>,
    call_key: Field,
    listed_as: Option<Field>,
    recording_key: Option<Field>,
    caller: Option<Field>,
    caller_name: Option<Field>,
    callee: Option<Field>,
    call_started: Option<Field>,
    rec_started: Option<Field>,
    ended: Option<Field>,
    call_length: Option<Field>,
    rec_length: Option<Field>,
    spoken_length: Option<Field>,
    audio_url: Option<Field>,
    audio_file: Option<Field>,
    audio_pull: Option<Field>,
    outcome: Option<Field>,
}

/// Where a fact stands and how it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Written")]
struct Field(Full);

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
    Full(Full),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Full {
    /// The first of these that says something.
    at: Vec<String>,
    /// All of these, joined by `/`; nothing if one is missing. For identities in two parts.
    all: Vec<String>,
    /// What stands for the fact whatever is pushed.
    value: Option<String>,
    /// The value is percent-encoded.
    urldecode: bool,
    /// Of a time.
    fmt: Option<TimeFormat>,
    /// Of a time that is written in another zone than the mapping's others.
    tz: Option<Zone>,
    /// Of a span.
    unit: Unit,
    /// Of an outcome: what the vendor's words mean. Others say nothing.
    table: BTreeMap<String, Outcome>,
}

impl From<Written> for Field {
    fn from(written: Written) -> Self {
        Self(match written {
            Written::One(at) => Full { at: vec![at], ..Full::default() },
            Written::Several(at) => Full { at, ..Full::default() },
            Written::Full(full) => full,
        })
    }
}

/// An example.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixture {
    name: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: String,
    #[serde(default)]
    expect: Vec<Expected>,
}

/// A call as a fixture writes it. What is not written must not be known.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    kind: Kind,
    call_key: String,
    listed_as: Option<String>,
    recording_key: Option<String>,
    /// `+8613900001234`, `+862423456789,8001`, `anonymous`, or as written.
    caller: Option<String>,
    caller_name: Option<String>,
    callee: Option<String>,
    call_started: Option<DateTime<Utc>>,
    rec_started: Option<DateTime<Utc>>,
    ended: Option<DateTime<Utc>>,
    call_s: Option<u32>,
    rec_ms: Option<u32>,
    spoken_ms: Option<u32>,
    audio: Option<String>,
    outcome: Option<Outcome>,
}

/// A mapping is not used, because of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MappingError(String);

/// What a push tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The calls.
    pub calls: Vec<CallEvent>,
    /// Why the push, or a part of it, could not be read: it is kept for staff then.
    pub unread: Option<Unread>,
    /// The push's own identity, where it has one.
    pub delivery_id: Option<String>,
}

impl Mapping {
    /// One of the [`SHIPPED`] by its name.
    ///
    /// # Errors
    /// [`MappingError`] when there is none of this name.
    pub fn shipped(name: &str) -> Result<Self, MappingError> {
        match SHIPPED.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::load(text),
            None => {
                let names = SHIPPED.map(|(name, _)| name).join(", ");
                Err(MappingError(format!("there is no mapping {name}; there are {names}")))
            }
        }
    }

    /// Reads a mapping and tries it on its examples.
    ///
    /// # Errors
    /// [`MappingError`], a sentence that says where it is wrong.
    pub fn load(text: &str) -> Result<Self, MappingError> {
        let mapping: Self =
            toml::from_str(text).map_err(|error| MappingError(error.to_string()))?;
        mapping.check().map_err(MappingError)?;
        Ok(mapping)
    }

    fn check(&self) -> Result<(), String> {
        if !(200..300).contains(&self.ack.status) {
            return Err("ack.status must be 200 to 299: others mean \"send again\"".to_owned());
        }
        let pointers = self.strings.iter().chain(&self.each);
        if let Some(bad) = pointers.into_iter().find(|pointer| !json::is_pointer(pointer)) {
            return Err(format!("{bad} is no pointer: one starts with /"));
        }
        check_rules(&self.map, self.delivery_id.as_ref())?;
        self.try_fixtures()?;
        let Some(pull) = &self.pull else { return Ok(()) };
        pull.check()?;
        check_rules(&pull.map, None)?;
        self.try_pages(pull)
    }

    /// Every example comes to what it says, and every rule has one.
    fn try_fixtures(&self) -> Result<(), String> {
        let mut tried = vec![false; self.map.len()];
        for fixture in &self.fixture {
            let headers: Vec<(&str, &[u8])> =
                fixture.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
            let (query, body) = (fixture.query.as_str(), fixture.body.as_bytes());
            let request = Request { method: Method::Post, query, headers: &headers, body };
            let name = &fixture.name;
            let told = self.read_noting("fixture", request, &Numbering::default(), &mut tried);
            if let Some(unread) = told.unread {
                return Err(format!("the fixture {name} could not be read: {unread}"));
            }
            let came: Vec<Expected> = told.calls.iter().map(Expected::from).collect();
            fixture.compare(&came)?;
        }
        match tried.iter().position(|tried| !tried) {
            Some(index) => Err(format!("no fixture tries rule {} of map", index + 1)),
            None => Ok(()),
        }
    }

    /// The same for pages of the vendor's list.
    fn try_pages(&self, pull: &Pull) -> Result<(), String> {
        let mut tried = vec![false; pull.map.len()];
        for fixture in &pull.fixture {
            let page = self.page_noting(
                "fixture",
                fixture.body.as_bytes(),
                &Numbering::default(),
                &mut tried,
            );
            let name = &fixture.name;
            let page = page.map_err(|unread| format!("the fixture {name} of pull: {unread}"))?;
            if !page.unread.is_empty() {
                return Err(format!("an entry of the fixture {name} of pull could not be read"));
            }
            let came: Vec<Expected> = page.calls.iter().map(|(call, _)| call.into()).collect();
            fixture.compare(&came)?;
        }
        match tried.iter().position(|tried| !tried) {
            Some(index) => Err(format!("no fixture tries rule {} of pull.map", index + 1)),
            None => Ok(()),
        }
    }

    /// The vendor's own list of calls, where it has one that can be asked for.
    #[must_use]
    pub fn pull(&self) -> Option<&Pull> {
        self.pull.as_ref()
    }

    /// The zone of times that are written without one.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.tz
    }

    /// What a page of that list tells.
    ///
    /// # Errors
    /// [`Unread`]: there is no list in it.
    pub fn page(&self, source: &str, body: &[u8], numbering: &Numbering) -> Result<Page, Unread> {
        let rules = self.pull.as_ref().map_or(0, |pull| pull.map.len());
        self.page_noting(source, body, numbering, &mut vec![false; rules])
    }

    fn page_noting(
        &self,
        source: &str,
        body: &[u8],
        numbering: &Numbering,
        tried: &mut [bool],
    ) -> Result<Page, Unread> {
        let pull = self.pull.as_ref().ok_or(Unread::Form)?;
        if body.len() > BODY_LIMIT {
            return Err(Unread::TooLarge);
        }
        let text = decode(body);
        if !json::is_sound(&text) {
            return Err(Unread::Json);
        }
        let entries = json::list(&text, &pull.each, &self.strings).ok_or(Unread::Form)?;
        if entries.len() > PAGE as usize {
            return Err(Unread::TooLarge);
        }
        let request = Request { method: Method::Get, query: "", headers: &[], body: &[] };
        let mut page = Page { entries: entries.len(), ..Page::default() };
        for entry in entries {
            let push = Push { request, whole: &text, document: &entry, strings: &self.strings };
            let Some(index) = pull.map.iter().position(|rule| rule.holds(&push)) else { continue };
            if let Some(tried) = tried.get_mut(index) {
                *tried = true;
            }
            match pull.map[index].call(source, &push, self.tz, numbering) {
                Ok(call) => page.calls.push((call, entry)),
                Err(unread) => page.unread.push((unread, entry)),
            }
        }
        Ok(page)
    }

    /// What a verified push tells.
    #[must_use]
    pub fn read(&self, source: &str, request: Request<'_>, numbering: &Numbering) -> Told {
        self.read_noting(source, request, numbering, &mut vec![false; self.map.len()])
    }

    /// The answer by which the vendor knows that it has arrived.
    #[must_use]
    pub fn acknowledgement(&self) -> Answer {
        match (&self.ack.json, &self.ack.text) {
            (Some(json), _) => Answer {
                status: self.ack.status,
                content_type: "application/json",
                body: json.to_string().into_bytes(),
            },
            (None, text) => Answer::text(self.ack.status, text.clone().unwrap_or_default()),
        }
    }

    fn read_noting(
        &self,
        source: &str,
        request: Request<'_>,
        numbering: &Numbering,
        tried: &mut [bool],
    ) -> Told {
        let mut told = Told::default();
        if request.body.len() > BODY_LIMIT {
            told.unread = Some(Unread::TooLarge);
            return told;
        }
        let document = match self.open(request.body) {
            Ok(document) => document,
            Err(unread) => {
                told.unread = Some(unread);
                return told;
            }
        };
        let whole = Push { request, whole: &document, document: &document, strings: &self.strings };
        let delivery_id = self.delivery_id.as_ref().and_then(|place| whole.at(place));
        told.delivery_id = delivery_id.and_then(|id| crate::text::key(&id));
        let elements = match &self.each {
            None => vec![document.clone()],
            Some(pointer) => match json::list(&document, pointer, &self.strings) {
                Some(elements) if elements.len() <= CALLS => elements,
                Some(_) => {
                    told.unread = Some(Unread::TooLarge);
                    return told;
                }
                None => {
                    told.unread = Some(Unread::Form);
                    return told;
                }
            },
        };
        for element in &elements {
            let push = Push { document: element, ..whole };
            let Some(index) = self.map.iter().position(|rule| rule.holds(&push)) else { continue };
            if let Some(tried) = tried.get_mut(index) {
                *tried = true;
            }
            match self.map[index].call(source, &push, self.tz, numbering) {
                Ok(call) => told.calls.push(call),
                // Its neighbours are not lost for it.
                Err(unread) => told.unread = Some(unread),
            }
        }
        told
    }

    /// The JSON that the pointers go through.
    fn open(&self, body: &[u8]) -> Result<String, Unread> {
        let text = decode(body);
        let document = match &self.body {
            Body::Json => text,
            Body::FormJson(name) => field(&form(&text), name).ok_or(Unread::Form)?.to_owned(),
            Body::Form => {
                let fields: BTreeMap<String, String> = form(&text).into_iter().collect();
                serde_json::to_string(&fields).map_err(|_| Unread::Form)?
            }
        };
        if json::is_sound(&document) { Ok(document) } else { Err(Unread::Json) }
    }
}

/// Places and formats of rules are such as there are.
fn check_rules(rules: &[Rule], delivery_id: Option<&String>) -> Result<(), String> {
    let fields = rules.iter().flat_map(|rule| {
        let optional = [
            &rule.listed_as,
            &rule.recording_key,
            &rule.caller,
            &rule.caller_name,
            &rule.callee,
            &rule.call_started,
            &rule.rec_started,
            &rule.ended,
            &rule.call_length,
            &rule.rec_length,
            &rule.spoken_length,
            &rule.audio_url,
            &rule.audio_file,
            &rule.audio_pull,
            &rule.outcome,
        ];
        optional.into_iter().flatten().chain([&rule.call_key])
    });
    let places = fields.flat_map(|field| field.0.at.iter().chain(&field.0.all));
    let conditions = rules.iter().flat_map(|rule| rule.when.keys());
    let place_is_known = |place: &&String| {
        place.starts_with('?')
            || place.starts_with("header:")
            || json::is_pointer(place.strip_prefix("whole:").unwrap_or(place))
    };
    let mut all = places.chain(conditions).chain(delivery_id);
    if let Some(bad) = all.find(|place| !place_is_known(place)) {
        return Err(format!("{bad} is no place: one starts with /, ? or header:"));
    }
    for rule in rules {
        let times = [&rule.call_started, &rule.rec_started, &rule.ended];
        if times.into_iter().flatten().any(|field| field.0.fmt.is_none()) {
            return Err("call_started, rec_started and ended need fmt".to_owned());
        }
        if rule.outcome.as_ref().is_some_and(|f| f.0.table.is_empty()) {
            return Err("outcome needs a table of the vendor's words".to_owned());
        }
    }
    Ok(())
}

impl Fixture {
    fn compare(&self, came: &[Expected]) -> Result<(), String> {
        let name = &self.name;
        if came.len() != self.expect.len() {
            let (came, wanted) = (came.len(), self.expect.len());
            return Err(format!("the fixture {name} tells of {came} calls, not of {wanted}"));
        }
        for (came, wanted) in came.iter().zip(&self.expect) {
            if came != wanted {
                return Err(format!(
                    "the fixture {name} does not come to what it says:\n came: {came:?}\n says: {wanted:?}"
                ));
            }
        }
        Ok(())
    }
}

/// One element of a push, and what came around it.
#[derive(Clone, Copy)]
struct Push<'a> {
    request: Request<'a>,
    whole: &'a str,
    document: &'a str,
    strings: &'a [String],
}

impl Push<'_> {
    fn at(&self, place: &str) -> Option<String> {
        if let Some(name) = place.strip_prefix('?') {
            return field(&form(self.request.query), name).map(str::to_owned);
        }
        if let Some(name) = place.strip_prefix("header:") {
            return self.request.header(name).map(str::to_owned).filter(|value| !value.is_empty());
        }
        match place.strip_prefix("whole:") {
            Some(place) => json::at(self.whole, place, self.strings),
            None => json::at(self.document, place, self.strings),
        }
    }

    fn text(&self, field: Option<&Field>) -> Option<String> {
        let Field(field) = field?;
        let found = if !field.all.is_empty() {
            let parts: Option<Vec<String>> = field.all.iter().map(|place| self.at(place)).collect();
            parts.map(|parts| parts.join("/"))
        } else {
            field.at.iter().find_map(|place| self.at(place)).or_else(|| field.value.clone())
        };
        found.map(|text| if field.urldecode { percent(&text) } else { text })
    }

    fn time(&self, field: Option<&Field>, zone: Zone) -> Option<DateTime<Utc>> {
        let full = &field?.0;
        full.fmt?.read(&self.text(field)?, full.tz.unwrap_or(zone))
    }

    fn millis(&self, field: Option<&Field>) -> Option<u32> {
        field?.0.unit.millis(&self.text(field)?)
    }
}

impl Rule {
    fn holds(&self, push: &Push<'_>) -> bool {
        self.when.iter().all(|(place, values)| {
            let fits =
                |there: &str| values.iter().any(|value| value == "*" || value == there.trim());
            push.at(place).is_some_and(|there| fits(&there))
        })
    }

    fn call(
        &self,
        source: &str,
        push: &Push<'_>,
        zone: Zone,
        numbering: &Numbering,
    ) -> Result<CallEvent, Unread> {
        let text = |field: &Option<Field>| push.text(field.as_ref());
        let time = |field: &Option<Field>| push.time(field.as_ref(), zone);
        let millis = |field: &Option<Field>| push.millis(field.as_ref());
        let call_key = push.text(Some(&self.call_key)).ok_or(Unread::Key)?;
        let mut call = CallEvent::new(source, &call_key, self.kind)?;
        call.listed_as = text(&self.listed_as).and_then(|id| crate::text::key(&id));
        call.caller = text(&self.caller).map(|number| numbering.read(&number));
        call.callee = text(&self.callee).and_then(|number| fact(&number, KEY));
        call.started_at = time(&self.call_started);
        call.ended_at = time(&self.ended);
        call.call_s = millis(&self.call_length).map(|ms| ms / 1000);
        call.outcome = match (&self.outcome, self.kind) {
            (Some(field), _) => {
                text(&self.outcome).and_then(|said| field.0.table.get(said.trim()).copied())
            }
            (None, Kind::Voicemail) => Some(Outcome::MessageLeft),
            (None, _) => None,
        };
        let call_name = text(&self.caller_name);
        let mut call = call.named(call_name.as_deref());
        match text(&self.recording_key) {
            Some(key) => {
                let audio = text(&self.audio_url)
                    .and_then(|url| AudioRef::parse(&url))
                    .filter(|audio| matches!(audio, AudioRef::Http(_)))
                    .or_else(|| {
                        text(&self.audio_file)
                            .and_then(|path| fact(&path, KEY * 2))
                            .map(AudioRef::Local)
                    })
                    .or_else(|| {
                        text(&self.audio_pull).and_then(|id| fact(&id, KEY * 2)).map(AudioRef::Pull)
                    });
                let recording = Recording {
                    started_at: time(&self.rec_started),
                    ms: millis(&self.rec_length),
                    spoken_ms: millis(&self.spoken_length),
                    audio,
                    sha256: None,
                };
                call.recordings.insert(crate::text::key(&key).ok_or(Unread::Key)?, recording);
            }
            // A message that nobody can find is none.
            None if self.kind == Kind::Voicemail => return Err(Unread::Key),
            None => {}
        }
        Ok(call)
    }
}

impl From<&CallEvent> for Expected {
    fn from(call: &CallEvent) -> Self {
        let recording = call.recordings.first_key_value();
        let known = recording.map(|(_, recording)| recording);
        Self {
            kind: call.kind,
            call_key: call.call_key.clone(),
            listed_as: call.listed_as.clone(),
            recording_key: recording.map(|(key, _)| key.clone()),
            caller: call.caller.as_ref().map(|caller| match caller {
                Caller::Known(number) => match &number.ext {
                    Some(ext) => format!("{},{ext}", number.e164),
                    None => number.e164.clone(),
                },
                Caller::Raw(raw) => raw.clone(),
                Caller::Anonymous => "anonymous".to_owned(),
            }),
            caller_name: call.caller_name.clone(),
            callee: call.callee.clone(),
            call_started: call.started_at,
            rec_started: known.and_then(|r| r.started_at),
            ended: call.ended_at,
            call_s: call.call_s,
            rec_ms: known.and_then(|r| r.ms),
            spoken_ms: known.and_then(|r| r.spoken_ms),
            audio: known.and_then(|r| r.audio.as_ref()).map(|audio| match audio {
                AudioRef::Http(url) => url.clone(),
                AudioRef::Local(path) => format!("file:{path}"),
                AudioRef::Pull(id) => format!("pull:{id}"),
            }),
            outcome: call.outcome,
        }
    }
}

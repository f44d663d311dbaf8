//! The entry of a source that pushes over HTTP: verify, read, and the answer that its sender takes for
//! "received".

use crate::{
    asterisk,
    call::{CallEvent, Kind, Unread},
    channel::SourceError,
    freeswitch,
    mapping::{Mapping, Told},
    phone::Numbering,
    text::BODY_LIMIT,
    time::Zone,
    twilio,
    verify::{Auth, Verify},
};
use chrono::{DateTime, Utc};
use intake_contract::{Answer, Method, Refusal, Request};
use std::net::IpAddr;

/// In which language a source speaks.
#[derive(Debug, Clone)]
pub enum Format {
    /// FreeSWITCH's call records, by whichever of its modules.
    Freeswitch,
    /// Twilio's callbacks.
    Twilio,
    /// Asterisk's events, as a relay or the dialplan posts them.
    Asterisk {
        /// That of its clock.
        zone: Zone,
        /// In which calls come in; none: in any.
        contexts: Vec<String>,
    },
    /// A vendor's, by a mapping.
    Mapped(Box<Mapping>),
}

/// A source that pushes.
#[derive(Debug, Clone)]
pub struct PushSource {
    name: String,
    verify: Verify,
    numbering: Numbering,
    format: Format,
}

/// A verified push. Its sender may have `answer` only once what it tells is durable (invariant 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it tells; nothing where it is of no concern here, such as an outgoing call.
    pub calls: Vec<CallEvent>,
    /// Why it, or a part of it, could not be read: the original is kept for staff then, with this
    /// reason. The answer is the same, for the sender can do nothing about it.
    pub unread: Option<Unread>,
    /// The push's own identity, where it has one.
    pub delivery_id: Option<String>,
    /// What its sender takes for "received".
    pub answer: Answer,
}

impl PushSource {
    /// A source by its name in the address.
    ///
    /// # Errors
    /// [`SourceError`] names the setting that is wrong.
    pub fn new(
        id: &str,
        verify: Verify,
        numbering: Numbering,
        format: Format,
    ) -> Result<Self, SourceError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || id.len() > 32 || !id.chars().all(plain) {
            let says = "must be 1 to 32 letters, digits, hyphens";
            return Err(SourceError { key: "id", says });
        }
        verify.check().map_err(|says| SourceError { key: "verify", says })?;
        if matches!(format, Format::Twilio) != matches!(verify.auth, Auth::Twilio { .. }) {
            let says = "of kind twilio belongs to the format twilio, and the other way round";
            return Err(SourceError { key: "verify.auth", says });
        }
        let area = &numbering.area;
        let is_area = area.starts_with('0') && area.bytes().all(|b| b.is_ascii_digit());
        let fits = area.is_empty() || (is_area && matches!(area.len(), 3 | 4));
        if !fits {
            let says = "must be an area with its 0, such as 024";
            return Err(SourceError { key: "numbering.area", says });
        }
        let plain = |c: char| c.is_ascii_digit() || "Xx+-() ".contains(c);
        let is_number = |own: &String| {
            own.len() <= 40 && own.chars().all(plain) && own.contains(|c: char| c.is_ascii_digit())
        };
        if !numbering.own.iter().all(is_number) {
            let says = "must be numbers or extensions; X stands for any digit: 8XXX";
            return Err(SourceError { key: "numbering.own", says });
        }
        // The tables of numbers unfold on first use, which would be the first caller's time.
        let _ = numbering.read("13900001234");
        Ok(Self { name: format!("hotline:{id}"), verify, numbering, format })
    }

    /// Who vouches for what it tells: `hotline:pbx1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The greatest body that is read, in bytes.
    #[must_use]
    pub fn body_limit(&self) -> usize {
        BODY_LIMIT
    }

    /// Verifies, then reads. `peer` is the sender's address as far as trusted proxies tell it.
    ///
    /// # Errors
    /// [`Refusal`] for everything that is not provably from this source.
    pub fn verify(
        &self,
        request: Request<'_>,
        peer: Option<IpAddr>,
        now: DateTime<Utc>,
    ) -> Result<Received, Refusal> {
        if request.method != Method::Post {
            return Err(Refusal::new(401, "bad_signature"));
        }
        if request.body.len() > BODY_LIMIT {
            return Err(Refusal::new(413, "too_large"));
        }
        self.verify.verify(request, peer, now)?;
        let told = self.read(request);
        let answer = match &self.format {
            Format::Freeswitch | Format::Asterisk { .. } => Answer::text(200, ""),
            // An empty document: nothing more to do with the call.
            Format::Twilio => Answer {
                status: 200,
                content_type: "text/xml; charset=utf-8",
                body: b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>".to_vec(),
            },
            Format::Mapped(mapping) => mapping.acknowledgement(),
        };
        let Told { calls, unread, delivery_id } = told;
        Ok(Received { calls, unread, delivery_id, answer })
    }

    /// What is kept of a push: its query, where it has one, and its body. Without headers and without
    /// a token of the address.
    #[must_use]
    pub fn original(&self, request: Request<'_>) -> Vec<u8> {
        let secret = match &self.verify.auth {
            Auth::QueryToken { name, .. } => Some(name.as_str()),
            _ => None,
        };
        let is_secret = |pair: &&str| {
            let name = crate::text::percent(pair.split('=').next().unwrap_or_default());
            secret == Some(name.as_str())
        };
        let query: Vec<&str> = request.query.split('&').filter(|pair| !is_secret(pair)).collect();
        let mut kept = Vec::with_capacity(request.query.len() + request.body.len() + 2);
        if query.iter().any(|pair| !pair.is_empty()) {
            kept.push(b'?');
            kept.extend_from_slice(query.join("&").as_bytes());
            kept.push(b'\n');
        }
        kept.extend_from_slice(request.body);
        kept
    }

    /// Reads again what [`Self::original`] kept.
    #[must_use]
    pub fn reread(&self, original: &[u8]) -> Told {
        let line = original.iter().position(|byte| *byte == b'\n');
        let (query, body) = match (original.first(), line) {
            (Some(b'?'), Some(end)) => (&original[1..end], &original[end + 1..]),
            _ => (&[][..], original),
        };
        let query = std::str::from_utf8(query).unwrap_or_default();
        self.read(Request { method: Method::Post, query, headers: &[], body })
    }

    /// The vendor's mapping, where it is one.
    #[must_use]
    pub fn mapping(&self) -> Option<&Mapping> {
        match &self.format {
            Format::Mapped(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// Reads what was verified when it came: a body from quarantine, a file that FreeSWITCH left.
    #[must_use]
    pub fn read(&self, request: Request<'_>) -> Told {
        let mut told = self.read_all(request);
        // Who calls from the office is no citizen; a message is one, whoever leaves it.
        told.calls.retain(|call| {
            let own = call.caller.as_ref().is_some_and(|caller| self.numbering.is_own(caller));
            call.kind == Kind::Voicemail || !own
        });
        told
    }

    fn read_all(&self, request: Request<'_>) -> Told {
        let (query, body) = (request.query, request.body);
        let one = match &self.format {
            Format::Mapped(mapping) => return mapping.read(&self.name, request, &self.numbering),
            Format::Asterisk { zone, contexts } => {
                let of = (*zone, contexts.as_slice());
                let (calls, unread) = asterisk::posted(&self.name, body, of, &self.numbering);
                return Told { calls, unread, ..Told::default() };
            }
            Format::Freeswitch => freeswitch::parse(&self.name, body, &self.numbering),
            Format::Twilio => twilio::parse(&self.name, query, body, &self.numbering),
        };
        match one {
            Ok(call) => Told { calls: call.into_iter().collect(), ..Told::default() },
            Err(unread) => Told { unread: Some(unread), ..Told::default() },
        }
    }
}

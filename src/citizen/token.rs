//! Links that open one ticket and nothing else (S20). A link is made without a write: it says which
//! ticket and since when, under a seal of 128 bits with the office's key. The same ticket and moment
//! give the same link, so that a repeated answer reads the same.

use crate::{
    domain::{id::OfficeId, register::RegisterNumber},
    offices::{Office, Offices},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Another layout is another version.
const VERSION: u8 = 1;
/// Version, office, ticket, second of issue.
const CONTENT: usize = 1 + 4 + 8 + 4;
/// 128 bits of HMAC-SHA256.
const SEAL: usize = 16;

/// What a seal is for; what was sealed for one purpose is worth nothing for another.
const LINK: &str = "citizen link";

/// Makes and opens links. Cheap to share.
#[derive(Debug)]
pub struct Links {
    offices: Arc<Offices>,
    base: Option<String>,
    life: TimeDelta,
}

/// A link that was opened: made here and not over. Whether it was revoked, the database says
/// ([`super::is_revoked`]).
#[derive(Debug, Clone)]
pub struct Opened {
    /// The ticket's office.
    pub office: Arc<Office>,
    /// The ticket.
    pub ticket: RegisterNumber,
    /// When the link was made, to the second, in UTC.
    pub issued_at: DateTime<Utc>,
}

impl Links {
    /// Links below `public_url`, good for so many days.
    #[must_use]
    pub fn new(offices: Arc<Offices>, public_url: &str, days: i64) -> Self {
        let base = public_url.trim_end_matches('/');
        let base = (!base.is_empty()).then(|| base.to_owned());
        Self { offices, base, life: TimeDelta::days(days) }
    }

    /// Where citizens' telephones reach the gateway, without a slash at the end; `None` when nobody
    /// said.
    #[must_use]
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The address of a ticket's page; `None` without a public address.
    #[must_use]
    pub fn url(
        &self,
        office: OfficeId,
        ticket: RegisterNumber,
        issued_at: DateTime<Utc>,
    ) -> Option<String> {
        let base = self.base()?;
        Some(format!("{base}{}", self.path(office, ticket, issued_at)?))
    }

    /// As [`Self::url`], below this host; `None` for an office that is not known (yet).
    #[must_use]
    pub fn path(
        &self,
        office: OfficeId,
        ticket: RegisterNumber,
        issued_at: DateTime<Utc>,
    ) -> Option<String> {
        let office = self.offices.get(office)?;
        let issued = u32::try_from(issued_at.timestamp()).ok()?;
        let mut token = Vec::with_capacity(CONTENT + SEAL);
        token.push(VERSION);
        token.extend_from_slice(&office.id.0.to_be_bytes());
        token.extend_from_slice(&ticket.as_i64().to_be_bytes());
        token.extend_from_slice(&issued.to_be_bytes());
        let seal = seal(office.link_key.expose_secret(), LINK, &token);
        token.extend_from_slice(&seal);
        Some(format!("/c/{}", BASE64_URL_SAFE_NO_PAD.encode(token)))
    }

    /// The ticket that a token opens; `None` for what was not made here or is over, whatever the
    /// reason.
    #[must_use]
    pub fn open(&self, token: &str, now: DateTime<Utc>) -> Option<Opened> {
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let token: [u8; CONTENT + SEAL] = token.try_into().ok()?;
        let (content, sealed) = token.split_at(CONTENT);
        let (version, rest) = content.split_first()?;
        let (office, rest) = rest.split_first_chunk::<4>()?;
        let (ticket, issued) = rest.split_first_chunk::<8>()?;
        let office = self.offices.get(OfficeId(i32::from_be_bytes(*office)))?;
        let wanted = seal(office.link_key.expose_secret(), LINK, content);
        if *version != VERSION || !bool::from(wanted.ct_eq(sealed)) {
            return None;
        }
        let ticket = RegisterNumber::from_i64(i64::from_be_bytes(*ticket)).ok()?;
        let issued = u32::from_be_bytes(issued.try_into().ok()?);
        let issued_at = DateTime::from_timestamp(issued.into(), 0)?;
        (now - issued_at < self.life).then_some(Opened { office, ticket, issued_at })
    }
}

/// Seals something else for the same reader, until a moment: for a cookie.
#[must_use]
pub fn wrap(office: &Office, purpose: &str, content: &str, until: DateTime<Utc>) -> String {
    let sealed = format!("{}.{content}", until.timestamp());
    let seal = seal(office.link_key.expose_secret(), purpose, sealed.as_bytes());
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}", encode(sealed.as_bytes()), encode(&seal))
}

/// What [`wrap`] sealed for the same purpose; `None` when it was not, or its time is over.
#[must_use]
pub fn unwrap(office: &Office, purpose: &str, text: &str, now: DateTime<Utc>) -> Option<String> {
    let (sealed, given) = text.split_once('.')?;
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
    let given = BASE64_URL_SAFE_NO_PAD.decode(given).ok()?;
    let wanted = seal(office.link_key.expose_secret(), purpose, &sealed);
    if !bool::from(wanted.as_slice().ct_eq(&given)) {
        return None;
    }
    let sealed = String::from_utf8(sealed).ok()?;
    let (until, content) = sealed.split_once('.')?;
    (now.timestamp() < until.parse().ok()?).then(|| content.to_owned())
}

fn seal(key: &[u8], purpose: &str, content: &[u8]) -> [u8; SEAL] {
    let mut seal = [0; SEAL];
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return seal };
    mac.update(purpose.as_bytes());
    mac.update(&[0]);
    mac.update(content);
    seal.copy_from_slice(&mac.finalize().into_bytes()[..SEAL]);
    seal
}

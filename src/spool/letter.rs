//! What a verified sender sent, word for word, and its form at rest: sealed with a key of its office,
//! which the database holds, so that what is stolen with the disk cannot be read, and what a machine
//! leaves behind can be read by every other gateway of the same database.

use super::log::{HEAD, Head, LONGEST};
use crate::{domain::id::OfficeId, offices::Office, secret};
use bytes::Bytes;
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit as _, Payload},
};
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use intake_contract::{Method, Request};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::net::IpAddr;

/// What the office's key is used for here.
const PURPOSE: &[u8] = b"spool entry";
/// Random ones of 192 bits never meet.
const NONCE: usize = 24;

/// A request that a channel or a source has verified, and when it came. Full of personal data: never
/// shown, and there is no `Debug`.
pub struct Letter {
    /// Whose it is.
    pub office: OfficeId,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// Which channel or source it was sent to: `wechat/main`, `hotline/pbx1`.
    pub address: String,
    /// Who sent it, as far as trusted proxies tell it.
    pub peer: IpAddr,
    /// Without `?`.
    pub query: String,
    /// Names in lower case, values raw.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Bytes,
}

/// Everything but the body, in front of it.
#[derive(Serialize, Deserialize)]
struct Cover {
    address: String,
    peer: IpAddr,
    query: String,
    /// Each byte of a value as the character of that number.
    headers: Vec<(String, String)>,
}

impl Letter {
    /// Calls `read` with the request as adapters see it.
    pub fn with_request<T>(&self, read: impl FnOnce(Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let Self { query, body, .. } = self;
        read(Request { method: Method::Post, query, headers: &headers, body })
    }

    /// As it lies in the file; `None` when it is too long for that.
    pub(super) fn seal(&self, office: &Office) -> Option<Vec<u8>> {
        let as_text = |value: &Vec<u8>| value.iter().map(|byte| char::from(*byte)).collect();
        let cover = Cover {
            address: self.address.clone(),
            peer: self.peer,
            query: self.query.clone(),
            headers: self.headers.iter().map(|(n, v)| (n.clone(), as_text(v))).collect(),
        };
        let cover = serde_json::to_vec(&cover).ok()?;
        let mut content = u32::try_from(cover.len()).ok()?.to_be_bytes().to_vec();
        content.extend_from_slice(&cover);
        content.extend_from_slice(&self.body);
        let length = NONCE + content.len() + 16;
        if length > LONGEST {
            return None;
        }
        let head = Head {
            office: office.id.0,
            received_us: self.received_at.timestamp_micros(),
            length: u32::try_from(length).ok()?,
        };
        let head = head.bytes();
        let nonce = secret::random::<NONCE>();
        let payload = Payload { msg: &content, aad: &head };
        let sealed = cipher(office)?.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some([head.as_slice(), &nonce, &sealed].concat())
    }

    /// Reads what [`Self::seal`] wrote; `None` when it is damaged, or another key sealed it.
    pub(super) fn unseal(entry: &[u8], office: &Office) -> Option<Self> {
        let (head, rest) = entry.split_at_checked(HEAD)?;
        let read = Head::read(head)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let payload = Payload { msg: sealed, aad: head };
        let content = cipher(office)?.decrypt(&XNonce::from(*nonce), payload).ok()?;
        let (length, rest) = content.split_first_chunk::<4>()?;
        let (cover, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let Cover { address, peer, query, headers } = serde_json::from_slice(cover).ok()?;
        let as_bytes = |value: String| -> Option<Vec<u8>> {
            value.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
        };
        let headers: Option<Vec<_>> =
            headers.into_iter().map(|(name, value)| Some((name, as_bytes(value)?))).collect();
        Some(Self {
            office: office.id,
            received_at: DateTime::from_timestamp_micros(read.received_us)?,
            address,
            peer,
            query,
            headers: headers?,
            body: Bytes::copy_from_slice(body),
        })
    }
}

fn cipher(office: &Office) -> Option<XChaCha20Poly1305> {
    let mut mac = Hmac::<Sha256>::new_from_slice(office.link_key.expose_secret()).ok()?;
    mac.update(PURPOSE);
    XChaCha20Poly1305::new_from_slice(&mac.finalize().into_bytes()).ok()
}

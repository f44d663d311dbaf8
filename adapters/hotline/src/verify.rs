//! How a source proves that it is itself (hotline.md §2e). Each check works on the raw bytes, before
//! anything is read, and compares in constant time.

use crate::text::form;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use intake_contract::{Refusal, Request};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

const REFUSED: Refusal = Refusal::new(401, "bad_signature");
const STALE: Refusal = Refusal::new(401, "stale");

/// How far the clock of a signature may be from ours, in seconds.
const WINDOW_S: u64 = 300;

/// What a request must show.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The proof.
    pub auth: Auth,
    /// Networks that may send: `10.1.0.0/16`, `192.0.2.7/32`. Empty: any, as far as the proof is one.
    #[serde(default)]
    pub allow_ips: Vec<IpNet>,
}

/// The kinds of proof.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// None: some vendors send none. Only with a list of addresses.
    None,
    /// HTTP Basic.
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// `Authorization: Bearer …`.
    Bearer {
        /// The token.
        token: SecretString,
    },
    /// A token in the address. It stands in logs of every proxy on the way: the weakest of all.
    QueryToken {
        /// The parameter's name.
        name: String,
        /// The token.
        token: SecretString,
    },
    /// A keyed hash over parts of the request.
    Hmac {
        /// The hash.
        alg: HashKind,
        /// The key.
        secret: SecretString,
        /// What is hashed, in this order: `body`, `url`, `query`, `method`, `header:x-timestamp`,
        /// `query:nonce`, `text:.`.
        parts: Vec<String>,
        /// Where the signature stands: `header:x-signature`, `query:sign`.
        signature: String,
        /// What stands before it there: `sha256=`.
        #[serde(default)]
        prefix: String,
        /// How it is written.
        encoding: Encoding,
        /// Where the time of signing stands (seconds or milliseconds since 1970), where it is signed;
        /// it must be one of the parts.
        #[serde(default)]
        timestamp: Option<String>,
        /// The address as the sender has it, for `url`.
        #[serde(default)]
        public_url: String,
    },
    /// Huawei's `X-AKSK`: a WSSE token over address, nonce and time.
    HuaweiAksk {
        /// The application's key.
        app_key: String,
        /// Its secret.
        app_secret: SecretString,
        /// The address as configured there.
        public_url: String,
    },
    /// Twilio's `X-Twilio-Signature`.
    Twilio {
        /// The account's token.
        auth_token: SecretString,
        /// The address as Twilio has it, without query; never taken from the request, whose host and
        /// scheme are the proxy's (§5-12).
        public_url: String,
    },
}

/// The hash of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKind {
    /// HMAC-SHA1.
    Sha1,
    /// HMAC-SHA256.
    Sha256,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Hexadecimal, in either case.
    Hex,
    /// Base64.
    Base64,
    /// Base64 with `-` and `_`.
    Base64url,
}

impl Verify {
    /// Checks the settings; the sentence says what is wrong.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        let long_enough = |secret: &SecretString| secret.expose_secret().len() >= 8;
        let short = Err("auth: the secret must be at least 8 characters");
        match &self.auth {
            Auth::None if self.allow_ips.is_empty() => {
                Err("auth is none and allow_ips is empty: anybody could register calls")
            }
            // `0.0.0.0/0` is a list that lists nobody.
            Auth::None if self.allow_ips.iter().any(|net| net.prefix_len() == 0) => {
                Err("auth is none and allow_ips holds the whole Internet")
            }
            Auth::None => Ok(()),
            Auth::Basic { user, .. } if user.is_empty() => Err("auth.user is empty"),
            Auth::QueryToken { name, .. } if name.is_empty() => Err("auth.name is empty"),
            Auth::Basic { password: secret, .. }
            | Auth::Bearer { token: secret }
            | Auth::QueryToken { token: secret, .. }
                if !long_enough(secret) =>
            {
                short
            }
            Auth::Hmac { secret, .. } if !long_enough(secret) => short,
            Auth::Hmac { parts, signature, timestamp, public_url, .. } => {
                if !parts.iter().any(|part| part == "body") {
                    return Err("auth.parts must hold body: what is not signed can be changed");
                }
                if timestamp.as_ref().is_some_and(|timestamp| !parts.contains(timestamp)) {
                    return Err("auth.timestamp must be one of auth.parts: else it can be changed");
                }
                if parts.iter().any(|part| part == "url") && public_url.is_empty() {
                    return Err("auth.public_url is needed for the part url");
                }
                let known = |part: &str| {
                    matches!(part, "body" | "url" | "query" | "method")
                        || ["header:", "query:", "text:"].iter().any(|kind| part.starts_with(kind))
                };
                let placed = ["header:", "query:"].iter().any(|kind| signature.starts_with(kind));
                match parts.iter().all(|part| known(part)) && placed {
                    true => Ok(()),
                    false => Err("auth.parts or auth.signature names a part that there is not"),
                }
            }
            Auth::HuaweiAksk { app_secret, .. } if !long_enough(app_secret) => short,
            Auth::Twilio { auth_token, .. } if !long_enough(auth_token) => short,
            Auth::HuaweiAksk { public_url, .. } | Auth::Twilio { public_url, .. }
                if !public_url.starts_with("http") =>
            {
                Err("auth.public_url must be the address as the vendor has it, with https://")
            }
            _ => Ok(()),
        }
    }

    /// Whether the request comes from this source. `peer` is the sender's address as far as trusted
    /// proxies tell it; `None` is on no list.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(
        &self,
        request: Request<'_>,
        peer: Option<IpAddr>,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        if !self.allow_ips.is_empty() {
            let peer = peer.map(|peer| peer.to_canonical());
            let listed = peer.is_some_and(|peer| self.allow_ips.iter().any(|n| n.contains(&peer)));
            if !listed {
                return Err(Refusal::new(403, "bad_address"));
            }
        }
        match &self.auth {
            // Checked when the settings were read; without a list nobody is let in all the same.
            Auth::None if self.allow_ips.is_empty() => Err(REFUSED),
            Auth::None => Ok(()),
            Auth::Basic { user, password } => {
                let given = credential(request, "basic")?;
                let given = STANDARD.decode(given).map_err(|_| REFUSED)?;
                let wanted = format!("{user}:{}", password.expose_secret());
                alike(&given, wanted.as_bytes())
            }
            Auth::Bearer { token } => {
                let given = credential(request, "bearer")?;
                alike(given.as_bytes(), token.expose_secret().as_bytes())
            }
            Auth::QueryToken { name, token } => {
                let given = part(request, &format!("query:{name}"), "")?;
                alike(&given, token.expose_secret().as_bytes())
            }
            Auth::Hmac {
                alg,
                secret,
                parts,
                signature,
                prefix,
                encoding,
                timestamp,
                public_url,
            } => {
                let given = part(request, signature, "")?;
                let given = std::str::from_utf8(&given).map_err(|_| REFUSED)?.trim();
                let given = given.strip_prefix(prefix.as_str()).ok_or(REFUSED)?;
                let given = encoding.decode(given).ok_or(REFUSED)?;
                let mut hashed = Vec::with_capacity(request.body.len() + 128);
                for name in parts {
                    hashed.extend(part(request, name, public_url)?);
                }
                alike(&given, &keyed(*alg, secret, &hashed))?;
                match timestamp {
                    Some(place) => fresh(&part(request, place, "")?, now),
                    None => Ok(()),
                }
            }
            Auth::HuaweiAksk { app_key, app_secret, public_url } => {
                huawei(request, app_key, app_secret, public_url, now)
            }
            Auth::Twilio { auth_token, public_url } => {
                crate::twilio::verify(request, auth_token, public_url)
            }
        }
    }
}

impl Encoding {
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64url => URL_SAFE.encode(bytes),
        }
    }

    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64url => URL_SAFE.decode(text).ok(),
        }
    }
}

/// What stands behind the scheme in `Authorization`.
fn credential<'a>(request: Request<'a>, scheme: &str) -> Result<&'a str, Refusal> {
    let header = request.header("authorization").ok_or(REFUSED)?;
    let (given, credential) = header.trim().split_once(' ').ok_or(REFUSED)?;
    if given.eq_ignore_ascii_case(scheme) { Ok(credential.trim()) } else { Err(REFUSED) }
}

/// Equal, at a speed that tells neither where nor, by their hashes, in which length they differ.
pub(crate) fn alike(given: &[u8], wanted: &[u8]) -> Result<(), Refusal> {
    let equal = Sha256::digest(given).ct_eq(&Sha256::digest(wanted));
    if equal.into() { Ok(()) } else { Err(REFUSED) }
}

/// A keyed hash.
pub(crate) fn keyed(alg: HashKind, secret: &SecretString, data: &[u8]) -> Vec<u8> {
    fn mac<M: Mac + KeyInit>(secret: &SecretString, data: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length.
        match <M as KeyInit>::new_from_slice(secret.expose_secret().as_bytes()) {
            Ok(mac) => mac.chain_update(data).finalize().into_bytes().to_vec(),
            Err(_) => Vec::new(),
        }
    }
    match alg {
        HashKind::Sha1 => mac::<Hmac<Sha1>>(secret, data),
        HashKind::Sha256 => mac::<Hmac<Sha256>>(secret, data),
    }
}

/// A part of a request, by its name in a signature's description. A parameter or header that occurs
/// twice is none: two readers could take different ones.
pub(crate) fn part(request: Request<'_>, name: &str, public_url: &str) -> Result<Vec<u8>, Refusal> {
    let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
    Ok(match kind {
        "body" => request.body.to_vec(),
        "url" => public_url.as_bytes().to_vec(),
        "query" if rest.is_empty() => request.query.as_bytes().to_vec(),
        "query" => {
            let mut values = form(request.query).into_iter().filter(|(name, _)| name == rest);
            match (values.next(), values.next()) {
                (Some((_, value)), None) => value.into_bytes(),
                _ => return Err(REFUSED),
            }
        }
        "method" => match request.method {
            intake_contract::Method::Get => b"GET".to_vec(),
            intake_contract::Method::Post => b"POST".to_vec(),
        },
        "header" => request.header(rest).ok_or(REFUSED)?.as_bytes().to_vec(),
        "text" => rest.as_bytes().to_vec(),
        _ => return Err(REFUSED),
    })
}

/// Whether it was signed now; seconds or milliseconds since 1970.
fn fresh(written: &[u8], now: DateTime<Utc>) -> Result<(), Refusal> {
    let text = std::str::from_utf8(written).map_err(|_| STALE)?;
    let number: i64 = text.trim().parse().map_err(|_| STALE)?;
    // Seconds reach this figure in the year 5138.
    let seconds = if number > 100_000_000_000 { number / 1000 } else { number };
    if now.timestamp().abs_diff(seconds) > WINDOW_S { Err(STALE) } else { Ok(()) }
}

/// `UsernameToken Username="…", PasswordDigest="…", Nonce="…", Created="…"`, the digest being
/// `Base64(HMAC-SHA256(secret, url \n nonce \n created))`. `Created` is Beijing's time with a `Z`
/// behind it (hotline.md §1.3).
fn huawei(
    request: Request<'_>,
    app_key: &str,
    app_secret: &SecretString,
    public_url: &str,
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    let header = request.header("x-aksk").ok_or(REFUSED)?;
    let token = header.trim().strip_prefix("UsernameToken").ok_or(REFUSED)?;
    let field = |name: &str| {
        token.split(',').find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim().trim_matches('"'))
        })
    };
    let nonce = field("Nonce").ok_or(REFUSED)?;
    let created = field("Created").ok_or(REFUSED)?;
    alike(field("Username").ok_or(REFUSED)?.as_bytes(), app_key.as_bytes())?;
    let given = STANDARD.decode(field("PasswordDigest").ok_or(REFUSED)?).map_err(|_| REFUSED)?;
    let signed = format!("{public_url}\n{nonce}\n{created}");
    alike(&given, &keyed(HashKind::Sha256, app_secret, signed.as_bytes()))?;
    let local = created.strip_suffix('Z').ok_or(STALE)?;
    let at = crate::time::Zone::china().naive(local).ok_or(STALE)?;
    if now.timestamp().abs_diff(at.timestamp()) > WINDOW_S { Err(STALE) } else { Ok(()) }
}

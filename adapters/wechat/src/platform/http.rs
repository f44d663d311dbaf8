//! One bounded request. The platform's errors come with HTTP 200, and its JSON with any
//! Content-Type (§5).

use super::error::{PlatformError, Trouble};
pub(super) use reqwest::Url;
use reqwest::{Client, RequestBuilder, Response, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{net::IpAddr, time::Duration};

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// More of a JSON answer is not read; a list of addresses is the longest.
const ANSWER_LIMIT: usize = 256 * 1024;

pub(super) struct Http(Client);

impl Http {
    pub(super) fn new() -> Result<Self, &'static str> {
        // Once for the process; a second call finds it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            // Followed, it would carry a token to wherever it points.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent("intake-gateway")
            .build()
            .map(Self)
            .map_err(|_| "cannot be set up; is the package ca-certificates installed?")
    }

    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        self.0.get(url)
    }

    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        self.0.post(url)
    }

    /// Sends and reads a JSON answer; an `errcode` that is not 0 is an error.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        call: &'static str,
        request: RequestBuilder,
        within: Duration,
    ) -> Result<T, PlatformError> {
        let response = self.send(call, request, within).await?;
        let body = whole(call, response, ANSWER_LIMIT).await?;
        understood(call, &body)
    }

    /// Sends and hands over the response of a success, its body unread.
    pub(super) async fn send(
        &self,
        call: &'static str,
        request: RequestBuilder,
        within: Duration,
    ) -> Result<Response, PlatformError> {
        let response =
            request.timeout(within).send().await.map_err(|error| broken(call, &error))?;
        let status = response.status();
        match status.as_u16() {
            200 => Ok(response),
            300..=399 => Err(PlatformError::new(call, Trouble::Redirected)),
            status => Err(PlatformError::new(call, Trouble::Http(status))),
        }
    }
}

/// `path` below `base`, with these parameters, encoded.
pub(super) fn below(base: &Url, path: &str, query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// Of reqwest's error only its kind is kept: its text quotes the URL, and with it the token.
pub(super) fn broken(call: &'static str, error: &reqwest::Error) -> PlatformError {
    let trouble = if error.is_connect() {
        Trouble::NoConnection
    } else if error.is_timeout() {
        Trouble::NoAnswer
    } else {
        Trouble::BrokeOff
    };
    PlatformError::new(call, trouble)
}

/// The body, up to `limit` bytes.
pub(super) async fn whole(
    call: &'static str,
    mut response: Response,
    limit: usize,
) -> Result<Vec<u8>, PlatformError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(call, &error))? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Err(PlatformError::new(call, Trouble::TooLarge));
        }
    }
    Ok(body)
}

/// What every answer may hold instead of what was asked for.
#[derive(Deserialize)]
struct Verdict {
    #[serde(default)]
    errcode: i64,
    #[serde(default)]
    errmsg: String,
}

/// Reads the bytes, whatever type they are said to have.
pub(super) fn understood<T: DeserializeOwned>(
    call: &'static str,
    body: &[u8],
) -> Result<T, PlatformError> {
    let not_json = || PlatformError::new(call, Trouble::NotUnderstood);
    let answer: Value = serde_json::from_slice(body).map_err(|_| not_json())?;
    if !answer.is_object() {
        return Err(not_json());
    }
    let verdict = Verdict::deserialize(&answer).map_err(|_| not_json())?;
    if verdict.errcode != 0 {
        return Err(PlatformError::of(call, verdict.errcode, address_in(&verdict.errmsg)));
    }
    T::deserialize(answer).map_err(|_| not_json())
}

/// The address in `invalid ip 203.0.113.9 ipv6 ::ffff:…, not in whitelist`: the one that the
/// administrator has to enter. Of the rest of `errmsg` nothing is kept.
fn address_in(errmsg: &str) -> Option<IpAddr> {
    errmsg.split([' ', ',']).find_map(|word| word.parse().ok())
}

/// An id as text, whether the platform sends it as a number or as text: it may be greater than
/// 2^53 (§10, pitfall 12). `0` is no id.
pub(super) fn id<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::Number(number) if number.as_u64() != Some(0) => Some(number.to_string()),
        Value::String(text) if !text.is_empty() && text != "0" => Some(text),
        _ => None,
    })
}

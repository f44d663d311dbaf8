//! One bounded request, and what its answer means.

use intake_contract::SendError;
use reqwest::{Client, Response, StatusCode, header, redirect};
use std::time::Duration;

/// Everything included.
const WITHIN: Duration = Duration::from_secs(10);
/// More of an answer is not read.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Asked to slow down without being told for how long.
const SLOW_DOWN: Duration = Duration::from_secs(60);
/// The longest wait that another side may ask for.
const LONGEST: Duration = Duration::from_secs(3600);

pub(crate) struct Http(Client);

impl Http {
    pub(crate) fn new() -> Result<Self, String> {
        // Once for the process; a second call finds it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder()
            .timeout(WITHIN)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent("intake-gateway")
            .build()
            .map(Self)
            .map_err(|_| "cannot be set up; is the package ca-certificates installed?".to_owned())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0
    }
}

pub(crate) fn retry(reason: impl Into<String>, after: Option<Duration>) -> SendError {
    SendError::Retry { reason: reason.into(), after }
}

pub(crate) fn permanent(reason: impl Into<String>) -> SendError {
    SendError::Permanent { reason: reason.into() }
}

/// Sends, and reads the body of a success.
pub(crate) async fn exchange(request: reqwest::RequestBuilder) -> Result<Vec<u8>, SendError> {
    // reqwest's own texts quote the URL, which is a secret here.
    let response = request.send().await.map_err(|error| {
        let what = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "no connection"
        } else {
            "the connection broke"
        };
        retry(what, None)
    })?;
    let status = response.status();
    if status.is_success() {
        return body(response).await;
    }
    let reason = format!("HTTP {}", status.as_u16());
    let asked = retry_after(&response);
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS => retry(reason, Some(asked.unwrap_or(SLOW_DOWN))),
        // DingTalk's flood answer; followed, it would look like a success.
        status if status.is_redirection() => retry(reason, Some(asked.unwrap_or(SLOW_DOWN * 10))),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => retry(reason, asked),
        status if status.is_server_error() => retry(reason, asked),
        _ => permanent(reason),
    })
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds =
        response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

async fn body(mut response: Response) -> Result<Vec<u8>, SendError> {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > ANSWER_LIMIT {
                    return Err(retry("the answer is too long", None));
                }
            }
            Ok(None) => return Ok(bytes),
            Err(_) => return Err(retry("the answer broke off", None)),
        }
    }
}

//! Asks a vendor for its own list of calls, and for recordings that it names, as its mapping says: of
//! the one host that the settings name, page by page, within limits of time, size and number.

use super::{
    fetch::{FetchError, client_for},
    settings::{Audio, Pull as Settings, Source},
};
use chrono::{DateTime, Utc};
use intake_hotline::{Ask, BODY_LIMIT, CallEvent, Pull, PullAuth, Unread};
use reqwest::{StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// Of the whole list.
const WITHIN: Duration = Duration::from_secs(300);
/// Of a recording.
const FILE_WITHIN: Duration = Duration::from_secs(60);
/// More are not asked for: three days of a county's calls are fewer.
const PAGES: u32 = 500;

/// The list, and those of its entries that cannot be read.
pub(super) struct List {
    pub(super) calls: Vec<(CallEvent, Vec<u8>)>,
    pub(super) unread: Vec<(Unread, Vec<u8>)>,
}

/// The calls between two moments, as the vendor lists them; `None` where its mapping or the settings
/// name no list.
///
/// # Errors
/// Why there is none this time: without anything secret, for whoever runs the gateway.
pub(super) async fn list(
    source: &Source,
    between: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<List>, String> {
    let mapping = source.push.as_ref().and_then(|push| push.mapping());
    let (Some(mapping), Some(settings)) = (mapping, &source.settings.pull) else {
        return Ok(None);
    };
    let Some(pull) = mapping.pull() else { return Ok(None) };
    let pages = async {
        let token = token(settings, pull).await?;
        let mut list = List { calls: Vec::new(), unread: Vec::new() };
        for page in pull.first_page..pull.first_page.saturating_add(PAGES) {
            let ask = pull.ask(page, between, token.expose_secret(), mapping.zone());
            let body = answer(settings, pull, &ask, &token, BODY_LIMIT).await?;
            let read = mapping.page(&source.name, &body, &source.settings.numbering);
            let read = read.map_err(|unread| format!("page {page} of its list: {unread}"))?;
            let (from, to) = between;
            let older = |call: &CallEvent| call.spoken_at().is_some_and(|at| at < from);
            let all_older =
                !read.calls.is_empty() && read.calls.iter().all(|(call, _)| older(call));
            let within =
                |call: &CallEvent| call.spoken_at().is_none_or(|at| from <= at && at <= to);
            let calls = read.calls.into_iter().filter(|(call, _)| within(call));
            list.calls.extend(calls.map(|(call, raw)| (call, raw.into_bytes())));
            let unread = read.unread.into_iter();
            list.unread.extend(unread.map(|(why, entry)| (why, entry.into_bytes())));
            if read.entries < pull.size as usize || (pull.newest_first && all_older) {
                return Ok(Some(list));
            }
        }
        Err(format!("its list has more than {PAGES} pages"))
    };
    match tokio::time::timeout(WITHIN, pages).await {
        Ok(list) => list,
        Err(_) => Err(format!("its list took longer than {} s", WITHIN.as_secs())),
    }
}

/// The recording that the vendor names so; `None` where its mapping or the settings name no way to it.
pub(super) async fn recording(
    source: &Source,
    name: &str,
    limit: usize,
) -> Option<Result<Vec<u8>, FetchError>> {
    let (settings, pull) = way_to_recordings(source)?;
    let file = async {
        let token = token(settings, pull).await?;
        let lost = || "the answer names no recording".to_owned();
        let ask = pull.recording(name, token.expose_secret()).ok_or_else(lost)?;
        let told = answer(settings, pull, &ask, &token, BODY_LIMIT).await?;
        let told = String::from_utf8_lossy(&told);
        let ask = pull.file(&told, token.expose_secret()).ok_or_else(lost)?;
        answer(settings, pull, &ask, &token, limit).await
    };
    let fetched = tokio::time::timeout(FILE_WITHIN, file).await;
    Some(match fetched {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(says)) => {
            tracing::info!(source = source.name, says, "a recording was not given");
            Err(FetchError::NotThere("its vendor does not give it"))
        }
        Err(_) => Err(FetchError::NotThere("took too long")),
    })
}

/// How the recordings that a vendor names are asked for, where they can be.
pub(super) fn way_to_recordings(source: &Source) -> Option<(&Settings, &Pull)> {
    let pull = source.push.as_ref()?.mapping()?.pull()?;
    let settings = source.settings.pull.as_ref()?;
    pull.gives_recordings().then_some((settings, pull))
}

async fn token(settings: &Settings, pull: &Pull) -> Result<SecretString, String> {
    let password = settings.password.as_ref().map_or("", |password| password.expose_secret());
    let Some(ask) = pull.login(&settings.user, password) else {
        return Ok(settings.token.clone().unwrap_or_default());
    };
    let body = answer(settings, pull, &ask, &SecretString::default(), BODY_LIMIT).await?;
    let token = pull.token(&String::from_utf8_lossy(&body));
    token.map(SecretString::from).ok_or_else(|| "it gave no token: user or password?".to_owned())
}

async fn answer(
    settings: &Settings,
    pull: &Pull,
    ask: &Ask,
    token: &SecretString,
    limit: usize,
) -> Result<Vec<u8>, String> {
    let wrong = |_| "pull.base_url is no address".to_owned();
    let base = Url::parse(&settings.base_url).map_err(wrong)?;
    let url = base.join(&ask.path).map_err(wrong)?;
    if url.origin() != base.origin() {
        return Err("it leads to another host".to_owned());
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    // A list of one, held against what the name is looked up to.
    let listed = match settings.inside {
        true => Audio { inside_hosts: vec![host], ..Audio::default() },
        false => Audio { hosts: vec![host], ..Audio::default() },
    };
    let client = client_for(&listed, &url).await.map_err(|error| format!("its list: {error}"))?;
    let request = match &ask.body {
        Some(body) => client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body.clone()),
        None => client.get(url),
    };
    let request = request.header(header::USER_AGENT, "intake");
    let request = match pull.auth {
        PullAuth::Bearer if !token.expose_secret().is_empty() => {
            request.bearer_auth(token.expose_secret())
        }
        PullAuth::Basic => {
            let password = settings.password.as_ref().map(|password| password.expose_secret());
            request.basic_auth(&settings.user, password)
        }
        PullAuth::Bearer | PullAuth::Path => request,
    };
    // The address may hold a token: an error of the client would print it.
    let away = |_| "its list: the host does not answer".to_owned();
    let mut response = request.send().await.map_err(away)?;
    if response.status() != StatusCode::OK {
        return Err(format!("its list: the host answers {}", response.status().as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if bytes.len() + chunk.len() > limit {
            return Err(format!("its list: an answer has more than {limit} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

//! Fetches a recording from where its source says it lies: only what the settings allow to look at.
//! What a source says is a claim; a path or an address of it could be anything (hotline.md §2,
//! "Security").

use super::{
    pull, scan,
    settings::{Audio, Source},
};
use bytes::{Bytes, BytesMut};
use intake_hotline::AudioRef;
use reqwest::{Client, StatusCode, Url, header::LOCATION, redirect::Policy};
use secrecy::ExposeSecret;
use std::{
    fs::{self, File},
    io::Read,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Why a recording was not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The settings do not allow to look there.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// It is not there, or not yet.
    #[error("{0}")]
    NotThere(&'static str),
    /// What came is a page or a message of a program (it expired; log in), and no recording.
    #[error("a page came instead of the recording")]
    Page,
    /// It is larger than what is kept.
    #[error("too large")]
    TooLarge,
}

/// Of a whole file.
const WITHIN: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 2;

impl Source {
    /// Whether there is any place of this kind at which to look.
    pub(super) fn looks_at(&self, at: &AudioRef) -> bool {
        let audio = &self.settings.audio;
        match at {
            AudioRef::Local(_) => !audio.roots.is_empty(),
            AudioRef::Http(_) => !audio.hosts.is_empty() || !audio.inside_hosts.is_empty(),
            // The spool is looked through by the message's identity; a vendor is asked.
            AudioRef::Pull(_) => {
                !self.settings.spools.is_empty() || pull::way_to_recordings(self).is_some()
            }
        }
    }
}

impl Audio {
    /// Whether a host is on a list: 1 on that of the world, 2 on that of the inside.
    fn lists(&self, host: &str) -> (bool, bool) {
        let is = |listed: &String| match listed.strip_prefix("*.") {
            Some(suffix) => {
                host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            None => host == listed,
        };
        (self.hosts.iter().any(is), self.inside_hosts.iter().any(is))
    }
}

/// The recording that lies there, `limit` bytes at most.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(source: &Source, reference: &str, limit: usize) -> Result<Bytes, FetchError> {
    let bytes = fetch_any(source, reference, limit).await?;
    if is_page(&bytes) { Err(FetchError::Page) } else { Ok(bytes) }
}

/// Whether it is HTML, XML or JSON: a text that begins as they do. No sound is a text.
fn is_page(bytes: &[u8]) -> bool {
    const LOOKED_AT: usize = 512;
    let head = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let head = &head[..head.len().min(LOOKED_AT)];
    matches!(head.trim_ascii_start(), [b'<' | b'{' | b'[', ..])
        && head.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace())
}

async fn fetch_any(source: &Source, reference: &str, limit: usize) -> Result<Bytes, FetchError> {
    if let Some(path) = reference.strip_prefix("file:") {
        let (roots, path) = (source.settings.audio.roots.clone(), path.to_owned());
        return blocking(move || local(&roots, &path, limit)).await;
    }
    if let Some(name) =
        reference.strip_prefix("pull:").filter(|_| source.settings.spools.is_empty())
    {
        let fetched = pull::recording(source, name, limit).await;
        return fetched
            .unwrap_or(Err(FetchError::NotAllowed("only its vendor's console plays it")))
            .map(Into::into);
    }
    if let Some(key) = reference.strip_prefix("pull:") {
        let (spools, key) = (source.settings.spools.clone(), key.to_owned());
        return blocking(move || scan::recording(&spools, &key, limit)).await;
    }
    if reference.starts_with("http:") || reference.starts_with("https:") {
        let fetched = tokio::time::timeout(WITHIN, http(&source.settings.audio, reference, limit));
        return fetched.await.unwrap_or(Err(FetchError::NotThere("took too long")));
    }
    // Announced, and no place was told.
    Err(FetchError::NotThere("no place was told"))
}

async fn blocking(
    work: impl FnOnce() -> Result<Bytes, FetchError> + Send + 'static,
) -> Result<Bytes, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(FetchError::NotThere("reading was given up")))
}

/// A regular file below one of the folders: no link, no way out of them.
fn local(roots: &[PathBuf], told: &str, limit: usize) -> Result<Bytes, FetchError> {
    let told =
        told.strip_prefix("//").map_or(told, |rest| rest.find('/').map_or(told, |at| &rest[at..]));
    let mut fault = FetchError::NotThere("no such file");
    for root in roots {
        let Ok(root) = root.canonicalize() else { continue };
        // An absolute path replaces the folder, and is then looked at like any other.
        let path = root.join(told);
        match below(&root, &path) {
            Ok(path) => return read(&path, limit),
            Err(error @ FetchError::NotAllowed(_)) => fault = error,
            Err(_) => {}
        }
    }
    Err(fault)
}

/// The path without links, where it lies below the folder and is no link itself.
fn below(root: &Path, path: &Path) -> Result<PathBuf, FetchError> {
    let absent = |_| FetchError::NotThere("no such file");
    if fs::symlink_metadata(path).map_err(absent)?.file_type().is_symlink() {
        return Err(FetchError::NotAllowed("a link"));
    }
    let path = path.canonicalize().map_err(absent)?;
    if !path.starts_with(root) {
        return Err(FetchError::NotAllowed("outside of the configured folders"));
    }
    Ok(path)
}

/// The whole of a regular file. What is opened is what was looked at.
pub(super) fn read(path: &Path, limit: usize) -> Result<Bytes, FetchError> {
    let gone = |_| FetchError::NotThere("the file cannot be read");
    let seen = fs::symlink_metadata(path).map_err(gone)?;
    // A pipe would never open.
    if !seen.is_file() {
        return Err(FetchError::NotAllowed("no regular file"));
    }
    let file = File::open(path).map_err(gone)?;
    let opened = file.metadata().map_err(gone)?;
    if (seen.dev(), seen.ino()) != (opened.dev(), opened.ino()) {
        return Err(FetchError::NotThere("the file was exchanged"));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(gone)?;
    if bytes.len() > limit { Err(FetchError::TooLarge) } else { Ok(bytes.into()) }
}

async fn http(audio: &Audio, address: &str, limit: usize) -> Result<Bytes, FetchError> {
    let mut url = Url::parse(address).map_err(|_| FetchError::NotAllowed("no address"))?;
    let first = url.host_str().map(str::to_owned);
    for _ in 0..=REDIRECTS {
        let client = client_for(audio, &url).await?;
        let mut request = client.get(url.clone());
        // Nobody hears the password but the host that was told, and only one that the settings write
        // out: below `*.example.com` anybody may live. Nor does the wire between.
        let host = url.host_str().unwrap_or_default();
        let written_out = audio.hosts.iter().chain(&audio.inside_hosts).any(|one| one == host);
        let sealed = url.scheme() == "https" || audio.lists(host).1;
        if let Some(password) = &audio.password
            && written_out
            && sealed
            && Some(host) == first.as_deref()
        {
            request = request.basic_auth(&audio.user, Some(password.expose_secret()));
        }
        let away = |_| FetchError::NotThere("the host does not answer");
        let mut response = request.send().await.map_err(away)?;
        if response.status().is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url.join(to).ok());
            url = to.ok_or(FetchError::NotThere("sent on to nowhere"))?;
            continue;
        }
        match response.status() {
            StatusCode::OK => {}
            StatusCode::GONE => return Err(FetchError::NotThere("the host has it no more")),
            _ => return Err(FetchError::NotThere("the host does not give it")),
        }
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(FetchError::TooLarge);
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if bytes.len() + chunk.len() > limit {
                return Err(FetchError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        return Ok(bytes.freeze());
    }
    Err(FetchError::NotThere("sent on too often"))
}

/// A client that reaches this address and no other: the name is looked up once, and what it says is
/// held against the lists before anything is sent there.
pub(super) async fn client_for(audio: &Audio, url: &Url) -> Result<Client, FetchError> {
    let host = url.host_str().unwrap_or_default();
    let (outside, inside) = audio.lists(host.trim_matches(['[', ']']));
    if !outside && !inside {
        return Err(FetchError::NotAllowed("a host that is not on the list"));
    }
    match url.scheme() {
        "https" => {}
        "http" if audio.allow_http || inside => {}
        _ => return Err(FetchError::NotAllowed("not https")),
    }
    let port = url.port_or_known_default().unwrap_or(443);
    let name = host.trim_matches(['[', ']']).to_owned();
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|_| FetchError::NotThere("the host is not known"))?.collect();
    if !inside && addresses.iter().any(|address| !is_public(address.ip())) {
        return Err(FetchError::NotAllowed("an address inside the network"));
    }
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .timeout(WITHIN)
        .resolve_to_addrs(&name, &addresses)
        .build()
        .map_err(|_| FetchError::NotThere("no connection can be made"))
}

/// Whether an address belongs to the world: no network of our own, no machine of our own.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let testing = a == 198 && (b == 18 || b == 19);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || shared
                || testing)
        }
        IpAddr::V6(v6) => {
            // Global unicast, without the ways that lead to an IPv4 address inside.
            let [first, second, ..] = v6.segments();
            (first & 0xe000) == 0x2000 && first != 0x2002 && (first, second) != (0x2001, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_the_list_and_no_others() {
        let hosts = vec!["*.myqcloud.com".to_owned(), "rec.example".to_owned()];
        let audio = Audio { hosts, ..Audio::default() };
        assert_eq!(audio.lists("a.myqcloud.com"), (true, false));
        for other in ["myqcloud.com", "evilmyqcloud.com", "rec.example.evil.com", "x.rec.example"] {
            assert_eq!(audio.lists(other), (false, false), "{other}");
        }
    }

    #[test]
    fn pages_are_no_recordings_and_sound_is_no_page() {
        for page in [
            "<!DOCTYPE html><html>login</html>",
            "\u{feff}\r\n <html lang=\"zh\">已过期",
            "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
            "{\"errcode\":10004}",
            "[]",
        ] {
            assert!(is_page(page.as_bytes()), "{page}");
        }
        let sounds: [&[u8]; 5] =
            [b"RIFF\xa4\x3e\0\0WAVE", b"#!AMR\n<", b"ID3\x04", b"<\0\x01", b""];
        for sound in sounds {
            assert!(!is_page(sound), "{sound:?}");
        }
    }

    #[test]
    fn addresses_inside_are_not_the_world() {
        let inside = [
            "10.0.0.5",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "2002:a00:1::",
        ];
        for address in inside {
            assert!(!is_public(address.parse().expect("an address")), "{address}");
        }
        assert!(is_public("119.29.29.29".parse().expect("an address")));
        assert!(is_public("2408:8000::1".parse().expect("an address")));
    }
}

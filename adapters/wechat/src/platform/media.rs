//! What citizens sent, fetched; pictures, given (§7).

use super::{
    Platform, PlatformError, Trouble,
    http::{Url, broken, understood, whole},
};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Response, header};
use serde::Deserialize;
use std::time::Duration;

/// The platform keeps what citizens send for three days from when they sent it; then it is gone
/// for good, with [`Trouble::Media`].
pub const MEDIA_KEPT: TimeDelta = TimeDelta::days(3);

/// What is read of one file, in bytes: twice what the platform takes from citizens.
pub const MEDIA_LIMIT: usize = 20 * 1024 * 1024;

/// For a whole file over a slow line.
const WITHIN: Duration = Duration::from_secs(120);
/// An answer in words, where a file was asked for.
const WORDS_LIMIT: usize = 64 * 1024;
/// The platform's limit on a picture that is given to it.
const UPLOAD_LIMIT: usize = 10 * 1024 * 1024;

/// A file on its way.
pub struct Download {
    call: &'static str,
    response: Response,
    /// Read already, to see whether it is a file at all.
    first: Option<Bytes>,
    content_type: Option<String>,
    file_name: Option<String>,
    left: usize,
}

/// A file, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    /// As the platform says; not to be believed, and sniffed before use.
    pub content_type: Option<String>,
    /// As the platform says; for its extension at most.
    pub file_name: Option<String>,
    /// What is in it.
    pub bytes: Bytes,
}

impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Media({:?}, {} bytes)", self.content_type, self.bytes.len())
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Download({:?}, at most {} bytes)", self.content_type, self.left)
    }
}

impl Download {
    /// As the platform says; not to be believed.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Trouble::TooLarge`] as soon as the limit is passed, [`Trouble::BrokeOff`],
    /// [`Trouble::NoAnswer`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, PlatformError> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => self.response.chunk().await.map_err(|error| broken(self.call, &error))?,
        };
        let Some(chunk) = next else { return Ok(None) };
        self.left = self
            .left
            .checked_sub(chunk.len())
            .ok_or_else(|| PlatformError::new(self.call, Trouble::TooLarge))?;
        Ok(Some(chunk))
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Self::chunk`].
    pub async fn whole(mut self) -> Result<Media, PlatformError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        let Self { content_type, file_name, .. } = self;
        Ok(Media { content_type, file_name, bytes: bytes.freeze() })
    }
}

/// What came: a file, or where it is.
enum Came {
    File(Box<Download>),
    Elsewhere(String),
}

fn text_of(response: &Response, name: header::HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// The name in `attachment; filename="…"`, without what could be a path.
fn file_name(disposition: &str) -> Option<String> {
    let name = disposition.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    let name = name.trim_matches('"').rsplit(['/', '\\']).next().unwrap_or_default();
    (!name.is_empty()).then(|| name.chars().take(120).collect())
}

impl Platform {
    /// A file that a citizen sent, by its `MediaId`, or a voice by its `MediaId16K`. A video is
    /// fetched from where the platform says it is. More than `limit` bytes are not read.
    ///
    /// # Errors
    /// [`PlatformError`]; [`Trouble::Media`]: its three days are over.
    pub async fn media(&self, media_id: &str, limit: usize) -> Result<Download, PlatformError> {
        self.fetch("media/get", "/cgi-bin/media/get", media_id, limit).await
    }

    /// A voice that a page recorded with the JS-SDK, by its server id, in 16 kHz speex; for
    /// messages it is [`Self::media`] and `MediaId16K`.
    ///
    /// # Errors
    /// As [`Self::media`].
    pub async fn page_voice(
        &self,
        server_id: &str,
        limit: usize,
    ) -> Result<Download, PlatformError> {
        self.fetch("media/get/jssdk", "/cgi-bin/media/get/jssdk", server_id, limit).await
    }

    async fn fetch(
        &self,
        call: &'static str,
        path: &str,
        media_id: &str,
        limit: usize,
    ) -> Result<Download, PlatformError> {
        let came = self
            .authorised(async |token| {
                let query = [("access_token", token.expose()), ("media_id", media_id)];
                self.came(call, self.url(path, &query), limit).await
            })
            .await?;
        let place = match came {
            Came::File(download) => return Ok(*download),
            Came::Elsewhere(place) => place,
        };
        let refused = || PlatformError::new(call, Trouble::ForeignHost);
        let url = Url::parse(&place).map_err(|_| refused())?;
        if !self.is_the_platforms(&url) {
            return Err(refused());
        }
        match self.came(call, url, limit).await? {
            Came::File(download) => Ok(*download),
            Came::Elsewhere(_) => Err(PlatformError::new(call, Trouble::NotUnderstood)),
        }
    }

    /// The platform's hosts and the one that is configured as such: an answer must not be able to
    /// send the gateway to where only it can go (S11).
    fn is_the_platforms(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let same = url.origin() == self.base.origin();
        let known = [".qq.com", ".qpic.cn", ".qlogo.cn"].iter().any(|end| host.ends_with(end));
        matches!(url.scheme(), "https" | "http")
            && url.username().is_empty()
            && (same || known && url.port().is_none())
    }

    async fn came(
        &self,
        call: &'static str,
        url: Url,
        limit: usize,
    ) -> Result<Came, PlatformError> {
        #[derive(Deserialize)]
        struct Elsewhere {
            video_url: String,
        }
        let mut response = self.http.send(call, self.http.get(url), WITHIN).await?;
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(PlatformError::new(call, Trouble::TooLarge));
        }
        let content_type = text_of(&response, header::CONTENT_TYPE);
        let file_name = text_of(&response, header::CONTENT_DISPOSITION).and_then(|d| file_name(&d));
        let first = response.chunk().await.map_err(|error| broken(call, &error))?;
        let begins = first.as_ref().and_then(|c| c.iter().find(|b| !b.is_ascii_whitespace()));
        let says = content_type.as_deref().unwrap_or_default();
        // Errors come with HTTP 200, and with any type (§5): no file begins with a brace.
        let in_words = begins == Some(&b'{') || says.starts_with("text/") || says.contains("json");
        if !in_words {
            let left = limit;
            let file = Download { call, response, first, content_type, file_name, left };
            return Ok(Came::File(Box::new(file)));
        }
        let mut words = first.unwrap_or_default().to_vec();
        words.extend(whole(call, response, WORDS_LIMIT).await?);
        understood(call, &words).map(|Elsewhere { video_url }| Came::Elsewhere(video_url))
    }

    /// Gives the platform a picture for a custom message or a passive reply; returns its id, good
    /// for [`MEDIA_KEPT`] from now, and until when.
    ///
    /// # Errors
    /// [`Trouble::TooLong`] without a code beyond 10 MiB, [`Trouble::Malformed`] without a code for
    /// what is neither JPEG nor PNG.
    pub async fn upload_image(
        &self,
        picture: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(String, DateTime<Utc>), PlatformError> {
        const CALL: &str = "media/upload";
        #[derive(Deserialize)]
        struct Given {
            media_id: String,
        }
        let (name, mime) = match picture {
            [0xff, 0xd8, 0xff, ..] => ("picture.jpg", "image/jpeg"),
            [0x89, b'P', b'N', b'G', ..] => ("picture.png", "image/png"),
            _ => return Err(PlatformError::new(CALL, Trouble::Malformed)),
        };
        if picture.len() > UPLOAD_LIMIT {
            return Err(PlatformError::new(CALL, Trouble::TooLong));
        }
        // One part by hand is less than a library for it.
        let boundary = hex::encode(rand::random::<[u8; 16]>());
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"media\"; filename=\"{name}\"\r\nContent-Type: {mime}\r\n\r\n"
        );
        let body: Bytes = [head.as_bytes(), picture, format!("\r\n--{boundary}--\r\n").as_bytes()]
            .concat()
            .into();
        let given: Given = self
            .authorised(async |token| {
                let query = [("access_token", token.expose()), ("type", "image")];
                let request = self
                    .http
                    .post(self.url("/cgi-bin/media/upload", &query))
                    .header(
                        header::CONTENT_TYPE,
                        format!("multipart/form-data; boundary={boundary}"),
                    )
                    .body(body.clone());
                self.http.json(CALL, request, WITHIN).await
            })
            .await?;
        Ok((given.media_id, now + MEDIA_KEPT))
    }
}

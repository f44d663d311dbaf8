//! Files that citizens send up: what they are is said by what they hold (S25), never by their name or
//! by what the browser claims, and nothing but photos and PDF is kept.

use crate::{
    domain::id::OfficeId,
    store::{self, StoreError},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use intake_contract::{Attachment, AttachmentKind, clean_text};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

/// One file, in bytes.
pub const FILE_LIMIT: usize = 10 * 1024 * 1024;
/// All files of one message, in bytes.
pub const TOTAL_LIMIT: usize = 24 * 1024 * 1024;
/// Files of one message.
pub const FILES: usize = 6;
/// Of a file's name, in characters.
const NAME: usize = 60;

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP.
    Webp,
    /// PDF.
    Pdf,
}

impl Kind {
    /// By the first bytes; `None` for everything else.
    #[must_use]
    pub fn of(content: &[u8]) -> Option<Self> {
        match content {
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [b'%', b'P', b'D', b'F', b'-', ..] => Some(Self::Pdf),
            _ => None,
        }
    }

    /// The media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Pdf => "application/pdf",
        }
    }
}

/// A file that can be kept.
#[derive(Debug, Clone)]
pub struct Upload {
    /// What it is.
    pub kind: Kind,
    /// SHA-256 of the content.
    pub digest: [u8; 32],
    /// As the citizen's telephone calls it, cut short; for people to read and for nothing else.
    pub name: Option<String>,
    /// What it holds.
    pub content: Bytes,
}

impl Upload {
    /// A file as it came; `None` when it is none of the kinds that are taken.
    #[must_use]
    pub fn new(name: Option<&str>, content: Bytes) -> Option<Self> {
        let kind = Kind::of(&content)?;
        let name = name.map(|name| {
            let name = clean_text(name);
            let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
            last.trim().chars().take(NAME).collect::<String>()
        });
        let digest = Sha256::digest(&content).into();
        Some(Self { kind, digest, name: name.filter(|name| !name.is_empty()), content })
    }
}

/// Keeps a file in the caller's transaction until the fetcher has put it into the object storage,
/// and says how a message names it.
///
/// # Errors
/// [`StoreError`].
pub async fn keep_upload(
    db: &mut PgConnection,
    office: OfficeId,
    file: &Upload,
    now: DateTime<Utc>,
) -> Result<Attachment, StoreError> {
    store::citizen::keep_upload(db, office, &file.digest, &file.content, now).await?;
    Ok(Attachment {
        kind: match file.kind {
            Kind::Jpeg | Kind::Png | Kind::Webp => AttachmentKind::Image,
            Kind::Pdf => AttachmentKind::File,
        },
        reference: format!("upload:{}", hex::encode(file.digest)),
        label: file.name.clone(),
    })
}

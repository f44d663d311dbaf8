//! Where content lies: a folder, or a bucket of S3 or what speaks like it. A name says what is in it,
//! so that nothing is ever changed, and writing it again does no harm.

use super::{Copies, Hash};
use crate::{config, domain::id::OfficeId, store::media::Content};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use object_store::{
    ClientOptions, GetOptions, ObjectStore, ObjectStoreExt, RetryConfig, aws::AmazonS3Builder,
    local::LocalFileSystem, path::Path,
};
use secrecy::ExposeSecret;
use std::{ops::Range, os::unix::fs::DirBuilderExt, sync::Arc, time::Duration};

/// Why content cannot be kept or read just now.
#[derive(Debug, thiserror::Error)]
#[error("the media storage does not answer")]
pub struct StorageError(#[source] object_store::Error);

/// One of the things that are kept of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As it came; only ever given out as a file.
    Original,
    /// A picture to look at, JPEG.
    Preview,
    /// A small one, JPEG.
    Thumb,
    /// A voice, WAV.
    Play,
}

impl Variant {
    fn suffix(self) -> &'static str {
        match self {
            Self::Original => "",
            Self::Preview => ".preview",
            Self::Thumb => ".thumb",
            Self::Play => ".play",
        }
    }
}

/// Content on its way out.
pub struct Opened {
    /// Its whole size in bytes.
    pub size: u64,
    /// What of it comes.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, StorageError>> + Send>>,
}

/// The storage.
#[derive(Clone)]
pub struct Store(Arc<dyn ObjectStore>);

impl Store {
    /// The storage that the settings name; the folder is made, for this account only.
    ///
    /// # Errors
    /// The key that is wrong, and what is wrong with it.
    pub fn open(settings: &config::Media) -> Result<Self, (&'static str, String)> {
        if settings.s3_bucket.is_empty() {
            let mut folder = std::fs::DirBuilder::new();
            let made = folder.recursive(true).mode(0o700).create(&settings.folder);
            made.map_err(|error| ("media.folder", format!("cannot be made: {error}")))?;
            let folder = LocalFileSystem::new_with_prefix(&settings.folder)
                .map_err(|_| ("media.folder", "cannot be used".to_owned()))?;
            return Ok(Self(Arc::new(folder.with_fsync(true))));
        }
        let patience = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(60))
            .with_allow_http(settings.s3_endpoint.starts_with("http://"));
        let again = RetryConfig {
            max_retries: 2,
            retry_timeout: Duration::from_secs(60),
            ..RetryConfig::default()
        };
        let mut bucket = AmazonS3Builder::new()
            .with_bucket_name(&settings.s3_bucket)
            .with_region(&settings.s3_region)
            .with_access_key_id(settings.s3_key_id.expose_secret())
            .with_secret_access_key(settings.s3_secret.expose_secret())
            .with_client_options(patience)
            .with_retry(again)
            // One by one: not all that speak like S3 know the other call.
            .with_disable_bulk_delete(true);
        if !settings.s3_endpoint.is_empty() {
            // The bucket is a part of the host's name with some, of the path with others.
            let hosted = settings.s3_endpoint.contains(&format!("//{}.", settings.s3_bucket));
            bucket = bucket
                .with_endpoint(&settings.s3_endpoint)
                .with_virtual_hosted_style_request(hosted);
        }
        let bucket = bucket
            .build()
            .map_err(|_| ("media.s3_endpoint", "or a key beside it cannot be used".to_owned()))?;
        Ok(Self(Arc::new(bucket)))
    }

    fn name(office: OfficeId, hash: &Hash, variant: Variant) -> Path {
        Path::from(format!("{office}/{}{}", hex::encode(hash.0), variant.suffix()))
    }

    /// Keeps it, unless it is there: whole or not at all.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn put(
        &self,
        office: OfficeId,
        hash: &Hash,
        variant: Variant,
        bytes: Bytes,
    ) -> Result<(), StorageError> {
        let name = Self::name(office, hash, variant);
        match self.0.head(&name).await {
            Ok(there) if there.size == bytes.len() as u64 => return Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(StorageError(error)),
        }
        self.0.put(&name, bytes.into()).await.map(|_| ()).map_err(StorageError)
    }

    /// Begins to read it, or a part of it; `None` where there is no such thing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn get(
        &self,
        office: OfficeId,
        hash: &Hash,
        variant: Variant,
        part: Option<Range<u64>>,
    ) -> Result<Option<Opened>, StorageError> {
        let options = GetOptions { range: part.map(Into::into), ..GetOptions::default() };
        match self.0.get_opts(&Self::name(office, hash, variant), options).await {
            Ok(found) => {
                let (size, range) = (found.meta.size, found.range.clone());
                let bytes = found.into_stream().map(|chunk| chunk.map_err(StorageError)).boxed();
                Ok(Some(Opened { size, range, bytes }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError(error)),
        }
    }

    /// How large it is, in bytes; `None` where there is no such thing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn size(
        &self,
        office: OfficeId,
        hash: &Hash,
        variant: Variant,
    ) -> Result<Option<u64>, StorageError> {
        match self.0.head(&Self::name(office, hash, variant)).await {
            Ok(there) => Ok(Some(there.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError(error)),
        }
    }

    /// Removes the content and what was made of it.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn remove(&self, office: OfficeId, hash: &Hash) -> Result<(), StorageError> {
        // The original last: what is left behind by a failure is found again by its row.
        for variant in [Variant::Preview, Variant::Thumb, Variant::Play, Variant::Original] {
            match self.0.delete(&Self::name(office, hash, variant)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(StorageError(error)),
            }
        }
        Ok(())
    }
}

/// Which variants may be given out of a content, and as what: only what was made here is shown in
/// the browser, and sound that would have been made the same.
#[must_use]
pub fn shown_as(content: &Content, variant: Variant) -> Option<(Variant, &'static str)> {
    match (variant, content.copies, content.kind) {
        (Variant::Original, _, _) => Some((variant, "application/octet-stream")),
        (Variant::Preview | Variant::Thumb, Copies::Picture, _) => Some((variant, "image/jpeg")),
        (Variant::Play, Copies::Sound, _) => Some((variant, "audio/wav")),
        (Variant::Play, Copies::Itself, kind) => Some((Variant::Original, kind.mime())),
        _ => None,
    }
}

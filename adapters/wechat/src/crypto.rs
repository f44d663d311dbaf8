//! Signatures and the safe mode's encryption (§1, §2).

use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::NoPadding};
use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use sha1::{Digest, Sha1};
use std::fmt;
use subtle::ConstantTimeEq;

/// Base64 as the platform uses it. Keys often have bits set after the last byte, which a strict
/// decoder refuses.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// PKCS#7 with blocks of 32 bytes, although AES has 16.
const PAD_BLOCK: usize = 32;
const HEAD: usize = 20;

/// Why a message could not be decrypted. The sender never learns which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DecryptError {
    /// Not base64, or not whole blocks.
    #[error("bad_ciphertext")]
    Ciphertext,
    /// No valid padding: most likely another key.
    #[error("bad_padding")]
    Padding,
    /// The length in the message does not fit.
    #[error("bad_length")]
    Length,
    /// Meant for another account.
    #[error("appid_mismatch")]
    AppId,
    /// Not UTF-8.
    #[error("bad_encoding")]
    Encoding,
}

impl DecryptError {
    /// A fixed word for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ciphertext => "bad_ciphertext",
            Self::Padding => "bad_padding",
            Self::Length => "bad_length",
            Self::AppId => "appid_mismatch",
            Self::Encoding => "bad_encoding",
        }
    }
}

/// SHA-1 over the sorted parts, in lower-case hex: `signature` over token, timestamp, nonce;
/// `msg_signature` over these and the ciphertext.
#[must_use]
pub fn signature(parts: &[&str]) -> String {
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Compares a signature in constant time, byte for byte: upper case is another signature.
#[must_use]
pub fn signature_fits(given: &str, parts: &[&str]) -> bool {
    given.as_bytes().ct_eq(signature(parts).as_bytes()).into()
}

/// An EncodingAESKey.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key(REDACTED)")
    }
}

impl Key {
    /// From the 43 characters of the platform's settings; `None` when they are no key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 43 {
            return None;
        }
        BASE64.decode(format!("{text}=")).ok()?.try_into().ok().map(Self)
    }

    /// Encrypts `message` for `app_id`; `random` is the 16 bytes that the format begins with.
    #[must_use]
    pub fn encrypt(&self, message: &[u8], app_id: &str, random: [u8; 16]) -> String {
        let length = HEAD + message.len() + app_id.len();
        let pad = PAD_BLOCK - length % PAD_BLOCK;
        let mut plain = Vec::with_capacity(length + pad);
        plain.extend_from_slice(&random);
        // Longer messages than 4 GiB do not exist: bodies are bounded.
        plain.extend_from_slice(&(message.len() as u32).to_be_bytes());
        plain.extend_from_slice(message);
        plain.extend_from_slice(app_id.as_bytes());
        plain.resize(length + pad, pad as u8);
        let (key, iv) = self.halves();
        let length = plain.len();
        // Whole blocks already, so that nothing is left to pad and nothing can fail.
        let encrypted = cbc::Encryptor::<aes::Aes256>::new(&key.into(), &iv.into())
            .encrypt_padded::<NoPadding>(&mut plain, length)
            .unwrap_or_default();
        BASE64.encode(encrypted)
    }

    /// Decrypts a message meant for `app_id`.
    ///
    /// # Errors
    /// [`DecryptError`], the later in the order of checks the more the key fits.
    pub fn decrypt(&self, encrypted: &str, app_id: &str) -> Result<String, DecryptError> {
        let mut bytes = BASE64.decode(encrypted.trim()).map_err(|_| DecryptError::Ciphertext)?;
        if bytes.is_empty() || bytes.len() % 16 != 0 {
            return Err(DecryptError::Ciphertext);
        }
        let (key, iv) = self.halves();
        let plain = cbc::Decryptor::<aes::Aes256>::new(&key.into(), &iv.into())
            .decrypt_padded::<NoPadding>(&mut bytes)
            .map_err(|_| DecryptError::Ciphertext)?;
        let pad = plain.last().copied().unwrap_or(0);
        let pads = usize::from(pad);
        if !(1..=PAD_BLOCK).contains(&pads) || pads > plain.len() {
            return Err(DecryptError::Padding);
        }
        let (plain, padding) = plain.split_at(plain.len() - pads);
        if padding.iter().any(|byte| *byte != pad) {
            return Err(DecryptError::Padding);
        }
        let (head, rest) = plain.split_at_checked(HEAD).ok_or(DecryptError::Length)?;
        let length: [u8; 4] = head[16..].try_into().map_err(|_| DecryptError::Length)?;
        let length =
            usize::try_from(u32::from_be_bytes(length)).map_err(|_| DecryptError::Length)?;
        let (message, to) = rest.split_at_checked(length).ok_or(DecryptError::Length)?;
        if to != app_id.as_bytes() {
            return Err(DecryptError::AppId);
        }
        String::from_utf8(message.to_vec()).map_err(|_| DecryptError::Encoding)
    }

    fn halves(&self) -> ([u8; 32], [u8; 16]) {
        let mut iv = [0; 16];
        iv.copy_from_slice(&self.0[..16]);
        (self.0, iv)
    }
}

/// The keys in force: while the platform rotates them, both may arrive (§2).
#[derive(Debug, Clone)]
pub struct Keys {
    /// The one in the platform's settings.
    pub current: Key,
    /// The one before.
    pub previous: Option<Key>,
}

impl Keys {
    /// Decrypts with the current key, else with the previous one, and says which it was: the
    /// reply must use the same.
    ///
    /// # Errors
    /// Of the two keys' errors the one that got further.
    pub fn decrypt(&self, encrypted: &str, app_id: &str) -> Result<(String, &Key), DecryptError> {
        let first = match self.current.decrypt(encrypted, app_id) {
            Ok(message) => return Ok((message, &self.current)),
            Err(error) => error,
        };
        let Some(previous) = &self.previous else { return Err(first) };
        match previous.decrypt(encrypted, app_id) {
            Ok(message) => Ok((message, previous)),
            Err(second) => Err(first.max(second)),
        }
    }
}

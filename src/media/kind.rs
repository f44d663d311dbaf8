//! What content is, by its first bytes. What a sender or a platform calls it is not believed.

/// A type that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of formats")]
pub enum Type {
    Jpeg,
    Png,
    Gif,
    Webp,
    AmrNarrow,
    AmrWide,
    Mp3,
    Wav,
    /// WAV around something that browsers do not play: GSM, A-law.
    CodedWav,
    /// GSM without a wrapping.
    Gsm,
    Mp4,
    Pdf,
    /// Anything else; only ever given out as a file.
    Other,
}

/// Every type with its MIME type and the extension of a downloaded file.
const TYPES: [(Type, &str, &str); 13] = [
    (Type::Jpeg, "image/jpeg", "jpg"),
    (Type::Png, "image/png", "png"),
    (Type::Gif, "image/gif", "gif"),
    (Type::Webp, "image/webp", "webp"),
    (Type::AmrNarrow, "audio/amr", "amr"),
    (Type::AmrWide, "audio/amr-wb", "amr"),
    (Type::Mp3, "audio/mpeg", "mp3"),
    (Type::Wav, "audio/wav", "wav"),
    (Type::CodedWav, "audio/vnd.wave", "wav"),
    (Type::Gsm, "audio/x-gsm", "gsm"),
    (Type::Mp4, "video/mp4", "mp4"),
    (Type::Pdf, "application/pdf", "pdf"),
    (Type::Other, "application/octet-stream", "bin"),
];

impl Type {
    /// By the first bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Self::Png,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::Webp,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', parts @ ..] => {
                if wave_format(parts).is_none_or(|format| format == 1) {
                    Self::Wav
                } else {
                    Self::CodedWav
                }
            }
            [b'I', b'D', b'3', 2..=4, ..] => Self::Mp3,
            // MPEG layer III without a tag: eleven bits of sync, a bit rate that exists.
            [0xff, 0xe2 | 0xe3 | 0xf2 | 0xf3 | 0xfa | 0xfb, rate, ..]
                if !matches!(rate >> 4, 0 | 15) =>
            {
                Self::Mp3
            }
            [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..]
                if [&b"isom"[..], b"iso2", b"mp41", b"mp42", b"avc1", b"3gp", b"qt", b"M4V"]
                    .iter()
                    .any(|known| brand.starts_with(known)) =>
            {
                Self::Mp4
            }
            [b'%', b'P', b'D', b'F', b'-', ..] => Self::Pdf,
            _ if bytes.starts_with(b"#!AMR\n") => Self::AmrNarrow,
            _ if bytes.starts_with(b"#!AMR-WB\n") => Self::AmrWide,
            _ if super::gsm::is_raw(bytes) => Self::Gsm,
            _ => Self::Other,
        }
    }

    /// The type of this MIME type, as [`Self::mime`] wrote it.
    #[must_use]
    pub fn of_mime(mime: &str) -> Self {
        TYPES.iter().find(|known| known.1 == mime).map_or(Self::Other, |known| known.0)
    }

    fn row(self) -> (Self, &'static str, &'static str) {
        TYPES.into_iter().find(|known| known.0 == self).unwrap_or(TYPES[TYPES.len() - 1])
    }

    /// Whether it is one of the pictures that can be drawn anew.
    #[must_use]
    pub fn is_picture(self) -> bool {
        matches!(self, Self::Jpeg | Self::Png | Self::Gif | Self::Webp)
    }

    /// Its MIME type.
    #[must_use]
    pub fn mime(self) -> &'static str {
        self.row().1
    }

    /// For the name of a file; never one that a machine would run.
    #[must_use]
    pub fn extension(self) -> &'static str {
        self.row().2
    }
}

/// How a WAV's sound is written: 1 is PCM. `None` where it does not say so at its beginning.
fn wave_format(mut parts: &[u8]) -> Option<u16> {
    loop {
        let (head, rest) = parts.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if head.starts_with(b"fmt ") {
            return rest.first_chunk::<2>().map(|format| u16::from_le_bytes(*format));
        }
        parts = rest.get(usize::try_from(length).ok()?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_what_the_first_bytes_say() {
        for (bytes, kind) in [
            (&b"\xff\xd8\xff\xe0<html>"[..], Type::Jpeg),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Type::Other),
            (b"PK\x03\x04", Type::Other),
            (b"<html>\xff\xd8\xff", Type::Other),
            (b"MZ\x90", Type::Other),
            (b"", Type::Other),
            (b"\xff\xfb\x90\x00", Type::Mp3),
            (b"\xff\xfe\x90\x00", Type::Other),
            (b"RIFF\0\0\0\0WAVEfmt ", Type::Wav),
            (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0", Type::Wav),
            (b"RIFF\0\0\0\0WAVEfmt \x14\0\0\0\x31\0\x01\0", Type::CodedWav),
            (b"RIFF\0\0\0\0WAVELIST\x02\0\0\0xxfmt \x10\0\0\0\x06\0", Type::CodedWav),
            (b"RIFF\0\0\0\0WEBPVP8 ", Type::Webp),
            (b"#!AMR\n\x7c", Type::AmrNarrow),
            (b"#!AMR-WB\n\x7c", Type::AmrWide),
            (b"\0\0\0\x18ftypmp42", Type::Mp4),
            (b"\0\0\0\x18ftypheic", Type::Other),
            (b"%PDF-1.7\n", Type::Pdf),
            (&[0xd5; 330], Type::Gsm),
            (&[0xd5; 329], Type::Other),
        ] {
            assert_eq!(Type::of(bytes), kind, "{bytes:?}");
            assert_eq!(Type::of_mime(kind.mime()), kind);
        }
    }
}

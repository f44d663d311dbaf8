//! Voice that a browser can play: WeChat's AMR, narrow and wide, as WAV (16 bits, one channel).

use super::Type;
use bytes::{BufMut, Bytes, BytesMut};
use codec_core::codecs::amr::{AmrCodec, AmrFrameType, AmrStorageReader, AmrVariant};
use codec_core::types::{CodecConfig, CodedFrame, FrameKind, VariableRateCodec};

/// Frames of 20 ms in half an hour. WeChat's voices have a minute at most; a file of empty frames
/// would unfold to six hundred times its size.
const LONGEST: usize = 30 * 60 * 50;

/// The recording as WAV; `None` for what is no AMR, is damaged from the start, or lasts too long.
/// Where a recording breaks off, what comes before is kept.
#[must_use]
pub(super) fn play(kind: Type, bytes: &[u8]) -> Option<Bytes> {
    if !matches!(kind, Type::AmrNarrow | Type::AmrWide) {
        return None;
    }
    let mut reader = AmrStorageReader::new(bytes).ok()?;
    let (rate, config) = match reader.variant() {
        AmrVariant::NarrowBand => (8000, CodecConfig::amr_nb()),
        AmrVariant::WideBand => (16_000, CodecConfig::amr_wb()),
    };
    let mut codec = AmrCodec::new(&config).ok()?;
    let mut samples = BytesMut::new();
    for count in 0.. {
        let Ok(Some(frame)) = reader.next_frame() else { break };
        if count == LONGEST {
            return None;
        }
        let (kind, mode) = match frame.frame_type {
            AmrFrameType::Speech(mode) => (FrameKind::Speech, mode.index()),
            AmrFrameType::Sid(_) => (FrameKind::ComfortNoise, 0),
            AmrFrameType::NoData => (FrameKind::NoData, 0),
            AmrFrameType::SpeechLost => (FrameKind::Lost, 0),
        };
        let coded = CodedFrame { kind, mode, quality_ok: frame.quality_ok, data: frame.data };
        let Ok(heard) = codec.decode_frame(&coded) else { break };
        heard.into_iter().for_each(|sample| samples.put_i16_le(sample));
    }
    (!samples.is_empty()).then(|| wav(rate, &samples))
}

fn wav(rate: u32, samples: &[u8]) -> Bytes {
    let length = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    let mut file = BytesMut::with_capacity(44 + samples.len());
    file.put_slice(b"RIFF");
    file.put_u32_le(length.saturating_add(36));
    file.put_slice(b"WAVEfmt ");
    file.put_u32_le(16);
    file.put_u16_le(1); // PCM
    file.put_u16_le(1); // one channel
    file.put_u32_le(rate);
    file.put_u32_le(rate * 2);
    file.put_u16_le(2);
    file.put_u16_le(16);
    file.put_slice(b"data");
    file.put_u32_le(length);
    file.put_slice(samples);
    file.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_silence_is_a_second_of_sound() {
        let narrow = [&b"#!AMR\n"[..], &[0x7c; 50]].concat();
        let wide = [&b"#!AMR-WB\n"[..], &[0x7c; 50]].concat();
        assert_eq!(play(Type::AmrNarrow, &narrow).map(|wav| wav.len()), Some(44 + 16_000));
        assert_eq!(play(Type::AmrWide, &wide).map(|wav| wav.len()), Some(44 + 32_000));
    }

    #[test]
    fn what_is_damaged_or_endless_is_not_played() {
        assert_eq!(play(Type::AmrNarrow, b"#!AMR\n"), None);
        assert_eq!(play(Type::AmrNarrow, b"#!AMR\n\x3c\x01"), None);
        let endless = [&b"#!AMR\n"[..], &vec![0x7c; LONGEST + 1]].concat();
        assert_eq!(play(Type::AmrNarrow, &endless), None);
        assert_eq!(play(Type::Other, b"#!AMR\n\x7c"), None);
    }
}

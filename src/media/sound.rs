//! Sound that every browser plays and in which it can seek: WAV, 16 bits, one channel. From WeChat's
//! AMR, and from what exchanges and vendors record: WAV with PCM, A-law, µ-law or GSM, bare GSM, MP3
//! (hotline.md §4). How long the sound is and whether there is anything to hear in it is measured on
//! the way.
//!
//! What comes in is anybody's: every length is held against what is there, and sound, size and time
//! have limits.

use super::{Type, gsm};
use bytes::{BufMut, Bytes, BytesMut};
use codec_core::codecs::{
    amr::{AmrCodec, AmrFrameType, AmrStorageReader, AmrVariant},
    g711::{alaw_expand, ulaw_expand},
};
use codec_core::types::{CodecConfig, CodedFrame, FrameKind, VariableRateCodec};
use nanomp3_core::{Decoder as Mp3, MAX_SAMPLES_PER_FRAME};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// The longest sound, in seconds: a file of empty frames would unfold to six hundred times its size.
pub(super) const LONGEST_S: u32 = 30 * 60;
/// The largest play copy, in bytes: half an hour at 16 kHz.
const LARGEST: usize = 64 * 1024 * 1024;
/// For a decoder; half an hour of sound takes seconds.
const WITHIN: Duration = Duration::from_secs(60);
/// Speech has nothing above; what was sampled faster is halved until it is not.
const FASTEST: u32 = 24_000;
/// Silence: below -50 dBFS over the whole (hotline.md §2), as the mean of the squares.
const SILENT: u64 = 10_737;

/// A sound that was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// As WAV; empty where there is no sound in it.
    pub(super) wav: Bytes,
    /// How long it is, in milliseconds.
    pub(super) ms: i32,
    /// Nothing can be heard in it.
    pub(super) silent: bool,
}

/// What is heard in it; `None` for what is no sound that is known here, is damaged from the start, or
/// lasts too long. Where a recording breaks off, what comes before is kept.
#[must_use]
pub(super) fn play(kind: Type, bytes: &[u8]) -> Option<Heard> {
    match kind {
        Type::AmrNarrow | Type::AmrWide => amr(bytes),
        Type::Wav | Type::CodedWav => wav(bytes),
        Type::Gsm => {
            let mut sound = Sound::new(8000, 1)?;
            let mut decoder = gsm::Decoder::new();
            for frame in bytes.chunks(gsm::FRAME) {
                let Some(samples) = frame.try_into().ok().and_then(|f| decoder.raw(f)) else {
                    break;
                };
                sound.add(samples)?;
            }
            sound.heard()
        }
        Type::Mp3 => mp3(bytes),
        _ => None,
    }
}

/// Sound of 16 bits and one channel, from another program.
#[must_use]
pub(super) fn of_samples(rate: u32, bytes: &[u8]) -> Option<Heard> {
    let mut sound = Sound::new(rate, 1)?;
    sound.add(bytes.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])))?;
    sound.heard()
}

fn amr(bytes: &[u8]) -> Option<Heard> {
    let mut reader = AmrStorageReader::new(bytes).ok()?;
    let (rate, config) = match reader.variant() {
        AmrVariant::NarrowBand => (8000, CodecConfig::amr_nb()),
        AmrVariant::WideBand => (16_000, CodecConfig::amr_wb()),
    };
    let mut codec = AmrCodec::new(&config).ok()?;
    let mut sound = Sound::new(rate, 1)?;
    while let Ok(Some(frame)) = reader.next_frame() {
        let (kind, mode) = match frame.frame_type {
            AmrFrameType::Speech(mode) => (FrameKind::Speech, mode.index()),
            AmrFrameType::Sid(_) => (FrameKind::ComfortNoise, 0),
            AmrFrameType::NoData => (FrameKind::NoData, 0),
            AmrFrameType::SpeechLost => (FrameKind::Lost, 0),
        };
        let coded = CodedFrame { kind, mode, quality_ok: frame.quality_ok, data: frame.data };
        let Ok(heard) = codec.decode_frame(&coded) else { break };
        sound.add(heard)?;
    }
    sound.heard()
}

fn mp3(bytes: &[u8]) -> Option<Heard> {
    /// What the decoder looks at at a time: some frames, the largest has 2 KiB.
    const LOOK: usize = 16 * 1024;
    /// The library gives up, loudly, on some frames that are damaged; they are passed over. What
    /// holds more of them is no recording.
    const DAMAGED: usize = 20;
    const PAST: usize = 256;
    let mut damaged = 0;
    let mut decoder = Mp3::new();
    let mut samples = [0_i16; MAX_SAMPLES_PER_FRAME];
    let mut rest = tagless(bytes);
    let mut sound: Option<Sound> = None;
    let until = Instant::now() + WITHIN;
    while !rest.is_empty() && Instant::now() < until {
        let look = &rest[..rest.len().min(LOOK)];
        let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(look, &mut samples)));
        let Ok((read, frame)) = decoded else {
            damaged += 1;
            if damaged > DAMAGED {
                return None;
            }
            decoder = Mp3::new();
            rest = rest.get(PAST..).unwrap_or_default();
            continue;
        };
        rest = rest.get(read.max(1)..).unwrap_or_default();
        // What cannot be decoded is skipped; the first frames of what was cut out of a longer one.
        let Ok(frame) = frame else { continue };
        let channels = usize::from(frame.channels.num());
        if sound.is_none() {
            sound = Some(Sound::new(frame.sample_rate, 1)?);
        }
        let same = |sound: &&mut Sound| sound.came_at == frame.sample_rate;
        let Some(sound) = sound.as_mut().filter(same) else { continue };
        let heard = samples.get(..frame.samples_produced * channels)?;
        sound.add(heard.chunks_exact(channels).map(mean))?;
    }
    if rest.is_empty() { sound?.heard() } else { None }
}

/// Without the tag at its beginning, which may hold a picture.
fn tagless(bytes: &[u8]) -> &[u8] {
    let [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] = bytes else { return bytes };
    let length =
        [a, b, c, d].iter().fold(0, |length, byte| length << 7 | usize::from(*byte & 0x7f));
    bytes.get(10 + length..).unwrap_or_default()
}

fn mean(samples: &[i16]) -> i16 {
    let sum: i32 = samples.iter().map(|sample| i32::from(*sample)).sum();
    i32::try_from(samples.len()).ok().and_then(|n| sum.checked_div(n)).unwrap_or(0) as i16
}

/// The parts of a WAV that matter.
struct Wave<'a> {
    format: u16,
    channels: usize,
    rate: u32,
    /// Bits of a sample.
    bits: u16,
    data: &'a [u8],
}

impl<'a> Wave<'a> {
    /// A length that nobody filled in, or that goes beyond the end, means: to the end. So do
    /// recorders leave it that were interrupted.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.get(12..)?;
        let mut format = None;
        loop {
            let (head, content) = rest.split_first_chunk::<8>()?;
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            let length = usize::try_from(length).ok()?;
            let whole = content.get(..length);
            if head.starts_with(b"data") {
                let data = whole.filter(|data| !data.is_empty()).unwrap_or(content);
                let (format, channels, rate, bits) = format?;
                return Some(Self { format, channels, rate, bits, data });
            }
            let part = whole?;
            if head.starts_with(b"fmt ") {
                let two = |at: usize| Some(u16::from_le_bytes(*part.get(at..)?.first_chunk()?));
                let rate = u32::from_le_bytes(*part.get(4..)?.first_chunk()?);
                let coded = match two(0)? {
                    // The long form says it further behind.
                    0xfffe => two(24)?,
                    coded => coded,
                };
                format = Some((coded, usize::from(two(2)?), rate, two(14)?));
            }
            rest = content.get(length + (length & 1)..)?;
        }
    }
}

fn wav(bytes: &[u8]) -> Option<Heard> {
    let wave = Wave::read(bytes)?;
    if wave.data.is_empty() {
        return Some(Heard { wav: Bytes::new(), ms: 0, silent: true });
    }
    let mut sound = Sound::new(wave.rate, wave.channels)?;
    match (wave.format, wave.bits) {
        (1, 8) => sound.add_all(&wave, 1, |one| (i16::from(one[0]) - 128) << 8)?,
        // Of longer samples the upper two bytes.
        (1, 16 | 24 | 32) => {
            let width = usize::from(wave.bits / 8);
            let read = |one: &[u8]| i16::from_le_bytes([one[width - 2], one[width - 1]]);
            sound.add_all(&wave, width, read)?;
        }
        (6, 8) => sound.add_all(&wave, 1, |one| alaw_expand(one[0]))?,
        (7, 8) => sound.add_all(&wave, 1, |one| ulaw_expand(one[0]))?,
        (0x31, _) if wave.channels == 1 => {
            let mut decoder = gsm::Decoder::new();
            for pair in wave.data.chunks(gsm::PAIR) {
                let Ok(pair) = pair.try_into() else { break };
                for samples in decoder.pair(pair) {
                    sound.add(samples)?;
                }
            }
        }
        _ => return None,
    }
    sound.heard()
}

/// Sound that is being put together.
struct Sound {
    /// Samples in a second, as they come.
    came_at: u32,
    /// So many of them become one.
    step: u32,
    /// Those of the next one: their sum and how many.
    open: (i32, u32),
    samples: BytesMut,
    /// The sum of the squares.
    squares: u64,
    until: Instant,
}

impl Sound {
    /// Nothing yet; `None` for rates and numbers of channels that no recorder has.
    fn new(rate: u32, channels: usize) -> Option<Self> {
        if !(4000..=192_000).contains(&rate) || !(1..=8).contains(&channels) {
            return None;
        }
        let mut step = 1;
        while rate / step > FASTEST {
            step *= 2;
        }
        let until = Instant::now() + WITHIN;
        let (samples, squares) = (BytesMut::new(), 0);
        Some(Self { came_at: rate, step, open: (0, 0), samples, squares, until })
    }

    fn rate(&self) -> u32 {
        self.came_at / self.step
    }

    /// More of it; `None` when it has become too long, or takes too long.
    fn add(&mut self, samples: impl IntoIterator<Item = i16>) -> Option<()> {
        for sample in samples {
            self.open = (self.open.0 + i32::from(sample), self.open.1 + 1);
            if self.open.1 == self.step {
                let sample = (self.open.0 / self.step as i32) as i16;
                self.open = (0, 0);
                self.squares += u64::from(sample.unsigned_abs()).pow(2);
                self.samples.put_i16_le(sample);
            }
        }
        let longest = (LONGEST_S * self.rate()) as usize * 2;
        let fits = self.samples.len() <= longest.min(LARGEST) && Instant::now() < self.until;
        fits.then_some(())
    }

    /// The samples of a WAV, `width` bytes each, its channels as one.
    fn add_all(
        &mut self,
        wave: &Wave<'_>,
        width: usize,
        read: impl Fn(&[u8]) -> i16,
    ) -> Option<()> {
        const AT_A_TIME: usize = 4096;
        let together = width * wave.channels;
        for part in wave.data.chunks(together * AT_A_TIME) {
            self.add(part.chunks_exact(together).map(|of_all| {
                let sum: i32 = of_all.chunks_exact(width).map(|one| i32::from(read(one))).sum();
                (sum / wave.channels as i32) as i16
            }))?;
        }
        Some(())
    }

    fn heard(self) -> Option<Heard> {
        let count = (self.samples.len() / 2) as u64;
        let ms = i32::try_from((count * 1000).checked_div(self.rate().into())?).ok()?;
        let silent = self.squares < count * SILENT;
        (count > 0).then(|| Heard { wav: wave(self.rate(), &self.samples), ms, silent })
    }
}

/// Samples as a WAV.
fn wave(rate: u32, samples: &[u8]) -> Bytes {
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
    use codec_core::codecs::g711::{alaw_compress, ulaw_compress};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// One message, as an exchange wrote it three times, and as MP3.
    const PCM: &[u8] = include_bytes!("../../tests/fixtures/sound/msg0002.wav");
    const WAV49: &[u8] = include_bytes!("../../tests/fixtures/sound/msg0002.wav49");
    const GSM: &[u8] = include_bytes!("../../tests/fixtures/sound/msg0002.gsm");
    const MP3: &[u8] = include_bytes!("../../tests/fixtures/sound/msg0002.mp3");

    fn samples(wav: &[u8]) -> Vec<i16> {
        wav[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect()
    }

    fn heard(bytes: &[u8]) -> Heard {
        play(Type::of(bytes), bytes).expect("it plays")
    }

    /// How alike two sounds are, from -1 to 1, where they fit best: one is `late` samples late at
    /// most.
    fn likeness(one: &[i16], other: &[i16], late: usize) -> f64 {
        let of = |shift: usize| {
            let pairs = one.iter().skip(shift).zip(other);
            let (mut product, mut ones, mut others) = (0.0, 0.0, 0.0);
            for (a, b) in pairs.map(|(a, b)| (f64::from(*a), f64::from(*b))) {
                product += a * b;
                ones += a * a;
                others += b * b;
            }
            product / f64::sqrt(ones * others).max(1.0)
        };
        (0..=late).map(of).fold(f64::MIN, f64::max)
    }

    fn with_head(format: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        file.extend(format.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        file.extend(*b"data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn every_form_of_one_message_sounds_like_it() {
        let original = samples(PCM);
        // An encoder of MP3 begins with silence.
        for (bytes, least, late) in
            [(PCM, 1.0, 0), (WAV49, 0.94, 0), (GSM, 0.94, 0), (MP3, 0.9, 1600)]
        {
            let heard = heard(bytes);
            let alike = likeness(&samples(&heard.wav), &original, late);
            assert!(alike >= least - 1e-9, "{alike}");
            assert!((7600..8000).contains(&heard.ms) && !heard.silent, "{} ms", heard.ms);
        }
        // It needs no copy.
        assert_eq!(heard(PCM).wav, PCM);
    }

    #[test]
    fn gsm_is_decoded_to_the_bit_as_the_standard_says() {
        // By the digest of what the usual implementation of the standard makes of it.
        for bytes in [GSM, WAV49] {
            let digest = hex::encode(Sha256::digest(&heard(bytes).wav[44..]));
            assert_eq!(digest, "f16c28ab67c4d100328cf19479cfe48f0fdc94f2c3f1ea2c5365c5938a194861");
        }
    }

    #[test]
    fn telephone_laws_channels_widths_and_rates_are_put_into_one_form() {
        let original = samples(PCM);
        let of =
            |compress: fn(i16) -> u8| original.iter().map(|s| compress(*s)).collect::<Vec<_>>();
        for (format, data) in [(6, of(alaw_compress)), (7, of(ulaw_compress))] {
            let heard = heard(&with_head(format, 1, 8000, 8, &data));
            assert!(likeness(&samples(&heard.wav), &original, 0) > 0.99);
        }
        let eight: Vec<u8> = original.iter().map(|s| ((s >> 8) + 128) as u8).collect();
        assert!(
            likeness(&samples(&heard(&with_head(1, 1, 8000, 8, &eight)).wav), &original, 0) > 0.9
        );
        let wide: Vec<u8> =
            original.iter().flat_map(|s| (i32::from(*s) << 16).to_le_bytes()).collect();
        assert_eq!(heard(&with_head(1, 1, 8000, 32, &wide)).wav, PCM);
        // Two channels that say the same; and one that says nothing halves it.
        let both: Vec<u8> =
            original.iter().flat_map(|s| [*s, *s]).flat_map(i16::to_le_bytes).collect();
        assert_eq!(heard(&with_head(1, 2, 8000, 16, &both)).wav, PCM);
        // Sampled faster than speech needs.
        let fast: Vec<u8> =
            original.iter().flat_map(|s| [*s; 6]).flat_map(i16::to_le_bytes).collect();
        let fast = heard(&with_head(1, 1, 48_000, 16, &fast));
        assert_eq!((fast.wav[24..28].to_vec(), fast.ms), (24_000u32.to_le_bytes().to_vec(), 7680));
    }

    #[test]
    fn what_is_empty_cut_off_or_lies_harms_nobody() {
        let empty = with_head(1, 1, 8000, 16, b"");
        assert_eq!(heard(&empty), Heard { wav: Bytes::new(), ms: 0, silent: true });
        // What is there is kept, though more was promised, or nothing.
        for promised in [u32::MAX, 0] {
            let mut cut = with_head(1, 1, 8000, 16, &[1; 160]);
            cut[40..44].copy_from_slice(&promised.to_le_bytes());
            assert_eq!(heard(&cut).ms, 10);
        }
        assert_eq!(heard(&PCM[..PCM.len() / 2]).ms, 3838);
        assert_eq!(heard(&GSM[..GSM.len() - 1]).ms, 7660);
        for (channels, rate, bits) in
            [(0, 8000, 16), (1, 0, 16), (1, u32::MAX, 16), (65535, 8000, 16), (1, 8000, 12)]
        {
            let lying = with_head(1, channels, rate, bits, &[1; 160]);
            assert_eq!(play(Type::Wav, &lying), None, "{channels} {rate} {bits}");
        }
        // A frame at which the library gives up costs a moment, not the recording.
        let mut damaged = MP3.to_vec();
        damaged[873] ^= 187;
        damaged[874] ^= 224;
        assert!(heard(&damaged).ms > 7000);
        assert_eq!(play(Type::Wav, &empty[..40]), None);
        assert_eq!(play(Type::CodedWav, &with_head(0x55, 1, 8000, 16, &[1; 160])), None);
        assert_eq!(play(Type::Mp3, b"ID3\x04\0\0\x7f\x7f\x7f\x7f"), None);
        assert_eq!(play(Type::Other, PCM), None);
    }

    #[test]
    fn what_nobody_can_hear_is_silent() {
        let tone = |size: i16| {
            let data: Vec<u8> = (0..8000)
                .flat_map(|n| (if n % 16 < 8 { size } else { -size }).to_le_bytes())
                .collect();
            heard(&with_head(1, 1, 8000, 16, &data)).silent
        };
        // -50 dBFS are 104.
        assert!(tone(0) && tone(100) && !tone(110) && !tone(8000));
    }

    #[test]
    fn a_second_of_silence_is_a_second_of_sound() {
        let narrow = [&b"#!AMR\n"[..], &[0x7c; 50]].concat();
        let wide = [&b"#!AMR-WB\n"[..], &[0x7c; 50]].concat();
        assert_eq!((heard(&narrow).wav.len(), heard(&narrow).ms), (44 + 16_000, 1000));
        assert_eq!((heard(&wide).wav.len(), heard(&wide).silent), (44 + 32_000, true));
    }

    #[test]
    fn what_is_damaged_or_endless_is_not_played() {
        assert_eq!(play(Type::AmrNarrow, b"#!AMR\n"), None);
        assert_eq!(play(Type::AmrNarrow, b"#!AMR\n\x3c\x01"), None);
        let endless = [&b"#!AMR\n"[..], &vec![0x7c; LONGEST_S as usize * 50 + 1]].concat();
        assert_eq!(play(Type::AmrNarrow, &endless), None);
        let endless = with_head(6, 1, 8000, 8, &vec![0x55; LONGEST_S as usize * 8000 + 8000]);
        assert_eq!(play(Type::CodedWav, &endless), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..3000), format in 0u16..60, channels in 0u16..10, bits in 0u16..40, at in 0usize..2000) {
            let kinds = [Type::AmrNarrow, Type::AmrWide, Type::Mp3, Type::Wav, Type::CodedWav, Type::Gsm];
            for kind in kinds {
                let _ = play(kind, &bytes);
            }
            let _ = play(Type::Wav, &with_head(format, channels, 8000, bits, &bytes));
            for head in [&b"#!AMR\n"[..], b"#!AMR-WB\n", b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x00"] {
                let _ = play(Type::of(head), &[head, &bytes].concat());
            }
            // And what was right once.
            for right in [WAV49, GSM, MP3, &PCM[..4000]] {
                let mut damaged = right[..right.len().min(8000)].to_vec();
                let at = at.min(damaged.len() - 1);
                for (to, from) in damaged[at..].iter_mut().zip(&bytes) {
                    *to ^= from;
                }
                let _ = play(Type::of(right), &damaged);
            }
        }
    }
}

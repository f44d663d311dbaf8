//! GSM 06.10 full rate (ETSI EN 300 961), decoded with the standard's integer arithmetic: what
//! Asterisk writes as `.gsm` and, in Microsoft's packing, as `.WAV`. 260 bits are 160 samples, 20 ms at
//! 8 kHz. The names of the standard stand in brackets.

/// Bytes of a frame in a `.gsm` file: a nibble that says so, and 260 bits.
pub(super) const FRAME: usize = 33;
/// Bytes of two frames in a WAV (format 0x31).
pub(super) const PAIR: usize = 65;
/// Samples of a frame.
pub(super) const SAMPLES: usize = 160;

/// The upper half of a `.gsm` frame's first byte.
const MARK: u8 = 0xd;
/// How far back the long-term prediction reaches.
const PAST: usize = 120;

/// Whether this is a `.gsm` file: each of its first frames carries the mark. Shorter ones than a
/// fifth of a second could be anything.
#[must_use]
pub(super) fn is_raw(bytes: &[u8]) -> bool {
    const LOOK: usize = 10;
    let mut frames = bytes.chunks_exact(FRAME).take(LOOK);
    frames.len() == LOOK && frames.all(|frame| frame[0] >> 4 == MARK)
}

/// Reads numbers of some bits each, in the order of the packing.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A byte's lowest bit comes first: Microsoft's packing.
    lowest_first: bool,
}

impl Bits<'_> {
    fn next(&mut self, count: usize) -> i16 {
        let mut value = 0;
        for n in 0..count {
            let byte = self.bytes.get(self.at / 8).copied().unwrap_or(0);
            let place = self.at % 8;
            self.at += 1;
            if self.lowest_first {
                value |= i16::from(byte >> place & 1) << n;
            } else {
                value = value << 1 | i16::from(byte >> (7 - place) & 1);
            }
        }
        value
    }
}

/// A product of fractions, rounded [mult_r].
fn times(a: i16, b: i16) -> i16 {
    let product = (i32::from(a) * i32::from(b) + 16_384) >> 15;
    i16::try_from(product).unwrap_or(i16::MAX)
}

/// The decoder, between two frames.
pub(super) struct Decoder {
    /// The excitation: the last 120 values, then the 40 of the subframe [drp].
    excitation: [i16; PAST + 40],
    /// The last lag that was one [nrp].
    lag: usize,
    /// The last frame's log area ratios [LARpp].
    ratios: [i16; 8],
    /// The lattice filter [v].
    lattice: [i16; 9],
    /// The de-emphasis [msr].
    emphasis: i16,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { excitation: [0; PAST + 40], lag: 40, ratios: [0; 8], lattice: [0; 9], emphasis: 0 }
    }

    /// A frame of a `.gsm` file; `None` without the mark.
    pub(super) fn raw(&mut self, frame: &[u8; FRAME]) -> Option<[i16; SAMPLES]> {
        if frame[0] >> 4 != MARK {
            return None;
        }
        Some(self.frame(&mut Bits { bytes: frame, at: 4, lowest_first: false }))
    }

    /// Two frames of a WAV, one right behind the other.
    pub(super) fn pair(&mut self, pair: &[u8; PAIR]) -> [[i16; SAMPLES]; 2] {
        let mut bits = Bits { bytes: pair, at: 0, lowest_first: true };
        [self.frame(&mut bits), self.frame(&mut bits)]
    }

    fn frame(&mut self, bits: &mut Bits<'_>) -> [i16; SAMPLES] {
        let ratios = ratios(bits);
        let mut samples = [0; SAMPLES];
        for part in samples.chunks_exact_mut(40) {
            self.excite(bits);
            part.copy_from_slice(&self.excitation[PAST..]);
            self.excitation.copy_within(40.., 0);
        }
        // Between two frames the filter changes in steps (4.2.9.1).
        let before = std::mem::replace(&mut self.ratios, ratios);
        let mix = |of: &dyn Fn(i16, i16) -> i16| -> [i16; 8] {
            std::array::from_fn(|n| of(before[n], ratios[n]))
        };
        let quarter = |a: i16, b: i16| (a >> 2).saturating_add(b >> 2);
        let steps = [
            (0..13, mix(&|a, b| quarter(a, b).saturating_add(a >> 1))),
            (13..27, mix(&|a, b| (a >> 1).saturating_add(b >> 1))),
            (27..40, mix(&|a, b| quarter(a, b).saturating_add(b >> 1))),
            (40..SAMPLES, ratios),
        ];
        for (range, ratios) in steps {
            let reflections = ratios.map(reflection);
            for sample in &mut samples[range] {
                *sample = self.filter(*sample, &reflections);
            }
        }
        for sample in &mut samples {
            self.emphasis = sample.saturating_add(times(self.emphasis, 28_180));
            // The three lowest bits say nothing.
            *sample = self.emphasis.saturating_add(self.emphasis) & !7;
        }
        samples
    }

    /// The excitation of a subframe: pulses on a grid over what was heard a lag ago (4.2.15 to 4.3.2).
    fn excite(&mut self, bits: &mut Bits<'_>) {
        const GAINS: [i16; 4] = [3277, 11_469, 21_299, 32_767];
        const FACTORS: [i16; 8] = [18_431, 20_479, 22_527, 24_575, 26_623, 28_671, 30_719, 32_767];
        let lag = bits.next(7);
        let gain = GAINS[bits.next(2) as usize & 3];
        let offset = bits.next(2) as usize & 3;
        let (exponent, mantissa) = block_size(bits.next(6));
        let shift = 6 - exponent;
        let half = if shift > 0 { 1 << (shift - 1) } else { 0 };
        let mut pulses = [0; 40];
        for n in 0..13 {
            let pulse = ((bits.next(3) << 1) - 7) << 12;
            let pulse = times(FACTORS[mantissa & 7], pulse).saturating_add(half);
            pulses[offset + 3 * n] = pulse >> shift;
        }
        self.lag =
            usize::try_from(lag).ok().filter(|n| (40..=PAST).contains(n)).unwrap_or(self.lag);
        for (n, pulse) in pulses.into_iter().enumerate() {
            let heard = times(gain, self.excitation[PAST + n - self.lag]);
            self.excitation[PAST + n] = pulse.saturating_add(heard);
        }
    }

    /// One sample through the lattice (4.3.4).
    fn filter(&mut self, excitation: i16, reflections: &[i16; 8]) -> i16 {
        let mut sample = excitation;
        for n in (0..8).rev() {
            sample = sample.saturating_sub(times(reflections[n], self.lattice[n]));
            self.lattice[n + 1] = self.lattice[n].saturating_add(times(reflections[n], sample));
        }
        self.lattice[0] = sample;
        sample
    }
}

/// A block's size as exponent and mantissa (4.2.15) [xmaxc].
fn block_size(coded: i16) -> (i16, usize) {
    let mut exponent = if coded > 15 { (coded >> 3) - 1 } else { 0 };
    let mut mantissa = coded - (exponent << 3);
    if mantissa == 0 {
        return (-4, 7);
    }
    while mantissa <= 7 {
        mantissa = mantissa << 1 | 1;
        exponent -= 1;
    }
    (exponent, usize::try_from(mantissa - 8).unwrap_or(0))
}

/// The log area ratios of a frame (4.2.8): bits, offset [B], least value [MIC], slope [INVA].
fn ratios(bits: &mut Bits<'_>) -> [i16; 8] {
    const CODED: [(usize, i16, i16, i16); 8] = [
        (6, 0, -32, 13_107),
        (6, 0, -32, 13_107),
        (5, 2048, -16, 13_107),
        (5, -2560, -16, 13_107),
        (4, 94, -8, 19_223),
        (4, -1792, -8, 17_476),
        (3, -341, -4, 31_454),
        (3, -1144, -4, 29_708),
    ];
    CODED.map(|(count, offset, least, slope)| {
        let ratio = ((bits.next(count) + least) << 10).saturating_sub(offset << 1);
        let ratio = times(slope, ratio);
        ratio.saturating_add(ratio)
    })
}

/// A log area ratio as a reflection coefficient (4.2.9.2).
fn reflection(ratio: i16) -> i16 {
    let size = ratio.checked_abs().unwrap_or(i16::MAX);
    let size = match size {
        0..11_059 => size << 1,
        11_059..20_070 => size + 11_059,
        _ => (size >> 2).saturating_add(26_112),
    };
    if ratio < 0 { -size } else { size }
}

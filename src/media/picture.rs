//! Pictures that are safe to show: decoded, turned upright, drawn anew. Of the file that came nothing
//! is left but what can be seen: no place, no camera, no other file hidden in it.

use bytes::Bytes;
use image::{
    DynamicImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage, codecs::jpeg::JpegEncoder,
    metadata::Orientation,
};
use std::io::Cursor;

use super::Type;

/// Pixels of a picture that is opened: a good camera's. A small file can claim any size.
const PIXELS: u64 = 50_000_000;
/// What decoding may take in bytes: a picture of that size with transparency.
const ALLOCATES: u64 = 256 * 1024 * 1024;
/// The longer side of what is looked at, and of what is found by.
const PREVIEW: u32 = 1600;
const THUMB: u32 = 320;

/// What is made of a picture, as JPEG.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// At most 1600 pixels wide and high.
    pub(super) preview: Bytes,
    /// At most 320.
    pub(super) thumb: Bytes,
}

/// The picture drawn anew; `None` for what is no picture, is too large or cannot be read. Of what
/// moves, the first picture.
#[must_use]
pub(super) fn show(kind: Type, bytes: &[u8]) -> Option<Shown> {
    let format = match kind {
        Type::Jpeg => image::ImageFormat::Jpeg,
        Type::Png => image::ImageFormat::Png,
        Type::Gif => image::ImageFormat::Gif,
        Type::Webp => image::ImageFormat::WebP,
        _ => return None,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(ALLOCATES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS || decoder.total_bytes() > ALLOCATES {
        return None;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).ok()?;
    // First small, then turned: a quarter of the work.
    picture = at_most(picture, PREVIEW);
    picture.apply_orientation(orientation);
    let picture = DynamicImage::ImageRgb8(on_white(picture));
    let preview = jpeg(&picture, 85)?;
    let thumb = jpeg(&at_most(picture, THUMB), 75)?;
    Some(Shown { preview, thumb })
}

fn at_most(picture: DynamicImage, side: u32) -> DynamicImage {
    if picture.width() <= side && picture.height() <= side {
        return picture;
    }
    picture.thumbnail(side, side)
}

/// JPEG knows no transparency, and what shines through would be black.
fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    let mut paper = RgbImage::new(picture.width(), picture.height());
    for (from, to) in picture.pixels().zip(paper.pixels_mut()) {
        let [red, green, blue, alpha] = from.0.map(u16::from);
        let over = |color: u16| ((color * alpha + 255 * (255 - alpha)) / 255) as u8;
        *to = Rgb([over(red), over(green), over(blue)]);
    }
    paper
}

fn jpeg(picture: &DynamicImage, quality: u8) -> Option<Bytes> {
    let mut bytes = Vec::new();
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality)).ok()?;
    Some(bytes.into())
}

//! The pages' style, compiled in; its address carries a digest, so that telephones keep it until it
//! changes.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const CSS: &str = include_str!("assets/citizen.css");

static ADDRESS: LazyLock<String> = LazyLock::new(|| {
    let digest = hex::encode(Sha256::digest(CSS.as_bytes()));
    format!("/c/assets/citizen.css?{}", &digest[..12])
});

pub(super) fn css() -> &'static str {
    &ADDRESS
}

pub(super) async fn serve(Path(name): Path<String>) -> Response {
    if name != "citizen.css" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, CSS).into_response()
}

#[cfg(test)]
mod tests {
    use super::CSS;
    use std::collections::HashMap;

    /// The colours of a theme by name: those of the first `:root` from here on.
    fn theme(css: &str) -> HashMap<&str, [f64; 3]> {
        let (_, css) = css.split_once(":root {").unwrap();
        let (block, _) = css.split_once('}').unwrap();
        let colours = block.split(';').filter_map(|line| line.trim().split_once(':'));
        colours
            .map(|(name, value)| {
                let hex = value.trim().trim_start_matches('#');
                let part = |n: usize| match hex.len() {
                    3 => u8::from_str_radix(&hex[n..=n].repeat(2), 16).unwrap(),
                    _ => u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap(),
                };
                (name.trim(), [0, 1, 2].map(|n| f64::from(part(n)) / 255.0))
            })
            .collect()
    }

    /// WCAG 2.2, "relative luminance" and "contrast ratio".
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let luminance = |colour: [f64; 3]| {
            let [r, g, b] = colour.map(|part| match part {
                dark if dark <= 0.04045 => dark / 12.92,
                light => ((light + 0.055) / 1.055).powf(2.4),
            });
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        one.max(other) / one.min(other)
    }

    #[test]
    fn wcag_aa_words_stand_out_from_what_they_stand_on_in_both_themes() {
        let dark = CSS.split_once("prefers-color-scheme: dark").unwrap().1;
        for theme in [theme(CSS), theme(dark)] {
            let pairs = [
                ("--ink", ["--paper", "--ground", "--note", "--good", "--bad"].as_slice()),
                ("--soft", &["--paper", "--ground", "--note", "--good", "--bad"]),
                ("--accent", &["--paper", "--ground", "--note", "--good", "--bad"]),
                ("--accent-ink", &["--accent"]),
                ("--paper", &["--grave"]),
            ];
            for (words, grounds) in pairs {
                for ground in grounds {
                    let ratio = contrast(theme[words], theme[ground]);
                    assert!(ratio >= 4.5, "{words} on {ground}: {ratio:.2}");
                }
            }
            // A field's edge (1.4.11).
            assert!(contrast(theme["--soft"], theme["--paper"]) >= 3.0);
        }
    }
}

//! Style and script, compiled in. Their addresses carry a digest, so that browsers keep them until
//! they change.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const CSS: &str = include_str!("assets/desk.css");
const JS: &str = include_str!("assets/desk.js");
const ICON: &str = include_str!("assets/icon.svg");

static CSS_ADDRESS: LazyLock<String> = LazyLock::new(|| address("desk.css", CSS));
static JS_ADDRESS: LazyLock<String> = LazyLock::new(|| address("desk.js", JS));

fn address(name: &str, content: &str) -> String {
    let digest = hex::encode(Sha256::digest(content.as_bytes()));
    format!("/desk/assets/{name}?{}", &digest[..12])
}

pub(super) fn css() -> &'static str {
    &CSS_ADDRESS
}

pub(super) fn js() -> &'static str {
    &JS_ADDRESS
}

pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let (kind, content) = match name.as_str() {
        "desk.css" => ("text/css; charset=utf-8", CSS),
        "desk.js" => ("text/javascript; charset=utf-8", JS),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, content).into_response()
}

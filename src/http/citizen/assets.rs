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

//! stub
use super::Shared;
use axum::Router;
/// Routes.
pub fn routes() -> Router<Shared> { Router::new() }

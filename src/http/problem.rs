//! Errors of the API, as RFC 9457 problem details. No internals in any of them.

use crate::store::StoreError;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// What went wrong, for the program that called.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    #[serde(skip)]
    retry_after_s: Option<u32>,
}

/// One field that is wrong.
#[derive(Debug, Serialize)]
pub struct FieldProblem {
    /// Its path in the request.
    pub field: String,
    /// What to do.
    pub message: String,
}

impl Problem {
    /// A problem of this status.
    #[must_use]
    pub fn new(status: StatusCode, title: &'static str) -> Self {
        let (detail, errors, retry_after_s) = (None, Vec::new(), None);
        Self { kind: "about:blank", title, status: status.as_u16(), detail, errors, retry_after_s }
    }

    /// With a sentence that says what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With the fields that are wrong.
    #[must_use]
    pub fn fields(mut self, errors: Vec<FieldProblem>) -> Self {
        self.errors = errors;
        self
    }

    /// 503: try again after so many seconds.
    #[must_use]
    pub fn busy(retry_after_s: u32) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Busy")
            .detail("not kept; send the same request again with the same Idempotency-Key");
        problem.retry_after_s = Some(retry_after_s);
        problem
    }
}

/// Puts a refusal that came from elsewhere (no such route, wrong method, a path or head that cannot
/// be read, too late) into the form that every error of the API has; its headers stay.
#[must_use]
pub fn restated(refusal: Response) -> Response {
    let (mut head, _) = refusal.into_parts();
    let title = head.status.canonical_reason().unwrap_or("Error");
    let (problem, body) = Problem::new(head.status, title).into_response().into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(problem.headers);
    Response::from_parts(head, body)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_bad_input() {
            return Self::new(StatusCode::BAD_REQUEST, "Bad Request")
                .detail("a value holds characters or a number that cannot be stored");
        }
        tracing::error!(error = %crate::telemetry::causes(&error), "a request failed in the database");
        match error {
            StoreError::Unavailable(_) => Self::busy(5),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

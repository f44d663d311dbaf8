//! A stand-in for robots and webhooks that misbehaves on purpose.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// How the next request is answered.
#[derive(Clone)]
pub enum Manner {
    /// 200 with this body.
    Says(&'static str),
    /// This status, with `Retry-After` where given.
    Fails(u16, Option<u32>),
    /// A redirect to itself.
    Redirects,
    /// Accepts and never answers.
    Hangs,
    /// 200 with a body that does not end within the limit.
    Floods,
}

/// A request as it came.
#[derive(Clone)]
pub struct Came {
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Came {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Inner {
    manners: Vec<Manner>,
    came: Vec<Came>,
}

/// Answers in the manners given, one after the other; the last one stays.
#[derive(Clone)]
pub struct Robot {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Robot {
    pub async fn start(manners: &[Manner]) -> Self {
        let inner = Arc::new(Mutex::new(Inner { manners: manners.to_vec(), came: Vec::new() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/robot", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    pub fn came(&self) -> Vec<Came> {
        self.inner.lock().unwrap().came.clone()
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let manner = {
        let mut inner = inner.lock().unwrap();
        let query = uri.query().unwrap_or_default().to_owned();
        inner.came.push(Came { query, headers, body });
        if inner.manners.len() > 1 { inner.manners.remove(0) } else { inner.manners[0].clone() }
    };
    match manner {
        Manner::Says(body) => body.into_response(),
        Manner::Fails(status, after) => {
            let mut response = StatusCode::from_u16(status).unwrap().into_response();
            if let Some(seconds) = after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            response
        }
        Manner::Redirects => axum::response::Redirect::temporary("/robot").into_response(),
        Manner::Hangs => std::future::pending().await,
        Manner::Floods => vec![b' '; 1_000_000].into_response(),
    }
}

//! The listener: hyper's `http1` with time limits that `axum::serve` does not have (security.md
//! §1.9), a bound on connections, and a drain at the end.

use crate::{lifecycle::Wake, telemetry};
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Method, StatusCode, header},
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address; those in `trusted` count only in total.
    pub per_address: usize,
    /// Proxies in front.
    pub trusted: Vec<IpAddr>,
    /// For a request's head, and for an idle connection.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// For everything in flight at the end.
    pub drain: Duration,
}

/// Who is on the other side of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The address of the connection, or what a trusted proxy says of it.
    pub address: IpAddr,
    /// How long its body may take.
    pub body_timeout: Duration,
}

/// Heads above this are refused with 431.
const HEAD_LIMIT: usize = 16 * 1024;
const HEADER_COUNT: usize = 64;

/// Serves until `shutdown`, then lets requests in flight finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let by_address = Seats::default();
    let tasks = TaskTracker::new();
    let pause = Wake::default();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, address)) = accepted else {
            // Out of descriptors, most likely: wait a moment rather than spin.
            pause.wait(Duration::from_millis(50), &shutdown).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            metrics::counter!(telemetry::CONNECTIONS_REFUSED).increment(1);
            continue;
        };
        let Some(seat) = Seat::take(&by_address, address.ip(), &limits) else {
            metrics::counter!(telemetry::CONNECTIONS_REFUSED).increment(1);
            continue;
        };
        // Small answers should not wait for more to come.
        let _ = stream.set_nodelay(true);
        let (router, own) = (router.clone(), limits.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            introduce(&mut request, address.ip(), &own);
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEAD_LIMIT.max(8192))
            .max_headers(HEADER_COUNT)
            .keep_alive(true)
            .serve_connection(TokioIo::new(stream), service);
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            let _place = (place, seat);
            tokio::pin!(connection);
            tokio::select! {
                result = connection.as_mut() => drop(result), // the other side went away
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    drop(connection.await);
                }
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections were still open at the end");
    }
}

/// One address' share of the connections.
struct Seat(Option<(Seats, IpAddr)>);

type Seats = Arc<Mutex<HashMap<IpAddr, usize>>>;

impl Seat {
    fn take(seats: &Seats, address: IpAddr, limits: &Limits) -> Option<Self> {
        if limits.trusted.contains(&address) {
            return Some(Self(None));
        }
        let mut taken = seats.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= limits.per_address {
            return None;
        }
        *count += 1;
        Some(Self(Some((Arc::clone(seats), address))))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((seats, address)) = self.0.take() else { return };
        let mut taken = seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&address);
            }
        }
    }
}

/// Says who asks: the connection's address, or behind a trusted proxy the right-most address that
/// is none of ours (S24). What is no address ends the search: what stands before it may be anybody's.
fn introduce(request: &mut Request, connected: IpAddr, limits: &Limits) {
    let mut peer = connected;
    if limits.trusted.contains(&peer) {
        let forwarded = request
            .headers()
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|address| address.trim().parse::<IpAddr>());
        for hop in forwarded.collect::<Vec<_>>().into_iter().rev() {
            let Ok(hop) = hop else { break };
            peer = hop;
            if !limits.trusted.contains(&hop) {
                break;
            }
        }
    }
    let peer = Peer { address: peer, body_timeout: limits.body_timeout };
    request.extensions_mut().insert(peer);
}

/// How what no honest client sends is refused (S09, S10, S15): no `Host`, an encoded body, TRACE.
pub fn refusal(request: &Request<Body>) -> Option<StatusCode> {
    let headers = request.headers();
    if request.method() == Method::TRACE || request.method() == Method::CONNECT {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    if headers.get_all(header::HOST).iter().count() != 1 {
        return Some(StatusCode::BAD_REQUEST);
    }
    headers.contains_key(header::CONTENT_ENCODING).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

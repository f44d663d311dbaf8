//! The listener against slow, large and many (security.md §1.9).

use crate::support::{Spec, TestGateway, at, until};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn gateway(settings: &str) -> TestGateway {
    Spec::at(at("2026-11-24 10:00")).with(settings).start().await
}

async fn connect(gateway: &TestGateway) -> TcpStream {
    TcpStream::connect(gateway.base.trim_start_matches("http://")).await.unwrap()
}

/// Sends raw bytes; what comes back until the other side closes.
async fn raw(gateway: &TestGateway, bytes: &[u8]) -> String {
    let mut stream = connect(gateway).await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn s07_a_head_that_trickles_is_cut_off() {
    let gateway = gateway("http.header_timeout_s = 1").await;
    let mut stream = connect(&gateway).await;
    stream.write_all(b"GET /desk HTTP/1.1\r\nHost: x\r\nX-").await.unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s07_a_body_that_trickles_is_given_up() {
    let gateway = gateway("http.body_timeout_s = 1").await;
    for path in ["/channels/wechat/main", "/channels/hotline/pbx1", "/desk/login", "/desk/register"]
    {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nabc"
        );
        let began = Instant::now();
        let answer = raw(&gateway, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{path}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(5), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_an_oversize_body_is_refused_and_its_sender_reads_so() {
    let gateway = gateway("").await;
    for path in ["/channels/wechat/main", "/channels/hotline/pbx1", "/desk/login"] {
        let body = vec![b'a'; 300_000];
        let answer = gateway
            .post(path, &[("content-type", "application/x-www-form-urlencoded")], body)
            .await;
        assert_eq!(answer.status, 413, "{path}");
    }
    // Also when it does not say how long it is.
    let head = "POST /channels/wechat/main HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    for _ in 0..20 {
        bytes.extend_from_slice(b"2000\r\n");
        bytes.extend_from_slice(&[b'a'; 0x2000]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let answer = raw(&gateway, &bytes).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s09_requests_that_no_honest_client_sends_are_refused() {
    let gateway = gateway("").await;
    let close = "Connection: close\r\n";
    let post = |header: &str| {
        format!("POST /desk/login HTTP/1.1\r\nHost: x\r\n{header}\r\n{close}\r\nlogin=x")
    };
    for (request, status) in [
        (format!("GET /desk/login HTTP/1.1\r\n{close}\r\n"), "400"),
        (format!("GET /desk/login HTTP/1.1\r\nHost: a\r\nHost: b\r\n{close}\r\n"), "400"),
        (format!("TRACE / HTTP/1.1\r\nHost: x\r\n{close}\r\n"), "405"),
        (
            format!(
                "POST /desk/login HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n{close}\r\n"
            ),
            "415",
        ),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        (post("Content-Length: 5\r\nContent-Length: 6"), "400"),
        (post("Content-Length: +6"), "400"),
        (post("Transfer-Encoding: xchunked"), "400"),
        (post("Transfer-Encoding : chunked"), "400"),
        (post("X-Long: a\r\n b"), "400"),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n{close}\r\n", "a".repeat(40_000)), "431"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n{close}\r\n", "a".repeat(20_000)), "431"),
    ] {
        let answer = raw(&gateway, request.as_bytes()).await;
        let shown: String = request.chars().take(80).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown}: {answer}");
    }
    // Both lengths at once: read as chunked, and the connection ends with it, so that nothing that
    // follows can pass for a request of its own.
    let both = "POST /desk/login HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /desk/login HTTP/1.1\r\nHost: x\r\n\r\n";
    let began = Instant::now();
    let answer = raw(&gateway, both.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(3), "it was closed, not left to idle");
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let answer =
        raw(&gateway, format!("GET / HTTP/1.1\r\nHost: x\r\n{many}{close}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_connections_are_bounded_and_come_back() {
    let gateway = gateway("http.connections = 8\nhttp.connections_per_address = 8").await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&gateway).await;
        stream.write_all(b"GET /desk/login HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut some = [0; 12];
        stream.read_exact(&mut some).await.unwrap();
        assert_eq!(&some, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut refused = connect(&gateway).await;
    let mut answer = Vec::new();
    let _ = refused.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    assert!(gateway.metrics().await.contains("http_connections_refused_total"));
    drop(held);
    until("there is room again", async || {
        gateway.client.get(format!("{}/desk/login", gateway.base)).send().await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_every_answer_has_the_safe_headers() {
    let gateway = gateway("").await;
    for path in ["/desk/login", "/nowhere", "/api/v1/tickets", "/channels/wechat/main"] {
        let response = gateway.client.get(format!("{}{path}", gateway.base)).send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
}

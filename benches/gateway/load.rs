//! Connections that each send one callback after the other, as the platform's do.

use crate::{APP_ID, KEY, ORIGINAL_ID, TOKEN, WORDS, figures::Figures};
use intake_gateway::{clock::Clock, secret};
use intake_wechat::sender::Sender;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

static MESSAGE_ID: AtomicU64 = AtomicU64::new(24_000_000_000_000_000);
static ANSWERED: AtomicU64 = AtomicU64::new(0);

/// Answers so far, over all cells.
pub fn answered() -> i64 {
    ANSWERED.load(Ordering::SeqCst).cast_signed()
}

pub async fn run(address: SocketAddr, connections: usize, cell: Duration) -> Figures {
    let sender = Arc::new(Sender::new(TOKEN, Some(KEY), APP_ID, ORIGINAL_ID));
    let run = hex::encode(secret::random::<4>());
    let errors = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|n| {
            let (sender, errors) = (Arc::clone(&sender), Arc::clone(&errors));
            let name = format!("{run}{n:04}");
            tokio::spawn(
                async move { connection(address, &sender, &name, began + cell, &errors).await },
            )
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let took = began.elapsed().as_secs_f64();
    let errors = errors.load(Ordering::SeqCst);
    assert_eq!(errors, 0, "requests were refused");
    ANSWERED.fetch_add(latencies.len() as u64, Ordering::SeqCst);
    let per_second = latencies.len() as f64 / took;
    Figures::of(latencies, per_second)
}

async fn connection(
    address: SocketAddr,
    sender: &Sender,
    name: &str,
    until: Instant,
    errors: &AtomicU64,
) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let clock = Clock::system();
    let mut latencies = Vec::with_capacity(8192);
    let mut buffer = Vec::with_capacity(8192);
    for n in 0_u64.. {
        if Instant::now() >= until {
            break;
        }
        let now = clock.now().timestamp();
        let id = message_id();
        let xml = sender.text(&format!("oBench{name}{n:09}"), WORDS, &id, now);
        let request = request(sender, &xml, now);
        let began = Instant::now();
        let status = post(&mut stream, &mut buffer, &request).await;
        if status == 200 {
            latencies.push(began.elapsed());
        } else {
            errors.fetch_add(1, Ordering::SeqCst);
        }
    }
    latencies
}

/// A message id, in the order of time as the platform's.
pub fn message_id() -> String {
    format!("{:020}", MESSAGE_ID.fetch_add(1, Ordering::Relaxed))
}

/// A callback with this message, signed and encrypted anew.
pub fn request(sender: &Sender, xml: &str, now: i64) -> String {
    let (query, body) = sender.callback(xml, now, "100007919", secret::random());
    format!(
        "POST /channels/wechat/main?{query} HTTP/1.1\r\nHost: bench\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends it; returns the status of the answer, which has been read whole.
pub async fn post(stream: &mut TcpStream, buffer: &mut Vec<u8>, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).await.unwrap();
    response(stream, buffer).await
}

/// Reads one response whole; returns its status.
async fn response(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.unwrap();
        assert!(read > 0, "the gateway closed the connection");
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head]).unwrap().to_ascii_lowercase();
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if buffer.len() >= head + 4 + length {
            return text[9..12].parse().unwrap();
        }
    }
}

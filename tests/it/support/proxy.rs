//! A network between the gateway and its database that can break.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

const OPEN: u8 = 0;
const CUT: u8 = 1;
const SILENT: u8 = 2;

/// Forwards until told otherwise.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
    changed: Arc<Notify>,
}

impl Proxy {
    /// In front of `upstream`, `host:port`.
    pub async fn before(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            mode: Arc::default(),
            changed: Arc::default(),
        };
        let own = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if own.mode.load(Ordering::SeqCst) == CUT {
                    continue; // closed at once
                }
                tokio::spawn(own.clone().forward(client, upstream.clone()));
            }
        });
        proxy
    }

    /// In front of the database of `url`; returns the URL through it.
    pub async fn of_database(url: &str) -> (Self, String) {
        let (head, rest) = url.rsplit_once('@').unwrap();
        let (host, name) = rest.split_once('/').unwrap();
        let proxy = Self::before(host.to_owned()).await;
        let through = format!("{head}@{}/{name}", proxy.address);
        (proxy, through)
    }

    async fn forward(self, mut client: TcpStream, upstream: String) {
        let Ok(mut server) = TcpStream::connect(upstream).await else { return };
        let (mut to_server, mut to_client) = (vec![0; 65536], vec![0; 65536]);
        loop {
            match self.mode.load(Ordering::SeqCst) {
                CUT => return,
                SILENT => {
                    self.changed.notified().await;
                    continue;
                }
                _ => {}
            }
            tokio::select! {
                () = self.changed.notified() => {}
                read = client.read(&mut to_server) => match read {
                    Ok(1..) if self.mode.load(Ordering::SeqCst) == SILENT => {}
                    Ok(n @ 1..) => if server.write_all(&to_server[..n]).await.is_err() { return },
                    _ => return,
                },
                read = server.read(&mut to_client) => match read {
                    Ok(n @ 1..) => if client.write_all(&to_client[..n]).await.is_err() { return },
                    _ => return,
                },
            }
        }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Connections break, new ones are closed.
    pub fn cut(&self) {
        self.set(CUT);
    }

    /// Nothing is refused and nothing is answered: a lost network.
    pub fn silence(&self) {
        self.set(SILENT);
    }

    /// Works again.
    pub fn mend(&self) {
        self.set(OPEN);
    }
}

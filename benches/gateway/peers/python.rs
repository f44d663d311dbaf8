//! The intake with wechatpy, FastAPI and asyncpg, driven by the same connections in turn.

use super::installed;
use crate::{
    APP_ID, KEY, Plan, TOKEN,
    figures::{Figures, Spread},
    fresh_database,
    gateway::{Gateway, postmaster},
    intake::{Costs, cell},
    load, office, process, rival,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    fs::File,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How a peer is set up.
#[derive(Debug, Clone, Copy)]
struct Setup {
    /// `register`: from the register's row, as R7.1 demands and the gateway does. `sequence`: with
    /// gaps, which is less than what the gateway does, and the most that the peer can.
    numbers: &'static str,
    /// Connections of each process to the database.
    pool: usize,
    /// Why so many.
    says: &'static str,
}

impl Setup {
    fn name(self) -> String {
        let Self { numbers, pool, .. } = self;
        format!("{numbers}-{pool}")
    }
}

/// What each is fastest with was found by trying 1 to 32.
const SETUPS: [Setup; 3] = [
    // They wait for one row; more of them only wait longer.
    Setup { numbers: "register", pool: 1, says: "the pool that it is fastest with" },
    Setup {
        numbers: "register",
        pool: 10,
        says: "the pool that asyncpg makes unless told otherwise",
    },
    Setup { numbers: "sequence", pool: 16, says: "the pool that it is fastest with" },
];

/// One process for each core, as uvicorn's documentation advises.
const WORKERS: usize = 2;

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let folder = match installed("python") {
        Ok(folder) => folder,
        Err(why) => return why,
    };
    // With the role that does what the peer does: it tells nobody, fires no timers, indexes no words.
    let gateway = Gateway::start_as(server, redis, "intake_beside_python", "web").await;
    let mut peers = Vec::new();
    for setup in SETUPS {
        peers.push(Peer::start(&folder, server, setup).await);
    }
    for address in peers.iter().map(|peer| peer.address).chain([gateway.address]) {
        load::run(address, 8, Duration::from_secs(1)).await;
    }
    println!("\nDurable intake beside wechatpy, FastAPI, asyncpg; uvicorn with {WORKERS} workers");
    println!("({} rounds of {} s, in turn)", plan.rounds, plan.cell.as_secs());
    let mut rows = Vec::new();
    for &connections in &plan.peer_connections {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let ours = cell(&gateway, connections, plan.cell).await;
            let before = gateway.counters().await.gateway_cpu_s;
            let mut theirs = Vec::new();
            for peer in &peers {
                theirs.push(peer.cell(connections, plan.cell).await);
            }
            let meanwhile = gateway.counters().await.gateway_cpu_s - before;
            let idle_cores = meanwhile / plan.cell.as_secs_f64() / peers.len() as f64;
            rounds.push(Round { ours, theirs, idle_cores });
        }
        for at in 0..SETUPS.len() {
            rows.push(report(connections, at, &rounds));
        }
    }
    gateway.stop(true).await;
    json!(rows)
}

struct Round {
    ours: (Figures, Costs),
    /// In the order of [`SETUPS`].
    theirs: Vec<Cell>,
    /// What the gateway took of a core while a peer was measured: its relay works on.
    idle_cores: f64,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    figures: Figures,
    peer_us: f64,
    postgres_us: f64,
}

fn report(connections: usize, at: usize, rounds: &[Round]) -> Value {
    let Setup { numbers, pool, says } = SETUPS[at];
    let theirs = |round: &Round| round.theirs[at];
    let of = |what: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(what));
    let rate = [of(&|r| r.ours.0.per_second), of(&|r| theirs(r).figures.per_second)];
    let p50 = [of(&|r| r.ours.0.p50_ms), of(&|r| theirs(r).figures.p50_ms)];
    let p99 = [of(&|r| r.ours.0.p99_ms), of(&|r| theirs(r).figures.p99_ms)];
    let cpu = [of(&|r| r.ours.1.gateway_us), of(&|r| theirs(r).peer_us)];
    let postgres = [of(&|r| r.ours.1.postgres_us), of(&|r| theirs(r).postgres_us)];
    let ratio = of(&|r| r.ours.0.per_second / theirs(r).figures.per_second);
    let p99_ratio = of(&|r| theirs(r).figures.p99_ms / r.ours.0.p99_ms);
    let cpu_ratio = of(&|r| theirs(r).peer_us / r.ours.1.gateway_us);
    println!("\n{connections:>4} connections {:>15} {:>10}", "the gateway", "the peer");
    println!("     the peer's numbers from a {numbers}; {pool} connections a process, {says}");
    let line = |what: &str, [ours, theirs]: [Spread; 2], ratio: String| {
        println!("{what:>23} {:>8.1} {:>10.1} {ratio}", ours.median, theirs.median);
    };
    line("per second", rate, format!("  ratio {ratio}"));
    line("p50, ms", p50, String::new());
    line("p99, ms", p99, format!("  ratio {p99_ratio}"));
    line("its processor, µs", cpu, format!("  ratio {cpu_ratio}"));
    line("PostgreSQL's, µs", postgres, String::new());
    let idle = of(&|r| r.idle_cores);
    println!("{:>23} {:>8.2}", "cores taken meanwhile", idle.median);
    let pair = |[ours, theirs]: [Spread; 2]| json!({ "ours": ours, "theirs": theirs });
    json!({
        "connections": connections, "numbers": numbers, "pool": pool, "per_s": pair(rate),
        "ratio": ratio, "p50_ms": pair(p50),
        "p99_ms": pair(p99), "p99_ratio": p99_ratio, "cpu_us": pair(cpu), "cpu_ratio": cpu_ratio,
        "postgres_cpu_us": pair(postgres), "gateway_cores_meanwhile": idle,
    })
}

struct Peer {
    process: Child,
    address: SocketAddr,
    pool: PgPool,
    postmaster: u32,
}

impl Peer {
    async fn start(folder: &Path, server: &str, setup: Setup) -> Self {
        let name = format!("intake_python_{}", setup.name().replace('-', "_"));
        let (url, pool) = fresh_database(server, &name).await;
        office(&pool).await;
        let begin = "CREATE SEQUENCE numbers; INSERT INTO register VALUES (1, 2026, 0)";
        sqlx::raw_sql(begin).execute(&pool).await.unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let timers: Vec<String> = rival::timers_of_one().iter().map(i16::to_string).collect();
        let said = format!("target/peers/python-{}.log", setup.name());
        let log = File::create(&said).unwrap();
        let process = Command::new(folder.join("bin/python"))
            .args(["-m", "uvicorn", "app:app", "--app-dir", "benches/peers/python"])
            .args(["--loop", "uvloop", "--http", "httptools", "--workers", &WORKERS.to_string()])
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--no-access-log", "--log-level", "warning"])
            .env("PYTHONPYCACHEPREFIX", folder.join("cache"))
            .env("DATABASE_URL", url)
            .env("PEER_TOKEN", TOKEN)
            .env("PEER_KEY", KEY)
            .env("PEER_APP_ID", APP_ID)
            .env("PEER_TIMERS", timers.join(","))
            .env("PEER_NUMBERS", setup.numbers)
            .env("PEER_POOL", setup.pool.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let postmaster = postmaster(&pool).await;
        let mut peer = Self { process, address, pool, postmaster };
        let mut turn = tokio::time::interval(Duration::from_millis(50));
        while !peer.ready().await {
            let ended = peer.process.try_wait().unwrap();
            assert!(ended.is_none(), "it did not start: {said}");
            turn.tick().await;
        }
        peer
    }

    async fn ready(&self) -> bool {
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(self.address).await.ok()?;
            let request = "GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer.starts_with("HTTP/1.1 200"))
        };
        asked.await.unwrap_or(false)
    }

    async fn cell(&self, connections: usize, time: Duration) -> Cell {
        let processor =
            || (process::family_cpu_s(self.process.id()), process::family_cpu_s(self.postmaster));
        let (answered, tickets) = (load::answered(), self.tickets().await);
        let (peer, postgres) = processor();
        let figures = load::run(self.address, connections, time).await;
        let (peer, postgres) = (processor().0 - peer, processor().1 - postgres);
        let answered = load::answered() - answered;
        let tickets = self.tickets().await - tickets;
        assert_eq!(answered, tickets, "a ticket for each answer");
        let us = |seconds: f64| seconds * 1e6 / answered as f64;
        Cell { figures, peer_us: us(peer), postgres_us: us(postgres) }
    }

    async fn tickets(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM ticket").fetch_one(&self.pool).await.unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Asked to end, it ends its workers too.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

//! The gateway as its own process, as it runs in earnest.

use crate::{APP_ID, KEY, ORIGINAL_ID, TOKEN, fresh_database, office, process};
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub struct Gateway {
    process: Child,
    pub address: SocketAddr,
    ops: SocketAddr,
    pub pool: PgPool,
    pub config: PathBuf,
    /// From the start of the process to the first `readyz` that says yes.
    pub ready_s: f64,
    postmaster: u32,
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    pub gateway_cpu_s: f64,
    pub postgres_cpu_s: f64,
    pub generator_cpu_s: f64,
    pub wal_bytes: f64,
    pub batches: f64,
    pub submissions: f64,
}

impl Gateway {
    pub async fn start(server: &str, redis: &str, name: &str) -> Self {
        Self::start_as(server, redis, name, "all").await
    }

    /// With the role of `intake serve --role`: `web` takes in and leaves notices, due timers and the
    /// index of words to another process.
    pub async fn start_as(server: &str, redis: &str, name: &str, role: &str) -> Self {
        let (url, pool) = fresh_database(server, name).await;
        office(&pool).await;
        Self::on_as(&url, pool, redis, role).await
    }

    pub async fn on_as(url: &str, pool: PgPool, redis: &str, role: &str) -> Self {
        Self::on_with(url, pool, redis, role, "").await
    }

    /// With further settings of the account and of what follows it.
    pub async fn on_with(url: &str, pool: PgPool, redis: &str, role: &str, settings: &str) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, ops) = (free(), free());
        let prefix = crate::prefix();
        let text = format!(
            "database_url = '{url}'\nredis_url = '{redis}'\n[schedule]\nprefix = '{prefix}'\n\
             [http]\nlisten = '{address}'\nconnections_per_address = 500\n[ops]\nlisten = '{ops}'\n[log]\nfilter = 'error'\n[media]\nfolder = '{}'\n[spool]\nfolder = '{}'\n\
             [[wechat]]\noffice = 'bench'\nid = 'main'\napp_id = '{APP_ID}'\noriginal_id = '{ORIGINAL_ID}'\n\
             token = '{TOKEN}'\nencoding_aes_key = '{KEY}'\n{settings}",
            std::env::temp_dir().join("intake-bench-media").display(),
            std::env::temp_dir().join(format!("intake-spool-{prefix}")).display()
        );
        let config = std::env::temp_dir().join(format!("intake-{prefix}.toml"));
        std::fs::write(&config, text).unwrap();
        let began = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_intake"))
            .args(["--config".as_ref(), config.as_os_str()])
            .args(["serve", "--role", role])
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let postmaster = postmaster(&pool).await;
        let mut gateway = Self { process, address, ops, pool, config, ready_s: 0.0, postmaster };
        let mut turn = tokio::time::interval(Duration::from_millis(2));
        while !gateway
            .operations("/readyz")
            .await
            .is_some_and(|said| said.starts_with("HTTP/1.1 200"))
        {
            turn.tick().await;
        }
        gateway.ready_s = began.elapsed().as_secs_f64();
        gateway
    }

    async fn operations(&self, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.ops).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    pub async fn counters(&self) -> Counters {
        let metrics = self.operations("/metrics").await.unwrap_or_default();
        let metric = |name: &str| -> f64 {
            let line = metrics.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split(' ').next_back()?.parse().ok()).unwrap_or(0.0)
        };
        let wal_bytes: f64 = sqlx::query_scalar(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        Counters {
            gateway_cpu_s: process::cpu_s(self.process.id()),
            postgres_cpu_s: process::family_cpu_s(self.postmaster),
            generator_cpu_s: process::own_cpu_s(),
            wal_bytes,
            batches: metric("intake_batch_size_count"),
            submissions: metric("intake_batch_size_sum"),
        }
    }

    /// Memory in use now, and the most so far, in MiB.
    pub fn memory_mib(&self) -> (f64, f64) {
        process::memory_mib(self.process.id())
    }

    pub async fn tickets(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM ticket").fetch_one(&self.pool).await.unwrap()
    }

    /// How many numbers the register gave out: quick to ask, however many tickets there are.
    pub async fn registered(&self) -> i64 {
        sqlx::query_scalar("SELECT coalesce(sum(last), 0)::bigint FROM register")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Stops it and proves that the register and the trail are whole.
    pub async fn stop(mut self, verify: bool) {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        self.process.wait().unwrap();
        if verify {
            let mut db = self.pool.acquire().await.unwrap();
            // Filled faster than the server looks: without statistics some checks are quadratic.
            sqlx::raw_sql("ANALYZE").execute(&mut *db).await.unwrap();
            let report = intake_gateway::verify::verify(&mut db).await.unwrap();
            assert!(report.faults.is_empty(), "{:?}", report.faults);
        }
    }
}

/// PostgreSQL's first process, the parent of all of its others.
pub async fn postmaster(pool: &PgPool) -> u32 {
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(pool).await.unwrap();
    process::parent(backend.unsigned_abs()).unwrap()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

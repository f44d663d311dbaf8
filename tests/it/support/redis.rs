//! A Redis of one's own, to be flushed, stopped and started.

use intake_gateway::secret;
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

pub struct OwnRedis {
    port: u16,
    folder: PathBuf,
    process: Option<Child>,
}

impl OwnRedis {
    pub async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let name = format!("intake-redis-{}", hex::encode(secret::random::<6>()));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut redis = Self { port, folder, process: None };
        redis.begin().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Starts it, empty, and waits until it answers.
    pub async fn begin(&mut self) {
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(&self.folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed by `make test`");
        self.process = Some(process);
        super::until("redis answers", async || self.command("PING").await.is_ok()).await;
    }

    /// Stops it; what it held is gone.
    pub fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub async fn command(&self, name: &str) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(name).query_async(&mut connection).await
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

use super::{pool, sql, store as failed};
use intake_gateway::{
    config::Config,
    gateway::StartError,
    offices::Offices,
    schedule::{index::Index, runner::Runner},
    store,
};
use secrecy::ExposeSecret;
use std::{process::ExitCode, sync::Arc};

#[derive(clap::Subcommand)]
pub enum Command {
    /// What is due when, in PostgreSQL and in Redis.
    Show {
        /// How many of the next timers to list.
        #[arg(long, default_value_t = 10)]
        next: i64,
    },
    /// Fill Redis anew from PostgreSQL; a running gateway goes on by itself.
    Rebuild,
}

pub async fn run(command: Command, config: &Config) -> Result<ExitCode, StartError> {
    let pool = pool(config).await?;
    let index = Index::new(config.redis_url.expose_secret(), &config.schedule.prefix)
        .map_err(|error| StartError::caused("redis_url cannot be understood", error))?;
    match command {
        Command::Show { next } => {
            let mut db = pool.acquire().await.map_err(sql)?;
            let (armed, late) = store::timer::state(&mut db).await.map_err(failed)?;
            println!("PostgreSQL: {armed} timers armed, the latest {late:.0} s late");
            match index.counts().await {
                Ok((due, leased)) => println!("Redis: {due} waiting, {leased} claimed"),
                Err(error) => {
                    println!("Redis: {error}; timers fire from PostgreSQL, late by seconds")
                }
            }
            for timer in store::timer::next(&mut db, next).await.map_err(failed)? {
                println!(
                    "{}  {:<9}  office {}  {}",
                    timer
                        .due_at
                        .with_timezone(&intake_contract::china())
                        .format("%Y-%m-%d %H:%M:%S"),
                    timer.kind.as_str(),
                    timer.office,
                    timer.ticket.display("no.")
                );
            }
        }
        Command::Rebuild => {
            let settings = config.schedule.settings();
            let offices = Arc::new(Offices::default());
            let owner = "command".to_owned();
            let runner = Runner::new(pool, index, offices, settings, owner, Arc::new(|_| {}));
            let entered = runner
                .rebuild()
                .await
                .map_err(|error| StartError::caused("the schedule could not be rebuilt", error))?;
            println!("{entered} timers entered into Redis");
        }
    }
    Ok(ExitCode::SUCCESS)
}

use super::{pool, sql, store as failed};
use intake_gateway::{
    config::Config,
    gateway::StartError,
    verify::{Report, verify},
};
use std::process::ExitCode;

/// Prints every fault and exits with 1 when there is one.
pub async fn run(config: &Config) -> Result<ExitCode, StartError> {
    let pool = pool(config).await?;
    let mut db = pool.acquire().await.map_err(sql)?;
    let Report { tickets, events, faults } = verify(&mut db).await.map_err(failed)?;
    for fault in &faults {
        println!("FAULT {fault}");
    }
    println!("{tickets} tickets, {events} events checked, {} faults", faults.len());
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "commands talk to whoever typed them"
)]

pub mod account;
pub mod calendar;
pub mod demo;
mod evening;
pub mod hotline;
pub mod office;
pub mod schedule;
pub mod serve;
pub mod simulate;
pub mod verify;
pub mod wechat;

use intake_gateway::{
    config::Config,
    gateway::{self, StartError},
    store::StoreError,
};
use sqlx::PgPool;
use std::process::ExitCode;

/// Says what went wrong on standard error.
pub fn failed(error: &StartError) -> ExitCode {
    eprintln!("intake: {}", intake_gateway::telemetry::causes(error));
    ExitCode::FAILURE
}

/// A pool for a command that needs the tables.
async fn pool(config: &Config) -> Result<PgPool, StartError> {
    let pool = gateway::connect(config).await?;
    gateway::check_schema(&pool).await?;
    Ok(pool)
}

fn store(error: StoreError) -> StartError {
    StartError::caused("the database did not do it", error)
}

fn sql(error: sqlx::Error) -> StartError {
    store(error.into())
}

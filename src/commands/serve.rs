use super::pool;
use intake_gateway::{
    clock::Clock,
    config::Config,
    gateway::{self, Gateway, Role, StartError},
    lifecycle,
};
use std::{net::SocketAddr, process::ExitCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Runs until SIGINT or SIGTERM.
pub async fn serve(config: Config, role: Role) -> Result<ExitCode, StartError> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let pool = pool(&config).await?;
    let gateway = Gateway::new(&config, pool, Clock::system()).await?;
    if role != Role::Worker {
        gateway.open_spool(&config.spool);
    }
    let (public, ops) = listen(&config).await?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        lifecycle::signalled().await;
        signalled.cancel();
    });
    tracing::info!(
        http.listen = %config.http.listen, ops.listen = %config.ops.listen,
        offices = gateway.app.offices.all().len(), channels = gateway.app.channels.len(),
        "serving"
    );
    gateway.serve(public, ops, role, stop).await;
    Ok(ExitCode::SUCCESS)
}

/// Both listeners, or a sentence that names the key.
pub async fn listen(config: &Config) -> Result<(TcpListener, TcpListener), StartError> {
    let bind = async |key: &str, address: SocketAddr| {
        TcpListener::bind(address).await.map_err(|error| {
            StartError::caused(
                format!("{key}: {address} cannot be listened on; is another program there?"),
                error,
            )
        })
    };
    Ok((
        bind("http.listen", config.http.listen).await?,
        bind("ops.listen", config.ops.listen).await?,
    ))
}

/// Brings the tables up to date.
pub async fn migrate(config: &Config) -> Result<ExitCode, StartError> {
    gateway::migrate(&gateway::connect(config).await?).await?;
    println!("the database is up to date");
    Ok(ExitCode::SUCCESS)
}

/// Says what is risky; what is wrong has been said by loading.
pub fn check_config(config: &Config) -> Result<ExitCode, StartError> {
    for warning in config.warnings() {
        println!("warning: {warning}");
    }
    println!(
        "the configuration can be used: {} WeChat accounts, {} hotline sources, {} ways to tell the staff",
        config.wechat.len(),
        config.hotline.len(),
        config.notify.len()
    );
    Ok(ExitCode::SUCCESS)
}

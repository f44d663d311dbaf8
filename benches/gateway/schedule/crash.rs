//! A process that claimed timers and died: another one carries them out when the lease is over.

use super::{Stage, line};
use intake_gateway::{
    schedule::index::{Claim, Leased},
    store,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TIMERS: i64 = 1000;
const CLAIMED: usize = 256;
const LEASE: Duration = Duration::from_secs(2);

pub async fn run(server: &str, redis: &str) -> Value {
    let stage = Stage::set(server, redis, TIMERS).await;
    stage.due(Duration::ZERO, "soon").await;
    stage.runner.rebuild().await.unwrap();
    let mut db = stage.pool.acquire().await.unwrap();
    let epoch = store::timer::epoch(&mut db, 0).await.unwrap().unwrap();
    let began = Instant::now();
    let leased = claim(&stage, epoch).await;
    assert_eq!(leased.len(), CLAIMED);
    drop(leased);
    let running = stage.run();
    stage.done().await;
    let took = began.elapsed();
    running.end().await;
    stage.lag().await;
    let after_s = took.as_secs_f64() - LEASE.as_secs_f64();
    println!(
        "\nSchedule, {CLAIMED} of {TIMERS} timers leased for {} s and dropped",
        LEASE.as_secs()
    );
    line("all done, after the end of the lease, s", after_s, 2);
    line("longest wait between two looks, s", stage.settings.look_every.as_secs_f64(), 0);
    json!({
        "leased": CLAIMED, "lease_s": LEASE.as_secs(), "done_after_lease_s": after_s,
        "look_every_s": stage.settings.look_every.as_secs_f64(),
    })
}

async fn claim(stage: &Stage, epoch: i64) -> Vec<Leased> {
    match stage.runner.index().claim(epoch, CLAIMED, LEASE).await.unwrap() {
        Claim::Due { leased, .. } => leased,
        Claim::Stale => panic!("the index was just filled"),
    }
}

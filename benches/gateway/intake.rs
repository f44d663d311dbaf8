//! Durable intake through HTTP, beside what PostgreSQL can do with the same rows.

use crate::{
    Plan,
    figures::{Figures, Spread},
    gateway::{Counters, Gateway},
    load,
    rival::{Rival, Way, fill},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// One round at one number of connections.
struct Round {
    ours: Figures,
    costs: Costs,
    rivals: Vec<(Way, Figures)>,
}

/// Of one ticket.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    pub gateway_us: f64,
    pub postgres_us: f64,
    generator_us: f64,
    wal_bytes: f64,
    batch: f64,
}

impl Costs {
    fn between(before: Counters, after: Counters) -> Self {
        let tickets = after.submissions - before.submissions;
        let us = |from: f64, to: f64| (to - from) * 1e6 / tickets;
        Self {
            gateway_us: us(before.gateway_cpu_s, after.gateway_cpu_s),
            postgres_us: us(before.postgres_cpu_s, after.postgres_cpu_s),
            generator_us: us(before.generator_cpu_s, after.generator_cpu_s),
            wal_bytes: (after.wal_bytes - before.wal_bytes) / tickets,
            batch: tickets / (after.batches - before.batches),
        }
    }
}

pub async fn cell(gateway: &Gateway, connections: usize, cell: Duration) -> (Figures, Costs) {
    let (registered, answered) = (gateway.registered().await, load::answered());
    let before = gateway.counters().await;
    let ours = load::run(gateway.address, connections, cell).await;
    let costs = Costs::between(before, gateway.counters().await);
    let registered = gateway.registered().await - registered;
    assert_eq!(load::answered() - answered, registered, "a ticket for each answer");
    (ours, costs)
}

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let gateway = Gateway::start_as(server, redis, "intake_bench", "web").await;
    let rival = Rival::prepare(server).await;
    // Files grow and plans are made before anything counts.
    load::run(gateway.address, 8, Duration::from_secs(1)).await;
    rival.run(Way::OneStatement, 8, Duration::from_secs(1));
    let mut rows = Vec::new();
    println!(
        "\nDurable intake: WeChat safe mode over HTTP, each message unique, signed, encrypted"
    );
    println!("(median of {} rounds of {} s, least–greatest)", plan.rounds, plan.cell.as_secs());
    for &connections in &plan.connections {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let rivals =
                Way::ALL.iter().map(|&way| (way, rival.run(way, connections, plan.cell))).collect();
            let (ours, costs) = cell(&gateway, connections, plan.cell).await;
            rounds.push(Round { ours, costs, rivals });
        }
        rows.push(report(connections, &rounds));
    }
    let tickets = gateway.tickets().await;
    let whole = Gateway::start(server, redis, "intake_whole").await;
    load::run(whole.address, 8, Duration::from_secs(1)).await;
    let mut cells = Vec::new();
    for _ in 0..plan.rounds {
        cells.push(cell(&whole, WHOLE_CONNECTIONS, plan.cell).await);
    }
    let rate = Spread::of(cells.iter().map(|(ours, _)| ours.per_second));
    let p99 = Spread::of(cells.iter().map(|(ours, _)| ours.p99_ms));
    let wal = Spread::of(cells.iter().map(|(_, costs)| costs.wal_bytes));
    println!(
        "\n{WHOLE_CONNECTIONS:>4} connections, one process that also tells the staff and indexes words: {:.0}/s ({:.0}–{:.0}), p99 {p99} ms, {:.0} bytes of WAL",
        rate.median, rate.min, rate.max, wal.median
    );
    whole.stop(false).await;
    let (_, peak) = gateway.memory_mib();
    println!("{tickets} tickets; the gateway's memory peaked at {peak:.0} MiB");
    gateway.stop(true).await;
    println!("register and trail verified");
    json!({
        "cells": rows, "tickets": tickets, "peak_mib": peak,
        "one_process": { "connections": WHOLE_CONNECTIONS, "per_s": rate, "p99_ms": p99, "wal_bytes": wal },
    })
}

fn report(connections: usize, rounds: &[Round]) -> Value {
    let of = |what: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(what));
    let ours = of(&|r| r.ours.per_second);
    let (p50, p99, p999) =
        (of(&|r| r.ours.p50_ms), of(&|r| r.ours.p99_ms), of(&|r| r.ours.p999_ms));
    let costs: BTreeMap<&str, Spread> = [
        ("gateway_cpu_us", of(&|r| r.costs.gateway_us)),
        ("postgres_cpu_us", of(&|r| r.costs.postgres_us)),
        ("generator_cpu_us", of(&|r| r.costs.generator_us)),
        ("wal_bytes", of(&|r| r.costs.wal_bytes)),
        ("batch", of(&|r| r.costs.batch)),
    ]
    .into();
    println!(
        "\n{connections:>4} connections: {:.0}/s ({:.0}–{:.0}), p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms",
        ours.median, ours.min, ours.max
    );
    println!(
        "     a ticket costs the gateway {:.0} µs, PostgreSQL {:.0} µs, the generator {:.0} µs of processor; {:.0} bytes of WAL; batches of {:.1}",
        costs["gateway_cpu_us"].median,
        costs["postgres_cpu_us"].median,
        costs["generator_cpu_us"].median,
        costs["wal_bytes"].median,
        costs["batch"].median
    );
    let mut rivals = serde_json::Map::new();
    for (at, way) in Way::ALL.iter().enumerate() {
        let rate = of(&|r| r.rivals[at].1.per_second);
        let p99 = of(&|r| r.rivals[at].1.p99_ms);
        let ratio = of(&|r| r.ours.per_second / r.rivals[at].1.per_second);
        println!(
            "     beside pgbench, {:<24} {:>7.0}/s, p99 {:>6.1} ms: ratio {ratio}",
            way.name(),
            rate.median,
            p99.median
        );
        rivals
            .insert(way.name().to_owned(), json!({ "per_s": rate, "p99_ms": p99, "ratio": ratio }));
    }
    json!({
        "connections": connections, "per_s": ours, "p50_ms": p50, "p99_ms": p99, "p999_ms": p999,
        "costs": costs, "rivals": rivals,
    })
}

/// The same with ever more tickets there already: what is written must not cost more.
pub async fn growth(plan: &Plan, server: &str, redis: &str) -> Value {
    println!("\nThe same at {} connections, with tickets there already", GROWTH_CONNECTIONS);
    // Intake alone: the indexer would be at work on what was there already all the time.
    let gateway = Gateway::start_as(server, redis, "intake_growth", "web").await;
    let mut rows = Vec::new();
    let mut there = 0;
    for &size in &plan.sizes {
        assert!(there < size, "there are more than {size} tickets already");
        fill(&gateway.pool, there, size - there).await;
        load::run(gateway.address, GROWTH_CONNECTIONS, Duration::from_secs(1)).await;
        let mut cells = Vec::new();
        for _ in 0..plan.rounds {
            cells.push(cell(&gateway, GROWTH_CONNECTIONS, plan.cell).await);
        }
        let rate = Spread::of(cells.iter().map(|(ours, _)| ours.per_second));
        let p99 = Spread::of(cells.iter().map(|(ours, _)| ours.p99_ms));
        let cost = Spread::of(cells.iter().map(|(_, costs)| costs.postgres_us));
        let wal = Spread::of(cells.iter().map(|(_, costs)| costs.wal_bytes));
        println!(
            "{size:>9}: {:>6.0}/s ({:.0}–{:.0}), p99 {p99} ms; PostgreSQL {:.0} µs, WAL {:.0} bytes a ticket",
            rate.median, rate.min, rate.max, cost.median, wal.median
        );
        rows.push(json!({ "tickets": size, "per_s": rate, "p99_ms": p99, "postgres_cpu_us": cost, "wal_bytes": wal }));
        there = gateway.registered().await;
    }
    gateway.stop(false).await;
    json!(rows)
}

const GROWTH_CONNECTIONS: usize = 64;
const WHOLE_CONNECTIONS: usize = 64;

//! Latencies of one cell, and the middle of several.

use serde::Serialize;
use std::time::Duration;

/// What one cell measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

impl Figures {
    pub fn of(mut latencies: Vec<Duration>, per_second: f64) -> Self {
        latencies.sort_unstable();
        assert!(!latencies.is_empty(), "nothing was answered");
        let at = |part: f64| {
            let index = ((latencies.len() - 1) as f64 * part) as usize;
            latencies[index].as_secs_f64() * 1000.0
        };
        Self { per_second, p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999) }
    }
}

/// The middle, the least and the greatest of some rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

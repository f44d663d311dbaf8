//! Tests that every channel runs.

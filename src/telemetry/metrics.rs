//! Metrics, every name once.

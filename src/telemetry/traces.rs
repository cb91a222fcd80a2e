//! Sampled spans with W3C context.

//! The real programs on the real API server: operator and gateways as processes, callers with real tokens.
//!
//! There is no kubelet: [`kubelet`] plays it for one pod, and runs the pod's gateway here as its spec says. Each test
//! has a [`world::World`] of its own: a namespace, and an operator that sees that namespace alone.

mod client;
mod kubelet;
mod process;
mod service;
mod stream;
mod world;

mod away;
mod broken;
mod changes;
mod discovered;
mod elsewhere;
mod forged;
mod governed;
mod nonsense;
mod quiet;
mod replicas;
mod restored;
mod revoked;
mod scaled;
mod upgraded;
mod versions;

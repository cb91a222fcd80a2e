//! PURE. From manifests and overlay to what should run, and from what runs to what must be done.
//!
//! ```text
//! Inputs -> draft -> Draft --(Mint: keys for its identities)--> finish -> Desired
//!                                                    actions(&old, &new) -> [Action]
//! ```
//! A server whose configuration is broken keeps the one it runs with; a policy that does not load keeps the one in
//! force. Nothing runs without a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::api::{McpServer, Sessions, Transport};
use crate::gateway::reach::Reach;
use crate::gateway::upstream::{Config, http, stdio};
use crate::policy::snapshot::{Issuer, Snapshot, Target};
use crate::policy::world::Key;
use crate::policy::{Identity, Policy, Severity, World, compile};

use super::identity::{self, LOCAL_ISSUER};
use super::manifests::Problem;
use super::overlay::{self, Launch, Overlay};
use super::tokens::Mint;

/// Everything that a plan is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Policy's view of the manifests.
    pub world: &'a World,
    /// Every McpServer in force, as written.
    pub servers: &'a BTreeMap<Key, McpServer>,
    /// What this machine does differently.
    pub overlay: &'a Overlay,
    /// The folder of the manifests, absolute.
    pub directory: &'a Path,
    /// Where the gateway answers, as in `http://127.0.0.1:8811`.
    pub base: &'a str,
}

/// A plan that lacks only keys.
pub struct Draft {
    servers: BTreeMap<String, (Target, Config, Snapshot)>,
    /// Who gets a token, by the name in the overlay.
    pub identities: BTreeMap<String, Identity>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

/// What should run.
#[derive(Clone, Default)]
pub struct Desired {
    /// By name of the McpServer.
    pub servers: BTreeMap<String, Server>,
    /// Who has a token.
    pub identities: BTreeMap<String, Identity>,
}

/// A whole plan.
pub struct Planned {
    /// What should run.
    pub desired: Desired,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
    /// Servers whose new policy cannot be loaded.
    pub unloadable: Vec<String>,
}

/// One server, how to run it, and the policy over it.
#[derive(Clone)]
pub struct Server {
    /// The McpServer.
    pub target: Target,
    /// How it is run or reached.
    pub config: Config,
    /// What is enforced.
    pub policy: Arc<Policy>,
}

/// One step from what runs to what should run, in the order to be done.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Put another policy in force for a server that stays as it is.
    Publish(String),
    /// Start a server, or replace one that runs differently; then publish its policy.
    Put(String),
    /// End a server.
    Remove(String),
}

/// The endpoint of a server.
pub fn url(base: &str, server: &str) -> String {
    format!("{base}/servers/{server}/mcp")
}

/// Plans everything but keys. `previous` is what runs now.
pub fn draft(inputs: Inputs<'_>, previous: &Desired) -> Draft {
    let file = inputs.directory.join(overlay::FILE);
    let problem = |line, severity, message| Problem { file: file.clone(), line, severity, message };
    let mut problems = Vec::new();
    let mut servers: BTreeMap<String, (Target, Config, Snapshot)> = BTreeMap::new();
    for ((namespace, name), server) in inputs.servers {
        let target = Target { namespace: namespace.clone(), server: name.clone() };
        let Some(snapshot) = compile(inputs.world, &target, &urls(inputs, server, &target)) else {
            continue; // Not in policy's world: the loader has said why.
        };
        if let Some((first, ..)) = servers.get(name) {
            let message = format!(
                "McpServer {namespace}/{name} is left out: on a laptop McpServer {}/{name} has its URL; rename one",
                first.namespace
            );
            problems.push(problem(0, Severity::Error, message));
            continue;
        }
        let running = previous.servers.get(name).filter(|running| running.target == target);
        match config(name, server, inputs) {
            Ok(config) => _ = servers.insert(name.clone(), (target, config, snapshot)),
            Err((line, what)) => {
                let kept = if running.is_some() { "; it keeps running as it was" } else { "" };
                problems.push(problem(line, Severity::Error, format!("{what}{kept}")));
                if let Some(running) = running {
                    servers.insert(name.clone(), (target, running.config.clone(), snapshot));
                }
            }
        }
    }
    for (name, entry) in &inputs.overlay.servers {
        if !inputs.servers.keys().any(|(_, server)| server == name) {
            let message = format!("servers.{name}: no McpServer has this name");
            problems.push(problem(entry.line, Severity::Warning, message));
        }
    }
    let issuers = servers.values().flat_map(|(_, _, snapshot)| issuer_names(snapshot)).collect();
    let mut identities = BTreeMap::new();
    for (name, entry) in &inputs.overlay.identities {
        match identity::choose_issuer(entry.issuer.as_deref(), &issuers) {
            Ok(issuer) => _ = identities.insert(name.clone(), identity::resolve(entry, issuer)),
            Err(what) => {
                let message = format!("identities.{name}: {what} (`issuer`)");
                problems.push(problem(entry.line, Severity::Error, message));
            }
        }
    }
    problems.sort_by(|a, b| (a.line, &a.message).cmp(&(b.line, &b.message)));
    Draft { servers, identities, problems }
}

/// The endpoint's own URL, then the public one of its gateway: both are audiences (RFC 8707).
fn urls(inputs: Inputs<'_>, server: &McpServer, target: &Target) -> Vec<String> {
    let gateway = (target.namespace.clone(), server.spec.gateway_ref.name.clone());
    let public = inputs.world.gateways.get(&gateway).and_then(|gateway| gateway.url.clone());
    std::iter::once(url(inputs.base, &target.server)).chain(public).collect()
}

/// Names of the issuers that a snapshot trusts; `local` where it trusts none.
pub fn issuer_names(snapshot: &Snapshot) -> BTreeSet<String> {
    if snapshot.issuers.is_empty() {
        return BTreeSet::from([LOCAL_ISSUER.to_owned()]);
    }
    snapshot.issuers.iter().map(|issuer| issuer.name.clone()).collect()
}

/// How a server is run or reached here, or the line of the overlay and what is wrong.
fn config(name: &str, server: &McpServer, inputs: Inputs<'_>) -> Result<Config, (usize, String)> {
    let container = server.spec.source.container.as_ref();
    match inputs.overlay.servers.get(name).map(|entry| &entry.launch) {
        Some(Launch::Url(url)) => Ok(Config::Http(http::Config { url: url.clone(), ca: None, reach: Reach::MACHINE })),
        Some(Launch::Command { command, env, directory, children }) => {
            let directory =
                directory.as_ref().map_or_else(|| inputs.directory.into(), |own| inputs.directory.join(own));
            let declared = container.map_or(&[][..], |container| &container.env);
            let declared = declared.iter().map(|variable| (variable.name.clone(), variable.value.clone()));
            let sessions = match container.map(crate::api::Container::sessions) {
                Some(Sessions::Shared) => stdio::Sessions::Shared,
                Some(Sessions::PerClient) | None => stdio::Sessions::PerClient,
            };
            let run = stdio::Run::Command(stdio::Command {
                command: anchored(command, &directory),
                env: declared.chain(env.clone()).collect(),
                directory,
            });
            let children = stdio::Children { most: children.most, per_caller: children.per_caller };
            Ok(Config::Stdio(stdio::Config { name: name.to_owned(), run, sessions, children }))
        }
        None => match (container.map(|container| container.transport), &server.spec.source.remote) {
            (_, Some(remote)) => {
                Ok(Config::Http(http::Config { url: remote.url.clone(), ca: None, reach: Reach::MACHINE }))
            }
            (None, None) if server.spec.source.service.is_some() => {
                let what = "a Service of the cluster is not reached from a laptop: add the `url` where it answers here";
                Err((0, format!("servers.{name} is missing: {what}, or a `command` that starts the server")))
            }
            (Some(Transport::StreamableHttp), None) => {
                let what = "an image is not run on a laptop: start it yourself and add its `url`";
                Err((0, format!("servers.{name} is missing: {what}, or add a `command` that speaks stdio")))
            }
            (Some(Transport::Stdio) | None, None) => {
                let what = "an image is not run on a laptop: add the `command` that starts this server here";
                Err((0, format!("servers.{name} is missing: {what}")))
            }
        },
    }
}

/// A relative program with a folder in it counts from the working directory, whatever directory we are in.
fn anchored(command: &[String], directory: &Path) -> Vec<String> {
    let mut command = command.to_vec();
    if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
        *program = directory.join(&program).to_string_lossy().into_owned();
    }
    command
}

impl Draft {
    /// Adds the keys of `mint` (which was renewed for these identities) and loads every policy.
    pub fn finish(self, mint: &Mint, inputs: Inputs<'_>, previous: &Desired) -> Planned {
        let mut problems = self.problems;
        let mut unloadable = Vec::new();
        let mut servers = BTreeMap::new();
        for (name, (target, config, mut snapshot)) in self.servers {
            let local: Vec<Issuer> =
                issuer_names(&snapshot).iter().map(|issuer| mint.issuer(issuer, inputs.base)).collect();
            snapshot.issuers.extend(local);
            snapshot.issuers.sort_by(|a, b| (&a.name, &a.url).cmp(&(&b.name, &b.url)));
            let running = previous.servers.get(&name).filter(|running| running.target == target);
            let policy = match Policy::load(snapshot) {
                Ok(policy) => Some(Arc::new(policy)),
                Err(error) => {
                    let kept = match running {
                        Some(_) => "the policy in force stays",
                        None => "the server is left out",
                    };
                    let message = format!("McpServer {}/{name}: {error}; {kept}", target.namespace);
                    let (file, severity) = (inputs.directory.into(), Severity::Error);
                    problems.push(Problem { file, line: 0, severity, message });
                    unloadable.push(name.clone());
                    running.map(|running| Arc::clone(&running.policy))
                }
            };
            if let Some(policy) = policy {
                servers.insert(name, Server { target, config, policy });
            }
        }
        Planned { desired: Desired { servers, identities: self.identities }, problems, unloadable }
    }
}

/// What must be done: policies first, because they bind, and removals last.
pub fn actions(old: &Desired, new: &Desired) -> Vec<Action> {
    let mut actions = Vec::new();
    for (name, server) in &new.servers {
        match old.servers.get(name) {
            Some(running) if running.config != server.config => actions.push(Action::Put(name.clone())),
            Some(running) if running.policy.hash() != server.policy.hash() => {
                actions.push(Action::Publish(name.clone()));
            }
            Some(_) => {}
            None => actions.push(Action::Put(name.clone())),
        }
    }
    let gone = old.servers.keys().filter(|name| !new.servers.contains_key(*name));
    actions.extend(gone.cloned().map(Action::Remove));
    actions.sort();
    actions
}

#[cfg(test)]
mod tests;

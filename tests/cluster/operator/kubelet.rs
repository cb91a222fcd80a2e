//! Plays kubelet for one pod: its volumes as folders, its gateway as a process here, its status as a kubelet says it.
//!
//! The process gets what the pod's spec says, word for word, but for what a container alone has: paths of mounts
//! become those folders, listen addresses become ports of 127.0.0.1.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, Container, KeyToPath, Pod as Object, Volume};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use tempfile::TempDir;

use super::process::{Process, free_port};
use super::world::World;
use crate::harness::{eventually, holds, within};

/// The pod's address: one of this machine's, so that whoever listens on every address listens on this one too.
const POD_IP: &str = "127.0.0.2";
/// What a gateway is told by flags, the environment variable that may say it instead, and what it is unless said.
const PLACES: &[(&str, &str)] = &[
    ("--boot", "/etc/toolgate/boot/snapshot"),
    ("--state", "/var/lib/toolgate"),
    ("--token", "/var/run/toolgate/token/token"),
];

/// One pod of a server.
pub(crate) struct Pod {
    pub(crate) object: Object,
    /// Where its gateway serves callers.
    pub(crate) port: u16,
    /// Where its gateway answers probes.
    pub(crate) admin: u16,
    volumes: TempDir,
    /// What DNS and the cluster's network would do: `HOST:PORT` in a URL of the spec, and where that is.
    names: Vec<(String, String)>,
}

impl Pod {
    /// Waits until the Deployment of a server has made a pod, and takes it over.
    pub(crate) async fn of(world: &World, server: &str) -> Self {
        let pods = world.space.api::<Object>();
        let selector = ListParams::default().labels(&format!("toolgate.dev/server={server}"));
        let object = eventually(&format!("find a pod of {server}"), async || {
            let found = pods.list(&selector).await.ok()?.items;
            found.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none())
        })
        .await;
        let volumes = TempDir::new().expect("a temporary folder");
        Self { object, port: free_port(), admin: free_port(), volumes, names: Vec::new() }
    }

    /// The same, where a Service's `HOST:PORT` is at a port of this machine.
    pub(crate) fn with_name(mut self, authority: &str, port: u16) -> Self {
        self.names.push((authority.to_owned(), format!("127.0.0.1:{port}")));
        self
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> String {
        self.object.name_any()
    }

    /// `metadata.uid`.
    pub(crate) fn uid(&self) -> String {
        self.object.uid().expect("a uid")
    }

    /// Starts the gateway as [`Pod::start_gateway`] does, waits until it is ready and says so in the pod's status.
    pub(crate) async fn run_gateway(&self, world: &World) -> Process {
        let mut gateway = self.start_gateway(world).await;
        gateway.answers(self.admin, "/readyz").await;
        self.mark(&world.space.api(), true).await;
        gateway
    }

    /// Brings the volumes up to date and starts the gateway's container.
    pub(crate) async fn start_gateway(&self, world: &World) -> Process {
        self.mount(world).await;
        let mut command = self.gateway();
        Process::start("the gateway", &mut command, &world.scratch.path().join(format!("{}.log", self.name())))
    }

    /// The command of the gateway's container. The volumes are not touched.
    pub(crate) fn gateway(&self) -> Command {
        let container = self.container("toolgate-gateway");
        let mut words = container.command.iter().chain(&container.args).flatten();
        let program = words.next().expect("the gateway's container has a command");
        assert_eq!(program, "/toolgate-gateway");
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate-gateway"));
        let environment = self.environment(container);
        let here = |word: &String| self.reached(self.here(container, &expand(word, &environment)));
        // Remotes of tests are on loopback, which a gateway in a pod never reaches as one.
        let words = words.filter(|word| *word != "--upstream-is-remote");
        let mut arguments: Vec<String> = words.map(here).collect();
        for (flag, usual) in PLACES {
            let variable = format!("TOOLGATE_{}", flag.trim_start_matches('-').to_uppercase());
            if !environment.contains_key(&variable) && !arguments.iter().any(|word| word.starts_with(flag)) {
                arguments.extend([(*flag).to_owned(), self.here(container, usual)]);
            }
        }
        command.args(without(arguments, &["--listen", "--admin", "--pod-ip"]));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--admin", &format!("127.0.0.1:{}", self.admin), "--pod-ip", POD_IP]);
        for (name, value) in &environment {
            if !["TOOLGATE_LISTEN", "TOOLGATE_ADMIN", "TOOLGATE_POD_IP"].contains(&name.as_str()) {
                command.env(name, self.here(container, value));
            }
        }
        command.env("RUST_LOG", "info");
        command
    }

    /// Starts the server's container, which the shim runs: the image's program is that of this machine.
    pub(crate) fn start_server(&self, world: &World) -> Process {
        let container = self.container("server");
        let mut words = container.command.iter().chain(&container.args).flatten();
        assert_eq!(words.next().map(String::as_str), Some("/toolgate/shim"), "a stdio server runs below the shim");
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate-shim"));
        command.args(words.map(|word| self.here(container, word)));
        command.env_clear().envs(self.environment(container));
        Process::start("the server", &mut command, &world.scratch.path().join(format!("{}.server.log", self.name())))
    }

    /// A variable of the gateway's container.
    pub(crate) fn variable(&self, name: &str) -> String {
        self.environment(self.container("toolgate-gateway"))[name].clone()
    }

    /// Where a volume's files lie.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.volumes.path().join(name)
    }

    /// Where the gateway finds the snapshot to boot from.
    pub(crate) fn boot_file(&self) -> PathBuf {
        let gateway = self.container("toolgate-gateway");
        PathBuf::from(self.here(gateway, "/etc/toolgate/boot/snapshot"))
    }

    /// Forgets what the gateway kept on its disk, its certificate too.
    pub(crate) fn forget_state(&self) {
        let state = self.state();
        fs::remove_dir_all(&state).expect("the state's folder is there");
        fs::create_dir(&state).unwrap();
    }

    /// Forgets the policy that the gateway kept on its disk.
    pub(crate) fn forget_policy(&self) {
        fs::remove_file(self.state().join("snapshot")).expect("the gateway keeps its last policy");
    }

    fn state(&self) -> PathBuf {
        PathBuf::from(self.here(self.container("toolgate-gateway"), "/var/lib/toolgate"))
    }

    /// Says in the pod's status that all its containers run, and whether they are ready.
    pub(crate) async fn mark(&self, pods: &Api<Object>, is_ready: bool) {
        self.write_status(pods, is_ready, json!([])).await;
    }

    /// Says in the pod's status that the server's container does not run, with the kubelet's words for it.
    pub(crate) async fn mark_waiting(&self, pods: &Api<Object>, reason: &str, message: &str) {
        let server = json!({
            "name": "server", "image": "any", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": reason, "message": message}},
        });
        self.write_status(pods, false, json!([server])).await;
    }

    async fn write_status(&self, pods: &Api<Object>, is_ready: bool, containers: serde_json::Value) {
        let status = if is_ready { "True" } else { "False" };
        let conditions: Vec<_> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|type_| json!({"type": type_, "status": if type_.ends_with("Ready") { status } else { "True" }}))
            .into();
        let patch = json!({"status": {
            "phase": "Running", "podIP": POD_IP, "podIPs": [{"ip": POD_IP}], "conditions": conditions,
            "containerStatuses": containers,
        }});
        let (name, patch) = (self.name(), Patch::Merge(&patch));
        let written = within("write a status", pods.patch_status(&name, &PatchParams::default(), &patch)).await;
        written.expect("the status is valid");
    }

    fn container(&self, name: &str) -> &Container {
        let spec = self.object.spec.as_ref().expect("a spec");
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        all.find(|container| container.name == name).unwrap_or_else(|| panic!("{} has no {name}", self.name()))
    }

    /// The environment of a container, as a kubelet computes it.
    fn environment(&self, container: &Container) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
            let value = match (&variable.value, field.map(|field| field.field_path.as_str())) {
                (Some(value), None) => expand(value, &environment),
                (None, Some("metadata.name")) => self.name(),
                (None, Some("metadata.namespace")) => self.object.namespace().unwrap(),
                (None, Some("metadata.uid")) => self.uid(),
                (None, Some("status.podIP" | "status.podIPs")) => POD_IP.to_owned(),
                other => panic!("no kubelet here knows {}: {other:?}", variable.name),
            };
            environment.insert(variable.name.clone(), value);
        }
        environment
    }

    /// A URL in which names that only the cluster knows are addresses.
    fn reached(&self, text: String) -> String {
        self.names.iter().fold(text, |text, (authority, address)| {
            text.replace(&format!("://{authority}/"), &format!("://{address}/"))
        })
    }

    /// A text of a container in which its mounts' paths are folders of this machine.
    fn here(&self, container: &Container, text: &str) -> String {
        let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.mount_path.len()));
        let within = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let found = mounts.iter().find_map(|mount| {
            let (before, rest) = text.split_once(&mount.mount_path)?;
            (within(rest) && (before.is_empty() || before.ends_with('='))).then_some((before, mount, rest))
        });
        let Some((before, mount, rest)) = found else { return text.to_owned() };
        format!("{before}{}{rest}", self.volume(&mount.name).display())
    }

    /// Writes what each volume of the gateway holds now. Files that are no longer there stay: nothing here removes one.
    pub(crate) async fn mount(&self, world: &World) {
        let mounts: Vec<_> = self.container("toolgate-gateway").volume_mounts.iter().flatten().collect();
        let volumes = self.object.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        for volume in volumes.iter().filter(|volume| mounts.iter().any(|mount| mount.name == volume.name)) {
            let folder = self.volume(&volume.name);
            fs::create_dir_all(&folder).unwrap();
            self.fill(world, volume, &folder).await;
        }
    }

    async fn fill(&self, world: &World, volume: &Volume, folder: &Path) {
        if let Some(map) = &volume.config_map {
            config_map(world, &map.name, map.items.as_deref(), folder).await;
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(token) = &source.service_account_token {
                let account = self.object.spec.as_ref().unwrap().service_account_name.as_deref();
                let account = account.expect("admission sets a ServiceAccount");
                let audience = token.audience.as_deref().expect("an audience of our own");
                let (name, uid) = (self.name(), self.uid());
                let made = world.token(account, audience, Some((&name, &uid))).await;
                fs::write(folder.join(&token.path), made).unwrap();
            } else if let Some(map) = &source.config_map {
                config_map(world, &map.name, map.items.as_deref(), folder).await;
            } else {
                panic!("no kubelet here knows {source:?}");
            }
        }
    }
}

/// Writes a ConfigMap's entries as files, or some of them, once it is there: a kubelet starts no container before.
async fn config_map(world: &World, name: &str, items: Option<&[KeyToPath]>, folder: &Path) {
    let maps = world.space.api::<ConfigMap>();
    let map = holds(&maps, name, "exist", |map: Option<&ConfigMap>| map.is_some()).await.expect("it stays");
    let texts = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
    let entries = texts.chain(map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)));
    for (key, bytes) in entries {
        let path = match items {
            Some(items) => items.iter().find(|item| item.key == key).map(|item| item.path.clone()),
            None => Some(key),
        };
        if let Some(path) = path {
            fs::write(folder.join(path), bytes).unwrap();
        }
    }
}

/// `$(NAME)` is a variable.
fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    environment.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

/// The arguments without these flags and their values.
fn without(arguments: Vec<String>, flags: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(word) = arguments.next() {
        match flags.iter().find(|flag| word.starts_with(**flag)) {
            Some(flag) if word == **flag => drop(arguments.next()),
            Some(flag) if word.starts_with(&format!("{flag}=")) => {}
            _ => kept.push(word),
        }
    }
    kept
}

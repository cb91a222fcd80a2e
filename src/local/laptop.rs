//! The state of `toolgate local` between two edits: what runs, what it offers, and what was told about it.
//!
//! Owns the order in which an edit takes effect. What to do is planned in [`super::plan`]; doing it is the gateway's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use serde_json::Value;

use crate::gateway::Gateway;
use crate::gateway::catalogue::{Catalogue, Digests};
use crate::gateway::upstream::{Config, UpstreamError};
use crate::policy::Severity;

use super::apart::{Reader, Reading};
use super::console::Console;
use super::manifests::{Loaded, Problem};
use super::output::{self, Endpoint, Ready};
use super::overlay::{self, Overlay};
use super::plan::{self, Action, Desired, Inputs};
use super::registry::{Known, Registry};
use super::table::Table;
use super::tokens::{Mint, TokenError};

/// Time for a server to say what it offers, its first download included.
const ANSWER: Duration = Duration::from_mins(1);
/// Time between two questions to a server that gave no answer; doubled after each.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Longest time between two such questions.
const ASK_AGAIN_MAX: Duration = Duration::from_mins(1);

/// Questions that are under way; at most one a server counts.
pub(super) type Questions<'g> = FuturesUnordered<BoxFuture<'g, Answer>>;

/// What a server said about itself.
pub(super) struct Answer {
    server: String,
    /// Number of the question; only the answer to the last one counts.
    question: u64,
    result: Result<Catalogue, String>,
}

/// What does not change while it runs.
pub(super) struct Setting {
    /// The folder, absolute.
    pub(super) directory: PathBuf,
    /// Where the gateway answers.
    pub(super) base: String,
    /// `listen` of the overlay at start, to notice when it changes.
    pub(super) listen: Option<SocketAddr>,
    /// Whether a flag overrides `listen`.
    pub(super) listen_flag: bool,
    /// Base URL of the admin port.
    pub(super) admin: Option<String>,
    /// Where the audit log is, for the user.
    pub(super) audit: String,
    /// See [`super::run::Options`].
    pub(super) ready_file: PathBuf,
    /// See [`super::run::Options`].
    pub(super) mcp_json: PathBuf,
    /// See [`super::run::Options`].
    pub(super) mcp_json_identity: Option<String>,
    /// See [`super::run::Options`].
    pub(super) token_lifetime: Duration,
}

/// The laptop mode at work.
pub(super) struct Laptop<'g> {
    gateway: &'g Gateway,
    setting: Setting,
    reader: Reader,
    overlay: Overlay,
    mint: Mint,
    desired: Desired,
    offers: BTreeMap<String, Offer>,
    questions: u64,
    registry: Registry,
    ready: Ready,
    announced: bool,
    console: Console,
}

/// What is known about one server's catalogue.
#[derive(Default)]
struct Offer {
    question: u64,
    failures: u32,
    catalogue: Option<Result<Catalogue, String>>,
}

impl<'g> Laptop<'g> {
    /// Nothing runs yet. `overlay` is the one that was read at start, by `reader`.
    pub(super) fn new(
        gateway: &'g Gateway,
        setting: Setting,
        reader: Reader,
        overlay: Overlay,
        console: Console,
    ) -> Self {
        let mint = Mint::new(setting.token_lifetime);
        Self {
            gateway,
            setting,
            reader,
            overlay,
            mint,
            desired: Desired::default(),
            offers: BTreeMap::new(),
            questions: 0,
            registry: Registry::default(),
            ready: Ready::default(),
            announced: false,
            console,
        }
    }

    /// Gives the writer back, to say goodbye.
    pub(super) fn into_console(self) -> Console {
        self.console
    }

    /// Reads the folder again and puts in force what it says now.
    pub(super) async fn reload(&mut self, questions: &Questions<'g>) -> Result<(), TokenError> {
        match self.reader.read().await {
            Ok(reading) => self.take(reading, questions).await,
            Err(error) => {
                let message = format!("failed to read the folder: {error}; what is in force stays in force");
                let (file, severity) = (self.setting.directory.clone(), Severity::Error);
                self.console.problems(vec![Problem { file, line: 0, severity, message }]);
                Ok(())
            }
        }
    }

    /// Puts in force what was read.
    pub(super) async fn take(&mut self, reading: Reading, questions: &Questions<'g>) -> Result<(), TokenError> {
        let Loaded { world, servers, mut problems, .. } = reading.loaded;
        match reading.overlay {
            Ok(overlay) => self.overlay = overlay,
            Err(faults) => problems.extend(faults.into_iter().map(|fault| Problem {
                message: format!("{}; the last good overlay stays in force", fault.message),
                ..fault
            })),
        }
        if !self.setting.listen_flag && self.setting.listen != self.overlay.listen {
            let message = format!("listen: restart needed, until then it stays {}", self.setting.base);
            let file = self.setting.directory.join(overlay::FILE);
            problems.push(Problem { file, line: 0, severity: Severity::Warning, message });
        }
        let inputs = Inputs {
            world: &world,
            servers: &servers,
            overlay: &self.overlay,
            directory: &self.setting.directory,
            base: &self.setting.base,
        };
        let draft = plan::draft(inputs, &self.desired);
        self.mint.renew(&draft.identities)?;
        let planned = draft.finish(&self.mint, inputs, &self.desired);
        problems.extend(planned.problems);
        self.console.problems(problems);
        planned.unloadable.iter().for_each(|name| self.gateway.policy_failed(name));
        self.apply(planned.desired, questions).await;
        self.tell(Timestamp::now())
    }

    async fn apply(&mut self, desired: Desired, questions: &Questions<'g>) {
        let old = std::mem::replace(&mut self.desired, desired);
        for action in plan::actions(&old, &self.desired) {
            match action {
                Action::Publish(name) => self.publish(&name, &old),
                Action::Put(name) => {
                    let Some(server) = self.desired.servers.get(&name) else { continue };
                    let config = server.config.clone();
                    self.console.say(match &config {
                        Config::Stdio(config) => format!("starting {name}: {}", config.run),
                        Config::Http(config) => format!("reaching {name} at {}", config.url),
                    });
                    match self.gateway.put_server(&name, config).await {
                        Ok(()) => {
                            self.publish(&name, &old);
                            self.offers.remove(&name);
                            self.ask(&name, Duration::ZERO, questions);
                        }
                        Err(error) => self.refused(&name, &error, &old),
                    }
                }
                Action::Remove(name) => {
                    self.gateway.remove_server(&name).await;
                    self.offers.remove(&name);
                    self.console.say(format!("stopped {name}"));
                }
            }
        }
    }

    /// A configuration that can never work: what ran before goes on, and the next edit is tried again.
    fn refused(&mut self, name: &str, error: &UpstreamError, old: &Desired) {
        self.console.say(format!("{name}: {error}"));
        match (old.servers.get(name), self.desired.servers.get_mut(name)) {
            (Some(before), Some(server)) => server.config = before.config.clone(),
            _ => self.offers.entry(name.to_owned()).or_default().catalogue = Some(Err(error.to_string())),
        }
        self.publish(name, old);
    }

    fn publish(&mut self, name: &str, old: &Desired) {
        let Some(server) = self.desired.servers.get(name) else { return };
        self.gateway.publish(name, server.policy.clone());
        if let Some(before) = old.servers.get(name).filter(|before| before.policy.hash() != server.policy.hash()) {
            let (before, now) = (short(before.policy.hash()), short(server.policy.hash()));
            self.console.say(format!("policy of {name}: {before} -> {now}"));
        }
    }

    fn ask(&mut self, name: &str, after: Duration, questions: &Questions<'g>) {
        self.questions += 1;
        let offer = self.offers.entry(name.to_owned()).or_default();
        offer.question = self.questions;
        let (gateway, server, question) = (self.gateway, name.to_owned(), self.questions);
        questions.push(Box::pin(async move {
            tokio::time::sleep(after).await;
            let result = match tokio::time::timeout(ANSWER, answer(gateway, &server)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("it did not say what it offers within {} s", ANSWER.as_secs())),
            };
            Answer { server, question, result }
        }));
    }

    /// Takes what a server said about itself.
    pub(super) fn answered(&mut self, answer: Answer, questions: &Questions<'g>) -> Result<(), TokenError> {
        let Answer { server, question, result } = answer;
        let Some(offer) = self.offers.get_mut(&server).filter(|offer| offer.question == question) else {
            return Ok(()); // The server was replaced or removed meanwhile.
        };
        let late = matches!(offer.catalogue, Some(Err(_)));
        let failed = result.is_err();
        let news = match &result {
            Ok(_) if late => Some(format!("{server} answers now")),
            Err(error) if !late => Some(format!("{server}: no answer: {error}; it will be asked again")),
            _ => None,
        };
        offer.catalogue = Some(result);
        if failed {
            let delay = ASK_AGAIN.saturating_mul(1 << offer.failures.min(8)).min(ASK_AGAIN_MAX);
            offer.failures += 1;
            self.ask(&server, delay, questions);
        }
        if let Some(news) = news.filter(|_| self.announced) {
            self.console.say(news);
        }
        self.tell(Timestamp::now())
    }

    /// Whether every server has answered, or failed to.
    pub(super) fn complete(&self) -> bool {
        self.desired.servers.keys().all(|name| self.offers.get(name).is_some_and(|offer| offer.catalogue.is_some()))
    }

    /// Brings table, files and tokens up to date, and tells what is different once the first table was printed.
    fn tell(&mut self, now: Timestamp) -> Result<(), TokenError> {
        let known = self.desired.servers.iter().map(|(name, server)| {
            let catalogue = self.offers.get(name).and_then(|offer| offer.catalogue.as_ref());
            (name.as_str(), Known { policy: &server.policy, catalogue })
        });
        let registry = Registry::new(known, &self.desired.identities, now);
        let old = std::mem::replace(&mut self.registry, registry);
        if !self.announced {
            if self.complete() {
                self.announce(now)?;
            }
            return Ok(());
        }
        for line in old.changes(&self.registry) {
            self.console.say(line);
        }
        let ready = self.make_ready(now)?;
        let before = std::mem::replace(&mut self.ready, ready);
        if self.ready != before {
            let new = |(name, token): &(&String, &String)| before.tokens.get(*name) != Some(token);
            if self.ready.tokens.iter().any(|entry| new(&entry)) {
                self.console.say(format!("NEW TOKENS\n{}", tokens(self.ready.tokens.iter().filter(new)).trim_end()));
            }
            self.write_files();
        }
        Ok(())
    }

    fn make_ready(&mut self, now: Timestamp) -> Result<Ready, TokenError> {
        let base = &self.setting.base;
        let endpoint = |name: &String| {
            let failed = self.offers.get(name).and_then(|offer| offer.catalogue.as_ref()?.as_ref().err().cloned());
            (name.clone(), Endpoint { url: plan::url(base, name), error: failed })
        };
        let servers: BTreeMap<String, Endpoint> = self.desired.servers.keys().map(endpoint).collect();
        let audiences: Vec<String> = servers.values().map(|endpoint| endpoint.url.clone()).collect();
        let tokens = self.mint.tokens(base, &audiences, now)?;
        Ok(Ready { servers, tokens, admin: self.setting.admin.clone() })
    }

    /// Says everything once, when every server has answered or failed to.
    fn announce(&mut self, now: Timestamp) -> Result<(), TokenError> {
        self.announced = true;
        self.ready = self.make_ready(now)?;
        let mut places = Table::new(["SERVER", "URL"]);
        for (name, endpoint) in &self.ready.servers {
            places.row(vec![name.clone(), endpoint.url.clone()]);
        }
        let tokens = if self.ready.tokens.is_empty() {
            "no tokens: add `identities` to toolgate.local.yaml".to_owned()
        } else {
            let lifetime = self.setting.token_lifetime.as_secs() / 3600;
            let list = tokens(self.ready.tokens.iter());
            format!("TOKENS, valid for {lifetime} h, for the header `Authorization: Bearer TOKEN`\n{list}")
        };
        if places.is_empty() {
            self.console.say("no McpServer is in force");
        }
        let paragraphs = [self.registry.render(), places.render(), tokens];
        let paragraphs: Vec<&str> = paragraphs.iter().map(|text| text.trim_end()).collect();
        self.console.say(format!("\n{}\n", paragraphs.join("\n\n")));
        if let Some(admin) = &self.setting.admin {
            self.console.say(format!("metrics    {admin}/metrics"));
        }
        self.console.say(format!("audit log  {}", self.setting.audit));
        for (_, purpose, _) in self.files() {
            self.console.say(purpose);
        }
        self.write_files();
        self.console.say("ready: an edit of the manifests counts as soon as it is saved; Ctrl-C ends everything");
        Ok(())
    }

    /// Writes what clients and scripts read. A file that cannot be written is told; the gateway goes on.
    fn write_files(&mut self) {
        for (file, _, document) in self.files() {
            if let Err(error) = output::write_private(&file, &document) {
                self.console.say(format!("failed to write {}: {error}", file.display()));
            }
        }
    }

    /// The files, what each is for, and what stands in it.
    fn files(&self) -> Vec<(PathBuf, String, Value)> {
        let mut files = Vec::new();
        let chosen = self.setting.mcp_json_identity.as_ref().or_else(|| self.ready.tokens.keys().next());
        if let Some((name, document)) = chosen.and_then(|name| Some((name, self.ready.to_mcp_json(name)?))) {
            let purpose =
                format!("mcp.json   {}, for clients, with the token of {name}", self.setting.mcp_json.display());
            files.push((self.setting.mcp_json.clone(), purpose, document));
        }
        let purpose =
            format!("ready.json {}, for scripts, with every URL and token", self.setting.ready_file.display());
        files.push((self.setting.ready_file.clone(), purpose, self.ready.to_json()));
        files
    }
}

/// Asks until there is an answer that more time would not change: a first start may take longer than one question.
async fn answer(gateway: &Gateway, server: &str) -> Result<Catalogue, UpstreamError> {
    loop {
        match gateway.catalogue(server, Digests::Skip).await {
            Err(UpstreamError::Timeout) => {}
            other => return other,
        }
    }
}

fn tokens<'a>(list: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    list.fold(String::new(), |text, (name, token)| format!("{text}{name}\n{token}\n"))
}

/// Enough of a hash to tell two apart.
fn short(hash: &str) -> &str {
    hash.get(..15).unwrap_or(hash)
}

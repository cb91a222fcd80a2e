//! A folder of manifests: read, checked, and kept through edits that break it.
//!
//! Owns files, positions in them, and the last good version of each object. Decides nothing about policy.
//!
//! # What stays in force
//! A file that is no YAML (half written, or just emptied by an editor) keeps the objects of its last good version. An
//! object that breaks its schema, or that `policy::parse` takes partly out of force, keeps its last good version, if
//! that one helps. An object that never was good is out of force, or in force as far as `policy::parse` says. One
//! broken object never holds up the others.

mod files;
mod object;
mod schema;
#[cfg(test)]
mod tests;
mod wording;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy::parse::{Objects, parse};
use crate::policy::world::Key;
use crate::policy::{Finding, ObjectRef, Severity, World};

use files::Content;
use object::{Outcome, Typed};
use schema::{Fault, Schemas};
use yaml::Node;

/// Reads one folder again and again.
#[derive(Debug)]
pub struct Loader {
    root: PathBuf,
    /// Objects of each file as they were when it was last readable.
    files: BTreeMap<PathBuf, Vec<Arc<Node>>>,
    /// The version of each object that was last in force as a whole.
    good: BTreeMap<ObjectRef, Typed>,
}

/// What a folder says now.
#[derive(Debug)]
pub struct Loaded {
    /// Policy's view of all objects in force.
    pub world: World,
    /// The McpServers in force, as written.
    pub servers: BTreeMap<Key, crate::api::McpServer>,
    /// Everything wrong or doubtful, sorted by file and line.
    pub problems: Vec<Problem>,
    /// How many objects of ours the folder holds, broken ones included.
    pub objects: usize,
}

/// One finding, mapped to a place. `Display` gives `FILE:LINE: error: MESSAGE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The file, as given to [`Loader::new`] plus its name.
    pub file: PathBuf,
    /// 1-based; 0 for the file or the folder as a whole.
    pub line: usize,
    /// Whether something is out of force.
    pub severity: Severity,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        match self.line {
            0 => write!(f, "{}: {severity}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {severity}: {}", self.file.display(), self.message),
        }
    }
}

/// Everything wrong with one file of manifests by itself, whatever its text. For editors and fuzzers.
pub fn parse_text(name: &str, text: &str) -> Vec<Problem> {
    let content = files::classify(text.as_bytes().to_vec());
    Loader::new(Path::new(name)).take(vec![(PathBuf::from(name), content)], Vec::new()).problems
}

/// An object of the folder, before policy has seen it.
struct Declared {
    file: PathBuf,
    node: Arc<Node>,
    /// The version to try first; `None` if there is none, neither new nor old.
    version: Option<Typed>,
    /// Whether that is an old one.
    old: bool,
}

impl Loader {
    /// Reads nothing yet. The path is that of a folder or of one file.
    pub fn new(directory: &Path) -> Self {
        let (files, good) = (BTreeMap::new(), BTreeMap::new());
        Self { root: directory.to_owned(), files, good }
    }

    /// Reads all `*.yaml`, `*.yml` and `*.json` in the folder but `toolgate.local.yaml`, not those in folders below: a
    /// server that may write files there must not be able to write policy. An object that is broken now
    /// keeps its last good version, if there was one; the problem says so. Fails only if the folder itself cannot be
    /// read.
    pub fn load(&mut self) -> std::io::Result<Loaded> {
        let found = files::find(&self.root)?;
        let contents = found.files.into_iter().filter_map(|path| files::read(&path).map(|content| (path, content)));
        let problems = found.incomplete.map(|message| error(&self.root, 0, message)).into_iter().collect();
        Ok(self.take(contents.collect(), problems))
    }

    fn take(&mut self, contents: Vec<(PathBuf, Content)>, mut problems: Vec<Problem>) -> Loaded {
        self.read(contents, &mut problems);
        let (declared, objects) = self.declare(&mut problems);
        if objects == 0 && problems.is_empty() {
            let message = "no manifests: there is no object of toolgate.dev/v1alpha1 in *.yaml, *.yml or *.json here";
            problems.push(error(&self.root, 0, message.to_owned()));
        }
        let (world, chosen) = self.settle(&declared, &mut problems);
        let servers = chosen.values().filter_map(|typed| match typed {
            Typed::Server(server) => Some(server.as_ref().clone()),
            _ => None,
        });
        let servers = servers.map(|server| (key(&server), server)).collect();
        problems
            .sort_by(|a, b| (&a.file, a.line, b.severity, &a.message).cmp(&(&b.file, b.line, a.severity, &b.message)));
        problems.dedup();
        Loaded { world, servers, problems, objects }
    }

    /// Replaces the objects of every file that can be read; forgets files that are gone.
    fn read(&mut self, contents: Vec<(PathBuf, Content)>, problems: &mut Vec<Problem>) {
        let mut files = BTreeMap::new();
        for (path, content) in contents {
            let before = self.files.remove(&path);
            let had_objects = before.as_ref().is_some_and(|objects| !objects.is_empty());
            let read = match content {
                Content::Text(text) => yaml::read(&text)
                    .map_err(|error| (error.line, format!("not valid YAML, none of it is read: {}", error.message))),
                // What an editor has written so far, more often than a wish.
                Content::Empty | Content::Foreign if had_objects => {
                    Err((0, "holds no Toolgate object any more: delete the file to remove its objects".to_owned()))
                }
                Content::Empty | Content::Foreign => Ok(Vec::new()),
                Content::Unreadable(line, why) => Err((line, why)),
            };
            match read {
                Ok(documents) => {
                    files.insert(path, documents.into_iter().flat_map(object::objects).collect());
                }
                Err((line, message)) => {
                    let message = if had_objects { kept(&message) } else { message };
                    problems.push(error(&path, line, message));
                    files.insert(path, before.unwrap_or_default());
                }
            }
        }
        self.files = files;
    }

    /// Every object once, in the best version that its own text and history give; and how many there are.
    fn declare(&self, problems: &mut Vec<Problem>) -> (BTreeMap<ObjectRef, Declared>, usize) {
        let mut declared: BTreeMap<ObjectRef, Declared> = BTreeMap::new();
        let mut objects = 0;
        let nodes = self.files.iter().flat_map(|(file, nodes)| nodes.iter().map(move |node| (file, node)));
        for (file, node) in nodes {
            let (reference, faults, version) = match object::judge(Schemas::shared(), node) {
                Outcome::Foreign => continue,
                Outcome::Doubtful(fault) => {
                    let line = node.line_of(&fault.pointer);
                    let (file, severity) = (file.clone(), Severity::Warning);
                    problems.push(Problem { file, line, severity, message: fault.message });
                    continue;
                }
                Outcome::Broken(reference, faults) => (reference, faults, None),
                Outcome::Sound(reference, typed) => (Some(reference), Vec::new(), Some(typed)),
            };
            objects += 1;
            let last = reference.as_ref().and_then(|reference| self.good.get(reference));
            let old = version.is_none() && last.is_some();
            for Fault { pointer, message } in faults {
                let message = describe(reference.as_ref(), &pointer, &message);
                problems.push(error(file, node.line_of(&pointer), if old { kept(&message) } else { message }));
            }
            let Some(reference) = reference else { continue };
            if let Some(first) = declared.get(&reference) {
                let message = format!(
                    "{reference} is declared twice, first at {}:{}, which keeps working: remove one of them",
                    first.file.display(),
                    first.node.line_of("/metadata/name")
                );
                problems.push(error(file, node.line_of("/metadata/name"), message));
                continue;
            }
            let version = version.or_else(|| last.cloned());
            declared.insert(reference, Declared { file: file.clone(), node: Arc::clone(node), version, old });
        }
        (declared, objects)
    }

    /// Lets policy judge the objects together. Those that it finds broken are tried once in their last good version.
    fn settle(
        &mut self,
        declared: &BTreeMap<ObjectRef, Declared>,
        problems: &mut Vec<Problem>,
    ) -> (World, BTreeMap<ObjectRef, Typed>) {
        let written: BTreeMap<ObjectRef, Typed> =
            declared.iter().filter_map(|(name, object)| Some((name.clone(), object.version.clone()?))).collect();
        let (mut world, findings) = judge_together(&written);
        let mut replaced: BTreeSet<ObjectRef> = broken(&findings)
            .filter(|name| self.good.get(name).is_some_and(|good| written.get(name) != Some(good)))
            .cloned()
            .collect();
        let (mut chosen, mut last_findings) = (written.clone(), findings.clone());
        if !replaced.is_empty() {
            chosen = self.with_old(&written, &replaced);
            (world, last_findings) = judge_together(&chosen);
            let still: BTreeSet<&ObjectRef> = broken(&last_findings).collect();
            let helped: BTreeSet<ObjectRef> = replaced.iter().filter(|name| !still.contains(name)).cloned().collect();
            if helped != replaced {
                chosen = self.with_old(&written, &helped);
                (world, last_findings) = judge_together(&chosen);
                replaced = helped;
            }
        }
        self.remember(declared, &chosen, &last_findings);
        for Finding { object, pointer, severity, message, .. } in findings {
            let Some(place) = declared.get(&object) else { continue };
            let message = describe(Some(&object), &pointer, &message);
            let keeps = severity == Severity::Error && (place.old || replaced.contains(&object));
            let message = if keeps { kept(&message) } else { message };
            problems.push(Problem { file: place.file.clone(), line: place.node.line_of(&pointer), severity, message });
        }
        (world, chosen)
    }

    /// The objects as written, but for those that are replaced by their last good version.
    fn with_old(
        &self,
        written: &BTreeMap<ObjectRef, Typed>,
        replaced: &BTreeSet<ObjectRef>,
    ) -> BTreeMap<ObjectRef, Typed> {
        let mut objects = written.clone();
        for (name, typed) in self.good.iter().filter(|(name, _)| replaced.contains(name)) {
            objects.insert(name.clone(), typed.clone());
        }
        objects
    }

    /// What is in force as a whole becomes the last good version; what is gone is forgotten.
    fn remember(
        &mut self,
        declared: &BTreeMap<ObjectRef, Declared>,
        chosen: &BTreeMap<ObjectRef, Typed>,
        findings: &[Finding],
    ) {
        let broken: BTreeSet<&ObjectRef> = broken(findings).collect();
        self.good.retain(|name, _| declared.contains_key(name));
        for (name, typed) in chosen.iter().filter(|(name, _)| !broken.contains(name)) {
            self.good.insert(name.clone(), typed.clone());
        }
    }
}

fn judge_together(objects: &BTreeMap<ObjectRef, Typed>) -> (World, Vec<Finding>) {
    let mut all = Objects::default();
    for typed in objects.values() {
        typed.add_to(&mut all);
    }
    parse(&all)
}

fn broken(findings: &[Finding]) -> impl Iterator<Item = &ObjectRef> {
    findings.iter().filter(|finding| finding.severity == Severity::Error).map(|finding| &finding.object)
}

fn key(object: &impl crate::api::Object) -> Key {
    (object.namespace().to_owned(), object.name().to_owned())
}

fn error(file: &Path, line: usize, message: String) -> Problem {
    Problem { file: file.to_owned(), line, severity: Severity::Error, message }
}

fn kept(message: &str) -> String {
    format!("{message} (the last good version stays in force)")
}

/// `McpRole default/developer: spec.rules[0].when: …`.
fn describe(object: Option<&ObjectRef>, pointer: &str, message: &str) -> String {
    let place = wording::path(pointer);
    let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
    match object {
        Some(object) => format!("{object}: {place}{message}"),
        None => format!("{place}{message}"),
    }
}

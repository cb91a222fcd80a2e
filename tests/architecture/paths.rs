//! Every path that a source file names, made absolute: `use` trees, expressions, types, attributes and the tokens of
//! macro calls, with `self`, `super` and imported names resolved. Test code is skipped.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A path such as `crate::api::McpServer` or `std::time::Instant`, and the line that names it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Named {
    /// Absolute; the first segment is `crate` or an external crate.
    pub(crate) path: String,
    /// 1-based.
    pub(crate) line: usize,
}

/// Module path of a file below `src`: `policy/decide.rs` is `crate::policy::decide`.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let stem = if stem == "lib" { "" } else { stem };
    std::iter::once("crate").chain(stem.split('/').filter(|part| !part.is_empty())).map(str::to_owned).collect()
}

/// Everything that `source` names outside test code. `file` is relative to `src`.
///
/// # Panics
/// If the source is not Rust.
pub(crate) fn named(file: &str, source: &str) -> Vec<Named> {
    let syntax = syn::parse_file(source).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut walk = Walk { module: module_of(file), scopes: Vec::new(), found: Vec::new() };
    walk.items(&syntax.items, |walk| visit::visit_file(walk, &syntax));
    walk.found.sort();
    walk.found.dedup();
    walk.found
}

/// Modules that `file` declares for test builds alone, in files of their own.
///
/// # Panics
/// If the source is not Rust.
pub(crate) fn test_modules(file: &str, source: &str) -> Vec<Vec<String>> {
    let syntax = syn::parse_file(source).unwrap_or_else(|error| panic!("{file}: {error}"));
    let declared = syntax.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => Some(module.ident.to_string()),
        _ => None,
    });
    declared.map(|name| [module_of(file), vec![name]].concat()).collect()
}

/// Whether an item exists in test builds alone.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test")))
    })
}

/// Names that one module brings into scope, and what they stand for.
type Scope = BTreeMap<String, Vec<String>>;

struct Walk {
    module: Vec<String>,
    scopes: Vec<Scope>,
    found: Vec<Named>,
}

impl Walk {
    /// Visits `items` with the names in scope that they import or declare.
    fn items(&mut self, items: &[syn::Item], visit: impl FnOnce(&mut Self)) {
        let mut scope = Scope::new();
        for item in items {
            match item {
                syn::Item::Mod(module) => {
                    let inner = [self.module.as_slice(), &[module.ident.to_string()]].concat();
                    scope.insert(module.ident.to_string(), inner);
                }
                syn::Item::Use(item) if !is_test(&item.attrs) => {
                    for (name, path, _) in leaves(&item.tree, item.leading_colon.is_some()) {
                        scope.insert(name, path);
                    }
                }
                _ => {}
            }
        }
        self.scopes.push(scope);
        visit(self);
        self.scopes.pop();
    }

    /// Makes a path absolute. Imported names are followed through `use` at most eight times.
    fn absolute(&self, mut path: Vec<String>) -> Vec<String> {
        for _ in 0..8 {
            let Some(first) = path.first().cloned() else { break };
            match first.as_str() {
                "crate" | "" => break,
                "self" => drop(path.splice(..1, self.module.iter().cloned())),
                "super" => {
                    let ups = path.iter().take_while(|segment| *segment == "super").count();
                    let parent = self.module.len().saturating_sub(ups).max(1);
                    drop(path.splice(..ups, self.module.iter().take(parent).cloned()));
                }
                _ => match self.scopes.last().and_then(|scope| scope.get(&first)) {
                    // `use hyper::http;` names itself: nothing more to follow.
                    Some(target) if target.first() != Some(&first) => drop(path.splice(..1, target.iter().cloned())),
                    Some(target) => {
                        path.splice(..1, target.iter().cloned());
                        break;
                    }
                    None => break,
                },
            }
        }
        path.retain(|segment| !segment.is_empty());
        path
    }

    fn record(&mut self, path: Vec<String>, line: usize) {
        let path = self.absolute(path);
        // One segment alone is a local variable, a primitive or a name of the prelude.
        if path.len() > 1 {
            let path = path.join("::").replacen("toolgate::", "crate::", 1);
            self.found.push(Named { path, line });
        }
    }

    /// Paths among the tokens of a macro call, which `syn` does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.record(std::mem::take(&mut path), line);
                    }
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.record(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.record(path, line);
    }
}

/// The names that a `use` tree brings in: (name, path, line).
fn leaves(tree: &syn::UseTree, external: bool) -> Vec<(String, Vec<String>, usize)> {
    fn walk(tree: &syn::UseTree, before: &mut Vec<String>, out: &mut Vec<(String, Vec<String>, usize)>) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                walk(&path.tree, before, out);
                before.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| walk(item, before, out)),
            syn::UseTree::Name(name) => leaf(&name.ident, &name.ident, before, out),
            syn::UseTree::Rename(rename) => leaf(&rename.ident, &rename.rename, before, out),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                out.push(("*".to_owned(), [before.as_slice(), &["*".to_owned()]].concat(), line));
            }
        }
    }
    fn leaf(name: &syn::Ident, known_as: &syn::Ident, before: &[String], out: &mut Vec<(String, Vec<String>, usize)>) {
        let line = name.span().start().line;
        if name == "self" {
            let module = if known_as == "self" { before.last().cloned() } else { Some(known_as.to_string()) };
            out.push((module.unwrap_or_default(), before.to_vec(), line));
        } else {
            out.push((known_as.to_string(), [before, &[name.to_string()]].concat(), line));
        }
    }
    // An empty first segment marks `::name`: an external crate whatever is in scope.
    let mut before = if external { vec![String::new()] } else { Vec::new() };
    let mut out = Vec::new();
    walk(tree, &mut before, &mut out);
    out
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let Some((_, items)) = &module.content else { return };
        self.module.push(module.ident.to_string());
        self.items(items, |walk| visit::visit_item_mod(walk, module));
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for (_, path, line) in leaves(&item.tree, item.leading_colon.is_some()) {
            // A crate imported as itself (`use tokio;`) is one segment and counts all the same.
            let path = if path.len() == 1 { [path, vec!["self".to_owned()]].concat() } else { path };
            // Only child modules shadow external crates here; other imports do not.
            let imports = self.scopes.pop();
            let children =
                imports.iter().flatten().filter(|(name, path)| path.last() == Some(name) && path[0] == "crate");
            let children = children.map(|(name, path)| (name.clone(), path.clone())).collect();
            self.scopes.push(children);
            self.record(path, line);
            self.scopes.pop();
            self.scopes.extend(imports);
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.record(vec![item.ident.to_string(), "self".to_owned()], item.ident.span().start().line);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
        let mut segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_some() {
            segments.insert(0, String::new());
        }
        self.record(segments, line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}

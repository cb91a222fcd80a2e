//! What callers listed last, and whether a later policy shows them other names.
//!
//! Names are kept as the server gave them, before they were filtered: whether one is visible is asked again of the
//! policy that is enforced then. Owns the memory and the comparison; streams announce what has changed.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::gateway::auth::Verified;
use crate::gateway::endpoint::{Caller, Force};
use crate::gateway::limits;
use crate::gateway::protocol::methods::List;
use crate::policy::snapshot::Registration;
use crate::policy::{Item, SubjectView};

/// The lists that callers of one server got. Bounded: whoever listed least lately is forgotten, and then told of every
/// new policy.
pub(in crate::gateway) struct Listings {
    callers: moka::sync::Cache<Option<Arc<str>>, Arc<Listed>>,
    /// Pages that were listed lately: most callers get the same ones, which are kept once.
    pages: Mutex<VecDeque<Weak<Page>>>,
}

/// Pages that are compared with a new one.
const PAGES: usize = 16;

/// What one caller listed last.
#[derive(Default)]
pub(in crate::gateway) struct Listed {
    lists: Mutex<BTreeMap<List, Listing>>,
}

/// One list, over all its pages.
#[derive(Clone, Default)]
struct Listing {
    /// Counts pages.
    number: u64,
    pages: Vec<Arc<Page>>,
    /// Digest over the names that the caller got.
    shown: u64,
    /// The token with which it was listed. It is not kept alive: those that count are bounded elsewhere.
    token: Option<Weak<Verified>>,
    /// Too many names to remember: any policy may show others.
    is_cut: bool,
}

/// Names of one page, in the server's order.
#[derive(Debug, Eq, PartialEq)]
struct Page(Vec<Box<str>>);

impl Default for Listings {
    fn default() -> Self {
        let callers = moka::sync::Cache::builder()
            .max_capacity(limits::LISTINGS_BYTES)
            .weigher(|_, listed: &Arc<Listed>| listed.weight())
            .build();
        Self { callers, pages: Mutex::default() }
    }
}

impl Listings {
    /// Remembers the names on a page of a list; `None`: they are too many. `follows`: it was asked for with a cursor.
    pub(in crate::gateway) fn record(
        &self,
        list: List,
        follows: bool,
        names: Option<Vec<Box<str>>>,
        caller: &Caller,
        force: &Force,
        now: Timestamp,
    ) {
        let listed = self.of(caller);
        let page = names.map(|names| self.shared(Page(names)));
        let mut lists = listed.lists.lock();
        let listing = lists.entry(list).or_default();
        listing.number += 1;
        if !follows {
            *listing = Listing { number: listing.number, ..Listing::default() };
        }
        listing.token = caller.verified.as_ref().map(Arc::downgrade);
        listing.is_cut |= page.is_none();
        listing.pages.extend(page);
        if listing.pages.iter().map(|page| page.bytes()).sum::<usize>() > limits::LISTED_BYTES {
            listing.pages.clear();
            listing.is_cut = true;
        }
        listing.shown = listing.digest(list, force, &caller.view, now);
        drop(lists);
        self.callers.insert(caller.key().cloned(), listed); // It may weigh more by now.
    }

    /// What a caller listed last.
    pub(in crate::gateway) fn of(&self, caller: &Caller) -> Arc<Listed> {
        self.callers.get_with(caller.key().cloned(), Arc::default)
    }

    fn shared(&self, page: Page) -> Arc<Page> {
        let mut pages = self.pages.lock();
        let known = pages.iter().find_map(|known| known.upgrade().filter(|known| **known == page));
        known.unwrap_or_else(|| {
            let page = Arc::new(page);
            pages.truncate(PAGES - 1);
            pages.push_front(Arc::downgrade(&page));
            page
        })
    }
}

impl Page {
    fn bytes(&self) -> usize {
        self.0.iter().map(|name| name.len() + size_of::<Box<str>>()).sum()
    }
}

impl Listed {
    /// What it takes to remember this, in bytes. A page that others got as well is weighed once, with its first reader.
    fn weight(&self) -> u32 {
        let lists = self.lists.lock();
        let own = lists.values().flat_map(|listing| &listing.pages).filter(|page| Arc::strong_count(page) == 1);
        let bytes =
            size_of::<Self>() + lists.len() * size_of::<Listing>() + own.map(|page| page.bytes()).sum::<usize>();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

impl Listing {
    /// Whether it was made with the caller's very token.
    fn is_by(&self, caller: &Caller) -> bool {
        match (&self.token, &caller.verified) {
            (Some(listed), Some(own)) => std::ptr::eq(listed.as_ptr(), Arc::as_ptr(own)),
            (None, None) => true,
            _ => false,
        }
    }

    fn digest(&self, list: List, force: &Force, view: &SubjectView, now: Timestamp) -> u64 {
        let mut hasher = DefaultHasher::new();
        let names = self.pages.iter().flat_map(|page| &page.0);
        for shown in names.filter_map(|name| shown(list, name, force, view, now)) {
            shown.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The name under which a caller sees an entry of a list; `None` for one that is hidden.
pub(in crate::gateway) fn shown<'a>(
    list: List,
    name: &'a str,
    force: &'a Force,
    view: &SubjectView,
    now: Timestamp,
) -> Option<&'a str> {
    let policy = &force.policy;
    let visible = |item: Item<'_>| policy.visible(view, item, now);
    match list {
        List::Prompts => visible(Item::Prompt(name)).then_some(name),
        List::Resources => visible(Item::Resource(name)).then_some(name),
        List::Templates => visible(Item::ResourceTemplate(name)).then_some(name),
        List::Tools if !visible(Item::Tool(name)) => None,
        List::Tools => match policy.tool(name) {
            Some(tool) => Some(tool.exposed_name.as_deref().unwrap_or(name)),
            None if policy.snapshot().registration == Registration::Auto
                && policy.tool_by_exposed_name(name).is_none() =>
            {
                Some(name)
            }
            None => None,
        },
    }
}

/// A comparison of what a caller listed last with what it would see now, over time.
pub(super) struct Comparison {
    /// What was enforced at the last comparison.
    force: Arc<Force>,
    view: Arc<SubjectView>,
    /// The listing that was compared last, by its number, and its digest then.
    compared: BTreeMap<List, (u64, u64)>,
}

impl Comparison {
    pub(super) fn new(force: Arc<Force>, caller: &Caller) -> Self {
        Self { force, view: caller.view.clone(), compared: BTreeMap::new() }
    }

    /// The lists that would show the caller other names by now than when they were listed, or than at the last
    /// comparison. Each change is found once.
    pub(super) fn changed(
        &mut self,
        listings: &Listings,
        force: &Arc<Force>,
        caller: &Caller,
        now: Timestamp,
    ) -> Vec<List> {
        let lists = listings.of(caller).lists.lock().clone();
        let is_another = !Arc::ptr_eq(force, &self.force);
        // What was forgotten meanwhile may have changed.
        let forgotten = self.compared.keys().filter(|list| is_another && !lists.contains_key(list));
        let mut changed: Vec<List> = forgotten.copied().collect();
        for (list, listing) in &lists {
            let digest = listing.digest(*list, force, &caller.view, now);
            let before = match self.compared.insert(*list, (listing.number, digest)) {
                Some((number, before)) if number == listing.number => before,
                _ if listing.is_by(caller) => listing.shown,
                _ => digest, // What another token of the caller's listed says nothing of what this one shows.
            };
            // Another client of the caller's may have listed anew before this one was told.
            let under_another =
                is_another && (listing.is_cut || digest != listing.digest(*list, &self.force, &self.view, now));
            if digest != before || under_another {
                changed.push(*list);
            }
        }
        (self.force, self.view) = (force.clone(), caller.view.clone());
        changed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::fetch::Fetcher;
    use crate::policy::Policy;
    use crate::telemetry::metrics::Metrics;

    /// A policy that shows whoever calls without a token these tools of `a`, `b` and `c`.
    fn showing(tools: &[&str]) -> Arc<Force> {
        let annotations = json!({"readOnly": false, "destructive": true, "idempotent": false, "openWorld": true});
        let tool = |name: &str| json!({"name": name, "lifecycle": "Active", "annotations": annotations});
        let mut renamed = tool("c");
        renamed["exposedName"] = json!("x");
        let snapshot = json!({
            "format": 1, "target": {"namespace": "default", "server": "ops"}, "urls": ["http://127.0.0.1/mcp"],
            "registration": "Declared", "tools": [tool("a"), tool("b"), renamed], "issuers": [], "inputs": [],
            "serverRequests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"}, "anonymous": "dev",
            "roles": [{"name": "dev", "rules": [{"index": 0, "effect": "Allow", "tools": tools}]}],
        });
        let policy = Arc::new(Policy::from_json(snapshot.to_string().as_bytes()).unwrap());
        Arc::new(Force::new(policy, None, &Fetcher::new(true), &Metrics::new()))
    }

    fn caller(force: &Force) -> Caller {
        Caller { verified: None, view: Arc::new(force.policy.subject(None)) }
    }

    fn list(listings: &Listings, follows: bool, names: &[&str], force: &Force) {
        let names = names.iter().map(|name| (*name).into()).collect();
        listings.record(List::Tools, follows, Some(names), &caller(force), force, Timestamp::now());
    }

    fn changed(comparison: &mut Comparison, listings: &Listings, force: &Arc<Force>) -> bool {
        comparison.changed(listings, force, &caller(force), Timestamp::now()) == [List::Tools]
    }

    fn begin(force: &Arc<Force>) -> Comparison {
        Comparison::new(force.clone(), &caller(force))
    }

    #[test]
    fn a_change_is_found_once_and_only_in_names_that_were_listed() {
        let (all, fewer, none) = (showing(&["*"]), showing(&["a", "c"]), showing(&["c"]));
        let listings = Listings::default();
        list(&listings, false, &["a"], &all);
        list(&listings, true, &["b"], &all);
        let mut comparison = begin(&all);

        assert!(!changed(&mut comparison, &listings, &all));
        assert!(changed(&mut comparison, &listings, &fewer));
        assert!(!changed(&mut comparison, &listings, &fewer));
        list(&listings, false, &["a"], &fewer);
        assert!(!changed(&mut comparison, &listings, &fewer), "it was listed under the same policy");
        assert!(changed(&mut comparison, &listings, &none));
        list(&listings, false, &["z"], &none);
        assert!(
            !changed(&mut comparison, &listings, &all),
            "none of the names that were listed is visible under either"
        );
    }

    #[test]
    fn a_change_before_the_stream_was_opened_is_found() {
        let (all, fewer) = (showing(&["*"]), showing(&["a"]));
        let listings = Listings::default();
        list(&listings, false, &["a", "b"], &all);

        assert!(changed(&mut begin(&fewer), &listings, &fewer));
    }

    #[test]
    fn another_client_of_the_caller_that_lists_first_keeps_no_change_from_this_one() {
        let (all, fewer) = (showing(&["*"]), showing(&["a"]));
        let listings = Listings::default();
        list(&listings, false, &["a", "b"], &all);
        let mut comparison = begin(&all);
        assert!(!changed(&mut comparison, &listings, &all));

        list(&listings, false, &["a", "b"], &fewer);

        assert!(changed(&mut comparison, &listings, &fewer));
    }

    #[test]
    fn names_beyond_the_bound_are_not_kept_and_any_policy_may_show_others() {
        let (one, other) = (showing(&["a"]), showing(&["a"]));
        let listings = Listings::default();
        let long = "n".repeat(limits::LISTED_BYTES);
        list(&listings, false, &["a", &long], &one);
        let mut comparison = begin(&one);

        assert!(!changed(&mut comparison, &listings, &one));
        assert!(changed(&mut comparison, &listings, &other));
        list(&listings, false, &["a"], &other);
        assert!(!changed(&mut comparison, &listings, &showing(&["a", "b"])), "a short list is remembered again");
    }

    #[test]
    fn equal_pages_of_different_callers_are_kept_once() {
        let force = showing(&["*"]);
        let listings = Listings::default();
        list(&listings, false, &["a", "b"], &force);
        let other = listings.shared(Page(vec!["a".into(), "b".into()]));

        assert_eq!(Arc::strong_count(&other), 2);
    }

    #[test]
    fn whoever_was_forgotten_is_told_of_every_new_policy() {
        let (one, other) = (showing(&["a"]), showing(&["a", "b"]));
        let listings = Listings::default();
        list(&listings, false, &["a"], &one);
        let mut comparison = begin(&one);
        assert!(!changed(&mut comparison, &listings, &one));

        assert!(changed(&mut comparison, &Listings::default(), &other));
    }
}

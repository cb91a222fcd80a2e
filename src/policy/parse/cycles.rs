//! Which roles inherit each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

/// For each role of a circle, all roles of it, sorted; a role that inherits itself is a circle of one.
///
/// Strongly connected components by Kosaraju's two passes, without recursion: depth is the users' choice.
pub(super) fn find<'a>(edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let order = finishing_order(edges);
    let mut backwards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, targets) in edges {
        for to in targets {
            backwards.entry(to).or_default().push(from);
        }
    }
    let mut seen = BTreeSet::new();
    let mut circles = BTreeMap::new();
    for root in order.into_iter().rev() {
        let mut members = BTreeSet::new();
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            if seen.insert(node) {
                members.insert(node);
                stack.extend(backwards.get(node).into_iter().flatten());
            }
        }
        let alone = members.len() == 1 && !edges.get(root).is_some_and(|targets| targets.contains(&root));
        if !alone {
            let names: Vec<&str> = members.iter().copied().collect();
            circles.extend(members.into_iter().map(|name| (name, names.clone())));
        }
    }
    circles
}

/// Every node after all that it reaches (outside of its own circle).
fn finishing_order<'a>(edges: &BTreeMap<&'a str, Vec<&'a str>>) -> Vec<&'a str> {
    enum Step<'a> {
        Enter(&'a str),
        Leave(&'a str),
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for start in edges.keys() {
        let mut stack = vec![Step::Enter(start)];
        while let Some(step) = stack.pop() {
            match step {
                Step::Leave(node) => order.push(node),
                Step::Enter(node) => {
                    if seen.insert(node) {
                        stack.push(Step::Leave(node));
                        stack.extend(edges.get(node).into_iter().flatten().map(|next| Step::Enter(next)));
                    }
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    fn reaches(edges: &BTreeMap<&str, Vec<&str>>, from: &str, to: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut stack: Vec<&str> = edges.get(from).cloned().unwrap_or_default();
        while let Some(node) = stack.pop() {
            if node == to {
                return true;
            }
            if seen.insert(node) {
                stack.extend(edges.get(node).into_iter().flatten());
            }
        }
        false
    }

    proptest! {
        #[test]
        fn a_role_is_on_a_circle_exactly_if_it_reaches_itself(pairs in proptest::collection::vec((0..6usize, 0..6usize), 0..12)) {
            let mut edges: BTreeMap<&str, Vec<&str>> = NAMES.iter().map(|name| (*name, Vec::new())).collect();
            for (from, to) in pairs {
                edges.get_mut(NAMES[from]).unwrap().push(NAMES[to]);
            }
            let circles = find(&edges);
            for from in NAMES {
                let expected: Vec<&str> = NAMES
                    .into_iter()
                    .filter(|to| reaches(&edges, from, to) && reaches(&edges, to, from))
                    .collect();
                prop_assert_eq!(circles.get(from).cloned().unwrap_or_default(), expected);
            }
        }
    }
}

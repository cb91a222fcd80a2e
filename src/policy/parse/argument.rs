//! Conditions on arguments.

use super::rules::Parser;
use crate::api::conditions::reason;
use crate::api::{Argument, StringOrInteger};
use crate::policy::check::{check_folder, check_pointer};
use crate::policy::snapshot::{ArgumentRule, Scalar};

/// `None` if the condition is broken, which the rule has then been told.
pub(super) fn parse(rule: &mut Parser<'_>, position: usize, declared: &Argument) -> Option<ArgumentRule> {
    let at = |member: &str| format!("/arguments/{position}{member}");
    if let Err(why) = check_pointer(&declared.path) {
        rule.broken(&at("/path"), reason::INVALID_POINTER, &why);
        return None;
    }
    let one_of = scalars(&declared.one_of);
    let mut below = Vec::with_capacity(declared.below.len());
    for (index, folder) in declared.below.iter().enumerate() {
        // A trailing slash is how many write a folder; it means nothing.
        let folder = folder.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(folder);
        if let Err(why) = check_folder(folder) {
            rule.broken(&at(&format!("/below/{index}")), reason::INVALID_CONDITION, &why);
            return None;
        }
        below.push(folder.to_owned());
    }
    below.sort();
    below.dedup();
    let (minimum, maximum) = (declared.minimum, declared.maximum);
    if one_of.is_empty() && below.is_empty() && minimum.is_none() && maximum.is_none() {
        let why = "the condition permits nothing in particular: set in, below, minimum or maximum";
        rule.broken(&at(""), reason::INVALID_CONDITION, why);
        return None;
    }
    if let (Some(minimum), Some(maximum)) = (minimum, maximum)
        && minimum > maximum
    {
        rule.broken(
            &at(""),
            reason::INVALID_CONDITION,
            "minimum is above maximum, so no value could hold: exchange them",
        );
        return None;
    }
    Some(ArgumentRule { path: declared.path.clone(), one_of, below, minimum, maximum })
}

fn scalars(values: &[StringOrInteger]) -> Vec<Scalar> {
    let mut scalars: Vec<Scalar> = values
        .iter()
        .map(|value| match value {
            StringOrInteger::Integer(integer) => Scalar::Integer(*integer),
            StringOrInteger::String(string) => Scalar::String(string.clone()),
        })
        .collect();
    scalars.sort();
    scalars.dedup();
    scalars
}

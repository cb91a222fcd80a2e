//! PURE. From an overlay's identity, or the flags of `explain`, to the caller that policy knows.
//!
//! An identity here equals what the gateway makes of the token that [`super::tokens`] mints for it, so `explain` and
//! the running gateway decide about the same caller.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::policy;

use super::overlay;

/// Name of the issuer where the gateways name none.
pub const LOCAL_ISSUER: &str = policy::world::UNNAMED_ISSUER;

/// Chooses the issuer of a caller among the names that the gateways trust.
pub fn choose_issuer(wanted: Option<&str>, names: &BTreeSet<String>) -> Result<String, String> {
    let list = || names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match wanted {
        Some(name) if names.contains(name) => Ok(name.to_owned()),
        Some(name) if names.is_empty() && name == LOCAL_ISSUER => Ok(name.to_owned()),
        Some(name) if names.is_empty() => Err(format!("no gateway has an issuer `{name}`; the only one is `local`")),
        Some(name) => Err(format!("no gateway has an issuer `{name}`; there are {}", list())),
        None if names.len() > 1 => Err(format!("there are several issuers, choose one: {}", list())),
        None => Ok(names.first().cloned().unwrap_or_else(|| LOCAL_ISSUER.to_owned())),
    }
}

/// The caller that policy sees, every claim included but those that only a token has (`iss`, `aud`, times).
pub fn resolve(identity: &overlay::Identity, issuer: String) -> policy::Identity {
    policy::Identity {
        issuer,
        subject: identity.subject.clone(),
        groups: identity.groups.clone(),
        scopes: identity.scopes.clone(),
        claims: claims(identity),
    }
}

fn claims(identity: &overlay::Identity) -> Map<String, Value> {
    let mut claims = identity.claims.clone();
    claims.insert("sub".to_owned(), identity.subject.clone().into());
    if !identity.groups.is_empty() {
        claims.insert("groups".to_owned(), identity.groups.clone().into());
    }
    if !identity.scopes.is_empty() {
        claims.insert("scope".to_owned(), identity.scopes.join(" ").into());
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_only_issuer_need_not_be_named() {
        assert_eq!(choose_issuer(None, &names(&["corp"])), Ok("corp".to_owned()));
        assert_eq!(choose_issuer(None, &names(&[])), Ok("local".to_owned()));
        assert_eq!(choose_issuer(Some("local"), &names(&[])), Ok("local".to_owned()));
    }

    #[test]
    fn one_of_several_issuers_must_be_named_and_exist() {
        let two = names(&["corp", "partner"]);
        assert_eq!(choose_issuer(Some("partner"), &two), Ok("partner".to_owned()));
        assert!(choose_issuer(None, &two).unwrap_err().contains("`corp`, `partner`"));
        assert!(choose_issuer(Some("other"), &two).unwrap_err().contains("`corp`, `partner`"));
        assert!(choose_issuer(Some("corp"), &names(&[])).unwrap_err().contains("`local`"));
    }

    #[test]
    fn claims_say_what_the_token_will_say() {
        let ada = overlay::Identity {
            subject: "ada".to_owned(),
            groups: vec!["engineering".to_owned()],
            scopes: vec!["a".to_owned(), "b".to_owned()],
            claims: [("mfa".to_owned(), true.into())].into_iter().collect(),
            ..overlay::Identity::default()
        };

        let resolved = resolve(&ada, "corp".to_owned());

        let expected = serde_json::json!({"sub": "ada", "groups": ["engineering"], "scope": "a b", "mfa": true});
        assert_eq!(Value::Object(resolved.claims), expected);
    }
}

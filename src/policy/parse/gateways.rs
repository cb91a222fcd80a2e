//! McpGateways: issuers and the role of anonymous callers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Objects, Report, config_maps, input, key, reference};
use crate::api::conditions::reason;
use crate::api::{self, AnonymousMode, Jwks, McpGateway, McpRole};
use crate::policy::snapshot::{Issuer, Keys};
use crate::policy::world::{Gateway, Key, ObjectRef};

/// A key set that verifies nothing: what stands in for one that cannot be read.
const NO_KEYS: &str = r#"{"keys":[]}"#;

/// Where the issuer of ServiceAccounts has no URL of its own: on a laptop.
const NO_CLUSTER_URL: &str = "https://kubernetes.default.svc";

/// What McpGateways come to.
pub(super) struct Parsed {
    /// Each McpGateway.
    pub(super) gateways: BTreeMap<Key, Gateway>,
    /// Names of issuers that are the cluster's ServiceAccounts, as (namespace, issuer).
    pub(super) of_service_accounts: BTreeSet<Key>,
}

pub(super) fn parse(
    gateways: &BTreeMap<Key, &McpGateway>,
    roles: &BTreeMap<Key, &McpRole>,
    objects: &Objects,
    report: &mut Report,
) -> Parsed {
    // (namespace, issuer name) -> (URL, name of the gateway that said so first).
    let mut meanings: BTreeMap<Key, (String, String)> = BTreeMap::new();
    let mut of_service_accounts = BTreeSet::new();
    let mut parsed = BTreeMap::new();
    for (key, gateway) in gateways {
        let object = reference(*gateway);
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, declared) in gateway.spec.issuers.iter().enumerate() {
            let pointer = format!("/spec/issuers/{index}");
            let Some(url) = url(declared, objects) else {
                let message =
                    "exactly one of oidc and serviceAccounts must be set; no token of this issuer is accepted";
                report.error(&object, pointer, reason::INVALID_KEYS, message.to_owned());
                continue;
            };
            if !is_new(declared, &url, &issuers, &object, &pointer, &mut meanings, report) {
                continue;
            }
            if declared.service_accounts.is_some() {
                of_service_accounts.insert((key.0.clone(), declared.name.clone()));
            }
            issuers.push(issuer(declared, url, objects, &object, &pointer, report));
        }
        let anonymous = anonymous(gateway, &object, roles, report);
        let gateway = Gateway { url: gateway.spec.url.clone(), issuers, anonymous, input: input(*gateway) };
        parsed.insert(key.clone(), gateway);
    }
    Parsed { gateways: parsed, of_service_accounts }
}

/// The `iss` claim of an issuer's tokens; `None` if it is neither of the two things that an issuer is.
fn url(declared: &api::Issuer, objects: &Objects) -> Option<String> {
    match (&declared.oidc, declared.service_accounts) {
        (Some(oidc), None) => Some(oidc.url.clone()),
        (None, Some(_)) => {
            Some(objects.cluster.as_ref().map_or(NO_CLUSTER_URL, |cluster| cluster.url.as_str()).to_owned())
        }
        _ => None,
    }
}

/// Whether neither name nor URL mean another issuer, in this gateway or in its namespace.
fn is_new(
    declared: &api::Issuer,
    url: &str,
    issuers: &[Issuer],
    object: &ObjectRef,
    pointer: &str,
    meanings: &mut BTreeMap<Key, (String, String)>,
    report: &mut Report,
) -> bool {
    let name = &declared.name;
    if issuers.iter().any(|issuer| issuer.name == *name || issuer.url == url) {
        let message = format!("issuer `{name}` has the name or the URL ({url}) of an issuer above it: remove one");
        report.error(object, pointer, reason::CONFLICTED, message);
        return false;
    }
    let (meant, first) = meanings
        .entry((object.namespace.clone(), name.clone()))
        .or_insert_with(|| (url.to_owned(), object.name.clone()));
    if meant != url {
        let message = format!(
            "issuer `{name}` is {meant} at McpGateway `{first}`, and within a namespace one name means one issuer: use \
             another name"
        );
        report.error(object, format!("{pointer}/name"), reason::CONFLICTED, message);
        return false;
    }
    true
}

fn issuer(
    declared: &api::Issuer,
    url: String,
    objects: &Objects,
    object: &ObjectRef,
    pointer: &str,
    report: &mut Report,
) -> Issuer {
    let name = declared.name.clone();
    let Some(oidc) = &declared.oidc else {
        let keys = if let Some(cluster) = &objects.cluster {
            cluster.jwks.clone()
        } else {
            let message = format!(
                "ServiceAccounts exist only in a cluster: on a laptop identities of toolgate.local.yaml with issuer \
                 `{name}` stand in for them, whose subject is `system:serviceaccount:NAMESPACE:NAME`"
            );
            report.warning(object, format!("{pointer}/serviceAccounts"), reason::NO_CLUSTER, message);
            NO_KEYS.to_owned()
        };
        // Kubernetes' own claims: the subject is `system:serviceaccount:NAMESPACE:NAME`, and there are no groups.
        let (subject_claim, groups_claim) = ("sub".to_owned(), "groups".to_owned());
        let keys = Keys::Inline(keys);
        return Issuer { name, url, subject_claim, groups_claim, keys, service_accounts: true };
    };
    let keys = keys(oidc.jwks.as_ref(), objects, object, pointer, report);
    let (subject_claim, groups_claim) = (oidc.subject_claim.clone(), oidc.groups_claim.clone());
    Issuer { name, url, subject_claim, groups_claim, keys, service_accounts: false }
}

fn keys(jwks: Option<&Jwks>, objects: &Objects, object: &ObjectRef, pointer: &str, report: &mut Report) -> Keys {
    let pointer = format!("{pointer}/oidc/jwks");
    let none = || Keys::Inline(NO_KEYS.to_owned());
    let (text, member) = match jwks {
        None => return Keys::Discovery,
        Some(Jwks { url: Some(url), inline: None, config_map_ref: None }) => return Keys::Url(url.clone()),
        Some(Jwks { url: None, inline: Some(text), config_map_ref: None }) => (text.as_str(), "inline"),
        Some(Jwks { url: None, inline: None, config_map_ref: Some(wanted) }) => {
            match config_maps::find(objects, &object.namespace, wanted) {
                Ok(text) => (text, "configMapRef"),
                Err(missing) => {
                    let pointer = format!("{pointer}/configMapRef");
                    match missing {
                        config_maps::Missing::Cluster(message) => {
                            report.error(object, pointer, reason::CONFIG_MAP_NOT_FOUND, message);
                        }
                        config_maps::Missing::Laptop => {
                            let message = "ConfigMaps are not read on a laptop, so only identities of \
                                           toolgate.local.yaml have tokens of this issuer";
                            report.warning(object, pointer, reason::NO_CLUSTER, message.to_owned());
                        }
                    }
                    return none();
                }
            }
        }
        Some(_) => {
            let message =
                "exactly one of url, inline and configMapRef must be set; no token of this issuer is accepted";
            report.error(object, pointer, reason::INVALID_KEYS, message.to_owned());
            return none();
        }
    };
    match check_key_set(text) {
        Ok(()) => Keys::Inline(text.to_owned()),
        Err(why) => {
            let message = format!("{why}, so no token of this issuer is accepted: put the JWK set there as JSON");
            report.error(object, format!("{pointer}/{member}"), reason::INVALID_KEYS, message);
            none()
        }
    }
}

/// RFC 7517 §5: an object with a member `keys`, which is a list of objects. Whether each key is usable is seen when it
/// is loaded; one that is private must not be in a manifest at all.
fn check_key_set(text: &str) -> Result<(), String> {
    let set: Value = serde_json::from_str(text).map_err(|error| format!("the key set is not JSON ({error})"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("the key set has no list `keys`")?;
    for key in keys {
        let key = key.as_object().ok_or("the key set holds something that is not a key")?;
        if key.contains_key("d") || key.contains_key("k") {
            return Err("the key set holds a private or shared key".to_owned());
        }
    }
    Ok(())
}

fn anonymous(
    gateway: &McpGateway,
    object: &ObjectRef,
    roles: &BTreeMap<Key, &McpRole>,
    report: &mut Report,
) -> Option<String> {
    let anonymous = &gateway.spec.anonymous;
    let role = match (anonymous.mode, &anonymous.role_ref) {
        (AnonymousMode::Deny, _) => return None,
        (AnonymousMode::Role, Some(role)) => &role.name,
        (AnonymousMode::Role, None) => {
            let message = "roleRef is missing, so callers without a token are refused: set it".to_owned();
            report.error(object, "/spec/anonymous", reason::ROLE_NOT_FOUND, message);
            return None;
        }
    };
    if roles.contains_key(&(key(gateway).0, role.clone())) {
        return Some(role.clone());
    }
    let message = format!(
        "McpRole `{role}` does not exist in namespace `{}`, so callers without a token are refused: create it, or set \
         mode: Deny",
        object.namespace
    );
    report.error(object, "/spec/anonymous/roleRef/name", reason::ROLE_NOT_FOUND, message);
    None
}

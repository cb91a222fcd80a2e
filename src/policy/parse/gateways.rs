//! McpGateways: issuers and the role of anonymous callers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Report, input, key, reference};
use crate::api::{AnonymousMode, Jwks, McpGateway, McpRole};
use crate::policy::snapshot::{Issuer, Keys};
use crate::policy::world::{Gateway, Key, ObjectRef};

/// A key set that verifies nothing: what stands in for one that cannot be read.
const NO_KEYS: &str = r#"{"keys":[]}"#;

pub(super) fn parse(
    gateways: &BTreeMap<Key, &McpGateway>,
    roles: &BTreeMap<Key, &McpRole>,
    report: &mut Report,
) -> BTreeMap<Key, Gateway> {
    // (namespace, issuer name) -> (URL, name of the gateway that said so first).
    let mut meanings: BTreeMap<Key, (String, String)> = BTreeMap::new();
    let mut parsed = BTreeMap::new();
    for (key, gateway) in gateways {
        let object = reference(*gateway);
        let issuers = issuers(gateway, &object, &mut meanings, report);
        let anonymous = anonymous(gateway, &object, roles, report);
        let gateway = Gateway { url: gateway.spec.url.clone(), issuers, anonymous, input: input(*gateway) };
        parsed.insert(key.clone(), gateway);
    }
    parsed
}

fn issuers(
    gateway: &McpGateway,
    object: &ObjectRef,
    meanings: &mut BTreeMap<Key, (String, String)>,
    report: &mut Report,
) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for (index, declared) in gateway.spec.issuers.iter().enumerate() {
        let pointer = format!("/spec/issuers/{index}");
        let (name, oidc) = (&declared.name, &declared.oidc);
        if issuers.iter().any(|issuer| issuer.name == *name || issuer.url == oidc.url) {
            let message = format!("issuer `{name}` has the name or the oidc.url of an issuer above it: remove one");
            report.error(object, pointer, "Conflicted", message);
            continue;
        }
        let (url, first) = meanings
            .entry((object.namespace.clone(), name.clone()))
            .or_insert_with(|| (oidc.url.clone(), object.name.clone()));
        if *url != oidc.url {
            let message = format!(
                "issuer `{name}` is {url} at McpGateway `{first}`, and within a namespace one name means one issuer: \
                 use another name"
            );
            report.error(object, format!("{pointer}/name"), "Conflicted", message);
            continue;
        }
        let keys = keys(oidc.jwks.as_ref(), object, &pointer, report);
        issuers.push(Issuer {
            name: name.clone(),
            url: oidc.url.clone(),
            subject_claim: oidc.subject_claim.clone(),
            groups_claim: oidc.groups_claim.clone(),
            keys,
        });
    }
    issuers
}

fn keys(jwks: Option<&Jwks>, object: &ObjectRef, pointer: &str, report: &mut Report) -> Keys {
    let pointer = format!("{pointer}/oidc/jwks");
    match jwks {
        None => Keys::Discovery,
        Some(Jwks { url: Some(url), inline: None }) => Keys::Url(url.clone()),
        Some(Jwks { url: None, inline: Some(text) }) => match check_key_set(text) {
            Ok(()) => Keys::Inline(text.clone()),
            Err(why) => {
                let message = format!("{why}, so no token of this issuer is accepted: paste the JWK set as JSON");
                report.error(object, format!("{pointer}/inline"), "InvalidKeys", message);
                Keys::Inline(NO_KEYS.to_owned())
            }
        },
        Some(_) => {
            let message = "exactly one of url and inline must be set; no token of this issuer is accepted".to_owned();
            report.error(object, pointer, "InvalidKeys", message);
            Keys::Inline(NO_KEYS.to_owned())
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
            report.error(object, "/spec/anonymous", "RoleNotFound", message);
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
    report.error(object, "/spec/anonymous/roleRef/name", "RoleNotFound", message);
    None
}

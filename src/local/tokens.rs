//! Tokens for the overlay's identities, signed with keys that live as long as the process.
//!
//! Every identity has a key of its own: an identity that is removed or changed loses its key, and with it every
//! token that was printed for it. The public keys reach policy as one more issuer beside each real one, under the
//! same name, so that a minted token gives the same (issuer, subject) as a real one would.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::policy::Identity;
use crate::policy::snapshot::{Issuer, Keys};

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The operating system gave no randomness.
    #[error("failed to make a signing key")]
    Key,
    /// The claims cannot be signed.
    #[error("failed to sign a token")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Makes keys and tokens.
pub struct Mint {
    lifetime: Duration,
    signers: BTreeMap<String, Signer>,
}

struct Signer {
    identity: Identity,
    id: String,
    private: EncodingKey,
    /// Base64url of the public key (RFC 8037 `x`).
    public: String,
    /// The last token and its audiences.
    minted: Option<(Vec<String>, String)>,
}

impl Mint {
    /// Tokens will be valid for `lifetime`.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, signers: BTreeMap::new() }
    }

    /// Gives a key to each identity that is new or has changed, and drops the keys of all that are gone.
    pub fn renew(&mut self, identities: &BTreeMap<String, Identity>) -> Result<(), TokenError> {
        self.signers.retain(|name, signer| identities.get(name) == Some(&signer.identity));
        for (name, identity) in identities {
            if !self.signers.contains_key(name) {
                self.signers.insert(name.clone(), Signer::new(identity)?);
            }
        }
        Ok(())
    }

    /// The issuer to trust beside the one called `name`, for a gateway that is reached at `base`.
    pub fn issuer(&self, name: &str, base: &str) -> Issuer {
        let signers = self.signers.values().filter(|signer| signer.identity.issuer == name);
        let mut keys: Vec<Value> = signers.map(Signer::jwk).collect();
        keys.sort_by_key(Value::to_string); // Policy must not depend on how identities are called.
        Issuer {
            name: name.to_owned(),
            url: issuer_url(name, base),
            subject_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            keys: Keys::Inline(json!({ "keys": keys }).to_string()),
            service_accounts: false,
        }
    }

    /// A token for each identity, by name, valid at every URL of `audiences`. While its key stays and it names all of
    /// them it is the same token.
    pub fn tokens(
        &mut self,
        base: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<BTreeMap<String, String>, TokenError> {
        let mut tokens = BTreeMap::new();
        for (name, signer) in &mut self.signers {
            let token = match &signer.minted {
                Some((named, token)) if audiences.iter().all(|url| named.contains(url)) => token.clone(),
                _ => {
                    let token = signer.sign(base, audiences, now, self.lifetime)?;
                    signer.minted = Some((audiences.to_owned(), token.clone()));
                    token
                }
            };
            tokens.insert(name.clone(), token);
        }
        Ok(tokens)
    }
}

impl Signer {
    fn new(identity: &Identity) -> Result<Self, TokenError> {
        let key = Ed25519KeyPair::generate().map_err(|_| TokenError::Key)?;
        let document = key.to_pkcs8().map_err(|_| TokenError::Key)?;
        let public = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let id = public.chars().take(12).collect();
        let private = EncodingKey::from_ed_der(document.as_ref());
        Ok(Self { identity: identity.clone(), id, private, public, minted: None })
    }

    /// RFC 8037.
    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id, "x": self.public})
    }

    fn sign(&self, base: &str, audiences: &[String], now: Timestamp, lifetime: Duration) -> Result<String, TokenError> {
        let mut claims = self.identity.claims.clone();
        let now = now.as_second();
        let expires = now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        claims.insert("iss".to_owned(), issuer_url(&self.identity.issuer, base).into());
        claims.insert("aud".to_owned(), audiences.into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), expires.into());
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::EdDSA) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.private)?)
    }
}

/// `iss` of minted tokens. It is a name only: nothing is served there.
fn issuer_url(name: &str, base: &str) -> String {
    format!("{base}/local-issuer/{name}")
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    const BASE: &str = "http://127.0.0.1:8811";

    fn identity(subject: &str, issuer: &str) -> Identity {
        Identity {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            groups: vec!["engineering".to_owned()],
            scopes: Vec::new(),
            claims: json!({"sub": subject, "groups": ["engineering"], "mfa": true}).as_object().unwrap().clone(),
        }
    }

    fn identities(list: &[(&str, Identity)]) -> BTreeMap<String, Identity> {
        list.iter().map(|(name, identity)| ((*name).to_owned(), identity.clone())).collect()
    }

    fn mint(list: &[(&str, Identity)]) -> Mint {
        let mut mint = Mint::new(Duration::from_hours(1));
        mint.renew(&identities(list)).unwrap();
        mint
    }

    fn token(mint: &mut Mint, name: &str) -> String {
        mint.tokens(BASE, &[format!("{BASE}/servers/files/mcp")], Timestamp::now()).unwrap()[name].clone()
    }

    /// Verifies as any resource server would: by `kid` in the issuer's set.
    fn verify(token: &str, issuer: &Issuer) -> Option<Value> {
        let Keys::Inline(text) = &issuer.keys else { panic!("keys are inline") };
        let set: JwkSet = serde_json::from_str(text).unwrap();
        let header = jsonwebtoken::decode_header(token).unwrap();
        let key = DecodingKey::from_jwk(set.find(&header.kid?)?).unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[format!("{BASE}/servers/files/mcp")]);
        validation.set_issuer(&[&issuer.url]);
        Some(jsonwebtoken::decode::<Value>(token, &key, &validation).ok()?.claims)
    }

    #[test]
    fn a_token_verifies_against_the_issuer_beside_the_real_one() {
        let mut mint = mint(&[("ada", identity("ada@example.com", "corp"))]);

        let issuer = mint.issuer("corp", BASE);
        let claims = verify(&token(&mut mint, "ada"), &issuer).expect("the token verifies");

        assert_eq!((issuer.name.as_str(), issuer.url.as_str()), ("corp", "http://127.0.0.1:8811/local-issuer/corp"));
        assert_eq!(claims["sub"], "ada@example.com");
        assert_eq!(claims["groups"], json!(["engineering"]));
        assert_eq!(claims["mfa"], true);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    }

    #[test]
    fn issuers_never_share_keys() {
        let mut mint = mint(&[("ada", identity("ada", "corp")), ("bob", identity("bob", "partner"))]);

        let forged = Issuer { keys: mint.issuer("partner", BASE).keys, ..mint.issuer("corp", BASE) };

        assert!(verify(&token(&mut mint, "ada"), &mint.issuer("corp", BASE)).is_some());
        assert!(verify(&token(&mut mint, "ada"), &forged).is_none());
    }

    #[test]
    fn a_changed_or_removed_identity_loses_its_tokens_and_others_keep_theirs() {
        let (ada, bob) = (identity("ada", "corp"), identity("bob", "corp"));
        let mut mint = mint(&[("ada", ada.clone()), ("bob", bob.clone()), ("eve", identity("eve", "corp"))]);
        let old = mint.tokens(BASE, &[format!("{BASE}/servers/files/mcp")], Timestamp::now()).unwrap();

        let promoted = Identity { groups: vec!["admins".to_owned()], ..ada };
        mint.renew(&identities(&[("ada", promoted), ("bob", bob)])).unwrap();

        let issuer = mint.issuer("corp", BASE);
        assert!(verify(&old["ada"], &issuer).is_none(), "its groups changed");
        assert!(verify(&old["eve"], &issuer).is_none(), "it was removed");
        assert!(verify(&old["bob"], &issuer).is_some(), "nothing about it changed");
        assert!(verify(&token(&mut mint, "ada"), &issuer).is_some());
    }

    #[test]
    fn a_token_ends_with_its_lifetime() {
        let mut mint = mint(&[("ada", identity("ada", "corp"))]);
        let past = Timestamp::now() - jiff::SignedDuration::from_hours(2);
        let old = mint.tokens(BASE, &[format!("{BASE}/servers/files/mcp")], past).unwrap();
        assert!(verify(&old["ada"], &mint.issuer("corp", BASE)).is_none());
    }

    #[test]
    fn a_token_is_minted_again_only_when_it_must_name_other_urls() {
        let mut mint = mint(&[("ada", identity("ada", "corp"))]);
        let mut mint_for = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|&url| url.to_owned()).collect();
            mint.tokens(BASE, &urls, Timestamp::now()).unwrap()["ada"].clone()
        };

        let first = mint_for(&["http://a/"]);

        assert_eq!(mint_for(&["http://a/"]), first);
        let second = mint_for(&["http://a/", "http://b/"]);
        assert_ne!(second, first);
        assert_eq!(mint_for(&["http://b/"]), second, "a server that went takes no token along");
    }
}

//! Every key of the control plane, from one root.
//!
//! 32 random bytes lie in the Secret `toolgate-keys` of the operator's namespace, made by the replica that starts
//! first. HKDF-SHA-256 derives from them, each for one purpose: the key of the CA, the key that signs snapshots, and
//! the token by which replicas know each other. So every replica holds the same keys and none writes any.
//!
//! The CA's certificate lies in the same Secret, because its dates are no function of the root. It is good for ten
//! years, and made anew two years before its end, with the same name and key: what either vouches for, both do. Who
//! deletes the Secret begins anew, and every gateway must then be rolled out again to trust the new CA.

use std::time::Duration;

use aws_lc_rs::agreement;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::kubernetes::secret::{Data, SecretAt, SecretError};
use crate::policy::snapshot::Target;
use crate::wire::{Signer, VerifyKey, validity};

/// The Secret.
pub const SECRET: &str = "toolgate-keys";
/// In it: the root.
const ROOT: &str = "root";
/// In it: the CA's certificate, PEM.
const CA: &str = "ca.crt";
/// Length of the root, and of everything derived, in bytes.
const KEY_BYTES: usize = 32;
/// How long the CA is good for.
const CA_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// How long before its end the CA's certificate is made anew: the time for those who have a copy to take the new one.
const CA_RENEWAL: Duration = Duration::from_hours(2 * 365 * 24);
/// How long the certificate of a policy server is good for.
pub const SERVER_LIFE: Duration = Duration::from_hours(30 * 24);
/// How long the certificate of a gateway is good for.
pub const GATEWAY_LIFE: Duration = Duration::from_hours(24);
/// Certificates begin this much earlier: clocks differ, by an hour where a time zone was taken for another.
const SKEW: Duration = Duration::from_hours(2);
/// Longest certificate signing request, in bytes.
const REQUEST_BYTES: usize = 8 << 10;

/// Why there are no keys, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The Secret is not at hand.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The Secret is not what was once made.
    #[error(
        "Secret {SECRET} is damaged: {0}; restore it from a backup, or delete it, restart the operator and roll out \
         every McpServer"
    )]
    Damaged(&'static str),
    /// The library refused.
    #[error("failed to derive keys")]
    Derive,
    /// A certificate could not be made.
    #[error("failed to make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// A signing request that is none, or too long.
    #[error("the certificate signing request is refused")]
    Request(#[source] Option<rcgen::Error>),
}

/// All keys.
pub struct Keys {
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    signer: Signer,
    verify_key: VerifyKey,
    replica: String,
}

/// A certificate and its private key, both DER.
pub struct ServerCertificate {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// PKCS #8.
    pub key: Vec<u8>,
}

impl Keys {
    /// The keys of the cluster; made now if there are none.
    pub async fn load(secret: &SecretAt) -> Result<Self, KeysError> {
        // Made before the call that may need it: what cannot be made is told as what it is.
        let now = Timestamp::now();
        let fresh = Self::fresh(now)?;
        let found = secret.get_or_create(move || fresh).await?;
        let keys = Self::of(&found.data)?;
        let Some(renewed) = Self::renewed(&found.data, now)? else { return Ok(keys) };
        match secret.replace(&found, renewed).await {
            Ok(Some(found)) => {
                tracing::info!("the CA's certificate ends within two years and was made anew, with the same key");
                Self::of(&found.data)
            }
            // Another replica was faster, perhaps with this.
            Ok(None) => Ok(secret.get().await?.map(|found| Self::of(&found.data)).transpose()?.unwrap_or(keys)),
            Err(error) => {
                tracing::warn!(%error, "the CA's certificate ends within two years and cannot be made anew");
                Ok(keys) // Still good, and the next start tries again.
            }
        }
    }

    /// What a new Secret holds.
    pub fn fresh(now: Timestamp) -> Result<Data, KeysError> {
        let mut root = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut root).map_err(|_| KeysError::Derive)?;
        Ok(Data::from([(ROOT.to_owned(), root.to_vec()), (CA.to_owned(), ca_certificate(&root, now)?)]))
    }

    /// What a Secret must hold from now on, if its CA's certificate is near its end. Everything but that stays.
    fn renewed(data: &Data, now: Timestamp) -> Result<Option<Data>, KeysError> {
        let root = root(data)?;
        let end = data.get(CA).and_then(|pem| Some(validity(&CertificateDer::from_pem_slice(pem).ok()?)?.1));
        let end = end.ok_or(KeysError::Damaged("`ca.crt` is not a certificate"))?;
        if end.duration_since(now) > SignedDuration::try_from(CA_RENEWAL).unwrap_or_default() {
            return Ok(None);
        }
        let mut renewed = data.clone();
        renewed.insert(CA.to_owned(), ca_certificate(root, now)?);
        Ok(Some(renewed))
    }

    /// The keys that a Secret stands for.
    pub fn of(data: &Data) -> Result<Self, KeysError> {
        let root = root(data)?;
        let ca_pem = data.get(CA).ok_or(KeysError::Damaged("`ca.crt` is missing"))?;
        let ca_pem =
            String::from_utf8(ca_pem.clone()).map_err(|_| KeysError::Damaged("`ca.crt` is not a certificate"))?;
        let key = ca_key(root)?;
        let point = key.public_key_raw().to_vec();
        let ca =
            Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|_| KeysError::Damaged("`ca.crt` is not a certificate"))?;
        if !holds(&ca_pem, &point) {
            return Err(KeysError::Damaged("`ca.crt` belongs to another root"));
        }
        let signer = Signer::from_seed(&derive(root, b"snapshot signature")?).map_err(|_| KeysError::Derive)?;
        let verify_key = signer.verify_key().map_err(|_| KeysError::Derive)?;
        let replica = URL_SAFE_NO_PAD.encode(derive(root, b"replica token")?);
        Ok(Self { ca, ca_pem, signer, verify_key, replica })
    }

    /// The CA's certificate, PEM: what gateways and clients trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Signs snapshots.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// What gateways verify snapshots with.
    pub fn verify_key(&self) -> &VerifyKey {
        &self.verify_key
    }

    /// What a replica shows to another.
    pub fn replica_token(&self) -> &str {
        &self.replica
    }

    /// Whether this is the token of a replica, without telling by the time it takes how much of it is right.
    pub fn is_replica(&self, token: &str) -> bool {
        verify_slices_are_equal(token.as_bytes(), self.replica.as_bytes()).is_ok()
    }

    /// A certificate for a policy server that is dialled by these DNS names or addresses.
    pub fn server_certificate(&self, hosts: &[String], now: Timestamp) -> Result<ServerCertificate, KeysError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeysError::Certificate)?;
        let mut params = CertificateParams::new(hosts).map_err(KeysError::Certificate)?;
        params.distinguished_name = named("Toolgate policy server");
        leaf(&mut params, now, SERVER_LIFE, vec![ExtendedKeyUsagePurpose::ServerAuth]);
        let certificate = params.signed_by(&key, &self.ca).map_err(KeysError::Certificate)?;
        Ok(ServerCertificate { certificate: certificate.der().to_vec(), key: key.serialize_der() })
    }

    /// The certificate of a gateway, PEM, for the key of its signing request (PKCS #10, DER). Everything else that the
    /// request asks for is ignored: the names are those of the target.
    pub fn gateway_certificate(&self, target: &Target, request: &[u8], now: Timestamp) -> Result<String, KeysError> {
        if request.len() > REQUEST_BYTES {
            return Err(KeysError::Request(None));
        }
        let request = CertificateSigningRequestParams::from_der(&request.into())
            .map_err(|error| KeysError::Request(Some(error)))?;
        let Target { namespace, server } = target;
        let dns = [
            format!("{server}.{namespace}.svc"),
            format!("{server}.{namespace}.svc.cluster.local"),
            format!("{server}.{namespace}"),
        ];
        let mut params = CertificateParams::new(dns).map_err(KeysError::Certificate)?;
        let uri = target_uri(target).try_into().map_err(KeysError::Certificate)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = named("Toolgate gateway");
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf(&mut params, now, GATEWAY_LIFE, usages);
        let certificate = params.signed_by(&request.public_key, &self.ca).map_err(KeysError::Certificate)?;
        Ok(certificate.pem())
    }
}

/// The URI by which a gateway's certificate names its target.
pub fn target_uri(Target { namespace, server }: &Target) -> String {
    format!("toolgate://{namespace}/{server}")
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("verify_key", &self.verify_key).finish_non_exhaustive() // Nothing secret.
    }
}

fn derive(root: &[u8; KEY_BYTES], purpose: &[u8]) -> Result<[u8; KEY_BYTES], KeysError> {
    let mut key = [0; KEY_BYTES];
    let info = [b"toolgate.dev/".as_slice(), purpose];
    let filled =
        Salt::new(HKDF_SHA256, &[]).extract(root).expand(&info, HKDF_SHA256).and_then(|derived| derived.fill(&mut key));
    filled.map(|()| key).map_err(|_| KeysError::Derive)
}

/// The CA's key. P-256, because that is what every TLS client knows; a value that is no key of the curve (one in 2^32)
/// is followed by the next.
fn ca_key(root: &[u8; KEY_BYTES]) -> Result<KeyPair, KeysError> {
    for attempt in 0..=u8::MAX {
        let scalar = derive(root, &[b"certificate authority ".as_slice(), &[attempt]].concat())?;
        let Ok(key) = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, &scalar) else { continue };
        let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| KeysError::Derive)?;
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der.as_ref().into(), &PKCS_ECDSA_P256_SHA256);
        return pair.map_err(KeysError::Certificate);
    }
    Err(KeysError::Derive)
}

/// The certificate of the CA, PEM.
fn ca_certificate(root: &[u8; KEY_BYTES], now: Timestamp) -> Result<Vec<u8>, KeysError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Toolgate CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasting(&mut params, now, CA_LIFE);
    let certificate = params.self_signed(&ca_key(root)?).map_err(KeysError::Certificate)?;
    Ok(certificate.pem().into_bytes())
}

/// The root in a Secret.
fn root(data: &Data) -> Result<&[u8; KEY_BYTES], KeysError> {
    let root = data.get(ROOT).ok_or(KeysError::Damaged("`root` is missing"))?;
    root.as_slice().try_into().map_err(|_| KeysError::Damaged("`root` is not 32 bytes"))
}

/// Whether a certificate is about this public key.
fn holds(pem: &str, point: &[u8]) -> bool {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .is_ok_and(|certificate| certificate.windows(point.len()).any(|window| window == point))
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn leaf(params: &mut CertificateParams, now: Timestamp, life: Duration, usages: Vec<ExtendedKeyUsagePurpose>) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    lasting(params, now, life);
}

fn lasting(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default(); // A clock before 1970 is wrong anyway.
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = now - SKEW;
    params.not_after = now + life;
}

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{ServerName, UnixTime};

use super::*;

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn target() -> Target {
    Target { namespace: "agents".to_owned(), server: "github".to_owned() }
}

/// Whether a client that trusts the CA takes this certificate for that name, so many seconds from now.
fn trusted(keys: &Keys, certificate: &CertificateDer<'_>, name: &'static str, seconds: i64) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(keys.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let at = Duration::from_secs(u64::try_from(now().as_second() + seconds).unwrap());
    let name = ServerName::try_from(name).unwrap();
    verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::since_unix_epoch(at)).is_ok()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap()
}

fn request(names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).unwrap();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn one_secret_is_the_same_keys_in_every_replica() {
    let data = Keys::fresh(now()).unwrap();
    let (one, other) = (Keys::of(&data).unwrap(), Keys::of(&data).unwrap());

    assert_eq!(one.verify_key(), other.verify_key());
    assert_eq!(one.replica_token(), other.replica_token());
    assert_eq!(one.ca_pem(), other.ca_pem());
    let host = ["policy.toolgate.svc".to_owned()];
    let certificate = other.server_certificate(&host, now()).unwrap();
    assert!(trusted(&one, &certificate.certificate.into(), "policy.toolgate.svc", 0));
}

#[test]
fn another_root_is_other_keys() {
    let one = Keys::of(&Keys::fresh(now()).unwrap()).unwrap();
    let other = Keys::of(&Keys::fresh(now()).unwrap()).unwrap();

    assert_ne!(one.verify_key(), other.verify_key());
    assert!(one.is_replica(one.replica_token()));
    assert!(!one.is_replica(other.replica_token()));
    assert!(!one.is_replica(""));
    let host = ["policy.toolgate.svc".to_owned()];
    let certificate = other.server_certificate(&host, now()).unwrap();
    assert!(!trusted(&one, &certificate.certificate.into(), "policy.toolgate.svc", 0));
}

/// Clients hold either certificate for two years, and gateways have theirs from before and after.
#[test]
fn a_ca_near_its_end_is_made_anew_and_vouches_for_what_the_old_one_does() {
    let days = |days: i64| SignedDuration::from_hours(days * 24);
    let at_start = Keys::fresh(now()).unwrap();
    assert!(Keys::renewed(&at_start, now() + days(8 * 365 - 1)).unwrap().is_none());
    assert!(Keys::renewed(&at_start, now() + days(8 * 365)).unwrap().is_some());
    let mut data = Keys::fresh(now() - days(9 * 365)).unwrap();
    data.insert("epoch".to_owned(), b"7".to_vec());

    let renewed = Keys::renewed(&data, now()).unwrap().unwrap();

    assert_eq!((&renewed[ROOT], &renewed["epoch"]), (&data[ROOT], &data["epoch"]));
    assert!(Keys::renewed(&renewed, now()).unwrap().is_none());
    let (before, after) = (Keys::of(&data).unwrap(), Keys::of(&renewed).unwrap());
    assert_ne!(before.ca_pem(), after.ca_pem());
    assert_eq!(before.verify_key(), after.verify_key());
    let host = ["policy.toolgate.svc".to_owned()];
    for (signing, trusting) in [(&before, &after), (&after, &before)] {
        let certificate = signing.server_certificate(&host, now()).unwrap();
        assert!(trusted(trusting, &certificate.certificate.into(), "policy.toolgate.svc", 0));
    }
}

#[test]
fn a_damaged_secret_is_refused() {
    let whole = Keys::fresh(now()).unwrap();
    let other = Keys::fresh(now()).unwrap();
    let with = |key: &str, value: Option<&[u8]>| {
        let mut data = whole.clone();
        match value {
            Some(value) => data.insert(key.to_owned(), value.to_vec()),
            None => data.remove(key),
        };
        Keys::of(&data).map(|_| ()).map_err(|error| error.to_string())
    };

    assert!(with(ROOT, None).unwrap_err().contains("`root` is missing"));
    assert!(with(ROOT, Some(b"short")).unwrap_err().contains("not 32 bytes"));
    assert!(with(CA, None).unwrap_err().contains("`ca.crt` is missing"));
    assert!(with(CA, Some(b"no pem")).unwrap_err().contains("not a certificate"));
    assert!(with(CA, Some(&other[CA])).unwrap_err().contains("belongs to another root"));
    assert!(with(ROOT, Some(&other[ROOT])).unwrap_err().contains("belongs to another root"));
}

#[test]
fn a_server_certificate_is_for_its_hosts_and_ends() {
    let keys = Keys::of(&Keys::fresh(now()).unwrap()).unwrap();
    let hosts = ["policy.toolgate.svc".to_owned(), "127.0.0.1".to_owned()];

    let certificate = keys.server_certificate(&hosts, now()).unwrap().certificate.into();

    assert!(trusted(&keys, &certificate, "policy.toolgate.svc", 0));
    assert!(trusted(&keys, &certificate, "127.0.0.1", 0));
    assert!(!trusted(&keys, &certificate, "other.toolgate.svc", 0));
    assert!(!trusted(&keys, &certificate, "policy.toolgate.svc", seconds(SERVER_LIFE) + 1));
}

#[test]
fn a_gateway_certificate_names_its_target_whatever_was_asked_for() {
    let keys = Keys::of(&Keys::fresh(now()).unwrap()).unwrap();

    let pem = keys.gateway_certificate(&target(), &request(&["other.agents.svc", "example.com"]), now()).unwrap();

    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert!(trusted(&keys, &certificate, "github.agents.svc", 0));
    assert!(trusted(&keys, &certificate, "github.agents.svc.cluster.local", 0));
    assert!(!trusted(&keys, &certificate, "other.agents.svc", 0));
    assert!(!trusted(&keys, &certificate, "example.com", 0));
    assert!(!trusted(&keys, &certificate, "github.agents.svc", seconds(GATEWAY_LIFE) + 1));
    let uri = target_uri(&target());
    assert!(certificate.windows(uri.len()).any(|window| window == uri.as_bytes()));
}

/// The CA is as new as the certificates: nothing in the chain may depend on whose clock is right.
#[test]
fn a_clock_that_is_an_hour_off_takes_what_was_just_signed() {
    let keys = Keys::of(&Keys::fresh(now()).unwrap()).unwrap();
    let hosts = ["policy.toolgate.svc".to_owned()];
    let server = keys.server_certificate(&hosts, now()).unwrap().certificate.into();
    let gateway = keys.gateway_certificate(&target(), &request(&[]), now()).unwrap();
    let gateway = CertificateDer::from_pem_slice(gateway.as_bytes()).unwrap();

    let hour = seconds(Duration::from_hours(1));
    for seconds in [-hour - 60, hour + 60] {
        assert!(trusted(&keys, &server, "policy.toolgate.svc", seconds), "{seconds}");
        assert!(trusted(&keys, &gateway, "github.agents.svc", seconds), "{seconds}");
    }
}

#[test]
fn a_request_that_is_none_is_refused() {
    let keys = Keys::of(&Keys::fresh(now()).unwrap()).unwrap();
    let mut forged = request(&["x"]);
    *forged.last_mut().unwrap() ^= 1; // The last byte is of the signature: the key is not its sender's.

    for refused in [forged, vec![0; REQUEST_BYTES + 1], b"no request".to_vec()] {
        assert!(matches!(keys.gateway_certificate(&target(), &refused, now()), Err(KeysError::Request(_))));
    }
}

/// A certificate that could sign others would be a second CA.
#[test]
fn a_gateway_certificate_cannot_sign() {
    let keys = Keys::of(&Keys::fresh(now()).unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["github.agents.svc".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let own = KeyPair::generate().unwrap();
    let request = params.serialize_request(&own).unwrap().der().to_vec();

    let pem = keys.gateway_certificate(&target(), &request, now()).unwrap();

    let below = Issuer::from_ca_cert_pem(&pem, own).unwrap();
    let mut leaf_params = CertificateParams::new(vec!["victim.agents.svc".to_owned()]).unwrap();
    leaf(&mut leaf_params, now(), GATEWAY_LIFE, vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let certificate = leaf_params.signed_by(&KeyPair::generate().unwrap(), &below).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(keys.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let intermediate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now().as_second()).unwrap()));
    let name = ServerName::try_from("victim.agents.svc").unwrap();
    assert!(verifier.verify_server_cert(certificate.der(), &[intermediate], &name, &[], at).is_err());
}

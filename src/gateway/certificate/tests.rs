use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const NAME: &str = "github.agents.svc";

struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = new_key().unwrap();
        let own = parameters.self_signed(&key).unwrap().der().clone();
        Self(Issuer::new(parameters, key), own)
    }

    /// Signs what is asked for, good for some hours.
    fn sign(&self, request: &Bytes) -> String {
        let request = CertificateSigningRequestParams::from_der(&request.to_vec().into()).unwrap();
        request.signed_by(&self.0).unwrap().pem()
    }
}

async fn certificates(folder: &std::path::Path) -> Certificates {
    Certificates::load(vec![NAME.to_owned()], State::open(folder).unwrap()).await.unwrap()
}

/// For how many seconds from now somebody vouches for what is shown.
fn vouched_for(certificates: &Certificates) -> i64 {
    certificates.vouched_until.load(Ordering::Relaxed).saturating_sub(Timestamp::now().as_second())
}

/// Whether a client that trusts this authority alone talks with the gateway.
async fn is_trusted(certificates: &Certificates, authority: &Authority) -> bool {
    let (client, server) = tokio::io::duplex(64 << 10);
    let acceptor = TlsAcceptor::from(certificates.server_config().unwrap());
    let serving = tokio::spawn(async move {
        if let Ok(mut stream) = acceptor.accept(server).await {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.shutdown().await;
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(authority.1.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let outcome = connector.connect(ServerName::try_from(NAME).unwrap(), client).await;
    let mut said = String::new();
    let heard = match outcome {
        Ok(mut stream) => stream.read_to_string(&mut said).await.is_ok() && said == "hello",
        Err(_) => false,
    };
    serving.await.unwrap();
    heard
}

#[tokio::test]
async fn a_signed_certificate_is_used_at_once_and_after_a_restart() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let first = certificates(folder.path()).await;
    assert!(!is_trusted(&first, &authority).await, "nobody vouches for the first one");
    assert!(vouched_for(&first) < 0);

    let request = first.due().await;
    first.install(&authority.sign(&request)).await;

    assert!(is_trusted(&first, &authority).await);
    assert!(vouched_for(&first) > 0);
    let restarted = certificates(folder.path()).await;
    assert!(is_trusted(&restarted, &authority).await);
    assert!(vouched_for(&restarted) > 0);
}

#[tokio::test]
async fn a_chain_for_another_key_or_unasked_is_refused_and_what_was_in_use_stays() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let certificates = certificates(folder.path()).await;
    let request = certificates.due().await;
    let chain = authority.sign(&request);
    let (_, foreign) = certificates.request().unwrap();

    assert!(matches!(certificates.swap(&authority.sign(&foreign)).await, Err(CertificateError::Fit(_))));
    assert!(matches!(certificates.swap("-----BEGIN").await, Err(CertificateError::Read)));
    assert!(matches!(certificates.swap("").await, Err(CertificateError::Read)));
    assert!(!is_trusted(&certificates, &authority).await);
    certificates.swap(&chain).await.unwrap();
    assert!(matches!(certificates.swap(&chain).await, Err(CertificateError::Unasked)));

    assert!(is_trusted(&certificates, &authority).await);
}

#[tokio::test]
async fn a_damaged_file_costs_a_new_request_and_no_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();

    assert!(!certificates(folder.path()).await.due().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_at_two_thirds_of_its_life_and_a_lost_request_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = certificates(folder.path()).await;
    certificates.due().await;
    let asked = Instant::now();
    certificates.due().await;
    assert_eq!(asked.elapsed().as_secs(), ANSWER.as_secs(), "without an answer it is asked again after a while");
    certificates.ask_again();
    certificates.due().await;
    assert_eq!(asked.elapsed().as_secs(), ANSWER.as_secs(), "and at once on a new connection");

    let key = certificates.waiting.lock().key.as_ref().map(KeyPair::serialize_pem).unwrap();
    let mut parameters = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let now = std::time::SystemTime::now();
    (parameters.not_before, parameters.not_after) = (now.into(), (now + Duration::from_hours(24)).into());
    let chain = parameters.self_signed(&KeyPair::from_pem(&key).unwrap()).unwrap().pem();
    let due = certificates.swap(&chain).await.unwrap();

    assert!((24 * 3600 - 60..=24 * 3600).contains(&vouched_for(&certificates)));
    assert!((Duration::from_hours(16) - Duration::from_mins(1)..=Duration::from_hours(16)).contains(&due), "{due:?}");
    let installed = Instant::now();
    certificates.ask_again();
    certificates.due().await;
    assert!(installed.elapsed() + Duration::from_secs(1) >= due, "{:?}", installed.elapsed());
}

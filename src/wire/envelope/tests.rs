use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::policy::snapshot::{FORMAT, Input, Registration, ServerRequests};

fn signer(seed: u8) -> Signer {
    Signer::from_seed(&[seed; 32]).unwrap()
}

fn key(seed: u8) -> VerifyKey {
    signer(seed).verify_key().unwrap()
}

fn version() -> Version {
    Version { epoch: 3, seen: BTreeMap::from([("McpRole".to_owned(), 17), ("McpTool".to_owned(), 4)]) }
}

fn snapshot(inputs: Vec<Input>) -> Snapshot {
    Snapshot {
        format: FORMAT,
        target: Target { namespace: "agents".to_owned(), server: "github".to_owned() },
        urls: vec!["https://github.agents.svc:8443/mcp".to_owned()],
        registration: Registration::Declared,
        server_requests: ServerRequests::default(),
        deny_after_seconds: None,
        on_loss: crate::policy::snapshot::OnLoss::default(),
        tools: Vec::new(),
        roles: Vec::new(),
        anonymous: None,
        issuers: Vec::new(),
        inputs,
    }
}

fn input(name: &str) -> Input {
    Input { kind: "McpRole".to_owned(), name: name.to_owned(), uid: "u".to_owned(), generation: 1 }
}

/// An envelope as only the holder of the key could make it.
fn sealed(envelope: &proto::Envelope) -> Vec<u8> {
    let body = envelope.encode_to_vec();
    let signature = signer(1).sign(&body);
    proto::Signed { body: body.into(), signature: signature.into() }.encode_to_vec()
}

#[test]
fn what_is_sealed_opens_as_it_was() {
    let snapshot = snapshot(vec![input("reader")]);
    let requires = ["b".to_owned(), "a".to_owned(), "b".to_owned()];

    let opened = open(&seal(&snapshot, &version(), &requires, &signer(1)).unwrap(), &key(1)).unwrap();

    assert_eq!(opened.target, snapshot.target);
    assert_eq!(opened.version, version());
    assert_eq!(opened.format, FORMAT);
    assert_eq!(opened.requires, ["a", "b"]);
    assert_eq!(opened.snapshot, snapshot.canonical());
    assert_eq!(opened.hash, snapshot.hash());
}

#[test]
fn a_packed_snapshot_seals_to_the_same_bytes() {
    let snapshot = snapshot(Vec::new());
    let packed = Packer::new().unwrap().pack(&snapshot, &[]).unwrap();

    assert_eq!(packed.seal(&version(), &signer(1)), seal(&snapshot, &version(), &[], &signer(1)).unwrap());
    assert_eq!(packed.hash, snapshot.hash());
}

#[test]
fn any_flipped_bit_is_refused() {
    let sealed = seal(&snapshot(Vec::new()), &version(), &[], &signer(1)).unwrap();

    for bit in 0..sealed.len() * 8 {
        let mut bytes = sealed.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&bytes, &key(1)).is_err(), "bit {bit}");
    }
    assert!((0..sealed.len()).all(|end| open(&sealed[..end], &key(1)).is_err()));
}

#[test]
fn another_key_is_refused() {
    let sealed = seal(&snapshot(Vec::new()), &version(), &[], &signer(1)).unwrap();

    assert!(matches!(open(&sealed, &key(2)), Err(OpenError::Signature)));
}

#[test]
fn a_signature_without_the_prefix_is_refused() {
    let body = proto::Envelope { namespace: "agents".to_owned(), server: "github".to_owned(), ..Default::default() };
    let body = body.encode_to_vec();
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let signature = pair.sign(&body).as_ref().to_vec();
    let bytes = proto::Signed { body: body.into(), signature: signature.into() }.encode_to_vec();

    assert!(matches!(open(&bytes, &key(1)), Err(OpenError::Signature)));
}

#[test]
fn a_bomb_is_bounded() {
    let zeros = vec![b' '; SNAPSHOT_BYTES + 1];
    let bomb = zstd::bulk::compress(&zeros, LEVEL).unwrap();
    assert!(bomb.len() < COMPRESSED_BYTES);
    let envelope = proto::Envelope {
        namespace: "agents".to_owned(),
        server: "github".to_owned(),
        version: Some((&version()).into()),
        format: FORMAT,
        requires: Vec::new(),
        snapshot: bomb.into(),
    };

    assert!(matches!(open(&sealed(&envelope), &key(1)), Err(OpenError::Bomb)));
}

#[test]
fn too_many_bytes_are_refused_unread() {
    assert!(matches!(open(&vec![0; SEALED_BYTES + 1], &key(1)), Err(OpenError::TooLarge(_))));
}

#[test]
fn an_envelope_without_target_or_version_is_refused() {
    let whole = proto::Envelope {
        namespace: "agents".to_owned(),
        server: "github".to_owned(),
        version: Some((&version()).into()),
        format: FORMAT,
        requires: Vec::new(),
        snapshot: zstd::bulk::compress(b"{}", LEVEL).unwrap().into(),
    };
    assert!(open(&sealed(&whole), &key(1)).is_ok());

    for broken in [
        proto::Envelope { namespace: String::new(), ..whole.clone() },
        proto::Envelope { server: String::new(), ..whole.clone() },
        proto::Envelope { version: None, ..whole.clone() },
    ] {
        assert!(matches!(open(&sealed(&broken), &key(1)), Err(OpenError::Incomplete)));
    }
}

#[test]
fn a_version_of_too_many_kinds_is_refused() {
    let seen = (0..100).map(|kind| (format!("Kind{kind}"), 1)).collect();
    let envelope = proto::Envelope {
        namespace: "agents".to_owned(),
        server: "github".to_owned(),
        version: Some(proto::Version { epoch: 1, seen }),
        ..Default::default()
    };

    assert!(matches!(open(&sealed(&envelope), &key(1)), Err(OpenError::Version(_))));
}

/// Text that does not compress, so that the limit is met by what a ConfigMap would have to hold.
#[test]
fn a_snapshot_above_the_limit_is_not_sealed() {
    let mut state = 1_u64;
    let mut noise = |_: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{state:016x}")
    };
    let mut text = || (0..8_000).map(&mut noise).collect::<String>();
    let large = snapshot((0..20).map(|_| input(&text())).collect());

    let error = seal(&large, &version(), &[], &signer(1)).unwrap_err();

    assert!(matches!(error, SealError::TooLarge { limit: COMPRESSED_BYTES, .. }), "{error}");
    assert_eq!(error.reason(), "SnapshotTooLarge");
}

#[test]
fn a_verification_key_survives_its_text() {
    assert_eq!(format!("{}\n", key(7)).parse::<VerifyKey>().unwrap(), key(7));
    assert!("AAAA".parse::<VerifyKey>().is_err());
    assert!("not base64".parse::<VerifyKey>().is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(open(&bytes, &key(1)).is_err());
    }

    #[test]
    fn nothing_signed_panics(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let signature = signer(1).sign(&body);
        let bytes = proto::Signed { body: body.into(), signature: signature.into() }.encode_to_vec();
        let _ = open(&bytes, &key(1));
    }
}

use std::{fs, os::unix::fs::PermissionsExt};

use ff2_proto::{Code, pb};

use super::*;

fn claims() -> pb::UserClaims {
    pb::UserClaims {
        uid: 1000,
        gid: 100,
        name: "ada".into(),
        token_id: 7,
        expires_s: 1_800_000_000,
        ..Default::default()
    }
}

#[test]
fn keys_live_in_private_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.key");
    let key = ClusterKey::generate().unwrap();
    key.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ClusterKey::load(&path).unwrap().secret(), key.secret());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = ClusterKey::load(&path).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "c2hvcnQ=").unwrap();
    assert!(matches!(ClusterKey::load(&path), Err(AuthError::NotAKey)));
    assert_eq!(format!("{key:?}"), "ClusterKey(..)");
}

#[test]
fn tokens_survive_their_text_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let key = ClusterKey::generate().unwrap();
    let token = key.issue(claims());
    token.save(&path).unwrap();
    let loaded = UserToken::load(&path).unwrap();
    assert_eq!(loaded, token);
    assert_eq!(key.check_token(&loaded, 1_700_000_000, &[]).unwrap(), claims());

    // Root's claims with ada's seal.
    let root = key.issue(pb::UserClaims { root: true, ..claims() }).to_string();
    let (root_claims, text) = (root.split_once('.').unwrap().0, token.to_string());
    let forged = format!("{root_claims}.{}", text.split_once('.').unwrap().1);
    let root: UserToken = forged.parse().unwrap();
    assert!(root.claims().root);
    let other = ClusterKey::generate().unwrap();
    for (key, token) in [(&key, &root), (&other, &token)] {
        let refused = key.check_token(token, 0, &[]).unwrap_err();
        assert_eq!(refused.code, Code::Unauthenticated);
    }
    for text in ["", "ff2-", "ff2-AA", "ff2-!.!", "ff2-AA.AA", "nonsense"] {
        assert!(text.parse::<UserToken>().is_err(), "{text}");
    }
    assert!(!format!("{token:?}").contains("ff2-"));
}

#[test]
fn a_refused_token_says_what_to_do() {
    let key = ClusterKey::generate().unwrap();
    let token = key.issue(claims());
    let expired = key.check_token(&token, 1_800_000_000, &[]).unwrap_err();
    assert!(expired.detail.contains("2027-01-15"), "{expired}");
    assert!(expired.detail.contains("ff2ctl user token"), "{expired}");
    let revoked = key.check_token(&token, 0, &[3, 7]).unwrap_err();
    assert!(revoked.detail.contains("revoked"), "{revoked}");
}

#[test]
fn grants_are_sealed() {
    let key = ClusterKey::generate().unwrap();
    let grant =
        pb::Grant { inode: 5, session: 9, read: true, expires_s: 100, ..Default::default() };
    let sealed = key.grant(grant.clone());
    let checked = key.check_grant(&sealed, 99).unwrap();
    assert_eq!((checked.inode, checked.read, checked.write), (5, true, false));
    assert_eq!(key.check_grant(&sealed, 100).unwrap_err().code, Code::GrantExpired);

    let mut forged: pb::Grant = prost::Message::decode(sealed.clone()).unwrap();
    forged.write = true;
    let forged = prost::Message::encode_to_vec(&forged);
    // A genuine one with a field (15, bytes) that nobody sealed.
    let padded = [&sealed[..], b"\x7a\xac\x02", &[0; 300]].concat();
    for bytes in [&forged[..], b"", b"\xff\xff", &sealed[..sealed.len() - 1], &padded] {
        assert_eq!(key.check_grant(bytes, 0).unwrap_err().code, Code::Forbidden);
    }
    // A grant is not a token: the purposes are apart.
    let encoded = prost::Message::encode_to_vec(&grant);
    assert_ne!(key.token_mac(&encoded)[..], checked.mac[..]);
}

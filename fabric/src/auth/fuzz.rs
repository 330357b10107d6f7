//! Keys, tokens and grants that somebody changed: none of them opens anything.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use ff2_fuzz::{bounded, target};
use ff2_proto::pb;

use super::*;

static KEY: LazyLock<ClusterKey> =
    LazyLock::new(|| ClusterKey::parse(&STANDARD.encode([7; 32])).unwrap());

fn claims() -> pb::UserClaims {
    pb::UserClaims {
        uid: 10,
        gid: 100,
        groups: vec![100, 200],
        name: "somebody".into(),
        token_id: 3,
        ..Default::default()
    }
}

fn tokens() -> Vec<Vec<u8>> {
    let root = pb::UserClaims { name: "root".into(), token_id: 4, ..Default::default() };
    [claims(), root].map(|claims| KEY.issue(claims).to_string().into_bytes()).to_vec()
}

#[test]
fn damaged_tokens() {
    target!(tokens(), |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        let Ok(token) = bounded(bytes, || text.parse::<UserToken>()) else { return };
        assert_eq!(token.to_string(), text, "one text for one token");
        let is_genuine = tokens().iter().any(|token| token == bytes);
        assert_eq!(KEY.check_token(&token, 0, &[]).is_ok(), is_genuine, "{text}");
    });
}

fn keys() -> Vec<Vec<u8>> {
    vec![STANDARD.encode([7; 32]).into_bytes(), STANDARD.encode([0xff; 32]).into_bytes()]
}

#[test]
fn damaged_keys() {
    target!(keys(), |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        if let Ok(key) = bounded(bytes, || ClusterKey::parse(text)) {
            assert_eq!(STANDARD.encode(key.secret()), text.trim());
        }
    });
}

fn grant() -> pb::Grant {
    pb::Grant { inode: 5, session: 6, read: true, ..Default::default() }
}

#[test]
fn damaged_grants() {
    target!(vec![KEY.grant(grant()).to_vec()], |bytes| {
        if let Ok(shown) = bounded(bytes, || KEY.check_grant(bytes, 0)) {
            assert_eq!(pb::Grant { mac: Default::default(), ..shown }, grant());
        }
    });
}

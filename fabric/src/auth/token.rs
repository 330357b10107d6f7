//! User tokens.

use std::{fmt, path::Path, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use ff2_proto::{Code, Status, pb};
use prost::Message;

use super::{
    AuthError, ClusterKey, date,
    key::{Purpose, Secret, mac},
    read_secret, write_secret,
};

/// Claims and their MAC under the cluster key. Who holds the text form is the user.
#[derive(Clone, PartialEq)]
pub struct UserToken {
    claims: pb::UserClaims,
    /// The claims as they were sealed: other bytes would have another MAC.
    encoded: Bytes,
    mac: Secret,
}

impl ClusterKey {
    /// Seals claims; the caller chose the token's id and lifetime.
    pub fn issue(&self, claims: pb::UserClaims) -> UserToken {
        let encoded = Bytes::from(claims.encode_to_vec());
        let mac = self.token_mac(&encoded);
        UserToken { claims, encoded, mac }
    }

    /// The key of a connection whose client shows these claims.
    pub(crate) fn token_mac(&self, claims: &[u8]) -> Secret {
        mac(self.secret(), Purpose::UserToken, &[claims])
    }

    /// Whether this cluster sealed the token, and it has neither expired nor been revoked.
    pub fn check_token(
        &self,
        token: &UserToken,
        now_s: u64,
        revoked: &[u64],
    ) -> Result<pb::UserClaims, Status> {
        if !super::key::same(&self.token_mac(&token.encoded), &token.mac) {
            return Err(refused("this cluster did not issue the token"));
        }
        check_claims(&token.claims, now_s, revoked)?;
        Ok(token.claims.clone())
    }
}

impl UserToken {
    pub fn claims(&self) -> &pb::UserClaims {
        &self.claims
    }

    pub(crate) fn encoded_claims(&self) -> &Bytes {
        &self.encoded
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.mac
    }

    pub fn load(path: &Path) -> Result<Self, AuthError> {
        read_secret(path)?.trim().parse()
    }

    /// Writes the token file, mode 0600.
    pub fn save(&self, path: &Path) -> Result<(), AuthError> {
        write_secret(path, &format!("{self}\n"))
    }
}

/// The parts of the claims that the MAC does not settle.
pub(crate) fn check_claims(
    claims: &pb::UserClaims,
    now_s: u64,
    revoked: &[u64],
) -> Result<(), Status> {
    if claims.expires_s != 0 && claims.expires_s <= now_s {
        let when = date(claims.expires_s);
        return Err(refused(&format!(
            "the token of user {} expired on {when}: get a new one with `ff2ctl user token`",
            claims.name
        )));
    }
    if revoked.contains(&claims.token_id) {
        return Err(refused(&format!(
            "token {} of user {} was revoked: ask an administrator for a new one",
            claims.token_id, claims.name
        )));
    }
    Ok(())
}

fn refused(detail: &str) -> Status {
    Status::new(Code::Unauthenticated, detail)
}

impl fmt::Display for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (claims, mac) =
            (URL_SAFE_NO_PAD.encode(&self.encoded), URL_SAFE_NO_PAD.encode(self.mac));
        write!(f, "ff2-{claims}.{mac}")
    }
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserToken({} of uid {}, ..)", self.claims.token_id, self.claims.uid)
    }
}

impl FromStr for UserToken {
    type Err = AuthError;
    fn from_str(text: &str) -> Result<Self, AuthError> {
        let parts = text.strip_prefix("ff2-").and_then(|rest| rest.split_once('.'));
        let (claims, mac) = parts.ok_or(AuthError::NotAToken)?;
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::NotAToken);
        let encoded = Bytes::from(decode(claims)?);
        let mac = decode(mac)?.try_into().map_err(|_| AuthError::NotAToken)?;
        let claims = pb::UserClaims::decode(encoded.clone()).map_err(|_| AuthError::NotAToken)?;
        Ok(Self { claims, encoded, mac })
    }
}

//! Grants: what metad lets a session do with an inode, for storaged to check without asking.

use bytes::Bytes;
use ff2_proto::{Code, Routing, Status, VolumeId, pb};
use prost::Message;

use super::{
    ClusterKey, date,
    key::{Purpose, mac, same},
};

/// A grant takes less than half of it; what is longer carries bytes that nobody sealed.
const GRANT_BYTES_MAX: usize = 256;

impl ClusterKey {
    /// Seals a grant; its `mac` field is replaced.
    pub fn grant(&self, mut grant: pb::Grant) -> Bytes {
        grant.mac = Bytes::new();
        let mac = mac(self.secret(), Purpose::Grant, &[&grant.encode_to_vec()]);
        grant.mac = Bytes::copy_from_slice(&mac);
        Bytes::from(grant.encode_to_vec())
    }

    /// The grant, if a daemon of this cluster sealed it and it has not expired.
    pub fn check_grant(&self, grant: &[u8], now_s: u64) -> Result<pb::Grant, Status> {
        let forged = || Status::new(Code::Forbidden, "the grant is not of this cluster");
        if grant.len() > GRANT_BYTES_MAX {
            return Err(forged());
        }
        let mut grant = pb::Grant::decode(grant).map_err(|_| forged())?;
        let shown = std::mem::take(&mut grant.mac);
        let expected = mac(self.secret(), Purpose::Grant, &[&grant.encode_to_vec()]);
        if !same(&expected, &shown) {
            return Err(forged());
        }
        if grant.expires_s != 0 && grant.expires_s <= now_s {
            let detail =
                format!("the grant expired on {}: open the file again", date(grant.expires_s));
            return Err(Status::new(Code::GrantExpired, detail));
        }
        Ok(grant)
    }
}

/// Whether a genuine grant was written under the volume's export rules as they are: else who holds it opens
/// the file again, and the rules are looked at.
///
/// # Errors
///
/// [`Code::GrantExpired`].
pub fn check_rules(grant: &pb::Grant, routing: &Routing) -> Result<(), Status> {
    let ruled_at = routing.volumes.get(&VolumeId(grant.volume)).map_or(0, |v| v.ruled_at);
    if grant.ruled_at < ruled_at {
        let detail = "the volume's export rules changed since the grant: open the file again";
        return Err(Status::new(Code::GrantExpired, detail));
    }
    Ok(())
}

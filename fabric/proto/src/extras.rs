//! Bits of [`crate::pb::Attr::extras`]: what an inode has beside its attributes. They let a mount
//! answer "none" to the questions that the kernel asks of every file without asking the namespace.

/// Extended attributes, ACLs aside.
pub const XATTRS: u32 = 1;
/// `security.capability` is among them.
pub const CAPABILITY: u32 = 1 << 1;
/// An access ACL that says more than the mode.
pub const ACCESS_ACL: u32 = 1 << 2;
/// A default ACL.
pub const DEFAULT_ACL: u32 = 1 << 3;

/// Names of the attributes that the other bits are about.
pub const CAPABILITY_NAME: &[u8] = b"security.capability";
pub const ACCESS_ACL_NAME: &[u8] = b"system.posix_acl_access";
pub const DEFAULT_ACL_NAME: &[u8] = b"system.posix_acl_default";

/// Whether an inode with these extras may have an attribute of this name.
pub fn may_have(extras: u32, name: &[u8]) -> bool {
    let bit = match name {
        CAPABILITY_NAME => CAPABILITY,
        ACCESS_ACL_NAME => ACCESS_ACL,
        DEFAULT_ACL_NAME => DEFAULT_ACL,
        _ => XATTRS,
    };
    extras & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_is_about_its_names() {
        assert!(!may_have(0, b"user.a"));
        assert!(may_have(XATTRS, b"user.a"));
        assert!(!may_have(XATTRS, CAPABILITY_NAME));
        assert!(may_have(XATTRS | CAPABILITY, CAPABILITY_NAME));
        assert!(!may_have(DEFAULT_ACL, ACCESS_ACL_NAME));
        assert!(may_have(DEFAULT_ACL, DEFAULT_ACL_NAME));
    }
}

//! What a token is for.

use std::fmt;

use ff2_proto::pb::{self, TokenRole};

/// The rights that a token gives beyond those of its user's ids, each with all of those before it; but
/// [`Role::Viewer`] and [`Role::Operator`] open no files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Files, and no administration.
    Files,
    /// Looks at the cluster.
    Viewer,
    /// Runs the servers, and removes no data.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// A token that is confined to a folder administers nothing, whatever else it says.
    pub fn of(claims: &pb::UserClaims) -> Self {
        if claims.subtree != 0 {
            return Self::Files;
        }
        match TokenRole::try_from(claims.role) {
            Ok(TokenRole::ByRoot) if claims.root => Self::Admin,
            Ok(TokenRole::Admin) => Self::Admin,
            Ok(TokenRole::Operator) => Self::Operator,
            Ok(TokenRole::Viewer) => Self::Viewer,
            // A role of a later release gives none of the rights that this one knows.
            Ok(TokenRole::ByRoot | TokenRole::Files) | Err(_) => Self::Files,
        }
    }

    pub fn opens_files(self) -> bool {
        matches!(self, Self::Files | Self::Admin)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "user",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(role: TokenRole, root: bool, subtree: u64) -> Role {
        Role::of(&pb::UserClaims { role: role.into(), root, subtree, ..Default::default() })
    }

    #[test]
    fn a_token_has_one_role_and_older_ones_go_by_root() {
        assert_eq!(role(TokenRole::ByRoot, true, 0), Role::Admin);
        assert_eq!(role(TokenRole::ByRoot, false, 0), Role::Files);
        assert_eq!(role(TokenRole::Files, true, 0), Role::Files);
        assert_eq!(role(TokenRole::Operator, false, 0), Role::Operator);
        assert_eq!(role(TokenRole::Admin, false, 0), Role::Admin);
        for confined in [TokenRole::ByRoot, TokenRole::Admin, TokenRole::Operator] {
            assert_eq!(role(confined, true, 5), Role::Files);
        }
        let later = pb::UserClaims { role: 77, root: true, ..Default::default() };
        assert_eq!(Role::of(&later), Role::Files);
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert!(!Role::Viewer.opens_files() && !Role::Operator.opens_files());
    }
}

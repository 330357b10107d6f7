//! What clients of an address may do with a volume: its export rules, and the one that holds.

use core::net::{IpAddr, Ipv6Addr};

use crate::pb::{self, ExportAccess, Squash};

/// Rules of one volume: each is looked at with each request.
pub const EXPORT_RULES_MAX: usize = 64;

/// What holds for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub access: ExportAccess,
    pub squash: Squash,
    pub anon_uid: u32,
    pub anon_gid: u32,
}

impl Ruling {
    /// Without any rule, and for daemons.
    pub const FREE: Self =
        Self { access: ExportAccess::ReadWrite, squash: Squash::Nobody, anon_uid: 0, anon_gid: 0 };
    /// Where there are rules, and none is for the client.
    const NOTHING: Self = Self { access: ExportAccess::Nothing, ..Self::FREE };

    /// The first rule that is for the address holds. `None`, or an address that none is for: nothing, once
    /// there are rules.
    pub fn of(rules: &[pb::ExportRule], from: Option<IpAddr>) -> Self {
        if rules.is_empty() {
            return Self::FREE;
        }
        let is_for = |rule: &&pb::ExportRule| {
            Clients::parse(&rule.clients).is_ok_and(|clients| clients.include(from))
        };
        rules.iter().find(is_for).map_or(Self::NOTHING, |rule| Self {
            access: rule.access(),
            squash: rule.squash(),
            anon_uid: rule.anon_uid,
            anon_gid: rule.anon_gid,
        })
    }

    pub fn is_free(&self) -> bool {
        self.access == ExportAccess::ReadWrite && self.squash == Squash::Nobody
    }

    /// As whom the client's credentials act.
    pub fn squash(&self, cred: &mut pb::Credentials) {
        let is_squashed = match self.squash {
            Squash::Nobody => false,
            Squash::Root => cred.uid == 0,
            Squash::Everybody => true,
        };
        if is_squashed {
            let (uid, gid) = (self.anon_uid, self.anon_gid);
            *cred = pb::Credentials { uid, gid, groups: Vec::new() };
        } else if self.squash == Squash::Root {
            // The group of root, and nothing else of the user.
            if cred.gid == 0 {
                cred.gid = self.anon_gid;
            }
            cred.groups.retain(|&group| group != 0);
        }
    }
}

/// Whom a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    All,
    Network { address: IpAddr, bits: u8 },
}

impl Clients {
    /// `*`, an address, or a network (`10.0.0.0/8`).
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let wrong = || format!("{text:?} is no address, no network (10.0.0.0/8) and not `*`");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(wrong());
        }
        if masked(address, bits) != wide(address) {
            return Err(format!("{text:?} has bits set behind the network's {bits}"));
        }
        Ok(Self::Network { address, bits })
    }

    fn include(self, from: Option<IpAddr>) -> bool {
        match (self, from) {
            (Self::All, _) => true,
            (Self::Network { .. }, None) => false,
            (Self::Network { address, bits }, Some(from)) => {
                // A listener for both kinds shows IPv4 clients as mapped.
                let from = from.to_canonical();
                address.is_ipv4() == from.is_ipv4() && masked(from, bits) == wide(address)
            }
        }
    }
}

/// The address with all but its first bits cleared, in the wide form.
fn masked(address: IpAddr, bits: u8) -> u128 {
    let bits = if address.is_ipv4() { bits + 96 } else { bits };
    let kept = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    wide(address) & kept
}

fn wide(address: IpAddr) -> u128 {
    let wide: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    wide.to_bits()
}

/// Whether all of the rules can be followed.
///
/// # Errors
///
/// Which one cannot, and why.
pub fn check(rules: &[pb::ExportRule]) -> Result<(), String> {
    if rules.len() > EXPORT_RULES_MAX {
        return Err(format!("a volume has at most {EXPORT_RULES_MAX} export rules"));
    }
    for rule in rules {
        Clients::parse(&rule.clients)?;
        let is_known = ExportAccess::try_from(rule.access).is_ok();
        if !is_known || Squash::try_from(rule.squash).is_err() {
            return Err(format!("the rule for {} is of a later release", rule.clients));
        }
        if rule.squash() != Squash::Nobody && (rule.anon_uid == 0 || rule.anon_gid == 0) {
            return Err(format!("the rule for {}: nobody is squashed to root", rule.clients));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(clients: &str, access: ExportAccess, squash: Squash) -> pb::ExportRule {
        pb::ExportRule {
            clients: clients.into(),
            access: access.into(),
            squash: squash.into(),
            anon_uid: 65_534,
            anon_gid: 65_533,
        }
    }

    fn access(rules: &[pb::ExportRule], from: &str) -> ExportAccess {
        Ruling::of(rules, Some(from.parse().unwrap())).access
    }

    #[test]
    fn the_first_rule_for_the_address_holds() {
        use ExportAccess::{Nothing, ReadOnly, ReadWrite};
        let rules = [
            rule("10.1.2.3", ReadWrite, Squash::Nobody),
            rule("10.1.0.0/16", ReadOnly, Squash::Root),
            rule("fd00::/8", ReadWrite, Squash::Everybody),
        ];
        assert_eq!(access(&rules, "10.1.2.3"), ReadWrite);
        assert_eq!(access(&rules, "::ffff:10.1.2.3"), ReadWrite, "as a listener for both shows it");
        assert_eq!(access(&rules, "10.1.2.4"), ReadOnly);
        assert_eq!(access(&rules, "10.2.0.1"), Nothing, "rules, and none for it");
        assert_eq!(access(&rules, "fd12::1"), ReadWrite);
        assert_eq!(access(&rules, "fe80::1"), Nothing);
        assert_eq!(Ruling::of(&rules, None).access, Nothing);
        assert_eq!(Ruling::of(&[], None), Ruling::FREE);
        let all = [rule("*", ReadOnly, Squash::Nobody)];
        assert_eq!(Ruling::of(&all, None).access, ReadOnly);
        assert_eq!(access(&[rule("0.0.0.0/0", ReadOnly, Squash::Root)], "1.2.3.4"), ReadOnly);
    }

    #[test]
    fn who_is_squashed_has_nothing_of_root() {
        let cred = |uid, gid, groups: &[u32]| pb::Credentials { uid, gid, groups: groups.to_vec() };
        let squashed = |squash, mut who: pb::Credentials| {
            let rules = [rule("*", ExportAccess::ReadWrite, squash)];
            Ruling::of(&rules, None).squash(&mut who);
            who
        };
        let anon = cred(65_534, 65_533, &[]);
        assert_eq!(squashed(Squash::Root, cred(0, 0, &[0, 5])), anon);
        assert_eq!(squashed(Squash::Root, cred(7, 0, &[0, 5])), cred(7, 65_533, &[5]));
        assert_eq!(squashed(Squash::Root, cred(7, 7, &[5])), cred(7, 7, &[5]));
        assert_eq!(squashed(Squash::Everybody, cred(7, 7, &[5])), anon);
        assert_eq!(squashed(Squash::Nobody, cred(0, 0, &[0])), cred(0, 0, &[0]));
    }

    #[test]
    fn rules_that_cannot_be_followed_are_refused() {
        let bad = ["", "all", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/x", "fd00::/129", "10.0.0"];
        for clients in bad {
            let rules = [rule(clients, ExportAccess::ReadWrite, Squash::Nobody)];
            assert!(check(&rules).is_err(), "{clients}");
        }
        let ok = rule("10.0.0.0/8", ExportAccess::ReadOnly, Squash::Root);
        assert_eq!(check(std::slice::from_ref(&ok)), Ok(()));
        assert!(check(&vec![ok.clone(); EXPORT_RULES_MAX + 1]).is_err());
        assert!(check(&[pb::ExportRule { anon_uid: 0, ..ok.clone() }]).is_err());
        assert!(check(&[pb::ExportRule { access: 9, ..ok }]).is_err());
    }
}

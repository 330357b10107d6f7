//! From which place of this host a connection leaves toward a peer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use ff2_verbs::{
    Endpoint, Gid, GidKind, Place,
    place::{self, Subnet},
};
use parking_lot::Mutex;

use super::{RdmaError, reason};
use crate::{
    clock,
    limits::{NO_PLACES_AGE_MAX, PLACES_AGE_MAX},
};

#[derive(Debug)]
pub(super) struct Ways {
    subnets: Vec<Subnet>,
    /// How long a place is left out.
    pause: Duration,
    known: Mutex<Known>,
    /// Places that failed toward a peer, and until when they are left out there.
    avoided: Mutex<HashMap<(String, Place), Instant>>,
}

/// The places of this host when it was last looked at: cards and addresses come and go.
#[derive(Debug)]
struct Known {
    places: Vec<Place>,
    /// Until when that is good enough.
    until: Instant,
}

impl Known {
    /// Where there is nothing it is looked again soon, but not for each connection.
    fn new(places: Vec<Place>) -> Self {
        let age_max = if places.is_empty() { NO_PLACES_AGE_MAX } else { PLACES_AGE_MAX };
        Self { places, until: clock::now() + age_max }
    }
}

impl Ways {
    pub(super) fn new(subnets: Vec<Subnet>, pause: Duration) -> Result<Self, RdmaError> {
        let places = match place::all() {
            // A kernel without RDMA may have it later.
            Err(RdmaError::NoDevice) => Vec::new(),
            found => found?,
        };
        let known = Mutex::new(Known::new(places));
        Ok(Self { subnets, pause, known, avoided: Mutex::default() })
    }

    /// For a client: `peer` is where the server listens.
    /// `None`: all that there are failed a moment ago.
    pub(super) fn toward(&self, address: &str, peer: IpAddr) -> Result<Option<Place>, String> {
        let candidates = candidates(&self.places(), &self.subnets, peer)?;
        let mut avoided = self.avoided.lock();
        let now = clock::now();
        avoided.retain(|_, until| *until > now);
        let usable = |place: &Place| !avoided.contains_key(&(address.to_owned(), place.clone()));
        Ok(candidates.into_iter().find(usable))
    }

    /// For a server: toward the place that the client's end has.
    pub(super) fn back(&self, client: &Endpoint) -> Result<Place, RdmaError> {
        back(&self.places(), client.gid(), client.is_infiniband())
    }

    pub(super) fn avoid(&self, address: &str, place: &Place) {
        let until = clock::now() + self.pause;
        self.avoided.lock().insert((address.to_owned(), place.clone()), until);
        self.look_again();
    }

    /// Something failed: perhaps a place is there no more.
    pub(super) fn look_again(&self) {
        let mut known = self.known.lock();
        if !known.places.is_empty() {
            known.until = clock::now();
        }
    }

    fn places(&self) -> Vec<Place> {
        let mut known = self.known.lock();
        if clock::now() >= known.until {
            let found = place::all().unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot look for RDMA ports");
                Vec::new()
            });
            *known = Known::new(found);
        }
        known.places.clone()
    }
}

/// The places that may serve, the best first; or why there is none.
fn candidates(places: &[Place], subnets: &[Subnet], peer: IpAddr) -> Result<Vec<Place>, String> {
    if !subnets.is_empty() {
        let within: Vec<Place> = place::within(places, subnets).into_iter().cloned().collect();
        let none = "no active RDMA port has an address within `rdma_subnets`";
        return if within.is_empty() { Err(none.into()) } else { Ok(within) };
    }
    match place::toward(places, peer) {
        Ok(place) => Ok(vec![place]),
        // Routes say nothing of InfiniBand, where every place of a subnet reaches every other.
        Err(error) => {
            let places: Vec<Place> = place::infiniband(places).cloned().collect();
            if places.is_empty() { Err(reason(error)) } else { Ok(places) }
        }
    }
}

fn back(places: &[Place], client: [u8; 16], infiniband: bool) -> Result<Place, RdmaError> {
    if infiniband {
        let gid = Gid { index: 0, bytes: client, kind: GidKind::InfiniBand };
        let beside = place::beside(places, &gid).first().copied().cloned();
        return beside.ok_or(RdmaError::Endpoint("it is on an InfiniBand subnet without us"));
    }
    place::toward(places, IpAddr::V6(Ipv6Addr::from(client)).to_canonical())
}

#[cfg(test)]
impl Ways {
    /// Of a host without devices.
    pub(super) fn blank(subnets: Vec<Subnet>) -> Self {
        let known = Mutex::new(Known::new(Vec::new()));
        let pause = crate::limits::RDMA_PAUSE;
        Self { subnets, pause, known, avoided: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::limits::RDMA_PAUSE;

    fn place(kind: GidKind, address: &str) -> Place {
        let bytes = match address.parse().unwrap() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Place { device: "card".into(), port: 1, gid: Gid { index: 0, bytes, kind } }
    }

    fn ways(subnets: &[&str], places: &[Place]) -> Ways {
        let subnets = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
        Ways { known: Mutex::new(Known::new(places.to_vec())), ..Ways::blank(subnets) }
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn a_place_that_failed_is_left_out_for_a_minute_and_for_that_peer() {
        let places = [place(GidKind::RoceV2, "10.0.0.1"), place(GidKind::RoceV2, "10.0.0.2")];
        let ways = ways(&["10.0.0.2", "10.0.0.0/24"], &places);
        let chosen = |address| {
            *ways.known.lock() = Known::new(places.to_vec());
            ways.toward(address, PEER).unwrap().map(|place| place.gid.ip().unwrap().to_string())
        };
        assert_eq!(chosen("a:1").unwrap(), "10.0.0.2");
        ways.avoid("a:1", &places[1]);
        assert_eq!(chosen("a:1").unwrap(), "10.0.0.1", "the next of the subnets");
        assert_eq!(chosen("b:1").unwrap(), "10.0.0.2", "others still reach it");
        ways.avoid("a:1", &places[0]);
        assert_eq!(chosen("a:1"), None);
        tokio::time::advance(RDMA_PAUSE + std::time::Duration::from_millis(1)).await;
        assert_eq!(chosen("a:1").unwrap(), "10.0.0.2");
    }

    #[test]
    fn without_subnets_the_route_chooses_and_infiniband_is_the_rest() {
        let (local, far) =
            (place(GidKind::RoceV2, "127.0.0.1"), place(GidKind::RoceV2, "10.0.0.1"));
        let ib = place(GidKind::InfiniBand, "fe80::1");
        let all = [far.clone(), ib.clone(), local.clone()];
        assert_eq!(candidates(&all, &[], PEER).unwrap(), [local]);
        assert_eq!(candidates(&all[..2], &[], PEER).unwrap(), [ib]);
        let none = candidates(&[far], &[], PEER).unwrap_err();
        assert!(none.contains("has the address 127.0.0.1"), "{none}");
        let subnets = ["10.9.0.0/16".parse().unwrap()];
        let none = candidates(&all, &subnets, PEER).unwrap_err();
        assert!(none.contains("rdma_subnets"), "{none}");
    }

    #[test]
    fn a_server_answers_from_where_the_client_is() {
        let all = [place(GidKind::RoceV2, "127.0.0.1"), place(GidKind::InfiniBand, "fe80::1")];
        let client = place(GidKind::RoceV2, "127.0.0.1").gid.bytes;
        assert_eq!(back(&all, client, false).unwrap(), all[0]);
        let beside = place(GidKind::InfiniBand, "fe80::77").gid.bytes;
        assert_eq!(back(&all, beside, true).unwrap(), all[1]);
        let elsewhere = place(GidKind::InfiniBand, "fe81::77").gid.bytes;
        assert!(back(&all, elsewhere, true).is_err());
    }
}

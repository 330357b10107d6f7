//! Where a connection can leave this host: a port of a device with one of its addresses (GIDs).
//!
//! Which one is decided by what the addresses are. Names of devices and interfaces mean nothing: administrators rename
//! them, and a rule on names is wrong on the next machine.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use crate::{Device, Error, device::names};

/// What a GID is used for on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GidKind {
    /// InfiniBand itself, with a subnet manager.
    InfiniBand,
    /// Ethernet frames that no router forwards: never chosen.
    RoceV1,
    /// UDP packets.
    RoceV2,
}

/// An address of a port, by its index in the port's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gid {
    pub index: u8,
    pub bytes: [u8; 16],
    pub kind: GidKind,
}

/// A port of this host with one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub device: String,
    pub port: u8,
    pub gid: Gid,
}

/// A range of addresses in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = IpAddr::from(self.gid.bytes).to_canonical();
        write!(f, "{address} (port {} of {})", self.port, self.device)
    }
}

impl Gid {
    /// The IP address that it stands for: of RoCE v2 alone.
    pub fn ip(&self) -> Option<IpAddr> {
        let ip = IpAddr::V6(Ipv6Addr::from(self.bytes)).to_canonical();
        (self.kind == GidKind::RoceV2).then_some(ip)
    }

    /// The upper half: equal for all ports of one InfiniBand subnet.
    pub fn prefix(&self) -> [u8; 8] {
        self.bytes[..8].try_into().expect("half of it")
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl std::str::FromStr for Subnet {
    type Err = String;

    /// `10.77.0.0/16`, `fd00::/8`; without bits a single address.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no subnet: expected one like 10.77.0.0/16");
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = if bits.is_empty() { most } else { bits.parse().map_err(|_| wrong())? };
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl Subnet {
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
            _ => return false,
        };
        let differing: u128 = ours ^ theirs;
        self.bits == 0 || differing >> (width - u32::from(self.bits)) == 0
    }
}

/// All places of active ports of this host.
///
/// # Errors
/// If no device can be asked. One among others that cannot, as it is just being taken away, is left out.
pub fn all() -> Result<Vec<Place>, Error> {
    let (mut places, mut failed) = (Vec::new(), Ok(()));
    for device in names()? {
        match of(&device) {
            Ok(some) => places.extend(some),
            Err(error) => failed = Err(error),
        }
    }
    if places.is_empty() { failed.map(|()| places) } else { Ok(places) }
}

fn of(device: &str) -> Result<Vec<Place>, Error> {
    let opened = Device::open(device)?;
    let ports = Path::new("/sys/class/infiniband").join(device).join("ports");
    let mut places = Vec::new();
    for port in numbers(&ports)? {
        if opened.port(port)?.active {
            let gids = gids(&ports.join(port.to_string()))?;
            places.extend(gids.into_iter().map(|gid| Place {
                device: device.to_owned(),
                port,
                gid,
            }));
        }
    }
    Ok(places)
}

/// The place from which this host's routes lead to a peer.
///
/// # Errors
/// [`Error::NoPlace`] if they lead through an interface that no RDMA device stands behind.
pub fn toward(places: &[Place], peer: IpAddr) -> Result<Place, Error> {
    let source = source(peer).map_err(|source| Error::Call {
        call: "look for a route to the peer",
        device: peer.to_string(),
        source,
    })?;
    with_ip(places, source).cloned().ok_or(Error::NoPlace(source))
}

/// The places within one of the subnets that an administrator named for RDMA, in the subnets' order.
pub fn within<'a>(places: &'a [Place], subnets: &[Subnet]) -> Vec<&'a Place> {
    let inside =
        |subnet: &Subnet, place: &Place| place.gid.ip().is_some_and(|ip| subnet.contains(ip));
    subnets
        .iter()
        .flat_map(|subnet| places.iter().filter(move |place| inside(subnet, place)))
        .collect()
}

/// The places on the InfiniBand subnet of a peer's address.
pub fn beside<'a>(places: &'a [Place], peer: &Gid) -> Vec<&'a Place> {
    let on = |place: &&Place| place.gid.prefix() == peer.prefix();
    if peer.kind == GidKind::InfiniBand {
        infiniband(places).filter(on).collect()
    } else {
        Vec::new()
    }
}

/// The places on InfiniBand itself.
pub fn infiniband(places: &[Place]) -> impl Iterator<Item = &Place> {
    places.iter().filter(|place| place.gid.kind == GidKind::InfiniBand)
}

/// The place with this address.
pub fn with_ip(places: &[Place], ip: IpAddr) -> Option<&Place> {
    places.iter().find(|place| place.gid.ip() == Some(ip))
}

/// The address from which the kernel would send to the peer. Nothing is sent.
fn source(peer: IpAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::from((any, 0)))?;
    // Any port: the discard service's.
    socket.connect((peer, 9))?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

/// A port's table, without empty entries.
fn gids(port: &Path) -> Result<Vec<Gid>, Error> {
    let mut found = Vec::new();
    for index in numbers(&port.join("gids"))? {
        // Reading an entry that is empty fails or gives zeroes, as the kernel's version has it.
        let text = |table: &str| fs::read_to_string(port.join(table).join(index.to_string()));
        let (Ok(address), Ok(kind)) = (text("gids"), text("gid_attrs/types")) else { continue };
        let Ok(address) = address.trim().parse::<Ipv6Addr>() else { continue };
        let kind = match kind.trim() {
            "RoCE v2" => GidKind::RoceV2,
            "IB/RoCE v1" if is_infiniband(port) => GidKind::InfiniBand,
            _ => GidKind::RoceV1,
        };
        if !address.is_unspecified() {
            found.push(Gid { index, bytes: address.octets(), kind });
        }
    }
    Ok(found)
}

fn is_infiniband(port: &Path) -> bool {
    fs::read_to_string(port.join("link_layer")).is_ok_and(|layer| layer.trim() == "InfiniBand")
}

/// The files of a folder that are named by numbers, in their order.
fn numbers(folder: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Sysfs { path: folder.display().to_string(), source };
    let names = fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry?.path()));
    let names: Vec<PathBuf> = names.collect::<Result<_, _>>().map_err(failed)?;
    // Tables have up to 1,024 places; addresses stand at their begin.
    let mut numbers: Vec<u8> =
        names.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn place(device: &str, kind: GidKind, address: &str) -> Place {
        let ip: IpAddr = address.parse().unwrap();
        let bytes = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Place { device: device.into(), port: 1, gid: Gid { index: 0, bytes, kind } }
    }

    fn places() -> Vec<Place> {
        vec![
            place("bond7", GidKind::RoceV1, "10.0.0.1"),
            place("bond7", GidKind::RoceV2, "10.0.0.1"),
            place("weird.name", GidKind::RoceV2, "127.0.0.1"),
            place("mlx5_0", GidKind::RoceV2, "fd00::5"),
            place("ib", GidKind::InfiniBand, "fe80::1"),
        ]
    }

    #[test]
    fn the_route_chooses_whatever_the_names() {
        let toward = |peer: &str| toward(&places(), peer.parse().unwrap());
        assert_eq!(toward("127.0.0.1").unwrap().device, "weird.name");
        assert!(matches!(
            super::toward(&places()[..2], [127, 0, 0, 1].into()),
            Err(Error::NoPlace(_))
        ));
    }

    #[test]
    fn a_subnet_chooses_and_v1_never_does() {
        let names = |subnets: &[&str]| {
            let subnets: Vec<Subnet> = subnets.iter().map(|text| text.parse().unwrap()).collect();
            let places = places();
            within(&places, &subnets).iter().map(|p| p.device.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["10.0.0.0/8"]), ["bond7"]);
        assert_eq!(names(&["fd00::/8", "10.0.0.1"]), ["mlx5_0", "bond7"]);
        assert_eq!(names(&["0.0.0.0/0"]), ["bond7", "weird.name"]);
        assert!(names(&["10.0.0.2/32", "11.0.0.0/8"]).is_empty());
    }

    #[test]
    fn wrong_subnets_are_refused() {
        for text in ["10.77.0.0/16", "fd00::/8"] {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/x", "eth0"] {
            let error = text.parse::<Subnet>().unwrap_err();
            assert!(error.contains("10.77.0.0/16"), "{error}");
        }
    }

    #[test]
    fn infiniband_is_chosen_by_its_subnet() {
        let peer = |address| place("", GidKind::InfiniBand, address).gid;
        assert_eq!(beside(&places(), &peer("fe80::99")).len(), 1);
        assert!(beside(&places(), &peer("fe81::99")).is_empty());
        assert!(beside(&places(), &place("", GidKind::RoceV2, "fe80::99").gid).is_empty());
    }
}

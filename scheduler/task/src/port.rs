//! The port that rank 0 may listen on: one that is free where it is.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
};

use crate::{JobFolder, RunSpec, limits};

/// The port for the ranks of an attempt. The first node takes the one that was proposed, or the next that nobody
/// listens on, and puts it down in the job's folder; the others wait for that. Where none comes it is the one that was
/// proposed.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn agree(spec: &RunSpec, folder: &JobFolder) -> io::Result<u16> {
    if spec.node_rank != 0 {
        return Ok(folder.await_port(limits::PORT_WAIT).unwrap_or(spec.master_port));
    }
    let last = spec.master_port.saturating_add(limits::PORTS_TRIED);
    let port = (spec.master_port..=last).find(|port| is_free(*port)).unwrap_or(spec.master_port);
    if spec.nodes > 1 {
        folder.put_port(port)?;
    }
    Ok(port)
}

fn is_free(port: u16) -> bool {
    let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    // Before the second: it may listen for both.
    let is_free = v4.is_ok();
    drop(v4);
    let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    is_free && v6.map_or_else(|error| error.kind() != io::ErrorKind::AddrInUse, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::spec;

    #[test]
    fn all_nodes_have_the_first_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        // Not one of those that the system hands out: nobody else takes it when it is free again.
        let mut ports = (20_000 + std::process::id() as u16 % 4_000..).step_by(40);
        let held = ports.find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
        let held = held.unwrap();
        let proposed = held.local_addr().unwrap().port();
        let folder = JobFolder::new(dir.path(), 3);
        let first = RunSpec { node_rank: 0, nodes: 2, master_port: proposed, ..spec() };
        let agreed = agree(&first, &folder).unwrap();
        assert!((proposed + 1..=proposed + limits::PORTS_TRIED).contains(&agreed), "{agreed}");
        let second = RunSpec { node_rank: 1, ..first.clone() };
        assert_eq!(agree(&second, &folder).unwrap(), agreed);
        // Another attempt has another one.
        let next = JobFolder::new(dir.path(), 4);
        next.prepare(&dir.path().join("checkpoint"), false).unwrap();
        assert_eq!(folder.await_port(std::time::Duration::ZERO), None);
        drop(held);
        assert_eq!(agree(&first, &next).unwrap(), proposed);
    }
}

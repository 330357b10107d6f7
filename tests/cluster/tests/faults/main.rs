//! What befalls machines, on real processes: power cuts, disks that fail or are slow, servers that stop, links
//! that are cut, indexes that are destroyed, replicas that are lost together. The load sees a pause and no
//! error; nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cut_links;
mod destroyed;
mod failing_disk;
mod power_cut;
mod programs;
mod slow_disk;
mod stopped;
mod two_lost;

//! `ff2ctl why TARGET|PATH`: what is it waiting for?

use std::path::Path;

use anyhow::{Context, Result};
use ff2_proto::pb;
use serde_json::json;

use crate::{cli::Surroundings, cluster::Role, mount};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A target's number, a path on a mount of this cluster, or a path in the volume
    #[arg(value_name = "TARGET|PATH")]
    what: String,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let mounts: Vec<_> = match around.folder.read()? {
        Some(file) => file.of(Role::Fuse).filter_map(|p| p.mount_point.clone()).collect(),
        None => Vec::new(),
    };
    let request = request(&args.what, mounts.iter().map(AsRef::as_ref))?;
    let reply = around.access.connect()?.why(request).await?;
    around.output.print(&json!({ "of": args.what, "reasons": reply.reasons }), || {
        match reply.reasons.is_empty() {
            true => format!("{} waits for nothing", args.what),
            false => reply.reasons.join("\n"),
        }
    })
}

fn request<'a>(what: &str, mounts: impl Iterator<Item = &'a Path>) -> Result<pb::WhyRequest> {
    if let Ok(target) = what.trim_start_matches("target-").parse() {
        return Ok(pb::WhyRequest { target, path: String::new() });
    }
    let path = std::path::absolute(what).context("find the path")?;
    // Mounts are known without links; a path in the volume need not exist on this host.
    let local = mount::resolve(&path).unwrap_or_else(|_| path.clone());
    let below = mounts.filter_map(|mount| local.strip_prefix(mount).ok()).next();
    let path = below.map_or_else(|| path.clone(), |below| Path::new("/").join(below));
    let path = path.to_str().context("the path is no UTF-8: name the target instead")?.to_owned();
    Ok(pb::WhyRequest { target: 0, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_paths_are_told_apart() {
        let mounts = [Path::new("/mnt/ff2")];
        let of = |what| request(what, mounts.into_iter()).unwrap();
        assert_eq!(of("12").target, 12);
        assert_eq!(of("target-12").target, 12);
        assert_eq!(of("/mnt/ff2/a/b").path, "/a/b");
        assert_eq!(of("/mnt/ff2").path, "/");
        assert_eq!(of("/a/b").path, "/a/b");
    }
}

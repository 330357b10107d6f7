//! Starts an example again as each of its ranks: for figures of processes that work together.

use std::{
    env,
    error::Error,
    fs,
    net::TcpListener,
    process::{Child, Command},
};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Runs `ranks` processes of this program, with these arguments and one thread that computes, and waits for them.
///
/// # Errors
/// Processes that cannot be started, and ranks that fail.
pub(crate) fn start(ranks: usize, arguments: &[usize]) -> Outcome<()> {
    let folder = env::temp_dir().join(format!("ff2-ranks-{}", std::process::id()));
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let child = |rank: usize| -> std::io::Result<Child> {
        Command::new(env::current_exe()?)
            .args(arguments.iter().map(usize::to_string))
            .env("RAYON_NUM_THREADS", "1")
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", ranks.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env("FF2_RANK_KEY", folder.join("ranks.key"))
            .spawn()
    };
    let children = (0..ranks).map(child).collect::<Result<Vec<_>, _>>()?;
    for mut child in children {
        if !child.wait()?.success() {
            return Err("a rank failed".into());
        }
    }
    // One rank alone has no secret.
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

//! `mount.ff2`: what `mount -t ff2 FILE FOLDER -o ...` and lines of `/etc/fstab` run.
//!
//! The source is the configuration of a mount; the command line says where, and may change some of it.
//! The helper starts the mount's own process, waits until the mount stands, and says why if it does
//! not. It is this program under another name.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ff2_daemon::config::{MountConfig, OverIoUring};

/// The name under which the program is the helper.
pub const NAME: &str = "mount.ff2";

/// A cluster that starts at the same time as this host comes up within this.
const PATIENCE: Duration = Duration::from_secs(90);
/// Exit status of mount(8) for a mount that failed, and for a wrong command line.
pub const FAILED: u8 = 32;
pub const WRONG_USE: u8 = 1;

/// What the command line changes of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub mount_point: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub read_only: bool,
    pub allow_other: bool,
    pub dirsync: bool,
    pub noatime: bool,
    pub subdir: Option<String>,
    pub cache_ms: Option<u64>,
    pub io_uring: Option<OverIoUring>,
}

impl Changes {
    pub fn apply(self, config: &mut MountConfig) {
        config.read_only |= self.read_only;
        config.allow_other |= self.allow_other;
        config.dirsync |= self.dirsync;
        config.noatime |= self.noatime;
        if let Some(path) = self.mount_point {
            config.mount_point = path;
        }
        if let Some(path) = self.data_dir {
            config.data_dir = path;
        }
        if let Some(path) = self.subdir {
            config.subdir = Some(path);
        }
        if let Some(cache_ms) = self.cache_ms {
            config.cache_ms = cache_ms;
        }
        if let Some(io_uring) = self.io_uring {
            config.io_uring = io_uring;
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        };
        add("--mount-point", self.mount_point.clone().map(Into::into));
        add("--data-dir", self.data_dir.clone().map(Into::into));
        add("--subdir", self.subdir.clone().map(Into::into));
        add("--cache-ms", self.cache_ms.map(|ms| ms.to_string().into()));
        add("--io-uring", self.io_uring.map(|whether| whether.to_string().into()));
        let flags = [
            ("--read-only", self.read_only),
            ("--allow-other", self.allow_other),
            ("--dirsync", self.dirsync),
            ("--noatime", self.noatime),
        ];
        arguments.extend(flags.iter().filter(|(_, set)| *set).map(|(name, _)| (*name).into()));
        arguments
    }
}

/// A command line of the helper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub config: PathBuf,
    pub changes: Changes,
    /// Only look whether the command line is right.
    fake: bool,
}

/// Reads `SOURCE FOLDER [-fnsv] [-o OPTIONS]...`, as mount(8) gives it.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut request = Request::default();
    let mut places = Vec::new();
    let (mut options, mut sloppy) = (Vec::new(), false);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let mut value = |what: &str| {
            let next = arguments.next().and_then(|value| value.into_string().ok());
            next.ok_or_else(|| format!("{what} needs a value"))
        };
        match text.as_str() {
            "-o" => options.push(value("-o")?),
            "-t" | "-N" => drop(value(&text)?),
            flags if flags.starts_with('-') && flags.len() > 1 => {
                for flag in flags.chars().skip(1) {
                    match flag {
                        'f' => request.fake = true,
                        's' => sloppy = true,
                        'n' | 'v' | 'r' | 'w' => request.changes.read_only |= flag == 'r',
                        _ => return Err(format!("there is no flag -{flag}")),
                    }
                }
            }
            _ => places.push(argument),
        }
    }
    let Ok([source, folder]) = <[OsString; 2]>::try_from(places) else {
        return Err(format!("usage: {NAME} CONFIGURATION FOLDER [-fnrsvw] [-o OPTIONS]"));
    };
    request.config = source.into();
    request.changes.mount_point = Some(folder.into());
    for option in options.iter().flat_map(|list| list.split(',')).filter(|one| !one.is_empty()) {
        take(&mut request.changes, option, sloppy)?;
    }
    Ok(request)
}

fn take(changes: &mut Changes, option: &str, sloppy: bool) -> Result<(), String> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match name {
        "ro" => changes.read_only = true,
        "rw" => changes.read_only = false,
        "allow_other" => changes.allow_other = true,
        "dirsync" | "sync" => changes.dirsync = true,
        "noatime" => changes.noatime = true,
        "relatime" => changes.noatime = false,
        "strictatime" => {
            return Err(
                "strictatime: access times are kept as by relatime, or not at all (noatime)".into(),
            );
        }
        "subdir" if value.is_empty() => return Err("subdir needs a path".into()),
        "subdir" => changes.subdir = Some(value.into()),
        "data_dir" => changes.data_dir = Some(value.into()),
        "cache_ms" => {
            let number = value.parse();
            changes.cache_ms = Some(number.map_err(|_| format!("cache_ms={value}: no number"))?);
        }
        "io_uring" => {
            let whether = value.parse();
            changes.io_uring = Some(whether.map_err(|why| format!("io_uring={why}"))?);
        }
        // True of each mount, or said to others.
        "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "nouser" | "nosuid" | "nodev"
        | "exec" | "async" | "comment" => {}
        _ if name.starts_with("x-") || sloppy => {}
        _ => return Err(format!("unknown option {option}")),
    }
    Ok(())
}

/// Mounts, and returns when the mount stands.
pub fn run(mut request: Request) -> Result<(), String> {
    let config = ff2_daemon::config::load::<MountConfig>(&request.config);
    let mut config = config.map_err(|error| error.to_string())?;
    if request.fake {
        return Ok(());
    }
    let mount_point = request.changes.mount_point.clone().unwrap_or_default();
    let mount_point = fs::canonicalize(&mount_point)
        .map_err(|error| format!("{}: {error}", mount_point.display()))?;
    request.changes.mount_point = Some(mount_point.clone());
    if request.changes.data_dir.is_none() {
        request.changes.data_dir = Some(data_dir(&config, &mount_point));
    }
    let arguments = request.changes.arguments();
    request.changes.apply(&mut config);
    let log = config.data_dir.join("log");
    let said = |error: io::Error| format!("{}: {error}", log.display());
    fs::create_dir_all(&config.data_dir).map_err(said)?;
    let file = File::create(&log).map_err(said)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("ff2-fuse")
        .arg("--config")
        .arg(&request.config)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        // Not ended by a signal to the terminal that mounted.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("start the mount's process: {error}"))?;
    wait(&mut child, &mount_point).map_err(|why| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        format!("{why}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    })
}

/// Of the configuration for its own mount point; another mount of it has one of its own below.
fn data_dir(config: &MountConfig, mount_point: &Path) -> PathBuf {
    if config.mount_point == mount_point {
        return config.data_dir.clone();
    }
    let name = mount_point.to_string_lossy().trim_matches('/').replace('/', "-");
    config.data_dir.join(format!("at-{name}"))
}

fn wait(child: &mut Child, mount_point: &Path) -> Result<(), String> {
    let begun = Instant::now();
    let before = mounts_at(mount_point);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the mount's process ended: {status}"));
        }
        if mounts_at(mount_point) > before {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("no mount after {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many file systems of ours lie there. Looking at the folder itself could wait for the mount.
fn mounts_at(mount_point: &Path) -> usize {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_ours = |line: &&str| {
        let Some((mount, source)) = line.split_once(" - ") else { return false };
        let place = mount.split(' ').nth(4).map(crate::tune::unescape);
        place.as_deref().map(Path::new) == Some(mount_point) && source.starts_with("fuse.ff2 ")
    };
    list.lines().filter(is_ours).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_command_line_is_that_of_mount() {
        let request = parsed("/etc/ff2/data.toml /mnt -n -o rw,noauto,_netdev,x-systemd.automount");
        let request = request.unwrap();
        assert_eq!(request.config, Path::new("/etc/ff2/data.toml"));
        let plain = Changes { mount_point: Some("/mnt".into()), ..Changes::default() };
        assert_eq!(request.changes, plain);
        let quiet = parsed("a b -o noatime,nodev").unwrap().changes;
        assert!(quiet.noatime && !parsed("a b -o noatime,relatime").unwrap().changes.noatime);
        let request =
            parsed("a b -v -o ro,allow_other,dirsync -o subdir=/x/y,cache_ms=0,io_uring=no -t ff2")
                .unwrap();
        let expected = Changes {
            mount_point: Some("b".into()),
            read_only: true,
            allow_other: true,
            dirsync: true,
            subdir: Some("/x/y".into()),
            cache_ms: Some(0),
            io_uring: Some(OverIoUring::No),
            ..Changes::default()
        };
        assert_eq!(request.changes, expected);
        assert_eq!(expected.arguments().len(), 11);
        assert!(parsed("a b -fv").unwrap().fake);
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        for line in [
            "a",
            "a b c",
            "a b -o dev",
            "a b -o strictatime",
            "a b -o subdir=",
            "a b -o cache_ms=x",
            "a b -x",
            "a b -o",
            "a b -o io_uring",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(parsed("a b -s -o whatever=1").is_ok(), "unless it is told not to mind");
    }

    fn lines() -> Vec<Vec<u8>> {
        vec![
            b"/etc/ff2/data.toml /mnt -n -o rw,noauto,_netdev,x-systemd.automount".to_vec(),
            b"a b -v -o ro,allow_other,dirsync -o subdir=/x/y,cache_ms=0,io_uring=no -t ff2"
                .to_vec(),
            b"a b -fsnvrw".to_vec(),
        ]
    }

    #[test]
    fn damaged_command_lines() {
        ff2_fuzz::target!(lines(), |bytes| {
            let words = bytes.split(|byte| *byte == b' ');
            let words: Vec<_> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
            match ff2_fuzz::bounded(bytes, || parse(words)) {
                Ok(request) => assert!(request.changes.mount_point.is_some()),
                Err(why) => assert!(!why.is_empty()),
            }
        });
    }
}

//! Fault points: named places where a test makes a process fail, hang or die.
//!
//! They are always compiled, and cost one relaxed load while nothing is armed. Armed by the
//! environment, `FF2_FAULTS="storage.forward.after_write=kill:1,meta.apply=delay(50)"`, or by
//! [`arm`]. `name=action[:count]`; without a count it fires each time. Actions: `error` or
//! `error(CODE)` with a code of ff2-proto, `delay(MILLISECONDS)`, `kill` (SIGKILL to this process).

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use ff2_proto::{Status, status::Code};
use parking_lot::Mutex;

pub const FAULTS_ENV: &str = "FF2_FAULTS";

static ARMED: AtomicBool = AtomicBool::new(false);
static POINTS: Mutex<BTreeMap<String, Point>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Error(Code),
    Delay(Duration),
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    action: Action,
    /// How often it still fires; `None` always.
    left: Option<u64>,
}

/// A failure that somebody asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("fault point {name} was armed with {code:?}")]
pub struct Fault {
    pub name: String,
    pub code: Code,
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code, fault.to_string())
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// A text of [`FAULTS_ENV`] that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "fault {text:?}: {reason}; write name=error|error(CODE)|delay(MS)|kill with an optional :COUNT"
)]
pub struct FaultSyntax {
    text: String,
    reason: &'static str,
}

/// `fault!("name")?` in synchronous code (a delay blocks the thread). Evaluates to
/// `Result<(), Fault>`.
#[macro_export]
macro_rules! fault {
    ($name:expr) => {
        if $crate::fault::armed() { $crate::fault::hit($name) } else { Ok(()) }
    };
}

/// As [`fault!`], in async code.
#[macro_export]
macro_rules! fault_async {
    ($name:expr) => {
        if $crate::fault::armed() { $crate::fault::hit_async($name).await } else { Ok(()) }
    };
}

/// Whether any point is armed.
#[inline]
pub fn armed() -> bool {
    ARMED.load(Ordering::Relaxed)
}

/// Arms points as the environment says. Returns how many.
pub fn arm_from_env() -> Result<usize, FaultSyntax> {
    std::env::var(FAULTS_ENV).map_or(Ok(0), |text| arm(&text))
}

/// Arms points by text, over those that are armed already.
pub fn arm(text: &str) -> Result<usize, FaultSyntax> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let points = entries.map(parse).collect::<Result<Vec<_>, _>>()?;
    let count = points.len();
    if count > 0 {
        POINTS.lock().extend(points);
        ARMED.store(true, Ordering::Relaxed);
    }
    Ok(count)
}

/// Disarms everything.
pub fn disarm_all() {
    ARMED.store(false, Ordering::Relaxed);
    POINTS.lock().clear();
}

/// Use [`fault!`].
#[doc(hidden)]
pub fn hit(name: &str) -> Result<(), Fault> {
    match fire(name) {
        None => Ok(()),
        Some(Action::Error(code)) => Err(Fault { name: name.to_owned(), code }),
        Some(Action::Delay(delay)) => {
            std::thread::sleep(delay);
            Ok(())
        }
        Some(Action::Kill) => die(),
    }
}

/// Use [`fault_async!`].
#[doc(hidden)]
pub async fn hit_async(name: &str) -> Result<(), Fault> {
    match fire(name) {
        None => Ok(()),
        Some(Action::Error(code)) => Err(Fault { name: name.to_owned(), code }),
        Some(Action::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        Some(Action::Kill) => die(),
    }
}

fn fire(name: &str) -> Option<Action> {
    let mut points = POINTS.lock();
    let point = points.get_mut(name)?;
    match &mut point.left {
        None => {}
        Some(0) => return None,
        Some(left) => *left -= 1,
    }
    tracing::warn!(point = name, action = ?point.action, "an armed fault point fires");
    Some(point.action)
}

fn die() -> ! {
    let me = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(me, rustix::process::Signal::KILL) {
        tracing::error!(%error, "SIGKILL to this process failed");
    }
    std::process::abort();
}

fn parse(text: &str) -> Result<(String, Point), FaultSyntax> {
    let bad = |reason| FaultSyntax { text: text.to_owned(), reason };
    let (name, rest) = text.split_once('=').ok_or_else(|| bad("there is no '='"))?;
    let (action, left) = match rest.split_once(':') {
        None => (rest, None),
        Some((action, count)) => {
            (action, Some(count.parse().map_err(|_| bad("the count is not a number"))?))
        }
    };
    let (word, argument) = match action.split_once('(') {
        None => (action, None),
        Some((word, rest)) => {
            (word, Some(rest.strip_suffix(')').ok_or_else(|| bad("a ')' is missing"))?))
        }
    };
    let action = match (word, argument) {
        ("error", None) => Action::Error(Code::Internal),
        ("error", Some(code)) => match Code::from_str_name(code) {
            Some(Code::Ok) => return Err(bad("OK is no error")),
            Some(code) => Action::Error(code),
            None => return Err(bad("no such code")),
        },
        ("delay", Some(ms)) => {
            let ms = ms.parse().map_err(|_| bad("the delay is not a number"))?;
            Action::Delay(Duration::from_millis(ms))
        }
        ("kill", None) => Action::Kill,
        _ => return Err(bad("no such action")),
    };
    Ok((name.trim().to_owned(), Point { action, left }))
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(code) => write!(f, "error({})", code.as_str_name()),
            Self::Delay(delay) => write!(f, "delay({})", delay.as_millis()),
            Self::Kill => f.write_str("kill"),
        }
    }
}

/// What is armed, for `/dump`.
pub fn list() -> BTreeMap<String, String> {
    let points = POINTS.lock();
    let show = |point: &Point| match point.left {
        None => point.action.to_string(),
        Some(left) => format!("{}:{left}", point.action),
    };
    points.iter().map(|(name, point)| (name.clone(), show(point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form() {
        let (name, point) = parse("a.b=kill:2").unwrap();
        assert_eq!((name.as_str(), point), ("a.b", Point { action: Action::Kill, left: Some(2) }));
        assert_eq!(parse("x=error(BUSY)").unwrap().1.action, Action::Error(Code::Busy));
        assert_eq!(
            parse("x=delay(20)").unwrap().1.action,
            Action::Delay(Duration::from_millis(20))
        );
        for bad in [
            "x",
            "x=",
            "x=explode",
            "x=delay",
            "x=delay(a)",
            "x=delay(1",
            "x=error(NO)",
            "x=error(OK)",
            "x=kill:y",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    /// The points are the process's, so one test speaks for them all.
    #[test]
    fn points_fire_as_often_as_told() {
        let reached = || -> Result<(), Status> {
            fault!("test.point")?;
            Ok(())
        };
        assert!(reached().is_ok());
        assert_eq!(arm("test.point=error(DISK_FAILED):2, test.other=delay(1)").unwrap(), 2);
        assert_eq!(reached().unwrap_err().code, Code::DiskFailed);
        assert_eq!(list()["test.point"], "error(DISK_FAILED):1");
        assert!(reached().is_err());
        assert!(reached().is_ok(), "the count is used up");
        assert!(fault!("test.other").is_ok());
        disarm_all();
        assert!(!armed());
        assert!(arm("nonsense").is_err());
    }

    fn points() -> Vec<Vec<u8>> {
        ["a.b=kill:2", "x=error(BUSY)", "y=error:3", "z=delay(20):1"].map(|one| one.into()).to_vec()
    }

    #[test]
    fn damaged_points() {
        ff2_fuzz::target!(points(), |bytes| {
            let Ok(text) = str::from_utf8(bytes) else { return };
            if let Ok((name, point)) = ff2_fuzz::bounded(bytes, || parse(text)) {
                let left = point.left.map(|left| format!(":{left}")).unwrap_or_default();
                let shown = format!("{name}={}{left}", point.action);
                assert_eq!(parse(&shown).unwrap(), (name, point));
            }
        });
    }
}

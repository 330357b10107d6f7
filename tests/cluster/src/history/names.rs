//! Two names in a directory, as a sequential object: create, unlink, rename, link and stat.

use super::Model;

/// A file: its inode number, or one that the model made up because nobody saw it yet.
pub type File = u64;

/// Numbers above are made up.
const UNSEEN: File = 1 << 63;

/// What the names lead to.
pub type Names = [Option<File>; 2];

/// One of the two names: `false` and `true`.
pub type Name = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// With `O_EXCL`. The number is unlike those of all other creates: of a file that nobody saw yet.
    Create(Name, u64),
    Unlink(Name),
    /// The other name becomes this one.
    RenameTo(Name),
    /// A second name for the other one's file. Not with renames in one history: rename(2) of a file to
    /// another name of its own does nothing, and the kernel finds out by two looks.
    LinkTo(Name),
    Stat(Name),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Created(File),
    /// Which file it is. Not how many names that has: stat(2) walks the path first, and looks at what it
    /// came to then, on any file system.
    Found(File),
    NotFound,
    Exists,
}

#[derive(Debug)]
pub struct TwoNames;

impl Model for TwoNames {
    type State = Names;
    type Action = Action;
    type Outcome = Outcome;

    fn initial() -> Names {
        [None, None]
    }

    fn step(names: &Names, action: &Action, outcome: Option<&Outcome>) -> Option<Names> {
        if let (Action::LinkTo(name), Some(Outcome::Exists)) = (action, outcome) {
            // link(2) walks to the file first, and meets the name then.
            return names[*name].is_some().then_some(*names);
        }
        if let (Action::RenameTo(name), Some(Outcome::Done)) = (action, outcome)
            && names[1 - name].is_none()
            && names[*name].is_some()
        {
            // rename(2) looks each name up by itself: a file that another client moves between the two
            // looks has both names for it, and then nothing is to be done.
            return Some(*names);
        }
        let (expected, after) = apply(*names, action, outcome);
        match (outcome, expected) {
            // It did what it would do.
            (None, _) => Some(after),
            (Some(Outcome::Found(seen)), Outcome::Found(file)) => {
                let known = after.map(|name| name.map(|at| if at == file { *seen } else { at }));
                (file >= UNSEEN || *seen == file).then_some(known)
            }
            (Some(outcome), expected) => (*outcome == expected).then_some(after),
        }
    }
}

/// What the action says, and leaves behind.
fn apply(names: Names, action: &Action, outcome: Option<&Outcome>) -> (Outcome, Names) {
    let with = |name: Name, file| {
        let mut after = names;
        after[name] = file;
        after
    };
    match *action {
        Action::Create(name, number) => {
            let file = match outcome {
                Some(Outcome::Created(file)) => *file,
                _ => UNSEEN + number,
            };
            match names[name] {
                Some(_) => (Outcome::Exists, names),
                None => (Outcome::Created(file), with(name, Some(file))),
            }
        }
        Action::Unlink(name) => match names[name] {
            Some(_) => (Outcome::Done, with(name, None)),
            None => (Outcome::NotFound, names),
        },
        Action::RenameTo(name) => match (names[1 - name], names[name]) {
            (None, _) => (Outcome::NotFound, names),
            // Two names of one file: nothing is done.
            (Some(file), Some(same)) if file == same => (Outcome::Done, names),
            (Some(file), _) => {
                let mut after = with(name, Some(file));
                after[1 - name] = None;
                (Outcome::Done, after)
            }
        },
        Action::LinkTo(name) => match (names[1 - name], names[name]) {
            (None, _) => (Outcome::NotFound, names),
            (Some(_), Some(_)) => (Outcome::Exists, names),
            (Some(file), None) => (Outcome::Done, with(name, Some(file))),
        },
        Action::Stat(name) => match names[name] {
            None => (Outcome::NotFound, names),
            Some(file) => (Outcome::Found(file), names),
        },
    }
}

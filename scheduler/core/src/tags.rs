//! Tags of nodes: a job may need some of them.

use serde::{Deserialize, Serialize};

use crate::limits;

/// Some of the [`Tags`] that there are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TagSet(u64);

/// All tags that ever were, each with a place in a [`TagSet`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tags(Vec<String>);

impl TagSet {
    pub(crate) fn has_all(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }
}

impl Tags {
    pub(crate) fn names(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn are_of(&self, set: TagSet) -> impl Iterator<Item = &String> {
        let numbered = self.0.iter().enumerate();
        numbered.filter(move |(at, _)| set.0 & (1 << at) != 0).map(|(_, name)| name)
    }

    /// Unknown ones get a place, as long as there are any.
    pub(crate) fn set(&mut self, names: &[String]) -> TagSet {
        for name in names {
            if !self.0.contains(name) && self.0.len() < limits::TAGS_MAX {
                self.0.push(name.clone());
            }
        }
        let known = names.iter().filter_map(|name| self.place(name));
        TagSet(known.fold(0, |set, at| set | 1 << at))
    }

    /// None if one of them is not known.
    pub(crate) fn find(&self, names: &[String]) -> Result<TagSet, String> {
        names.iter().try_fold(TagSet::default(), |TagSet(set), name| {
            Ok(TagSet(set | 1 << self.place(name).ok_or_else(|| name.clone())?))
        })
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known == name)
    }
}

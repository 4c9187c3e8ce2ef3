//! Groups on which resources of a token depend, and the small set of them that a user belongs to.
//!
//! The configuration names a few groups, a login proxy may name hundreds. A user keeps only the positions of the
//! configured groups, so that a request allocates nothing for groups.

use std::fmt;
use std::sync::Arc;

/// Most groups that resources may name, all of them together: the bits of a [`GroupSet`].
pub const MAX_GROUPS: usize = 64;

/// Set of groups, by their positions in [`KnownGroups`]. Means the same groups only beside the list by which it
/// was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupSet(u64);

impl GroupSet {
    /// Whether the set has no group.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether both sets have a group in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the set of the groups in either set.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Groups that the configuration's resources name. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGroups(Arc<[Box<str>]>);

/// Resources name more than [`MAX_GROUPS`] groups. The fault of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyGroups;

impl fmt::Display for TooManyGroups {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "resources name more than {MAX_GROUPS} groups")
    }
}

impl std::error::Error for TooManyGroups {}

impl KnownGroups {
    /// Makes the list of these groups, each once.
    ///
    /// # Errors
    ///
    /// If there are too many.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, TooManyGroups> {
        let mut names: Vec<Box<str>> = names.into_iter().map(Box::from).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_GROUPS { Err(TooManyGroups) } else { Ok(Self(names.into())) }
    }

    /// Whether no resource depends on a group.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the set of one group, compared byte for byte. The set is empty if no resource names the group.
    pub fn find(&self, name: &str) -> GroupSet {
        let position = self.0.binary_search_by(|known| (**known).cmp(name));
        GroupSet(position.map_or(0, |position| 1 << position))
    }

    /// Returns the set of several groups.
    pub fn set<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> GroupSet {
        let sets = names.into_iter().map(|name| self.find(name));
        sets.fold(GroupSet::default(), GroupSet::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_found_byte_for_byte() {
        let known = KnownGroups::new(["editors", "admins", "editors"]).expect("two");
        assert!(!known.find("editors").is_empty() && known.find("editors") != known.find("admins"));
        for other in ["Editors", "editor", "editors ", "", "viewers"] {
            assert!(known.find(other).is_empty(), "{other:?}");
        }
        let both = known.set(["admins", "viewers", "editors"]);
        assert!(both.meets(known.find("admins")) && both.meets(known.find("editors")));
        assert!(!known.find("admins").meets(known.find("editors")));
        assert!(!both.meets(GroupSet::default()));
    }

    #[test]
    fn list_of_groups_has_a_bound() {
        let names: Vec<String> = (0..=MAX_GROUPS).map(|n| format!("group-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let known = KnownGroups::new(names[1..].iter().copied()).expect("as many as may be");
        let sets: Vec<GroupSet> = names[1..].iter().map(|name| known.find(name)).collect();
        for (n, set) in sets.iter().enumerate() {
            let others = sets.iter().enumerate().filter(|(m, _)| *m != n);
            assert!(!set.is_empty() && others.clone().all(|(_, other)| !set.meets(*other)), "{n}");
        }
        assert_eq!(KnownGroups::new(names), Err(TooManyGroups));
        assert!(KnownGroups::default().is_empty());
    }
}

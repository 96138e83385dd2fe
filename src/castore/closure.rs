//! The order in which a closure of directories travels.
//!
//! Uploads go leaves first, so that whoever receives them can check each directory against what it already has.
//! Downloads go root first, so that whoever asked can begin to walk before the last has arrived. Both checkers hold
//! one digest and one size a directory, nothing else.

use std::collections::HashMap;

use super::{Digest, Directory, SizeRule};

/// Why directories make no closure in the order expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClosureError {
    /// Leaves first: a directory names one that did not come before it.
    #[error("directory {parent} names {child}, which was not sent before it")]
    ChildMissing {
        /// The directory that came too early.
        parent: Digest,
        /// The one it names.
        child: Digest,
    },
    /// A directory states a size that its child does not have by either rule.
    #[error(
        "directory {parent} gives {child} the size {stated}, but it is {documented} (or {doubled})"
    )]
    ChildSize {
        /// The directory that is wrong.
        parent: Digest,
        /// The child it is wrong about.
        child: Digest,
        /// What it says.
        stated: u64,
        /// The right size by the documented rule.
        documented: u64,
        /// The right size by the doubled rule.
        doubled: u64,
    },
    /// Leaves first: a directory that nothing refers to, besides the last one.
    #[error("directory {0} is connected to nothing")]
    Unconnected(Digest),
    /// No directory at all.
    #[error("no directory was sent")]
    Empty,
    /// Root first: the first directory is not the one that was asked for.
    #[error("asked for directory {asked}, got {got}")]
    WrongRoot {
        /// The digest asked for.
        asked: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// Root first: a directory that nothing sent before it names.
    #[error("directory {0} was sent, but nothing before it names it")]
    Unexpected(Digest),
    /// Root first: the end came before all that was named.
    #[error("the closure ends without {missing} of its directories, {example} among them")]
    Truncated {
        /// How many are missing.
        missing: usize,
        /// One of them.
        example: Digest,
    },
}

#[derive(Clone, Copy)]
struct Sizes {
    documented: u64,
    doubled: u64,
}

impl Sizes {
    fn of(directory: &Directory) -> Self {
        Sizes {
            documented: directory.size(SizeRule::Documented),
            doubled: directory.size(SizeRule::Doubled),
        }
    }

    fn check(self, parent: Digest, child: Digest, stated: u64) -> Result<(), ClosureError> {
        let Sizes { documented, doubled } = self;
        if stated == documented || stated == doubled {
            return Ok(());
        }
        Err(ClosureError::ChildSize { parent, child, stated, documented, doubled })
    }
}

/// Checks a closure that is sent leaves first: every directory after those it names.
#[derive(Default)]
pub struct LeavesFirst {
    /// What came, and whether something refers to it.
    seen: HashMap<Digest, (Sizes, bool)>,
    unconnected: usize,
    last: Option<Digest>,
}

impl LeavesFirst {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next directory. Says whether it is new; one that is sent twice is harmless.
    pub fn add(&mut self, directory: &Directory) -> Result<bool, ClosureError> {
        let digest = directory.digest();
        for (child, stated) in directory.directories() {
            let Some((sizes, _)) = self.seen.get(&child) else {
                return Err(ClosureError::ChildMissing { parent: digest, child });
            };
            sizes.check(digest, child, stated)?;
        }
        for (child, _) in directory.directories() {
            if let Some((_, connected @ false)) = self.seen.get_mut(&child) {
                *connected = true;
                self.unconnected -= 1;
            }
        }
        self.last = Some(digest);
        let new = !self.seen.contains_key(&digest);
        if new {
            self.seen.insert(digest, (Sizes::of(directory), false));
            self.unconnected += 1;
        }
        Ok(new)
    }

    /// Says which directory is the root: the only one that nothing refers to.
    pub fn finish(self) -> Result<Digest, ClosureError> {
        let root = self.last.ok_or(ClosureError::Empty)?;
        // A root that came twice, first as a child of nothing, is still the last and the only one.
        let stray =
            self.seen.iter().find(|(digest, (_, connected))| !connected && **digest != root);
        match stray {
            Some((digest, _)) => Err(ClosureError::Unconnected(*digest)),
            None if self.unconnected == 1 => Ok(root),
            None => Err(ClosureError::Unconnected(root)),
        }
    }
}

/// Checks a closure that is sent root first: every directory after one that names it.
pub struct RootFirst {
    root: Digest,
    /// The size stated for each directory that is named, by whom, and whether it has come.
    named: HashMap<Digest, Named>,
    missing: usize,
}

struct Named {
    parent: Digest,
    stated: u64,
    /// Its real sizes, once it has come.
    sizes: Option<Sizes>,
}

impl RootFirst {
    /// Expects the closure of `root`.
    pub fn new(root: Digest) -> Self {
        RootFirst { root, named: HashMap::new(), missing: 0 }
    }

    /// Takes the next directory. Says whether it is new; one that is sent twice is harmless.
    pub fn add(&mut self, directory: &Directory) -> Result<bool, ClosureError> {
        let digest = directory.digest();
        let sizes = Sizes::of(directory);
        if self.named.is_empty() {
            if digest != self.root {
                return Err(ClosureError::WrongRoot { asked: self.root, got: digest });
            }
            let named = Named { parent: digest, stated: sizes.documented, sizes: Some(sizes) };
            self.named.insert(digest, named);
        } else {
            let named = self.named.get_mut(&digest).ok_or(ClosureError::Unexpected(digest))?;
            if named.sizes.is_some() {
                return Ok(false);
            }
            sizes.check(named.parent, digest, named.stated)?;
            named.sizes = Some(sizes);
            self.missing -= 1;
        }
        for (child, stated) in directory.directories() {
            match self.named.get(&child) {
                None => {
                    self.named.insert(child, Named { parent: digest, stated, sizes: None });
                    self.missing += 1;
                }
                Some(Named { sizes: Some(sizes), .. }) => sizes.check(digest, child, stated)?,
                // Two parents that differ before the child has come: the first is checked when it comes. Both
                // may be right, each by its own rule.
                Some(Named { sizes: None, .. }) => {}
            }
        }
        Ok(true)
    }

    /// Checks that everything named has come.
    pub fn finish(self) -> Result<(), ClosureError> {
        if self.named.is_empty() {
            return Err(ClosureError::Empty);
        }
        match self.named.iter().find(|(_, named)| named.sizes.is_none()) {
            Some((&example, _)) => Err(ClosureError::Truncated { missing: self.missing, example }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::castore::{Name, Node};

    fn dir(children: &[(&str, &Directory, SizeRule)]) -> Directory {
        let mut builder = Directory::builder();
        for (name, child, rule) in children {
            builder.add(Name::try_from(*name).expect("legal"), child.node(*rule));
        }
        builder.build().expect("legal")
    }

    /// A leaf, a middle that names it, and a root that names both.
    fn closure(rule: SizeRule) -> (Directory, Directory, Directory) {
        let leaf = Directory::empty();
        let middle = dir(&[("leaf", &leaf, rule)]);
        let root = dir(&[("leaf", &leaf, rule), ("middle", &middle, rule)]);
        (leaf, middle, root)
    }

    fn leaves_first(all: &[&Directory]) -> Result<Digest, ClosureError> {
        let mut order = LeavesFirst::new();
        for directory in all {
            order.add(directory)?;
        }
        order.finish()
    }

    fn root_first(root: Digest, all: &[&Directory]) -> Result<(), ClosureError> {
        let mut order = RootFirst::new(root);
        for directory in all {
            order.add(directory)?;
        }
        order.finish()
    }

    #[test]
    fn both_orders_and_both_size_rules_are_accepted() {
        for rule in [SizeRule::Documented, SizeRule::Doubled] {
            let (leaf, middle, root) = closure(rule);
            assert_eq!(leaves_first(&[&leaf, &middle, &root]), Ok(root.digest()));
            assert_eq!(leaves_first(&[&leaf, &leaf, &middle, &root, &root]), Ok(root.digest()));
            for order in [[&root, &leaf, &middle], [&root, &middle, &leaf]] {
                assert_eq!(root_first(root.digest(), &order), Ok(()));
            }
        }
        assert_eq!(leaves_first(&[&Directory::empty()]), Ok(Digest::EMPTY));
    }

    #[test]
    fn leaves_first_refuses() {
        let (leaf, middle, root) = closure(SizeRule::Documented);
        assert_eq!(leaves_first(&[]), Err(ClosureError::Empty));
        assert_eq!(
            leaves_first(&[&middle]),
            Err(ClosureError::ChildMissing { parent: middle.digest(), child: leaf.digest() })
        );
        let other = dir(&[("other", &leaf, SizeRule::Documented)]);
        assert_eq!(
            leaves_first(&[&leaf, &other, &middle, &root]),
            Err(ClosureError::Unconnected(other.digest()))
        );
        // What comes last is connected already: the root is somewhere else.
        assert_eq!(
            leaves_first(&[&leaf, &middle, &leaf]),
            Err(ClosureError::Unconnected(middle.digest()))
        );
    }

    #[test]
    fn a_wrong_size_is_refused_in_both_orders() {
        let leaf = Directory::empty();
        let middle = dir(&[("leaf", &leaf, SizeRule::Documented)]);
        let mut builder = Directory::builder();
        builder.add(
            Name::try_from("middle").expect("legal"),
            Node::Directory { digest: middle.digest(), size: 7 },
        );
        let root = builder.build().expect("legal");
        let wrong = ClosureError::ChildSize {
            parent: root.digest(),
            child: middle.digest(),
            stated: 7,
            documented: 1,
            doubled: 2,
        };
        assert_eq!(leaves_first(&[&leaf, &middle, &root]), Err(wrong.clone()));
        assert_eq!(root_first(root.digest(), &[&root, &middle, &leaf]), Err(wrong));
    }

    #[test]
    fn root_first_refuses() {
        let (leaf, middle, root) = closure(SizeRule::Documented);
        let asked = root.digest();
        assert_eq!(root_first(asked, &[]), Err(ClosureError::Empty));
        assert_eq!(
            root_first(asked, &[&middle]),
            Err(ClosureError::WrongRoot { asked, got: middle.digest() })
        );
        let other = dir(&[("other", &leaf, SizeRule::Documented)]);
        assert_eq!(
            root_first(asked, &[&root, &other]),
            Err(ClosureError::Unexpected(other.digest()))
        );
        assert_eq!(
            root_first(asked, &[&root, &leaf]),
            Err(ClosureError::Truncated { missing: 1, example: middle.digest() })
        );
    }
}

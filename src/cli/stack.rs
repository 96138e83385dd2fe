//! The store of a service, which is opened anew when its configuration is read again.

use super::GlobalOptions;
use crate::{
    compose::{self, Common, Places, Plan},
    service::{Stores, swap::Swap},
};

/// A store that can be replaced while it is in use.
pub(super) struct Stack<'o> {
    options: &'o GlobalOptions,
    /// Whether the token of the options is one that is shown to others.
    shows_token: bool,
    plan: Plan,
    places: Places,
    swap: Swap,
}

/// A store that is open, but not in use yet.
pub(super) struct Reopened {
    plan: Plan,
    places: Places,
    stores: Stores,
}

impl<'o> Stack<'o> {
    /// The store that the options mean. What is remote is not waited for. Needs the context of the runtime.
    pub(super) fn open(options: &'o GlobalOptions) -> anyhow::Result<Self> {
        Self::with(options, true)
    }

    /// As [`Stack::open`], for a daemon, whose tokens are those of its clients.
    pub(super) fn open_without_token(options: &'o GlobalOptions) -> anyhow::Result<Self> {
        Self::with(options, false)
    }

    fn with(options: &'o GlobalOptions, shows_token: bool) -> anyhow::Result<Self> {
        let (plan, mut places) = (options.plan()?, Places::default());
        let stores = open(options, shows_token, &plan, &mut places)?;
        Ok(Stack { options, shows_token, plan, places, swap: Swap::new(stores) })
    }

    /// Whatever is there at the time.
    pub(super) fn stores(&self) -> Stores {
        self.swap.stores()
    }

    /// Reads all files again, and opens what they say: nothing changes yet. Needs the context of the runtime.
    pub(super) fn reopen(&self) -> anyhow::Result<Reopened> {
        let (plan, mut places) = (self.options.plan()?, self.places.clone());
        self.plan.check_next(&plan)?;
        let stores = open(self.options, self.shows_token, &plan, &mut places)?;
        Ok(Reopened { plan, places, stores })
    }

    /// Asks another store from now on.
    pub(super) fn put(&mut self, reopened: Reopened) {
        let Reopened { plan, places, stores } = reopened;
        self.swap.put(stores);
        (self.plan, self.places) = (plan, places);
    }

    /// [`Stack::reopen`] and [`Stack::put`], for those who have nothing else to read.
    #[cfg(any(feature = "fuse", feature = "virtiofs"))]
    pub(super) fn reload(&mut self) -> anyhow::Result<()> {
        let reopened = self.reopen()?;
        self.put(reopened);
        Ok(())
    }
}

fn open(
    options: &GlobalOptions,
    shows_token: bool,
    plan: &Plan,
    places: &mut Places,
) -> anyhow::Result<Stores> {
    let common = options.common()?;
    let token_file = common.token_file.filter(|_| shows_token);
    Ok(compose::open_plan_at(plan, &Common { token_file, ..common }, places)?)
}

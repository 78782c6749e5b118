//! The nodes that may announce the Services of a pool, where their endpoints do not matter: worked out once for all Services
//! that the same advertisements speak of, and again when a node or the configuration has changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use ferrolb_config::Origin;

/// Fields kept. There are as many as there are pools, unless advertisements select Services one by one.
const ROOM: usize = 256;

/// A node that may announce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Whether it is willing.
    pub(crate) willing: bool,
    /// How much it is preferred: the sum over the advertisements.
    pub(crate) preference: u64,
}

/// By the number of the node (`orders`); none for those that may not.
pub(crate) type Field = Arc<[Option<Place>]>;

/// A pool, and which of its advertisements.
pub(crate) type Of = (Origin, String, Vec<usize>);

/// Those that are in force.
#[derive(Debug, Default)]
pub(crate) struct Fields(RefCell<HashMap<Of, Field>>);

impl Fields {
    /// The field of these advertisements, which `work_out` gives if it is not known.
    pub(crate) fn of(&self, these: Of, work_out: impl FnOnce() -> Field) -> Field {
        if let Some(field) = self.0.borrow().get(&these) {
            return field.clone();
        }
        let field = work_out();
        let mut kept = self.0.borrow_mut();
        if kept.len() >= ROOM {
            kept.clear();
        }
        kept.insert(these, field.clone());
        field
    }

    /// A node or the configuration has changed.
    pub(crate) fn clear(&mut self) {
        self.0.get_mut().clear();
    }
}

//! Counts in-flight object requests per key, so that the object can distinguish a lone call from a
//! burst.

use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static OPEN: RefCell<HashMap<String, u32>> = RefCell::default();
}

/// A request in flight. It ends when this is dropped: with its response, or when JavaScript
/// collects the call.
#[derive(Debug)]
pub(crate) struct InFlight {
    id: String,
    /// Whether others were in flight when it was sent.
    pub(crate) has_others: bool,
}

impl InFlight {
    pub(crate) fn join(id: &str) -> Self {
        let id = id.to_owned();
        let others = OPEN.with_borrow_mut(|open| {
            let count = open.entry(id.clone()).or_default();
            *count += 1;
            *count - 1
        });
        Self { id, has_others: others > 0 }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| {
            if let Some(count) = open.get_mut(&self.id) {
                *count -= 1;
                if *count == 0 {
                    open.remove(&self.id);
                }
            }
        });
    }
}

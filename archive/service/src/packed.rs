//! Lists of instances as records keep them: what the items have in common once, and of each UID only what it has not in common
//! with the one before. The UIDs of a study have most of their bytes in common: 50,000 of them take about half a MiB.
//!
//! ```text
//!   heads      classes, or studies: each once, sorted
//!   instances  of each: place among the heads, bytes in common with the instance before, the rest
//! ```

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Pairs of a head and an instance, in order.
#[derive(Serialize, Deserialize)]
pub(crate) struct Packed {
    heads: Vec<String>,
    instances: Vec<(u32, u8, String)>,
}

impl Packed {
    pub(crate) fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let heads: Vec<&str> = pairs.clone().map(|(head, _)| head).collect::<BTreeSet<_>>().into_iter().collect();
        let mut before = "";
        let mut instances = Vec::new();
        for (head, instance) in pairs {
            // UIDs are ASCII; of what is not, nothing is shared.
            let both = before.is_ascii() && instance.is_ascii();
            let shared = before.bytes().zip(instance.bytes()).take_while(|(a, b)| both && a == b).count();
            let at = heads.binary_search(&head).unwrap_or_default();
            let (at, shared) = (u32::try_from(at).unwrap_or(0), u8::try_from(shared).unwrap_or(0));
            instances.push((at, shared, instance[usize::from(shared)..].to_owned()));
            before = instance;
        }
        Self { heads: heads.into_iter().map(str::to_owned).collect(), instances }
    }

    /// The pairs again. What is damaged gives other pairs, never a panic.
    pub(crate) fn pairs(self) -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> = Vec::with_capacity(self.instances.len());
        for (head, shared, rest) in self.instances {
            let before = list.last().map_or("", |(_, instance)| instance);
            let instance = before.get(..usize::from(shared)).unwrap_or_default().to_owned() + &rest;
            let head = self.heads.get(head as usize).cloned().unwrap_or_default();
            list.push((head, instance));
        }
        list
    }
}

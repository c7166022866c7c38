//! I10, durability seen from the leader: what a follower said it holds, it holds as long as this leader leads.
//!
//! A follower that forgets has a disk that lies, or was put back to an older copy. The leader sends it again what it lacks;
//! while that lasts, the cluster survives one failure less than it says.

use std::collections::BTreeMap;

/// What each follower of a group was known to hold, in one term of one leader.
#[derive(Debug, Default)]
pub struct Followers(BTreeMap<u32, (u64, BTreeMap<u64, u64>)>);

impl Followers {
    /// Notes that in `term` the leader of `group` knows that raft id `follower` holds everything up to `index`.
    ///
    /// # Errors
    /// When it held more before.
    pub fn note(&mut self, group: u32, term: u64, follower: u64, index: u64) -> Result<(), String> {
        let own = self.0.entry(group).or_default();
        if own.0 != term {
            *own = (term, BTreeMap::new());
        }
        match own.1.insert(follower, index) {
            Some(known) if index < known => Err(format!(
                "I10: raft id {follower} held g{group} up to {known}, and now up to {index}: does its disk lie?"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_that_forgets_is_seen_and_a_new_term_begins_anew() {
        let mut followers = Followers::default();
        assert_eq!(followers.note(1, 4, 2, 10), Ok(()));
        assert_eq!(followers.note(1, 4, 3, 5), Ok(()), "another follower");
        assert_eq!(followers.note(2, 4, 2, 5), Ok(()), "another group");
        assert!(followers.note(1, 4, 2, 9).is_err());
        assert_eq!(followers.note(1, 5, 2, 1), Ok(()), "a new term knows nothing yet");
    }
}

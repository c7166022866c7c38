//! One association's place in the table: events in, actions out. No sockets, no clock.

use crate::table::{Action, Event, State, cell};

/// Which end of the association this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that asked for it.
    Requestor,
    /// The one that was asked.
    Acceptor,
}

/// The state machine of one association (PS3.8 §9.2).
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
    end: End,
}

/// An event that has no place in the present state: a mistake of the local user, never of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} has no place in {state:?}")]
pub struct NoPlace {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

impl Machine {
    /// Idle.
    #[must_use]
    pub fn new(end: End) -> Self {
        Self { state: State::Sta1, end }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes an event; answers what to do.
    ///
    /// # Errors
    /// For an event that the local user may not cause now.
    pub fn on(&mut self, event: Event) -> Result<Action, NoPlace> {
        let (action, next) = cell(event, self.state).ok_or(NoPlace { state: self.state, event })?;
        self.state = match (action, self.end) {
            (Action::Ar8, End::Acceptor) => State::Sta10,
            _ => next,
        };
        Ok(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acceptor_accepts_receives_and_releases() {
        let mut machine = Machine::new(End::Acceptor);
        let steps = [
            (Event::TransportIndication, Action::Ae5, State::Sta2),
            (Event::AssociateRqPdu, Action::Ae6, State::Sta3),
            (Event::AssociateAccept, Action::Ae7, State::Sta6),
            (Event::DataPdu, Action::Dt2, State::Sta6),
            (Event::ReleaseRqPdu, Action::Ar2, State::Sta8),
            (Event::DataRequest, Action::Ar7, State::Sta8),
            (Event::ReleaseResponse, Action::Ar4, State::Sta13),
            (Event::TransportClosed, Action::Ar5, State::Sta1),
        ];
        for (event, action, state) in steps {
            assert_eq!(machine.on(event), Ok(action));
            assert_eq!(machine.state(), state);
        }
    }

    #[test]
    fn a_release_collision_leads_the_two_ends_apart() {
        for (end, state) in [(End::Requestor, State::Sta9), (End::Acceptor, State::Sta10)] {
            let mut machine = Machine { state: State::Sta6, end };
            assert_eq!(machine.on(Event::ReleaseRequest), Ok(Action::Ar1));
            assert_eq!(machine.on(Event::ReleaseRqPdu), Ok(Action::Ar8));
            assert_eq!(machine.state(), state);
        }
    }

    #[test]
    fn what_the_local_user_may_not_do_is_an_error_and_changes_nothing() {
        let mut machine = Machine::new(End::Requestor);
        assert!(machine.on(Event::DataRequest).is_err());
        assert_eq!(machine.state(), State::Sta1);
    }
}

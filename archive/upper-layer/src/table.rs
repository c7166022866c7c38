//! The upper layer's state machine as the standard prints it (PS3.8 Table 9-10): the rows below are its rows.
//!
//! To change the upper layer, change a cell here; the cell-by-cell test holds another copy.

/// The states (PS3.8 Tables 9-1 to 9-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Idle.
    Sta1,
    /// Transport open; awaiting A-ASSOCIATE-RQ.
    Sta2,
    /// Awaiting the local A-ASSOCIATE response.
    Sta3,
    /// Awaiting the transport to open.
    Sta4,
    /// Awaiting A-ASSOCIATE-AC or -RJ.
    Sta5,
    /// Established, ready for data transfer.
    Sta6,
    /// Awaiting A-RELEASE-RP.
    Sta7,
    /// Awaiting the local A-RELEASE response.
    Sta8,
    /// Release collision, requestor: awaiting the local A-RELEASE response.
    Sta9,
    /// Release collision, acceptor: awaiting A-RELEASE-RP.
    Sta10,
    /// Release collision, requestor: awaiting A-RELEASE-RP.
    Sta11,
    /// Release collision, acceptor: awaiting the local A-RELEASE response.
    Sta12,
    /// Awaiting the transport to close.
    Sta13,
}

/// What happens (PS3.8 Table 9-10, first column).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A-ASSOCIATE request of the local user.
    AssociateRequest,
    /// The transport connection is open (requestor).
    TransportConfirm,
    /// A-ASSOCIATE-AC received.
    AssociateAcPdu,
    /// A-ASSOCIATE-RJ received.
    AssociateRjPdu,
    /// The transport connection is open (acceptor).
    TransportIndication,
    /// A-ASSOCIATE-RQ received.
    AssociateRqPdu,
    /// The local user accepts.
    AssociateAccept,
    /// The local user rejects.
    AssociateReject,
    /// P-DATA request of the local user.
    DataRequest,
    /// P-DATA-TF received.
    DataPdu,
    /// A-RELEASE request of the local user.
    ReleaseRequest,
    /// A-RELEASE-RQ received.
    ReleaseRqPdu,
    /// A-RELEASE-RP received.
    ReleaseRpPdu,
    /// A-RELEASE response of the local user.
    ReleaseResponse,
    /// A-ABORT request of the local user.
    AbortRequest,
    /// A-ABORT received.
    AbortPdu,
    /// The transport connection is closed.
    TransportClosed,
    /// ARTIM has expired.
    ArtimExpired,
    /// An unknown or invalid PDU was received.
    InvalidPdu,
}

/// What is done (PS3.8 Tables 9-6 to 9-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Open the transport.
    Ae1,
    /// Send A-ASSOCIATE-RQ.
    Ae2,
    /// Confirm (accept) to the local user.
    Ae3,
    /// Confirm (reject) to the local user, close the transport.
    Ae4,
    /// Start ARTIM.
    Ae5,
    /// Stop ARTIM; indicate the association, or send A-ASSOCIATE-RJ and start ARTIM.
    Ae6,
    /// Send A-ASSOCIATE-AC.
    Ae7,
    /// Send A-ASSOCIATE-RJ, start ARTIM.
    Ae8,
    /// Send P-DATA-TF.
    Dt1,
    /// Indicate P-DATA.
    Dt2,
    /// Send A-RELEASE-RQ.
    Ar1,
    /// Indicate A-RELEASE.
    Ar2,
    /// Confirm A-RELEASE, close the transport.
    Ar3,
    /// Send A-RELEASE-RP, start ARTIM.
    Ar4,
    /// Stop ARTIM.
    Ar5,
    /// Indicate P-DATA that came while releasing.
    Ar6,
    /// Send P-DATA-TF while the peer releases.
    Ar7,
    /// Indicate the release collision.
    Ar8,
    /// Send A-RELEASE-RP.
    Ar9,
    /// Confirm A-RELEASE.
    Ar10,
    /// Send A-ABORT (service user), start or restart ARTIM.
    Aa1,
    /// Stop ARTIM, close the transport.
    Aa2,
    /// Indicate the abort, close the transport.
    Aa3,
    /// Indicate the loss of the connection.
    Aa4,
    /// Stop ARTIM.
    Aa5,
    /// Ignore the PDU.
    Aa6,
    /// Send A-ABORT (service provider).
    Aa7,
    /// Send A-ABORT (service provider), indicate it, start ARTIM.
    Aa8,
}

/// One cell: what is done and where it leads; `None` where the standard leaves it blank.
pub type Cell = Option<(Action, State)>;

const NO: Cell = None;

const fn to(action: Action, state: State) -> Cell {
    Some((action, state))
}

use Action::*;
use State::*;

const ABORT_8: Cell = to(Aa8, Sta13);
const USER_ABORT: Cell = to(Aa1, Sta13);
const ABORTED: Cell = to(Aa3, Sta1);
const LOST: Cell = to(Aa4, Sta1);
const IGNORED: Cell = to(Aa6, Sta13);

/// Rows in the order of [`Event`], columns Sta1 to Sta13. Where the standard names two next states, the first is here
/// and [`crate::Machine`] takes the other: AE-6 may reject (Sta13); AR-8 leads the acceptor to Sta10.
#[rustfmt::skip]
pub const TABLE: [[Cell; 13]; 19] = [
    // Sta1            Sta2             Sta3             Sta4             Sta5            Sta6            Sta7            Sta8            Sta9             Sta10            Sta11          Sta12           Sta13
    [to(Ae1, Sta4),    NO,              NO,              NO,              NO,             NO,             NO,             NO,             NO,              NO,              NO,            NO,             NO],
    [NO,               NO,              NO,              to(Ae2, Sta5),   NO,             NO,             NO,             NO,             NO,              NO,              NO,            NO,             NO],
    [NO,               USER_ABORT,      ABORT_8,         NO,              to(Ae3, Sta6),  ABORT_8,        ABORT_8,        ABORT_8,        ABORT_8,         ABORT_8,         ABORT_8,       ABORT_8,        IGNORED],
    [NO,               USER_ABORT,      ABORT_8,         NO,              to(Ae4, Sta1),  ABORT_8,        ABORT_8,        ABORT_8,        ABORT_8,         ABORT_8,         ABORT_8,       ABORT_8,        IGNORED],
    [to(Ae5, Sta2),    NO,              NO,              NO,              NO,             NO,             NO,             NO,             NO,              NO,              NO,            NO,             NO],
    [NO,               to(Ae6, Sta3),   ABORT_8,         NO,              ABORT_8,        ABORT_8,        ABORT_8,        ABORT_8,        ABORT_8,         ABORT_8,         ABORT_8,       ABORT_8,        to(Aa7, Sta13)],
    [NO,               NO,              to(Ae7, Sta6),   NO,              NO,             NO,             NO,             NO,             NO,              NO,              NO,            NO,             NO],
    [NO,               NO,              to(Ae8, Sta13),  NO,              NO,             NO,             NO,             NO,             NO,              NO,              NO,            NO,             NO],
    [NO,               NO,              NO,              NO,              NO,             to(Dt1, Sta6),  NO,             to(Ar7, Sta8),  NO,              NO,              NO,            NO,             NO],
    [NO,               USER_ABORT,      ABORT_8,         NO,              ABORT_8,        to(Dt2, Sta6),  to(Ar6, Sta7),  ABORT_8,        ABORT_8,         ABORT_8,         ABORT_8,       ABORT_8,        IGNORED],
    [NO,               NO,              NO,              NO,              NO,             to(Ar1, Sta7),  NO,             NO,             NO,              NO,              NO,            NO,             NO],
    [NO,               USER_ABORT,      ABORT_8,         NO,              ABORT_8,        to(Ar2, Sta8),  to(Ar8, Sta9),  ABORT_8,        ABORT_8,         ABORT_8,         ABORT_8,       ABORT_8,        IGNORED],
    [NO,               USER_ABORT,      ABORT_8,         NO,              ABORT_8,        ABORT_8,        to(Ar3, Sta1),  ABORT_8,        ABORT_8,         to(Ar10, Sta12), to(Ar3, Sta1), ABORT_8,        IGNORED],
    [NO,               NO,              NO,              NO,              NO,             NO,             NO,             to(Ar4, Sta13), to(Ar9, Sta11),  NO,              NO,            to(Ar4, Sta13), NO],
    [NO,               NO,              USER_ABORT,      to(Aa2, Sta1),   USER_ABORT,     USER_ABORT,     USER_ABORT,     USER_ABORT,     USER_ABORT,      USER_ABORT,      USER_ABORT,    USER_ABORT,     NO],
    [NO,               to(Aa2, Sta1),   ABORTED,         NO,              ABORTED,        ABORTED,        ABORTED,        ABORTED,        ABORTED,         ABORTED,         ABORTED,       ABORTED,        to(Aa2, Sta1)],
    [NO,               to(Aa5, Sta1),   LOST,            LOST,            LOST,           LOST,           LOST,           LOST,           LOST,            LOST,            LOST,          LOST,           to(Ar5, Sta1)],
    [NO,               to(Aa2, Sta1),   NO,              NO,              NO,             NO,             NO,             NO,             NO,              NO,              NO,            NO,             to(Aa2, Sta1)],
    [NO,               USER_ABORT,      ABORT_8,         NO,              ABORT_8,        ABORT_8,        ABORT_8,        ABORT_8,        ABORT_8,         ABORT_8,         ABORT_8,       ABORT_8,        to(Aa7, Sta13)],
];

/// The cell of `event` in `state`.
#[must_use]
pub const fn cell(event: Event, state: State) -> Cell {
    TABLE[event as usize][state as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PS3.8 Table 9-10 once more, in the notation of the standard: one line an event, one word a state.
    const STANDARD: &str = "
        AE-1/4 - - - - - - - - - - - -
        - - - AE-2/5 - - - - - - - - -
        - AA-1/13 AA-8/13 - AE-3/6 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
        - AA-1/13 AA-8/13 - AE-4/1 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
        AE-5/2 - - - - - - - - - - - -
        - AE-6/3 AA-8/13 - AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-7/13
        - - AE-7/6 - - - - - - - - - -
        - - AE-8/13 - - - - - - - - - -
        - - - - - DT-1/6 - AR-7/8 - - - - -
        - AA-1/13 AA-8/13 - AA-8/13 DT-2/6 AR-6/7 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
        - - - - - AR-1/7 - - - - - - -
        - AA-1/13 AA-8/13 - AA-8/13 AR-2/8 AR-8/9 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
        - AA-1/13 AA-8/13 - AA-8/13 AA-8/13 AR-3/1 AA-8/13 AA-8/13 AR-10/12 AR-3/1 AA-8/13 AA-6/13
        - - - - - - - AR-4/13 AR-9/11 - - AR-4/13 -
        - - AA-1/13 AA-2/1 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 -
        - AA-2/1 AA-3/1 - AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-2/1
        - AA-5/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AR-5/1
        - AA-2/1 - - - - - - - - - - AA-2/1
        - AA-1/13 AA-8/13 - AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-7/13";

    fn written(cell: Cell) -> String {
        let Some((action, state)) = cell else { return "-".into() };
        let action = format!("{action:?}").to_uppercase();
        let (kind, number) = action.split_at(2);
        format!("{kind}-{number}/{}", &format!("{state:?}")[3..])
    }

    #[test]
    fn every_cell_is_that_of_the_standard() {
        let rows: Vec<&str> = STANDARD.trim().lines().map(str::trim).collect();
        assert_eq!(rows.len(), TABLE.len());
        for (event, (row, cells)) in rows.iter().zip(TABLE).enumerate() {
            let words: Vec<&str> = row.split(' ').collect();
            assert_eq!(words.len(), cells.len(), "event {}", event + 1);
            for (state, (word, cell)) in words.iter().zip(cells).enumerate() {
                assert_eq!(*word, written(cell), "event {}, Sta{}", event + 1, state + 1);
            }
        }
    }
}

//! raft-lanes

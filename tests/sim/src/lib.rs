//! triptych-sim

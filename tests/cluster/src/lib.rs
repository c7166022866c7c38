//! triptych-cluster

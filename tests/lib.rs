//! Tests across crates; each file beside this one is a separate test binary.

//! Tests of whole paths across crates; each file beside this one is a test binary of its own.

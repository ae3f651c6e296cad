//! Examples live beside this file, one file or folder each; run one with `cargo run --release --example NAME`.

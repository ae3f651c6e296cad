//! Which sequences take part in the next step: continuous batching, chunked prefill, the player's own first.

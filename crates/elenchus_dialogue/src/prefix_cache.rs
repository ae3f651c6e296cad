//! Memories of prompts already read, found again by base, adapter, scale and tokens; least recently used goes first.

//! State machine of a node: what it receives, the time and its timers in, actions out.

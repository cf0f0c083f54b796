//! Hellos: what a node says of itself every two seconds.

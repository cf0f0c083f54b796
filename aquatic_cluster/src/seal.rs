//! Sealing and opening of everything that nodes send.

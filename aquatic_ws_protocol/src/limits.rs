//! Limits on what is read from a message.

/// Maximum nesting depth of arrays and objects in a message. Real messages take five levels.
pub const MAX_DEPTH: usize = 16;

/// Maximum length of an offer id in characters. Clients use 20.
pub const MAX_OFFER_ID_LENGTH: usize = 64;

/// Limits on one message from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum length of a message in bytes. A longer message is refused unread.
    pub max_message_length: usize,
    /// Maximum number of offers read from an announce. Further offers are left out.
    pub max_offers: usize,
    /// Maximum number of info hashes read from a scrape. Further info hashes are left out.
    pub max_scrape_hashes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_length: 64 * 1024, max_offers: 10, max_scrape_hashes: 64 }
    }
}

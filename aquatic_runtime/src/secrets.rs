//! The secret that all keys of the process are derived from: connection ids, steering, hash tables.

use std::fmt;

use rand::{TryRng, rngs::SysRng};

/// A 256-bit secret. Keys for one purpose are derived from it, so that one value is all that has to be kept
/// for a later process to have the same keys.
#[derive(Clone)]
pub struct Secrets {
    root: [u8; Self::LENGTH],
}

impl Secrets {
    /// Length in bytes.
    pub const LENGTH: usize = 32;

    /// A secret from the operating system's generator.
    ///
    /// # Errors
    /// The generator cannot be read.
    pub fn generate() -> std::io::Result<Self> {
        let mut root = [0; Self::LENGTH];
        SysRng.try_fill_bytes(&mut root).map_err(std::io::Error::other)?;
        Ok(Self { root })
    }

    /// A secret that was kept from an earlier process.
    #[must_use]
    pub fn from_bytes(root: [u8; Self::LENGTH]) -> Self {
        Self { root }
    }

    /// The bytes of the secret, to be kept for a later process.
    pub(crate) fn to_bytes(&self) -> [u8; Self::LENGTH] {
        self.root
    }

    /// The key for a purpose, such as "aquatic UDP connection ids 1". Different purposes have independent
    /// keys.
    #[must_use]
    pub fn derive<const N: usize>(&self, purpose: &str) -> [u8; N] {
        let mut key = [0; N];
        blake3::Hasher::new_derive_key(purpose).update(&self.root).finalize_xof().fill(&mut key);
        key
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_secret_and_purpose_only() {
        let (one, other) = (Secrets::from_bytes([1; 32]), Secrets::from_bytes([2; 32]));
        let key: [u8; 16] = one.derive("a");
        assert_eq!(key, Secrets::from_bytes([1; 32]).derive("a"));
        assert_ne!(key, one.derive("b"));
        assert_ne!(key, other.derive("a"));
        let longer: [u8; 64] = one.derive("a");
        assert_eq!(longer[..16], key);
        assert_ne!(Secrets::generate().unwrap().root, Secrets::generate().unwrap().root);
        assert_eq!(format!("{one:?}"), "Secrets", "the secret is not shown");
    }
}

//! Sealing and opening of everything that nodes send.
//!
//! Bodies are encrypted with AES-256-GCM; the header before them is authenticated. The key is derived
//! (BLAKE3) from the secret of the cluster and the sender's run, kind and core, so the sequence number is a
//! nonce that is used once. A key is derived again for every message, which takes a fraction of a
//! microsecond: no cache of keys can be filled by others.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::wire::{Header, MAX_BODY, NotOurs, ShortRun};

/// Minimum length of a secret in bytes.
pub const MIN_SECRET: usize = 32;

/// Maximum length of a secret in bytes.
pub const MAX_SECRET: usize = 4096;

/// Length of the tag that follows a sealed body, in bytes.
pub const TAG_LENGTH: usize = 16;

/// Secret that the nodes of a cluster share.
#[derive(Clone)]
pub struct Secret {
    messages: [u8; 32],
    others: [u8; 32],
}

/// The secret is shorter than [`MIN_SECRET`] or longer than [`MAX_SECRET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretLength;

/// Reason why a message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// It is no message of this version.
    NotOurs(NotOurs),
    /// It is longer than any message.
    TooLong,
    /// It is for another run: of another node, or an earlier one of this node.
    OtherRun,
    /// Its seal is broken: the sender has another secret, or it was changed on its way.
    Secret,
}

impl Secret {
    /// Derives the keys of a cluster from the content of its secret file.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn new(content: &[u8]) -> Result<Self, SecretLength> {
        if !(MIN_SECRET..=MAX_SECRET).contains(&content.len()) {
            return Err(SecretLength);
        }
        Ok(Self {
            messages: blake3::derive_key("aquatic cluster, version 1, messages", content),
            others: blake3::derive_key("aquatic cluster, version 1, derived keys", content),
        })
    }

    /// Derives a key for another use, which the context names: `connection ids 20635`.
    #[must_use]
    pub fn derive(&self, context: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.others, context.as_bytes()).as_bytes()
    }

    /// Appends a message. The caller uses each sequence number of a kind, core and run once.
    pub fn seal(&self, header: &Header, body: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        header.write(out);
        let body_start = out.len();
        out.extend_from_slice(body);
        let (head, rest) = out.split_at_mut(body_start);
        let (Some(head), Some(key)) = (head.get(start..), self.key(header)) else { return };
        // Fails beyond 64 GiB only.
        let tag = key.seal_in_place_separate_tag(nonce(header), Aad::from(head), rest);
        if let Ok(tag) = tag {
            out.extend_from_slice(tag.as_ref());
        }
    }

    /// Opens a message in place and returns its header and body.
    ///
    /// # Errors
    /// It is not for this run, or no message of this cluster.
    pub fn open<'a>(&self, own: ShortRun, message: &'a mut [u8]) -> Result<(Header, &'a [u8]), NotOpened> {
        let header = Header::read(message).map_err(NotOpened::NotOurs)?;
        if message.len() > header.length() + MAX_BODY + TAG_LENGTH {
            return Err(NotOpened::TooLong);
        }
        if header.to.is_some_and(|to| to != own) {
            return Err(NotOpened::OtherRun);
        }
        let foreign = NotOpened::NotOurs(NotOurs::Foreign);
        let (head, sealed) = message.split_at_mut_checked(header.length()).ok_or(foreign)?;
        let key = self.key(&header).ok_or(NotOpened::Secret)?;
        let body = key.open_in_place(nonce(&header), Aad::from(&*head), sealed);
        Ok((header, body.map_err(|_| NotOpened::Secret)?))
    }

    fn key(&self, header: &Header) -> Option<LessSafeKey> {
        let mut hasher = blake3::Hasher::new_keyed(&self.messages);
        hasher.update(&header.run.0).update(&[header.kind.number()]).update(&header.core.to_le_bytes());
        let key = hasher.finalize();
        UnboundKey::new(&AES_256_GCM, key.as_bytes()).ok().map(LessSafeKey::new)
    }
}

fn nonce(header: &Header) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&header.sequence.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

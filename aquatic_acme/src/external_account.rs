//! An account that was made on the authority's website, to which the tracker's account is bound (RFC 8555,
//! 7.3.4).

use std::fmt;

use aquatic_common::config::{AcmeConfig, Unusable, read_secret_file};
use data_encoding::BASE64URL_NOPAD;
use instant_acme::ExternalAccountKey;

/// Identifier and key of an external account.
#[derive(Clone)]
pub(crate) struct ExternalAccount {
    id: String,
    key: Vec<u8>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ExternalAccount {
    /// The account that the configuration names, if it does. Reads a file, so it is made before privileges
    /// are dropped.
    ///
    /// # Errors
    /// What is wrong with the file of its key.
    pub(crate) fn read(config: &AcmeConfig, warnings: &mut Vec<String>) -> Result<Option<Self>, Unusable> {
        if config.external_account_id.is_empty() {
            return Ok(None);
        }
        let (name, path) = (AcmeConfig::external_account_key_path, &config.external_account_key_path);
        let text = read_secret_file((name, path), warnings)?;
        let key = decode(&text).ok_or_else(|| {
            let what =
                "it is not a key in base64url; copy the HMAC key as the website of the authority shows it";
            Unusable::new(name, path, what)
        })?;
        Ok(Some(Self { id: config.external_account_id.clone(), key }))
    }

    pub(crate) fn key(&self) -> ExternalAccountKey {
        ExternalAccountKey::new(self.id.clone(), &self.key)
    }
}

/// Returns the bytes of a key in base64url or base64, with or without padding.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let letters: Vec<u8> = text
        .iter()
        .map(|&letter| match letter {
            b'+' => b'-',
            b'/' => b'_',
            _ => letter,
        })
        .collect();
    let end = letters.iter().rposition(|&letter| letter != b'=')?;
    BASE64URL_NOPAD.decode(&letters[..=end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_each_way_of_writing_them() {
        for text in ["-_-_aA==", "-_-_aA", "+/+/aA=="] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(&[0xfb, 0xff, 0xbf, 0x68][..]), "{text}");
        }
        for text in ["", "=", "a b", "-_-_a", "<html>"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn files_of_keys_are_explained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let config = AcmeConfig {
            external_account_id: "kid-1".to_owned(),
            external_account_key_path: path.clone(),
            ..AcmeConfig::default()
        };
        let read = || ExternalAccount::read(&config, &mut Vec::new());
        assert!(read().unwrap_err().text.contains("create it"), "{:?}", read());
        std::fs::write(&path, "not a key\n").unwrap();
        assert!(read().unwrap_err().text.contains("base64url"), "{:?}", read());
        std::fs::write(&path, "-_-_aA\n").unwrap();
        assert_eq!(format!("{:?}", read().unwrap().unwrap()), "ExternalAccount { id: \"kid-1\", .. }");
        assert!(ExternalAccount::read(&AcmeConfig::default(), &mut Vec::new()).unwrap().is_none());
    }
}

//! Admission: whether the tracker serves a request for a torrent. One rule for all protocols.

use std::sync::Arc;

use aquatic_common::InfoHash;

use crate::access_list::SharedAccessList;

/// What admission decides on.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionRequest<'a> {
    /// Info hash of the torrent.
    pub info_hash: &'a InfoHash,
    /// Key that the client has presented, such as a part of the announce URL's path. No policy reads it so
    /// far.
    pub key: Option<&'a [u8]>,
}

impl<'a> AdmissionRequest<'a> {
    /// A request without a key.
    #[must_use]
    pub fn of(info_hash: &'a InfoHash) -> Self {
        Self { info_hash, key: None }
    }
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The access list does not let the torrent in.
    AccessList,
}

impl NotAdmitted {
    /// What the client is told.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::AccessList => "this tracker does not serve this torrent",
        }
    }
}

/// The admission policy of one core.
#[derive(Debug)]
pub struct Admission {
    access_list: Arc<SharedAccessList>,
}

impl Admission {
    /// A policy that follows the access list.
    #[must_use]
    pub fn new(access_list: Arc<SharedAccessList>) -> Self {
        Self { access_list }
    }

    /// Decides on an announce or on one torrent of a scrape.
    ///
    /// # Errors
    /// Why it is not served.
    #[inline]
    pub fn check(&self, request: AdmissionRequest<'_>) -> Result<(), NotAdmitted> {
        if self.access_list.allows(request.info_hash) { Ok(()) } else { Err(NotAdmitted::AccessList) }
    }
}

//! Dividing what another node tells among the cores of this one.

use aquatic_common::{Family, InfoHash, Steering};
use aquatic_tracker::replication::{PartSet, record_length};
use aquatic_tracker::snapshot::format::Torrent;

/// Cores of a node, and the parts of which it takes something in; all if there are none.
#[derive(Clone, Copy, Debug)]
pub struct Among<'a> {
    /// Which core owns which torrents.
    pub steering: &'a Steering,
    /// Number of cores.
    pub cores: usize,
    /// Parts of the hash space.
    pub parts: Option<&'a PartSet>,
}

/// What was divided.
#[derive(Debug)]
pub struct Divided {
    /// Bytes for each core.
    pub by_core: Vec<Vec<u8>>,
    /// Number of records or torrents of other parts.
    pub left_out: u64,
    /// Whether something could not be read.
    pub is_malformed: bool,
}

impl Among<'_> {
    /// Divides records of changes among the owners of their torrents. Given the parts that the node keeps:
    /// peers that leave while their part is only kept are not to be there when it is held again. The cores
    /// pass over the other changes of such parts.
    #[must_use]
    pub fn divide_changes(&self, family: Family, records: &[u8]) -> Divided {
        self.divide_records(record_length(family), records)
    }

    /// Divides torrents among their owners, as far as they can be read. Given the parts that the node holds.
    #[must_use]
    pub fn divide_torrents(&self, family: Family, mut torrents: &[u8]) -> Divided {
        let mut divided = self.nothing();
        while !torrents.is_empty() {
            let Ok(torrent) = Torrent::take(family, &mut torrents) else {
                divided.is_malformed = true;
                break;
            };
            self.add(torrent.bytes, &mut divided);
        }
        divided
    }

    /// Divides records that begin with an info hash and are all of a length.
    #[must_use]
    pub fn divide_records(&self, length: usize, records: &[u8]) -> Divided {
        let mut divided = self.nothing();
        divided.is_malformed = !records.len().is_multiple_of(length);
        for record in records.chunks_exact(length) {
            self.add(record, &mut divided);
        }
        divided
    }

    fn nothing(&self) -> Divided {
        Divided { by_core: vec![Vec::new(); self.cores], left_out: 0, is_malformed: false }
    }

    /// Adds bytes that begin with an info hash to those of the core that owns the torrent.
    fn add(&self, bytes: &[u8], divided: &mut Divided) {
        let Some(info_hash) = bytes.first_chunk().map(|bytes| InfoHash(*bytes)) else { return };
        if self.parts.is_some_and(|parts| !parts.contains(&info_hash)) {
            divided.left_out += 1;
        } else if let Some(part) = divided.by_core.get_mut(self.steering.owner(&info_hash)) {
            part.extend_from_slice(bytes);
        }
    }
}

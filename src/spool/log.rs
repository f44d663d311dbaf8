//! The file: entries one behind the other, each with a head that says how long it is. What is in them
//! is sealed (`letter`); this knows only where each lies.
//!
//! Files of entries can be joined by writing one behind the other: so the spool of a machine that is
//! gone is moved, and so an entry that was set aside is brought back.

use super::OpenError;
use sha2::{Digest, Sha256};
use std::{
    collections::VecDeque,
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What every entry begins with; another layout is another version.
const MAGIC: [u8; 8] = *b"INTAKE\x00\x01";
/// Magic, office, moment of receipt, length of what follows.
pub(super) const HEAD: usize = 8 + 4 + 8 + 4;
/// Of what follows the head, in bytes: a push's body is 128 KiB at most, its head 16.
pub(super) const LONGEST: usize = 256 * 1024;

const ENTRIES: &str = "entries";
const LOCK: &str = "lock";
const ASIDE: &str = "aside-";

/// The part of an entry that can be read by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) office: i32,
    /// When it was received, in microseconds since 1970.
    pub(super) received_us: i64,
    /// Of what follows, in bytes.
    pub(super) length: u32,
}

impl Head {
    pub(super) fn bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.office.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.received_us.to_be_bytes());
        bytes[20..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// `None` for what no entry begins with.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (office, rest) = rest.split_first_chunk::<4>()?;
        let (received, rest) = rest.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?);
        let plausible = *magic == MAGIC && length > 0 && length as usize <= LONGEST;
        plausible.then(|| Self {
            office: i32::from_be_bytes(*office),
            received_us: i64::from_be_bytes(*received),
            length,
        })
    }
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    length: u64,
    received_us: i64,
    /// It needs no look any more; what lies before it does.
    done: bool,
    /// How often others went through while this one did not.
    passed_by: u32,
}

/// An entry as it lies in the file.
#[derive(Clone)]
pub(super) struct Entry {
    /// By which it is named until the file is empty.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) passed_by: u32,
}

/// Why an entry was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotKept {
    Full,
    /// The disk did not take it.
    Failed,
}

/// How the spool stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Entries that wait.
    pub waiting: usize,
    /// When the oldest of them was received, in microseconds since 1970.
    pub oldest_us: Option<i64>,
    /// Bytes of the file, and how many it may have.
    pub bytes: u64,
    /// How many it may have.
    pub limit: u64,
    /// Entries that were set aside and lie in the folder.
    pub aside: usize,
}

impl Standing {
    /// Whether the longest entry would still fit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes + (HEAD + LONGEST) as u64 <= self.limit
    }
}

pub(super) struct Log {
    folder: PathBuf,
    file: File,
    /// Held for as long as the folder is this process'.
    _lock: File,
    length: u64,
    limit: u64,
    places: VecDeque<Place>,
    aside: usize,
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Log {
    /// Takes the folder for this process and reads what lies there.
    pub(super) fn open(folder: &Path, limit: u64) -> Result<Self, OpenError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(OpenError::Io)?;
        let lock = private().create(true).truncate(false).open(folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => return Err(OpenError::Io(error)),
        }
        let file = private().create(true).truncate(false).open(folder.join(ENTRIES))?;
        // Copied here by hand, perhaps.
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut log = Self {
            folder: folder.to_owned(),
            file,
            _lock: lock,
            length: 0,
            limit,
            places: VecDeque::new(),
            aside: 0,
        };
        log.recover()?;
        log.sync_folder()?;
        log.count_aside()?;
        Ok(log)
    }

    /// Finds the entries. What cannot be one is set aside where another entry follows, and cut where
    /// none does: a write that a crash broke off was never answered.
    fn recover(&mut self) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        let mut at = 0;
        while at < end {
            if let Some(place) = self.entry_at(at, end)? {
                at += place.length;
                self.places.push_back(place);
                continue;
            }
            let Some(next) = self.next_entry(at, end)? else { break };
            let mut damaged = vec![0; usize::try_from(next - at).unwrap_or_default()];
            self.file.read_exact_at(&mut damaged, at)?;
            self.put_aside(&damaged)?;
            tracing::error!(
                spool.bytes = next - at,
                "part of the spool is damaged; it was set aside, and what follows is read"
            );
            at = next;
        }
        if at < end {
            tracing::warn!(
                spool.bytes = end - at,
                "the end of the spool was not written to its end and is cut off; it was never answered"
            );
            self.file.set_len(at)?;
            self.file.sync_all()?;
        }
        self.length = at;
        Ok(())
    }

    fn entry_at(&self, at: u64, end: u64) -> io::Result<Option<Place>> {
        if end - at < HEAD as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, at)?;
        let place = Head::read(&head).map(|head| Place {
            at,
            length: HEAD as u64 + u64::from(head.length),
            received_us: head.received_us,
            done: false,
            passed_by: 0,
        });
        Ok(place.filter(|place| place.length <= end - at))
    }

    /// The next entry behind what is damaged.
    fn next_entry(&self, from: u64, end: u64) -> io::Result<Option<u64>> {
        const PIECE: u64 = 64 * 1024;
        let mut at = from + 1;
        while at < end {
            // Pieces overlap: one may begin in the middle of a mark.
            let length = (PIECE + MAGIC.len() as u64).min(end - at);
            let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
            self.file.read_exact_at(&mut piece, at)?;
            for (offset, window) in piece.windows(MAGIC.len()).enumerate() {
                let candidate = at + offset as u64;
                if window == MAGIC && self.entry_at(candidate, end)?.is_some() {
                    return Ok(Some(candidate));
                }
            }
            at += PIECE;
        }
        Ok(None)
    }

    /// Writes entries behind the others; what is kept is on the disk when this returns. All of them
    /// share one wait for the disk.
    pub(super) fn append(&mut self, entries: &[Vec<u8>]) -> Vec<Result<(), NotKept>> {
        if self.places.is_empty() && self.length > 0 {
            self.begin_anew();
        }
        let mut whole = Vec::new();
        let mut places = Vec::new();
        let mut kept: Vec<Result<(), NotKept>> = entries
            .iter()
            .map(|entry| {
                let at = self.length + whole.len() as u64;
                let Some(head) = Head::read(entry) else { return Err(NotKept::Failed) };
                if at + entry.len() as u64 > self.limit {
                    return Err(NotKept::Full);
                }
                whole.extend_from_slice(entry);
                let (length, received_us) = (entry.len() as u64, head.received_us);
                places.push(Place { at, length, received_us, done: false, passed_by: 0 });
                Ok(())
            })
            .collect();
        if whole.is_empty() {
            return kept;
        }
        let written =
            self.file.write_all_at(&whole, self.length).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += whole.len() as u64;
                self.places.extend(places);
            }
            Err(error) => {
                tracing::error!(error = %error, "the spool cannot be written; senders are asked to try again");
                // Of what is not answered nothing needs to stay; the next one is written over it.
                let _ = self.file.set_len(self.length);
                kept.iter_mut().filter(|one| one.is_ok()).for_each(|one| {
                    *one = Err(NotKept::Failed);
                });
            }
        }
        kept
    }

    /// The oldest that are not done, in their order.
    pub(super) fn oldest(&self, limit: usize) -> io::Result<Vec<Entry>> {
        let entry = |place: &Place| {
            let mut bytes = vec![0; usize::try_from(place.length).unwrap_or_default()];
            self.file.read_exact_at(&mut bytes, place.at)?;
            Ok(Entry { at: place.at, bytes, passed_by: place.passed_by })
        };
        self.places.iter().filter(|place| !place.done).take(limit).map(entry).collect()
    }

    /// What lies at these places is done. An empty file begins anew; whether nothing is left.
    pub(super) fn done(&mut self, places: &[u64]) -> bool {
        for at in places {
            if let Some(place) = self.place(*at) {
                place.done = true;
            }
        }
        while self.places.front().is_some_and(|place| place.done) {
            self.places.pop_front();
        }
        if self.places.is_empty() && self.length > 0 {
            self.begin_anew();
        }
        self.places.is_empty()
    }

    /// Empties the file. Should a crash bring back what was in it: what is done again finds itself
    /// done. So does what a disk that fails now leaves there, until it can be tried again.
    fn begin_anew(&mut self) {
        let emptied = self.file.set_len(0).and_then(|()| {
            self.length = 0;
            self.file.sync_all()
        });
        if let Err(error) = emptied {
            tracing::error!(error = %error, "the spool's file cannot be emptied");
        }
    }

    /// So many others went through while this one did not; how many in all.
    pub(super) fn passed_by(&mut self, at: u64, others: u32) -> u32 {
        let Some(place) = self.place(at) else { return 0 };
        place.passed_by += others;
        place.passed_by
    }

    fn place(&mut self, at: u64) -> Option<&mut Place> {
        let found = self.places.binary_search_by_key(&at, |place| place.at).ok()?;
        self.places.get_mut(found)
    }

    /// Keeps an entry in a file of its own; the same one once.
    pub(super) fn put_aside(&mut self, entry: &[u8]) -> io::Result<()> {
        let name = format!("{ASIDE}{}", &hex::encode(Sha256::digest(entry))[..16]);
        let file = private().create(true).truncate(true).open(self.folder.join(name))?;
        file.write_all_at(entry, 0)?;
        file.sync_all()?;
        self.sync_folder()?;
        self.count_aside()
    }

    fn count_aside(&mut self) -> io::Result<()> {
        let names = std::fs::read_dir(&self.folder)?.flatten().map(|file| file.file_name());
        self.aside = names.filter(|name| name.to_string_lossy().starts_with(ASIDE)).count();
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn standing(&mut self) -> Standing {
        // Somebody may have taken files away.
        let _ = self.count_aside();
        Standing {
            waiting: self.places.iter().filter(|place| !place.done).count(),
            oldest_us: self.places.iter().find(|place| !place.done).map(|place| place.received_us),
            bytes: self.length,
            limit: self.limit,
            aside: self.aside,
        }
    }
}

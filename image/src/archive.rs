//! Tar entries that say nothing of where and when they were made.

use std::io::{self, Write};
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// What an entry is.
pub(crate) enum Entry<'a> {
    /// A file's bytes.
    File(&'a [u8]),
    /// A directory.
    Directory,
    /// A symbolic link's target.
    Link(&'a Path),
}

/// Appends an entry owned by root, of that time.
///
/// # Errors
/// The writer's.
pub(crate) fn append<W: Write>(
    to: &mut Builder<W>,
    name: &Path,
    entry: &Entry<'_>,
    mode: u32,
    epoch: u64,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch);
    header.set_mode(mode);
    match entry {
        Entry::File(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            to.append_data(&mut header, name, *bytes)
        }
        Entry::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            to.append_data(&mut header, name, io::empty())
        }
        Entry::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            to.append_link(&mut header, name, target)
        }
    }
}

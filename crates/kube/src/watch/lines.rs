//! Lines out of pieces of a stream.

/// The longest line: etcd takes objects of 1.5 MiB, and JSON is longer than its form there.
const LONGEST: usize = 4 * 1024 * 1024;
/// A buffer that grew beyond this is given back once it is empty.
const USUAL: usize = 64 * 1024;

/// What came and was not read yet.
#[derive(Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Read before here.
    at: usize,
    /// No end of a line before here.
    searched: usize,
}

/// A line has no end.
#[derive(Debug)]
pub(super) struct TooLong;

impl Lines {
    /// Adds a piece.
    ///
    /// # Errors
    /// [`TooLong`].
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.searched = self.searched.saturating_sub(self.at);
            self.at = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > USUAL {
                self.buffer = Vec::new();
            }
        }
        if self.buffer.len() + piece.len() > LONGEST {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole line, without its end. Empty ones are passed over.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let rest = self.buffer.get(self.searched..)?;
            let Some(length) = rest.iter().position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let (begin, end) = (self.at, self.searched + length);
            self.at = end + 1;
            self.searched = self.at;
            if end > begin {
                return self.buffer.get(begin..end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LONGEST / 2];
        assert!(lines.push(&piece).is_ok() && lines.push(&piece).is_ok());
        assert!(lines.push(b"x").is_err());
    }

    #[test]
    fn the_memory_of_a_long_line_is_given_back() {
        let mut lines = Lines::default();
        let mut long = vec![b'x'; 1024 * 1024];
        long.push(b'\n');
        lines.push(&long).unwrap();
        assert!(lines.next().is_some());
        lines.push(b"a").unwrap();
        assert!(lines.buffer.capacity() <= USUAL);
    }

    proptest! {
        #[test]
        fn the_same_lines_come_out_whatever_the_pieces(text in "[ab\n]{0,200}", piece in 1_usize..40) {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(piece) {
                lines.push(piece).unwrap();
                while let Some(line) = lines.next() {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let wanted: Vec<&str> = whole.split('\n').filter(|l| !l.is_empty()).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}

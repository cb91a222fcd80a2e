//! A body that arrives in pieces: held before it is kept. One piece is shared, not copied.

use bytes::{Bytes, BytesMut};

use super::{Hold, NoRoom};

/// What has arrived so far.
pub(in crate::gateway) struct Gathered {
    hold: Hold,
    /// How often each byte counts.
    weight: usize,
    first: Bytes,
    rest: BytesMut,
}

impl Gathered {
    /// Nothing yet.
    pub(in crate::gateway) fn new(hold: Hold, weight: usize) -> Self {
        Self { hold, weight, first: Bytes::new(), rest: BytesMut::new() }
    }

    /// So many bytes are announced: they are held at once, so that several bodies do not stop each other halfway.
    pub(in crate::gateway) async fn expect(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.hold.grow(bytes.saturating_mul(self.weight)).await
    }

    /// Bytes that have arrived.
    pub(in crate::gateway) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Keeps a piece. `most` is the largest length that the whole may have.
    pub(in crate::gateway) async fn push(&mut self, piece: Bytes, most: usize) -> Result<(), NoRoom> {
        let whole = self.len() + piece.len();
        if self.len() == 0 {
            self.expect(whole).await?;
            self.first = piece;
            return Ok(());
        }
        if whole > self.rest.capacity() {
            // Doubled, so that each byte is moved a few times at most; as much as was announced, where that is known.
            let announced = self.hold.bytes / self.weight.max(1);
            let room = whole.max((self.rest.capacity() * 2).min(most)).max(announced.min(most));
            self.expect(room).await?;
            let first = std::mem::take(&mut self.first);
            self.rest.reserve(room - self.rest.len());
            self.rest.extend_from_slice(&first);
        }
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    /// The whole, held for as long as it lives.
    pub(in crate::gateway) fn finish(mut self) -> Bytes {
        let whole = if self.rest.is_empty() { self.first } else { self.rest.freeze() };
        self.hold.shrink(whole.len().saturating_mul(self.weight));
        self.hold.attach(whole)
    }
}

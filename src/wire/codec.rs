//! The codec of the policy stream: prost's, with buffers of the size of what is usually said.
//!
//! tonic makes two buffers for each stream and keeps them as long as it lives; by default each has 8 KiB, and a thousand
//! gateways say little. They grow where a message is longer.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// First size of a buffer, in bytes, and by how much it grows.
const BUFFER: usize = 512;
/// Messages are collected up to this size before they are handed on, in bytes: tonic's default.
const YIELD: usize = 32 << 10;

/// Encodes and decodes messages.
#[derive(Clone, Debug)]
pub(super) struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for SmallCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, YIELD))
    }
}

//! The wire of a single node: there is nobody to reach.

use raft_types::{BoxFuture, Class, Message, Stream, Wire, WireError};

pub(crate) struct Alone;

fn nobody(peer: &str) -> WireError {
    WireError::Unreachable { peer: peer.to_owned(), why: "this is a single node".into() }
}

impl Wire for Alone {
    fn call(&self, peer: &str, _: Class, _: Message) -> BoxFuture<'_, Result<Message, WireError>> {
        let error = nobody(peer);
        Box::pin(async move { Err(error) })
    }

    fn open(&self, peer: &str, _: Class, _: Message) -> BoxFuture<'_, Result<Box<dyn Stream>, WireError>> {
        let error = nobody(peer);
        Box::pin(async move { Err(error) })
    }
}

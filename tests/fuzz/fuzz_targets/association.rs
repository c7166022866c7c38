//! Whatever is read as A-ASSOCIATE-RQ is answered: each context once, no more of them than there are ids, and the answer can
//! be written and read.
#![no_main]
use archive_model::AeTitle;
use archive_upper_layer::{
    frame::{self, Frame},
    negotiate::{self, Acceptor, CONTEXTS_MAX},
    pdu::Pdu,
};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut bytes = BytesMut::from(&[1, 0][..]);
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    let Ok(Some(Frame::Other(Pdu::AssociationRQ(request)))) = frame::take(&mut bytes) else { return };
    let acceptor = Acceptor { any_called_title: true, ..Acceptor::new(AeTitle::parse("TRIPTYCH").expect("a title")) };
    let Ok(agreed) = negotiate::answer(&request, &acceptor, 1 << 17) else { return };
    assert!(agreed.answer.presentation_contexts.len() <= CONTEXTS_MAX);
    assert!(agreed.contexts.keys().all(|id| id % 2 == 1));
    let written = frame::encode(&Pdu::AssociationAC(agreed.answer)).expect("an answer can be written");
    let read = frame::take(&mut BytesMut::from(&written[..]));
    assert!(matches!(read, Ok(Some(Frame::Other(Pdu::AssociationAC(_))))));
});

//! The registry as nodes see it: changes, callers, destinations, and what is done before it is known.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::LocalDocuments;
use std::collections::BTreeSet;

fn title(text: &str) -> AeTitle {
    AeTitle::parse(text).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn peers(documents: &Arc<LocalDocuments>) -> Peers {
    let documents: Arc<dyn Documents> = Arc::<LocalDocuments>::clone(documents);
    let remotes = [("OLD", "old:104"), ("BOTH", "line:104")];
    let remotes = remotes.map(|(ae, at)| (ae.to_owned(), RemoteAe { title: title(ae), address: at.to_owned() }));
    Peers::new(documents, remotes.into())
}

/// One that knows that nothing is set.
fn known(documents: &Arc<LocalDocuments>) -> Peers {
    let peers = peers(documents);
    peers.learn(&Document::default());
    peers
}

fn source(protocol: Protocol, calling: &str) -> Source {
    Source { protocol, calling_ae: calling.into(), called_ae: String::new(), peer: "10.0.0.1:1".into() }
}

#[test]
fn nobody_is_admitted_by_rules_that_are_not_known_or_not_understood() {
    let peers = peers(&LocalDocuments::new());
    let here = address("10.0.0.1");
    assert_eq!(peers.caller("CT1", here), Err(NotAdmitted::NotYet));
    assert_eq!(peers.destination("OLD"), None);
    peers.learn(&Document { version: 3, bytes: "{\"version\":9}".into() });
    assert_eq!(peers.caller("CT1", here), Err(NotAdmitted::NotYet));
    assert!(matches!(peers.registry(), Err(PeersError::Undecided(why)) if why.contains("upgrade this node")));
    peers.learn(&Document { version: 2, bytes: bytes::Bytes::new() });
    assert_eq!(peers.caller("CT1", here), Err(NotAdmitted::NotYet), "an older one takes nothing back");
    peers.learn(&Document { version: 4, bytes: bytes::Bytes::new() });
    assert!(peers.caller("CT1", here).is_ok());
}

#[tokio::test]
async fn a_caller_is_who_his_title_and_his_address_say() {
    let peers = known(&LocalDocuments::new());
    let (here, there) = (address("10.0.0.1"), address("10.9.0.1"));
    assert_eq!(peers.caller("CT1", here).map(|peer| peer.rights.len()), Ok(6), "until something is set");
    let networks = vec!["10.0.0.0/24".parse().unwrap()];
    let ct1 = Peer { networks, rights: [Right::Store].into(), ..Peer::new(title("CT1")) };
    assert_eq!(peers.set(ct1, None).await, Ok((1, true)));
    assert!(peers.caller(" CT1 ", here).is_ok_and(|peer| peer.may(Right::Store) && !peer.may(Right::Find)));
    assert_eq!(peers.caller("CT1", there), Err(NotAdmitted::Address), "and not as anybody (PR-2)");
    assert!(peers.caller("MR1", there).is_ok_and(|peer| peer.may(Right::Find)));
    let closed = Peer { rights: BTreeSet::new(), ..Peer::new(title(ANYBODY)) };
    assert_eq!(peers.set(closed, Some(1)).await, Ok((2, true)));
    assert_eq!(peers.caller("MR1", there), Err(NotAdmitted::Title));
    assert!(peers.caller("CT1", here).is_ok());
    assert_eq!(peers.remove(&title(ANYBODY), None).await, Ok(3));
    assert!(peers.caller("MR1", there).is_ok());
    assert_eq!(peers.remove(&title("MR1"), None).await, Err(PeersError::Unknown(title("MR1"))));
}

#[tokio::test]
async fn the_registry_says_where_images_go_before_the_command_line_does() {
    let peers = known(&LocalDocuments::new());
    let at = |ae| peers.destination(ae).map(|destination| destination.remote.address);
    assert_eq!((at("OLD"), at("BOTH"), at("NEW")), (Some("old:104".into()), Some("line:104".into()), None));
    for (ae, address) in [("BOTH", Some("listed:104")), ("NEW", Some("new:104")), ("OLD", None)] {
        let peer = Peer { address: address.map(str::to_owned), ..Peer::new(title(ae)) };
        peers.set(peer, None).await.unwrap();
    }
    assert_eq!((at("BOTH"), at("NEW")), (Some("listed:104".into()), Some("new:104".into())));
    assert_eq!(at("OLD"), None, "listed without an address: it is not called (PR-3)");
    assert_eq!(at(ANYBODY), None);
    peers.remove(&title("OLD"), None).await.unwrap();
    assert_eq!(at("OLD"), Some("old:104".into()));
}

#[tokio::test]
async fn of_two_changes_at_once_none_is_lost() {
    let documents = LocalDocuments::new();
    let (one, other) = (known(&documents), known(&documents));
    assert_eq!(one.set(Peer::new(title("A")), None).await, Ok((1, true)));
    assert_eq!(other.set(Peer::new(title("B")), Some(0)).await, Err(PeersError::Changed(1)), "it has seen version 0");
    assert_eq!(other.set(Peer::new(title("B")), None).await, Ok((2, true)), "made anew over the first (PR-4)");
    let listed = |peers: &Peers| peers.registry().unwrap().peers().map(|peer| peer.ae.to_string()).collect::<Vec<_>>();
    assert_eq!(listed(&other), ["A", "B"]);
    assert_eq!(one.set(Peer::new(title("A")), None).await, Ok((3, false)));
    assert_eq!(listed(&one), ["A", "B"]);
}

#[tokio::test]
async fn a_change_at_one_node_is_known_at_the_others() {
    let documents = LocalDocuments::new();
    let (here, there) = (known(&documents), Arc::new(peers(&documents)));
    let following = tokio::spawn({
        let there = Arc::clone(&there);
        async move { there.follow().await }
    });
    here.set(Peer { rights: [Right::Echo].into(), ..Peer::new(title("CT1")) }, None).await.unwrap();
    let known = async {
        while !there.caller("CT1", address("10.0.0.1")).is_ok_and(|peer| !peer.may(Right::Store)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.unwrap();
    following.abort();
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_it_is_proposed() {
    let peers = known(&LocalDocuments::new());
    let bad = Peer { address: Some("nowhere".into()), ..Peer::new(title("CT1")) };
    assert!(matches!(peers.set(bad, None).await, Err(PeersError::Bad(why)) if why.contains("HOST:PORT")));
    let long = |number| Peer { notes: "n".repeat(500), ..Peer::new(title(&format!("AE{number}"))) };
    let mut refused = None;
    for number in 0..1000 {
        if let Err(error) = peers.set(long(number), None).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(PeersError::Refused(_))), "the registry has a bound: {refused:?}");
}

#[tokio::test]
async fn the_policy_for_other_content_is_that_of_who_sends_it() {
    let peers = known(&LocalDocuments::new());
    let reject = Peer { other_content: OtherContent::Reject, ..Peer::new(title("CT1")) };
    peers.set(reject, None).await.unwrap();
    assert_eq!(peers.other_content(&source(Protocol::Dimse, "CT1 ")), OtherContent::Reject);
    assert_eq!(peers.other_content(&source(Protocol::Dimse, "MR1")), OtherContent::Keep);
    assert_eq!(peers.other_content(&source(Protocol::Stow, "CT1")), OtherContent::Keep);
    let replace = Peer { other_content: OtherContent::Replace, ..Peer::new(title(ANYBODY)) };
    peers.set(replace, None).await.unwrap();
    assert_eq!(peers.other_content(&source(Protocol::Dimse, "MR1")), OtherContent::Replace);
    assert_eq!(
        peers.other_content(&source(Protocol::Stow, "MR1")),
        OtherContent::Keep,
        "a web client is none of those"
    );
}

#[tokio::test]
async fn the_policy_for_what_comes_by_stow_is_that_of_dicomweb_clients() {
    let peers = known(&LocalDocuments::new());
    for policy in [OtherContent::Reject, OtherContent::Replace, OtherContent::Keep] {
        peers.set(Peer { other_content: policy, ..Peer::new(title(DICOMWEB)) }, None).await.unwrap();
        assert_eq!(peers.other_content(&source(Protocol::Stow, "")), policy);
        for protocol in [Protocol::Dimse, Protocol::Import] {
            assert_eq!(peers.other_content(&source(protocol, DICOMWEB)), OtherContent::Keep);
        }
    }
    let called = Peer { address: Some("web:104".into()), ..Peer::new(title(DICOMWEB)) };
    assert!(matches!(peers.set(called, None).await, Err(PeersError::Bad(_))));
    assert_eq!(peers.destination(DICOMWEB), None);
}

#[tokio::test]
async fn a_destination_has_its_own_rules_or_those_of_all_that_are_not_listed() {
    let peers = known(&LocalDocuments::new());
    let rule = |text: &str| text.parse::<Rule>().unwrap();
    let ruled = |ae, text| Peer { coerce: vec![rule(text)], ..Peer::new(title(ae)) };
    peers.set(ruled(ANYBODY, "retrieve PatientName clear"), None).await.unwrap();
    let own = Peer { address: Some("new:104".into()), ..ruled("NEW", "retrieve PatientID clear") };
    peers.set(own, None).await.unwrap();
    assert_eq!(peers.destination("NEW").unwrap().coerce, [rule("retrieve PatientID clear")]);
    assert_eq!(peers.destination("OLD").unwrap().coerce, [rule("retrieve PatientName clear")], "of the command line");
}

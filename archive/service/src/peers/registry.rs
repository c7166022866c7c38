//! What is known of the applications that call this archive and are called by it: one versioned document.
//!
//! ```text
//!   bytes = {"version":1,"peers":[{"ae":"CT1","address":"ct1:104","rights":["echo","store"],…},…]}      by title
//! ```
//!
//! Version 2 is the same with `"coerce":["retrieve AccessionNumber clear",…]` in an entry (`rule.rs`); it is written where some entry
//! has rules, and version 1 otherwise: a release that does not know rules must not send what they would have changed.
//!
//! A field that is left out has its default, which is how a release before a field reads what was set without it. A release
//! that needs more than a new field with a harmless default raises the version: older ones then say that they must be
//! upgraded, and admit nobody, instead of admitting by rules that they read half.

use super::{Network, Rule};
use archive_catalog::OtherContent;
use archive_model::{AeTitle, Uid};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// The title of the entry for callers that are not listed.
pub const ANYBODY: &str = "*";
/// The title of the entry for DICOMweb clients, which have no title of their own.
pub const DICOMWEB: &str = "*dicomweb";
/// The version that this release writes where nobody has rules, and where somebody does.
const VERSION: u32 = 1;
const VERSION_WITH_RULES: u32 = 2;
/// Bounds of one entry, so that hundreds of them fit into a document.
const NETWORKS_MAX: usize = 64;
const SYNTAXES_MAX: usize = 64;
const RULES_MAX: usize = 64;
const NOTES_CHARS_MAX: usize = 500;
const ASSOCIATIONS_MAX: u32 = 65_535;
const RETRY_DAYS_MAX: u32 = 30;

/// What a peer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// C-ECHO.
    Echo,
    /// C-STORE.
    Store,
    /// C-FIND.
    Find,
    /// C-MOVE.
    Move,
    /// C-GET.
    Get,
    /// Storage commitment.
    Commit,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Echo, Self::Store, Self::Find, Self::Move, Self::Get, Self::Commit];

    /// Its name in settings and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Store => "store",
            Self::Find => "find",
            Self::Move => "move",
            Self::Get => "get",
            Self::Commit => "commit",
        }
    }
}

/// Whether queries must carry the level and the unique keys above it (PS3.4 C.4.1.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hierarchy {
    /// They must, unless relational queries were negotiated.
    #[default]
    Strict,
    /// They need not: a missing level is guessed from the keys.
    Lenient,
}

/// What becomes of storage classes that this release does not know: private ones, and those of later editions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownClasses {
    /// They are stored as any other.
    #[default]
    Accept,
    /// Their contexts are refused.
    Refuse,
}

/// An application entity, or under the title `*` all that are not listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its title.
    pub ae: AeTitle,
    /// `HOST:PORT`, resolved at every connect; none for one that only calls.
    #[serde(default)]
    pub address: Option<String>,
    /// What it may ask for; with nothing at all it is not admitted. Default: everything.
    #[serde(default = "all_rights")]
    pub rights: BTreeSet<Right>,
    /// Where it may call from; empty: from anywhere.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// Transfer syntaxes that it may be sent: the stored one if it is among them, else the first that an image can be recoded
    /// to. Empty: as stored, else uncompressed.
    #[serde(default)]
    pub transfer_syntaxes: Vec<Uid>,
    /// Its associations at the same time, on each node; none: as many as the node takes of anybody. All that are not listed
    /// count together.
    #[serde(default)]
    pub associations_max: Option<u32>,
    /// What becomes of another content that it sends under a known UID.
    #[serde(default)]
    pub other_content: OtherContent,
    /// How its queries are read.
    #[serde(default)]
    pub hierarchy: Hierarchy,
    /// What becomes of storage classes that are not known here.
    #[serde(default)]
    pub unknown_classes: UnknownClasses,
    /// Whether it is told what is available (Instance Availability Notification). Written only if it is, so that a release that
    /// does not know it reads what was set without it.
    #[serde(default, skip_serializing_if = "is_not")]
    pub notify: bool,
    /// For how many days what a C-MOVE to it could not send is tried again; 0, the default: not at all. Written only if it is
    /// set, as `notify`.
    #[serde(default, skip_serializing_if = "is_none")]
    pub retry_days: u32,
    /// What it is shown in place of what is stored, in this order. Written only if there is any: see above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coerce: Vec<Rule>,
    /// For people.
    #[serde(default)]
    pub notes: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_not(set: &bool) -> bool {
    !set
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(days: &u32) -> bool {
    *days == 0
}

fn all_rights() -> BTreeSet<Right> {
    Right::ALL.into()
}

impl Peer {
    /// An entry with all defaults: it may do everything, from anywhere, and is not called.
    #[must_use]
    pub fn new(ae: AeTitle) -> Self {
        Self {
            ae,
            address: None,
            rights: all_rights(),
            networks: Vec::new(),
            transfer_syntaxes: Vec::new(),
            associations_max: None,
            other_content: OtherContent::default(),
            hierarchy: Hierarchy::default(),
            unknown_classes: UnknownClasses::default(),
            notify: false,
            retry_days: 0,
            coerce: Vec::new(),
            notes: String::new(),
        }
    }

    /// Whether it may ask for this.
    #[must_use]
    pub fn may(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }

    /// Whether it may call from `address`.
    #[must_use]
    pub fn may_come_from(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(address))
    }

    /// What is wrong with it, and what would be right.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.ae.as_str() == DICOMWEB {
            let said =
                Self { other_content: self.other_content, notes: self.notes.clone(), ..Self::new(self.ae.clone()) };
            if *self != said {
                return Err(format!(
                    "`{DICOMWEB}` stands for DICOMweb clients: what can be said of them is `other_content`, and notes"
                ));
            }
        }
        if self.coerce.len() > RULES_MAX {
            return Err(format!("at most {RULES_MAX} coercion rules: one `map` takes many pairs"));
        }
        if let Some(address) = &self.address {
            if self.ae.as_str() == ANYBODY {
                return Err("`*` stands for those that are not listed: it has no address".into());
            }
            check_address(address)?;
        }
        if self.notify && self.address.is_none() {
            return Err("who is to be told what is available needs an address: give it with --address".into());
        }
        if self.retry_days > 0 && self.address.is_none() {
            return Err("what is sent again needs an address: give it with --address".into());
        }
        if self.retry_days > RETRY_DAYS_MAX {
            return Err(format!("retry_days is 0 to {RETRY_DAYS_MAX}"));
        }
        if self.networks.len() > NETWORKS_MAX {
            return Err(format!("at most {NETWORKS_MAX} networks: join some to larger ones"));
        }
        if self.transfer_syntaxes.len() > SYNTAXES_MAX {
            return Err(format!("at most {SYNTAXES_MAX} transfer syntaxes"));
        }
        if self.associations_max.is_some_and(|most| !(1..=ASSOCIATIONS_MAX).contains(&most)) {
            return Err(format!("associations_max is 1 to {ASSOCIATIONS_MAX}; to shut a peer out, give it no rights"));
        }
        if self.notes.chars().count() > NOTES_CHARS_MAX || self.notes.chars().any(char::is_control) {
            return Err(format!("notes have at most {NOTES_CHARS_MAX} characters, in one line"));
        }
        Ok(())
    }
}

/// `HOST:PORT`; whether it answers shows when it is called.
fn check_address(address: &str) -> Result<(), String> {
    let bad = || format!("the address `{address}` is not HOST:PORT, such as ct1.example:104 or [2001:db8::1]:104");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (1..=253).contains(&host.len()) && host.bytes().all(plain)
        }
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_host && is_port { Ok(()) } else { Err(bad()) }
}

/// The document.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    peers: Vec<Peer>,
}

/// Only what every version has.
#[derive(Deserialize)]
struct Stamp {
    version: u32,
}

/// Everybody who is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    version: u64,
    peers: BTreeMap<String, Arc<Peer>>,
    anybody: Arc<Peer>,
}

impl Registry {
    /// Reads the document, which was set `version` times; one that was never set lists nobody.
    pub(crate) fn decode(version: u64, bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::of(version, BTreeMap::new()));
        }
        let malformed = |error: serde_json::Error| format!("it cannot be read: {error}");
        let stamp: Stamp = serde_json::from_slice(bytes).map_err(malformed)?;
        if stamp.version > VERSION_WITH_RULES {
            return Err(format!(
                "it is of version {}, and this release reads {VERSION_WITH_RULES}: upgrade this node",
                stamp.version
            ));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(malformed)?;
        let peers = written.peers.into_iter().map(|peer| (peer.ae.to_string(), Arc::new(peer))).collect();
        Ok(Self::of(version, peers))
    }

    fn of(version: u64, peers: BTreeMap<String, Arc<Peer>>) -> Self {
        let anybody = peers.get(ANYBODY).cloned().unwrap_or_else(|| Arc::new(Peer::new(anybody())));
        Self { version, peers, anybody }
    }

    /// The document with `peer` in it, or, if it is none, without `ae`.
    pub(crate) fn with(&self, ae: &AeTitle, peer: Option<Peer>) -> Bytes {
        let mut peers = self.peers.clone();
        match peer {
            Some(peer) => peers.insert(ae.to_string(), Arc::new(peer)),
            None => peers.remove(ae.as_str()),
        };
        let peers: Vec<Peer> = peers.into_values().map(|peer| Peer::clone(&peer)).collect();
        let rules = peers.iter().any(|peer| !peer.coerce.is_empty());
        let version = if rules { VERSION_WITH_RULES } else { VERSION };
        // Plain values: nothing here can fail to serialise.
        serde_json::to_vec(&Written { version, peers }).unwrap_or_default().into()
    }

    /// How often the registry was set.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All entries, by title.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().map(|peer| &**peer)
    }

    /// The entry of this title; `*` is there even when nobody has set it.
    #[must_use]
    pub fn get(&self, ae: &str) -> Option<&Arc<Peer>> {
        if ae == ANYBODY { Some(&self.anybody) } else { self.peers.get(ae) }
    }

    /// Whether somebody has set the entry of this title.
    #[must_use]
    pub fn lists(&self, ae: &str) -> bool {
        self.peers.contains_key(ae)
    }

    /// The entry that a caller of this title is under: its own, else that of all others.
    #[must_use]
    pub fn entry(&self, calling: &str) -> &Arc<Peer> {
        // A title is the caller's choice: nobody is a DICOMweb client by it.
        self.peers.get(calling).filter(|_| calling != DICOMWEB).unwrap_or(&self.anybody)
    }
}

fn anybody() -> AeTitle {
    AeTitle::parse(ANYBODY).unwrap_or_else(|_| unreachable!("a literal that is a valid AE title"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(text: &str) -> AeTitle {
        AeTitle::parse(text).expect("a title")
    }

    fn full() -> Peer {
        Peer {
            address: Some("ct1.example:104".into()),
            rights: [Right::Echo, Right::Store].into(),
            networks: vec!["10.1.2.0/24".parse().expect("a network")],
            transfer_syntaxes: vec![Uid::parse("1.2.840.10008.1.2.1").expect("a UID")],
            associations_max: Some(4),
            other_content: OtherContent::Reject,
            hierarchy: Hierarchy::Lenient,
            unknown_classes: UnknownClasses::Refuse,
            notes: "ward 3".into(),
            ..Peer::new(title("CT1"))
        }
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let none = Registry::decode(0, b"").expect("an empty registry");
        let bytes = none.with(&title("CT1"), Some(full()));
        let golden = "{\"version\":1,\"peers\":[{\"ae\":\"CT1\",\"address\":\"ct1.example:104\",\
            \"rights\":[\"echo\",\"store\"],\"networks\":[\"10.1.2.0/24\"],\
            \"transfer_syntaxes\":[\"1.2.840.10008.1.2.1\"],\"associations_max\":4,\"other_content\":\"reject\",\
            \"hierarchy\":\"lenient\",\"unknown_classes\":\"refuse\",\"notes\":\"ward 3\"}]}";
        assert_eq!(std::str::from_utf8(&bytes), Ok(golden));
        let read = Registry::decode(7, &bytes).expect("readable");
        assert_eq!((read.version(), read.peers().cloned().collect()), (7, vec![full()]));
        assert_eq!(read.with(&title("CT1"), None), "{\"version\":1,\"peers\":[]}");
    }

    #[test]
    fn the_bytes_of_version_2_never_change() {
        let none = Registry::decode(0, b"").expect("an empty registry");
        let rules = ["both AccessionNumber prefix HOSP-", "retrieve (0009,\"ACME 1.0\",01) remove"];
        let coerce = rules.map(|rule| rule.parse().expect("a rule")).to_vec();
        let peer = Peer { coerce, ..full() };
        let bytes = none.with(&title("CT1"), Some(peer.clone()));
        let golden = "{\"version\":2,\"peers\":[{\"ae\":\"CT1\",\"address\":\"ct1.example:104\",\
            \"rights\":[\"echo\",\"store\"],\"networks\":[\"10.1.2.0/24\"],\
            \"transfer_syntaxes\":[\"1.2.840.10008.1.2.1\"],\"associations_max\":4,\"other_content\":\"reject\",\
            \"hierarchy\":\"lenient\",\"unknown_classes\":\"refuse\",\
            \"coerce\":[\"both AccessionNumber prefix HOSP-\",\"retrieve (0009,\\\"ACME 1.0\\\",01) remove\"],\
            \"notes\":\"ward 3\"}]}";
        assert_eq!(std::str::from_utf8(&bytes), Ok(golden));
        let read = Registry::decode(7, &bytes).expect("readable");
        assert_eq!(read.peers().cloned().collect::<Vec<_>>(), vec![peer]);
        let without = read.with(&title("CT1"), Some(full()));
        assert!(without.starts_with(b"{\"version\":1,"), "what needs no rules is read by releases without them");
        let bad = b"{\"version\":2,\"peers\":[{\"ae\":\"CT1\",\"coerce\":[\"find PatientID hide\"]}]}";
        assert!(Registry::decode(1, bad).is_err_and(|why| why.contains("cannot be read")));
    }

    #[test]
    fn dicomweb_clients_have_an_entry_that_no_caller_gets_by_its_title() {
        let web = Peer { other_content: OtherContent::Reject, notes: "n".into(), ..Peer::new(title(DICOMWEB)) };
        assert_eq!(web.check(), Ok(()));
        let none = Registry::decode(0, b"").expect("an empty registry");
        let read = Registry::decode(1, &none.with(&title(DICOMWEB), Some(web.clone()))).expect("readable");
        assert_eq!(read.entry(DICOMWEB).other_content, OtherContent::Keep);
        assert_eq!(read.get(DICOMWEB).map(|peer| peer.other_content), Some(OtherContent::Reject));
        for more in [
            Peer { rights: BTreeSet::new(), ..web.clone() },
            Peer { address: Some("web:104".into()), ..web.clone() },
            Peer { coerce: vec!["find PatientID clear".parse().expect("a rule")], ..web.clone() },
            Peer { hierarchy: Hierarchy::Lenient, ..web },
        ] {
            assert!(more.check().is_err_and(|why| why.contains("DICOMweb clients")));
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let read = Registry::decode(1, b"{\"version\":1,\"peers\":[{\"ae\":\"CT1\"}]}").expect("readable");
        assert_eq!(**read.entry("CT1"), Peer::new(title("CT1")));
        assert!(Right::ALL.iter().all(|right| read.entry("CT1").may(*right)));
    }

    #[test]
    fn who_is_told_what_is_available_is_called() {
        let told = Peer { notify: true, ..full() };
        let none = Registry::decode(0, b"").expect("an empty registry");
        let bytes = none.with(&title("CT1"), Some(told.clone()));
        assert!(bytes.windows(14).any(|text| text == b"\"notify\":true,"), "{bytes:?}");
        assert_eq!(Registry::decode(1, &bytes).map(|read| read.entry("CT1").notify), Ok(true));
        assert_eq!(told.check(), Ok(()));
        assert!(Peer { address: None, ..told }.check().is_err_and(|why| why.contains("--address")));
    }

    #[test]
    fn what_is_sent_again_is_bounded_and_written_only_if_it_is_set() {
        let again = Peer { retry_days: 30, ..full() };
        let none = Registry::decode(0, b"").expect("an empty registry");
        let bytes = none.with(&title("CT1"), Some(again.clone()));
        assert!(bytes.windows(16).any(|text| text == b"\"retry_days\":30,"), "{bytes:?}");
        assert_eq!(Registry::decode(1, &bytes).map(|read| read.entry("CT1").retry_days), Ok(30));
        assert_eq!(again.check(), Ok(()));
        assert!(Peer { retry_days: 31, ..again.clone() }.check().is_err());
        assert!(Peer { address: None, ..again }.check().is_err_and(|why| why.contains("--address")));
    }

    #[test]
    fn a_registry_of_a_newer_release_is_not_read_by_half() {
        let newer = b"{\"version\":3,\"peers\":{\"by\":\"another shape\"}}";
        assert!(Registry::decode(1, newer).is_err_and(|why| why.contains("upgrade this node")));
        for broken in
            [&b"{"[..], b"[]", b"{\"version\":1}", b"{\"version\":1,\"peers\":[{\"ae\":\"CT1\",\"right\":[]}]}"]
        {
            assert!(Registry::decode(1, broken).is_err_and(|why| why.contains("cannot be read")));
        }
    }

    #[test]
    fn who_is_not_listed_is_anybody_and_anybody_may_do_everything_until_that_is_set() {
        let none = Registry::decode(0, b"").expect("an empty registry");
        assert!(none.entry("CT1").may(Right::Store) && !none.lists(ANYBODY) && none.get("CT1").is_none());
        let closed = Peer { rights: BTreeSet::new(), ..Peer::new(title(ANYBODY)) };
        let closed = Registry::decode(1, &none.with(&title(ANYBODY), Some(closed))).expect("readable");
        assert!(!closed.entry("CT1").may(Right::Echo) && closed.lists(ANYBODY));
        let known = Registry::decode(2, &closed.with(&title("CT1"), Some(full()))).expect("readable");
        assert!(known.entry("CT1").may(Right::Store) && !known.entry("ct1").may(Right::Store), "case counts");
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_sentence() {
        let with = |change: &dyn Fn(&mut Peer)| {
            let mut peer = full();
            change(&mut peer);
            peer.check()
        };
        assert_eq!(with(&|_| ()), Ok(()));
        for address in
            ["ct1", "ct1:", "ct1:0", "ct1:65536", ":104", "ct 1:104", "2001:db8::1:104", "[ct1]:104", "a/b:1"]
        {
            let why = with(&|peer| peer.address = Some(address.into())).expect_err(address);
            assert!(why.contains("HOST:PORT"), "{why}");
        }
        assert_eq!(with(&|peer| peer.address = Some("[2001:db8::1]:104".into())), Ok(()));
        assert!(with(&|peer| peer.associations_max = Some(0)).is_err());
        assert!(with(&|peer| peer.associations_max = Some(65_536)).is_err());
        assert!(with(&|peer| peer.notes = "n".repeat(501)).is_err());
        assert!(with(&|peer| peer.notes = "two\nlines".into()).is_err());
        assert!(with(&|peer| peer.networks = peer.networks.repeat(65)).is_err());
        assert!(with(&|peer| peer.transfer_syntaxes = vec![peer.transfer_syntaxes[0].clone(); 65]).is_err());
        let rule: Rule = "find PatientID clear".parse().expect("a rule");
        assert!(with(&|peer| peer.coerce = vec![rule.clone(); 65]).is_err_and(|why| why.contains("64")));
        assert!(with(&|peer| peer.ae = title(ANYBODY)).is_err_and(|why| why.contains("no address")));
    }
}

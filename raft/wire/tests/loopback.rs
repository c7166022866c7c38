//! Wires in one process over loopback: calls, streams, and what happens when a peer is not what it should be.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use raft_types::{BoxFuture, Class, GroupId, Message, Refusal, Serve, Stream, Wire, WireError};
use raft_wire::{Hello, TcpWire, WireOptions, code};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

const ECHO: u16 = 1;
const REFUSE: u16 = 2;
const NEVER: u16 = 3;
const COUNT: u16 = 4;
const HUGE: u16 = 5;
/// A stream that sends everything back.
const MIRROR: u16 = 10;
/// A stream whose receiver takes a message only when told to.
const SLOW: u16 = 11;
/// A stream that the server closes at once.
const CLOSE: u16 = 12;

#[derive(Default)]
struct Server {
    running: AtomicUsize,
    started: Notify,
    given_up: Notify,
    take: tokio::sync::Mutex<()>,
    streams_ended: Notify,
}

struct Running<'a>(&'a Server);
impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.given_up.notify_one();
    }
}

impl Serve for Server {
    fn call(self: Arc<Self>, from: String, request: Message) -> BoxFuture<'static, Result<Message, Refusal>> {
        Box::pin(async move {
            match request.method {
                ECHO => Ok(request),
                COUNT => Ok(Message { head: from.into(), bodies: vec![], ..request }),
                HUGE => Ok(Message { head: vec![0; 9 << 20].into(), ..request }),
                NEVER => {
                    self.running.fetch_add(1, Ordering::SeqCst);
                    let _running = Running(&self);
                    self.started.notify_one();
                    std::future::pending().await
                }
                _ => Err(Refusal { code: 7, reason: "no such method".into() }),
            }
        })
    }

    fn stream(self: Arc<Self>, _: String, first: Message, mut stream: Box<dyn Stream>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match first.method {
                MIRROR => {
                    while let Ok(Some(message)) = stream.receive().await {
                        if stream.send(message).await.is_err() {
                            break;
                        }
                    }
                }
                SLOW => {
                    let _told = self.take.lock().await;
                    while let Ok(Some(_)) = stream.receive().await {}
                }
                _ => {}
            }
            drop(stream);
            self.streams_ended.notify_one();
        })
    }
}

fn hello(name: &str, cluster: Option<u8>) -> Hello {
    let mut node_uuid = [9; 16];
    node_uuid[..name.len()].copy_from_slice(name.as_bytes());
    Hello {
        cluster_id: cluster.map(|id| [id; 16]),
        name: name.into(),
        node_uuid,
        incarnation: 3,
        blank: cluster.is_none(),
        wire_versions: Hello::WIRE_VERSIONS,
    }
}

fn options() -> WireOptions {
    let mut options = WireOptions::new("127.0.0.1:0", BTreeMap::new());
    options.timers.call_deadline = Duration::from_secs(20);
    options
}

struct Node {
    wire: Arc<TcpWire>,
    server: Arc<Server>,
}

impl Node {
    async fn start(hello: Hello, options: WireOptions) -> Node {
        let server = Arc::new(Server::default());
        let serve = Arc::clone(&server) as Arc<dyn Serve>;
        Node { wire: TcpWire::start(options, hello, serve).await.unwrap(), server }
    }

    fn knows(&self, name: &str, other: &Node) {
        self.wire.set_peer(name, &other.wire.local_address().to_string());
    }
}

async fn pair_with(options: impl Fn() -> WireOptions) -> (Node, Node) {
    let (a, b) = (Node::start(hello("a", Some(1)), options()).await, Node::start(hello("b", Some(1)), options()).await);
    a.knows("b", &b);
    b.knows("a", &a);
    (a, b)
}

async fn pair() -> (Node, Node) {
    pair_with(options).await
}

async fn end(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.wire.shutdown().await;
    }
}

fn message(method: u16, body_bytes: usize) -> Message {
    let bodies = if body_bytes == 0 { vec![] } else { vec![Bytes::from(vec![5; body_bytes])] };
    Message { method, group: GroupId(3), head: Bytes::from_static(b"head"), bodies }
}

fn unreachable<T>(result: Result<T, WireError>) -> bool {
    matches!(result, Err(WireError::Unreachable { .. }))
}

fn wrong_peer<T>(result: Result<T, WireError>, why: &str) -> bool {
    matches!(result, Err(WireError::WrongPeer { why: reason, .. }) if reason.contains(why))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_comes_back_with_head_bodies_method_and_group() {
    let (a, b) = pair().await;
    for class in [Class::Urgent, Class::Bulk, Class::Read] {
        let mut request = message(ECHO, 100_000);
        request.bodies.extend([Bytes::new(), Bytes::from_static(b"two")]);
        let answer = a.wire.call("b", class, request.clone()).await.unwrap();
        assert_eq!((answer.method, answer.group, answer.head), (ECHO, GroupId(3), request.head));
        assert_eq!(answer.bodies, request.bodies);
    }
    assert_eq!(b.wire.call("a", Class::Bulk, message(COUNT, 0)).await.unwrap().head, "b", "the server knows who calls");
    assert!(a.wire.last_contact("b").unwrap() < Duration::from_secs(5));
    assert_eq!(a.wire.last_contact("c"), None);
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_are_each_given_their_own_answer() {
    let (a, b) = pair().await;
    let calls = (0..1000_u32).map(|number| {
        let request = Message { head: Bytes::copy_from_slice(&number.to_le_bytes()), ..message(ECHO, 2000) };
        let answer = a.wire.call("b", Class::Bulk, request);
        async move { answer.await.unwrap().head == number.to_le_bytes()[..] }
    });
    assert!(futures::future::join_all(calls).await.into_iter().all(|right| right));
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_back_with_its_code_and_reason() {
    let (a, b) = pair().await;
    let refused = |result: Result<Message, WireError>| match result {
        Err(WireError::Refused { peer, refusal }) => (peer, refusal.code),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(a.wire.call("b", Class::Bulk, message(REFUSE, 0)).await), ("b".into(), 7));
    let too_large = Message { head: vec![0; 9 << 20].into(), ..message(ECHO, 0) };
    assert_eq!(refused(a.wire.call("b", Class::Bulk, too_large).await).1, code::TOO_LARGE);
    assert_eq!(refused(a.wire.call("b", Class::Bulk, message(HUGE, 0)).await).1, code::TOO_LARGE);
    assert!(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await.is_ok(), "the connection lives on");
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_is_given_up_at_the_peer_too() {
    let (a, b) = pair().await;
    let call = a.wire.call("b", Class::Bulk, message(NEVER, 10));
    tokio::select! {
        _ = call => panic!("never answers"),
        () = b.server.started.notified() => {}
    }
    b.server.given_up.notified().await;
    assert_eq!(b.server.running.load(Ordering::SeqCst), 0);
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_on_an_open_connection_ends_at_the_deadline() {
    let (a, b) = pair_with(|| {
        let mut options = options();
        options.timers.call_deadline = Duration::from_millis(200);
        options
    })
    .await;
    assert!(unreachable(a.wire.call("b", Class::Bulk, message(NEVER, 0)).await));
    assert!(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await.is_ok(), "the connection lives on");
    b.server.given_up.notified().await;
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_order_and_ends_in_order() {
    let (a, b) = pair().await;
    let stream = a.wire.open("b", Class::Bulk, message(MIRROR, 0)).await.unwrap();
    let (mut sender, mut receiver) = stream.split();
    let sending = tokio::spawn(async move {
        for number in 0..2000_u32 {
            let head = Bytes::copy_from_slice(&number.to_le_bytes());
            sender.send(Message { head, ..message(MIRROR, 20_000) }).await.unwrap();
        }
    });
    for number in 0..2000_u32 {
        assert_eq!(receiver.receive().await.unwrap().unwrap().head, number.to_le_bytes()[..]);
    }
    assert!(receiver.receive().await.unwrap().is_none(), "closed in order");
    sending.await.unwrap();
    drop(receiver);
    b.server.streams_ended.notified().await;
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_larger_than_the_window_pass_one_by_one() {
    let (a, b) = pair_with(|| WireOptions { stream_window_bytes: 1000, ..options() }).await;
    let mut stream = a.wire.open("b", Class::Bulk, message(MIRROR, 0)).await.unwrap();
    for _ in 0..20 {
        stream.send(message(MIRROR, 4 << 20)).await.unwrap();
        assert_eq!(stream.receive().await.unwrap().unwrap().body_bytes(), 4 << 20);
    }
    drop(stream);
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_bounds_what_is_under_way() {
    const WINDOW: u64 = 1 << 20;
    const BODY: usize = 128 << 10;
    let (a, b) = pair_with(|| WireOptions { stream_window_bytes: WINDOW, ..options() }).await;
    let sleeping = b.server.take.lock().await;
    let mut stream = a.wire.open("b", Class::Bulk, message(SLOW, 0)).await.unwrap();
    let mut sent = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_millis(200), stream.send(message(SLOW, BODY))).await {
        result.unwrap();
        sent += BODY as u64;
        assert!(sent <= WINDOW + BODY as u64, "the sender waits for credit");
    }
    assert!(sent >= WINDOW / 2);
    assert!(b.wire.receive_used_bytes() <= WINDOW + BODY as u64 + 1000);
    assert_eq!(a.wire.send_used_bytes("b"), 0, "a sender that waits for credit holds none of the peer's budget");
    // Another stream and a call on the same connection are not held up.
    let mut other = a.wire.open("b", Class::Bulk, message(MIRROR, 0)).await.unwrap();
    other.send(message(MIRROR, BODY)).await.unwrap();
    assert!(other.receive().await.unwrap().is_some());
    assert!(a.wire.call("b", Class::Bulk, message(ECHO, BODY)).await.is_ok());
    drop(sleeping);
    for _ in 0..100 {
        stream.send(message(SLOW, BODY)).await.unwrap();
    }
    drop((stream, other));
    b.server.streams_ended.notified().await;
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_peer_closes_ends_in_order_and_takes_nothing_more() {
    let (a, b) = pair().await;
    let mut stream = a.wire.open("b", Class::Read, message(CLOSE, 0)).await.unwrap();
    assert!(stream.receive().await.unwrap().is_none());
    b.server.streams_ended.notified().await;
    let stopped = async { while stream.send(message(CLOSE, 10)).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("told that nobody listens");
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_peer_goes_calls_and_streams_are_told_and_when_it_comes_back_they_work_again() {
    let (a, b) = pair().await;
    let mut stream = a.wire.open("b", Class::Bulk, message(MIRROR, 0)).await.unwrap();
    let waiting = a.wire.call("b", Class::Bulk, message(NEVER, 0));
    let going = async {
        b.server.started.notified().await;
        b.wire.shutdown().await;
    };
    let since = Instant::now();
    let (answer, ()) = tokio::join!(waiting, going);
    assert!(
        unreachable(answer) && unreachable(stream.receive().await) && unreachable(stream.send(message(1, 1)).await)
    );
    while !unreachable(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await) {}
    assert!(since.elapsed() < Duration::from_secs(4), "told quickly: {:?}", since.elapsed());
    let since = Instant::now();
    for _ in 0..1000 {
        assert!(unreachable(a.wire.call("b", Class::Bulk, message(ECHO, 100_000)).await));
    }
    assert!(since.elapsed() < Duration::from_secs(1), "nothing waits for a dead peer: {:?}", since.elapsed());
    assert_eq!(a.wire.send_used_bytes("b"), 0, "and nothing queues up for it");

    let again = Node::start(Hello { incarnation: 4, ..hello("b", Some(1)) }, options()).await;
    a.knows("b", &again);
    let back = async {
        while a.wire.call("b", Class::Bulk, message(ECHO, 0)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), back).await.expect("its new address is used");
    drop(stream);
    end([a, again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_on_an_open_connection_is_given_up() {
    let mut quick = options();
    quick.timers.silence_max = Duration::from_millis(300);
    quick.timers.beat = Duration::from_millis(50);
    let a = Node::start(hello("a", Some(1)), quick.clone()).await;
    let b = Node::start(hello("b", Some(1)), quick).await;
    // Between them a cable that can be cut without either end being told.
    let cable = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.wire.set_peer("b", &cable.local_addr().unwrap().to_string());
    let target = b.wire.local_address();
    let cut = Arc::new(Notify::new());
    let cut_here = Arc::clone(&cut);
    let carrying = tokio::spawn(async move {
        let mut near = cable.accept().await.unwrap().0;
        let mut far = TcpStream::connect(target).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = cut_here.notified() => {}
        }
        (near, far, cable) // open, and dead
    });
    assert!(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await.is_ok());
    // Nothing is said for three times the silence, but for the beats: the connection stays.
    let mut stream = a.wire.open("b", Class::Bulk, message(MIRROR, 0)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(900), stream.receive()).await.is_err());
    cut.notify_one();
    let ends = carrying.await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), stream.receive()).await.expect("noticed");
    assert!(unreachable(told));
    drop((stream, ends));
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_learnt_and_forgotten_while_the_wire_runs() {
    let start = async |name| Node::start(hello(name, Some(1)), options()).await;
    let (a, b, c) = (start("a").await, start("b").await, start("c").await);
    let at = |node: &Node| node.wire.local_address().to_string();
    assert!(unreachable(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await), "nobody has heard of b");
    a.wire.set_peers(BTreeMap::from([("b".into(), at(&b))]));
    assert!(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await.is_ok());

    // What the cluster remembers of c is old; what its operator says is right, and is tried as well.
    a.knows("c", &c);
    let old = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    a.wire.set_peers(BTreeMap::from([("b".into(), at(&b)), ("c".into(), old.clone())]));
    let found = async {
        while a.wire.call("c", Class::Bulk, message(ECHO, 0)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found).await.expect("the other address is tried");

    // b is removed: what waits for it is told, and it is not called again.
    let call = a.wire.call("b", Class::Bulk, message(NEVER, 0));
    let removed = async {
        b.server.started.notified().await;
        a.wire.set_peers(BTreeMap::from([("c".into(), old)]));
    };
    let (told, ()) = tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(call, removed) })
        .await
        .expect("told at once");
    assert!(unreachable(told));
    assert!(unreachable(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await));
    end([a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_megabytes_do_not_delay_votes() {
    let (a, b) = pair().await;
    assert!(a.wire.call("b", Class::Urgent, message(ECHO, 0)).await.is_ok());
    // Each answer is dropped when it comes: kept, all together would be more than the receive budget.
    let flood = futures::future::join_all((0..64).map(|_| {
        let answer = a.wire.call("b", Class::Bulk, message(ECHO, 4 << 20));
        async { answer.await.is_ok() }
    }));
    let votes = async {
        let mut worst = Duration::ZERO;
        for _ in 0..50 {
            let since = Instant::now();
            a.wire.call("b", Class::Urgent, message(ECHO, 0)).await.unwrap();
            worst = worst.max(since.elapsed());
        }
        worst
    };
    let since = Instant::now();
    let (flooded, worst) = tokio::join!(async { (flood.await, since.elapsed()) }, votes);
    assert!(flooded.0.iter().all(|answered| *answered));
    println!("512 MiB in {:?}, slowest vote {worst:?}", flooded.1);
    assert!(worst < flooded.1 / 2 && worst < Duration::from_secs(1), "{worst:?} of {:?}", flooded.1);
    let given_back = async {
        while b.wire.receive_used_bytes() > 0 {
            tokio::task::yield_now().await; // the last answer is dropped just after it was written
        }
    };
    tokio::time::timeout(Duration::from_secs(5), given_back).await.expect("memory is given back");
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_node_that_was_meant_is_talked_to() {
    let (a, b) = pair().await;
    let foreign = Node::start(hello("c", Some(2)), options()).await;
    a.knows("c", &foreign);
    assert!(wrong_peer(a.wire.call("c", Class::Bulk, message(ECHO, 0)).await, "another cluster"));
    assert!(wrong_peer(a.wire.hello_of("c").await, "another cluster"));
    foreign.wire.set_peer("a", &a.wire.local_address().to_string());
    assert!(wrong_peer(foreign.wire.call("a", Class::Bulk, message(ECHO, 0)).await, "another cluster"));
    a.knows("d", &b); // the address is used by another node now
    assert!(wrong_peer(a.wire.call("d", Class::Bulk, message(ECHO, 0)).await, "this is b, not d"));
    let newer = Node::start(Hello { wire_versions: (2, 3), ..hello("e", Some(1)) }, options()).await;
    a.knows("e", &newer);
    assert!(wrong_peer(a.wire.call("e", Class::Bulk, message(ECHO, 0)).await, "no common protocol version"));
    assert!(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await.is_ok());
    assert!(unreachable(a.wire.call("z", Class::Bulk, message(ECHO, 0)).await), "a name without an address");
    end([a, b, foreign, newer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_disk_is_refused() {
    let (a, b) = pair().await;
    assert_eq!(a.wire.hello_of("b").await.unwrap().incarnation, 3);
    b.wire.shutdown().await;
    let rolled_back = Node::start(Hello { incarnation: 2, ..hello("b", Some(1)) }, options()).await;
    rolled_back.knows("a", &a);
    assert!(wrong_peer(rolled_back.wire.call("a", Class::Bulk, message(ECHO, 0)).await, "older copy"));
    end([a, rolled_back]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_nodes_talk_and_a_learnt_cluster_is_told_and_held_against_the_peers() {
    let (a, b) = (Node::start(hello("a", None), options()).await, Node::start(hello("b", None), options()).await);
    a.knows("b", &b);
    assert!(wrong_peer(a.wire.hello_of("b").await, "not in the peer list"), "b does not know a: no cluster with it");
    b.knows("a", &a);
    let asked = async {
        loop {
            match a.wire.hello_of("b").await {
                Ok(hello) => return hello,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let first = tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap();
    assert_eq!(first, hello("b", None));
    b.wire.set_hello(hello("b", Some(1)));
    assert_eq!(a.wire.hello_of("b").await.unwrap().cluster_id, Some([1; 16]), "asked anew over the same connection");
    let mut stream = a.wire.open("b", Class::Urgent, message(MIRROR, 0)).await.unwrap();
    a.wire.set_hello(hello("a", Some(2)));
    assert!(stream.receive().await.is_err(), "the connection between two clusters is closed");
    assert!(a.wire.call("b", Class::Urgent, message(ECHO, 0)).await.is_err());
    drop(stream);
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_is_closed_and_hurts_nobody() {
    let mut quick = options();
    quick.timers.handshake = Duration::from_millis(300);
    let a = Node::start(hello("a", Some(1)), options()).await;
    let b = Node::start(hello("b", Some(1)), quick).await;
    a.knows("b", &b);
    let mut too_long = b"TWR1\x01\x01\x00\x00".to_vec();
    too_long.extend([0xff; 32]);
    let mut call_without_greeting = b"TWR1\x01\x03\x00\x00".to_vec();
    call_without_greeting.extend([0; 32]);
    let visitors: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: archive.example\r\n\r\n\r\n\r\n",
        &[0; 500],
        &too_long,
        &call_without_greeting,
        b"slow",
    ];
    for bytes in visitors {
        let mut visitor = TcpStream::connect(b.wire.local_address()).await.unwrap();
        visitor.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), visitor.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "closed in time: {bytes:?}");
    }
    assert!(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await.is_ok());
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_answers_with_garbage_is_not_the_peer() {
    let a = Node::start(hello("a", Some(1)), options()).await;
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.wire.set_peer("b", &stranger.local_addr().unwrap().to_string());
    let answering = tokio::spawn(async move {
        let mut visitor = stranger.accept().await.unwrap().0;
        visitor.write_all(&[b'x'; 100]).await.unwrap();
        let mut rest = Vec::new();
        let _ = visitor.read_to_end(&mut rest).await;
    });
    assert!(wrong_peer(a.wire.call("b", Class::Bulk, message(ECHO, 0)).await, "not this protocol"));
    answering.await.unwrap();
    end([a]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_never_answers_delays_the_first_call_only() {
    let mut quick = options();
    quick.timers.connect = Duration::from_millis(200);
    let a = Node::start(hello("a", Some(1)), quick).await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap(); // connects, and nobody greets
    a.wire.set_peer("b", &mute.local_addr().unwrap().to_string());
    assert!(unreachable(a.wire.call("b", Class::Urgent, message(ECHO, 0)).await));
    let since = Instant::now();
    for _ in 0..1000 {
        assert!(unreachable(a.wire.call("b", Class::Urgent, message(ECHO, 0)).await));
    }
    assert!(since.elapsed() < Duration::from_millis(500), "{:?}", since.elapsed());
    end([a]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_keeps_everything_costs_its_own_connection_and_no_vote() {
    let (a, b) = pair_with(|| {
        let mut options = WireOptions { receive_budget_bytes: 2 << 20, ..options() };
        options.timers.memory_wait = Duration::from_millis(200);
        options
    })
    .await;
    assert!(a.wire.call("b", Class::Urgent, message(ECHO, 0)).await.is_ok());
    let mut kept = Vec::new();
    let failed = loop {
        match a.wire.call("b", Class::Read, message(ECHO, 700 << 10)).await {
            Ok(answer) => kept.push(answer),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, WireError::Unreachable { .. }) && kept.len() == 2, "{failed} after {}", kept.len());
    assert!(a.wire.call("b", Class::Urgent, message(ECHO, 0)).await.is_ok(), "votes take no memory of that budget");
    kept.clear();
    let again = async {
        while a.wire.call("b", Class::Read, message(ECHO, 700 << 10)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("it works again");
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_wires_call_each_other_in_all_directions() {
    let names = ["a", "b", "c"];
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(Node::start(hello(name, Some(1)), options()).await);
    }
    for (node, from) in nodes.iter().zip(names) {
        for (other, name) in nodes.iter().zip(names).filter(|(_, name)| *name != from) {
            node.knows(name, other);
            let answer = node.wire.call(name, Class::Urgent, message(COUNT, 0)).await.unwrap();
            assert_eq!(answer.head, from);
        }
    }
    end(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_every_task_even_those_that_serve() {
    let (a, b) = pair().await;
    let stream = a.wire.open("b", Class::Bulk, message(MIRROR, 0)).await.unwrap();
    let call = a.wire.call("b", Class::Read, message(NEVER, 0));
    let down = async {
        b.server.started.notified().await;
        tokio::join!(a.wire.shutdown(), b.wire.shutdown());
    };
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(call, down) }).await.unwrap();
    assert!(unreachable(answer));
    assert!(unreachable(a.wire.call("b", Class::Urgent, message(ECHO, 0)).await), "stopped");
    drop(stream);
    let weak = Arc::downgrade(&b.server);
    drop(b);
    assert!(weak.upgrade().is_none(), "nobody holds the server any more");
}

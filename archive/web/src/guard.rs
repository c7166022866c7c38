//! What stands in front of every route: the length of URIs, the cap of requests, security headers, and the times.

use crate::{router::Shared, server::Peer, status::Problem};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, Registry, core::Collector};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Weak},
    time::Instant,
};
use tokio::sync::Semaphore;

/// Bytes of a URI: a list of 100 UIDs of 64 characters, encoded.
const URI_BYTES_MAX: usize = 8 << 10;

/// Seconds to the head of the answer: 1 ms is a look-up, 10 s a store that waits for a leader.
const BOUNDS_SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
);

/// The instruments of this crate.
pub(crate) struct Metrics {
    seconds: HistogramVec,
    /// Connections beyond the limit of one address.
    pub(crate) refused: IntCounter,
    /// Connections that did not go on.
    pub(crate) stalled: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let options = HistogramOpts::new(
            "archive_web_request_seconds",
            "Seconds from a request's head to the head of its answer, by route and status.",
        );
        let seconds = HistogramVec::new(options.buckets(BOUNDS_SECONDS.to_vec()), &["method", "route", "status"]);
        let seconds = seconds.unwrap_or_else(|error| unreachable!("literal metric options: {error}"));
        let counter = |name: &str, help: &str| {
            IntCounter::new(name, help).unwrap_or_else(|error| unreachable!("literal metric options: {error}"))
        };
        let refused = counter("archive_web_refused_total", "Connections closed because their address has too many.");
        let stalled = counter("archive_web_stalled_total", "Connections closed because the peer did not go on.");
        register(registry, seconds.clone());
        register(registry, refused.clone());
        register(registry, stalled.clone());
        Self { seconds, refused, stalled }
    }
}

fn register(registry: &Registry, collector: impl Collector + 'static) {
    if let Err(error) = registry.register(Box::new(collector)) {
        tracing::warn!(%error, "metric not registered");
    }
}

/// Times each request under its route, never under its path: a path names patients' studies.
pub(crate) async fn watch(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let opened = Instant::now();
    let method = match request.method().as_str() {
        method @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS") => method.to_owned(),
        _ => "other".to_owned(),
    };
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let uri_bytes = request.uri().path().len() + request.uri().query().map_or(0, str::len);
    let mut response = if uri_bytes > URI_BYTES_MAX {
        Problem::new(StatusCode::URI_TOO_LONG, "the URI is longer than 8 KiB: ask for less at a time").into_response()
    } else {
        next.run(request).await
    };
    let status = response.status();
    shared
        .metrics
        .seconds
        .with_label_values(&[method.as_str(), &route, status.as_str()])
        .observe(opened.elapsed().as_secs_f64());
    tracing::debug!(%method, %route, status = status.as_u16(), "request answered");
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Readers of images, by their address. Whoever asks for more than so many at a time waits in line behind himself: what
/// he does not take would else hold the memory of all readers.
pub(crate) struct Readers {
    most: usize,
    peers: Mutex<BTreeMap<IpAddr, Weak<Semaphore>>>,
}

impl Readers {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), peers: Mutex::new(BTreeMap::new()) }
    }

    /// The line of an address.
    fn of(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut peers = self.peers.lock();
        if let Some(line) = peers.get(&peer).and_then(Weak::upgrade) {
            return line;
        }
        // Lines in which nobody stands are gone: their number is that of connections.
        peers.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Semaphore::new(self.most));
        peers.insert(peer, Arc::downgrade(&line));
        line
    }
}

/// Whether the answer is made from images.
fn reads_images(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>().map_or("", |path| path.as_str());
    let whole = ["}", "/pixeldata", "/bulkdata", "/rendered", "/thumbnail"].iter().any(|end| route.ends_with(end));
    request.method() == Method::GET && (route.contains("{study}") && whole || route == "/wado")
}

/// Lets so many requests run at the same time; each counts until its answer is sent.
pub(crate) async fn cap(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().filter(|_| reads_images(&request)).map(|peer| peer.0.ip());
    let turn = match peer {
        // The line is never closed.
        Some(peer) => shared.readers.of(peer).acquire_owned().await.ok(),
        None => None,
    };
    let Ok(permit) = Arc::clone(&shared.requests).try_acquire_owned() else {
        let what = "too many requests at the same time: try again in some seconds";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, what).into_response();
    };
    let response = next.run(request).await;
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = (&permit, &turn);
            frame
        }))
    })
}

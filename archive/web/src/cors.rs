//! Viewers on other hosts (https://fetch.spec.whatwg.org/#http-cors-protocol).
//!
//! There is no log-in: whoever a browser obeys may read what the archive has. So by default pages of other hosts may not,
//! and the operator names the origins that may. A preflight is an OPTIONS with Access-Control-Request-Method; any other
//! OPTIONS asks for the capabilities.

use crate::router::Shared;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS");
/// What viewers send. Access-Control-Allow-Headers: * would not cover Authorization.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept, authorization, cache-control, content-type, if-match, if-none-match, if-range, range, x-requested-with",
);
/// What viewers may read beside what every page may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept-ranges, content-disposition, content-encoding, content-location, content-range, etag, link, location, \
     retry-after, warning",
);
/// Seconds that a browser may remember a preflight: two hours are the most that Chromium does.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

pub(crate) async fn allow(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path != "/wado" && path != "/dicom-web" && !path.starts_with("/dicom-web/") {
        return next.run(request).await;
    }
    let allowed = allowed(&shared.settings.cors_origins, request.headers());
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = allowed else { return response };
    if origin != "*" {
        // A named origin may send what a proxy in front asks for.
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if preflight {
        headers.append(
            header::VARY,
            HeaderValue::from_static("access-control-request-method, access-control-request-headers"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
    response
}

/// The value of Access-Control-Allow-Origin, if the origin of the request may.
fn allowed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    if origins.iter().any(|known| known == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes())).then(|| origin.clone())
}

//! Pages of other hosts, and proxies.

use super::*;

async fn preflight(face: &Face, origin: &str) -> Answer {
    let request = Request::options("/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4/frames/1")
        .header("host", "h")
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "accept,authorization,if-range,range");
    face.ask(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_page_of_another_host_may_nothing_unless_its_origin_is_named() {
    let own = Face::new();
    let answer = preflight(&own, "https://viewer.example").await;
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let answer = own.get("/dicom-web/studies", &[("origin", "https://viewer.example")]).await;
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    assert!(answer.headers.get_all(header::VARY).iter().any(|value| value == "origin"));

    let face = Face::with(|settings| settings.cors_origins = vec!["https://viewer.example".into()]);
    let answer = preflight(&face, "https://viewer.example").await;
    assert!(answer.status.is_success());
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://viewer.example");
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    let listed = |name, wanted: &[&str]| {
        let value = answer.headers[name].to_str().unwrap().to_ascii_lowercase();
        let values: Vec<&str> = value.split(',').map(str::trim).collect();
        wanted.iter().all(|wanted| values.contains(wanted))
    };
    assert!(listed(header::ACCESS_CONTROL_ALLOW_METHODS, &["get", "post", "delete"]));
    assert!(listed(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        &["accept", "authorization", "content-type", "if-range", "range"]
    ));
    let answer = face.get("/dicom-web/studies", &[("origin", "https://viewer.example")]).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://viewer.example");
    let exposed = answer.headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
    assert!(["warning", "etag", "content-range"].iter().all(|name| exposed.contains(name)), "{exposed}");
    // Nothing but DICOMweb is for pages of other hosts.
    let answer = face.get("/api/totals", &[("origin", "https://viewer.example")]).await;
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    for stranger in ["https://viewer.example.evil", "http://viewer.example", "null"] {
        assert!(!preflight(&face, stranger).await.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        let answer = face.get("/dicom-web/studies", &[("origin", stranger)]).await;
        assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{stranger}");
    }

    let any = Face::with(|settings| settings.cors_origins = vec!["*".into()]);
    let answer = any.get("/dicom-web/studies", &[("origin", "https://anywhere")]).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "never with a wildcard");
}

#[tokio::test]
async fn only_a_trusted_proxy_says_under_which_address_we_are_seen() {
    let face = Face::with(|settings| settings.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()]);
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    for (peer, base) in
        [([10, 1, 2, 3], "https://pacs.example/p"), ([127, 0, 0, 1], "http://h"), ([11, 0, 0, 1], "http://h")]
    {
        let mut request = Request::get("/dicom-web/studies")
            .header("host", "h")
            .header("forwarded", "for=1.2.3.4;proto=https;host=pacs.example")
            .header("x-forwarded-prefix", "/p")
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(Peer((peer, 1000).into()));
        let rows = face.ask(request).await.json();
        assert_eq!(rows[0]["00081190"]["Value"][0], format!("{base}/dicom-web/studies/1.2.3"), "{peer:?}");
    }
}

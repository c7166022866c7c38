//! What the service says of itself.

use super::*;
use crate::capabilities::table;

#[tokio::test]
async fn the_table_of_capabilities_is_what_is_routed() {
    let face = Face::new();
    let times = |source: &str| source.matches(", with_options(").count();
    // Pictures are below four resources.
    let routed = times(include_str!("../router.rs")) + 4 * times(include_str!("../rendered.rs"));
    assert_eq!(table().len(), routed, "each route below /dicom-web has a row");
    for (path, methods) in table() {
        let names = [
            ("{study}", "1.2"),
            ("{series}", "1.2.1"),
            ("{instance}", "1.2.2"),
            ("{list}", "1"),
            ("{place}", "1-2"),
            ("{transaction}", "1.9"),
        ];
        let concrete = names.into_iter().fold(path.to_owned(), |path, (name, uid)| path.replace(name, uid));
        let path = format!("/dicom-web{concrete}");
        for method in ["GET", "POST", "DELETE", "PUT"] {
            let request = Request::builder().method(method).uri(&path).body(Body::empty()).unwrap();
            let refused = face.ask(request).await.status == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(refused, !methods.contains(&method), "{method} {path}");
        }
        let answer = face.ask(Request::options(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let allowed = answer.headers[header::ALLOW].to_str().unwrap();
        assert!(methods.iter().all(|method| allowed.contains(method)), "{path}: {allowed}");
    }
}

#[tokio::test]
async fn capabilities_are_said_as_wadl_and_as_openapi() {
    let face = Face::new();
    let wadl = face.ask(Request::options("/dicom-web/").body(Body::empty()).unwrap()).await;
    assert_eq!(wadl.headers[header::CONTENT_TYPE], "application/vnd.sun.wadl+xml");
    let text = std::str::from_utf8(&wadl.body).unwrap();
    assert!(text.contains(r#"<resource path="studies/{study}">"#) && text.contains("fuzzymatching"), "{text}");
    for accept in ["application/json", "application/openapi+json"] {
        let open_api = face.get("/dicom-web/", &[("accept", accept)]).await;
        assert_eq!(open_api.headers[header::CONTENT_TYPE], accept);
        let json = open_api.json();
        assert!(json["openapi"].as_str().unwrap().starts_with("3.1"));
        assert!(json["paths"]["/studies/{study}/series/{series}/metadata"]["get"].is_object());
        assert!(json["paths"]["/studies"]["post"]["requestBody"]["content"]["application/dicom"].is_object());
    }
    let refused = face.get("/dicom-web/", &[("accept", "text/html")]).await;
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
}

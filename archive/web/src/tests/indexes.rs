//! Indexes over HTTP.

use super::*;
use serde_json::json;

const PRIVATE: &str = "/api/indexes/(0009,%22ACME%2F1%22,01)";

async fn send(face: &Face, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "h");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    face.ask(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn an_index_is_added_listed_and_removed() {
    let face = Face::new();
    let empty = face.get("/api/indexes", &[]).await;
    assert_eq!((empty.status, &empty.json()["indexes"]), (StatusCode::OK, &json!([])));
    let added = send(&face, "PUT", PRIVATE, &[], r#"{"level":"study","vr":"LO"}"#).await;
    let described = json!({
        "attribute": "(0009,\"ACME/1\",01)", "tag": "(0009,\"ACME/1\",01)", "vr": "LO", "level": "study",
        "state": "filling", "instances_left": 0,
    });
    assert_eq!((added.status, added.json()), (StatusCode::CREATED, described.clone()));
    assert_eq!(added.headers[header::ETAG].to_str().unwrap(), "\"1\"");
    let again = send(&face, "PUT", PRIVATE, &[], r#"{"level":"study","vr":"LO"}"#).await;
    assert_eq!(again.status, StatusCode::OK);
    let other = send(&face, "PUT", PRIVATE, &[], r#"{"level":"image","vr":"LO"}"#).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert_eq!(send(&face, "PUT", "/api/indexes/KVP", &[], r#"{"level":"series"}"#).await.status, StatusCode::CREATED);
    let list = face.get("/api/indexes", &[]).await.json();
    assert_eq!(list["indexes"].as_array().unwrap().len(), 2);
    assert_eq!((&list["version"], &list["instances"], &list["answered_by"]), (&json!(2), &json!(0), &json!("n1")));
    assert_eq!(face.get("/api/indexes/(0018,0060)", &[]).await.json()["attribute"], "KVP");
    let late = send(&face, "DELETE", PRIVATE, &[("if-match", "\"1\"")], "").await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(send(&face, "DELETE", PRIVATE, &[("if-match", "\"2\"")], "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(send(&face, "DELETE", PRIVATE, &[], "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(face.get(PRIVATE, &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_can_be_no_index_is_400_and_a_sentence_and_changes_nothing() {
    let face = Face::new();
    for (path, body) in [
        ("/api/indexes/KVP", ""),
        ("/api/indexes/KVP", "{}"),
        ("/api/indexes/KVP", r#"{"level":"frame"}"#),
        ("/api/indexes/KVP", r#"{"level":"series","vr":"LO"}"#),
        ("/api/indexes/KVP", r#"{"level":"series","size":1}"#),
        ("/api/indexes/PatientID", r#"{"level":"patient"}"#),
        ("/api/indexes/PixelData", r#"{"level":"image"}"#),
        ("/api/indexes/(0009,1001)", r#"{"level":"image","vr":"LO"}"#),
        ("/api/indexes/Nonsense", r#"{"level":"image"}"#),
        (PRIVATE, r#"{"level":"image"}"#),
    ] {
        let answer = send(&face, "PUT", path, &[], body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert!(answer.body.len() > 20, "{path} {body}");
    }
    assert_eq!(face.get("/api/indexes", &[]).await.json()["version"], 0);
}

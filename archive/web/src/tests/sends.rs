//! Sends over HTTP.

use super::*;
use serde_json::json;

async fn order(face: &Face, body: Json) -> Answer {
    face.post("/api/sends", "application/json", serde_json::to_vec(&body).unwrap()).await
}

async fn delete(face: &Face, path: &str) -> Answer {
    face.ask(Request::builder().method("DELETE").uri(path).header("host", "h").body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_send_is_ordered_listed_cancelled_and_forgotten() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4"), file("1.2.3", "1.2.3.5")]).await;
    let unknown = order(&face, json!({ "to": "WS1", "study": "1.2.3" })).await;
    assert_eq!(unknown.status, StatusCode::CONFLICT, "nobody knows where it is");
    let peer = Request::builder().method("PUT").uri("/api/peers/WS1").header("host", "h");
    let set = face.ask(peer.body(Body::from(r#"{"address":"ws1:104","retry_days":3}"#)).unwrap()).await;
    assert_eq!((set.status, &set.json()["retry_days"]), (StatusCode::CREATED, &json!(3)));
    let queued = order(&face, json!({ "to": "WS1", "study": "1.2.3" })).await;
    assert_eq!((queued.status, &queued.json()["instances"]), (StatusCode::ACCEPTED, &json!(2)));
    let id = queued.json()["ids"][0].as_str().unwrap().to_owned();
    let one = order(&face, json!({ "to": "WS1", "study": "1.2.3", "instance": "1.2.3.5" })).await;
    assert_eq!(one.json()["instances"], 1);
    let listed = face.get("/api/sends", &[]).await.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert!(listed[0].get("left_instances").is_none(), "a list is no place for lists");
    let path = format!("/api/sends/{id}");
    let own = face.get(&path, &[]).await.json();
    assert_eq!((&own["state"], &own["left"], &own["asked_by"]), (&json!("waiting"), &json!(2), &Json::Null));
    assert_eq!(own["left_instances"], json!(["1.2.3.4", "1.2.3.5"]));
    let behind = face.get(&format!("/api/sends?after={id}&limit=5"), &[]).await.json();
    assert!(behind.as_array().unwrap().iter().all(|job| job["id"].as_str() > Some(&*id)));
    assert_eq!(delete(&face, &path).await.json()["now"], "cancelled");
    assert_eq!(face.get(&path, &[]).await.json()["state"], "cancelled");
    assert_eq!(delete(&face, &path).await.json()["now"], "forgotten");
    for gone in [delete(&face, &path).await, face.get(&path, &[]).await] {
        assert_eq!(gone.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn what_is_no_order_is_refused_with_a_sentence() {
    let face = Face::new();
    for (body, status) in [
        (json!({ "to": "12345678901234567", "study": "1.2.3" }), StatusCode::BAD_REQUEST),
        (json!({ "to": "WS1", "study": "a" }), StatusCode::BAD_REQUEST),
        (json!({ "to": "WS1" }), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({ "to": "WS1", "study": "1.2.3", "patient": "P1" }), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let refused = order(&face, body.clone()).await;
        assert_eq!(refused.status, status, "{body}");
    }
    let form = face.post("/api/sends", "text/plain", b"{\"to\":\"WS1\",\"study\":\"1.2.3\"}".to_vec()).await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "a form of another site cannot order");
    assert_eq!(face.get("/api/sends?limit=0", &[]).await.status, StatusCode::BAD_REQUEST);
}

//! Storage commitment over HTTP.

use super::*;
use archive_service::{
    BoxFuture, RemoteAe,
    commitment::{Report, Reporter},
};

const PATH: &str = "/dicom-web/commitment-requests/1.2.3.900";

/// Nobody is told: the web asks itself.
struct Nobody;

impl Reporter for Nobody {
    fn report<'a>(&'a self, _: &'a RemoteAe, _: &'a Report) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Err("nobody is to be told".into()) })
    }
}

fn list(instances: &[(&str, &str)]) -> Vec<u8> {
    let items: Vec<Json> = instances
        .iter()
        .map(|(class, instance)| {
            serde_json::json!({
                "00081150": { "vr": "UI", "Value": [class] }, "00081155": { "vr": "UI", "Value": [instance] }
            })
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({ "00081199": { "vr": "SQ", "Value": items } })).unwrap()
}

#[tokio::test]
async fn what_is_asked_for_is_answered_at_once_or_by_a_look_at_the_same_path() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    assert_eq!(face.get(PATH, &[]).await.status, StatusCode::NOT_FOUND, "nobody has asked");
    let wanted = list(&[(CLASS, "1.2.3.4"), (CLASS, "1.2.3.5"), ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4")]);
    let answer = face.post(PATH, "application/dicom+json", wanted.clone()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "nobody works on it yet");
    assert!(answer.body.is_empty() && answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(face.get(PATH, &[]).await.status, StatusCode::ACCEPTED);
    let work = tokio::spawn(face.archive.clone().work_on_commitments(Arc::new(Nobody)));
    let answer = face.post(PATH, "application/dicom+json", wanted).await;
    assert_eq!(answer.status, StatusCode::OK, "the same list again");
    let (result, looked) = (answer.json(), face.get(PATH, &[]).await.json());
    assert_eq!(result, looked);
    let committed = result["00081199"]["Value"].as_array().unwrap();
    assert_eq!((committed.len(), &committed[0]["00081155"]["Value"][0]), (1, &Json::from("1.2.3.4")));
    let failed = result["00081198"]["Value"].as_array().unwrap();
    let reasons: Vec<_> = failed.iter().map(|item| item["00081197"]["Value"][0].as_u64().unwrap()).collect();
    assert_eq!(reasons, [0x0112, 0x0119]);
    let other = face.post(PATH, "application/dicom+json", list(&[(CLASS, "1.2.3.4")])).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    face.archive.drain();
    work.await.unwrap();
}

#[tokio::test]
async fn requests_that_are_none_and_a_majority_that_is_away_are_told_apart() {
    let face = Face::new();
    let status = async |path: &str, kind: &str, body: Vec<u8>| face.post(path, kind, body).await.status;
    let json = "application/dicom+json";
    let good = list(&[(CLASS, "1.2.3.4")]);
    assert_eq!(status("/dicom-web/commitment-requests/1.x", json, good.clone()).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(PATH, json, list(&[])).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(PATH, json, b"{}".to_vec()).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(PATH, json, list(&[(CLASS, "")])).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(PATH, "application/dicom", good.clone()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    face.log.set_quorum(false);
    assert_eq!(status(PATH, json, good).await, StatusCode::SERVICE_UNAVAILABLE);
    face.log.set_quorum(true);
    assert_eq!(face.get(PATH, &[]).await.status, StatusCode::NOT_FOUND, "nothing was recorded");
    let picky = face.get(PATH, &[("accept", "text/html")]).await;
    assert_eq!(picky.status, StatusCode::NOT_ACCEPTABLE);
}

//! DELETE, and what it leaves.

use super::*;

const SERIES: &str = "/dicom-web/studies/1.2.3/series/1.2.3.1";

async fn delete(face: &Face, path: &str) -> Answer {
    face.ask(Request::delete(path).header("host", "h").body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn what_is_deleted_is_in_no_answer_and_its_reason_is_kept() {
    let face = Face::new();
    let files = [file("1.2.3", "1.2.3.4"), file("1.2.3", "1.2.3.5"), file("1.2.9", "1.2.9.4")];
    face.store("/dicom-web/studies", &files).await;
    let answer = delete(&face, &format!("{SERIES}/instances/1.2.3.4?reason=wrong%20patient")).await;
    assert_eq!((answer.status, &answer.json()["instances"]), (StatusCode::OK, &Json::from(1)));
    assert_eq!(face.get(&format!("{SERIES}/instances/1.2.3.4"), &[]).await.status, StatusCode::NOT_FOUND);
    let left = face.get("/dicom-web/studies?StudyInstanceUID=1.2.3", &[]).await;
    assert_eq!(left.json()[0]["00201208"]["Value"][0], 1, "the count follows");
    assert_eq!(delete(&face, SERIES).await.status, StatusCode::OK);
    for path in [SERIES, "/dicom-web/studies/1.2.3", "/dicom-web/studies/1.2.77"] {
        assert_eq!(delete(&face, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(face.get("/dicom-web/studies", &[]).await.json().as_array().unwrap().len(), 1);
    let tombstones = face.get("/api/deletions?study=1.2.3", &[]).await.json();
    assert_eq!(tombstones.as_array().unwrap().len(), 2);
    let reasons: Vec<_> = tombstones.as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"wrong patient") && reasons.contains(&"no reason given"), "{reasons:?}");
    assert_eq!(face.get("/api/totals", &[]).await.json()["instances"], 1);
}

#[tokio::test]
async fn a_delete_that_is_not_sure_says_so() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    face.log.set_quorum(false);
    assert_eq!(delete(&face, SERIES).await.status, StatusCode::SERVICE_UNAVAILABLE);
    face.log.set_quorum(true);
    assert_eq!(face.get(SERIES, &[]).await.status, StatusCode::OK, "nothing was deleted");
    assert_eq!(delete(&face, "/dicom-web/studies/1.x").await.status, StatusCode::BAD_REQUEST);
}

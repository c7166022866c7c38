//! The registry of peers over HTTP, and what is kept beside what a UID answers.

use super::*;
use serde_json::json;

async fn send(face: &Face, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "h");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    face.ask(request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn put(face: &Face, ae: &str, body: &str) -> Answer {
    send(face, "PUT", &format!("/api/peers/{ae}"), &[], body).await
}

#[tokio::test]
async fn a_peer_is_set_changed_listed_and_removed() {
    let face = Face::new();
    let empty = face.get("/api/peers", &[]).await;
    assert_eq!((empty.status, &empty.json()["peers"]), (StatusCode::OK, &json!([])));
    assert_eq!(empty.json()["anybody"]["rights"].as_array().unwrap().len(), 6, "everybody may do everything");
    let set = put(&face, "CT1", r#"{"address":"ct1:104","rights":["echo"],"networks":["10.0.0.0/8"]}"#).await;
    assert_eq!((set.status, set.headers[header::ETAG].to_str().unwrap()), (StatusCode::CREATED, "\"1\""));
    let changed = put(&face, "CT1", r#"{"ae":"CT1","rights":["store"]}"#).await;
    assert_eq!((changed.status, &changed.json()["address"]), (StatusCode::OK, &Json::Null), "a PUT is the whole entry");
    assert_eq!(face.get("/api/peers/CT1", &[]).await.json()["rights"], json!(["store"]));
    assert_eq!(face.get("/api/peers/%2A", &[]).await.json()["ae"], "*");
    let slash = put(&face, "A%2FB%20C", "{}").await;
    assert_eq!((slash.status, &slash.json()["ae"]), (StatusCode::CREATED, &json!("A/B C")));
    let removed = send(&face, "DELETE", "/api/peers/CT1", &[], "").await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(send(&face, "DELETE", "/api/peers/CT1", &[], "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(face.get("/api/peers/CT1", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn of_two_changes_at_once_the_second_is_told() {
    let face = Face::new();
    let version = face.get("/api/peers", &[]).await.headers[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(put(&face, "CT1", "{}").await.status, StatusCode::CREATED);
    let late = send(&face, "PUT", "/api/peers/MR1", &[("if-match", &version)], "{}").await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let late = send(&face, "DELETE", "/api/peers/CT1", &[("if-match", &version)], "").await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let seen = send(&face, "PUT", "/api/peers/MR1", &[("if-match", "\"1\"")], "{}").await;
    assert_eq!(seen.status, StatusCode::CREATED);
    let wrong = send(&face, "PUT", "/api/peers/MR1", &[("if-match", "seven")], "{}").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_cannot_be_is_400_and_a_sentence_and_changes_nothing() {
    let face = Face::new();
    for (ae, body) in [
        ("12345678901234567", "{}"),
        ("%20", "{}"),
        ("A%5CB", "{}"),
        ("CT1", ""),
        ("CT1", "[]"),
        ("CT1", "{\"rights\":[\"fly\"]}"),
        ("CT1", "{\"right\":[]}"),
        ("CT1", "{\"ae\":\"MR1\"}"),
        ("CT1", "{\"address\":\"ct1\"}"),
        ("CT1", "{\"address\":\"ct1:0\"}"),
        ("CT1", "{\"networks\":[\"10.0.0.0/40\"]}"),
        ("CT1", "{\"networks\":[\"10.0.0.1/8\"]}"),
        ("CT1", "{\"transfer_syntaxes\":[\"implicit\"]}"),
        ("CT1", "{\"associations_max\":0}"),
        ("CT1", "{\"other_content\":\"lose\"}"),
        ("%2A", "{\"address\":\"ct1:104\"}"),
        ("%2Adicomweb", "{\"rights\":[\"echo\"]}"),
        ("CT1", "{\"coerce\":[\"both StudyInstanceUID remove\"]}"),
        ("CT1", "{\"coerce\":[\"both AccessionNumber set 12345678901234567\"]}"),
        ("CT1", "{\"coerce\":\"both AccessionNumber clear\"}"),
    ] {
        let answer = put(&face, ae, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{ae} {body}");
        assert!(answer.body.len() > 20, "{ae} {body}: {answer:?}", answer = answer.body);
    }
    let large = put(&face, "CT1", &format!("{{\"notes\":\"{}\"}}", "n".repeat(1 << 20))).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(face.get("/api/peers", &[]).await.json()["version"], 0);
}

#[tokio::test]
async fn rules_are_set_with_an_entry_and_listed_as_they_are_read() {
    let face = Face::new();
    let body = r#"{"coerce":["both (0008,0050) prefix H-","retrieve (0009,\"ACME\",01) remove"]}"#;
    let set = put(&face, "CT1", body).await;
    assert_eq!(set.status, StatusCode::CREATED);
    let rules = json!(["both AccessionNumber prefix H-", "retrieve (0009,\"ACME\",01) remove"]);
    assert_eq!(set.json()["coerce"], rules);
    assert_eq!(face.get("/api/peers", &[]).await.json()["peers"][0]["coerce"], rules);
    let refused = put(&face, "CT1", r#"{"coerce":["both StudyInstanceUID remove"]}"#).await;
    assert!(String::from_utf8_lossy(&refused.body).contains("found by"), "the sentence says why");
    assert_eq!(put(&face, "CT1", "{}").await.json().get("coerce"), None, "a PUT is the whole entry");
}

/// The same image of another content.
fn other(file: &[u8], bit: u8) -> Vec<u8> {
    let mut other = file.to_vec();
    let last = other.len() - 1;
    other[last] ^= bit;
    other
}

#[tokio::test]
async fn other_content_by_stow_is_kept_rejected_or_answers_by_the_policy_for_dicomweb_clients() {
    let face = Face::new();
    let first = file("1.2.3", "1.2.3.4");
    let (second, third, new) = (other(&first, 1), other(&first, 2), file("1.2.3", "1.2.3.5"));
    let answers = async || {
        let accept = [("accept", "application/dicom; transfer-syntax=*")];
        let bytes = face.get("/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4?as=received", &accept).await;
        bytes.body
    };
    let store = async |files: &[Vec<u8>]| face.store("/dicom-web/studies", files).await;
    assert_eq!(store(std::slice::from_ref(&first)).await.status, StatusCode::OK);
    assert_eq!(put(&face, "%2Adicomweb", r#"{"other_content":"reject"}"#).await.status, StatusCode::CREATED);
    let refused = store(std::slice::from_ref(&second)).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let failed = &refused.json()["00081198"]["Value"][0];
    assert_eq!(failed["00081197"]["Value"][0], 273, "0111, as C-STORE answers");
    assert_eq!(failed["00081155"]["Value"][0], "1.2.3.4");
    assert_eq!(store(std::slice::from_ref(&first)).await.status, StatusCode::OK, "the same again is success");
    let some = store(&[second.clone(), new]).await;
    assert_eq!(some.status, StatusCode::ACCEPTED, "what is new is stored all the same");
    assert_eq!(some.json()["00081199"]["Value"].as_array().map(Vec::len), Some(1));
    assert_eq!(face.get("/api/versions?study=1.2.3", &[]).await.json(), json!([]), "nothing of it is kept");
    assert!(answers().await.ends_with(&first[first.len() - 20..]));

    put(&face, "%2Adicomweb", r#"{"other_content":"replace"}"#).await;
    let replaced = store(std::slice::from_ref(&second)).await;
    assert_eq!((replaced.status, replaced.json().get("00081198")), (StatusCode::OK, None));
    assert!(answers().await.ends_with(&second[second.len() - 20..]), "it answers now");
    assert_eq!(face.get("/api/versions?study=1.2.3", &[]).await.json().as_array().map(Vec::len), Some(1));

    assert_eq!(send(&face, "DELETE", "/api/peers/%2Adicomweb", &[], "").await.status, StatusCode::NO_CONTENT);
    let kept = store(&[third]).await;
    let warning = &kept.json()["00081199"]["Value"][0]["00081196"]["Value"][0];
    assert_eq!((kept.status, warning), (StatusCode::ACCEPTED, &json!(45056)), "kept, and said to be no answer");
}

#[tokio::test]
async fn an_echo_says_how_it_went_and_needs_json() {
    let face = Face::new();
    put(&face, "GOOD", r#"{"address":"good:104"}"#).await;
    put(&face, "BAD", r#"{"address":"bad:104"}"#).await;
    put(&face, "CALLER", "{}").await;
    let kind = [("content-type", "application/json")];
    let good = send(&face, "POST", "/api/peers/GOOD/echo", &kind, "{}").await;
    assert_eq!(good.status, StatusCode::OK);
    assert_eq!((&good.json()["ok"], &good.json()["address"]), (&json!(true), &json!("good:104")));
    assert!(good.json()["milliseconds"].as_f64().is_some());
    let bad = send(&face, "POST", "/api/peers/BAD/echo", &kind, "{}").await.json();
    assert_eq!((&bad["ok"], &bad["why"]), (&json!(false), &json!("BAD does not answer TRIPTYCH")));
    let caller = send(&face, "POST", "/api/peers/CALLER/echo", &kind, "{}").await;
    assert_eq!(caller.status, StatusCode::CONFLICT);
    assert_eq!(send(&face, "POST", "/api/peers/NOBODY/echo", &kind, "{}").await.status, StatusCode::NOT_FOUND);
    // What a form of another site could send unasked.
    let form = send(&face, "POST", "/api/peers/GOOD/echo", &[("content-type", "text/plain")], "{}").await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn other_contents_of_a_study_are_listed_and_had_as_they_were_received() {
    let face = Face::new();
    let first = file("1.2.3", "1.2.3.4");
    let mut second = first.clone();
    let last = second.len() - 1;
    second[last] ^= 1;
    face.store("/dicom-web/studies", std::slice::from_ref(&first)).await;
    face.store("/dicom-web/studies", &[second.clone()]).await;
    let list = face.get("/api/versions?study=1.2.3", &[]).await.json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((&list[0]["instance"], &list[0]["number"]), (&json!("1.2.3.4"), &json!(1)));
    assert_eq!(list[0]["protocol"], "stow");
    let accept = [("accept", "application/dicom; transfer-syntax=*")];
    let bytes = async |url: &str| face.get(url, &accept).await.body;
    let url = list[0]["url"].as_str().unwrap();
    let (kept, current) = (bytes(url).await, bytes(&url.replace("version=1", "version=0")).await);
    assert!(kept.ends_with(&second[second.len() - 20..]), "the other content");
    assert!(current.ends_with(&first[first.len() - 20..]), "what the UID answers");
    for (path, status) in [
        (url.replace("version=1", "version=2"), StatusCode::NOT_FOUND),
        (url.replace("version=1", "version=x"), StatusCode::BAD_REQUEST),
        (url.replace("as=received&", ""), StatusCode::BAD_REQUEST),
        ("/dicom-web/studies/1.2.3?as=received&version=1".into(), StatusCode::BAD_REQUEST),
        ("/api/versions".into(), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(face.get(&path, &[]).await.status, status, "{path}");
    }
}

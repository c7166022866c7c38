//! One file of many, and one object by a query string.

use super::*;

const STUDY: &str = "/dicom-web/studies/1.2.3";

#[tokio::test]
async fn a_study_comes_as_a_zip_whose_files_are_what_is_stored() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4"), file("1.2.3", "1.2.3.5")]).await;
    for (path, count) in
        [(STUDY, 2), (&format!("{STUDY}/series/1.2.3.1"), 2), (&format!("{STUDY}/series/1.2.3.1/instances/1.2.3.5"), 1)]
    {
        let answer = face.get(path, &[("accept", "application/zip")]).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/zip");
        let uid = path.rsplit('/').next().unwrap();
        assert_eq!(answer.headers[header::CONTENT_DISPOSITION], format!("attachment; filename=\"{uid}.zip\""));
        let end = &answer.body[answer.body.len() - 22..];
        assert_eq!(end[..4], 0x0605_4B50_u32.to_le_bytes());
        assert_eq!(u16::from_le_bytes([end[10], end[11]]), count + 1, "with the DICOMDIR");
        let known = answer.headers[header::ETAG].to_str().unwrap();
        let again = face.get(path, &[("accept", "application/zip"), ("if-none-match", known)]).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    }
    // What a browser can ask for, which sends its own Accept.
    let linked = face.get(&format!("{STUDY}?accept=application/zip"), &[("accept", "text/html, */*;q=0.8")]).await;
    assert_eq!(linked.headers[header::CONTENT_TYPE], "application/zip");
}

#[tokio::test]
async fn an_object_is_had_by_a_query_string() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    let ask = async |more: &str| {
        let path = format!("/wado?requestType=WADO&studyUID=1.2.3&seriesUID=1.2.3.1&objectUID=1.2.3.4{more}");
        face.get(&path, &[]).await
    };
    for more in [
        "&contentType=application/dicom",
        "&contentType=application%2Fdicom&transferSyntax=1.2.840.10008.1.2.1",
        "&contentType=image/jpeg,application/dicom&transferSyntax=*",
    ] {
        let answer = ask(more).await;
        assert_eq!(answer.status, StatusCode::OK, "{more}: {:?}", answer.body);
        assert_eq!(answer.headers[header::CONTENT_TYPE], format!("application/dicom; transfer-syntax={EXPLICIT}"));
        assert!(answer.body.ends_with(&data_set("1.2.3", "1.2.3.4", "DOE^JANE", 3)), "{more}");
    }
    for (more, status) in [
        ("&contentType=application/dicom&anonymize=yes", 406),
        ("&contentType=application/dicom&anonymize=1", 406),
        ("&contentType=application/dicom&anonymize=no&anonymize=yes", 400),
        ("&contentType=application/dicom&transferSyntax=1.2.840.10008.1.2", 406),
        ("&contentType=text/html", 406),
    ] {
        let answer = ask(more).await;
        assert_eq!(answer.status.as_u16(), status, "{more}");
        assert!(answer.body.len() > 20, "{more} says what to do");
    }
    let unknown = face
        .get(
            "/wado?requestType=WADO&studyUID=1.2.3&seriesUID=1.2.3.1&objectUID=1.2.99&contentType=application/dicom",
            &[],
        )
        .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let wrong = face.get("/wado?studyUID=1.2.3&seriesUID=1.2.3.1&objectUID=1.2.3.4", &[]).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

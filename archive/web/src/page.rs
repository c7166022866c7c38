//! The page: some files, compiled in, so that a node needs nothing from elsewhere.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

pub(crate) async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("../page/page.html"))
}

pub(crate) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../page/style.css"))
}

pub(crate) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../page/page.js"))
}

pub(crate) async fn study_script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../page/study.js"))
}

pub(crate) async fn icon() -> Response {
    file("image/svg+xml", include_str!("../page/icon.svg"))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        // A page of one release never runs with the script of another.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_writes_data_as_text_and_loads_nothing_from_elsewhere() {
        let script = concat!(include_str!("../page/page.js"), include_str!("../page/study.js"));
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"]
        {
            let own = script.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains(forbidden), "{forbidden}");
        }
        let page = include_str!("../page/page.html");
        assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("//"), "nothing inline");
    }
}

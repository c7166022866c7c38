//! What the service can do (PS3.18 §8.9): one table of resources, said as WADL, as the standard asks, and as OpenAPI, which
//! tools read.
//!
//! ```text
//!   OPTIONS /dicom-web/…   Allow, and the document       GET /dicom-web/   the same document
//! ```
//!
//! When adding a route below `/dicom-web`: 1. a row in [`RESOURCES`]; 2. `with_options` around its methods in `router.rs`. A
//! test compares the two.

use crate::{
    accept::{Accept, Form},
    query::parameters,
    router::Shared,
    status::Problem,
};
use axum::{
    body::Body,
    extract::MatchedPath,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::Response,
    routing::MethodRouter,
};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

const WADL: &str = "application/vnd.sun.wadl+xml";
const OPEN_API: &str = "application/vnd.oai.openapi+json";
const FORMS: &[Form] = &[
    Form::Single(WADL),
    Form::Single("application/xml"),
    Form::Single(OPEN_API),
    Form::Single("application/openapi+json"),
    Form::Single("application/json"),
];

/// One resource.
struct Resource {
    /// As in `router.rs`, below `/dicom-web`.
    path: &'static str,
    /// Its name in PS3.18.
    name: &'static str,
    methods: &'static [Method],
}

/// A method of a resource.
struct Method {
    name: &'static str,
    does: &'static str,
    /// Query parameters beside `accept`.
    parameters: &'static [&'static str],
    /// Media types that it takes.
    takes: &'static [&'static str],
    /// Media types that it answers, the default first.
    answers: &'static [&'static str],
}

const fn get(does: &'static str, parameters: &'static [&'static str], answers: &'static [&'static str]) -> Method {
    Method { name: "GET", does, parameters, takes: &[], answers }
}

const SEARCH: &[&str] = &[
    "{attributeID}",
    "includefield",
    "limit",
    "offset",
    "fuzzymatching",
    "emptyvaluematching",
    "multiplevaluematching",
    "TimezoneOffsetFromUTC",
];
const METADATA_TYPES: &[&str] =
    &["application/dicom+json", "multipart/related; type=\"application/dicom+xml\"", "application/json"];
const OBJECTS: &[&str] = &["multipart/related; type=\"application/dicom\"", "application/zip"];
const OBJECT: &[&str] = &["multipart/related; type=\"application/dicom\"", "application/dicom", "application/zip"];
const BULK: &[&str] = &["application/octet-stream", "multipart/related; type=\"application/octet-stream\""];
const BULKS: &[&str] = &["multipart/related; type=\"application/octet-stream\""];
const FRAMES: &[&str] = &[
    "multipart/related; type=\"application/octet-stream\"",
    "multipart/related; type=\"image/jpeg\"",
    "multipart/related; type=\"image/jls\"",
    "multipart/related; type=\"image/jp2\"",
    "multipart/related; type=\"image/jphc\"",
    "multipart/related; type=\"image/dicom-rle\"",
    "application/octet-stream",
];
const VIEWED: &[&str] = &["viewport", "window", "quality", "annotation", "iccprofile"];
const PICTURES: &[&str] = &["multipart/related; type=\"image/jpeg\"", "multipart/related; type=\"image/png\""];
const PICTURE: &[&str] =
    &["image/jpeg", "image/png", "multipart/related; type=\"image/jpeg\"", "multipart/related; type=\"image/png\""];
const THUMBNAIL: &[&str] = &["image/jpeg", "image/png"];
const STORE: Method = Method {
    name: "POST",
    does: "Store Instances",
    parameters: &[],
    takes: &[
        "multipart/related; type=\"application/dicom\"",
        "multipart/related; type=\"application/dicom+json\"",
        "multipart/related; type=\"application/dicom+xml\"",
        "application/dicom",
    ],
    answers: &["application/dicom+json", "application/dicom+xml"],
};
const DELETE: Method =
    Method { name: "DELETE", does: "Delete", parameters: &["reason"], takes: &[], answers: &["application/json"] };

/// Every resource below `/dicom-web`.
const RESOURCES: &[Resource] = &[
    Resource {
        path: "/",
        name: "Capabilities",
        methods: &[get("Retrieve Capabilities", &[], &[WADL, OPEN_API, "application/json"])],
    },
    Resource {
        path: "/studies",
        name: "All Studies",
        methods: &[get("Search for Studies", SEARCH, METADATA_TYPES), STORE],
    },
    Resource { path: "/series", name: "All Series", methods: &[get("Search for Series", SEARCH, METADATA_TYPES)] },
    Resource {
        path: "/instances",
        name: "All Instances",
        methods: &[get("Search for Instances", SEARCH, METADATA_TYPES)],
    },
    Resource {
        path: "/studies/{study}",
        name: "Study",
        methods: &[get("Retrieve Study", &["as"], OBJECTS), STORE, DELETE],
    },
    Resource {
        path: "/studies/{study}/series",
        name: "Study's Series",
        methods: &[get("Search for Series", SEARCH, METADATA_TYPES)],
    },
    Resource {
        path: "/studies/{study}/instances",
        name: "Study's Instances",
        methods: &[get("Search for Instances", SEARCH, METADATA_TYPES)],
    },
    Resource {
        path: "/studies/{study}/metadata",
        name: "Study Metadata",
        methods: &[get("Retrieve Metadata", &[], METADATA_TYPES)],
    },
    Resource {
        path: "/studies/{study}/bulkdata",
        name: "Study Bulkdata",
        methods: &[get("Retrieve Bulkdata", &[], BULKS)],
    },
    Resource {
        path: "/studies/{study}/pixeldata",
        name: "Study Pixel Data",
        methods: &[get("Retrieve Pixel Data", &[], BULKS)],
    },
    Resource {
        path: "/studies/{study}/series/{series}",
        name: "Series",
        methods: &[get("Retrieve Series", &["as"], OBJECTS), DELETE],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances",
        name: "Study's Series' Instances",
        methods: &[get("Search for Instances", SEARCH, METADATA_TYPES)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/metadata",
        name: "Series Metadata",
        methods: &[get("Retrieve Metadata", &[], METADATA_TYPES)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/bulkdata",
        name: "Series Bulkdata",
        methods: &[get("Retrieve Bulkdata", &[], BULKS)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/pixeldata",
        name: "Series Pixel Data",
        methods: &[get("Retrieve Pixel Data", &[], BULKS)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}",
        name: "Instance",
        methods: &[get("Retrieve Instance", &["as", "version"], OBJECT), DELETE],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/metadata",
        name: "Instance Metadata",
        methods: &[get("Retrieve Metadata", &[], METADATA_TYPES)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/frames/{list}",
        name: "Frames",
        methods: &[get("Retrieve Frames", &[], FRAMES)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/bulkdata",
        name: "Instance Bulkdata",
        methods: &[get("Retrieve Bulkdata", &[], BULKS)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/bulkdata/{place}",
        name: "Bulkdata",
        methods: &[get("Retrieve Bulkdata", &[], BULK)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/pixeldata",
        name: "Instance Pixel Data",
        methods: &[get("Retrieve Pixel Data", &[], BULKS)],
    },
    Resource {
        path: "/studies/{study}/rendered",
        name: "Rendered Study",
        methods: &[get("Retrieve Rendered Study", VIEWED, PICTURES)],
    },
    Resource {
        path: "/studies/{study}/thumbnail",
        name: "Study Thumbnail",
        methods: &[get("Retrieve Study Thumbnail", VIEWED, THUMBNAIL)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/rendered",
        name: "Rendered Series",
        methods: &[get("Retrieve Rendered Series", VIEWED, PICTURES)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/thumbnail",
        name: "Series Thumbnail",
        methods: &[get("Retrieve Series Thumbnail", VIEWED, THUMBNAIL)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/rendered",
        name: "Rendered Instance",
        methods: &[get("Retrieve Rendered Instance", VIEWED, PICTURE)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/thumbnail",
        name: "Instance Thumbnail",
        methods: &[get("Retrieve Instance Thumbnail", VIEWED, THUMBNAIL)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/frames/{list}/rendered",
        name: "Rendered Frames",
        methods: &[get("Retrieve Rendered Frames", VIEWED, PICTURE)],
    },
    Resource {
        path: "/studies/{study}/series/{series}/instances/{instance}/frames/{list}/thumbnail",
        name: "Frames Thumbnail",
        methods: &[get("Retrieve Frames Thumbnail", VIEWED, THUMBNAIL)],
    },
    Resource {
        path: "/commitment-requests/{transaction}",
        name: "Storage Commitment",
        methods: &[
            get("Result of a Commitment", &[], &["application/dicom+json"]),
            Method {
                name: "POST",
                does: "Request Storage Commitment",
                parameters: &[],
                takes: &["application/dicom+json"],
                answers: &["application/dicom+json"],
            },
        ],
    },
];

/// `methods`, and OPTIONS.
pub(crate) fn with_options(methods: MethodRouter<Shared>) -> MethodRouter<Shared> {
    methods.options(document)
}

/// What the service can do, and at this resource.
pub(crate) async fn document(path: Option<MatchedPath>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = Accept::of(&headers, &parameters(uri.query())?);
    let Some(Form::Single(media_type)) = accept.choose(FORMS, &[]) else {
        return Err(Problem::not_acceptable(&format!("{WADL} or {OPEN_API}")));
    };
    let text = if media_type.ends_with("xml") { wadl(RESOURCES) } else { open_api(RESOURCES).to_string() };
    let mut response = Response::new(Body::from(text));
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    out.insert(header::VARY, HeaderValue::from_static("accept"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let path = path.as_ref().map_or("", |path| path.as_str().strip_prefix("/dicom-web").unwrap_or(""));
    let path = if path.is_empty() { "/" } else { path };
    if let Some(resource) = RESOURCES.iter().find(|resource| resource.path == path) {
        let mut allow = String::from("OPTIONS, HEAD");
        resource.methods.iter().for_each(|method| _ = write!(allow, ", {}", method.name));
        if let Ok(value) = HeaderValue::from_str(&allow) {
            out.insert(header::ALLOW, value);
        }
    }
    Ok(response)
}

/// Names in braces of a path.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|step| step.strip_prefix('{')?.strip_suffix('}'))
}

/// The Web Application Description (https://www.w3.org/submissions/wadl/).
fn wadl(resources: &[Resource]) -> String {
    let quoted = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;");
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<application xmlns=\"http://wadl.dev.java.net/2009/02\">\n\
         <resources base=\"/dicom-web\">\n",
    );
    for Resource { path, name, methods } in resources {
        let shown = path.trim_start_matches('/');
        out += &format!("<resource path=\"{shown}\"><doc title=\"{}\"/>\n", quoted(name));
        for name in names(path) {
            out += &format!("<param name=\"{name}\" style=\"template\" required=\"true\"/>\n");
        }
        for method in *methods {
            let id = method.does.replace(' ', "");
            let place: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
            out += &format!("<method name=\"{}\" id=\"{id}-{place}\"><request>\n", method.name);
            for parameter in ["accept"].iter().filter(|_| method.name == "GET").chain(method.parameters) {
                out += &format!("<param name=\"{parameter}\" style=\"query\"/>\n");
            }
            for taken in method.takes {
                out += &format!("<representation mediaType=\"{}\"/>\n", quoted(taken));
            }
            out += "</request><response>\n";
            for answered in method.answers {
                out += &format!("<representation mediaType=\"{}\"/>\n", quoted(answered));
            }
            out += "</response></method>\n";
        }
        out += "</resource>\n";
    }
    out + "</resources>\n</application>\n"
}

fn open_api(resources: &[Resource]) -> Json {
    let content = |types: &[&str]| types.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect::<Map<_, _>>();
    let mut paths = Map::new();
    for Resource { path, name, methods } in resources {
        let mut item = Map::new();
        item.insert("summary".into(), (*name).into());
        let in_path = names(path)
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
        item.insert("parameters".into(), in_path.collect());
        for method in *methods {
            let asked = method.parameters.iter().filter(|name| !name.starts_with('{'));
            let asked = asked.map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }));
            let mut operation = json!({
                "summary": method.does,
                "parameters": asked.collect::<Vec<_>>(),
                "responses": {
                    "200": { "description": "success", "content": content(method.answers) },
                    "default": { "description": "what is wrong and what to do", "content": { "text/plain": {} } },
                },
            });
            if !method.takes.is_empty() {
                operation["requestBody"] = json!({ "required": true, "content": content(method.takes) });
            }
            item.insert(method.name.to_ascii_lowercase(), operation);
        }
        paths.insert((*path).to_owned(), item.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Triptych DICOMweb", "version": env!("CARGO_PKG_VERSION") },
        "servers": [{ "url": "/dicom-web" }],
        "paths": paths,
    })
}

/// Paths and methods of the table, for the test that compares it with the routes.
#[cfg(test)]
pub(crate) fn table() -> Vec<(&'static str, Vec<&'static str>)> {
    RESOURCES.iter().map(|one| (one.path, one.methods.iter().map(|method| method.name).collect())).collect()
}

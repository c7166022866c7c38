//! Which path is answered by what.

use crate::{
    capabilities::{self, with_options},
    commitment, cors, delete, frames, guard, indexes, metadata, operations, page, peers, pixeldata, proxies, qido,
    rejections, rendered, retrieve, sends,
    server::{Health, WebSettings},
    status::Problem,
    stow, versions, wado, worklist,
};
use archive_service::Archive;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    routing::{get, post},
};
use std::{ops::Deref, sync::Arc};
use tokio::sync::{Semaphore, watch};

/// What every request shares.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) archive: Archive,
    pub(crate) settings: WebSettings,
    pub(crate) health: Arc<dyn Health>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) metrics: guard::Metrics,
    /// Requests to the archive that run at the same time.
    pub(crate) requests: Arc<Semaphore>,
    /// Readers of images, by address.
    pub(crate) readers: guard::Readers,
    /// Bytes of bulk values that come beside metadata.
    pub(crate) bulk_held: Arc<Semaphore>,
    /// Pages that listen to events.
    pub(crate) listeners: Arc<Semaphore>,
    /// The newest state of the cluster, as JSON.
    pub(crate) news: watch::Receiver<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// All routes.
pub(crate) fn router(shared: Shared) -> Router {
    let study = "/studies/{study}";
    let series = "/studies/{study}/series/{series}";
    let instance = "/studies/{study}/series/{series}/instances/{instance}";
    let at = |base: &str, end: &str| format!("{base}{end}");
    // OPTIONS of each says what it can do.
    let dicom = Router::new()
        .route("/", with_options(get(capabilities::document)))
        .route("/studies", with_options(get(qido::studies).post(stow::store)))
        .route("/series", with_options(get(qido::series)))
        .route("/instances", with_options(get(qido::instances)))
        .route(study, with_options(get(retrieve::get).post(stow::store).delete(delete::delete)))
        .route(&at(study, "/series"), with_options(get(qido::series)))
        .route(&at(study, "/instances"), with_options(get(qido::instances)))
        .route(&at(study, "/metadata"), with_options(get(metadata::get)))
        .route(&at(study, "/bulkdata"), with_options(get(pixeldata::bulkdata)))
        .route(&at(study, "/pixeldata"), with_options(get(pixeldata::pixeldata)))
        .route(series, with_options(get(retrieve::get).delete(delete::delete)))
        .route(&at(series, "/instances"), with_options(get(qido::instances)))
        .route(&at(series, "/metadata"), with_options(get(metadata::get)))
        .route(&at(series, "/bulkdata"), with_options(get(pixeldata::bulkdata)))
        .route(&at(series, "/pixeldata"), with_options(get(pixeldata::pixeldata)))
        .route(instance, with_options(get(retrieve::get).delete(delete::delete)))
        .route(&at(instance, "/metadata"), with_options(get(metadata::get)))
        .route(&at(instance, "/frames/{list}"), with_options(get(frames::frames)))
        .route(&at(instance, "/bulkdata"), with_options(get(pixeldata::bulkdata)))
        .route(&at(instance, "/bulkdata/{place}"), with_options(get(frames::bulk)))
        .route(&at(instance, "/pixeldata"), with_options(get(pixeldata::pixeldata)))
        .merge(rendered::routes())
        .route("/commitment-requests/{transaction}", with_options(get(commitment::result).post(commitment::ask)))
        .layer(middleware::from_fn_with_state(shared.clone(), guard::cap));
    let root = Router::new()
        .route("/dicom-web/", get(capabilities::document).options(capabilities::document))
        .route("/wado", get(wado::get))
        .layer(middleware::from_fn_with_state(shared.clone(), guard::cap));
    // Small bodies, which are read whole.
    let registry = Router::new()
        .route("/api/peers", get(peers::list))
        .route("/api/peers/{ae}", get(peers::get).put(peers::put).delete(peers::delete))
        .route("/api/peers/{ae}/echo", post(peers::echo))
        .route("/api/indexes", get(indexes::list))
        .route("/api/indexes/{attribute}", get(indexes::get).put(indexes::put).delete(indexes::delete))
        .route("/api/sends", get(sends::list).post(sends::queue))
        .route("/api/sends/{id}", get(sends::get).delete(sends::cancel))
        .layer(DefaultBodyLimit::max(peers::BODY_BYTES_MAX));
    Router::new()
        .nest("/dicom-web", dicom)
        // A nested `/` is the path without a slash behind it.
        .merge(root)
        .merge(registry)
        .route("/", get(page::page))
        .route("/page/style.css", get(page::style))
        .route("/page/page.js", get(page::script))
        .route("/page/study.js", get(page::study_script))
        .route("/page/icon.svg", get(page::icon))
        .route("/api/cluster", get(operations::cluster))
        .route("/api/totals", get(operations::totals))
        .route("/api/deletions", get(delete::deletions))
        .route("/api/versions", get(versions::list))
        .route("/api/rejections", get(rejections::list))
        .route("/api/rejections/restore", post(rejections::restore))
        .route("/api/worklist", get(worklist::list).post(worklist::enter))
        .route("/api/worklist/{study}/{step}", get(worklist::get).delete(worklist::remove))
        .route("/api/mpps", get(worklist::performed))
        .route("/api/mpps/{uid}", get(worklist::performed_step))
        .route("/api/nodes/{name}/replace", post(operations::replace))
        .route("/api/scrub", post(operations::scrub))
        .route("/api/compact", post(operations::compact))
        .route("/api/nodes/{name}/drain", post(operations::drain))
        .route("/api/nodes/{name}/undrain", post(operations::undrain))
        .route("/api/nodes/{name}/remove", post(operations::remove))
        .route("/api/backups", get(operations::backup).post(operations::begin_backup))
        .route("/api/events", get(operations::events))
        .route("/health/live", get(operations::live))
        .route("/health/ready", get(operations::ready))
        .route("/metrics", get(operations::metrics))
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "no such path: DICOMweb is at /dicom-web, the page at /")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes no such method: see its Allow header")
        })
        // Bodies are streamed and have limits of their own.
        .layer(DefaultBodyLimit::disable())
        // Outside of all routes: a preflight is no method that a path takes or not.
        .layer(middleware::from_fn_with_state(shared.clone(), cors::allow))
        .layer(middleware::from_fn_with_state(shared.clone(), proxies::distrust))
        .layer(middleware::from_fn_with_state(shared.clone(), guard::watch))
        .with_state(shared)
}

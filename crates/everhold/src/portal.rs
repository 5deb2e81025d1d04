//! The portal's static files, or a page that says how to build them.
//!
//! Invariant: nothing inline runs (CSP), and a path that names no file is the application's own (it routes
//! itself), except below `/assets/`, where a miss is a miss. It knows nothing of the API.

use std::path::PathBuf;

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse as _, Response},
};
use tower_http::{
    compression::CompressionLayer,
    services::{ServeDir, ServeFile},
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Everhold</title>\
    <h1>Everhold is running</h1><p>The portal is not built on this machine. With Node 20 or newer, run \
    <code>make portal</code> in the project's folder and start again. The API and the agent work without it: \
    see <a href=\"/openapi.json\">/openapi.json</a>.</p></html>";

/// Serves `folder` if it holds a built portal.
pub fn router(folder: Option<PathBuf>) -> Router {
    let router = match folder.filter(|folder| folder.join("index.html").is_file()) {
        Some(folder) => {
            let index = ServeFile::new(folder.join("index.html"));
            let assets = ServeDir::new(folder.join("assets"));
            Router::new()
                .nest_service("/assets", assets)
                .fallback_service(ServeDir::new(folder).fallback(index))
        }
        None => Router::new().fallback(not_built),
    };
    router.layer(CompressionLayer::new()).layer(middleware::from_fn(with_headers))
}

async fn not_built(method: Method) -> Response {
    if method == Method::GET || method == Method::HEAD {
        return (StatusCode::OK, Html(NOT_BUILT)).into_response();
    }
    StatusCode::METHOD_NOT_ALLOWED.into_response()
}

async fn with_headers(request: Request, next: Next) -> Response {
    // Names below /assets/ carry a hash of their content; everything else may change with a release.
    let lasting = request.uri().path().starts_with("/assets/");
    let mut response = next.run(request).await;
    let keep = lasting && response.status().is_success();
    let cache = if keep { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, cache),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt as _;

    use super::*;

    async fn get(router: &Router, path: &str) -> (StatusCode, String, Response) {
        let request = Request::get(path).body(Body::empty()).expect("request");
        let response = router.clone().oneshot(request).await.expect("answers");
        let (parts, body) = response.into_parts();
        let text = to_bytes(body, 1 << 20).await.expect("body");
        let text = String::from_utf8(text.to_vec()).expect("text");
        (parts.status, text, Response::from_parts(parts, Body::empty()))
    }

    #[tokio::test]
    async fn a_path_of_the_application_is_its_index_and_a_missing_asset_is_missing() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir(dir.path().join("assets")).expect("folder");
        std::fs::write(dir.path().join("index.html"), "<p>portal").expect("file");
        std::fs::write(dir.path().join("assets/app-1a2b.js"), "run()").expect("file");
        let router = router(Some(dir.path().to_owned()));
        let (status, text, response) = get(&router, "/workloads/wkl_1").await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "<p>portal"));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"));
        let (status, _, response) = get(&router, "/assets/app-1a2b.js").await;
        assert_eq!(status, StatusCode::OK);
        let cache = response.headers()[header::CACHE_CONTROL].to_str().expect("text");
        assert!(cache.contains("immutable"));
        assert_eq!(get(&router, "/assets/none.js").await.0, StatusCode::NOT_FOUND);
        let (status, text, _) = get(&router, "/../../etc/passwd").await;
        assert!(status != StatusCode::OK || text == "<p>portal");
    }

    #[tokio::test]
    async fn without_a_build_a_page_says_how_to_make_one() {
        let (status, text, _) = get(&router(None), "/").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("make portal"));
    }
}

//! The screens: the files that Vite built, inside the binary.
//!
//! Invariant: a file whose name carries its hash may be kept for ever; the pages that name it may not.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::edge::web::problem::Problem;

/// `web/dist`; a debug build reads the folder at run time, so that a screen can be changed without cargo.
#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/web/dist"]
#[allow_missing = true]
struct Dist;

/// Where Vite puts files with a hash in their names.
const HASHED: &str = "assets/";
/// Pages that one script serves; it reads the address itself.
const PAGES: [&str; 4] = ["/", "/board", "/history", "/admin"];

/// Shown where the screens were not built.
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><title>Tandem</title><h1>The screens are not built</h1>\
<p>Tandem runs, but this binary holds no web files. Build them and then the binary again:</p>\
<pre>cd web &amp;&amp; npm ci &amp;&amp; npm run build\ncargo build</pre>\
<p>The API at /api/v1 and telephony work without them.</p></html>";

/// `GET` of anything that no other route serves.
pub(super) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    file(uri.path(), &headers)
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    if PAGES.contains(&path) {
        return page(path, headers);
    }
    let name = path.trim_start_matches('/');
    match Dist::get(name) {
        Some(found) => send(name, &found.data, found.metadata.sha256_hash(), headers),
        None => Problem::not_found("page").into_response(),
    }
}

/// `/board` is `board.html` where the build made one, else the one page of all screens.
fn page(path: &str, headers: &HeaderMap) -> Response {
    let own = format!("{}.html", path.trim_start_matches('/'));
    for name in [own.as_str(), "index.html"] {
        if let Some(found) = Dist::get(name) {
            return send(name, &found.data, found.metadata.sha256_hash(), headers);
        }
    }
    (StatusCode::SERVICE_UNAVAILABLE, Html(NOT_BUILT)).into_response()
}

fn send(name: &str, data: &[u8], sha256: [u8; 32], headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", hex::encode(sha256.get(..12).unwrap_or(&sha256)));
    let keep = if name.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = mime_guess::from_path(name).first_or_octet_stream();
        let kind = if kind.type_() == "text" { format!("{kind}; charset=utf-8") } else { kind.to_string() };
        ([(header::CONTENT_TYPE, kind)], data.to_vec()).into_response()
    };
    let out = response.headers_mut();
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_files_are_kept_for_ever_and_pages_are_asked_for_again() {
        let hashed = send("assets/app-1a2b.js", b"x", [7; 32], &HeaderMap::new());
        assert_eq!(hashed.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(hashed.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
        let page = send("index.html", b"x", [7; 32], &HeaderMap::new());
        assert_eq!(page.headers()[header::CACHE_CONTROL], "no-cache");
        let mut known = HeaderMap::new();
        known.insert(header::IF_NONE_MATCH, page.headers()[header::ETAG].clone());
        assert_eq!(send("index.html", b"x", [7; 32], &known).status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn a_path_that_climbs_finds_nothing() {
        for path in ["/../Cargo.toml", "/assets/../../Cargo.toml", "/%2e%2e/Cargo.toml", "/nothing"] {
            assert_eq!(file(path, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn every_screen_has_its_page() {
        for path in PAGES {
            let status = file(path, &HeaderMap::new()).status();
            let built = Dist::get("index.html").is_some();
            assert_eq!(
                status,
                if built { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
                "{path}"
            );
        }
    }
}

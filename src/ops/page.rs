//! The page: one answer that loads nothing else, made of the files in `page/`.

use std::sync::LazyLock;

use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{Html, IntoResponse, Response};
use uuid::Uuid;

/// The page, whole but for the nonce, which `{{nonce}}` stands for.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("page/page.html")
        .replace("{{style}}", include_str!("page/page.css"))
        .replace("{{script}}", SCRIPT)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
});

/// In the order in which they build on each other.
const SCRIPT: &str = concat!(
    include_str!("page/words.js"),
    include_str!("page/nodes.js"),
    include_str!("page/charts.js"),
    include_str!("page/wire.js"),
    include_str!("page/overview.js"),
    include_str!("page/detail.js"),
    include_str!("page/lists.js"),
    include_str!("page/acts.js"),
    include_str!("page/live.js"),
);

/// The page, which may run its own script and style and nothing that was smuggled into it.
pub(super) async fn page() -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    ([(CONTENT_SECURITY_POLICY, policy)], Html(PAGE.replace("{{nonce}}", &nonce))).into_response()
}

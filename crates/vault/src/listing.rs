//! Lists of a bucket that say whether they are all of it.
//!
//! For object_store, whose client takes a page that names no next one for the last one, whatever it says of itself, and
//! any XML, an HTML page too, for an empty list. Owns what stands between that client and its connections. Invariant: a
//! page that does not say that it is the last one, or where the next one begins, is an error and no page.

use std::{error::Error, fmt::Debug};

use async_trait::async_trait;
use http::Method;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService, ReqwestConnector,
    },
};
use serde::Deserialize;

/// Connections whose lists are whole.
#[derive(Debug, Default)]
pub struct WholeLists(ReqwestConnector);

impl HttpConnector for WholeLists {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.connect(options)?)))
    }
}

/// What stands before the client.
#[derive(Debug)]
struct Service(HttpClient);

/// What a page says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    is_truncated: bool,
    next_continuation_token: Option<String>,
}

/// Why an answer is no list.
#[derive(Debug, thiserror::Error)]
pub enum TornList {
    #[error("the store's answer is no list, or does not say whether it is all: {0}")]
    NoList(#[source] quick_xml::DeError),
    #[error("the store's list breaks off: there is more, and it does not say where")]
    NoNext,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default();
        let is_list =
            request.method() == Method::GET && query.split('&').any(|one| one == "list-type=2");
        let answer = self.0.execute(request).await?;
        if !is_list || !answer.status().is_success() {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        // A thousand names: the client below holds a page as well.
        let bytes = body.bytes().await?;
        let page = quick_xml::de::from_reader(&*bytes).map_err(TornList::NoList);
        let page: Page = page.map_err(torn)?;
        if page.is_truncated && page.next_continuation_token.is_none() {
            return Err(torn(TornList::NoNext));
        }
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(bytes)))
    }
}

/// Not tried again: a store that says so says so each time, and whoever asked may.
fn torn(error: impl Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Decode, error)
}

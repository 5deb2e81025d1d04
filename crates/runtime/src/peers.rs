//! How roles reach each other: a router in this process, or HTTP. Every call carries a service token.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use api::{
    Code, Problem,
    client::{Client, Error, Identity, InProcess},
};
use axum::{Router, body::Body, response::IntoResponse as _};
use bytes::Bytes;
use domain::Clock;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use crate::{Failure, RoleName, ServiceKeys};

/// Where one role is.
#[derive(Clone)]
enum Place {
    /// In this process; bound when the roles are assembled.
    Here(Arc<OnceLock<Router>>),
    /// Base URL of its internal listener, ending in the role's name.
    There(Client),
}

/// The other roles, as one role sees them.
#[derive(Clone)]
pub struct Peers {
    caller: RoleName,
    keys: ServiceKeys,
    clock: Arc<dyn Clock>,
    places: Arc<BTreeMap<RoleName, Place>>,
}

impl Peers {
    /// Peers of which those in `remote` (base URLs of their internal listeners) run elsewhere and all
    /// others in this process. Give each role its own by [`Self::as_seen_by`].
    ///
    /// # Errors
    /// When the TLS stack cannot be set up.
    pub fn new(
        keys: ServiceKeys,
        clock: Arc<dyn Clock>,
        remote: &BTreeMap<RoleName, String>,
    ) -> Result<Self, Error> {
        let mut places = BTreeMap::new();
        for role in RoleName::ALL {
            let place = match remote.get(&role) {
                Some(base) => {
                    let base = format!("{}/{role}", base.trim_end_matches('/'));
                    Place::There(Client::http(&base, Identity::Anonymous)?)
                }
                None => Place::Here(Arc::default()),
            };
            places.insert(role, place);
        }
        Ok(Self { caller: RoleName::Auth, keys, clock, places: Arc::new(places) })
    }

    /// The same peers, speaking as `caller`.
    #[must_use]
    pub fn as_seen_by(&self, caller: RoleName) -> Self {
        Self { caller, ..self.clone() }
    }

    /// A client of `role`'s `/internal/v1/…`, with a fresh service token. Make one per call.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when no token can be made.
    pub fn client(&self, role: RoleName) -> Result<Client, Error> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreachable {
            server: role.to_string(),
            source,
        };
        let token = self
            .keys
            .sign_service(self.caller.as_str(), self.clock.now())
            .map_err(|error| unreachable(error.into()))?;
        let identity = Identity::Bearer(token);
        match self.places.get(&role) {
            Some(Place::There(client)) => Ok(client.with_identity(identity)),
            Some(Place::Here(slot)) => {
                let base = format!("http://{role}.internal");
                Ok(Client::in_process(&base, late(slot.clone()), identity))
            }
            None => Err(unreachable("no such role".into())),
        }
    }

    /// Binds a role that runs in this process. A second binding changes nothing.
    pub(crate) fn bind(&self, role: RoleName, internal: Router) {
        if let Some(Place::Here(slot)) = self.places.get(&role) {
            let _ = slot.set(internal);
        }
    }
}

/// A transport to a router that is bound later.
fn late(slot: Arc<OnceLock<Router>>) -> InProcess {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Bytes>| {
        let router = slot.get().cloned();
        async move {
            match router {
                Some(router) => call(router, request).await,
                None => {
                    let problem =
                        Problem::new(Code::Unavailable).detail("this role is not running");
                    Ok(collect(Failure(problem).into_response()).await)
                }
            }
        }
    }))
}

/// A router as a transport of `api::client::Client`.
pub fn in_process(router: Router) -> InProcess {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Bytes>| {
        call(router.clone(), request)
    }))
}

async fn call(router: Router, request: Request<Bytes>) -> Result<Response<Bytes>, Infallible> {
    let response = router.oneshot(request.map(Body::from)).await?;
    Ok(collect(response).await)
}

async fn collect(response: Response<Body>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    // A body that breaks off reads as empty, which no caller takes for an answer.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Response::from_parts(parts, bytes)
}

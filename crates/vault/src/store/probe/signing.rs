//! Cases about what a signature binds: every change of a granted request is refused.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Verdict,
    context::{Context, with_header},
    fail,
};
use crate::store::PresignedRequest;

const BODY: Bytes = Bytes::from_static(b"granted body");
const MODE: &str = "x-amz-object-lock-mode";
const UNTIL: &str = "x-amz-object-lock-retain-until-date";

async fn changed(cx: &Context, name: &str, header: &str, value: Option<&str>) -> Verdict {
    let signed = cx.store.presign_put(&cx.grant(name, &BODY)).await?;
    cx.refused_and_absent(name, &with_header(signed, header, value), BODY).await
}

pub(super) async fn dropped_lock_refused(cx: &Context) -> Verdict {
    let name = "dropped-lock";
    let signed = cx.store.presign_put(&cx.grant(name, &BODY)).await?;
    let unlocked = with_header(with_header(signed, MODE, None), UNTIL, None);
    cx.refused_and_absent(name, &unlocked, BODY).await
}

pub(super) async fn altered_lock_date_refused(cx: &Context) -> Verdict {
    changed(cx, "altered-date", UNTIL, Some("2124-01-01T00:00:00Z")).await
}

pub(super) async fn altered_mode_refused(cx: &Context) -> Verdict {
    changed(cx, "altered-mode", MODE, Some("GOVERNANCE")).await
}

pub(super) async fn other_length_refused(cx: &Context) -> Verdict {
    let name = "other-length";
    let signed = cx.store.presign_put(&cx.grant(name, &BODY)).await?;
    let longer = Bytes::from_static(b"granted body and more");
    let signed = with_header(signed, "content-length", Some("21"));
    cx.refused_and_absent(name, &signed, longer).await
}

pub(super) async fn other_key_refused(cx: &Context) -> Verdict {
    let signed = cx.store.presign_put(&cx.grant("granted-key", &BODY)).await?;
    let url = signed.url.replace("granted-key", "another-key");
    cx.refused_and_absent("another-key", &PresignedRequest { url, ..signed }, BODY).await
}

/// The worst one: the server copies another tenant's object with the signer's rights.
pub(super) async fn added_copy_source_refused(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let source = format!("/{}/{}", cx.store.config().bucket, base.key);
    changed(cx, "copied", "x-amz-copy-source", Some(&source)).await
}

pub(super) async fn added_acl_refused(cx: &Context) -> Verdict {
    changed(cx, "acl", "x-amz-acl", Some("public-read")).await
}

pub(super) async fn added_legal_hold_refused(cx: &Context) -> Verdict {
    changed(cx, "hold", "x-amz-object-lock-legal-hold", Some("ON")).await
}

pub(super) async fn added_metadata_refused(cx: &Context) -> Verdict {
    changed(cx, "metadata", "x-amz-meta-added", Some("1")).await
}

pub(super) async fn expired_url_refused(cx: &Context) -> Verdict {
    let name = "expired";
    let mut grant = cx.grant(name, &BODY);
    grant.expires_in = Duration::from_secs(60);
    let start = cx.clock.now() - Duration::from_secs(600);
    let signed = cx.store.presign_put_from(&grant, Some(start)).await?;
    cx.refused_and_absent(name, &signed, BODY).await
}

pub(super) async fn forged_signature_refused(cx: &Context) -> Verdict {
    let name = "forged";
    let signed = cx.store.presign_put(&cx.grant(name, &BODY)).await?;
    let forged = "X-Amz-Signature=0000000000000000";
    let Some((front, signature)) = signed.url.split_once("X-Amz-Signature=") else {
        return fail("the signed URL carries no signature");
    };
    let rest = signature.get(16..).unwrap_or_default();
    let url = format!("{front}{forged}{rest}");
    cx.refused_and_absent(name, &PresignedRequest { url, ..signed }, BODY).await
}

pub(super) async fn anonymous_refused(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let signed = cx.store.presign_get(&base.key, &base.version_id, Duration::from_secs(60)).await?;
    let bare = signed.url.split('?').next().unwrap_or_default().to_owned();
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let request =
            PresignedRequest { method: method.into(), url: bare.clone(), headers: Vec::new() };
        let answer = cx.send(&request, Bytes::new()).await?;
        if !answer.refused() {
            return fail(format!("{method} without a signature got {}", answer.describe()));
        }
    }
    Ok(String::new())
}

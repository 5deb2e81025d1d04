//! Access tokens that must not be believed, and the published keys.

use authz::{Role, TenantKind};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use crate::app::{App, access_key};

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with any header and claims, signed by `key`.
fn forge(header: &Value, claims: &Value, key: &SigningKey) -> String {
    let said = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(said.as_bytes()).to_bytes();
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn read(part: Option<&str>) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(part.expect("part")).expect("base64");
    serde_json::from_slice(&bytes).expect("json")
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_is_not_believed() {
    let app = App::start().await;
    let good = app.admin();
    app.get("/v1/me", &good).await.expect(200);
    let (header, claims) = (read(good.split('.').next()), read(good.split('.').nth(1)));
    assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("at+jwt")));
    let key = access_key();
    assert_eq!(
        app.get("/v1/me", &forge(&header, &claims, &key)).await.status,
        200,
        "the forge works"
    );

    let with = |value: &Value, field: &str, to: Value| {
        let mut value = value.clone();
        value[field] = to;
        value
    };
    let without = |value: &Value, field: &str| {
        let mut value = value.clone();
        value.as_object_mut().expect("object").remove(field);
        value
    };
    let now = app.test.now().unix_secs();
    let mut bad = vec![
        ("typ", forge(&with(&header, "typ", json!("svc+jwt")), &claims, &key)),
        ("typ", forge(&with(&header, "typ", json!("JWT")), &claims, &key)),
        ("no typ", forge(&without(&header, "typ"), &claims, &key)),
        ("alg", forge(&with(&header, "alg", json!("HS256")), &claims, &key)),
        ("kid", forge(&with(&header, "kid", json!("../../etc/passwd")), &claims, &key)),
        ("no kid", forge(&without(&header, "kid"), &claims, &key)),
        ("aud", forge(&header, &with(&claims, "aud", json!("everhold-internal")), &key)),
        ("iss", forge(&header, &with(&claims, "iss", json!("http://evil.test")), &key)),
        ("nbf", forge(&header, &with(&claims, "nbf", json!(now + 60)), &key)),
        ("exp as text", forge(&header, &with(&claims, "exp", json!("9999999999")), &key)),
        ("signature", forge(&header, &claims, &SigningKey::from_bytes(&[8; 32]))),
        ("none", format!("{}.{}.", part(&with(&header, "alg", json!("none"))), part(&claims))),
        ("own key", {
            let own = SigningKey::from_bytes(&[8; 32]);
            let x = URL_SAFE_NO_PAD.encode(own.verifying_key().as_bytes());
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
            forge(&with(&header, "jwk", jwk), &claims, &own)
        }),
        ("garbage", "a.b.c".to_owned()),
        ("empty", " ".to_owned()),
    ];
    for field in ["iss", "aud", "sub", "nbf", "exp", "ten", "home", "roles", "ten_kind"] {
        bad.push(("no claim", forge(&header, &without(&claims, field), &key)));
    }
    // HMAC with the public key as its secret, the classic.
    let secret = jsonwebtoken::EncodingKey::from_secret(key.verifying_key().as_bytes());
    let mut swapped = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    swapped.typ = Some("at+jwt".to_owned());
    swapped.kid = header["kid"].as_str().map(ToOwned::to_owned);
    bad.push(("HMAC", jsonwebtoken::encode(&swapped, &claims, &secret).expect("encodes")));
    for (what, token) in bad {
        let answer = app.get("/v1/me", &token).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthenticated"), "{what}");
    }
}

#[tokio::test]
async fn a_token_expires() {
    let app = App::start().await;
    let token = app.admin();
    app.advance(304);
    app.get("/v1/me", &token).await.expect(200);
    app.advance(2);
    app.get("/v1/me", &token).await.refused(401, "token_expired");
    app.get("/v1/me", "").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_service_token_is_worth_nothing_outside() {
    let app = App::start().await;
    let token = app.platform().service_keys.sign_service("catalog", app.test.now()).expect("signs");
    app.get("/v1/me", &token).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn roles_of_machines_and_unknown_roles_give_nothing() {
    let app = App::start().await;
    let token = app.token(app.places.tenant, TenantKind::Tenant, &[Role::Agent, Role::Service]);
    app.get("/v1/me", &token).await.refused(403, "forbidden");
}

#[tokio::test]
async fn the_published_keys_verify_what_the_role_signs() {
    let app = App::start().await;
    let reply = app.get("/v1/auth/jwks.json", "").await.expect(200);
    let keys = reply["keys"].as_array().expect("keys");
    let signed = app.sign_in("admin@praxis.example", crate::app::PASSWORD, None).await.expect(200);
    let token = signed["access_token"].as_str().expect("token");
    let header = jsonwebtoken::decode_header(token).expect("header");
    let key = keys.iter().find(|key| key["kid"] == json!(header.kid)).expect("kid");
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"))
    );
    assert!(key.get("d").is_none());
    let x = key["x"].as_str().expect("x");
    let decoding = jsonwebtoken::DecodingKey::from_ed_components(x).expect("key");
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    rules.set_audience(&["everhold"]);
    rules.validate_exp = false;
    let claims = jsonwebtoken::decode::<Value>(token, &decoding, &rules).expect("verifies").claims;
    assert_eq!(claims["ten"], json!(app.places.tenant.tenant_id));
    assert_eq!(claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat"), 300);
}

//! Claims about tokens: what is signed is read back, and nothing else is.

use std::time::Duration;

use domain::{ManualClock, SeededIds};

use super::*;

const ISSUER: &str = "https://backup.example";

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn start() -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000)
}

fn claims() -> AccessClaims {
    let tenant = TenantId::from_bytes([1; 16]);
    let user = User {
        id: UserId::from_bytes([2; 16]),
        home: tenant,
        tenant,
        kind: TenantKind::Tenant,
        roles: vec![Role::TenantAdmin],
    };
    AccessClaims::new(ISSUER, &user, start(), 300, &SeededIds::new(1))
}

/// A verifier that knows key 1, and the clock it reads.
fn verifier() -> (TokenVerifier, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(start()));
    let verifier = TokenVerifier::new(ISSUER, clock.clone());
    verifier.set_keys(vec![VerifyKey::of(&key(1))]);
    (verifier, clock)
}

fn signed(n: u8, typ: &str, claims: &impl Serialize) -> String {
    Signer::new(&key(n)).expect("key").sign(typ, claims).expect("signs")
}

#[test]
fn a_good_token_names_its_actor() {
    let (verifier, _) = verifier();
    let token = AccessSigner::new(&key(1)).expect("key").sign(&claims()).expect("signs");
    let actor = verifier.verify(&token).expect("valid");
    assert_eq!(actor, claims().actor());
    assert_eq!(actor.tenant(), Some(claims().ten));
}

#[test]
fn the_same_claims_under_another_type_are_refused() {
    let (verifier, _) = verifier();
    assert!(verifier.verify(&signed(1, ACCESS_TYP, &claims())).is_ok());
    for typ in [SERVICE_TYP, LEASE_TYP, "JWT", "at+JWT", ""] {
        let token = signed(1, typ, &claims());
        assert_eq!(verifier.verify(&token), Err(TokenError::Invalid), "{typ}");
    }
}

#[test]
fn one_key_signs_three_kinds_and_none_passes_for_another() {
    let keys = ServiceKeys::new(&key(1)).expect("key");
    let lease = LeaseClaims {
        tenant: TenantId::from_bytes([1; 16]),
        agent: AgentId::from_bytes([2; 16]),
        workload: WorkloadId::from_bytes([3; 16]),
        run: RunId::from_bytes([4; 16]),
        epoch: 5,
        lease_until: start() + Duration::from_secs(60),
    };
    let (service_token, lease_token) = (
        keys.sign_service("catalog", start()).expect("signs"),
        keys.sign_lease(&lease, start()).expect("signs"),
    );
    let access_token = signed(1, ACCESS_TYP, &claims());
    let (verifier, _) = verifier();
    assert_eq!(keys.verify_service(&service_token, start()), Ok(RoleName::Catalog));
    assert_eq!(keys.verify_lease(&lease_token, start()), Ok(lease));
    for wrong in [&service_token, &lease_token] {
        assert_eq!(verifier.verify(wrong), Err(TokenError::Invalid));
    }
    for wrong in [&lease_token, &access_token] {
        assert_eq!(keys.verify_service(wrong, start()), Err(TokenError::Invalid));
    }
    for wrong in [&service_token, &access_token] {
        assert_eq!(keys.verify_lease(wrong, start()), Err(TokenError::Invalid));
    }
    let over = start() + Duration::from_secs(66);
    assert_eq!(keys.verify_lease(&lease_token, over), Err(TokenError::Expired));
    assert_eq!(keys.verify_service(&service_token, over), Err(TokenError::Expired));
    assert!(matches!(
        keys.verify_service(&keys.sign_service("nobody", start()).expect("signs"), start()),
        Err(TokenError::Invalid)
    ));
}

/// A name and what it does to good claims.
type Spoiled = (&'static str, fn(&mut AccessClaims));

#[test]
fn every_claim_counts() {
    let (verifier, _) = verifier();
    let cases: [Spoiled; 4] = [
        ("issuer", |c| c.iss = "https://evil.example".into()),
        ("audience", |c| c.aud = "everhold-internal".into()),
        ("not before", |c| c.nbf += 6),
        ("audience of another role", |c| c.aud = "catalog".into()),
    ];
    for (what, spoil) in cases {
        let mut claims = claims();
        spoil(&mut claims);
        let token = signed(1, ACCESS_TYP, &claims);
        assert_eq!(verifier.verify(&token), Err(TokenError::Invalid), "{what}");
    }
    for missing in ["exp", "nbf", "iss", "aud", "sub", "ten", "roles"] {
        let mut claims = serde_json::to_value(claims()).expect("json");
        claims.as_object_mut().expect("object").remove(missing);
        let token = signed(1, ACCESS_TYP, &claims);
        assert_eq!(verifier.verify(&token), Err(TokenError::Invalid), "{missing}");
    }
}

#[test]
fn times_are_the_platforms_with_five_seconds_grace() {
    let (verifier, clock) = verifier();
    let token = signed(1, ACCESS_TYP, &claims());
    for (seconds, valid) in [(-5_i64, true), (-6, false), (0, true), (304, true), (305, false)] {
        let moved = Duration::from_secs(seconds.unsigned_abs());
        clock.set(if seconds < 0 { start() - moved } else { start() + moved });
        assert_eq!(verifier.verify(&token).is_ok(), valid, "{seconds} s");
    }
}

#[test]
fn a_rotation_takes_the_old_key_away_from_every_clone() {
    let (verifier, _) = verifier();
    let clone = verifier.clone();
    let (old, new) = (signed(1, ACCESS_TYP, &claims()), signed(2, ACCESS_TYP, &claims()));
    assert!(clone.verify(&new).is_err());
    verifier.set_keys(vec![VerifyKey::of(&key(2)), VerifyKey::of(&key(1))]);
    assert!(clone.verify(&old).is_ok() && clone.verify(&new).is_ok());
    verifier.set_keys(vec![VerifyKey::of(&key(2))]);
    assert!(clone.verify(&old).is_err() && clone.verify(&new).is_ok());
}

#[test]
fn an_unsigned_or_misnamed_token_is_refused() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    let (verifier, _) = verifier();
    let token = signed(1, ACCESS_TYP, &claims());
    let (_, rest) = token.split_once('.').expect("three parts");
    let (body, signature) = rest.split_once('.').expect("three parts");
    let kid = VerifyKey::of(&key(1)).kid;
    for header in [
        format!("{{\"alg\":\"none\",\"typ\":\"at+jwt\",\"kid\":\"{kid}\"}}"),
        format!("{{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"{kid}\"}}"),
        "{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"}".to_owned(),
        "{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"other\"}".to_owned(),
    ] {
        let head = BASE64.encode(&header);
        for token in [format!("{head}.{body}.{signature}"), format!("{head}.{body}.")] {
            assert_eq!(verifier.verify(&token), Err(TokenError::Invalid), "{header}");
        }
    }
    // Signed by a key that claims another's name.
    let mut imposter = Signer::new(&key(9)).expect("key");
    imposter.kid = kid.into();
    let token = imposter.sign(ACCESS_TYP, &claims()).expect("signs");
    assert_eq!(verifier.verify(&token), Err(TokenError::Invalid));
}

#[test]
fn roles_of_another_version_count_for_nothing() {
    let (verifier, _) = verifier();
    let mut claims = claims();
    claims.roles = vec!["tenant.emperor".into(), "auditor".into()];
    match verifier.verify(&signed(1, ACCESS_TYP, &claims)) {
        Ok(Actor::User(user)) => assert_eq!(user.roles, [Role::Auditor]),
        other => panic!("{other:?}"),
    }
}

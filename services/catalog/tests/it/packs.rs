//! B1 and B2: rows, grants, and the store's own word.

use api::{
    Code,
    catalog::{ConfirmPack, PackKind, PackState},
};
use bytes::Bytes;

use crate::support::{DAY, code_of, put_object, world};

#[tokio::test]
async fn repeating_an_allocation_gives_a_fresh_grant_for_the_same_row() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let pack = [agent.random_pack(0, PackKind::Data)];
    let first = agent.allocate(&session, &pack).await.expect("grant").grants.remove(0);
    let second = agent.allocate(&session, &pack).await.expect("grant").grants.remove(0);
    assert_eq!(first.pack.id, second.pack.id);
    assert!(second.put.is_some());
    let other = [agent.random_pack(0, PackKind::Data)];
    assert_eq!(code_of(&agent.allocate(&session, &other).await), Some(Code::Conflict));
    let mut ask = pack[0].ask();
    ask.md5 = other[0].ask().md5;
    let body = api::catalog::AllocatePacks { fence: session.fence, packs: vec![ask] };
    let path = format!("sessions/{}/packs", session.id);
    let again = agent.post::<api::catalog::AllocatedPacks>(&path, &body).await;
    assert_eq!(code_of(&again), Some(Code::Conflict), "the same hash with another md5");
    let mut made = pack.to_vec();
    agent.upload(&session, &mut made).await.expect("upload");
    let third = agent.allocate(&session, &pack).await.expect("grant").grants.remove(0);
    assert!(third.put.is_none(), "a confirmed pack needs no upload");
}

#[tokio::test]
async fn a_grant_takes_exactly_the_granted_bytes_once() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let pack = [agent.random_pack(0, PackKind::Data)];
    let put =
        agent.allocate(&session, &pack).await.expect("grant").grants.remove(0).put.expect("put");
    assert_ne!(put_object(&put, Bytes::from(vec![1; 512])).await.0, 200);
    assert_eq!(put_object(&put, pack[0].bytes.clone()).await.0, 200);
    assert_eq!(put_object(&put, pack[0].bytes.clone()).await.0, 412);
}

#[tokio::test]
async fn nothing_is_uploaded_before_the_store_says_so() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let pack = [agent.random_pack(0, PackKind::Data)];
    let grant = agent.allocate(&session, &pack).await.expect("grant").grants.remove(0);
    // The agent says it is there; it is not.
    let claim = ConfirmPack { id: grant.pack.id, version_id: None };
    assert_eq!(code_of(&agent.confirm(&session, vec![claim]).await), Some(Code::PackNotConfirmed));
    let claim = ConfirmPack { id: grant.pack.id, version_id: Some("made-up".into()) };
    assert_eq!(code_of(&agent.confirm(&session, vec![claim]).await), Some(Code::PackNotConfirmed));
    assert_eq!(world.count("SELECT count(*) FROM catalog.packs WHERE state = 'uploaded'").await, 0);
}

#[tokio::test]
async fn a_lost_reply_of_an_upload_is_found_by_asking_the_store() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let pack = [agent.random_pack(0, PackKind::Data)];
    let grant = agent.allocate(&session, &pack).await.expect("grant").grants.remove(0);
    let (_, version) = put_object(&grant.put.expect("put"), pack[0].bytes.clone()).await;
    let claim = ConfirmPack { id: grant.pack.id, version_id: None };
    let facts = agent.confirm(&session, vec![claim]).await.expect("confirmed").packs.remove(0);
    assert_eq!((facts.state, facts.version_id), (PackState::Uploaded, version));
}

/// An object under the granted name that did not come by the grant: put by the store's administrator.
async fn planted(lock: Option<u64>, bytes: impl FnOnce(&[u8]) -> Vec<u8>) -> Option<Code> {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let pack = [agent.random_pack(0, PackKind::Data)];
    let grant = agent.allocate(&session, &pack).await.expect("grant").grants.remove(0);
    let body = Bytes::from(bytes(&pack[0].bytes));
    match lock {
        Some(days) => {
            let until = world.now() + DAY * u32::try_from(days).expect("small");
            world.store.put_locked(&grant.pack.key, body, until).await.map(drop).expect("planted");
        }
        None => world.put_unlocked(&grant.pack.key, body).await,
    }
    let claim = ConfirmPack { id: grant.pack.id, version_id: None };
    code_of(&agent.confirm(&session, vec![claim]).await)
}

#[tokio::test]
async fn an_object_with_a_shorter_lock_another_content_or_no_lock_is_not_confirmed() {
    assert_eq!(planted(Some(30), <[u8]>::to_vec).await, None, "long enough");
    assert_eq!(
        planted(Some(2), <[u8]>::to_vec).await,
        Some(Code::PackNotConfirmed),
        "lock too short"
    );
    assert_eq!(
        planted(Some(30), |b| vec![0; b.len()]).await,
        Some(Code::PackNotConfirmed),
        "other bytes"
    );
    assert_eq!(
        planted(Some(30), |b| b[1..].to_vec()).await,
        Some(Code::PackNotConfirmed),
        "short body"
    );
    assert_eq!(planted(None, <[u8]>::to_vec).await, Some(Code::PackNotConfirmed), "no lock");
}

#[tokio::test]
async fn requests_out_of_bounds_name_the_field() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let path = format!("sessions/{}/packs", session.id);
    let good = agent.random_pack(0, PackKind::Data).ask();
    type Change = fn(&mut api::catalog::AllocatePack);
    let changes: [(&str, Change); 6] = [
        ("packs/0/length", |p| p.length = 81 << 20),
        ("packs/0/length", |p| (p.kind, p.length) = (PackKind::Manifest, (16 << 20) + 1)),
        ("packs/0/sha256", |p| p.sha256 = p.sha256.to_uppercase() + "G"),
        ("packs/0/md5", |p| p.md5 = Some("AAAA".into())),
        ("packs/0/md5", |p| p.md5 = None),
        ("packs/0/seq", |p| p.seq = u64::MAX),
    ];
    for (field, change) in changes {
        let mut pack = good.clone();
        change(&mut pack);
        let body = api::catalog::AllocatePacks { fence: session.fence, packs: vec![pack] };
        let answer = agent.post::<api::catalog::AllocatedPacks>(&path, &body).await;
        let Err(api::client::Error::Problem(problem)) = answer else { panic!("{field}") };
        assert_eq!(problem.fields[0].field, field);
    }
    let none = api::catalog::AllocatePacks { fence: session.fence, packs: vec![] };
    let answer = agent.post::<api::catalog::AllocatedPacks>(&path, &none).await;
    assert_eq!(code_of(&answer), Some(Code::Validation));
}

#[tokio::test]
async fn the_database_has_the_same_state_machine_as_the_code() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    world.upload_some(&agent, &session, 0..1).await;
    let mut superuser = world.app.database().superuser().await.expect("superuser");
    for from in PackState::ALL {
        for to in PackState::ALL.into_iter().filter(|to| *to != from) {
            // Past the trigger to the start, then through it.
            sqlx::raw_sql("ALTER TABLE catalog.packs DISABLE TRIGGER packs_guard")
                .execute(&mut superuser)
                .await
                .expect("off");
            let set = sqlx::AssertSqlSafe(format!(
                "UPDATE catalog.packs SET state = '{}', condemned_at = now()",
                from.as_str()
            ));
            sqlx::raw_sql(set).execute(&mut superuser).await.expect("set");
            sqlx::raw_sql("ALTER TABLE catalog.packs ENABLE TRIGGER packs_guard")
                .execute(&mut superuser)
                .await
                .expect("on");
            let step =
                sqlx::AssertSqlSafe(format!("UPDATE catalog.packs SET state = '{}'", to.as_str()));
            let done = sqlx::raw_sql(step).execute(&mut superuser).await.is_ok();
            assert_eq!(done, catalog::packs::state::may_become(from, to), "{from:?} to {to:?}");
        }
    }
    let shorter = "UPDATE catalog.packs SET lock_until = lock_until - interval '1 second'";
    assert!(sqlx::raw_sql(shorter).execute(&mut superuser).await.is_err());
}

#[tokio::test]
async fn a_version_id_is_printable_and_of_bounded_length() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let pack = [agent.random_pack(0, PackKind::Data)];
    let id = agent.allocate(&session, &pack).await.expect("grant").grants.remove(0).pack.id;
    for version in [String::new(), "a\0b".into(), "a b".into(), "v".repeat(1_025)] {
        let claim = ConfirmPack { id, version_id: Some(version) };
        let answer = agent.confirm(&session, vec![claim]).await;
        let Err(api::client::Error::Problem(problem)) = answer else { panic!("refused") };
        assert_eq!(problem.fields[0].field, "packs/0/version_id");
    }
}

#[tokio::test]
async fn a_pack_that_was_given_up_or_lost_is_unusable_and_not_waited_for() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let mut packs = world.upload_some(&agent, &session, 0..1).await;
    let waiting = [agent.random_pack(1, PackKind::Data)];
    let grant = agent.allocate(&session, &waiting).await.expect("grant").grants.remove(0);
    world
        .execute(
            "UPDATE catalog.packs SET state = CASE state WHEN 'allocated' THEN 'abandoned' ELSE 'lost' END",
        )
        .await;
    for id in [grant.pack.id, packs.remove(0).id()] {
        let claim = ConfirmPack { id, version_id: None };
        let answer = agent.confirm(&session, vec![claim]).await;
        assert_eq!(code_of(&answer), Some(Code::PackUnusable));
    }
}

//! Two tenants: whatever belongs to the other answers like what does not exist.

use api::{
    Code,
    catalog::{
        AllocatePacks, CommitSession, ConfirmPack, ConfirmPacks, OpenSession, RequestRestoreGrants,
        SessionHeartbeat,
    },
    client::Client,
};
use authz::Role;
use http::Method;
use pg::Schema;
use serde_json::{Value, json};
use testkit::schema;

use crate::support::{World, world};

/// Ids of one tenant's things, or made up.
struct Ids {
    tenant: String,
    vault: String,
    workload: String,
    session: String,
    snapshot: String,
    pack: String,
    hold: String,
}

/// Every operation, as an agent would call it with these ids.
fn operations(ids: &Ids, lease: &str) -> Vec<(Method, &'static str, Value)> {
    let (get, post) = (Method::GET, Method::POST);
    let text = |value: Result<Value, serde_json::Error>| value.expect("json");
    let pack = ids.pack.parse().expect("id");
    let beat = text(serde_json::to_value(SessionHeartbeat { fence: 1 }));
    let packs = text(serde_json::to_value(AllocatePacks {
        fence: 1,
        packs: vec![api::catalog::AllocatePack {
            seq: 0,
            kind: api::catalog::PackKind::Data,
            sha256: "00".repeat(32),
            md5: Some("AAAAAAAAAAAAAAAAAAAAAA==".into()),
            length: 1,
        }],
    }));
    let confirm = text(serde_json::to_value(ConfirmPacks {
        fence: 1,
        packs: vec![ConfirmPack { id: pack, version_id: None }],
    }));
    let commit = text(serde_json::to_value(CommitSession {
        fence: 1,
        manifest_id: pack,
        paths: vec![],
        tags: Default::default(),
        stats: Default::default(),
    }));
    let open = text(serde_json::to_value(OpenSession {
        workload_id: ids.workload.parse().expect("id"),
        lease_token: lease.into(),
        last_receipt: None,
    }));
    let restore =
        text(serde_json::to_value(RequestRestoreGrants { packs: vec![pack], completes: None }));
    let why = json!({ "reason": "lawsuit" });
    vec![
        (get.clone(), "vaults", Value::Null),
        (get.clone(), "vaults/{vault_id}", Value::Null),
        (get.clone(), "vaults/{vault_id}/keys", Value::Null),
        (get.clone(), "vaults/{vault_id}/retained-packs", Value::Null),
        (get.clone(), "vaults/{vault_id}/repack-candidates", Value::Null),
        (get.clone(), "vaults/{vault_id}/replica", Value::Null),
        (get.clone(), "platform-keys", Value::Null),
        (get.clone(), "workloads", Value::Null),
        (get.clone(), "workloads/{workload_id}", Value::Null),
        (get.clone(), "snapshots", Value::Null),
        (get.clone(), "snapshots/{snapshot_id}", Value::Null),
        (get.clone(), "snapshots/{snapshot_id}/packs", Value::Null),
        (get.clone(), "snapshots/{snapshot_id}/certificate", Value::Null),
        (post.clone(), "snapshots/{snapshot_id}/certificate", Value::Null),
        (get.clone(), "snapshots/{snapshot_id}/entries", Value::Null),
        (get.clone(), "expired-snapshots", Value::Null),
        (post.clone(), "snapshots/{snapshot_id}/undo-expiry", Value::Null),
        (get.clone(), "sessions/{session_id}/adopted", Value::Null),
        (get, "holds", Value::Null),
        (post.clone(), "snapshots/{snapshot_id}/holds", why.clone()),
        (post.clone(), "holds/{hold_id}/release", why),
        (post.clone(), "snapshots/{snapshot_id}/restore-grants", restore),
        (post.clone(), "sessions", open),
        (post.clone(), "sessions/{session_id}/heartbeat", beat.clone()),
        (post.clone(), "sessions/{session_id}/abort", beat),
        (post.clone(), "sessions/{session_id}/packs", packs),
        (post.clone(), "sessions/{session_id}/packs/confirm", confirm),
        (post, "sessions/{session_id}/commit", commit),
    ]
}

fn fill(template: &str, ids: &Ids) -> String {
    let rest = template
        .replace("{vault_id}", &ids.vault)
        .replace("{workload_id}", &ids.workload)
        .replace("{session_id}", &ids.session)
        .replace("{snapshot_id}", &ids.snapshot)
        .replace("{hold_id}", &ids.hold);
    format!("/v1/tenants/{}/{rest}", ids.tenant)
}

async fn answer(client: &Client, method: &Method, path: &str, body: &Value) -> Result<Value, Code> {
    let body = (!body.is_null()).then_some(body);
    let answer = client.call::<Value, Value>(method.clone(), path, body).await;
    answer.map_err(|error| error.code().unwrap_or_else(|| panic!("{path}: {error}")))
}

async fn theirs(world: &World) -> (crate::support::Agent, Ids) {
    let agent = world.agent(world.app.tenant()).await;
    let reply = world.backup(&agent, &mut Vec::new(), 1, &[]).await;
    let session = world.try_open(&agent, 2, None).await.expect("open");
    let packs = world.upload_some(&agent, &session, 0..1).await;
    let hold = world.hold(&agent, reply.snapshot.id).await;
    let ids = Ids {
        tenant: agent.tenant.to_string(),
        vault: agent.vault.to_string(),
        workload: agent.workload.to_string(),
        session: session.id.to_string(),
        snapshot: reply.snapshot.id.to_string(),
        pack: packs[0].id().to_string(),
        hold: hold.to_string(),
    };
    (agent, ids)
}

fn made_up(world: &World, tenant: &str) -> Ids {
    let id = || world.app.id::<domain::id::Pack>().uuid().simple().to_string();
    Ids {
        tenant: tenant.into(),
        vault: format!("vlt_{}", id()),
        workload: format!("wkl_{}", id()),
        session: format!("ses_{}", id()),
        snapshot: format!("snp_{}", id()),
        pack: format!("pck_{}", id()),
        hold: format!("hld_{}", id()),
    }
}

#[tokio::test]
async fn ids_of_another_tenant_answer_like_random_ids_on_every_operation() {
    let world = world().await;
    let (_, foreign) = theirs(&world).await;
    let (us, ours) = theirs(&world).await;
    let person = world.app.user(us.tenant, Role::TenantAdmin);
    let lease = world.lease(&us, 3);
    // In our own tenant, with their ids.
    let mixed = Ids { tenant: ours.tenant.clone(), ..foreign };
    let random = made_up(&world, &ours.tenant);
    for client in [&us.client, &person] {
        let calls = operations(&mixed, &lease).into_iter().zip(operations(&random, &lease));
        for ((method, template, body), (_, _, random_body)) in calls {
            let foreign = answer(client, &method, &fill(template, &mixed), &body).await;
            let unknown = answer(client, &method, &fill(template, &random), &random_body).await;
            assert_eq!(foreign, unknown, "{method} {template}");
            let refused = matches!(foreign, Err(Code::NotFound | Code::Forbidden));
            assert!(
                refused || !template.contains('{') && template != "sessions",
                "{method} {template}"
            );
        }
    }
    // In their tenant: as in one that does not exist.
    let theirs = Ids { tenant: world.app.tenant().to_string(), ..made_up(&world, "") };
    let (other, known) = self::theirs(&world).await;
    assert_ne!(other.tenant, us.tenant);
    for client in [&us.client, &person] {
        for (method, template, body) in operations(&known, &lease) {
            let foreign = answer(client, &method, &fill(template, &known), &body).await;
            let unknown = answer(client, &method, &fill(template, &theirs), &body).await;
            assert_eq!(
                (foreign, unknown),
                (Err(Code::NotFound), Err(Code::NotFound)),
                "{method} {template}"
            );
        }
    }
}

#[tokio::test]
async fn the_list_of_operations_above_is_the_whole_document() {
    let world = world().await;
    let mut documented: Vec<String> = Vec::new();
    for (path, item) in &world.app.assembly().openapi.paths.paths {
        let path = path.trim_start_matches("/v1/tenants/{tenant_id}/").to_owned();
        documented.extend(item.get.iter().map(|_| format!("GET {path}")));
        documented.extend(item.post.iter().map(|_| format!("POST {path}")));
    }
    let ids = made_up(&world, "ten_00000000000000000000000000000000");
    let mut listed: Vec<String> = operations(&ids, "x")
        .into_iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    documented.sort();
    listed.sort();
    // PUT vaults/{id} makes what it names; its own tests are in `vaults`.
    assert_eq!(documented, listed);
}

#[tokio::test]
async fn nobody_and_the_wrong_role_get_nothing() {
    let world = world().await;
    let (us, ours) = theirs(&world).await;
    let nobody = world.app.client();
    let billing = world.app.user(us.tenant, Role::BillingViewer);
    for (method, template, body) in operations(&ours, "x") {
        let path = fill(template, &ours);
        assert_eq!(
            answer(&nobody, &method, &path, &body).await,
            Err(Code::Unauthenticated),
            "{template}"
        );
        assert_eq!(
            answer(&billing, &method, &path, &body).await,
            Err(Code::Forbidden),
            "{template}"
        );
    }
    // Managing is not decrypting, and only agents write.
    let msp = world.app.msp_user(world.app.tenant(), us.tenant, Role::MspOwner);
    for rest in
        [format!("snapshots/{}/entries", ours.snapshot), format!("vaults/{}/keys", ours.vault)]
    {
        assert_eq!(
            answer(&msp, &Method::GET, &us.path(&rest), &Value::Null).await,
            Err(Code::Forbidden)
        );
    }
    let open = json!({ "workload_id": ours.workload, "lease_token": "x" });
    assert_eq!(
        answer(&msp, &Method::POST, &us.path("sessions"), &open).await,
        Err(Code::Forbidden)
    );
}

#[tokio::test]
async fn every_table_is_under_forced_row_security_and_shows_nothing_without_a_tenant() {
    let world = world().await;
    theirs(&world).await;
    // One of everything, a freeze among them.
    let agent = world.agent(world.app.tenant()).await;
    let mut receipt = vault::receipt::Receipt::open(
        &base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            world.backup(&agent, &mut Vec::new(), 1, &[]).await.receipt,
        )
        .expect("base64"),
        &world.catalog.receipt_public(),
    )
    .expect("ours");
    receipt.snapshot = world.app.id();
    let unknown = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        receipt.sign(world.catalog.receipt_key()),
    );
    world.try_open(&agent, 5, Some(unknown)).await.expect("open");
    world
        .execute(
            "INSERT INTO catalog.snapshot_holds (tenant_id, id, snapshot_id, reason, placed_at)
                 SELECT tenant_id, id, id, 'lawsuit', now() FROM catalog.snapshots;
             INSERT INTO catalog.forgets (tenant_id, snapshot_id, record, object_key, lock_until)
                 SELECT tenant_id, id, '', id::text, now() FROM catalog.snapshots;
             INSERT INTO catalog.lock_alarms (tenant_id, id, vault_id, object_key, version_id, kind, detail, wanted, raised_at)
                 SELECT tenant_id, id, id, 'k', 'v', 'refused', '', now(), now() FROM catalog.vaults;
             INSERT INTO catalog.replicas (tenant_id, vault_id, store, endpoint, bucket, lock_days, created_at)
                 SELECT tenant_id, id, 's', 'e', 'b', 1, now() FROM catalog.vaults;
             INSERT INTO catalog.replica_objects (tenant_id, object_key, vault_id, snapshot_id, version_id, lock_until, copied_at)
                 SELECT tenant_id, id::text, vault_id, id, 'v', now(), now() FROM catalog.snapshots",
        )
        .await;
    assert_eq!(
        schema::violations(world.app.database(), Schema::Catalog).await.expect("asked"),
        Vec::<String>::new()
    );
    for table in schema::probe(world.app.database(), Schema::Catalog).await.expect("probed") {
        assert!(table.rows > 0, "{} is empty and proves nothing", table.table);
        assert!(matches!(table.seen, None | Some(0)), "{table:?}");
    }
}

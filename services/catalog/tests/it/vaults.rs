//! Vaults: what is accepted, what the key store gets.

use api::{
    Code,
    catalog::{CreateVault, KeyMode, RecipientKind, Vault, VaultKeys, Workload},
    page::Page,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use runtime::RoleName;
use vault::{
    descriptor::{self, VaultDescriptor},
    keys::{Recipient, RootKey, Roster},
};

use crate::support::{Agent, World, code_of, world};

async fn put(agent: &Agent, body: &CreateVault) -> Result<Vault, api::client::Error> {
    agent.put(&format!("vaults/{}", agent.vault), body).await
}

#[tokio::test]
async fn a_managed_vault_gets_a_roster_of_the_platform_and_its_keys_reach_the_key_store() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let keys: VaultKeys = agent.get(&format!("vaults/{}/keys", agent.vault)).await.expect("keys");
    let raw = BASE64.decode(&keys.roster).expect("base64");
    let roster =
        Roster::open(&raw, &[world.catalog.roster_authority()]).expect("signed by the platform");
    assert_eq!(roster.member(agent.id), Some(&agent.keys.member(agent.id)));
    roster.check_descriptor(&agent.descriptor).expect("of this descriptor");
    let prefix = format!("{}/", vault::layout::vault_prefix(agent.tenant, agent.vault));
    let objects = world.store.list_key_objects(&prefix).await.expect("list");
    assert_eq!(objects.len(), 4, "{objects:?}");
    let stored =
        world.store.get_key_object(&vault::layout::roster_key(agent.tenant, agent.vault, 1)).await;
    assert_eq!(stored.expect("roster"), raw);
}

#[tokio::test]
async fn making_a_vault_again_is_harmless_and_with_other_keys_refused() {
    let world = world().await;
    let agent = world.enrol(world.app.tenant());
    let body = agent.create_vault(&world).await;
    let first = put(&agent, &body).await.expect("made");
    let again = put(&agent, &body).await.expect("again");
    assert_eq!((first.id, first.created_at), (again.id, again.created_at));
    // HPKE is randomised: wrapping anew is another set of wraps.
    let other = agent.create_vault(&world).await;
    assert_eq!(code_of(&put(&agent, &other).await), Some(Code::AlreadyExists));
    assert_eq!(world.count("SELECT count(*) FROM catalog.key_wraps").await, 2);
}

#[tokio::test]
async fn a_session_does_not_open_before_the_keys_are_durable() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    world
        .execute("UPDATE catalog.key_wraps SET stored_at = NULL WHERE recipient_kind = 'platform'")
        .await;
    assert_eq!(code_of(&world.try_open(&agent, 1, None).await), Some(Code::StoreUnavailable));
    assert!(catalog::vaults::jobs::round(&world.catalog).await.expect("round"));
    world.try_open(&agent, 1, None).await.expect("durable now");
}

#[tokio::test]
async fn wraps_for_the_wrong_recipients_are_refused() {
    let world = world().await;
    let tenant = world.app.tenant();
    let agent = world.enrol(tenant);
    let good = agent.create_vault(&world).await;
    let without = |kind: RecipientKind| {
        let mut body = good.clone();
        body.wraps.retain(|wrap| wrap.recipient_kind != kind);
        body
    };
    for body in [without(RecipientKind::Agent), without(RecipientKind::Platform)] {
        assert_eq!(code_of(&put(&agent, &body).await), Some(Code::Validation));
    }
    let mut lying = good.clone();
    lying.wraps[0].epoch = 2;
    assert_eq!(code_of(&put(&agent, &lying).await), Some(Code::Validation));
    let epochs = {
        let mut body = good.clone();
        let mut keys = vault::keys::VaultKeys::generate(tenant, agent.vault, &**world.app.ids());
        keys.add_epoch(2, &**world.app.ids());
        for wrap in &mut body.wraps {
            let to = vault::keys::Wrap::decode(&BASE64.decode(&wrap.wrap).expect("base64"));
            let wrapped = keys.wrap_for(2, to.expect("wrap").recipient, &**world.app.ids());
            wrap.wrap = BASE64.encode(wrapped.expect("wrapped").encode());
            wrap.epoch = 2;
        }
        body
    };
    let stranger = {
        let mut body = good.clone();
        body.wraps.push(world.enrol(tenant).create_vault(&world).await.wraps.remove(0));
        let other = world.enrol(tenant);
        let wrap = agent.vault_keys.wrap_for(1, other.keys.recipient(other.id), &**world.app.ids());
        body.wraps[2].wrap = BASE64.encode(wrap.expect("wrapped").encode());
        body.wraps[2].recipient_id = other.id.to_string();
        body
    };
    let twice = {
        let mut body = good.clone();
        body.wraps.push(body.wraps[1].clone());
        body
    };
    let sealed_wrongly = {
        let mut body = good.clone();
        let mut wrap = BASE64.decode(&body.wraps[1].wrap).expect("base64");
        wrap.last_mut().map(|byte| *byte ^= 1).expect("bytes");
        body.wraps[1].wrap = BASE64.encode(wrap);
        body
    };
    for (body, what) in [
        (epochs, "epoch 2"),
        (stranger, "another agent"),
        (twice, "the platform twice"),
        (sealed_wrongly, "does not open"),
    ] {
        assert_eq!(code_of(&put(&agent, &body).await), Some(Code::Validation), "{what}");
    }
    let mut foreign = good.clone();
    foreign.descriptor = BASE64.encode(world.enrol(tenant).descriptor.encode());
    assert_eq!(code_of(&put(&agent, &foreign).await), Some(Code::Validation));
    let mut held = good.clone();
    held.key_mode = KeyMode::CustomerHeld;
    assert_eq!(code_of(&put(&agent, &held).await), Some(Code::Validation));
    assert_eq!(world.count("SELECT count(*) FROM catalog.vaults").await, 0);
}

/// A customer-held vault with a kit: roster and wraps of the customer.
pub async fn customer_held(world: &World, agent: &mut Agent) -> CreateVault {
    let ids = world.app.ids().clone();
    let root = RootKey::generate(&*ids);
    let mode = descriptor::KeyMode::CustomerHeld;
    agent.descriptor = VaultDescriptor::new(agent.tenant, agent.vault, world.now(), mode);
    let mut body = agent.create_vault(world).await;
    body.key_mode = KeyMode::CustomerHeld;
    body.descriptor = BASE64.encode(agent.descriptor.encode());
    let to: Recipient = root.recipient();
    body.wraps[1].recipient_kind = RecipientKind::Root;
    body.wraps[1].recipient_id = hex::encode(to.id);
    body.wraps[1].wrap =
        BASE64.encode(agent.vault_keys.wrap_for(1, to, &*ids).expect("wrap").encode());
    let roster = Roster {
        tenant: agent.tenant,
        vault: agent.vault,
        generation: 1,
        descriptor: agent.descriptor.sha256(),
        members: vec![agent.keys.member(agent.id)],
        signer: root.authority(),
    };
    body.roster = Some(BASE64.encode(roster.sign(&root.roster_key()).expect("signed")));
    body
}

#[tokio::test]
async fn a_customer_held_vault_brings_its_kits_roster_and_backs_up() {
    let world = world().await;
    let mut agent = world.enrol(world.app.tenant());
    let body = customer_held(&world, &mut agent).await;
    let mut bare = body.clone();
    bare.roster = None;
    assert_eq!(code_of(&put(&agent, &bare).await), Some(Code::Validation));
    let made = put(&agent, &body).await.expect("made");
    assert!(made.has_kit);
    world.backup(&agent, &mut Vec::new(), 1, &[]).await;
}

#[tokio::test]
async fn an_agent_sees_its_own_vaults_and_workloads_only() {
    let world = world().await;
    let tenant = world.app.tenant();
    let (one, two) = (world.agent(tenant).await, world.agent(tenant).await);
    let vaults: Page<Vault> = one.get("vaults").await.expect("list");
    assert_eq!(vaults.items.iter().map(|v| v.id).collect::<Vec<_>>(), [one.vault]);
    let workloads: Page<Workload> = one.get("workloads").await.expect("list");
    assert_eq!(workloads.items.iter().map(|w| w.id).collect::<Vec<_>>(), [one.workload]);
    let theirs = one.get::<VaultKeys>(&format!("vaults/{}/keys", two.vault)).await;
    assert_eq!(code_of(&theirs), Some(Code::NotFound));
    let admin = world.app.user(tenant, authz::Role::TenantAdmin);
    let all: Page<Vault> = admin.get(&one.path("vaults?limit=1")).await.expect("page");
    let next = all.next_cursor.expect("another page");
    let rest: Page<Vault> =
        admin.get(&one.path(&format!("vaults?limit=1&cursor={next}"))).await.expect("page");
    assert_ne!(all.items[0].id, rest.items[0].id);
    assert!(rest.next_cursor.is_none());
}

#[tokio::test]
async fn the_scheduler_finds_a_workload_that_was_never_backed_up() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let path =
        |tenant| format!("/internal/v1/catalog/tenants/{tenant}/workloads/{}", agent.workload);
    let scheduler = world.app.service(RoleName::Scheduler, RoleName::Catalog);
    let found: Workload = scheduler.get(&path(agent.tenant)).await.expect("found");
    assert_eq!(
        (found.id, found.agent_id, found.vault_id, found.snapshots),
        (agent.workload, agent.id, agent.vault, 0)
    );
    let elsewhere = scheduler.get::<Workload>(&path(world.app.tenant())).await;
    assert_eq!(code_of(&elsewhere), Some(Code::NotFound));
    let billing = world.app.service(RoleName::Billing, RoleName::Catalog);
    let nosy = billing.get::<Workload>(&path(agent.tenant)).await;
    assert_eq!(code_of(&nosy), Some(Code::Forbidden));
}

#[tokio::test]
async fn one_damaged_wrap_does_not_keep_other_vaults_keys_from_the_key_store() {
    let world = world().await;
    for _ in 0..3 {
        world.agent(world.app.tenant()).await;
    }
    world
        .execute(
            "UPDATE catalog.key_wraps SET stored_at = NULL WHERE recipient_kind = 'platform';
             UPDATE catalog.key_wraps SET recipient_id = 'zz' WHERE stored_at IS NULL
             AND tenant_id = (SELECT tenant_id FROM catalog.key_wraps ORDER BY tenant_id LIMIT 1)",
        )
        .await;
    catalog::vaults::jobs::round(&world.catalog).await.expect_err("the failure is told");
    let waiting = "SELECT count(*) FROM catalog.key_wraps WHERE stored_at IS NULL";
    assert_eq!(world.count(waiting).await, 1);
}

#[tokio::test]
async fn an_older_roster_in_a_newer_ones_place_commits_nothing() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    world.backup(&agent, &mut chain, 1, &[]).await;
    // Well signed, but it is generation 1: whoever was removed with generation 2 would be a member again.
    world
        .execute(
            "INSERT INTO catalog.rosters (tenant_id, vault_id, generation, roster, stored_at)
             SELECT tenant_id, vault_id, 2, roster, stored_at FROM catalog.rosters",
        )
        .await;
    let session = world.open(&agent).await;
    let manifest = world.manifest(&agent, &session, &mut chain, &[], &[]).await;
    assert_eq!(code_of(&agent.commit(&session, manifest.id()).await), Some(Code::Internal));
    assert_eq!(world.count("SELECT count(*) FROM catalog.snapshots").await, 1);
}

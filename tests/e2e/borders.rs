//! Borders of tenants and locks, tried from outside with the tools a stranger has.

use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Agent, Platform, folder, root, tool};

async fn sign_in(client: &Client, platform: &Platform, who: &str) -> String {
    let body = json!({
        "grant_type": "password",
        "email": platform.get(&format!("/{who}/email")),
        "password": platform.get(&format!("/{who}/password")),
    });
    let url = format!("{}/v1/auth/token", platform.get("/api_url"));
    let reply = client.post(url).json(&body).send().await.expect("server answers");
    assert_eq!(reply.status(), StatusCode::OK);
    let reply: Value = reply.json().await.expect("json");
    assert!(reply["refresh_token"].is_string() && reply["expires_in"].is_u64(), "{reply}");
    reply["access_token"].as_str().expect("token").to_owned()
}

async fn get(client: &Client, platform: &Platform, token: &str, path: &str) -> (StatusCode, Value) {
    let url = format!("{}{path}", platform.get("/api_url"));
    let reply = client.get(url).bearer_auth(token).send().await.expect("server answers");
    (reply.status(), reply.json().await.unwrap_or(Value::Null))
}

/// Ids of everything the first tenant has, by the name of the path parameter that takes them.
async fn ids_of_first_tenant(
    client: &Client,
    platform: &Platform,
    token: &str,
) -> BTreeMap<String, String> {
    let tenant = platform.get("/tenant/id").to_owned();
    let mut ids = BTreeMap::from([("tenant_id".to_owned(), tenant.clone())]);
    for (parameter, list) in [
        ("agent_id", "agents"),
        ("workload_id", "workloads"),
        ("vault_id", "vaults"),
        ("snapshot_id", "snapshots"),
        ("run_id", "runs"),
        ("token_id", "enrolment-tokens"),
    ] {
        let (status, page) =
            get(client, platform, token, &format!("/v1/tenants/{tenant}/{list}")).await;
        assert_eq!(status, StatusCode::OK, "{list}: {page}");
        let id =
            page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{list} is empty: {page}"));
        ids.insert(parameter.to_owned(), id.to_owned());
    }
    ids
}

/// The id of the same kind that nobody has.
fn random_like(id: &str) -> String {
    format!("{}_{}", &id[..3], "0190f3a1c2d47e8f9a0b1c2d3e4f5a6b")
}

fn without_request_id(mut body: Value) -> Value {
    if let Some(object) = body.as_object_mut() {
        object.remove("request_id");
    }
    body
}

/// Fills every `{name}` of a template from `ids`; `None` when a name is not among them.
fn fill(
    template: &str,
    ids: &BTreeMap<String, String>,
    change: impl Fn(&str, &str) -> String,
) -> Option<String> {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}')?;
        path.push_str(before);
        path.push_str(&change(
            name,
            ids.get(name).map_or("ses_0190f3a1c2d47e8f9a0b1c2d3e4f5a6a", String::as_str),
        ));
        rest = tail;
    }
    path.push_str(rest);
    Some(path)
}

#[tokio::test]
async fn every_call_with_foreign_ids_answers_as_for_random_ids() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "of the first tenant").expect("write");
    agent.backup(&[&source]);

    let client = Client::new();
    let first = sign_in(&client, &platform, "tenant").await;
    let other = sign_in(&client, &platform, "other_tenant").await;
    let ids = ids_of_first_tenant(&client, &platform, &first).await;
    let own_tenant = platform.get("/other_tenant/id").to_owned();
    let document: Value = client
        .get(format!("{}/openapi.json", platform.get("/api_url")))
        .send()
        .await
        .expect("server answers")
        .json()
        .await
        .expect("json");

    let mut calls = 0;
    for (template, operations) in document["paths"].as_object().expect("paths") {
        if !template.contains("{tenant_id}") {
            continue;
        }
        for method in operations.as_object().expect("operations").keys() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            // The first tenant's ids below the first tenant's path, then below one's own; against ids nobody has.
            for below_own in [false, true] {
                let foreign = fill(template, &ids, |name, id| {
                    if below_own && name == "tenant_id" {
                        own_tenant.clone()
                    } else {
                        id.to_owned()
                    }
                });
                let random = fill(template, &ids, |name, id| match name {
                    "tenant_id" if below_own => own_tenant.clone(),
                    _ => random_like(id),
                });
                let (Some(foreign), Some(random)) = (foreign, random) else { continue };
                if below_own && !template.replace("{tenant_id}", "").contains('{') {
                    continue; // One's own list: nothing foreign in it.
                }
                let mut answers = Vec::new();
                for path in [&foreign, &random] {
                    let url = format!("{}{path}", platform.get("/api_url"));
                    let mut request = client.request(method.clone(), url).bearer_auth(&other);
                    if method != Method::GET && method != Method::DELETE {
                        request = request.json(&json!({}));
                    }
                    let reply = request.send().await.expect("server answers");
                    let status = reply.status();
                    let text = reply.text().await.expect("body");
                    answers.push((
                        status,
                        without_request_id(
                            serde_json::from_str(&text).unwrap_or(Value::String(text)),
                        ),
                    ));
                }
                assert_eq!(answers[0], answers[1], "{method} {foreign} against {random}");
                assert!(answers[0].0.is_client_error(), "{method} {foreign}: {}", answers[0].0);
                calls += 1;
            }
        }
    }
    assert!(calls > 30, "only {calls} calls were compared: is the document whole?");
}

#[test]
fn a_login_role_without_tenant_context_sees_no_row() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "content").expect("write");
    agent.backup(&[&source]);

    let url = platform.get("/postgres_url");
    let psql = |url: &str, sql: &str| {
        tool("psql", &["-XAtq".as_ref(), "-c".as_ref(), sql.as_ref(), url.as_ref()])
    };
    let mut rows_seen_by_owner = 0;
    for service in ["auth", "catalog", "scheduler", "audit", "billing"] {
        let login =
            url.replacen("postgres://postgres", &format!("postgres://everhold_{service}"), 1);
        assert_ne!(login, url, "dev.json's postgres_url names the administrator");
        let tables = psql(&login, &format!(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = '{service}' AND has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT')"
        )).expect(0);
        assert!(tables.stdout.lines().count() > 0, "{service} has no table its login may read");
        for table in tables.stdout.lines() {
            let seen = psql(&login, &format!("SELECT count(*) FROM {table}")).expect(0);
            assert_eq!(seen.stdout.trim(), "0", "{table} shows rows without context");
            let all = psql(url, &format!("SELECT count(*) FROM {table}")).expect(0);
            rows_seen_by_owner += all.stdout.trim().parse::<u64>().expect("a count");
        }
    }
    assert!(rows_seen_by_owner > 10, "the tables were empty, so seeing nothing proves nothing");
}

#[test]
fn boto3_cannot_delete_shorten_or_overwrite_and_reads_only_ciphertext() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    let marker = "a sentence that must never be readable in the bucket";
    fs::write(source.join("plain-file-name.txt"), marker.repeat(1000)).expect("write");
    agent.backup(&[&source]);
    python(
        &root().join("tests/strangers/packs.py"),
        &[platform.state.join("dev.json").as_os_str(), marker.as_ref(), "plain-file-name".as_ref()],
    );
}

/// Runs a script in the tests' own Python environment.
#[track_caller]
pub fn python(script: &Path, args: &[&OsStr]) -> String {
    let python = root().join("tests/.venv/bin/python");
    let mut all = vec![script.as_os_str()];
    all.extend(args);
    tool(&python.display().to_string(), &all).expect(0).stdout
}

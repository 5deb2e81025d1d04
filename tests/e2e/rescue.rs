//! The bucket outlives us: restored without a platform, the catalog made again from it, and a damaged pack healed.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    compare,
    harness::{Agent, Platform, Said, bin, folder, noise, psql, tool},
};

const BUCKETS: [&str; 2] = ["everhold-vaults", "everhold-keys"];

fn fill(source: &Path) {
    fs::create_dir_all(source.join("sub/deep")).expect("mkdir");
    let lines: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    fs::write(source.join("readable.txt"), lines).expect("write");
    for n in 0..40 {
        fs::write(source.join(format!("sub/small-{n}")), format!("small file {n}")).expect("write");
    }
    fs::write(source.join("sub/deep/large.bin"), noise(7, 3_000_000)).expect("write");
}

fn words<'a>(parts: &'a [&'a str]) -> Vec<&'a OsStr> {
    parts.iter().map(AsRef::as_ref).collect()
}

fn agent_alone(args: &[&str]) -> Said {
    tool(&bin("everhold-agent").display().to_string(), &words(args))
}

fn admin(platform: &Platform, args: &[&str]) -> Said {
    let state = platform.state.display().to_string();
    let mut all = vec!["admin", args[0], "--state", &state, "--json", "--tenant"];
    all.push(platform.get("/tenant/id"));
    all.extend(&args[1..]);
    tool(&bin("everhold").display().to_string(), &words(&all))
}

/// Both buckets as folders, the way a customer would copy them.
fn copy_buckets(platform: &Platform, to: &Path) {
    for bucket in BUCKETS {
        let set = |name: &str, value: &str| format!("RCLONE_CONFIG_EVH_{name}={value}");
        let env = [
            set("TYPE", "s3"),
            set("PROVIDER", "Other"),
            set("REGION", "us-east-1"),
            set("ENDPOINT", platform.get("/s3/endpoint")),
            set("ACCESS_KEY_ID", platform.get("/s3/access_key")),
            set("SECRET_ACCESS_KEY", platform.get("/s3/secret_key")),
        ];
        let (from, to) = (format!("EVH:{bucket}"), to.join(bucket).display().to_string());
        // Debian's rclone stops over this variable even for plain http.
        let mut args = vec!["-u", "AWS_CA_BUNDLE"];
        args.extend(env.iter().map(String::as_str));
        args.extend(["rclone", "copy", "--config", "/dev/null", &from, &to]);
        tool("env", &words(&args)).expect(0);
    }
}

#[test]
fn bucket_and_kit_give_everything_back_when_the_platform_is_gone() {
    let dir = folder();
    let mut platform = Platform::start(&dir.path().join("state"));
    let kit = dir.path().join("kit.json");
    let agent = Agent::enrol(&platform, &dir.path().join("home"), Some(&kit));
    let source = dir.path().join("source");
    fill(&source);
    agent.backup(&[&source]);
    fs::write(source.join("sub/new"), "written before the second backup").expect("write");
    agent.backup(&[&source]);
    let kit = kit.display().to_string();

    // From the endpoint, with the kit's own keys.
    let endpoint = platform.get("/s3/endpoint").to_owned();
    let access = format!("AWS_ACCESS_KEY_ID={}", platform.get("/s3/access_key"));
    let secret = format!("AWS_SECRET_ACCESS_KEY={}", platform.get("/s3/secret_key"));
    let program = bin("everhold-agent").display().to_string();
    let s3 = |job: &[&str]| {
        let mut args = vec![access.as_str(), secret.as_str(), program.as_str(), "rescue"];
        args.extend(["--kit", &kit, "--s3-endpoint", &endpoint, "--bucket", BUCKETS[0], "--json"]);
        args.extend(job);
        tool("env", &words(&args))
    };
    let listed = s3(&["list"]).expect(0).json();
    let standings: Vec<&str> =
        listed.as_array().expect("a list").iter().filter_map(|l| l["standing"].as_str()).collect();
    assert_eq!(standings, ["committed", "committed"], "{listed}");
    let out = dir.path().join("from-s3");
    s3(&["restore", "latest", "--to", &out.display().to_string()]).expect(0);
    let same = |out: &Path| {
        let restored = out.join(source.strip_prefix("/").expect("absolute"));
        compare::same_content(&source, &restored);
        compare::same_attributes(&source, &restored);
    };
    same(&out);
    let checked = s3(&["verify"]).expect(0).last_json();
    assert_eq!(checked["status"], "succeeded");
    assert_eq!(checked["coverage"]["packs"], checked["coverage"]["packs_whole"]);

    // From plain copies of both buckets, with nothing running any more.
    let copies = dir.path().join("copies");
    copy_buckets(&platform, &copies);
    platform.stop();
    let (vaults, keys) = (copies.join(BUCKETS[0]), copies.join(BUCKETS[1]));
    let (vaults, keys) = (vaults.display().to_string(), keys.display().to_string());
    let place = ["rescue", "--kit", &kit, "--bucket-dir", &vaults, "--keys-dir", &keys, "--json"];
    let plain = |job: &[&str]| agent_alone(&[&place[..], job].concat());
    let out = dir.path().join("from-folder");
    plain(&["restore", "latest", "--to", &out.display().to_string()]).expect(0);
    same(&out);
    let first = listed[0]["id"].as_str().expect("an id");
    let entries = plain(&["ls", first, &source.join("sub").display().to_string()]).expect(0);
    assert!(!entries.stdout.contains("/new"), "the first snapshot is older than the file");

    // A hole in a pack: what it takes is listed, and most of the file is better than none.
    let pack = largest(&copies.join(BUCKETS[0]));
    let mut bytes = fs::read(&pack).expect("pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).expect("write");
    assert_eq!(plain(&["verify"]).expect(1).last_json()["status"], "failed");
    let name = pack.file_name().and_then(OsStr::to_str).expect("a name");
    let fsck = ["fsck", "--kit", &kit, "--bucket-dir", &vaults, "--json", "--affected", name];
    let suffering = agent_alone(&fsck).expect(1).last_json();
    let large = source.join("sub/deep/large.bin").display().to_string();
    let paths = &suffering["snapshots"][0]["paths"];
    assert_eq!(paths.as_array().map(Vec::len), Some(1), "{suffering}");
    assert_eq!(paths[0]["path"], large.as_str());
    let out = dir.path().join("zeroed");
    let job = ["restore", "latest", "--zero-damaged", "--to", &out.display().to_string()];
    let said = plain(&job).expect(3).last_json();
    assert_eq!(said["zeroed"][0]["path"], large.as_str(), "{said}");
    let restored = fs::read(out.join(&large[1..])).expect("the file is there");
    let original = fs::read(&large).expect("source");
    let (start, length) = (
        said["zeroed"][0]["stretches"][0][0].as_u64().expect("offset") as usize,
        said["zeroed"][0]["stretches"][0][1].as_u64().expect("length") as usize,
    );
    assert!(restored[start..start + length].iter().all(|byte| *byte == 0));
    assert!(restored[..start] == original[..start]);
    assert!(restored[start + length..] == original[start + length..]);
}

fn largest(bucket: &Path) -> PathBuf {
    let found = tool(
        "find",
        &words(&[
            &bucket.display().to_string(),
            "-path",
            "*/data/*",
            "-type",
            "f",
            "-printf",
            "%s %p\n",
        ]),
    );
    let lines = found.expect(0).stdout;
    let size = |line: &&str| line.split_once(' ').and_then(|(size, _)| size.parse::<u64>().ok());
    let line = lines.lines().max_by_key(size).expect("a data pack").to_owned();
    line.split_once(' ').expect("size and path").1.into()
}

/// What a rebuilt catalog must have again; names and times that are only in the database are not in it.
const ROWS: [&str; 8] = [
    "SELECT id, agent_id, key_mode, descriptor, key_epoch, has_kit FROM catalog.vaults ORDER BY 1",
    "SELECT vault_id, epoch, recipient_kind, recipient_id, wrap FROM catalog.key_wraps ORDER BY 1, 2, 3, 4",
    "SELECT vault_id, generation, roster FROM catalog.rosters ORDER BY 1, 2",
    "SELECT id, agent_id, vault_id, kind, last_seq FROM catalog.workloads ORDER BY 1",
    "SELECT id, vault_id, session_id, CASE kind WHEN 'manifest' THEN 0 ELSE seq END, kind, state, sha256, md5, length, object_key, version_id, lock_until FROM catalog.packs WHERE state <> 'abandoned' ORDER BY 1",
    "SELECT id, vault_id, workload_id, agent_id, run_id, session_id, seq, parent_id, manifest_id, state, date_trunc('milliseconds', committed_at), status, paths, tags, files, directories, others, source_bytes, stored_bytes, exceptions, protect_until FROM catalog.snapshots ORDER BY 1",
    "SELECT workload_id, pack_id, first_seq, last_seq FROM catalog.snapshot_packs ORDER BY 1, 2, 3",
    "SELECT r.snapshot_id, r.receipt, r.object_key, r.version_id, m.pack_id, m.key_epoch, m.full_list, m.set_hash FROM catalog.receipts r JOIN catalog.manifests m USING (tenant_id, snapshot_id) ORDER BY 1",
];

#[test]
fn a_lost_catalog_is_made_again_from_the_bucket_and_the_next_backup_goes_on() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fill(&source);
    for round in 0..3 {
        fs::write(source.join("changing"), format!("round {round}")).expect("write");
        agent.backup(&[&source]);
    }
    receipts_stored(&platform);
    let rows = || ROWS.map(|sql| psql(&platform, sql));
    let before = rows();
    psql(
        &platform,
        "TRUNCATE catalog.vaults, catalog.key_wraps, catalog.rosters, catalog.workloads, catalog.sessions, catalog.packs, catalog.snapshots, catalog.snapshot_packs, catalog.manifests, catalog.receipts CASCADE",
    );
    assert_ne!(rows()[5], before[5]);

    let dry = admin(&platform, &["rebuild-catalog"]).expect(0).json();
    assert_eq!((dry[0]["committed"].as_u64(), dry[0]["written"].as_u64()), (Some(3), Some(0)));
    assert_ne!(rows()[5], before[5], "a dry run writes nothing");
    let done = admin(&platform, &["rebuild-catalog", "--apply"]).expect(0).json();
    assert!(done[0]["written"].as_u64() > Some(10), "{done}");
    for (again, before) in rows().iter().zip(&before) {
        assert_eq!(again, before);
    }
    let again = admin(&platform, &["rebuild-catalog", "--apply"]).expect(0).json();
    assert_eq!(again[0]["written"].as_u64(), Some(0), "twice is once");
    let audited = "SELECT count(*) FROM audit.events WHERE action = 'catalog.rebuilt'";
    crate::harness::wait_for("the audit event", std::time::Duration::from_secs(30), || {
        (psql(&platform, audited).trim() != "0").then_some(())
    });

    // Browsed, restored and backed up as if nothing had been.
    let folder = source.join("sub").display().to_string();
    let listed = agent.run(["ls", "latest", &folder]).expect(0).stdout;
    assert!(listed.contains("small-39"), "{listed}");
    restored_like(&agent, &source, &dir.path().join("out"));
    fs::write(source.join("after"), "the rebuild").expect("write");
    let said = agent.backup(&[&source]);
    assert_eq!(said["status"], "succeeded", "{said}");
    let read = said["new_bytes"].as_u64().expect("a figure");
    assert!(read < 100_000, "only what is new is stored again: {said}");
    restored_like(&agent, &source, &dir.path().join("out-2"));
    assert_eq!(agent.run(["fsck", "--json"]).expect(0).last_json()["snapshots"], 4);
    assert_eq!(admin(&platform, &["freezes"]).expect(0).json(), Value::Array(Vec::new()));
}

#[test]
fn a_database_set_back_freezes_collection_until_a_person_has_rebuilt_and_says_why() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fill(&source);
    agent.backup(&[&source]);
    fs::write(source.join("second"), "backup").expect("write");
    let second = agent.backup(&[&source]);
    receipts_stored(&platform);
    // The newest snapshot is gone from the database, as after a restore of an older copy of it.
    let forget = "BEGIN; CREATE TEMP TABLE back AS SELECT * FROM catalog.snapshots ORDER BY seq DESC LIMIT 1;
        DELETE FROM catalog.receipts USING back WHERE receipts.snapshot_id = back.id;
        DELETE FROM catalog.manifests USING back WHERE manifests.snapshot_id = back.id;
        DELETE FROM catalog.snapshot_packs WHERE first_seq = 2;
        UPDATE catalog.snapshot_packs SET last_seq = NULL;
        DELETE FROM catalog.snapshots USING back WHERE snapshots.id = back.id;
        DELETE FROM catalog.packs USING back WHERE packs.session_id = back.session_id;
        DELETE FROM catalog.sessions USING back WHERE sessions.id = back.session_id;
        UPDATE catalog.workloads SET last_seq = 1; COMMIT";
    psql(&platform, forget);

    fs::write(source.join("third"), "backup").expect("write");
    assert_eq!(agent.backup(&[&source])["status"], "succeeded", "backups go on");
    let standing = admin(&platform, &["freezes"]).expect(1).json();
    assert_eq!(standing[0]["reason"], "unknown_receipt", "{standing}");
    assert_eq!(standing[0]["evidence"], second["snapshot_id"], "{standing}");
    let id = standing[0]["id"].as_str().expect("an id");
    let lift = |reason: &str, code| {
        admin(&platform, &["lift-freeze", "--reason", reason, id]).expect(code)
    };
    assert!(lift(" ", 2).stderr.contains("reason"));
    assert_eq!(lift("looked at, the lost snapshot is not needed", 0).json()[0]["id"], id);
    assert_eq!(lift("twice", 1).json(), Value::Array(Vec::new()));
    assert_eq!(admin(&platform, &["freezes"]).expect(0).json(), Value::Array(Vec::new()));
    let audited =
        "SELECT details->>'reason' FROM audit.events WHERE action = 'collection.unfrozen'";
    let said =
        crate::harness::wait_for("the audit event", std::time::Duration::from_secs(30), || {
            Some(psql(&platform, audited)).filter(|said| !said.trim().is_empty())
        });
    assert_eq!(said.trim(), "looked at, the lost snapshot is not needed");
    restored_like(&agent, &source, &dir.path().join("out"));
}

#[test]
fn a_hold_and_an_undone_expiry_by_hand() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fill(&source);
    let backup = agent.backup(&[&source]);
    let id = backup["snapshot_id"].as_str().expect("an id");
    let none = Value::Array(Vec::new());
    assert_eq!(admin(&platform, &["holds"]).expect(0).json(), none);
    assert!(admin(&platform, &["hold", "--reason", " ", id]).expect(2).stderr.contains("reason"));
    let unknown = "snp_00000000000000000000000000000000";
    let held = admin(&platform, &["hold", "--reason", "lawsuit", id, unknown]).expect(1);
    assert!(held.stderr.contains(unknown), "the one that is not there is told");
    let held = held.json();
    assert_eq!(
        (&held[0]["snapshot_id"], &held[0]["reason"]),
        (&backup["snapshot_id"], &"lawsuit".into())
    );
    assert_eq!(admin(&platform, &["holds"]).expect(0).json(), held);
    let hold = held[0]["id"].as_str().expect("an id");
    let released =
        admin(&platform, &["release-hold", "--reason", "settled", hold]).expect(0).json();
    assert_eq!(released[0]["state"], "released");
    assert_eq!(admin(&platform, &["holds"]).expect(0).json(), none);

    // As if its policy had let it go.
    psql(&platform, "UPDATE catalog.snapshots SET state = 'expired', expired_at = now()");
    assert_eq!(admin(&platform, &["expired"]).expect(0).json()[0]["snapshot"]["id"], id);
    assert_eq!(admin(&platform, &["undo-expiry", id]).expect(0).json()[0]["id"], id);
    assert_eq!(admin(&platform, &["expired"]).expect(0).json(), none);
    psql(&platform, "UPDATE catalog.snapshots SET state = 'expired', expired_at = now()");
    psql(&platform, "UPDATE catalog.snapshots SET state = 'forgetting', forgotten_at = now()");
    let late = admin(&platform, &["undo-expiry", id]).expect(1);
    assert!(late.stderr.contains("another snapshot"), "{}", late.stderr);
}

fn receipts_stored(platform: &Platform) {
    let waiting = "SELECT count(*) FROM catalog.receipts WHERE stored_at IS NULL";
    crate::harness::wait_for("receipts in the bucket", std::time::Duration::from_secs(60), || {
        (psql(platform, waiting).trim() == "0").then_some(())
    });
}

/// A stored object of the vault bucket: its pack id and hash, and the store's own file of it.
struct Stored {
    pack: String,
    sha256: String,
    file: PathBuf,
}

impl Stored {
    /// Live ones of a kind that the newest snapshot needs, newest first.
    fn needed(platform: &Platform, kind: &str) -> Vec<Self> {
        let rows = psql(
            platform,
            &format!(
                "SELECT 'pck_' || replace(id::text, '-', ''), length, encode(sha256, 'hex') FROM catalog.packs p JOIN catalog.snapshot_packs r ON r.pack_id = p.id WHERE r.last_seq IS NULL AND kind = '{kind}' AND state = 'live' ORDER BY id DESC"
            ),
        );
        rows.lines().map(|row| Self::of(platform, &row.split('|').collect::<Vec<_>>())).collect()
    }

    fn of(platform: &Platform, row: &[&str]) -> Self {
        let (size, state) = (format!("{}c", row[1]), platform.state.display().to_string());
        let args = [&state, "-type", "f", "-size", &size, "-exec", "sha256sum", "{}", "+"];
        let found = tool("find", &words(&args)).expect(0).stdout;
        let line = found.lines().find(|line| line.starts_with(row[2])).expect("the store's file");
        let file = line.split_once("  ").expect("hash and path").1.into();
        Self { pack: row[0].to_owned(), sha256: row[2].to_owned(), file }
    }

    fn damage(&self) {
        let mut bytes = fs::read(&self.file).expect("the object");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&self.file, &bytes).expect("damage");
    }
}

fn vault_of(platform: &Platform) -> String {
    let sql = "SELECT 'vlt_' || replace(id::text, '-', '') FROM catalog.vaults";
    psql(platform, sql).trim().to_owned()
}

fn restored_like(agent: &Agent, source: &Path, out: &Path) {
    agent.restore("latest", out);
    let restored = out.join(source.strip_prefix("/").expect("absolute"));
    compare::same_content(source, &restored);
    compare::same_attributes(source, &restored);
}

#[test]
fn a_scrub_reads_as_much_as_it_is_told_and_a_damaged_pack_leads_to_its_files() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fill(&source);
    for round in 0..4_u8 {
        fs::write(source.join(format!("more-{round}.bin")), noise(u64::from(round) + 9, 400_000))
            .expect("write");
        agent.backup(&[&source]);
    }
    let vault = vault_of(&platform);
    let scrub = |more: &[&str], code| {
        admin(&platform, &[&["scrub", "--vault", &vault], more].concat()).expect(code).json()
    };
    let full = scrub(&[], 0);
    assert_eq!((&full["packs_read"], &full["bytes_read"]), (&full["packs"], &full["bytes"]));
    assert_eq!(full["coverage_percent"], 100.0);
    // Whole packs are read until the share is reached: where one large pack comes last in its order, a seed reads all.
    let with = |seed: &str| scrub(&["--sample", "30%", "--seed", seed], 0);
    let smaller = |part: &Value| part["packs_read"].as_u64() < full["packs"].as_u64();
    let seeds: Vec<String> = (1..=20).map(|seed| seed.to_string()).collect();
    let (seed, part) = (seeds.iter())
        .map(|seed| (seed, with(seed)))
        .find(|(_, part)| smaller(part))
        .expect("a sample that is no full scrub");
    let share = part["coverage_percent"].as_f64().expect("a share");
    assert!((30.0..100.0).contains(&share), "{part}");
    assert!(part["confidence"][0]["chance_of_missing"].as_f64() > Some(0.0), "{part}");
    let again = with(seed);
    assert_eq!(again["bytes_read"], part["bytes_read"], "the same seed reads the same");

    let bad = &Stored::needed(&platform, "data")[0];
    bad.damage();
    let found = scrub(&[], 1);
    assert_eq!(found["findings"][0]["pack_id"], bad.pack.as_str(), "{found}");
    assert_eq!(found["findings"][0]["what"], "wrong_hash");
    assert_eq!(found["findings"][0]["snapshots"].as_array().map(Vec::len), Some(1));
    assert_eq!(agent.run(["fsck", "--json"]).expect(1).last_json()["status"], "failed");
    let suffering = agent.run(["fsck", "--json", "--affected", &bad.sha256]).expect(1).last_json();
    assert_eq!(suffering["loss"], "frames", "{suffering}");
    let paths = &suffering["snapshots"][0]["paths"];
    assert_eq!(paths.as_array().map(Vec::len), Some(1), "{suffering}");
    let path = source.join("more-3.bin").display().to_string();
    assert_eq!(paths[0]["path"], path.as_str(), "{suffering}");
    // Undone.
    bad.damage();
    assert_eq!(scrub(&[], 0)["findings"].as_array().map(Vec::len), Some(0));
    what_stands_of_a_damaged_list_of_files_is_restored(&platform, &agent, &source);
}

/// The newest metadata pack is damaged in its middle, and this machine has no copy of it.
fn what_stands_of_a_damaged_list_of_files_is_restored(
    platform: &Platform,
    agent: &Agent,
    source: &Path,
) {
    const MANY: usize = 3_000;
    let many = source.join("many");
    fs::create_dir(&many).expect("folder");
    for file in 0..MANY {
        fs::write(many.join(format!("{file:04}")), format!("file {file}")).expect("write");
    }
    agent.backup(&[source]);
    Stored::needed(platform, "meta")[0].damage();
    fs::remove_dir_all(agent.home.join("cache")).expect("no cache");
    let out = source.with_file_name("what-stands");
    let said = agent.run(["restore", "latest", "--json", "--target", &out.display().to_string()]);
    let said = said.expect(3).last_json();
    let problems = said["problems"].as_array().expect("problems");
    let lost = problems.iter().filter(|problem| problem["kind"] == "unlisted");
    let told = |problem: &Value| {
        let is_ours = |path: &str| path.starts_with(&many.display().to_string());
        let detail = problem["detail"].as_str().is_some_and(|said| said.contains("tree is lost"));
        problem["path"].as_str().is_some_and(is_ours) && detail
    };
    assert!(lost.count() == 1 && told(&problems[0]), "{said}");
    let restored = out.join(many.strip_prefix("/").expect("absolute"));
    let there = fs::read_dir(&restored).expect("the folder").count();
    assert!(there > MANY / 2 && there < MANY, "{there}");
    for file in fs::read_dir(&restored).expect("the folder").map(|file| file.expect("a file")) {
        let number: usize = file.file_name().to_string_lossy().parse().expect("a number");
        assert_eq!(fs::read_to_string(file.path()).expect("read"), format!("file {number}"));
    }
    // As a stream, read back, and asked for by the name of what is lost.
    let lost = problems[0]["path"].as_str().expect("a path");
    let tar = agent.run(["restore", "latest", "--tar"]).expect(1);
    assert!(tar.stderr.contains("tree is lost"), "{}", tar.stderr);
    let tar = agent.run(["restore", "latest", "--tar", "--zero-damaged"]).expect(3);
    assert!(tar.stderr.contains(&format!("exception: unlisted {lost}: ")), "{}", tar.stderr);
    let target = source.with_file_name("read-back").display().to_string();
    let checked = ["restore", "latest", "--verify", "--json", "--target", &target];
    let checked = agent.run(checked).expect(3).last_json();
    assert_eq!(checked["problems"], said["problems"]);
    let by_name = ["restore", "latest", "--path", lost, "--target", &target, "--dry-run"];
    let by_name = agent.run(by_name).expect(1);
    assert!(by_name.stderr.contains("is damaged"), "{}", by_name.stderr);
    // What can be found is found, and that it is not all is told.
    let found = agent.run(["find", "*.bin"]).expect(3);
    assert!(found.stdout.contains("/more-3.bin") && found.stderr.contains("tree is lost"));
    let listed = agent.run(["ls", "latest", &many.display().to_string()]).expect(3);
    assert_eq!(listed.stdout.lines().count(), there);
    assert!(listed.stderr.contains("tree is lost"), "{}", listed.stderr);
    crate::mount::a_folder_partly_lost_gives_the_rest(agent, &many, there);
    // The next backup is told of it by nobody, sees it, and does without.
    let next = agent.run(["backup", "--json", &source.display().to_string()]).expect(0);
    assert!(next.stderr.contains("does without it"), "{}", next.stderr);
    restored_like(agent, source, &source.with_file_name("healed"));
    agent.run(["verify", "latest", "--read-data"]).expect(0);
}

/// An older snapshot with lost packs gives everything, out of the packs of a newer one, and says so.
fn healed_too(agent: &Agent, source: &Path, snapshot: &str, out: &Path) {
    let restored = agent.restore(snapshot, out);
    assert!(restored["other_snapshots_pieces"].as_u64() > Some(0), "{restored}");
    compare::same_content(source, &out.join(source.strip_prefix("/").expect("absolute")));
    let verify = ["verify", snapshot, "--read-data", "--json"];
    let verified = agent.run(verify).expect(1).last_json();
    assert_eq!(verified["status"], "failed");
    let problems = verified["problems"].as_array().expect("problems");
    assert!(!problems.is_empty(), "{verified}");
    assert!(
        problems.iter().all(|told| told.as_str().is_some_and(|told| told.starts_with("pack ")))
    );
    let tree = agent.run(["restore", snapshot, "--tar"]);
    assert!(tree.expect(0).stderr.contains("came from those of other snapshots"));
}

#[test]
fn a_pack_declared_lost_is_healed_by_the_next_backup_whatever_was_in_it() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fill(&source);
    agent.backup(&[&source]);
    let large = noise(77, 2_000_000);
    fs::write(source.join("second.bin"), &large).expect("write");
    agent.backup(&[&source]);
    let vault = vault_of(&platform);
    let declare = |packs: &[&str], code| {
        let args = [&["declare-lost", "--vault", &vault], packs].concat();
        admin(&platform, &args).expect(code).json()
    };
    // A sound pack is not declared lost, whoever asks.
    let sound = declare(&[&Stored::needed(&platform, "data")[0].pack], 1);
    assert_eq!(sound[0]["lost"], Value::Null, "{sound}");

    let newest = || psql(&platform, "SELECT id FROM catalog.snapshots ORDER BY seq DESC LIMIT 1");
    let first = newest();
    // All metadata twice: read from the agent's own copy, stored anew all the same; and without one.
    for (round, kind) in ["data", "meta", "meta", "manifest"].into_iter().enumerate() {
        let before = format!("snp_{}", newest().trim().replace('-', ""));
        let mut bad = Stored::needed(&platform, kind);
        if kind != "meta" {
            bad.truncate(1);
        }
        bad.iter().for_each(Stored::damage);
        if round == 2 {
            fs::remove_dir_all(agent.home.join("cache")).expect("no cache");
        }
        if kind == "manifest" {
            // Until then nothing builds on it, and what to do is said.
            let args = [OsStr::new("backup"), source.as_os_str()];
            let refused = agent.run(args).expect(1).stderr;
            assert!(refused.contains("next: ") && refused.contains("declare-lost"), "{refused}");
        }
        let packs: Vec<&str> = bad.iter().map(|bad| bad.pack.as_str()).collect();
        let declared = declare(&packs, 0);
        assert!(
            declared.as_array().is_some_and(|all| all.iter().all(|one| one["lost"] == "damaged"))
        );
        let said = agent.backup(&[&source]);
        assert_eq!(said["status"], "succeeded", "{kind}: {said}");
        let new = said["new_bytes"].as_u64().expect("a figure") as usize;
        match kind {
            "data" => assert!((large.len()..large.len() + 10_000).contains(&new), "{said}"),
            _ => assert_eq!(new, 0, "{kind}: content that stands is not stored again: {said}"),
        }
        restored_like(&agent, &source, &dir.path().join(format!("out-{round}")));
        admin(&platform, &["scrub", "--vault", &vault]).expect(0);
        let verified = agent.run(["verify", "latest", "--json"]).expect(0);
        assert_eq!(verified.last_json()["status"], "succeeded");
        // Of a small tree the one node is each snapshot's own: times of folders above it change.
        if kind == "data" {
            healed_too(&agent, &source, &before, &dir.path().join(format!("old-{round}")));
        }
    }
    let parents = psql(&platform, "SELECT parent_id FROM catalog.snapshots ORDER BY seq");
    let parents: Vec<&str> = parents.lines().collect();
    assert_eq!(parents[2], first.trim(), "healed, not begun afresh: {parents:?}");
    assert!(parents[3..].iter().all(|parent| !parent.is_empty()), "{parents:?}");
    // And on from there, as if nothing had been.
    let said = agent.backup(&[&source]);
    assert_eq!((&said["status"], &said["new_bytes"]), (&"succeeded".into(), &0.into()), "{said}");
}

//! A store on a loopback port in this process, with the five scoped keys and an administrator.

use std::{path::Path, sync::Arc, time::Duration};

use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        http::HttpResponse, retry::RetryConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    primitives::{ByteStream, DateTime},
    types::{BucketVersioningStatus, ObjectLockMode, VersioningConfiguration},
};
use devstore::{Config, DevStore, Key, Policy};
use domain::{Clock, ManualClock, SystemClock, Timestamp};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use vault::store as vs;

pub const VAULT: &str = "vault";
pub const KEYS: &str = "keys";
/// Without versioning, as restic and rclone make theirs.
pub const PLAIN: &str = "plain";

pub struct TestStore {
    pub dir: TempDir,
    pub clock: Arc<ManualClock>,
    pub endpoint: String,
    pub store: DevStore,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), devstore::ServeError>>,
}

pub fn keys() -> Vec<Key> {
    let key = |name: &str, policy, buckets: &[&str]| Key {
        access_key: name.into(),
        secret_key: format!("secret of {name}"),
        policy,
        buckets: buckets.iter().map(|&bucket| bucket.into()).collect(),
    };
    vec![
        key("admin", Policy::Administrator, &[]),
        key("ingest", Policy::IngestSigner, &[VAULT]),
        key("restore", Policy::RestoreSigner, &[VAULT]),
        key("steward", Policy::Steward, &[VAULT]),
        key("reaper", Policy::Reaper, &[VAULT]),
        key("keeper", Policy::KeyKeeper, &[KEYS]),
        key("elsewhere", Policy::Administrator, &["another"]),
    ]
}

pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<DevStore, devstore::OpenError> {
    DevStore::open(Config { dir: dir.to_owned(), keys: keys(), clock })
}

impl TestStore {
    /// A fresh store with the buckets `vault` (locked), `keys` (versioned) and `plain`.
    pub async fn start() -> Self {
        let dir = TempDir::new().expect("a folder");
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let store = Self::serve(dir, clock).await;
        let admin = store.client("admin");
        admin
            .create_bucket()
            .bucket(VAULT)
            .object_lock_enabled_for_bucket(true)
            .send()
            .await
            .expect("a locked bucket");
        for bucket in [KEYS, PLAIN] {
            admin.create_bucket().bucket(bucket).send().await.expect("a bucket");
        }
        let enabled =
            VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        admin
            .put_bucket_versioning()
            .bucket(KEYS)
            .versioning_configuration(enabled)
            .send()
            .await
            .expect("versioning");
        store
    }

    pub async fn serve(dir: TempDir, clock: Arc<ManualClock>) -> Self {
        let store = open(dir.path(), clock.clone()).expect("the store opens");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = store.clone();
        let served = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            serving.serve(listener, shutdown).await
        });
        Self { dir, clock, endpoint, store, stop: Some(stop), served }
    }

    /// Ends the process's hold on the folder and opens it again on another port.
    pub async fn restart(mut self) -> Self {
        drop(self.stop.take());
        self.served.await.expect("joins").expect("served");
        drop(self.store);
        Self::serve(self.dir, self.clock).await
    }

    /// As `restart`, with a chance to tamper while the store is down.
    pub async fn restart_after(mut self, meanwhile: impl FnOnce(&Path)) -> Self {
        drop(self.stop.take());
        self.served.await.expect("joins").expect("served");
        drop(self.store);
        meanwhile(self.dir.path());
        Self::serve(self.dir, self.clock).await
    }

    pub fn builder(&self, name: &str) -> Builder {
        let keys = Credentials::from_keys(name, format!("secret of {name}"), None);
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(keys)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported)
            .retry_config(RetryConfig::disabled())
            .endpoint_url(&self.endpoint)
    }

    pub fn client(&self, name: &str) -> Client {
        Client::from_conf(self.builder(name).build())
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn in_secs(&self, secs: u64) -> DateTime {
        sdk_date(self.now() + Duration::from_secs(secs))
    }

    /// An object of the vault bucket under a lock; its version id.
    pub async fn locked(&self, key: &str, mode: ObjectLockMode, secs: u64) -> String {
        let put = self
            .client("admin")
            .put_object()
            .bucket(VAULT)
            .key(key)
            .checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Sha256)
            .object_lock_mode(mode)
            .object_lock_retain_until_date(self.in_secs(secs))
            .body(ByteStream::from_static(b"locked"))
            .send()
            .await
            .expect("a locked object");
        put.version_id.expect("a version")
    }

    pub async fn put(&self, bucket: &str, key: &str, body: &'static [u8]) -> Option<String> {
        let put = self.client("admin").put_object().bucket(bucket).key(key);
        put.body(ByteStream::from_static(body)).send().await.expect("stored").version_id
    }

    pub fn config(&self) -> vs::StoreConfig {
        let key = |name: &str| vs::Credentials {
            access_key: name.into(),
            secret_key: format!("secret of {name}"),
        };
        vs::StoreConfig {
            endpoint: Some(self.endpoint.parse().expect("a URL")),
            region: "us-east-1".into(),
            bucket: VAULT.into(),
            key_bucket: KEYS.into(),
            path_style: true,
            admin: Some(key("admin")),
            ingest: key("ingest"),
            restore: key("restore"),
            steward: key("steward"),
            reaper: key("reaper"),
            key_keeper: key("keeper"),
            capabilities: vs::Capabilities::default(),
        }
    }

    /// Blob files on disk, by number.
    pub fn blobs(&self) -> usize {
        let shards = std::fs::read_dir(self.dir.path().join("blobs")).expect("blobs");
        shards
            .map(|shard| std::fs::read_dir(shard.expect("shard").path()).expect("dir").count())
            .sum()
    }

    pub fn temporary_files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("tmp")).expect("tmp").count()
    }
}

pub fn sdk_date(moment: Timestamp) -> DateTime {
    DateTime::from_secs(moment.ceil_to_second().unix_secs())
}

/// The S3 error code of a refusal (the status where the answer has no body).
pub fn code<T, E>(result: Result<T, SdkError<E, HttpResponse>>) -> String
where
    E: ProvideErrorMetadata + std::fmt::Debug,
{
    match result {
        Ok(_) => "Ok".into(),
        Err(error) => {
            let status = error.raw_response().map(|answer| answer.status().as_u16());
            let text = error.as_service_error().and_then(|e| e.code()).map(str::to_owned);
            text.unwrap_or_else(|| format!("{}", status.unwrap_or(0)))
        }
    }
}

//! The S3 operations: from s3s's requests to the store's own words and back.
//!
//! Owns the one `impl S3`; the work is in the files beside it, by kind of operation. Access was
//! checked before anything here runs. It must not decide who may do what.

mod body;
mod bucket;
mod convert;
mod copy;
mod get;
mod list;
mod locks;
mod multipart;
mod object;

use std::sync::Arc;

use s3s::{S3, S3Request, S3Response, S3Result, dto::*};

use crate::{
    access::Keys, blobs::Blobs, clock::LockClock, lock::Bypass, meta::Meta, versions::Now,
};

/// Everything an operation needs; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    pub meta: Arc<Meta>,
    pub blobs: Blobs,
    pub clock: Arc<LockClock>,
    pub keys: Keys,
}

impl Store {
    pub(crate) fn now(&self) -> Now {
        Now { wall: self.clock.wall(), locks: self.clock.locks() }
    }
}

/// Whether the header asks for it; that the key may was checked with the policy.
fn bypass(asked: Option<bool>) -> Bypass {
    if asked == Some(true) { Bypass::Governance } else { Bypass::No }
}

fn answer<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

macro_rules! operations {
    ($($name:ident($input:ty) -> $output:ty = $work:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(async fn $name(&self, req: S3Request<$input>) -> S3Result<S3Response<$output>> {
                $work(self, req).await
            })*
        }
    };
}

operations! {
    list_buckets(ListBucketsInput) -> ListBucketsOutput = bucket::list;
    create_bucket(CreateBucketInput) -> CreateBucketOutput = bucket::create;
    head_bucket(HeadBucketInput) -> HeadBucketOutput = bucket::head;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput = bucket::delete;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput = bucket::location;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput
        = bucket::get_versioning;
    put_bucket_versioning(PutBucketVersioningInput) -> PutBucketVersioningOutput
        = bucket::put_versioning;
    get_object_lock_configuration(GetObjectLockConfigurationInput)
        -> GetObjectLockConfigurationOutput = bucket::get_lock;
    put_object_lock_configuration(PutObjectLockConfigurationInput)
        -> PutObjectLockConfigurationOutput = bucket::put_lock;

    put_object(PutObjectInput) -> PutObjectOutput = object::put;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput = object::delete;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput = object::delete_many;
    get_object(GetObjectInput) -> GetObjectOutput = get::get;
    head_object(HeadObjectInput) -> HeadObjectOutput = get::head;
    copy_object(CopyObjectInput) -> CopyObjectOutput = copy::copy;

    get_object_retention(GetObjectRetentionInput) -> GetObjectRetentionOutput
        = locks::get_retention;
    put_object_retention(PutObjectRetentionInput) -> PutObjectRetentionOutput
        = locks::put_retention;
    get_object_legal_hold(GetObjectLegalHoldInput) -> GetObjectLegalHoldOutput = locks::get_hold;
    put_object_legal_hold(PutObjectLegalHoldInput) -> PutObjectLegalHoldOutput = locks::put_hold;

    list_objects(ListObjectsInput) -> ListObjectsOutput = list::v1;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output = list::v2;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput = list::versions;

    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput
        = multipart::create;
    upload_part(UploadPartInput) -> UploadPartOutput = multipart::part;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput = copy::part;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput
        = multipart::complete;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput
        = multipart::abort;
    list_parts(ListPartsInput) -> ListPartsOutput = multipart::list_parts;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput
        = multipart::list_uploads;
}

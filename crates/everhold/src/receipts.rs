//! The engine's receipts for the scheduler, which may not know the engine.

use scheduler::{ProvenCommit, ReceiptVerifier};
use vault::receipt::Receipt;

/// Verifies with the public half of the platform's receipt key.
pub struct PlatformReceipts {
    pub receipt_key: [u8; 32],
}

impl ReceiptVerifier for PlatformReceipts {
    fn verify(&self, receipt: &[u8]) -> Option<ProvenCommit> {
        let receipt = Receipt::open(receipt, &self.receipt_key).ok()?;
        Some(ProvenCommit {
            tenant_id: receipt.tenant,
            run_id: receipt.run,
            snapshot_id: receipt.snapshot,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_platform_did_not_sign_proves_nothing() {
        let verifier = PlatformReceipts { receipt_key: [3; 32] };
        assert_eq!(verifier.verify(b""), None);
        assert_eq!(verifier.verify(&[0x80; 300]), None);
    }
}

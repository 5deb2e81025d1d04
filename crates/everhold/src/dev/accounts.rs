//! The demonstration's tenants and accounts.

use std::time::Duration;

use auth::bootstrap::{self, Account, Bootstrap, Installed};
use runtime::Platform;

use super::secrets::Secrets;

pub const ADMIN: &str = "admin@platform.example";
pub const MSP: &str = "owner@msp.example";
pub const TENANT: &str = "admin@tenant.example";
pub const OTHER_TENANT: &str = "admin@other.example";

/// Good for several agents, for as long as tokens may live.
const TOKEN_USES: u32 = 100;
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Makes what is missing; what exists keeps its password.
pub async fn ensure(platform: &Platform, secrets: &Secrets) -> anyhow::Result<Installed> {
    let account = |email: &str, name: &str, password: &str| Account {
        email: email.to_owned(),
        name: name.to_owned(),
        password: auth::Secret::new(password.to_owned()),
    };
    let wanted = Bootstrap {
        platform_name: "Everhold".to_owned(),
        platform_admin: account(ADMIN, "Platform administrator", &secrets.admin_password),
        msp_name: "Example MSP".to_owned(),
        msp: account(MSP, "MSP owner", &secrets.msp_password),
        tenant_name: "Example tenant".to_owned(),
        tenant: account(TENANT, "Tenant administrator", &secrets.tenant_password),
        other_tenant_name: "Other tenant".to_owned(),
        other_tenant: account(OTHER_TENANT, "Other administrator", &secrets.other_tenant_password),
    };
    Ok(bootstrap::ensure(platform, wanted).await?)
}

pub async fn enrolment_token(platform: &Platform, installed: &Installed) -> anyhow::Result<String> {
    let tenant = installed.tenant.tenant_id;
    let minted = bootstrap::mint_enrolment_token(platform, tenant, TOKEN_USES, TOKEN_LIFE).await?;
    Ok(minted.token)
}

//! The five schemas, one per role, and the statements every one of them shares.

/// A role of the platform and its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Schema {
    Auth,
    Catalog,
    Scheduler,
    Audit,
    Billing,
}

/// Statements that differ only in their schema, written out at compile time: SQL is never formatted.
pub(crate) struct Statements {
    pub insert_event: &'static str,
    pub insert_fact: &'static str,
    pub take_undelivered: &'static str,
    pub mark_delivered: &'static str,
    pub mark_parked: &'static str,
    pub count_undelivered: &'static str,
    pub forget_delivered: &'static str,
}

macro_rules! statements {
    ($schema:literal) => {
        Statements {
            insert_event: concat!(
                "INSERT INTO ",
                $schema,
                ".outbox (tenant_id, id, topic, payload, trace_context) ",
                "VALUES ($1, $2, 'audit', $3, $4)"
            ),
            insert_fact: concat!(
                "INSERT INTO ",
                $schema,
                ".outbox (tenant_id, topic, payload) VALUES ($1, $2, $3)"
            ),
            // Below the horizon no transaction can still commit an earlier row; a reader that went
            // further would skip late commits for ever.
            take_undelivered: concat!(
                "SELECT tenant_id, id, topic, payload, trace_context FROM ",
                $schema,
                ".outbox ",
                "WHERE delivered_at IS NULL AND parked_at IS NULL AND topic = ANY ($1) ",
                "AND xid < pg_snapshot_xmin(pg_current_snapshot()) ",
                "ORDER BY xid, position LIMIT $2 FOR UPDATE SKIP LOCKED"
            ),
            mark_delivered: concat!(
                "UPDATE ",
                $schema,
                ".outbox SET delivered_at = now() ",
                "WHERE id = ANY ($1) AND delivered_at IS NULL"
            ),
            mark_parked: concat!(
                "UPDATE ",
                $schema,
                ".outbox SET parked_at = now() ",
                "WHERE id = ANY ($1) AND delivered_at IS NULL"
            ),
            count_undelivered: concat!(
                "SELECT count(*) FROM ",
                $schema,
                ".outbox WHERE delivered_at IS NULL AND parked_at IS NULL AND topic = ANY ($1)"
            ),
            forget_delivered: concat!(
                "DELETE FROM ",
                $schema,
                ".outbox WHERE delivered_at < now() - make_interval(secs => $1)"
            ),
        }
    };
}

static AUTH: Statements = statements!("auth");
static CATALOG: Statements = statements!("catalog");
static SCHEDULER: Statements = statements!("scheduler");
static AUDIT: Statements = statements!("audit");
static BILLING: Statements = statements!("billing");

impl Schema {
    pub const ALL: [Self; 5] =
        [Self::Auth, Self::Catalog, Self::Scheduler, Self::Audit, Self::Billing];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Catalog => "catalog",
            Self::Scheduler => "scheduler",
            Self::Audit => "audit",
            Self::Billing => "billing",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|schema| schema.as_str() == text)
    }
    /// Login role of tenant and lookup transactions.
    pub const fn login(self) -> &'static str {
        match self {
            Self::Auth => "everhold_auth",
            Self::Catalog => "everhold_catalog",
            Self::Scheduler => "everhold_scheduler",
            Self::Audit => "everhold_audit",
            Self::Billing => "everhold_billing",
        }
    }
    /// Login role of system transactions.
    pub const fn system_login(self) -> &'static str {
        match self {
            Self::Auth => "everhold_auth_system",
            Self::Catalog => "everhold_catalog_system",
            Self::Scheduler => "everhold_scheduler_system",
            Self::Audit => "everhold_audit_system",
            Self::Billing => "everhold_billing_system",
        }
    }
    pub(crate) fn statements(self) -> &'static Statements {
        match self {
            Self::Auth => &AUTH,
            Self::Catalog => &CATALOG,
            Self::Scheduler => &SCHEDULER,
            Self::Audit => &AUDIT,
            Self::Billing => &BILLING,
        }
    }
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

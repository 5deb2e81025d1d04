/** A small recorded world: one MSP, two tenants, a few workloads with a month of snapshots. */
const hex = (n) => n.toString(16).padStart(32, '0');
export const id = (prefix, n) => `${prefix}_${hex(n)}`;
export const iso = (ms) => new Date(ms).toISOString();

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

export const TEN = {
  platform: id('ten', 1),
  msp: id('ten', 2),
  tenant: id('ten', 0x10a1),
  other: id('ten', 0x10a2),
};

const tenant = (key, kind, name, parent, age) => ({
  id: TEN[key],
  kind,
  name,
  created_at: iso(Date.now() - age * DAY),
  ...(parent ? { parent_id: TEN[parent] } : {}),
});

export const tenants = [
  tenant('platform', 'platform', 'Everhold', null, 400),
  tenant('msp', 'msp', 'Kestrel IT Services', 'platform', 380),
  tenant('tenant', 'tenant', 'Nordwind Logistics', 'msp', 214),
  tenant('other', 'tenant', 'Praxis am Lindenhof', 'msp', 61),
];

const person = (n, key, email, name, roles) => ({ id: id('usr', n), email, name, home: TEN[key], roles, password: 'stub-password' });

export const people = [
  person(1, 'platform', 'admin@everhold.test', 'Platform Admin', ['platform.operator']),
  person(2, 'msp', 'msp@kestrel.test', 'Robin Kestrel', ['msp.owner']),
  person(3, 'tenant', 'it@nordwind.test', 'Jana Petersen', ['tenant.admin']),
  person(4, 'other', 'it@lindenhof.test', 'Ali Demir', ['tenant.admin']),
];

const agent = (n, name, hostname, os, seen) => ({
  id: id('agt', n), name, hostname, os, arch: 'x86_64', agent_version: '0.1.0', verify_key: 'AAAA', hpke_key: 'AAAA',
  enrolled_at: iso(Date.now() - 200 * DAY), last_seen_at: iso(Date.now() - seen),
});

export const agents = {
  [TEN.tenant]: [agent(1, 'files-01', 'files-01.nordwind.example', 'linux', 8_000), agent(2, 'db-02', 'db-02.nordwind.example', 'linux', 20_000), agent(3, 'depot-kiel', 'depot-kiel', 'linux', 26 * HOUR)],
  [TEN.other]: [],
};

function snapshotsOf(workload, n, everyHours, count, base) {
  const list = [];
  for (let i = 0; i < count; i++) {
    if (workload.name === 'depot-kiel' && i % 5 === 3) continue;
    const at = Date.now() - (i * everyHours + n * 1.4) * HOUR - 11 * 60_000;
    const files = 41_208 - i * 37;
    const bad = i % 9 === 4 || (workload.name === 'depot-kiel' && i === 0);
    list.push({
      id: id('snp', n * 4096 + i), tenant_id: workload.tenant_id, workload_id: workload.id, vault_id: workload.vault_id,
      agent_id: workload.agent_id, run_id: id('run', n * 4096 + i), committed_at: iso(at),
      status: bad ? 'succeeded_with_exceptions' : 'succeeded', paths: workload.paths, tags: {},
      stats: { files, directories: 5120, others: 311, source_bytes: base - i * 13 * MIB, new_bytes: 84 * MIB + i * 3 * MIB, stored_bytes: 31 * MIB + i * MIB, exceptions: bad ? 3 : 0, duration_ms: 48_000 + i * 700 },
      slots: ['hour', 'day'], protect_until: iso(at + 30 * DAY), locked_until: iso(at + 37 * DAY),
    });
  }
  return list;
}

const workload = (n, agentNo, name, paths) => ({
  id: id('wkl', n), tenant_id: TEN.tenant, kind: 'files', name, agent_id: id('agt', agentNo), vault_id: id('vlt', n),
  created_at: iso(Date.now() - 180 * DAY), snapshots: 0, paths,
});

export const workloads = [
  workload(1, 1, 'files-01', ['/srv/share', '/var']),
  workload(2, 2, 'db-02', ['/var/backups/postgres']),
  workload(3, 3, 'depot-kiel', ['/home', '/opt/lager']),
];

export const snapshots = [
  ...snapshotsOf(workloads[0], 1, 8, 70, 412 * GIB),
  ...snapshotsOf(workloads[1], 2, 24, 30, 37.4 * GIB),
  ...snapshotsOf(workloads[2], 3, 24, 24, 8.2 * GIB),
].sort((a, b) => (a.committed_at < b.committed_at ? 1 : -1));

export const runOf = (snapshot) => ({
  id: snapshot.run_id, tenant_id: snapshot.tenant_id, workload_id: snapshot.workload_id, agent_id: snapshot.agent_id,
  trigger: snapshot.id.endsWith('0') ? 'local' : 'manual', state: snapshot.status,
  source: { paths: snapshot.paths, excludes: ['*.tmp'], one_file_system: false, exclude_caches: true, tags: {} },
  created_at: iso(Date.parse(snapshot.committed_at) - snapshot.stats.duration_ms - 900),
  started_at: iso(Date.parse(snapshot.committed_at) - snapshot.stats.duration_ms), ended_at: snapshot.committed_at,
  cancel_requested: false, snapshot_id: snapshot.id,
  progress: { files: snapshot.stats.files, source_bytes: snapshot.stats.source_bytes, new_bytes: snapshot.stats.new_bytes, stored_bytes: snapshot.stats.stored_bytes, exceptions: snapshot.stats.exceptions, phase: 'committing' },
  exceptions: snapshot.stats.exceptions === 0 ? [] : [
    { path: '/srv/share/accounts/ledger.mdb', kind: 'changed_while_read', detail: 'size changed from 81920 to 90112' },
    { path: '/srv/share/private/keys', kind: 'unreadable', detail: 'Permission denied (os error 13)' },
    { path: '/srv/share/scan/caf\ufffd.pdf', path_b64: 'c3J2L3NoYXJlL3NjYW4vY2Fm6S5wZGY=', kind: 'vanished', detail: 'No such file or directory (os error 2)' },
  ],
});

export const runs = [
  ...snapshots.map(runOf),
  {
    ...runOf(snapshots[0]), id: id('run', 0xfa11), workload_id: workloads[0].id, state: 'failed', snapshot_id: null,
    created_at: iso(Date.now() - 19 * HOUR), started_at: iso(Date.now() - 19 * HOUR), ended_at: iso(Date.now() - 19 * HOUR + 4_000),
    exceptions: [], error: 'The object store did not accept the upload for 10 minutes. Check its free space, then run again.',
  },
].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));

for (const item of workloads) {
  const own = snapshots.filter((snapshot) => snapshot.workload_id === item.id);
  item.snapshots = own.length;
  item.last_snapshot_at = own[0]?.committed_at;
  item.last_snapshot_id = own[0]?.id;
}

const bytes = (text) => Buffer.from(text, 'latin1');

const entry = (folder, name, kind, size = 0, extra = {}) => ({
  name, path: `${folder === '/' ? '' : folder}/${name}`, kind, size, mode: kind === 'directory' ? 0o755 : kind === 'symlink' ? 0o777 : 0o644,
  uid: 0, gid: 0, modified_at: iso(Date.now() - ((name.length * 7919) % 400) * DAY - 5 * HOUR), ...extra,
});

/** Folders of which a part is lost. */
export const DAMAGED = ['/srv/share/archive'];

/** A folder's entries; null where there is no such folder. */
export function entriesOf(path) {
  switch (path) {
    case '/':
      return [entry('/', 'srv', 'directory'), entry('/', 'var', 'directory')];
    case '/srv':
      return [entry('/srv', 'share', 'directory', 0, { uid: 1000, gid: 1000 })];
    case '/srv/share':
      return [
        entry(path, 'accounts', 'directory'), entry(path, 'archive', 'directory'), entry(path, 'contracts', 'directory'), entry(path, 'empty', 'directory'),
        entry(path, 'caf\ufffd', 'directory', 0, { path_b64: bytes('/srv/share/caf\xe9').toString('base64') }),
        entry(path, 'documents', 'directory'), entry(path, 'Fahrpläne 2026.xlsx', 'file', 812_441, { uid: 1000, gid: 1000 }), entry(path, 'README.txt', 'file', 911),
        entry(path, 'customer-correspondence-with-a-really-long-name-that-has-to-be-cut-somewhere.docx', 'file', 34 * MIB), entry(path, 'current', 'symlink', 0, { link_target: 'archive/2026' }),
        entry(path, 'disk.img', 'file', 5 * GIB), entry(path, 'notify', 'fifo'), entry(path, 'app.sock', 'socket'), entry(path, 'run.sh', 'file', 1440, { mode: 0o755 }),
      ];
    case '/srv/share/documents':
      return [entry(path, 'many', 'directory'), entry(path, 'report.bin', 'file', 3 * MIB)];
    case '/srv/share/documents/many':
      return Array.from({ length: 25_000 }, (_, i) => entry(path, `scan-${String(i).padStart(5, '0')}.tif`, 'file', 64_000 + i * 31));
    case '/srv/share/empty':
      return [];
    case '/srv/share/caf\u00e9-bytes':
      return [entry('/srv/share/caf\ufffd', 'menu.txt', 'file', 204, { path_b64: bytes('/srv/share/caf\xe9/menu.txt').toString('base64') })];
    case '/srv/share/accounts':
    case '/srv/share/archive':
    case '/srv/share/contracts':
    case '/var':
      return [entry(path, 'hostname', 'file', 9), entry(path, 'hosts', 'file', 221), entry(path, 'ssh', 'directory')];
    case '/var/ssh':
      return [entry(path, 'sshd_config', 'file', 3287, { mode: 0o600 })];
    default:
      return null;
  }
}

let seq = 0;
export const audit = {};
export function record(tenantId, action, actor, subject_kind, subject_id, details = {}, ago = 0) {
  seq += 1;
  audit[tenantId] ??= [];
  audit[tenantId].unshift({
    seq, recorded_at: iso(Date.now() - ago + 40), id: id('evt', seq), tenant_id: tenantId, action, actor, subject_kind, subject_id,
    occurred_at: iso(Date.now() - ago), request_id: `req-${seq.toString(36).padStart(12, '0')}`, details,
  });
}

for (const snapshot of [...snapshots].reverse().slice(-60)) {
  const ago = Date.now() - Date.parse(snapshot.committed_at);
  const by = { kind: 'agent', id: snapshot.agent_id };
  record(TEN.tenant, 'run.finished', by, 'run', snapshot.run_id, { state: snapshot.status }, ago - 500);
  record(TEN.tenant, 'snapshot.committed', by, 'snapshot', snapshot.id, { files: snapshot.stats.files, stored_bytes: snapshot.stats.stored_bytes }, ago);
}
record(TEN.tenant, 'tenant.accessed', { kind: 'user', id: people[1].id, home_tenant_id: TEN.msp }, 'tenant', TEN.tenant, {}, 50 * 60_000);
record(TEN.tenant, 'session.started', { kind: 'user', id: people[2].id }, 'user', people[2].id, {}, 4 * 60_000);
record(TEN.msp, 'session.started', { kind: 'user', id: people[1].id }, 'user', people[1].id, {}, 55 * 60_000);

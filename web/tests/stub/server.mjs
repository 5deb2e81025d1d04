/**
 * A stand-in for the platform, for screenshots and for trying the e2e specs without one: the same paths,
 * token rules and content security policy over recorded answers. Not a test double for claims about the
 * platform: those are made against `everhold dev`.
 *
 *   node tests/stub/server.mjs [--port 4180] [--state DIR]     writes DIR/dev.json
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { agents, audit, DAMAGED, entriesOf, id, iso, people, record, runs, snapshots, TEN, tenants, workloads } from './data.mjs';

const { values } = parseArgs({ options: { port: { type: 'string', default: '4180' }, state: { type: 'string' } } });
const port = Number(values.port);
const dist = fileURLToPath(new URL('../../dist', import.meta.url));
// The platform's own policy (crates/everhold/src/portal.rs).
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };
const LIFE_S = 300;

const refreshTokens = new Map();
const used = new Set();
const b64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

class Refusal extends Error {
  constructor(status, code, advice = 'reject', detail = undefined) {
    super(code);
    Object.assign(this, { status, code, advice, detail });
  }
}
const refuse = (...args) => { throw new Refusal(...args); };

function issue(person, tenantId, family) {
  const claims = { iss: 'stub', aud: 'everhold', sub: person.id, ten: tenantId, home: person.home, roles: person.roles, exp: Math.floor(Date.now() / 1000) + LIFE_S };
  const refresh_token = `evh_rt_${person.home.slice(4)}_${randomBytes(32).toString('base64url')}`;
  refreshTokens.set(refresh_token, { person, family });
  return { access_token: `${b64({ typ: 'at+jwt' })}.${b64(claims)}.stub`, refresh_token, token_type: 'Bearer', expires_in: LIFE_S };
}

function actingTenant(person, wanted) {
  if (!wanted || wanted === person.home) return person.home;
  const found = tenants.find((tenant) => tenant.id === wanted && tenant.parent_id === person.home);
  if (!found) refuse(404, 'not_found');
  record(wanted, 'tenant.accessed', { kind: 'user', id: person.id, home_tenant_id: person.home }, 'tenant', wanted);
  return wanted;
}

function token(body) {
  if (body.grant_type === 'password') {
    const person = people.find((candidate) => candidate.email === body.email && candidate.password === body.password);
    if (!person) refuse(401, 'wrong_credentials');
    return issue(person, actingTenant(person, body.tenant_id), randomBytes(8).toString('hex'));
  }
  const known = refreshTokens.get(body.refresh_token);
  if (used.has(body.refresh_token)) {
    for (const [key, value] of refreshTokens) if (value.family === known?.family) refreshTokens.delete(key);
    refuse(401, 'token_reused');
  }
  if (!known) refuse(401, 'unauthenticated');
  const tenantId = actingTenant(known.person, body.tenant_id);
  used.add(body.refresh_token);
  return issue(known.person, tenantId, known.family);
}

function claimsOf(request) {
  const [, payload] = (request.headers.authorization ?? '').replace('Bearer ', '').split('.');
  if (!payload) refuse(401, 'unauthenticated');
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  if (claims.exp * 1000 < Date.now()) refuse(401, 'token_expired');
  return claims;
}

function page(items, query, fallback = 100) {
  const limit = Math.min(Number(query.get('limit') ?? fallback), 1000);
  const start = Number(query.get('cursor') ?? 0);
  const end = start + limit;
  return { items: items.slice(start, end), ...(end < items.length ? { next_cursor: String(end) } : {}) };
}

const one = (list, wanted) => list.find((item) => item.id === wanted) ?? refuse(404, 'not_found');
const of = (list, tenantId) => list.filter((item) => item.tenant_id === tenantId);
const plain = ({ paths: _, ...workload }) => workload;

function me(claims) {
  const person = people.find((candidate) => candidate.id === claims.sub);
  return { id: person.id, email: person.email, name: person.name, home_tenant_id: person.home, tenant: one(tenants, claims.ten), roles: person.roles };
}

/** The simulated agent: works a run off in a few seconds. */
const watchers = new Map();
function tell(run) {
  for (const send of watchers.get(run.id) ?? []) send(run);
}
function drive(run, workload) {
  const steps = ['scanning', 'scanning', 'uploading', 'uploading', 'uploading', 'committing'];
  let step = -1;
  const timer = setInterval(() => {
    step += 1;
    if (step === 0) Object.assign(run, { state: 'running', started_at: iso(Date.now()) });
    if (step < steps.length && !run.cancel_requested) {
      run.progress = { files: 1_911 * (step + 1) ** 2, source_bytes: 610_000_000 * (step + 1) ** 2, new_bytes: 4_100_000 * (step + 1), stored_bytes: 2_300_000 * step, exceptions: 0, phase: steps[step] };
      return tell(run);
    }
    clearInterval(timer);
    run.ended_at = iso(Date.now());
    run.state = run.cancel_requested ? 'canceled' : 'succeeded';
    if (!run.cancel_requested) {
      const snapshot = { ...snapshots.find((item) => item.workload_id === workload.id), id: id('snp', Date.now()), run_id: run.id, committed_at: run.ended_at, status: 'succeeded' };
      snapshot.locked_until = iso(Date.now() + 37 * 86_400_000);
      snapshots.unshift(snapshot);
      Object.assign(workload, { last_snapshot_at: snapshot.committed_at, last_snapshot_id: snapshot.id, snapshots: workload.snapshots + 1 });
      run.snapshot_id = snapshot.id;
      record(run.tenant_id, 'snapshot.committed', { kind: 'agent', id: run.agent_id }, 'snapshot', snapshot.id);
    }
    tell(run);
  }, 900);
}

function createRun(tenantId, body, claims) {
  const workload = one(of(workloads, tenantId), body.workload_id);
  if (workload.name === 'db-02') refuse(409, 'no_sources', 'reject', 'The workload has never run from a list of paths.');
  const run = { id: id('run', Date.now()), tenant_id: tenantId, workload_id: workload.id, agent_id: workload.agent_id, trigger: 'manual', state: 'queued', source: { paths: workload.paths, excludes: [], tags: {} }, created_at: iso(Date.now()), cancel_requested: false, progress: { files: 0, source_bytes: 0, new_bytes: 0, stored_bytes: 0, exceptions: 0, phase: '' }, exceptions: [] };
  runs.unshift(run);
  record(tenantId, 'run.queued', { kind: 'user', id: claims.sub }, 'run', run.id);
  drive(run, workload);
  return run;
}

function watch(run, response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const send = (current) => {
    response.write(`event: run\ndata: ${JSON.stringify(current)}\n\n`);
    if (!['queued', 'running'].includes(current.state)) response.end();
  };
  send(run);
  const set = watchers.get(run.id) ?? new Set();
  watchers.set(run.id, set.add(send));
  response.on('close', () => set.delete(send));
}

function entries(snapshot, query) {
  const raw = query.get('path_b64');
  const path = raw ? (Buffer.from(raw, 'base64').toString('latin1').includes('caf\xe9') ? '/srv/share/caf\u00e9-bytes' : Buffer.from(raw, 'base64').toString()) : (query.get('path') ?? '/');
  return { ...page(entriesOf(path) ?? refuse(404, 'not_found'), query), incomplete: DAMAGED.includes(path) };
}

function mint(tenantId, body, claims) {
  const made = { id: id('tok', Date.now()), label: body.label ?? '', max_uses: body.max_uses ?? 1, uses: 0, expires_at: iso(Date.now() + (body.ttl_s ?? 86_400) * 1000), created_at: iso(Date.now()) };
  record(tenantId, 'enrolment_token.created', { kind: 'user', id: claims.sub }, 'enrolment_token', made.id);
  if (made.label === 'arrive') setTimeout(() => agents[tenantId].push({ ...agents[TEN.tenant][0], id: id('agt', Date.now()), name: 'web-07', enrolled_at: iso(Date.now()) }), 1500);
  return { ...made, token: `evh_en_${tenantId.slice(4)}_${createHash('sha256').update(made.id).digest('base64url')}` };
}

/** Everything below `/v1/tenants/{tenant}/`. */
function inTenant(tenantId, rest, { method, query, body, claims, response }) {
  if (claims.ten !== tenantId) refuse(404, 'not_found');
  const [kind, item, sub] = rest;
  const key = `${method} ${kind}${item ? '/1' : ''}${sub ? `/${sub}` : ''}`;
  const wanted = query.get('workload_id');
  const listed = (list) => of(list, tenantId).filter((x) => !wanted || x.workload_id === wanted);
  switch (key) {
    case 'GET workloads': return page(of(workloads, tenantId).map(plain), query);
    case 'GET workloads/1': return plain(one(of(workloads, tenantId), item));
    case 'GET agents': return page(agents[tenantId] ?? [], query);
    case 'GET snapshots': return page(listed(snapshots), query);
    case 'GET snapshots/1': return one(of(snapshots, tenantId), item);
    case 'GET snapshots/1/entries': return entries(one(of(snapshots, tenantId), item), query);
    case 'GET runs': return page(listed(runs), query);
    case 'POST runs': return createRun(tenantId, body, claims);
    case 'GET runs/1': return one(of(runs, tenantId), item);
    case 'GET runs/1/events': return watch(one(of(runs, tenantId), item), response);
    case 'POST runs/1/cancel': return Object.assign(one(of(runs, tenantId), item), { cancel_requested: true });
    case 'GET audit/1': return page(audit[tenantId] ?? [], query);
    case 'POST enrolment-tokens': return mint(tenantId, body, claims);
    default: return refuse(404, 'not_found');
  }
}

function answer(request, url, body, response) {
  const query = url.searchParams;
  if (url.pathname === '/v1/auth/token') return token(body);
  if (url.pathname === '/v1/auth/revoke') return refreshTokens.delete(body.refresh_token) && null;
  const claims = claimsOf(request);
  if (url.pathname === '/v1/me') return me(claims);
  if (url.pathname === '/v1/tenants') return page(tenants.filter((tenant) => [tenant.id, tenant.parent_id].includes(claims.ten)), query);
  const [, , , tenantId, ...rest] = url.pathname.split('/');
  return inTenant(tenantId, rest, { method: request.method, query, body, claims, response });
}

function serveFile(pathname, response) {
  const wanted = normalize(pathname).replace(/^(\.\.[/\\])+/, '');
  const name = extname(wanted) ? wanted : 'index.html';
  try {
    const file = readFileSync(join(dist, name));
    response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream', 'content-security-policy': CSP, 'x-content-type-options': 'nosniff' });
    response.end(file);
  } catch {
    response.writeHead(404).end();
  }
}

async function handle(request, response) {
  const url = new URL(request.url, `http://localhost:${port}`);
  if (!url.pathname.startsWith('/v1/')) return serveFile(url.pathname, response);
  const requestId = randomBytes(8).toString('hex');
  response.setHeader('x-request-id', requestId);
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const result = answer(request, url, chunks.length > 0 ? JSON.parse(Buffer.concat(chunks).toString()) : {}, response);
    if (response.headersSent) return undefined;
    if (result === null || result === undefined) return response.writeHead(204).end();
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify(result));
  } catch (error) {
    const { status = 500, code = 'internal', advice = 'bug', detail } = error instanceof Refusal ? error : {};
    if (status === 500) console.error(error);
    response.writeHead(status, { 'content-type': 'application/problem+json' });
    return response.end(JSON.stringify({ code, status, title: code, advice, detail, request_id: requestId }));
  }
}

createServer((request, response) => void handle(request, response)).listen(port, '127.0.0.1', () => {
  const origin = `http://localhost:${port}`;
  const account = (n) => ({ email: people[n].email, password: people[n].password });
  if (values.state) {
    mkdirSync(values.state, { recursive: true });
    const dev = { portal_url: origin, api_url: origin, admin: account(0), msp: account(1), tenant: { id: TEN.tenant, ...account(2) }, other_tenant: { id: TEN.other, ...account(3) }, enrolment_token: 'evh_en_stub' };
    writeFileSync(join(values.state, 'dev.json'), JSON.stringify(dev, null, 2), { mode: 0o600 });
  }
  console.log(`stub: ${origin}, sign in as ${people.map((person) => person.email).join(', ')} with "${people[0].password}"`);
});

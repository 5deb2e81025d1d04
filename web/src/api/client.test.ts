import { describe, expect, it } from 'vitest';
import { BELOW, HOME, Network, page, problem, tokens } from '../../tests/network';
import { Session } from '../auth/session';
import { createApi, unwrap } from './client';
import { ApiProblem, Unreachable } from './problem';
import { meQuery, startRun, workloadQuery } from './queries';

const WORKLOADS = `/v1/tenants/${BELOW}/workloads`;

async function setUp(table: ConstructorParameters<typeof Network>[0]) {
  let n = 0;
  const network = new Network({
    'POST /v1/auth/token': ({ body }) => tokens(++n, (body as { tenant_id?: string }).tenant_id ?? HOME),
    ...table,
  });
  const session = new Session({ fetch: network.fetch, storage: sessionStorage, now: () => 0 });
  await session.signIn('a@b.test', 'secret');
  return { network, session, api: createApi(session, network.fetch) };
}

const listBelow = (api: ReturnType<typeof createApi>) =>
  unwrap(api.GET('/v1/tenants/{tenant_id}/workloads', { params: { path: { tenant_id: BELOW } } }));

describe('the client', () => {
  it('carries the token that is valid in the tenant of the path', async () => {
    const { network, api } = await setUp({ [`GET ${WORKLOADS}`]: page(), 'GET /v1/tenants': page() });
    await listBelow(api);
    await unwrap(api.GET('/v1/tenants'));
    const of = (key: string) => network.of(key)[0]?.token;
    expect(of(`GET ${WORKLOADS}`)).toBe(`Bearer ${tokens(2, BELOW).access_token}`);
    expect(of('GET /v1/tenants')).toBe(`Bearer ${tokens(1).access_token}`);
  });

  it('asks who one is in another tenant without telling the server its own header', async () => {
    const { network, api } = await setUp({ 'GET /v1/me': {} });
    const { queryFn } = meQuery(api, BELOW);
    await (queryFn as (context: object) => Promise<unknown>)({});
    const [asked] = network.of('GET /v1/me');
    expect(asked?.token).toBe(`Bearer ${tokens(2, BELOW).access_token}`);
    expect(asked?.headers.get('x-portal-acting-tenant')).toBeNull();
  });

  it('replaces a refused token once and repeats the call with the same idempotency key', async () => {
    let refusals = 1;
    const runs = `/v1/tenants/${BELOW}/runs`;
    const { network, api } = await setUp({
      [`POST ${runs}`]: () => (refusals-- > 0 ? problem(401, 'token_expired') : { id: 'run_1' }),
    });
    await expect(startRun(api, BELOW, 'wkl_1')).resolves.toEqual({ id: 'run_1' });
    const [first, second] = network.of(`POST ${runs}`);
    expect(second?.token).not.toBe(first?.token);
    expect(second?.body).toEqual({ workload_id: 'wkl_1' });
    expect(first?.headers.get('idempotency-key')).toBeTruthy();
    expect(second?.headers.get('idempotency-key')).toBe(first?.headers.get('idempotency-key'));
  });

  it('ends the session when the fresh token is refused too', async () => {
    const { session, api } = await setUp({ [`GET ${WORKLOADS}`]: problem(401, 'unauthenticated') });
    await expect(listBelow(api)).rejects.toMatchObject({ code: 'unauthenticated' });
    expect(session.signedIn).toBe(false);
  });

  it('turns a problem into an error with its request id', async () => {
    const { api } = await setUp({ [`GET ${WORKLOADS}`]: problem(403, 'forbidden') });
    const error = await listBelow(api).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(ApiProblem);
    expect(error).toMatchObject({ code: 'forbidden', requestId: 'req-0001' });
  });

  it('tells a page of a proxy from an answer of the platform', async () => {
    const { api } = await setUp({
      [`GET ${WORKLOADS}`]: new Response('<h1>Bad gateway</h1>', { status: 502 }),
    });
    await expect(listBelow(api)).rejects.toBeInstanceOf(Unreachable);
  });

  it('says that the server cannot be reached', async () => {
    const { api } = await setUp({ [`GET ${WORKLOADS}`]: () => Promise.reject(new TypeError('failed')) });
    await expect(listBelow(api)).rejects.toBeInstanceOf(Unreachable);
  });

  it('keys every answer of a tenant by the tenant', () => {
    const { queryKey } = workloadQuery({} as ReturnType<typeof createApi>, BELOW, 'wkl_1');
    expect(queryKey[0]).toBe(BELOW);
  });
});

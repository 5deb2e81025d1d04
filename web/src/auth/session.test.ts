import { describe, expect, it, vi } from 'vitest';
import { BELOW, HOME, Network, problem, tokens } from '../../tests/network';
import { SignedOut, Unreachable } from '../api/problem';
import { Session } from './session';

const TOKEN = 'POST /v1/auth/token';

function setUp(answer: ConstructorParameters<typeof Network>[0][string]) {
  const network = new Network({ [TOKEN]: answer, 'POST /v1/auth/revoke': null });
  let now = 1_000_000;
  const session = new Session({ fetch: network.fetch, storage: sessionStorage, now: () => now });
  return { network, session, pass: (ms: number) => (now += ms) };
}

/** Answers every token request with the next pair, valid where it was asked for. */
function counting() {
  let n = 0;
  return ({ body }: { body: unknown }) => tokens(++n, (body as { tenant_id?: string }).tenant_id ?? HOME);
}

describe('the session', () => {
  it('keeps the access token out of every storage', async () => {
    const { session } = setUp(tokens(1));
    await session.signIn('a@b.test', 'secret');
    const stored = JSON.stringify({ ...sessionStorage }) + JSON.stringify({ ...localStorage });
    expect(stored).toContain('evh_rt_1');
    expect(stored).not.toContain(await session.token(null));
  });

  it('refreshes once for many callers at the same time', async () => {
    const { network, session, pass } = setUp(counting());
    await session.signIn('a@b.test', 'secret');
    pass(290_000);
    const got = await Promise.all(Array.from({ length: 8 }, () => session.token(null)));
    expect(new Set(got).size).toBe(1);
    expect(network.of(TOKEN).map((asked) => asked.body)).toEqual([
      { grant_type: 'password', email: 'a@b.test', password: 'secret' },
      { grant_type: 'refresh_token', refresh_token: 'evh_rt_1', tenant_id: HOME },
    ]);
  });

  it('never uses a refresh token twice, also for two tenants at once', async () => {
    const { network, session, pass } = setUp(counting());
    await session.signIn('a@b.test', 'secret');
    pass(290_000);
    await Promise.all([session.token(null), session.token(BELOW), session.token(HOME)]);
    expect(network.of(TOKEN).slice(1).map((asked) => asked.body)).toEqual([
      { grant_type: 'refresh_token', refresh_token: 'evh_rt_1', tenant_id: HOME },
      { grant_type: 'refresh_token', refresh_token: 'evh_rt_2', tenant_id: BELOW },
    ]);
  });

  it('survives a reload by its refresh token alone', async () => {
    const { network, session } = setUp(counting());
    await session.signIn('a@b.test', 'secret');
    const reloaded = new Session({ fetch: network.fetch, storage: sessionStorage, now: () => 0 });
    expect(reloaded.signedIn).toBe(true);
    expect(reloaded.home).toBe(HOME);
    await reloaded.token(null);
    expect(network.of(TOKEN).at(-1)?.body).toEqual({ grant_type: 'refresh_token', refresh_token: 'evh_rt_1', tenant_id: HOME });
  });

  it('ends when the refresh token is refused, and says so once', async () => {
    const { network, session, pass } = setUp(tokens(1));
    await session.signIn('a@b.test', 'secret');
    const told = vi.fn();
    session.subscribe(told);
    network.table[TOKEN] = problem(401, 'token_reused');
    pass(400_000);
    await expect(Promise.all([session.token(null), session.token(null)])).rejects.toBeInstanceOf(SignedOut);
    expect(told.mock.calls).toEqual([['expired']]);
    expect(session.signedIn).toBe(false);
    expect(sessionStorage.getItem('everhold.session')).toBeNull();
  });

  it('stays when the server cannot be reached or the tenant is not its to see', async () => {
    const { network, session, pass } = setUp(tokens(1));
    await session.signIn('a@b.test', 'secret');
    pass(400_000);
    network.table[TOKEN] = () => Promise.reject(new TypeError('network'));
    await expect(session.token(null)).rejects.toBeInstanceOf(Unreachable);
    network.table[TOKEN] = problem(404, 'not_found');
    await expect(session.token(BELOW)).rejects.toMatchObject({ code: 'not_found' });
    expect(session.signedIn).toBe(true);
  });

  it('is not brought back by a refresh that was under way at sign-out', async () => {
    const { network, session, pass } = setUp(tokens(1));
    await session.signIn('a@b.test', 'secret');
    pass(400_000);
    let release: (value: object) => void = () => undefined;
    network.table[TOKEN] = () => new Promise<object>((resolve) => (release = resolve));
    const flight = session.token(null);
    await vi.waitFor(() => expect(network.of(TOKEN)).toHaveLength(2));
    const out = session.signOut();
    release(tokens(2));
    await expect(flight).rejects.toBeInstanceOf(SignedOut);
    await out;
    expect(session.signedIn).toBe(false);
    expect(sessionStorage.getItem('everhold.session')).toBeNull();
  });

  it('signs out here even when the server does not answer', async () => {
    const { network, session } = setUp(tokens(1));
    await session.signIn('a@b.test', 'secret');
    network.table['POST /v1/auth/revoke'] = () => Promise.reject(new TypeError('network'));
    await session.signOut();
    expect(session.signedIn).toBe(false);
    expect(network.of('POST /v1/auth/revoke')[0]?.body).toEqual({ refresh_token: 'evh_rt_1' });
  });

  it('ignores a stored session it cannot read', () => {
    sessionStorage.setItem('everhold.session', '{"refreshToken":7}');
    expect(setUp(tokens(1)).session.signedIn).toBe(false);
    sessionStorage.setItem('everhold.session', 'not json');
    expect(setUp(tokens(1)).session.signedIn).toBe(false);
  });
});

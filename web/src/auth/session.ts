/**
 * The session: who is signed in, and which bearer token a call carries.
 *
 * Owns the access tokens (in memory only, one per tenant acted in) and the one-time refresh token. The
 * refresh token lies in sessionStorage for now: issue C replaces this module's storage by an opaque
 * `__Host-` cookie that scripts cannot read, and nothing outside this file changes then.
 * Invariant: refresh tokens are used strictly one after another, and each once. The server ends every
 * session descending from a token that is used twice.
 */
import { ApiProblem, problemOf, SignedOut, Unreachable } from '../api/problem';
import type { TokenReply } from '../api/types';

export type EndReason = 'signed_out' | 'expired';

interface Stored {
  refreshToken: string;
  /** Tenant of the account. */
  home: string;
}

interface Held {
  token: string;
  expiresAt: number;
}

export interface SessionParts {
  fetch: typeof fetch;
  storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;
  now: () => number;
}

const KEY = 'everhold.session';
/** A token this close to its end is not used for a new call. */
const MARGIN_MS = 20_000;
const HOME = '';

/** The `home` claim, read to know where one's own pages are. The server decides everything. */
function homeOf(accessToken: string): string {
  const payload = accessToken.split('.')[1] ?? '';
  const json = atob(payload.replaceAll('-', '+').replaceAll('_', '/'));
  const claims: unknown = JSON.parse(json);
  if (typeof claims === 'object' && claims !== null && 'home' in claims) return String(claims.home);
  throw new Unreachable('the access token names no home tenant');
}

export class Session {
  #stored: Stored | null;
  #held = new Map<string, Held>();
  #flights = new Map<string, Promise<string>>();
  #tail: Promise<unknown> = Promise.resolve();
  #listeners = new Set<(reason: EndReason | null) => void>();

  constructor(private readonly parts: SessionParts) {
    this.#stored = this.#load();
  }

  get signedIn(): boolean {
    return this.#stored !== null;
  }

  /** Tenant of the account, while signed in. */
  get home(): string | null {
    return this.#stored?.home ?? null;
  }

  /** Calls back with `null` at sign-in and with the reason at the end. */
  subscribe(listener: (reason: EndReason | null) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async signIn(email: string, password: string): Promise<void> {
    const reply = await this.#ask({ grant_type: 'password', email, password });
    this.#held.clear();
    this.#keep(HOME, homeOf(reply.access_token), reply);
    this.#tell(null);
  }

  /** A token valid in `tenant` (null: the account's own), refreshed when due. One flight per tenant. */
  token(tenant: string | null): Promise<string> {
    const stored = this.#stored;
    if (!stored) return Promise.reject(new SignedOut());
    const key = this.#keyOf(tenant, stored);
    const held = this.#held.get(key);
    if (held && held.expiresAt - MARGIN_MS > this.parts.now()) return Promise.resolve(held.token);
    const flying = this.#flights.get(key);
    if (flying) return flying;
    // Behind the tail, because two rotations at once would present the same refresh token twice.
    const flight = this.#tail.then(() => this.#rotate(key)).finally(() => this.#flights.delete(key));
    this.#tail = flight.catch(() => undefined);
    this.#flights.set(key, flight);
    return flight;
  }

  /** Drops an access token the server refused, unless a newer one has taken its place. */
  forget(tenant: string | null, refused: string): void {
    if (!this.#stored) return;
    const key = this.#keyOf(tenant, this.#stored);
    if (this.#held.get(key)?.token === refused) this.#held.delete(key);
  }

  /** Ends the session here, then at the server. Signing out never fails for the person doing it. */
  async signOut(): Promise<void> {
    const refresh_token = this.#stored?.refreshToken;
    this.end('signed_out');
    if (!refresh_token) return;
    await this.#post('/v1/auth/revoke', { refresh_token }).catch(() => undefined);
  }

  end(reason: EndReason): void {
    if (!this.#stored) return;
    this.#stored = null;
    this.#held.clear();
    this.parts.storage.removeItem(KEY);
    this.#tell(reason);
  }

  async #rotate(key: string): Promise<string> {
    const stored = this.#stored;
    if (!stored) throw new SignedOut();
    const held = this.#held.get(key);
    if (held && held.expiresAt - MARGIN_MS > this.parts.now()) return held.token;
    try {
      const reply = await this.#ask({
        grant_type: 'refresh_token',
        refresh_token: stored.refreshToken,
        // Always named: without it the token would stay where the last one was.
        tenant_id: key === HOME ? stored.home : key,
      });
      // Signed out while the answer was on its way: it must not bring the session back.
      if (this.#stored !== stored) throw new SignedOut();
      this.#keep(key, stored.home, reply);
      return reply.access_token;
    } catch (error) {
      if (error instanceof ApiProblem && error.problem.status === 401) {
        if (this.#stored === stored) this.end('expired');
        throw new SignedOut();
      }
      throw error;
    }
  }

  #keep(key: string, home: string, reply: TokenReply): void {
    this.#stored = { refreshToken: reply.refresh_token, home };
    this.parts.storage.setItem(KEY, JSON.stringify(this.#stored));
    this.#held.set(key, {
      token: reply.access_token,
      expiresAt: this.parts.now() + reply.expires_in * 1000,
    });
  }

  async #ask(body: object): Promise<TokenReply> {
    const response = await this.#post('/v1/auth/token', body);
    const answer: unknown = await response.json().catch(() => null);
    if (!response.ok) throw problemOf(answer, response);
    return answer as TokenReply;
  }

  #post(path: string, body: object): Promise<Response> {
    return this.parts
      .fetch(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      .catch((cause: unknown) => {
        throw new Unreachable('the server cannot be reached', { cause });
      });
  }

  #keyOf(tenant: string | null, stored: Stored): string {
    return tenant === null || tenant === stored.home ? HOME : tenant;
  }

  #load(): Stored | null {
    try {
      const value: unknown = JSON.parse(this.parts.storage.getItem(KEY) ?? 'null');
      if (typeof value !== 'object' || value === null) return null;
      const { refreshToken, home } = value as Partial<Stored>;
      return typeof refreshToken === 'string' && typeof home === 'string' ? { refreshToken, home } : null;
    } catch {
      return null;
    }
  }

  #tell(reason: EndReason | null): void {
    for (const listener of this.#listeners) listener(reason);
  }
}

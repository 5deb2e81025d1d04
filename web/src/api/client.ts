/**
 * The typed client. A token is valid in exactly one tenant, so the path says which token a call carries;
 * there is no "current tenant" to get wrong.
 */
import createClient from 'openapi-fetch';
import type { Session } from '../auth/session';
import { problemOf, Unreachable } from './problem';
import type { paths } from './schema';

/** Says for which tenant `/v1/me` is asked; never leaves the browser. */
export const ACTING_HEADER = 'x-portal-acting-tenant';

const TENANT_PATH = /^\/v1\/tenants\/([^/]+)\//;

function tenantOf(request: Request): string | null {
  return request.headers.get(ACTING_HEADER) ?? TENANT_PATH.exec(new URL(request.url).pathname)?.[1] ?? null;
}

/** fetch with a bearer token; a refused token is replaced once, a second refusal ends the session. */
export function authorizedFetch(session: Session, send: typeof fetch): (request: Request) => Promise<Response> {
  const attempt = async (request: Request, tenant: string | null): Promise<[Response, string]> => {
    const token = await session.token(tenant);
    const headers = new Headers(request.headers);
    headers.delete(ACTING_HEADER);
    headers.set('authorization', `Bearer ${token}`);
    try {
      return [await send(new Request(request, { headers })), token];
    } catch (cause) {
      if (request.signal.aborted) throw cause;
      throw new Unreachable('the server cannot be reached', { cause });
    }
  };
  return async (request) => {
    const tenant = tenantOf(request);
    const again = request.clone();
    const [first, token] = await attempt(request, tenant);
    if (first.status !== 401) return first;
    session.forget(tenant, token);
    const [second] = await attempt(again, tenant);
    if (second.status === 401) session.end('expired');
    return second;
  };
}

export function createApi(session: Session, send: typeof fetch = (...args) => fetch(...args)) {
  const authorized = authorizedFetch(session, send);
  const client = createClient<paths>({ baseUrl: window.location.origin, fetch: authorized });
  client.use({
    onRequest({ request }) {
      // One key per intent: the retry after a token refresh must not make a second run.
      if (request.method === 'POST') request.headers.set('idempotency-key', crypto.randomUUID());
      return request;
    },
  });
  return { ...client, stream: authorized };
}

export type Api = ReturnType<typeof createApi>;

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The body of a good answer; anything else is thrown as what it means. */
export async function unwrap<T>(call: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw problemOf(error, response);
  return data as T;
}

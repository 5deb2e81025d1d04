/** The network as recorded: a fetch that answers from a table and remembers what it was asked. */
import type { Problem } from '../src/api/types';

export interface Asked {
  method: string;
  path: string;
  search: string;
  token: string | null;
  headers: Headers;
  body: unknown;
}

type Answer = Response | object | null;
type Answerer = (asked: Asked) => Answer | Promise<Answer>;
type Handler = Answer | Answerer;

export const HOME = 'ten_00000000000000000000000000000001';
export const BELOW = 'ten_00000000000000000000000000000002';

const base64url = (value: object) =>
  btoa(JSON.stringify(value)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');

/** A token reply whose access token says where it is valid. */
export const tokens = (n: number, ten = HOME) => ({
  access_token: `head.${base64url({ ten, home: HOME, n })}.sig`,
  refresh_token: `evh_rt_${n}`,
  token_type: 'Bearer',
  expires_in: 300,
});

export function problem(status: number, code: Problem['code'], rest: Partial<Problem> = {}): Response {
  const body = { code, status, title: `title of ${code}`, advice: 'reject', request_id: 'req-0001', ...rest };
  return new Response(JSON.stringify(body), {
    status,
    headers: { 'content-type': 'application/problem+json' },
  });
}

export const page = (...items: object[]) => ({ items });

export class Network {
  readonly asked: Asked[] = [];

  /** Keys: `GET /v1/me`. A handler is an answer or makes one. */
  constructor(readonly table: Record<string, Handler>) {}

  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const target = typeof input === 'string' ? new URL(input, window.location.origin) : input;
    const request = new Request(target, init);
    const url = new URL(request.url);
    const text = await request.text();
    const asked: Asked = {
      method: request.method,
      path: url.pathname,
      search: url.search,
      token: request.headers.get('authorization'),
      headers: request.headers,
      body: text ? (JSON.parse(text) as unknown) : null,
    };
    this.asked.push(asked);
    const handler = this.table[`${asked.method} ${asked.path}`] ?? problem(404, 'not_found');
    const answer = typeof handler === 'function' ? await (handler as Answerer)(asked) : handler;
    if (answer instanceof Response) return answer.clone();
    if (answer === null) return new Response(null, { status: 204 });
    return new Response(JSON.stringify(answer), { headers: { 'content-type': 'application/json' } });
  };

  of(key: string): Asked[] {
    return this.asked.filter((asked) => `${asked.method} ${asked.path}` === key);
  }
}

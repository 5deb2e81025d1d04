/** What can go wrong with a call: the server said no, or nobody answered. */
import type { Problem } from './types';

/** The server answered with a problem (RFC 9457). */
export class ApiProblem extends Error {
  override readonly name = 'ApiProblem';

  constructor(
    readonly problem: Problem,
    readonly requestId: string | undefined,
  ) {
    super(problem.title);
  }

  get code(): Problem['code'] {
    return this.problem.code;
  }
}

/** No answer, or an answer that is not Everhold's (a proxy's error page). */
export class Unreachable extends Error {
  override readonly name = 'Unreachable';
}

/** There is no session (any more); the way on is the sign-in page. */
export class SignedOut extends Error {
  override readonly name = 'SignedOut';
}

function isProblem(body: unknown): body is Problem {
  return typeof body === 'object' && body !== null && 'code' in body && 'status' in body;
}

/** The error a failed response stands for. */
export function problemOf(body: unknown, response: Response): Error {
  if (!isProblem(body)) return new Unreachable(`unexpected answer ${response.status}`);
  return new ApiProblem(body, body.request_id ?? response.headers.get('x-request-id') ?? undefined);
}

/** Whether the same call may succeed later. */
export function isRetryable(error: unknown): boolean {
  if (error instanceof ApiProblem) return error.problem.advice === 'retry';
  return error instanceof Unreachable;
}

export function hasCode(error: unknown, ...codes: Problem['code'][]): boolean {
  return error instanceof ApiProblem && codes.includes(error.code);
}

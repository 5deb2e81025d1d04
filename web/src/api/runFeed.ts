/**
 * Live progress of one run: the event stream while it can be had, polling while it cannot.
 * Knows nothing of React; `useRunLive` draws what it says.
 */
import type { Api } from './client';
import { problemOf } from './problem';
import { events } from './sse';
import { isActive, type Run } from './types';

/** `live`: events arrive. `polling`: the stream is down, asking instead. `stale`: asking fails too. */
export type FeedState = 'connecting' | 'live' | 'polling' | 'stale';

export interface FeedHandlers {
  onRun: (run: Run) => void;
  onState: (state: FeedState) => void;
  /** Asks once, without a stream. */
  poll: () => Promise<Run>;
}

/** Before a stream that closed in good order is opened again. */
const REOPEN_MS = 300;
const POLL_MS = 2_000;
/** Longest wait before the stream is tried again. */
const BACKOFF_MAX_MS = 15_000;
/** Servers send a comment every 15 s; three missed ones mean the line is dead. */
const SILENCE_MS = 45_000;

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done);
  });
}

/** The run an event tells of; null for events of another kind. */
function runOf(data: string): Run | null {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === 'object' && value !== null && 'state' in value && 'progress' in value
      ? (value as Run)
      : null;
  } catch {
    return null;
  }
}

/** `ended`: the run has. `cut`: a good stream closed (servers limit how long one lasts). `lost`: it told nothing. */
type Outcome = 'ended' | 'cut' | 'lost';

/** Follows the stream until it ends. */
async function follow(
  api: Api,
  tenant: string,
  run: string,
  handlers: FeedHandlers,
  outer: AbortSignal,
): Promise<Outcome> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  const signal = AbortSignal.any([outer, silence.signal]);
  try {
    const url = `${window.location.origin}/v1/tenants/${tenant}/runs/${run}/events`;
    const response = await api.stream(new Request(url, { headers: { accept: 'text/event-stream' }, signal }));
    if (!response.ok || !response.body) throw problemOf(await response.json().catch(() => null), response);
    handlers.onState('live');
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    let told = false;
    for await (const event of events(response.body, alive)) {
      const current = runOf(event.data);
      if (!current) continue;
      handlers.onRun(current);
      if (!isActive(current)) return 'ended';
      told = true;
    }
    return told ? 'cut' : 'lost';
  } finally {
    clearTimeout(timer);
  }
}

/** Keeps `handlers` informed until the run has ended or `signal` aborts. Never throws. */
export async function watchRun(
  api: Api,
  tenant: string,
  run: string,
  handlers: FeedHandlers,
  signal: AbortSignal,
): Promise<void> {
  handlers.onState('connecting');
  for (let failures = 0; !signal.aborted; failures++) {
    try {
      const outcome = await follow(api, tenant, run, handlers, signal);
      if (outcome === 'ended') return;
      if (outcome === 'cut') {
        failures = -1;
        await pause(REOPEN_MS, signal);
        continue;
      }
    } catch {
      // The polls below say what is wrong, in words, if it matters.
    }
    const retryAt = Math.min(1_000 * 2 ** failures, BACKOFF_MAX_MS);
    for (let waited = 0; waited < retryAt && !signal.aborted; waited += POLL_MS) {
      try {
        const current = await handlers.poll();
        if (signal.aborted) return;
        handlers.onRun(current);
        if (!isActive(current)) return;
        handlers.onState('polling');
      } catch {
        if (!signal.aborted) handlers.onState('stale');
      }
      await pause(POLL_MS, signal);
    }
  }
}

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Api } from './client';
import { Unreachable } from './problem';
import { watchRun, type FeedState } from './runFeed';
import type { Run, RunState } from './types';

const run = (state: RunState, files = 0) => ({ id: 'run_1', state, progress: { files } }) as Run;

const sse = (...runs: Run[]) =>
  new Response(runs.map((item) => `event: run\ndata: ${JSON.stringify(item)}\n\n`).join(''), {
    headers: { 'content-type': 'text/event-stream' },
  });

function follow(streams: ((request: Request) => Promise<Response>)[], polls: (() => Promise<Run>)[]) {
  const stop = new AbortController();
  const heard: Run[] = [];
  const states: FeedState[] = [];
  const lost = () => Promise.reject(new Unreachable('down'));
  const stream = vi.fn((request: Request) => (streams.shift() ?? lost)(request));
  const poll = vi.fn(() => (polls.shift() ?? lost)());
  const done = watchRun(
    { stream } as unknown as Api,
    'ten_1',
    'run_1',
    { onRun: (item) => heard.push(item), onState: (state) => states.push(state), poll },
    stop.signal,
  );
  return { done, heard, states, stream, poll, stop };
}

describe('the run feed', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('follows the stream to the end of the run and never polls', async () => {
    const feed = follow([() => Promise.resolve(sse(run('queued'), run('running', 5), run('succeeded', 9)))], []);
    await feed.done;
    expect(feed.heard.map((item) => item.state)).toEqual(['queued', 'running', 'succeeded']);
    expect(feed.states).toEqual(['connecting', 'live']);
    expect(feed.poll).not.toHaveBeenCalled();
  });

  it('polls while the stream is down and returns to the stream', async () => {
    const feed = follow(
      [() => Promise.reject(new Unreachable('down')), () => Promise.resolve(sse(run('succeeded', 3)))],
      [() => Promise.resolve(run('running', 1))],
    );
    await vi.runAllTimersAsync();
    await feed.done;
    expect(feed.states).toEqual(['connecting', 'polling', 'live']);
    expect(feed.heard.map((item) => item.progress.files)).toEqual([1, 3]);
  });

  it('opens a stream that closed in good order again without a word', async () => {
    const feed = follow(
      [() => Promise.resolve(sse(run('running', 1))), () => Promise.resolve(sse(run('running', 2), run('succeeded', 3)))],
      [],
    );
    await vi.runAllTimersAsync();
    await feed.done;
    expect(feed.states).toEqual(['connecting', 'live', 'live']);
    expect(feed.heard.map((item) => item.progress.files)).toEqual([1, 2, 3]);
    expect(feed.poll).not.toHaveBeenCalled();
  });

  it('says that it is stale when asking fails too, and recovers', async () => {
    const feed = follow([], [() => Promise.reject(new Unreachable('down')), () => Promise.resolve(run('failed'))]);
    await vi.runAllTimersAsync();
    await feed.done;
    expect(feed.states).toContain('stale');
    expect(feed.heard.at(-1)?.state).toBe('failed');
  });

  it('gives up a line that has gone silent', async () => {
    const feed = follow(
      [
        ({ signal }) => {
          const body = new ReadableStream({
            start: (controller) => signal.addEventListener('abort', () => controller.error(new Error('aborted'))),
          });
          return Promise.resolve(new Response(body));
        },
      ],
      [() => Promise.resolve(run('succeeded'))],
    );
    await vi.advanceTimersByTimeAsync(44_000);
    expect(feed.poll).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(2_000);
    await feed.done;
    expect(feed.heard.at(-1)?.state).toBe('succeeded');
  });

  it('stops asking when nobody looks any more', async () => {
    const feed = follow([], [() => Promise.resolve(run('running'))]);
    await vi.advanceTimersByTimeAsync(100);
    feed.stop.abort();
    await vi.runAllTimersAsync();
    await feed.done;
    expect(feed.poll).toHaveBeenCalledTimes(1);
  });

  it('skips what is no run', async () => {
    const odd = new Response('data: {"hello":1}\n\ndata: not json\n\n' + `data: ${JSON.stringify(run('canceled'))}\n\n`);
    const feed = follow([() => Promise.resolve(odd)], []);
    await feed.done;
    expect(feed.heard).toHaveLength(1);
  });
});

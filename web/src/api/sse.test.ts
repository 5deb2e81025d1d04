import { describe, expect, it, vi } from 'vitest';
import { events, type ServerEvent } from './sse';

function stream(...chunks: string[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(encoder.encode(chunk));
      controller.close();
    },
  });
}

async function all(...chunks: string[]): Promise<ServerEvent[]> {
  const found: ServerEvent[] = [];
  for await (const event of events(stream(...chunks))) found.push(event);
  return found;
}

describe('server-sent events', () => {
  it('reads events however the bytes are cut', async () => {
    const text = 'event: run\ndata: {"a":"ä"}\n\ndata: two\n\n';
    const bytes = new TextEncoder().encode(text);
    const cut = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
        controller.close();
      },
    });
    const found: ServerEvent[] = [];
    for await (const event of events(cut)) found.push(event);
    expect(found).toEqual([
      { event: 'run', data: '{"a":"ä"}' },
      { event: 'message', data: 'two' },
    ]);
  });

  it('knows all three line ends, also when a CRLF is cut in half', async () => {
    expect(await all('data: a\r', '\ndata: b\r\n\r', '\ndata: c\r\rdata: d\n\n')).toEqual([
      { event: 'message', data: 'a\nb' },
      { event: 'message', data: 'c' },
      { event: 'message', data: 'd' },
    ]);
  });

  it('does not hand out an event the stream broke off in', async () => {
    expect(await all('data: whole\n\n', 'data: half')).toEqual([{ event: 'message', data: 'whole' }]);
  });

  it('hears comments as a sign of life and hands none of them out', async () => {
    const alive = vi.fn();
    const found: ServerEvent[] = [];
    for await (const event of events(stream(': still here\n\n', ': still here\n\n'), alive)) found.push(event);
    expect(found).toEqual([]);
    expect(alive).toHaveBeenCalled();
  });
});

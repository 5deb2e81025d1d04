/**
 * Server-sent events over fetch, because EventSource cannot carry a bearer header.
 * Follows the WHATWG event stream grammar as far as servers use it: data, event, id, comments.
 */
export interface ServerEvent {
  event: string;
  data: string;
}

/** Splits a byte stream into lines, whichever of the three line ends is used. */
async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      // A carriage return at the very end may be half of a CRLF: wait for what follows.
      const whole = rest.endsWith('\r') && !done ? rest.slice(0, -1) : rest;
      const parts = whole.split(/\r\n|\r|\n/);
      rest = (parts.pop() ?? '') + rest.slice(whole.length);
      yield* parts;
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Every complete event of the stream. `onActivity` also hears comments, which servers send to stay alive. */
export async function* events(
  stream: ReadableStream<Uint8Array>,
  onActivity: () => void = () => undefined,
): AsyncGenerator<ServerEvent> {
  let data: string[] = [];
  let event = 'message';
  for await (const line of lines(stream)) {
    onActivity();
    if (line === '') {
      if (data.length > 0) yield { event, data: data.join('\n') };
      data = [];
      event = 'message';
      continue;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') data.push(value);
    if (field === 'event') event = value;
  }
}

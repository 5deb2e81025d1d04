/** Clocks for the page: all relative times share one, running figures share a faster one. */
import { useSyncExternalStore } from 'react';

interface Ticker {
  subscribe: (listener: () => void) => () => void;
  read: () => number;
}

function createTicker(everyMs: number): Ticker {
  const listeners = new Set<() => void>();
  let now = Date.now();
  let timer: ReturnType<typeof setInterval> | undefined;
  const tick = () => {
    now = Date.now();
    listeners.forEach((tell) => tell());
  };
  return {
    read: () => now,
    subscribe: (listener) => {
      if (listeners.size === 0) {
        now = Date.now();
        timer = setInterval(tick, everyMs);
      }
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
        if (listeners.size === 0) clearInterval(timer);
      };
    },
  };
}

const calm = createTicker(10_000);
const quick = createTicker(1_000);

export const useNow = (): number => useSyncExternalStore(calm.subscribe, calm.read);
export const useSecond = (): number => useSyncExternalStore(quick.subscribe, quick.read);

/**
 * "Duplicate tab" copies sessionStorage and with it a one-time refresh token; the second tab to use it would
 * end both sessions. Each tab therefore holds a lock named after its own id for as long as it lives, and a
 * tab that finds its id taken knows it is the copy. Goes away with the cookie sessions of issue C.
 */
const KEY = 'everhold.tab';
/** A reloaded page may start before its predecessor has let go. */
const PATIENCE_MS = 1_000;

function hold(name: string): Promise<boolean> {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    navigator.locks
      .request(name, { signal }, () => {
        resolve(true);
        return new Promise(() => undefined);
      })
      .catch(() => resolve(false));
  });
}

/** True when this tab may use what sessionStorage holds. */
export async function ownsTab(storage: Storage): Promise<boolean> {
  if (!('locks' in navigator)) return true;
  const known = storage.getItem(KEY);
  if (known && (await hold(`everhold-tab-${known}`))) return true;
  const fresh = crypto.randomUUID();
  storage.setItem(KEY, fresh);
  await hold(`everhold-tab-${fresh}`);
  return known === null;
}

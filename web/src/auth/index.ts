/** The one session of this tab. */
import { ownsTab } from './tabLock';
import { Session } from './session';

const SESSION_KEYS = ['everhold.session'];

/** Awaited before the first render. */
export async function openSession(): Promise<Session> {
  if (!(await ownsTab(sessionStorage))) SESSION_KEYS.forEach((key) => sessionStorage.removeItem(key));
  return new Session({ fetch: (...args) => fetch(...args), storage: sessionStorage, now: () => Date.now() });
}

/** What one can honestly say about a workload's protection from its newest snapshot. */
import type { Snapshot, Workload } from '../api/types';

export type Protection = 'held' | 'exceptions' | 'open' | 'lapsed' | 'unknown';

export function protectionOf(workload: Workload, last: Snapshot | undefined, now: number): Protection {
  if (!workload.last_snapshot_id) return 'open';
  if (!last) return 'unknown';
  if (Date.parse(last.locked_until) <= now) return 'lapsed';
  return last.status === 'succeeded_with_exceptions' ? 'exceptions' : 'held';
}

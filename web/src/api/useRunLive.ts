/** React's end of the run feed: writes every state of the run into the query cache. */
import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useEffectEvent, useState } from 'react';
import { useApi } from '../app/context';
import { refreshAfterRun, runQuery } from './queries';
import { watchRun, type FeedState } from './runFeed';
import { isActive, type Run } from './types';

export interface Live {
  run: Run;
  feed: FeedState | 'ended';
  /** When the shown figures arrived (ms since 1970). */
  heardAt: number;
}

interface RunLiveOptions {
  /** False: the given run is shown as it is. */
  enabled?: boolean;
  onEnd?: (run: Run) => void;
}

/** Follows `run` while it is under way. */
export function useRunLive(run: Run, { enabled = true, onEnd }: RunLiveOptions = {}): Live {
  const { api } = useApi();
  const client = useQueryClient();
  const [heard, setHeard] = useState(() => ({ run, at: Date.now() }));
  const [feed, setFeed] = useState<FeedState>('connecting');
  // Once ended, a run stays ended: a list that was read earlier must not revive it.
  const given = heard.run.id !== run.id || (isActive(heard.run) && !isActive(run)) || !enabled;
  const current = given ? run : heard.run;
  const follow = enabled && isActive(current);

  const ended = useEffectEvent((last: Run) => onEnd?.(last));

  useEffect(() => {
    if (!follow) return;
    const stop = new AbortController();
    const key = runQuery(api, run.tenant_id, run.id);
    void watchRun(
      api,
      run.tenant_id,
      run.id,
      {
        onState: setFeed,
        onRun: (next) => {
          setHeard({ run: next, at: Date.now() });
          client.setQueryData(key.queryKey, next);
          if (isActive(next)) return;
          ended(next);
          refreshAfterRun(client, run.tenant_id);
        },
        poll: () => client.fetchQuery({ ...key, staleTime: 0, retry: false }),
      },
      stop.signal,
    );
    return () => stop.abort();
  }, [api, client, follow, run.id, run.tenant_id]);

  return { run: current, feed: isActive(current) ? feed : 'ended', heardAt: heard.at };
}

/** States as icon and word; colour only supports them. */
import {
  IconAlertTriangle,
  IconCircleCheck,
  IconCircleDashed,
  IconCircleX,
  IconClockPause,
  IconLoader2,
  IconLockOpen,
  IconShieldCheck,
  type Icon,
} from '@tabler/icons-react';
import type { RunState } from '../api/types';
import { useWords } from '../i18n/useWords';
import type { Protection } from './protection';
import classes from './Status.module.css';

type Tone = 'ok' | 'warn' | 'bad' | 'info' | 'idle';

export function Status({ tone, icon: Shape, label }: { tone: Tone; icon: Icon; label: string }) {
  return (
    <span className={classes.status} data-tone={tone}>
      <Shape size={15} stroke={2} aria-hidden="true" />
      {label}
    </span>
  );
}

const RUN: Record<RunState, [Tone, Icon]> = {
  queued: ['info', IconClockPause],
  running: ['info', IconLoader2],
  succeeded: ['ok', IconCircleCheck],
  succeeded_with_exceptions: ['warn', IconAlertTriangle],
  failed: ['bad', IconCircleX],
  canceled: ['idle', IconCircleX],
  missed: ['warn', IconAlertTriangle],
  lost: ['bad', IconCircleX],
};

export function RunStatus({ state }: { state: RunState }) {
  const { t } = useWords();
  const [tone, icon] = RUN[state];
  return <Status tone={tone} icon={icon} label={t(`runState.${state}`)} />;
}

const PROTECTION: Record<Protection, [Tone, Icon]> = {
  held: ['ok', IconShieldCheck],
  exceptions: ['warn', IconAlertTriangle],
  open: ['idle', IconCircleDashed],
  lapsed: ['bad', IconLockOpen],
  unknown: ['idle', IconCircleDashed],
};

export function ProtectionStatus({ state }: { state: Protection }) {
  const { t } = useWords();
  const [tone, icon] = PROTECTION[state];
  return <Status tone={tone} icon={icon} label={t(`protection.${state}`)} />;
}

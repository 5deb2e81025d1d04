/** Copying: a small button, and a command line with one. */
import { ActionIcon, Tooltip } from '@mantine/core';
import { useClipboard } from '@mantine/hooks';
import { IconCheck, IconCopy } from '@tabler/icons-react';
import { Fragment } from 'react';
import { useWords } from '../i18n/useWords';
import classes from './Copy.module.css';

export function CopyButton({ text, label }: { text: string; label?: string }) {
  const { t } = useWords();
  const clipboard = useClipboard({ timeout: 2_000 });
  const name = label ?? t('app.copy');
  return (
    <>
      <Tooltip label={clipboard.copied ? t('app.copied') : name}>
        <ActionIcon variant="subtle" color="gray" size={28} aria-label={name} onClick={() => clipboard.copy(text)} className={classes.button}>
          {clipboard.copied ? <IconCheck size={16} /> : <IconCopy size={16} />}
        </ActionIcon>
      </Tooltip>
      <span role="status" className={classes.hidden}>
        {clipboard.copied ? t('app.copied') : ''}
      </span>
    </>
  );
}

/** A shell command, whole and selectable. Wraps between words, so that no option is torn at its hyphens. */
export function CommandLine({ command, label }: { command: string; label: string }) {
  return (
    <div className={classes.line}>
      {/* Scrolls by keyboard too, hence the tab stop. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <pre tabIndex={0} aria-label={label} className={classes.command}>
        <code>
          {command.split(' ').map((word, i) => (
            <Fragment key={i}>
              {i > 0 && ' '}
              <span>{word}</span>
            </Fragment>
          ))}
        </code>
      </pre>
      <CopyButton text={command} />
    </div>
  );
}

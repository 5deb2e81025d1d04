/**
 * One folder of a snapshot. Rows are virtual and pages are fetched while one scrolls, so a folder may be of
 * any size. One tab stop; the active row is named by aria-activedescendant because the DOM holds few rows.
 */
import { Tooltip } from '@mantine/core';
import {
  IconCornerLeftUp,
  IconFile,
  IconFolder,
  IconLink,
  IconPlug,
  IconServerBolt,
  type Icon,
} from '@tabler/icons-react';
import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useId, useRef, useState, type KeyboardEvent } from 'react';
import type { Folder } from '../api/queries';
import type { Entry } from '../api/types';
import { folderOf, modeText } from '../format/folder';
import { useWords } from '../i18n/useWords';
import classes from './FileList.module.css';
import { When } from './When';

const ROW_PX = 44;
const PAGE_ROWS = 10;
/** How close to the end of what is loaded the next page is asked for. */
const AHEAD_ROWS = 60;

const ICONS: Record<Entry['kind'], Icon> = {
  file: IconFile,
  directory: IconFolder,
  symlink: IconLink,
  fifo: IconPlug,
  socket: IconPlug,
  char_device: IconServerBolt,
  block_device: IconServerBolt,
};

interface More {
  hasNextPage: boolean;
  isFetchingNextPage: boolean;
  fetchNextPage: () => unknown;
}

interface FileListProps {
  folder: string;
  entries: Entry[];
  /** Others are lost with a damaged part of the snapshot. */
  incomplete: boolean;
  more: More;
  onOpen: (folder: Folder) => void;
  /** Absent at the top. */
  onUp: (() => void) | undefined;
}

function Name({ entry }: { entry: Entry }) {
  const { t } = useWords();
  const Shape = ICONS[entry.kind];
  return (
    <span className={classes.name} data-kind={entry.kind}>
      <Shape size={18} aria-label={t(`browse.kind.${entry.kind}`)} role="img" className={classes.icon} />
      <span className={classes.text}>{entry.name}</span>
      {entry.path_b64 && (
        <Tooltip label={t('browse.lossyHint')} multiline maw={280}>
          <span className={classes.lossy}>{t('browse.lossy')}</span>
        </Tooltip>
      )}
      {entry.link_target && (
        <span className={classes.target}>
          <span aria-hidden="true">→ </span>
          <span className={classes.hidden}>{t('browse.pointsTo', { target: '' })}</span>
          {entry.link_target}
        </span>
      )}
    </span>
  );
}

/** The new active row, or null when the key means something else. */
function moveBy(key: string, active: number, count: number): number | null {
  const clamp = (row: number) => Math.max(0, Math.min(count - 1, row));
  switch (key) {
    case 'ArrowDown':
      return clamp(active + 1);
    case 'ArrowUp':
      return clamp(active - 1);
    case 'PageDown':
      return clamp(active + PAGE_ROWS);
    case 'PageUp':
      return clamp(active - PAGE_ROWS);
    case 'Home':
      return 0;
    case 'End':
      return count - 1;
    default:
      return null;
  }
}

export function FileList({ folder, entries, incomplete, more, onOpen, onUp }: FileListProps) {
  const { t, bytes, plural } = useWords();
  const id = useId();
  const scroller = useRef<HTMLDivElement>(null);
  const [active, setActive] = useState(0);
  const rows = useVirtualizer({
    count: entries.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: 12,
  });
  const shown = rows.getVirtualItems();
  const last = shown.at(-1)?.index ?? 0;
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = more;

  useEffect(() => {
    if (hasNextPage && !isFetchingNextPage && last + AHEAD_ROWS > entries.length) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage, last, entries.length]);

  const open = (entry: Entry | undefined) => {
    if (entry?.kind === 'directory') onOpen(folderOf(entry));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const next = moveBy(event.key, active, entries.length);
    if (next !== null && entries.length > 0) {
      setActive(next);
      rows.scrollToIndex(next);
    } else if (event.key === 'Enter' || event.key === 'ArrowRight') open(entries[active]);
    else if (event.key === 'Backspace' || event.key === 'ArrowLeft') onUp?.();
    else return;
    event.preventDefault();
  };

  return (
    <div className={classes.list}>
      {/* The head stays outside of what scrolls, so it can never cover the focused row. */}
      <div className={classes.head} aria-hidden="true">
        <span>{t('browse.name')}</span>
        <span>{t('browse.size')}</span>
        <span>{t('browse.modified')}</span>
        <span>{t('browse.mode')}</span>
        <span>{t('browse.owner')}</span>
      </div>
      <div className={classes.viewport}>
        <div
          ref={scroller}
          role="grid"
          tabIndex={0}
          aria-label={t('browse.contents', { folder })}
          aria-describedby={`${id}-keys`}
          aria-rowcount={hasNextPage ? -1 : entries.length}
          aria-colcount={5}
          aria-activedescendant={entries.length > 0 ? `${id}-${active}` : undefined}
          onKeyDown={onKeyDown}
          className={classes.scroller}
        >
          <div role="rowgroup" style={{ height: rows.getTotalSize(), position: 'relative' }}>
            {shown.map((item) => {
              const entry = entries[item.index];
              if (!entry) return null;
              const directory = entry.kind === 'directory';
              return (
                // The grid handles the keyboard; a row is only the target of the mouse.
                // eslint-disable-next-line jsx-a11y/click-events-have-key-events
                <div
                  key={item.key}
                  id={`${id}-${item.index}`}
                  role="row"
                  tabIndex={-1}
                  aria-rowindex={item.index + 1}
                  aria-selected={item.index === active}
                  data-folder={directory || undefined}
                  className={classes.row}
                  style={{ transform: `translateY(${item.start}px)`, height: item.size }}
                  onClick={() => (directory ? open(entry) : setActive(item.index))}
                >
                  <span role="gridcell" className={classes.cell}>
                    <Name entry={entry} />
                  </span>
                  <span role="gridcell" className={classes.size}>
                    {entry.kind === 'file' ? bytes(entry.size) : ''}
                  </span>
                  <span role="gridcell" className={classes.modified}>
                    <When at={entry.modified_at} />
                  </span>
                  <span role="gridcell" className={classes.mode}>
                    {modeText(entry.mode)}
                  </span>
                  <span role="gridcell" className={classes.owner}>
                    {entry.uid}:{entry.gid}
                  </span>
                </div>
              );
            })}
          </div>
          {entries.length === 0 && (
            <div role="row" className={classes.none}>
              <span role="gridcell">
                <strong>{t(incomplete ? 'browse.emptyDamaged' : 'browse.empty')}</strong>
                <br />
                {!incomplete && t('browse.emptyBody')}
              </span>
            </div>
          )}
        </div>
      </div>
      <div className={classes.foot}>
        {onUp && (
          <button type="button" onClick={onUp} className={classes.up}>
            <IconCornerLeftUp size={15} aria-hidden="true" />
            {t('browse.up')}
          </button>
        )}
        <span role="status">
          {t(hasNextPage ? 'browse.loadedMore' : 'browse.loaded', plural(entries.length))}
        </span>
        <span id={`${id}-keys`} className={classes.keys}>
          {t('browse.keys')}
        </span>
      </div>
    </div>
  );
}

import { describe, expect, it } from 'vitest';
import type { Entry } from '../api/types';
import { includeArgument } from '../pages/restoreCommand';
import { formatBytes } from './bytes';
import { crumbs, folderOf, modeText } from './folder';
import { dayKey, formatDuration, formatRelative } from './time';

const nbsp = '\u00a0';

describe('byte counts', () => {
  it.each([
    [0, '0 B'],
    [1023, '1,023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1024 ** 2 - 1, '1 MiB'],
    [5 * 1024 ** 3, '5 GiB'],
    [412.4 * 1024 ** 3, '412 GiB'],
    [Number.MAX_SAFE_INTEGER, '8 PiB'],
  ])('%d is %s', (bytes, text) => {
    expect(formatBytes(bytes, 'en')).toBe(text.replace(' ', nbsp));
  });

  it('follow the language', () => {
    expect(formatBytes(1536, 'de')).toBe(`1,5${nbsp}KiB`);
  });
});

describe('moments and durations', () => {
  const now = Date.UTC(2026, 10, 21, 12);
  it.each([
    [now - 3_000, 'now'],
    [now - 90_000, '2 minutes ago'],
    [now - 3 * 3_600_000, '3 hours ago'],
    [now - 86_400_000, 'yesterday'],
    [now + 37 * 86_400_000, 'next month'],
    [now - 800 * 86_400_000, '2 years ago'],
  ])('%d is %s', (moment, text) => {
    expect(formatRelative(moment, now, 'en')).toBe(text);
  });

  it.each([
    [850, '850 ms'],
    [2_140, '2.1 s'],
    [59_900, '59 s'],
    [185_000, '3 min 5 s'],
    [7_800_000, '2 h 10 min'],
  ])('%d ms is %s', (ms, text) => {
    expect(formatDuration(ms, 'en').replaceAll(nbsp, ' ')).toBe(text);
  });

  it('a day is the reader\'s day', () => {
    expect(dayKey(new Date(2026, 0, 2, 23, 59).getTime())).toBe('2026-01-02');
  });
});

describe('folders', () => {
  const latin1 = (text: string) => btoa(text);

  it('of text have text ancestors', () => {
    expect(crumbs({ path: '/srv/share/a b' })).toEqual([
      { name: 'srv', path: '/srv' },
      { name: 'share', path: '/srv/share' },
      { name: 'a b', path: '/srv/share/a b' },
    ]);
    expect(crumbs({ path: '/' })).toEqual([]);
  });

  it('of bytes are cut on the bytes, and only the lossy part keeps them', () => {
    const trail = crumbs({ path: '/', pathB64: latin1('/srv/caf\xe9/men\xfc') });
    expect(trail).toEqual([
      { name: 'srv', path: '/srv' },
      { name: 'caf\ufffd', path: '/srv/caf\ufffd', pathB64: latin1('/srv/caf\xe9') },
      { name: 'men\ufffd', path: '/srv/caf\ufffd/men\ufffd', pathB64: latin1('/srv/caf\xe9/men\xfc') },
    ]);
  });

  it('without a leading slash keep the form they came in', () => {
    expect(crumbs({ path: '/', pathB64: latin1('caf\xe9') })).toEqual([
      { name: 'caf\ufffd', path: '/caf\ufffd', pathB64: latin1('caf\xe9') },
    ]);
    expect(folderOf({ path: 'etc' } as Entry)).toEqual({ path: '/etc' });
  });

  it('with broken base64 in the URL are none', () => {
    expect(crumbs({ path: '/', pathB64: '%%%' })).toBeNull();
  });

  it.each([
    [0o755, 'rwxr-xr-x'],
    [0o4755, 'rwsr-xr-x'],
    [0o1777, 'rwxrwxrwt'],
    [0o2644, 'rw-r-Sr--'],
  ])('mode %o reads %s', (mode, text) => {
    expect(modeText(mode)).toBe(text);
  });
});

describe('the restore command', () => {
  it('quotes for the shell and escapes what a glob would read', () => {
    expect(includeArgument("/srv/it's [new]*")).toBe("'/srv/it'\\''s \\[new\\]\\*'");
  });
});

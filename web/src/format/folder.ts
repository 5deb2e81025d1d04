/**
 * Folders of a snapshot by their bytes. Names are bytes on Linux; a folder is addressed by text where its
 * path is UTF-8 and by base64 where it is not, and its ancestors are found on the bytes, never on lossy text.
 */
import type { Folder } from '../api/queries';
import type { Entry } from '../api/types';

const SLASH = 0x2f;

const toBytes = (base64: string): Uint8Array => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const toBase64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes));

function decode(bytes: Uint8Array): { text: string; lossless: boolean } {
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes), lossless: true };
  } catch {
    return { text: new TextDecoder().decode(bytes), lossless: false };
  }
}

const absolute = (path: string): string => (path.startsWith('/') ? path : `/${path}`);

export interface Crumb extends Folder {
  name: string;
}

/** The folders above and including this one, without the top. Null when the base64 is none. */
export function crumbs(folder: Folder): Crumb[] | null {
  if (!folder.pathB64) {
    const names = folder.path.split('/').filter(Boolean);
    return names.map((name, i) => ({ name, path: `/${names.slice(0, i + 1).join('/')}` }));
  }
  let bytes: Uint8Array;
  try {
    bytes = toBytes(folder.pathB64);
  } catch {
    return null;
  }
  const result: Crumb[] = [];
  for (let end = 1; end <= bytes.length; end++) {
    const atEnd = end === bytes.length || bytes[end] === SLASH;
    if (!atEnd || bytes[end - 1] === SLASH) continue;
    const whole = bytes.slice(0, end);
    const start = whole.lastIndexOf(SLASH) + 1;
    const { text, lossless } = decode(whole);
    result.push({
      name: decode(whole.slice(start)).text,
      path: absolute(text),
      ...(lossless ? {} : { pathB64: toBase64(whole) }),
    });
  }
  return result;
}

export const folderOf = (entry: Entry): Folder => ({
  path: absolute(entry.path),
  ...(entry.path_b64 ? { pathB64: entry.path_b64 } : {}),
});

/** `drwxr-xr-x` without the type letter: `rwxr-xr-x`, with set-id and sticky bits. */
export function modeText(mode: number): string {
  const triple = (shift: number, special: number, letter: string) => {
    const bits = (mode >> shift) & 7;
    const exec = (bits & 1) !== 0;
    const set = (mode & special) !== 0;
    const x = set ? (exec ? letter : letter.toUpperCase()) : exec ? 'x' : '-';
    return `${bits & 4 ? 'r' : '-'}${bits & 2 ? 'w' : '-'}${x}`;
  };
  return triple(6, 0o4000, 's') + triple(3, 0o2000, 's') + triple(0, 0o1000, 't');
}

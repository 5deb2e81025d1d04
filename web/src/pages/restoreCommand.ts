/** The command that brings a snapshot, or one folder of it, back on the machine. */

/** Quotes a path for a POSIX shell, after escaping what a glob would read as a pattern. */
export function includeArgument(path: string): string {
  const plain = path.replace(/[[\]*?{}\\]/g, (c) => `\\${c}`);
  return `'${plain.replaceAll("'", `'\\''`)}'`;
}

export const restoreCommand = (snapshotId: string, path?: string): string =>
  `sudo everhold-agent restore ${snapshotId} --target ./restored${path ? ` --include ${includeArgument(path)}` : ''}`;

/** Gives the platform something to show: an enrolled agent, one snapshot of a made folder, a daemon. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DAEMON_ENV, dev } from './platform';

const MANY = 1_500;

function makeFolder(root: string): string {
  const source = join(root, 'source');
  mkdirSync(join(source, 'documents', 'many'), { recursive: true });
  mkdirSync(join(source, 'empty'));
  writeFileSync(join(source, 'README.txt'), 'What you keep here stays.\n');
  writeFileSync(join(source, 'documents', 'report.bin'), Buffer.alloc(3 * 1024 ** 2, 7));
  for (let i = 0; i < MANY; i++) {
    writeFileSync(join(source, 'documents', 'many', `scan-${String(i).padStart(5, '0')}.txt`), `scan ${i}\n`);
  }
  mkdirSync(Buffer.concat([Buffer.from(`${source}/caf`), Buffer.of(0xe9)]));
  symlinkSync('documents', join(source, 'current'));
  return source;
}

export default function setup(): void {
  const agent = process.env.EVERHOLD_AGENT_BIN;
  if (!agent) return;
  const { api_url, enrolment_token } = dev();
  const root = mkdtempSync(join(tmpdir(), 'everhold-portal-e2e-'));
  const env = { ...process.env, EVERHOLD_AGENT_HOME: join(root, 'agent') };
  const call = (...args: string[]) => execFileSync(agent, args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
  call('enroll', '--server', api_url, '--token', enrolment_token, '--name', 'portal-e2e');
  call('backup', makeFolder(root));
  const log = openSync(join(root, 'daemon.log'), 'w');
  const daemon = spawn(agent, ['daemon'], { env, detached: true, stdio: ['ignore', log, log] });
  daemon.unref();
  process.env[DAEMON_ENV] = String(daemon.pid);
}

/** Stops the daemon the setup started, and nothing else. */
import { DAEMON_ENV } from './platform';

export default function teardown(): void {
  const pid = Number(process.env[DAEMON_ENV]);
  if (pid > 0) process.kill(pid, 'SIGTERM');
}

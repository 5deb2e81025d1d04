/** The platform under test, as its dev.json describes it. */
import { readFileSync } from 'node:fs';

export interface Account {
  email: string;
  password: string;
}

interface Dev {
  portal_url: string;
  api_url: string;
  admin: Account;
  msp: Account;
  tenant: Account & { id: string };
  other_tenant: Account & { id: string };
  enrolment_token: string;
}

export function dev(): Dev {
  const path = process.env.EVERHOLD_DEV_JSON;
  if (!path) throw new Error('EVERHOLD_DEV_JSON must name the dev.json of a running `everhold dev`');
  return JSON.parse(readFileSync(path, 'utf8')) as Dev;
}

/** Where the daemon the setup started leaves its process id. */
export const DAEMON_ENV = 'EVERHOLD_E2E_DAEMON';

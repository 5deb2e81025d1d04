/** Short names for the wire types. schema.d.ts is generated from openapi.json: `npm run generate`. */
import type { components } from './schema';

type Schemas = components['schemas'];

export type Me = Schemas['Me'];
export type Tenant = Schemas['Tenant'];
export type Agent = Schemas['Agent'];
export type EnrolmentToken = Schemas['EnrolmentToken'];
export type Workload = Schemas['Workload'];
export type Snapshot = Schemas['Snapshot'];
export type Entry = Schemas['Entry'];
export type Run = Schemas['Run'];
export type RunState = Schemas['RunState'];
export type RunException = Schemas['RunException'];
export type RecordedEvent = Schemas['RecordedEvent'];
export type Problem = Schemas['Problem'];
export type TokenReply = Schemas['TokenReply'];

export interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}

const ACTIVE: readonly RunState[] = ['queued', 'running'];

const FAILED: readonly RunState[] = ['failed', 'lost', 'missed'];

export const isActive = (run: Run): boolean => ACTIVE.includes(run.state);

/** It ended without a snapshot, and nobody wanted that. */
export const hasFailed = (run: Run): boolean => FAILED.includes(run.state);

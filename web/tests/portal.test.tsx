import { screen, waitFor, within } from '@testing-library/react';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { setLanguage } from '../src/i18n';
import { BELOW, HOME, page, problem, tokens } from './network';
import { agent, AT, me, open, recorded, run, snapshot, tenant, violations, workload } from './portal';

const WORKLOADS = `/t/${HOME}/workloads`;
const API = `/v1/tenants/${HOME}`;

/** Finds a command line by its whole text; each of its words is an element. */
const command = (text: RegExp) => (_: string, element: Element | null) =>
  element?.tagName === 'CODE' && text.test(element.textContent ?? '');

afterEach(async () => {
  vi.unstubAllGlobals();
  await setLanguage('en');
});

describe('signing in', () => {
  it('leads back to the page one wanted, with its whole address', async () => {
    const { user, router } = await open(`${WORKLOADS}?q=files`, recorded(), false);
    expect(await screen.findByRole('heading', { name: 'Sign in' })).toBeVisible();
    expect(await violations()).toEqual([]);
    await user.type(screen.getByLabelText('Email'), 'jana@nordwind.test');
    await user.type(screen.getByLabelText('Password'), 'secret{Enter}');
    expect(await screen.findByRole('rowheader', { name: /files-01/ })).toBeVisible();
    expect(router.state.location.href).toBe(`${WORKLOADS}?q=files`);
  });

  it('never follows an address outside of the portal', async () => {
    for (const next of ['//evil.test/x', 'https://evil.test', '/\\evil.test']) {
      const { router, unmount, user } = await open(`/sign-in?next=${encodeURIComponent(next)}`, recorded(), false);
      await user.type(await screen.findByLabelText('Email'), 'jana@nordwind.test');
      await user.type(screen.getByLabelText('Password'), 'secret{Enter}');
      await screen.findByRole('rowheader', { name: /files-01/ });
      expect(router.state.location.href).toBe(WORKLOADS);
      sessionStorage.clear();
      unmount();
    }
  });

  it('says in words that the password is wrong', async () => {
    const network = recorded({ 'POST /v1/auth/token': problem(401, 'wrong_credentials') });
    const { user } = await open('/sign-in', network, false);
    await user.type(await screen.findByLabelText('Email'), 'jana@nordwind.test');
    await user.type(screen.getByLabelText('Password'), 'wrong{Enter}');
    const alert = await screen.findByRole('alert');
    expect(alert).toHaveTextContent('Email or password is wrong');
    expect(alert).toHaveTextContent('req-0001');
  });

  it('names what is missing at the field and goes there', async () => {
    const network = recorded();
    const { user } = await open('/sign-in', network, false);
    await user.click(await screen.findByRole('button', { name: 'Sign in' }));
    expect(screen.getByLabelText('Email')).toHaveFocus();
    expect(screen.getByText('Enter the email address of your account.')).toBeVisible();
    expect(network.asked).toEqual([]);
  });

  it('is asked for again when the session ends, and the address is kept', async () => {
    const network = recorded({ [`GET ${API}/workloads/wkl_1`]: problem(401, 'unauthenticated') });
    const { router } = await open(`${WORKLOADS}/wkl_1?tab=runs`, network);
    expect(await screen.findByText(/Your session has ended/)).toBeVisible();
    expect(router.state.location.search).toEqual({ why: 'expired', next: `${WORKLOADS}/wkl_1?tab=runs` });
  });

  it('ends by signing out', async () => {
    const { user, network } = await open(WORKLOADS, recorded());
    await user.click(await screen.findByRole('button', { name: /Account and settings/ }));
    await user.click(await screen.findByRole('menuitem', { name: 'Sign out' }));
    expect(await screen.findByText('You are signed out.')).toBeVisible();
    await waitFor(() => expect(network.of('POST /v1/auth/revoke')).toHaveLength(1));
  });
});

describe('workloads', () => {
  it('say whether one is protected, and until when', async () => {
    await open('/', recorded());
    expect(await screen.findByText('Your workload is protected.')).toBeVisible();
    const row = screen.getByRole('row', { name: /files-01/ });
    expect(row).toHaveTextContent('Protected');
    expect(row).toHaveTextContent('5 GiB');
    expect(row).toHaveTextContent('Jan 1, 2199');
    expect(await violations()).toEqual([]);
  });

  it('do not call a workload protected without a snapshot or after its lock', async () => {
    const network = recorded({
      [`GET ${API}/workloads`]: page(workload, { ...workload, id: 'wkl_2', name: 'new', last_snapshot_id: null, last_snapshot_at: null, snapshots: 0 }),
      [`GET ${API}/snapshots/snp_1`]: { ...snapshot, locked_until: '2020-01-01T00:00:00Z' },
    });
    await open(WORKLOADS, network);
    expect(await screen.findByText('Lock has ended')).toBeVisible();
    expect(screen.getByText('No snapshot yet')).toBeVisible();
    expect(screen.getByText('2 workloads need attention.')).toBeVisible();
  });

  it('offer one action on first use: a machine, by a command to copy', async () => {
    const token = { id: 'tok_1', label: '', max_uses: 1, uses: 0, created_at: AT, expires_at: '2199-01-01T00:00:00Z', token: 'evh_en_abc_def' };
    const network = recorded({
      [`GET ${API}/workloads`]: page(),
      [`GET ${API}/agents`]: page({ ...agent, enrolled_at: '2026-11-20T10:00:05Z' }),
      [`POST ${API}/enrolment-tokens`]: token,
    });
    const { user } = await open(WORKLOADS, network);
    expect(await screen.findByText('Nothing is protected here yet')).toBeVisible();
    expect(await violations()).toEqual([]);
    await user.click(screen.getByRole('button', { name: 'Enrol a machine' }));
    const dialog = await screen.findByRole('dialog', { name: 'Enrol a machine' });
    await user.type(within(dialog).getByLabelText(/A note/), 'web-07{Enter}');
    expect(
      await within(dialog).findByText(command(/everhold-agent enroll --server http:\/\/localhost:\d+ --token evh_en_abc_def --kit-out/)),
    ).toBeVisible();
    expect(await within(dialog).findByText('files-01 is enrolled.')).toBeVisible();
    expect(network.of(`POST ${API}/enrolment-tokens`)[0]?.body).toEqual({ max_uses: 1, ttl_s: 86_400, label: 'web-07' });
    expect(await violations(dialog)).toEqual([]);
  });

  it('are run by one press and followed live to the end', async () => {
    let send: (state: string) => void = () => undefined;
    const encoder = new TextEncoder();
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        send = (state) => controller.enqueue(encoder.encode(`event: run\ndata: ${JSON.stringify(run(state, { started_at: AT }))}\n\n`));
      },
    });
    let runs = page();
    const network = recorded({
      [`GET ${API}/runs`]: () => runs,
      [`POST ${API}/runs`]: () => (runs = page(run('queued')), run('queued')),
      [`GET ${API}/runs/run_9/events`]: () => new Response(body, { headers: { 'content-type': 'text/event-stream' } }),
    });
    // The recorded network clones responses; a stream must be handed out as it is.
    network.table[`GET ${API}/runs/run_9/events`] = () => Object.assign(new Response(body), { clone() { return this; } });
    const { user } = await open(WORKLOADS, network);
    await user.click(await screen.findByRole('button', { name: 'Run now: files-01' }));
    expect(await screen.findByText(/Waiting for the machine/)).toBeVisible();
    expect(screen.getByRole('button', { name: 'Run now: files-01' })).toBeDisabled();
    await waitFor(() => expect(screen.getByText('Live')).toBeVisible());
    send('running');
    expect(await screen.findByText('Uploading')).toBeVisible();
    expect(screen.getByText('41 files')).toBeVisible();
    expect(await violations()).toEqual([]);
    send('succeeded');
    expect(await screen.findByText('The run of files-01 has ended: Succeeded.')).toBeInTheDocument();
    expect(screen.queryByRole('progressbar')).toBeNull();
  });

  it('say what to do when there is nothing to run', async () => {
    const network = recorded({ [`POST ${API}/runs`]: problem(409, 'no_sources') });
    const { user } = await open(WORKLOADS, network);
    await user.click(await screen.findByRole('button', { name: 'Run now: files-01' }));
    expect(await screen.findByRole('alert')).toHaveTextContent(/Back up once on the machine/);
  });

  it('keep order and filter in the address', async () => {
    const six = Array.from({ length: 6 }, (_, i) => ({ ...workload, id: `wkl_${i}`, name: `host-${i}` }));
    const { user, router } = await open(`${WORKLOADS}?sort=-name`, recorded({ [`GET ${API}/workloads`]: page(...six) }));
    const names = async () => (await screen.findAllByRole('rowheader')).map((cell) => cell.textContent?.slice(0, 6));
    expect(await names()).toEqual(['host-5', 'host-4', 'host-3', 'host-2', 'host-1', 'host-0']);
    await user.type(screen.getByLabelText('Filter by name'), 'host-3');
    await waitFor(async () => expect(await names()).toEqual(['host-3']));
    expect(router.state.location.href).toBe(`${WORKLOADS}?sort=-name&q=host-3`);
    await user.type(screen.getByLabelText('Filter by name'), 'x');
    expect(await screen.findByText('No workload is called “host-3x”.')).toBeVisible();
  });

  it('show a failure with what to do next, and try again', async () => {
    const network = recorded({ [`GET ${API}/workloads`]: problem(503, 'unavailable', { advice: 'retry' }) });
    const { user } = await open(WORKLOADS, network);
    expect(await screen.findByRole('alert')).toHaveTextContent('A part of the platform does not answer');
    network.table[`GET ${API}/workloads`] = page(workload);
    await user.click(screen.getByRole('button', { name: 'Try again' }));
    expect(await screen.findByRole('rowheader', { name: /files-01/ })).toBeVisible();
  });
});

describe('a workload', () => {
  it('shows its snapshots on a line', async () => {
    await open(`${WORKLOADS}/wkl_1`, recorded());
    expect(await screen.findByRole('heading', { name: 'files-01', level: 1 })).toBeVisible();
    expect(await screen.findByRole('link', { name: /Browse the snapshot of Nov 20, 2026/ })).toBeVisible();
    expect(screen.getByText(/locked until Jan 1, 2199/)).toBeVisible();
    expect(await violations()).toEqual([]);
  });

  it('shows its runs, and a run its exceptions', async () => {
    const bad = run('succeeded_with_exceptions', {
      started_at: AT, ended_at: '2026-11-20T10:03:05Z', snapshot_id: 'snp_1',
      progress: { ...run('x').progress, exceptions: 2000 },
      exceptions: [{ path: '/srv/key', kind: 'unreadable', detail: 'Permission denied' }],
    });
    const network = recorded({ [`GET ${API}/runs`]: page(bad), [`GET ${API}/runs/run_9`]: bad });
    const { user } = await open(`${WORKLOADS}/wkl_1?tab=runs`, network);
    const row = (await screen.findAllByRole('row')).at(-1) as HTMLElement;
    expect(row).toHaveTextContent('3 min 5 s');
    expect(await violations()).toEqual([]);
    await user.click(within(row).getByRole('link'));
    expect(await screen.findByText('/srv/key')).toBeVisible();
    expect(screen.getByText(/2,000 entries could not be protected/)).toHaveTextContent('The first 1 are listed.');
    expect(screen.getByRole('link', { name: 'Browse the snapshot' })).toHaveAttribute('href', `/t/${HOME}/snapshots/snp_1`);
    expect(await violations()).toEqual([]);
  });

  it('asks before it cancels a run, naming it', async () => {
    const network = recorded({
      [`GET ${API}/runs/run_9`]: run('running'),
      [`POST ${API}/runs/run_9/cancel`]: run('running', { cancel_requested: true }),
    });
    const { user } = await open(`/t/${HOME}/runs/run_9`, network);
    await user.click(await screen.findByRole('button', { name: 'Cancel run' }));
    const dialog = await screen.findByRole('dialog', { name: 'Cancel the run of files-01?' });
    expect(within(dialog).getByRole('button', { name: 'Let it run' })).toHaveFocus();
    expect(network.of(`POST ${API}/runs/run_9/cancel`)).toHaveLength(0);
    await user.click(within(dialog).getByRole('button', { name: 'Cancel run' }));
    await waitFor(() => expect(network.of(`POST ${API}/runs/run_9/cancel`)).toHaveLength(1));
  });

  it('says when a run failed, in the words of the platform', async () => {
    const network = recorded({ [`GET ${API}/runs/run_9`]: run('failed', { error: 'The store is full.' }) });
    await open(`/t/${HOME}/runs/run_9`, network);
    expect(await screen.findByRole('alert')).toHaveTextContent('The store is full.');
  });
});

describe('a snapshot', () => {
  const at = `/t/${HOME}/snapshots/snp_1`;

  it('that only the customer can open says how to browse it', async () => {
    const network = recorded({ [`GET ${API}/snapshots/snp_1/entries`]: problem(409, 'customer_held') });
    await open(at, network);
    expect(await screen.findByText(command(/^everhold-agent ls snp_1$/))).toBeVisible();
  });

  it('asks for a folder by its bytes when its name is no text', async () => {
    const b64 = btoa('/srv/caf\xe9');
    const network = recorded({ [`GET ${API}/snapshots/snp_1/entries`]: page() });
    await open(`${at}?path_b64=${encodeURIComponent(b64)}`, network);
    expect(await screen.findByText('This folder is empty')).toBeVisible();
    expect(new URLSearchParams(network.of(`GET ${API}/snapshots/snp_1/entries`)[0]?.search).get('path_b64')).toBe(b64);
    const trail = within(screen.getByRole('navigation', { name: 'Folder' }));
    expect(trail.getByText('caf\ufffd')).toHaveAttribute('aria-current', 'page');
    expect(trail.getByRole('link', { name: 'srv' })).toHaveAttribute('href', `${at}?path=%2Fsrv`);
    expect(await violations()).toEqual([]);
  });

  it('says above a folder that a part of it is lost, and shows the rest', async () => {
    const entry = { name: 'kept', path: '/srv/kept', kind: 'file', size: 3, mode: 0o644, uid: 0, gid: 0, modified_at: AT };
    const network = recorded({ [`GET ${API}/snapshots/snp_1/entries`]: { ...page(entry), incomplete: true } });
    await open(`${at}?path=/srv`, network);
    expect(await screen.findByText('1 entry')).toBeVisible();
    expect(screen.getByRole('alert')).toHaveTextContent('A part of this folder is damaged');
    expect(screen.getByText(command(/^everhold-agent verify snp_1$/))).toBeVisible();
  });

  it('never calls a folder empty of which everything is lost', async () => {
    const network = recorded({ [`GET ${API}/snapshots/snp_1/entries`]: { ...page(), incomplete: true } });
    await open(`${at}?path=/srv`, network);
    expect(await screen.findByText('Nothing of this folder can be shown')).toBeVisible();
    expect(screen.queryByText('This folder is empty')).toBeNull();
    expect(await violations()).toEqual([]);
  });

  it('gives the command that restores it', async () => {
    const network = recorded({ [`GET ${API}/snapshots/snp_1/entries`]: page() });
    const { user } = await open(`${at}?path=/srv/it's`, network);
    await user.click(await screen.findByRole('button', { name: 'Restore' }));
    expect(await screen.findByText(command(/^sudo everhold-agent restore snp_1 --target \.\/restored --include '\/srv\/it'\\''s'$/))).toBeVisible();
  });
});

describe('activity', () => {
  const event = {
    seq: 7, recorded_at: AT, id: 'evt_7', tenant_id: HOME, action: 'snapshot.committed', actor: { kind: 'agent', id: 'agt_1' },
    subject_kind: 'snapshot', subject_id: 'snp_1', occurred_at: AT, request_id: 'req-7', details: { files: 12 },
  };

  it('lists events in words and opens their facts', async () => {
    const strange = { ...event, seq: 8, id: 'evt_8', action: 'moon.landed', actor: { kind: 'user', id: 'usr_9', home_tenant_id: BELOW } };
    const network = recorded({ [`GET ${API}/audit/events`]: page(strange, event) });
    const { user, router } = await open(`/t/${HOME}/activity`, network);
    expect(await screen.findByText('Snapshot committed')).toBeVisible();
    expect(screen.getByText('moon.landed')).toBeVisible();
    expect(screen.getByText('from the provider')).toBeVisible();
    await user.click(screen.getByRole('button', { name: 'Details of event 7' }));
    expect(await screen.findByText('req-7')).toBeVisible();
    expect(router.state.location.search).toEqual({ open: 'evt_7' });
    expect(await violations()).toEqual([]);
  });
});

describe('an MSP', () => {
  it('sees its tenants and views one with a token for that tenant', async () => {
    const below = tenant(BELOW, 'tenant', 'Praxis');
    const network = recorded({
      'GET /v1/me': ({ token }) => (token === `Bearer ${tokens(2, BELOW).access_token}` ? { ...me(), tenant: below } : me('msp')),
      'GET /v1/tenants': page(below),
      [`GET /v1/tenants/${BELOW}/workloads`]: page(),
      [`GET /v1/tenants/${BELOW}/agents`]: page(),
      [`GET /v1/tenants/${BELOW}/runs`]: page(),
    });
    const { user } = await open('/', network);
    const view = await screen.findByRole('link', { name: 'View as tenant Praxis' });
    expect(await violations()).toEqual([]);
    await user.click(view);
    expect(await screen.findByText(/You are viewing Praxis/)).toBeVisible();
    expect(network.of('POST /v1/auth/token').map(({ body }) => (body as { tenant_id?: string }).tenant_id)).toEqual([undefined, BELOW]);
    expect(await screen.findByText('Nothing is protected here yet')).toBeVisible();
  });

  it('is told plainly that a tenant is not there', async () => {
    const network = recorded({
      'GET /v1/me': me('msp'),
      'POST /v1/auth/token': ({ body }) => ((body as { tenant_id?: string }).tenant_id === BELOW ? problem(404, 'not_found') : tokens(1)),
    });
    await open(`/t/${BELOW}/workloads`, network);
    expect((await screen.findAllByText('There is no such thing here'))[0]).toBeVisible();
  });
});

describe('every page', () => {
  it('speaks German', async () => {
    await setLanguage('de');
    await open(WORKLOADS, recorded());
    expect(await screen.findByText('Ihr Workload ist geschützt.')).toBeVisible();
    expect(document.documentElement.lang).toBe('de');
  });

  it('that does not exist says so', async () => {
    await open('/nowhere', recorded());
    expect(await screen.findByRole('heading', { name: 'There is no such page' })).toBeVisible();
  });
});

// Runs command lines in tests as src/bin/cli.ts does, but with everything around them made up.
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import type { Client } from './client.ts';
import { fakeClient } from './fake.ts';
import { main } from './main.ts';
import type { Surroundings } from './session.ts';

export interface Run {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

export interface Stage extends Partial<Omit<Surroundings, 'stdin'>> {
  readonly client?: Client;
  readonly input?: string;
  /** Standard input, output and error are a terminal. */
  readonly terminal?: boolean;
}

export const testNow: Date = new Date('2026-01-01T00:00:30Z');

/** What a run is made of when a test says nothing else; output goes nowhere. */
export function surroundings({ client = fakeClient(), input = '', terminal = false, ...rest }: Stage = {}): Surroundings {
  return {
    environment: { url: 'https://controller.test:7480', token: 'admin-token' },
    contextFiles: [],
    stdin: Object.assign(Readable.from(input === '' ? [] : [input]), { isTTY: terminal }),
    stdout: { write: () => true, isTTY: terminal },
    stderr: { write: () => true, isTTY: terminal },
    plain: true,
    debug: false,
    // On a slow machine a command is no other.
    patienceMs: 600_000,
    now: () => testNow,
    connect: async () => client,
    agentSocket: undefined,
    identityFile: undefined,
    cloud: { environment: {}, configFiles: [], secureFiles: [] },
    cluster: async () => assert.fail('no cluster is asked'),
    hostname: 'host-1',
    ...rest,
  };
}

/** Runs one command line; words are separated by single spaces. */
export async function run(line: string | readonly string[], stage: Stage = {}): Promise<Run> {
  let out = '';
  let err = '';
  const isTTY = stage.terminal ?? false;
  const status = await main(typeof line === 'string' ? line.split(' ') : line, {
    ...surroundings(stage),
    stdout: { write: (text) => (out += text), isTTY },
    stderr: { write: (text) => (err += text), isTTY },
  });
  return { status, out, err };
}

// A router of another make, FRR, in a network namespace: the fabric in tests of BGP. Its files are in a folder of
// the test's that its user, frr, may reach.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Place } from './namespaces.fixture.ts';
import { inNetns } from '#kernel/netns.ts';

const programs = '/usr/lib/frr';
export const hasFrr = (): boolean => existsSync(join(programs, 'bgpd'));

/** Command lines of the two daemons, whose files are in `folder` as they see it; `bgp` is the configuration of bgpd (docs.frrouting.org, "BGP"). */
export function frrCommands(folder: string, bgp: string, seenFromHere: string = folder): (readonly string[])[] {
  mkdirSync(seenFromHere, { recursive: true });
  const file = (name: string, text: string): string => {
    writeFileSync(join(seenFromHere, name), text);
    return join(folder, name);
  };
  const common = (name: string, config: string): string[] => [
    join(programs, name),
    '--config_file',
    config,
    '--pid_file',
    join(folder, `${name}.pid`),
    '--vty_socket',
    folder,
    '--socket',
    join(folder, 'zserv.api'),
    '--log',
    `file:${join(folder, `${name}.log`)}`,
  ];
  const commands = [
    common('zebra', file('zebra.conf', 'frr defaults datacenter\n')),
    common('bgpd', file('bgpd.conf', `frr defaults datacenter\n${bgp}`)),
  ];
  execFileSync('chown', ['--recursive', 'frr:frr', seenFromHere]);
  return commands;
}

export class Frr implements AsyncDisposable {
  readonly #place: Place;
  readonly #folder: string;
  readonly #processes: ChildProcess[];

  constructor(place: Place, folder: string, bgp: string) {
    this.#place = place;
    this.#folder = folder;
    this.#processes = inNetns(place.path, () =>
      frrCommands(folder, bgp).map(([program = '', ...words]) => spawn(program, words, { stdio: 'ignore' })),
    );
  }

  /** What vtysh prints. */
  ask(command: string): string {
    return this.#place.try('vtysh', '--vty_socket', this.#folder, '-c', command).output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#processes) {
      if (child.exitCode !== null) continue;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    }
  }
}

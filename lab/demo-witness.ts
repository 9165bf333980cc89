// Proof of a claim: runs commands that a person could type as well, keeps each with the decisive part of its answer, and
// throws when an answer is not what the claim says. What was seen until then stays as evidence of the failure.
import { setTimeout as sleep } from 'node:timers/promises';
import { Fault } from '#model/fault.ts';
import type { CommandOptions, Output } from './command.ts';
import type { Evidence } from './demo-screen.ts';
import { dockerOutput } from './engine.ts';
import type { Host } from './host.ts';

/** Answers the decisive part when the output is as claimed, undefined when it is not. */
export type Proof = (said: string) => string | undefined;

export interface Question {
  readonly where: string;
  readonly command: string;
  readonly ask: () => Promise<Output>;
}

export const commandMs = 15_000;
const patience: CommandOptions = { anyStatus: true, timeoutMs: commandMs };

export class Witness {
  readonly evidence: Evidence[] = [];

  see(where: string, command: string, seen: string): void {
    this.evidence.push({ where, command, seen });
  }

  /** In a container. `patienceMs`: how long the claim may take to become true; 0 (the default) for what must hold at once. */
  container(host: Host, container: string, argv: readonly string[], proof: Proof, patienceMs = 0): Promise<void> {
    const ask = (): Promise<Output> => dockerOutput(host, ['exec', container, ...argv], patience);
    return this.#look(`${host.name} ${container}`, shell(argv), ask, proof, patienceMs);
  }

  /** On a host itself. */
  host(host: Host, argv: readonly string[], proof: Proof, patienceMs = 0): Promise<void> {
    const ask = (): Promise<Output> => host.exec(argv, patience);
    return this.#look(host.name, shell(argv), ask, proof, patienceMs);
  }

  /** The Docker client of a host. */
  docker(host: Host, argv: readonly string[], proof: Proof, patienceMs = 0): Promise<void> {
    return this.#look(host.name, shell(['docker', ...argv]), () => dockerOutput(host, argv, patience), proof, patienceMs);
  }

  /** By any other way: `command` is how a person would do it. */
  other({ where, command, ask }: Question, proof: Proof, patienceMs = 0): Promise<void> {
    return this.#look(where, command, ask, proof, patienceMs);
  }

  async #look(where: string, command: string, ask: () => Promise<Output>, proof: Proof, patienceMs: number): Promise<void> {
    const deadline = performance.now() + patienceMs;
    for (;;) {
      const { stdout, stderr } = await ask();
      const said = `${stdout}${stderr}`.trim();
      const seen = proof(said);
      if (seen !== undefined) {
        this.see(where, command, seen);
        return;
      }
      if (performance.now() >= deadline) {
        this.see(where, command, said === '' ? '(nothing)' : onOneLine(said));
        throw new Fault('internal', 'The last answer is not what was expected');
      }
      await sleep(200);
    }
  }
}

/** As it would be typed. */
export const shell = (argv: readonly string[]): string =>
  argv.map((part) => (/^[\w@%+=:,./-]+$/.test(part) ? part : `'${part.replaceAll("'", `'\\''`)}'`)).join(' ');

const onOneLine = (said: string): string => {
  const line = said
    .split('\n')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .join(' | ');
  return line.length > 300 ? `${line.slice(0, 300)} …` : line;
};

/** The matching part of the answer. */
export const part =
  (pattern: RegExp): Proof =>
  (said) =>
    pattern.exec(said)?.[0];

/** The first line that matches, trimmed. */
export const lineWith =
  (pattern: RegExp): Proof =>
  (said) =>
    said
      .split('\n')
      .find((line) => pattern.test(line))
      ?.trim();

/** The matching lines joined, when all patterns are found. */
export const linesWith =
  (...patterns: readonly RegExp[]): Proof =>
  (said) => {
    const found = patterns.map((pattern) => lineWith(pattern)(said));
    return found.includes(undefined) ? undefined : found.join(', ');
  };

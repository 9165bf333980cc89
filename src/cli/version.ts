// `causeway version`: this program's and the controller's version, and whether they fit. Agents are compared too.
import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { isFault } from '#model/fault.ts';
import { all } from './client.ts';
import { examples, type Group } from './command.ts';
import type { Answer, Session } from './session.ts';
import { facts } from './table.ts';

/** Version of the program that runs, from package.json. */
export function ownVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return v.parse(v.object({ version: v.string() }), JSON.parse(readFileSync(file, 'utf8'))).version;
}

/** A sentence when the two versions may not work together: a different major, or a minor that differs by more than one; else undefined. */
export function skewBetween(own: string, other: string): string | undefined {
  const [ownMajor = 0, ownMinor = 0] = own.split('.').map(Number);
  const [major = 0, minor = 0] = other.split('.').map(Number);
  if (ownMajor === major && Math.abs(ownMinor - minor) <= 1) return undefined;
  return `version ${own} of this program and ${other} of the other side are too far apart; bring both to the same version`;
}

async function version(session: Session, _args: readonly string[], options: { client?: true }): Promise<Answer> {
  const own = ownVersion();
  if (options.client === true) return { data: { client: own }, names: [own], text: () => `${own}\n` };
  try {
    const { client, target } = await session.connection();
    const [controller, hosts] = await Promise.all([client.version(), all(client, 'hosts')]);
    const warnings = [
      ...[skewBetween(own, controller.version)].flatMap((sentence) => (sentence === undefined ? [] : [`Controller: ${sentence}`])),
      ...hosts.flatMap(({ name, agentVersion }) => {
        const sentence = agentVersion === '' ? undefined : skewBetween(controller.version, agentVersion);
        return sentence === undefined ? [] : [`Agent of ${name} has version ${agentVersion}, the controller ${controller.version}`];
      }),
    ];
    return {
      data: { client: own, controller: { url: target.url, ...controller }, warnings },
      names: [own],
      text: (look) =>
        facts(look, [
          ['Client', own],
          ['Controller', `${controller.version} at ${target.url}`],
          ...warnings.map((sentence) => ['Warning', sentence] as const),
        ]),
    };
  } catch (error) {
    // Without a context there is still a version to tell.
    if (!isFault(error, 'not-found')) throw error;
    return {
      data: { client: own, controller: null },
      names: [own],
      text: (look) =>
        facts(look, [
          ['Client', own],
          ['Controller', 'no context'],
        ]),
    };
  }
}

export const group: Group = {
  build(command, act) {
    command.option('--client', 'only the version of this program');
    act<{ client?: true }>(examples(command, 'causeway version', 'causeway version --client'), version);
  },
};

// Answers `causeway __complete WORDS… CURRENT`: what may stand where CURRENT is. Commands, options and fixed values come from
// the same tree that runs the commands; names come from the controller, and when it does not answer at once there are none.
import type { Argument, Command, Option } from 'commander';
import { all } from './client.ts';
import { type Candidates, candidatesOf } from './command.ts';
import { allContexts } from './contexts.ts';
import { otherPrograms } from './groups.ts';
import { buildProgram, groupName, loadGroups } from './program.ts';
import type { Session } from './session.ts';

/** Nobody waits longer than this for names. */
const usualPatienceMs = 1500;

interface Candidate {
  readonly word: string;
  readonly meaning?: string | undefined;
}

interface Place {
  readonly command: Command;
  /** How many arguments stand before. */
  readonly position: number;
  /** The option whose value is being typed. */
  readonly option: Option | undefined;
}

interface Asker {
  readonly session: Session;
  readonly patienceMs: number;
}

const lineage = (command: Command): readonly Command[] => (command.parent === null ? [command] : [command, ...lineage(command.parent)]);
const optionsOf = (command: Command): readonly Option[] => lineage(command).flatMap((one) => one.options.filter(({ hidden }) => !hidden));

/** Follows the words before the current one down the tree. */
function placeAfter(program: Command, words: readonly string[]): Place {
  let place: Place = { command: program, position: 0, option: undefined };
  for (const word of words) {
    const { command, position } = place;
    if (place.option !== undefined) {
      place = { command, position, option: undefined };
    } else if (word.startsWith('-') && word !== '-') {
      const option = optionsOf(command).find(({ long, short }) => word === long || word === short);
      place = { command, position, option: option?.required === true || option?.optional === true ? option : undefined };
    } else {
      const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
      place =
        next === undefined ? { command, position: position + 1, option: undefined } : { command: next, position: 0, option: undefined };
    }
  }
  return place;
}

async function named(what: Candidates, session: Session): Promise<readonly Candidate[]> {
  if (what === 'contexts') {
    const { found } = await allContexts(session.surroundings.contextFiles);
    return found.map(({ name, context }) => ({ word: name, meaning: context.url }));
  }
  if (what === 'templates' || what === 'clusters') {
    const { inMagnum } = await import('./magnum-session.ts');
    return inMagnum(session, {}, async (magnum) => (await magnum[what]()).map(({ name }) => ({ word: name })));
  }
  const client = await session.client();
  if (what === 'tokens') return (await client.tokens()).map(({ id, name, type }) => ({ word: id, meaning: `${type} ${name}` }));
  if (what === 'certificates') return (await client.certificates()).map(({ serial, host }) => ({ word: serial, meaning: host }));
  if (what === 'pools') return (await all(client, 'pools')).map(({ id, cidr }) => ({ word: id, meaning: cidr }));
  if (what === 'endpoints') return (await all(client, 'endpoints')).map(({ id, name, owner }) => ({ word: name || id, meaning: owner }));
  return (await all(client, what)).map(({ name }) => ({ word: name }));
}

/** Names of that kind, none when they cannot be had in time: completion is never the place for an error. */
async function names(what: Candidates | undefined, session: Session, patienceMs: number): Promise<readonly Candidate[]> {
  if (what === undefined) return [];
  const late = new Promise<readonly Candidate[]>((resolve) => {
    setTimeout(resolve, patienceMs, []).unref();
  });
  return Promise.race([named(what, session).catch(() => []), late]);
}

const valuesOf = async (place: Argument | Option | undefined, { session, patienceMs }: Asker): Promise<readonly Candidate[]> => {
  if (place === undefined) return [];
  return place.argChoices === undefined ? names(candidatesOf(place), session, patienceMs) : place.argChoices.map((word) => ({ word }));
};

async function candidatesAt({ command, position, option }: Place, current: string, asker: Asker): Promise<readonly Candidate[]> {
  if (option !== undefined) return valuesOf(option, asker);
  const assigned = /^(--[a-z0-9-]+)=/.exec(current);
  if (assigned !== null) {
    const values = await valuesOf(
      optionsOf(command).find(({ long }) => long === assigned[1]),
      asker,
    );
    return values.map(({ word, meaning }) => ({ word: `${assigned[0]}${word}`, meaning }));
  }
  if (current.startsWith('-')) {
    return [
      ...optionsOf(command).map(({ long, short, description }) => ({ word: long ?? short ?? '', meaning: description })),
      { word: '--help', meaning: 'show help' },
    ];
  }
  if (command.commands.length > 0) {
    const others = command.parent === null ? otherPrograms.map(({ name, summary }) => ({ word: name, meaning: summary })) : [];
    return [...command.commands.map((one) => ({ word: one.name(), meaning: one.description() })), ...others];
  }
  const { registeredArguments } = command;
  const last = registeredArguments.at(-1);
  return valuesOf(registeredArguments[position] ?? (last?.variadic === true ? last : undefined), asker);
}

/** bash hands over `--model=o` as `--model`, `=`, `o`, and expects what stands for the last of them. */
const unsplit = (words: readonly string[]): readonly string[] =>
  words.flatMap((word, index) => {
    if (word !== '=' || words[index - 1]?.startsWith('--') !== true) return [word];
    return index === words.length - 1 ? [''] : [];
  });

/** One candidate per line, `word<TAB>meaning`; only those that begin with the current word. `words` ends with the current one. */
export async function complete(words: readonly string[], session: Session, patienceMs: number = usualPatienceMs): Promise<string> {
  const before = unsplit(words).slice(0, -1);
  const current = unsplit(words).at(-1) ?? '';
  const group = groupName(before);
  const program = buildProgram(await loadGroups(group === undefined ? [] : [group]), () => undefined);
  const found = await candidatesAt(placeAfter(program, before), current, { session, patienceMs });
  return found
    .filter(({ word }) => word.startsWith(current))
    .map(({ word, meaning }) => `${word}${meaning === undefined || meaning === '' ? '' : `\t${meaning.split('\n')[0] ?? ''}`}\n`)
    .join('');
}

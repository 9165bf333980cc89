// `causeway context`: which controllers this user knows. Works without any controller.
import { readFileSync } from 'node:fs';
import { Fault } from '#model/fault.ts';
import { collect, completes, done, examples, type Group, nothingDone } from './command.ts';
import { allContexts, checkUrl, readContexts, resolveTarget, type Target, urlsOf, writeContexts } from './contexts.ts';
import type { Answer, Session } from './session.ts';
import { table } from './table.ts';

/** Where changes are written: the user's own file. */
function ownFile(session: Session): string {
  const [file] = session.surroundings.contextFiles;
  if (file === undefined) throw new Fault('invalid', 'There is no place for a contexts file', { hint: 'Set HOME or XDG_CONFIG_HOME.' });
  return file;
}

/** The context in use, or undefined where none can be. */
async function targetInUse({ surroundings }: Session): Promise<Target | undefined> {
  try {
    return await resolveTarget(surroundings.contextFiles, surroundings);
  } catch (error) {
    if (error instanceof Fault && (error.code === 'not-found' || error.code === 'invalid')) return undefined;
    throw error;
  }
}

async function list(session: Session): Promise<Answer> {
  const [{ found }, target] = await Promise.all([allContexts(session.surroundings.contextFiles), targetInUse(session)]);
  const rows = found.map(({ name, file, context }) => ({
    name,
    current: name === target?.name,
    url: context.url,
    urls: context.urls ?? [],
    hasToken: context.token !== undefined,
    hasCa: context.ca !== undefined,
    file,
  }));
  const fromEnvironment =
    target !== undefined && !rows.some(({ current }) => current)
      ? [
          {
            name: target.name,
            current: true,
            url: target.url,
            urls: target.others ?? [],
            hasToken: target.token !== undefined,
            hasCa: target.ca !== undefined,
            file: target.certificate === undefined ? 'CAUSEWAY_URL' : "this host's identity",
          },
        ]
      : [];
  const every = [...rows, ...fromEnvironment];
  return {
    data: every,
    names: every.map(({ name }) => name),
    text: (look) =>
      table(
        look,
        every,
        [
          { title: 'USED', value: ({ current }) => (current ? '*' : ' ') },
          { title: 'NAME', value: ({ name }) => name },
          { title: 'URL', value: ({ url, urls }) => [url, ...urls].join(',') },
          { title: 'TOKEN', value: ({ hasToken }) => (hasToken ? 'yes' : 'no') },
          { title: 'CA', value: ({ hasCa }) => (hasCa ? 'yes' : 'no') },
          { title: 'FROM', value: ({ file }) => file },
        ],
        'No contexts. Add one: causeway context add NAME --url https://HOST:7480 --token TOKEN --ca FILE',
      ),
  };
}

async function use(session: Session, [name = '']: readonly string[]): Promise<Answer> {
  const { found } = await allContexts(session.surroundings.contextFiles);
  if (!found.some((one) => one.name === name)) {
    throw new Fault('not-found', `No context ${JSON.stringify(name)}`, { hint: 'See "causeway context ls".' });
  }
  const file = ownFile(session);
  const before = await readContexts(file);
  writeContexts(file, { ...before, current: name });
  return done({ current: name }, name, `Using context ${name}`);
}

interface AddOptions {
  readonly url: readonly string[];
  readonly token?: string;
  readonly tokenFile?: string;
  readonly ca?: string;
}

function readText(file: string, field: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new Fault('not-found', `Cannot read ${file}`, { field, cause: error });
  }
}

/** Fault `invalid` for an empty one, which would only be refused by the controller later. */
async function tokenOf(session: Session, { token, tokenFile }: AddOptions): Promise<string | undefined> {
  const fromFile = tokenFile === undefined ? undefined : readText(tokenFile, 'token-file').trim();
  const given = token === '-' ? (await session.readStdin()).trim() : (token ?? fromFile);
  if (given === '') throw new Fault('invalid', 'The token is empty', { field: token === undefined ? 'token-file' : 'token' });
  return given;
}

/** PEM text, or what a file holds. Fault `invalid` when that is no certificate. */
function caOf({ ca }: AddOptions): string | undefined {
  if (ca === undefined) return undefined;
  const text = ca.includes('-----BEGIN') ? ca : readText(ca, 'ca');
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw new Fault('invalid', 'No certificate in PEM form', { field: 'ca', hint: 'It is /etc/causeway/ca.pem on the controller.' });
}

async function add(session: Session, [name = '']: readonly string[], options: AddOptions): Promise<Answer> {
  const urls = urlsOf(options.url);
  for (const url of [urls.url, ...(urls.urls ?? [])]) checkUrl(url);
  const token = await tokenOf(session, options);
  const ca = caOf(options);
  const file = ownFile(session);
  const before = await readContexts(file);
  const context = { ...urls, ...(token === undefined ? {} : { token }), ...(ca === undefined ? {} : { ca }) };
  writeContexts(file, { current: before.current ?? name, contexts: { ...before.contexts, [name]: context } });
  return done({ name, ...urls, file }, name, `${Object.hasOwn(before.contexts, name) ? 'Changed' : 'Added'} context ${name} in ${file}`);
}

async function remove(session: Session, [name = '']: readonly string[], options: { yes?: true }): Promise<Answer> {
  const file = ownFile(session);
  const { current, contexts } = await readContexts(file);
  if (!Object.hasOwn(contexts, name))
    throw new Fault('not-found', `No context ${JSON.stringify(name)} in ${file}`, { hint: 'See "causeway context ls".' });
  if (!(await session.confirm(`Forget context ${name} and its token?`, options.yes))) return nothingDone;
  const rest = Object.fromEntries(Object.entries(contexts).filter(([key]) => key !== name));
  writeContexts(file, { ...(current === undefined || current === name ? {} : { current }), contexts: rest });
  return done({ removed: [name] }, name, `Removed context ${name}`);
}

export const group: Group = {
  build(context, act) {
    act(examples(context.command('ls').description('List contexts; * marks the one in use.'), 'causeway context ls'), list);
    const used = context
      .command('use')
      .argument('<name>', 'name of the context')
      .description('Choose the context that is used from now on.');
    act(examples(completes(used, 'contexts'), 'causeway context use production'), use);
    const added = context
      .command('add')
      .argument('<name>', 'name of the context')
      .description('Add or replace a context in your own file.')
      .requiredOption(
        '--url <url>',
        'address of the controller, https://HOST:7480; several controllers: repeat it, or separate them by commas',
        collect,
      )
      .option('--token <token>', 'token; - reads it from standard input')
      .option('--token-file <file>', 'file that holds the token')
      .option('--ca <file>', "file with the controller's CA certificate (PEM)");
    act<AddOptions>(
      examples(
        added,
        'causeway context add lab --url https://10.0.0.1:7480 --token-file admin.token --ca ca.pem',
        'causeway context add both --url https://10.0.0.1:7480,https://10.0.0.2:7480 --token-file admin.token --ca ca.pem',
        'pass show causeway | causeway context add prod --url https://causeway.example:7480 --token - --ca ca.pem',
      ),
      add,
    );
    const removed = context
      .command('rm')
      .argument('<name>', 'name of the context')
      .description('Forget a context.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'contexts'), 'causeway context rm lab'), remove);
  },
};

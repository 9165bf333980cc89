// `causeway bgp` and `causeway secret`: with whom hosts speak BGP and how, as Calico's resources say, and the passwords of peers.
// They are made by `causeway apply`.
import { Fault } from '#model/fault.ts';
import type { BgpResource } from '#model/resources.ts';
import { calicoDocument } from './calico-manifest.ts';
import { all } from './client.ts';
import { completes, done, examples, type Group, listing, nothingDone } from './command.ts';
import type { Answer, Session } from './session.ts';

const textOf = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? String(value) : '');

/** Whom a peer is for, and who that is; the AS number of all; the number of a filter's rules. */
function summary({ sort, spec }: BgpResource): string {
  if (sort === 'BGPPeer') {
    const of = textOf(spec['node']) || textOf(spec['nodeSelector']) || 'all hosts';
    return `${of} with ${[textOf(spec['peerIP']), textOf(spec['peerSelector'])].join('')}${'asNumber' in spec ? ` (AS ${textOf(spec['asNumber'])})` : ''}`;
  }
  if (sort === 'BGPFilter') {
    const rules = Object.entries(spec).flatMap(([place, some]) => (Array.isArray(some) ? [`${place}: ${some.length}`] : []));
    return rules.join(', ');
  }
  const mesh = spec['nodeToNodeMeshEnabled'] === false ? 'no mesh' : 'mesh';
  return `AS ${textOf(spec['asNumber']) || '64512'}, ${mesh}`;
}

async function list(session: Session): Promise<Answer> {
  const rows = await all(await session.client(), 'bgp');
  return {
    ...listing(
      rows,
      [
        { title: 'KIND', value: ({ sort }) => sort },
        { title: 'NAME', value: ({ name }) => name },
        { title: 'SAYS', value: summary },
      ],
      'Nothing is set: hosts of the model calico speak with each other only. Set it: causeway apply -f FILE',
    ),
    names: rows.map(({ id }) => id),
  };
}

async function show(session: Session, [name = '']: readonly string[]): Promise<Answer> {
  const found = await (await session.client()).get('bgp', name);
  const { stringify } = await import('yaml');
  return { data: found, names: [found.id], text: () => stringify(calicoDocument(found)) };
}

async function remove(session: Session, args: readonly string[], options: { yes?: true }): Promise<Answer> {
  const names = await session.names(args);
  if (!(await session.confirm(`Remove ${names.join(', ')}? Hosts change their sessions at once.`, options.yes))) return nothingDone;
  const client = await session.client();
  for (const name of names) await client.remove('bgp', name);
  return { data: { removed: names }, names, text: () => names.map((name) => `Removed ${name}\n`).join('') };
}

export const bgpGroup: Group = {
  build(bgp, act) {
    act(examples(bgp.command('ls').description('List what is set of BGP.'), 'causeway bgp ls'), list);
    const shown = bgp
      .command('show')
      .argument('<name>', 'name, or sort and name where two have one')
      .description('Print one as Calico’s users write it.');
    act(examples(completes(shown, 'bgp'), 'causeway bgp show bgppeer.fabric'), show);
    const removed = bgp
      .command('rm')
      .argument('<name...>', 'names, or sorts and names; - reads them from standard input')
      .description('Remove peers, filters or settings.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'bgp'), 'causeway bgp rm bgppeer.fabric'), remove);
  },
};

async function listSecrets(session: Session): Promise<Answer> {
  const rows = await all(await session.client(), 'secrets');
  return listing(
    rows,
    [
      { title: 'NAME', value: ({ name }) => name },
      { title: 'KEYS', value: ({ keys }) => keys.join(',') },
    ],
    'No secrets.',
  );
}

async function setSecret(session: Session, [name = '']: readonly string[], options: { key: string }): Promise<Answer> {
  const text = (await session.readStdin()).trimEnd();
  if (text === '') throw new Fault('invalid', 'Nothing on standard input', { hint: 'Pipe the password in.' });
  const secret = await (await session.client()).putSecret(name, { texts: { [options.key]: text } });
  return done(secret, secret.name, `Set ${options.key} of secret ${secret.name}`);
}

async function removeSecret(session: Session, [name = '']: readonly string[], options: { yes?: true }): Promise<Answer> {
  if (!(await session.confirm(`Remove secret ${name}?`, options.yes))) return nothingDone;
  await (await session.client()).remove('secrets', name);
  return done({ removed: [name] }, name, `Removed secret ${name}`);
}

export const secretGroup: Group = {
  build(secret, act) {
    act(
      examples(secret.command('ls').description('List secrets and their keys; texts are shown to nobody.'), 'causeway secret ls'),
      listSecrets,
    );
    const set = secret
      .command('set')
      .argument('<name>', 'name of the secret')
      .description('Make or replace a secret of one key; its text is read from standard input.')
      .option('--key <key>', 'its key', 'password');
    act<{ key: string }>(examples(set, 'causeway secret set fabric <password.txt'), setSecret);
    const removed = secret
      .command('rm')
      .argument('<name>', 'name of the secret')
      .description('Remove a secret that nothing names.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'secrets'), 'causeway secret rm fabric'), removeSecret);
  },
};

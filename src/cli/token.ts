// `causeway token`: secrets with which hosts join and users identify themselves. A token is shown once, when it is made.
import type { TokenRequest } from '#api/requests.ts';
import { Fault } from '#model/fault.ts';
import { completes, done, examples, type Group, nothingDone, seconds } from './command.ts';
import type { Answer, Session } from './session.ts';
import { age, facts, table } from './table.ts';

interface CreateOptions {
  readonly join?: true;
  readonly host?: string;
  readonly role?: string;
  readonly ttl?: string;
  readonly name?: string;
}

/** Fault `invalid` unless exactly one of --join and --role is given. */
export function tokenRequestFrom({ join, host, role, ttl, name }: CreateOptions): TokenRequest {
  if ((join === undefined) === (role === undefined)) {
    throw new Fault('invalid', 'Say what the token is for', {
      field: 'role',
      hint: '--join for a host, or --role admin, operator, viewer or tenant:NAME for a user.',
    });
  }
  if (host !== undefined && join === undefined) throw new Fault('invalid', '--host goes with --join only', { field: 'host' });
  return {
    type: join === true ? 'join' : 'api',
    ...(role === undefined ? {} : { role }),
    ...(host === undefined ? {} : { host }),
    ...(ttl === undefined ? {} : { ttlSeconds: seconds(ttl, 'ttl') }),
    ...(name === undefined ? {} : { name }),
  };
}

/** The controller's address as other machines may know it: the one in use, unless that is this machine's own name for itself. */
function addressForOthers(url: string): string {
  const { hostname, port } = new URL(url);
  const isOwn = hostname === 'localhost' || hostname === '[::1]' || hostname.startsWith('127.');
  return isOwn ? `https://CONTROLLER:${port === '' ? '443' : port}` : url;
}

async function create(session: Session, _args: readonly string[], options: CreateOptions): Promise<Answer> {
  const request = tokenRequestFrom(options);
  const { client, target } = await session.connection();
  const made = await client.createToken(request);
  const addresses = [target.url, ...(target.others ?? [])].map((url) => addressForOthers(url)).join(',');
  const use =
    request.type === 'join'
      ? `On the host, as root:\n  causeway agent --join ${made.token} --controller ${addresses}${request.host === undefined ? '' : ` --host ${request.host}`}\n`
      : `To use it:\n  causeway context add NAME --url ${addresses} --token ${made.token}${target.ca === undefined ? '' : ' --ca FILE'}\n`;
  return {
    data: made,
    names: [made.token],
    text: (look) =>
      `${facts(look, [
        ['Token', made.token],
        ['For', request.type === 'join' ? `joining ${request.host ?? 'one host'}` : `role ${request.role ?? ''}`],
        ['Expires', made.expiresAt ?? 'never'],
        ['Id', made.id],
      ])}It is shown only now. ${use}`,
  };
}

async function list(session: Session): Promise<Answer> {
  const tokens = await (await session.client()).tokens();
  return {
    data: tokens,
    names: tokens.map(({ id }) => id),
    text: (look) =>
      table(
        look,
        tokens,
        [
          { title: 'ID', value: ({ id }) => id },
          { title: 'TYPE', value: ({ type }) => type },
          { title: 'NAME', value: ({ name }) => name },
          { title: 'ROLE', value: ({ role }) => role ?? '' },
          { title: 'HOST', value: ({ host }) => host ?? '' },
          { title: 'USED BY', value: ({ usedBy }) => usedBy ?? '' },
          { title: 'AGE', value: ({ createdAt }) => age(look, createdAt) },
          { title: 'EXPIRES', value: ({ expiresAt }) => expiresAt ?? 'never' },
        ],
        'No tokens.',
      ),
  };
}

async function remove(session: Session, [id = '']: readonly string[], options: { yes?: true }): Promise<Answer> {
  if (!(await session.confirm(`Remove token ${id}? Who uses it is locked out.`, options.yes))) return nothingDone;
  await (await session.client()).removeToken(id);
  return done({ removed: [id] }, id, `Removed token ${id}`);
}

export const group: Group = {
  build(token, act) {
    const created = token
      .command('create')
      .description('Make a token, for a host to join with or for a user.')
      .option('--join', 'for one host to join with')
      .option('--host <name>', 'with --join: only for the host of this name')
      .option('--role <role>', 'for a user: admin, operator, viewer or tenant:NAME')
      .option('--ttl <duration>', 'how long it is valid: 30s, 15m, 2h, 7d (left out: an hour for --join, for ever for a user)')
      .option('--name <text>', 'what it is for, for people');
    act<CreateOptions>(
      examples(
        created,
        'causeway token create --join',
        'causeway token create --join --host node-b --ttl 15m',
        'causeway token create --role viewer --name dashboard',
        'causeway token create --role tenant:shop --quiet > shop.token',
      ),
      create,
    );
    act(examples(token.command('ls').description('List tokens; the secrets are not shown.'), 'causeway token ls'), list);
    const removed = token
      .command('rm')
      .argument('<id>', 'id of the token')
      .description('Remove a token.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'tokens'), 'causeway token rm ID'), remove);
  },
};

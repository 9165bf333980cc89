// `causeway tenant`: owners of networks. A token with the role tenant:NAME sees and changes only what the tenant owns.
import { all } from './client.ts';
import { completes, done, examples, type Group, listing, nothingDone } from './command.ts';
import type { Answer, Session } from './session.ts';

async function list(session: Session): Promise<Answer> {
  const client = await session.client();
  const [tenants, networks] = await Promise.all([all(client, 'tenants'), all(client, 'networks')]);
  return listing(
    tenants,
    [
      { title: 'NAME', value: ({ name }) => name },
      { title: 'NETWORKS', value: ({ id, name }) => String(networks.filter(({ tenant }) => tenant === name || tenant === id).length) },
      { title: 'DESCRIPTION', value: ({ description }) => description },
    ],
    'No tenants.',
  );
}

async function create(session: Session, [name = '']: readonly string[], options: { description?: string }): Promise<Answer> {
  const tenant = await (await session.client()).create('tenants', { name, description: options.description ?? '' });
  return done(tenant, tenant.name, `Created tenant ${tenant.name}`);
}

async function remove(session: Session, [name = '']: readonly string[], options: { yes?: true }): Promise<Answer> {
  if (!(await session.confirm(`Remove tenant ${name}?`, options.yes))) return nothingDone;
  await (await session.client()).remove('tenants', name);
  return done({ removed: [name] }, name, `Removed tenant ${name}`);
}

export const group: Group = {
  build(tenant, act) {
    act(examples(tenant.command('ls').description('List tenants.'), 'causeway tenant ls'), list);
    const created = tenant
      .command('create')
      .argument('<name>', 'name of the tenant')
      .description('Make a tenant.')
      .option('--description <text>', 'for people');
    act<{ description?: string }>(examples(created, 'causeway tenant create shop --description "the web shop"'), create);
    const removed = tenant
      .command('rm')
      .argument('<name>', 'name of the tenant')
      .description('Remove a tenant that owns nothing.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'tenants'), 'causeway tenant rm shop'), remove);
  },
};

// `causeway endpoint`: the attachments of containers to networks. They are made by front ends, here they are only shown.
import type { Endpoint, Network } from '#model/resources.ts';
import { all } from './client.ts';
import { completes, examples, type Group } from './command.ts';
import type { Answer, Session } from './session.ts';
import { age, facts, type Look, table } from './table.ts';

const portsText = ({ ports }: Endpoint): string =>
  ports
    .map(({ hostIp, hostPort, port, protocol }) => `${hostIp === undefined ? '' : `${hostIp}:`}${hostPort}->${port}/${protocol}`)
    .join(' ');

/** Endpoints as a table; the network's column only when there is more than one. */
export function shownEndpoints(look: Look, endpoints: readonly Endpoint[], networks: readonly Network[], empty: string): string {
  const nameOf = new Map(networks.map(({ id, name }) => [id, name]));
  return table(
    look,
    endpoints,
    [
      { title: 'NAME', value: ({ name, owner }) => name || owner },
      ...(networks.length === 1 ? [] : [{ title: 'NETWORK', value: ({ network }: Endpoint) => nameOf.get(network) ?? network }]),
      { title: 'HOST', value: ({ host }) => host },
      { title: 'ADDRESSES', value: ({ addresses }) => addresses.join(',') },
      { title: 'MAC', value: ({ mac }) => mac },
      { title: 'PORTS', value: portsText },
      { title: 'ID', value: ({ id }) => id.slice(0, 12) },
    ],
    empty,
  );
}

async function list(session: Session, _args: readonly string[], options: { network?: string; host?: string }): Promise<Answer> {
  const client = await session.client();
  const network = options.network === undefined ? undefined : await client.get('networks', options.network);
  if (options.host !== undefined) await client.get('hosts', options.host);
  const [endpoints, networks] = await Promise.all([
    all(client, 'endpoints', network === undefined ? {} : { network: network.id }),
    network === undefined ? all(client, 'networks') : [network],
  ]);
  const rows = endpoints.filter(
    (endpoint) =>
      (network === undefined || endpoint.network === network.id) && (options.host === undefined || endpoint.host === options.host),
  );
  return {
    data: rows,
    names: rows.map(({ id }) => id),
    text: (look) =>
      shownEndpoints(look, rows, network === undefined ? [...networks, ...networks] : [network], 'No endpoints: no container is attached.'),
  };
}

async function show(session: Session, [wanted = '']: readonly string[]): Promise<Answer> {
  const client = await session.client();
  const endpoint = await client.get('endpoints', wanted);
  const network = (await all(client, 'networks')).find(({ id }) => id === endpoint.network);
  return {
    data: endpoint,
    names: [endpoint.id],
    text: (look) =>
      facts(look, [
        ['Name', endpoint.name],
        ['Id', endpoint.id],
        ['Container', endpoint.owner],
        ['Network', network?.name ?? endpoint.network],
        ['Host', endpoint.host],
        ['Addresses', endpoint.addresses.join(' ')],
        ['MAC', endpoint.mac],
        ['Resolves as', endpoint.names.join(' ')],
        ['Published', portsText(endpoint)],
        ['Age', age(look, endpoint.createdAt)],
      ]),
  };
}

export const group: Group = {
  build(endpoint, act) {
    const ls = endpoint
      .command('ls')
      .description('List endpoints.')
      .option('--network <name>', 'only those of this network')
      .option('--host <name>', 'only those on this host');
    completes(completes(ls, 'networks', '--network'), 'hosts', '--host');
    act<{ network?: string; host?: string }>(examples(ls, 'causeway endpoint ls', 'causeway endpoint ls --network web --host a'), list);
    const shown = endpoint.command('show').argument('<endpoint>', 'name or id').description('Show one endpoint.');
    act(examples(completes(shown, 'endpoints'), 'causeway endpoint show web-1'), show);
  },
};

// `causeway expose` and `causeway exposure`: deliberate openings of an endpoint's port to the outside.
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure, Protocol } from '#model/resources.ts';
import { all } from './client.ts';
import { cloudReportOf } from './cloud-report.ts';
import { collect, completes, done, each, examples, type Group, integer, nothingDone } from './command.ts';
import type { Answer, Session } from './session.ts';
import { reachable } from './reach.ts';
import { table } from './table.ts';

interface ExposeOptions {
  readonly hostPort?: number;
  readonly hostIp?: string;
  readonly from?: readonly string[];
  /** True: without a value. */
  readonly floatingIp?: string | true;
  readonly loadBalancer?: true;
  readonly provider?: string;
  readonly internal?: true;
  readonly virtualIp?: true;
  readonly ipv6?: true;
  readonly name?: string;
}

const protocols: readonly Protocol[] = ['tcp', 'udp', 'sctp'];

/** `80`, `80/udp`, `53/tcp`. Fault `invalid`. */
function portOf(text: string): { port: number; protocol: Protocol } {
  const [number = '', protocol = 'tcp', ...rest] = text.split('/');
  const known = protocols.find((one) => one === protocol);
  const port = Number(number);
  if (known === undefined || rest.length > 0 || !/^[0-9]{1,5}$/.test(number) || port < 1 || port > 65_535) {
    throw new Fault('invalid', `Not a port: ${text}`, { field: 'port', hint: 'Write 80, 53/udp or 5000/sctp.' });
  }
  return { port, protocol: known };
}

/** Fault `invalid`. */
function inCloud({
  floatingIp,
  loadBalancer,
  internal,
  provider,
}: ExposeOptions): Pick<Exposure, 'floatingIp' | 'loadBalancer' | 'provider'> {
  if (internal && (loadBalancer === undefined || floatingIp !== undefined)) {
    throw new Fault('invalid', '--internal is of load balancers without a floating IP', {
      field: 'internal',
      hint: 'Write --load-balancer --internal',
    });
  }
  return {
    ...(floatingIp === undefined ? {} : { floatingIp: floatingIp === true ? 'auto' : floatingIp }),
    ...(loadBalancer === undefined ? {} : { loadBalancer: internal ? 'internal' : 'public' }),
    ...(provider === undefined ? {} : { provider }),
  };
}

async function expose(session: Session, [name = '', endpoint = '', text = '']: readonly string[], options: ExposeOptions): Promise<Answer> {
  const { port, protocol } = portOf(text);
  const sources = (options.from ?? []).map((cidr, index) => parseCidr(cidr, `from[${index}]`));
  const client = await session.client();
  const network = await client.get('networks', name);
  const hostPort = options.hostPort ?? port;
  const exposure = await client.create('exposures', {
    ...(options.name === undefined ? {} : { name: options.name }),
    network: network.id,
    endpoint,
    protocol,
    port,
    hostPort,
    sources,
    ...inCloud(options),
    ...(options.virtualIp === undefined ? {} : { virtualIp: true }),
    ...(options.ipv6 === undefined ? {} : { family: 6 }),
    ...(options.hostIp === undefined ? {} : { hostIp: parseIp(options.hostIp, 'host-ip') }),
  });
  const clients = sources.length === 0 ? 'everyone' : sources.join(', ');
  return done(
    exposure,
    exposure.name,
    `Exposed ${endpoint}:${port}/${protocol} of network ${network.name} as port ${hostPort} of its host, for ${clients}`,
  );
}

interface ListOptions {
  readonly network?: string;
  /** True: without a name. */
  readonly cloud?: string | true;
}

async function list(session: Session, _args: readonly string[], options: ListOptions): Promise<Answer> {
  if (options.cloud !== undefined) return reachable(session, options.cloud === true ? undefined : options.cloud);
  const client = await session.client();
  const [networks, exposures, endpoints, cloud] = await Promise.all([
    all(client, 'networks'),
    all(client, 'exposures'),
    all(client, 'endpoints'),
    cloudReportOf(client),
  ]);
  const wanted = options.network === undefined ? undefined : await client.get('networks', options.network);
  const rows = exposures.filter(({ network }) => wanted === undefined || network === wanted.id);
  const hostOf = (network: string, name: string): string =>
    endpoints
      .filter((one) => one.network === network && (one.name === name || one.names.includes(name)))
      .map(({ host }) => host)
      .join(',');
  return {
    data: rows,
    names: rows.map((row) => row.name),
    text: (look) =>
      table(
        look,
        rows,
        [
          { title: 'NAME', value: (row) => row.name },
          { title: 'NETWORK', value: ({ network }) => networks.find(({ id }) => id === network)?.name ?? network },
          { title: 'TO', value: ({ endpoint, port, protocol }) => `${endpoint}:${port}/${protocol}` },
          { title: 'HOST', value: ({ network, endpoint }) => hostOf(network, endpoint) },
          { title: 'HOST PORT', value: ({ hostIp, hostPort }) => `${hostIp === undefined ? '' : `${hostIp} `}${hostPort}` },
          ...(rows.some(({ floatingIp, loadBalancer }) => floatingIp !== undefined || loadBalancer !== undefined)
            ? [{ title: 'ADDRESS', value: ({ name, floatingIp }: Exposure) => cloud?.addresses?.[name] ?? floatingIp ?? '' }]
            : []),
          ...(rows.some(({ virtualIp }) => virtualIp !== undefined)
            ? [{ title: 'VIRTUAL IP', value: ({ virtualIp }: Exposure) => (virtualIp === undefined ? '' : (virtualIp.ip ?? 'not yet')) }]
            : []),
          { title: 'FROM', value: ({ sources }) => sources.join(',') || 'everyone' },
        ],
        'Nothing is exposed. Expose a port: causeway expose NETWORK CONTAINER PORT',
      ),
  };
}

async function remove(session: Session, args: readonly string[], options: { yes?: true }): Promise<Answer> {
  const names = await session.names(args);
  if (!(await session.confirm(`Close ${names.join(', ')}?`, options.yes))) return nothingDone;
  const client = await session.client();
  await each(names, String, (name) => client.remove('exposures', name));
  return { data: { removed: names }, names, text: () => names.map((name) => `Closed ${name}\n`).join('') };
}

export const exposeGroup: Group = {
  build(command, act) {
    command
      .argument('<network>', 'name or id of the network')
      .argument('<endpoint>', 'name of the container in that network')
      .argument('<port>', 'port of the container, for example 80 or 53/udp')
      .option('--host-port <port>', 'port of the host; left out: the same', integer(1, 65_535))
      .option('--host-ip <ip>', 'only on this address of the host')
      .option('--from <cidr>', 'only for clients in this range; repeatable', collect)
      .option(
        '--floating-ip [address]',
        'in an OpenStack cloud: by a floating IP of the host; auto, an address of the project, or an external network',
      )
      .option(
        '--load-balancer',
        'in an OpenStack cloud: by a load balancer on the port of the container, which leads to the port of its hosts',
      )
      .option('--provider <name>', "of a load balancer: of this provider of the cloud's Octavia, for example amphora")
      .option('--internal', 'of a load balancer: reached from within the cloud only')
      .option(
        '--virtual-ip',
        'in an OpenStack cloud: by an address that one of the hosts with such a container has at a time; with --floating-ip that leads there',
      )
      .option('--ipv6', 'with --virtual-ip or --load-balancer: by an address of IPv6, to which no floating IP leads')
      .option('--name <name>', 'name of the exposure');
    completes(command, 'networks');
    act<ExposeOptions>(
      examples(
        command,
        'causeway expose web front 80',
        'causeway expose web front 80 --host-port 8080 --from 192.0.2.0/24',
        'causeway expose dns resolver 53/udp',
        'causeway expose web front 443 --floating-ip auto',
        'causeway expose web front 443 --floating-ip --virtual-ip',
        'causeway expose web front 443 --virtual-ip --ipv6',
        'causeway expose web front 80 --host-port 8080 --load-balancer --from 192.0.2.0/24',
        'causeway expose web front 80 --host-port 8080 --load-balancer --provider amphora',
      ),
      expose,
    );
  },
};

export const exposureGroup: Group = {
  build(exposure, act) {
    const ls = exposure
      .command('ls')
      .description('List what is exposed; with --cloud what of a whole OpenStack project can be reached from where, whoever has opened it.')
      .option('--network <name>', 'only of this network')
      .option('--cloud [name]', 'ask a cloud of clouds.yaml; without a name OS_CLOUD or the other OS_* variables');
    act<ListOptions>(
      examples(completes(ls, 'networks', '--network'), 'causeway exposure ls', 'causeway exposure ls --cloud mycloud'),
      list,
    );
    const removed = exposure
      .command('rm')
      .argument('<name...>', 'names or ids; - reads them from standard input')
      .description('Close exposures.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(removed, 'exposures'), 'causeway exposure rm front-80-tcp'), remove);
  },
};

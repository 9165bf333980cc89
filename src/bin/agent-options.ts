// The command line of `causeway agent`. Parsed once; nothing else of the agent reads arguments or the environment.
import { hostname } from 'node:os';
import { parseArgs } from 'node:util';
import { Fault } from '#model/fault.ts';
import { agentPort } from '#model/numbers.ts';
import { type NodeOptions, readNodeOptions } from './node-options.ts';
import { type CriOptions, readCriOptions } from './sandbox-watch.ts';

export interface Options {
  readonly join?: string;
  readonly controllers: readonly string[];
  readonly host: string;
  readonly state: string;
  readonly run: string;
  /** Pipe of who starts wireguard-go instead of the agent. */
  readonly wireguardStarter?: string;
  readonly underlay?: string;
  readonly engine?: string;
  /** The host is a node of a Kubernetes cluster, and follows its API instead of controllers. */
  readonly node?: NodeOptions;
  /** URL of the etcd in which flannel keeps its leases: the host is one of flannel's, and follows that instead of controllers. */
  readonly flannel?: string;
  readonly plugin: string;
  readonly driver: string;
  readonly scope: 'local' | 'global';
  readonly recover: boolean;
  /** Take everything of ours off the host instead of running. */
  readonly uninstall: boolean;
  /** With that: kubeconfig of the cluster whose Node shall no longer speak of us. */
  readonly leaving?: string;
  /** The runtime's configuration that a node's agent writes. */
  readonly cniConf: string;
  /** Absent: no runtime is asked for its sandboxes. */
  readonly cri?: CriOptions;
  readonly fastPath: boolean;
  readonly port: number;
  /** Not in the help: for tests that cannot wait ten minutes. */
  readonly leakMs?: number;
  readonly logLevel: string;
}

export const help = `Usage: causeway agent [options]

Runs on every Docker host, as root: builds and keeps its part of the networks, serves Docker's plugin protocol and names.

Options:
  --join TOKEN         join with a token of "causeway token create --join"; once, later starts remember
  --controller URL     a controller, https://HOST:7480; may be given several times (needed with --join)
  --host NAME          this host's name (default: the machine's)
  --underlay NAME      interface or address that reaches the other hosts (default: the default route's)
  --engine SOCKET      Docker's socket (default /var/run/docker.sock); "none" runs without an engine
  --flannel URL        be a host of the flannel network in this etcd, beside hosts of flannel itself: no controller;
                       etcd:http://HOST:2379,…?prefix=/coreos.com/network&ca=FILE&cert=FILE&key=FILE
  --kubernetes FILE    be a node of the cluster of this kubeconfig: follow its API, no controller and no Docker
  --pod-cidr CIDR      of a node: the cluster's range of pods; once per family
  --model NAME         of a node: flannel, or calico, whose pools are IPPools of the cluster; routes: flannel with that carriage
                       (default flannel)
  --carry NAME         of a node, the same on all: vxlan, direct-routing, host-gateway, bgp, routes or wireguard (flannel,
                       default vxlan); bgp, bgp-cross-subnet, vxlan or wireguard (calico, default as the pools say)
  --cni-conf FILE      of a node: written once pods can be attached (default /etc/cni/net.d/10-causeway.conflist)
  --cri SOCKET         the runtime that tells which pods there are, unix:///FILE (default of a node: containerd's or CRI-O's
                       where there is one); what it has lost is detached; "none" asks nobody
  --keep-connections   of a node: connections that stand when a policy comes to forbid them go on (default: they are cut)
  --log-denied         of a node: the kernel's log tells which packets policies deny, and by which rule
  --plugin SOCKET      where Docker finds the plugin (default /run/docker/plugins/causeway.sock)
  --driver NAME        what Docker calls the plugin (default causeway)
  --scope SCOPE        local, or global for a Swarm (default local)
  --state DIR          identity, journal and keys (default /var/lib/causeway)
  --run DIR            sockets (default /run/causeway)
  --wireguard-starter PIPE  where the kernel has no WireGuard: who reads this starts wireguard-go and keeps it while agents come
                       and go (default: the agent starts it and leaves it behind)
  --port PORT          health and metrics on 127.0.0.1 (default 7481; 0: none)
  --no-fast-path       no short cuts (eBPF) for traffic inside a network: every packet takes the long way
  --recover            set a corrupt journal aside and start with an empty one
  --uninstall          take everything of Causeway off this host: kernel state, --state, --run, --cni-conf, and its networks out of
                       Docker's list (they stay on other hosts); no agent may run, and no container of Docker use them;
                       with --kubernetes also what the Node says of it
  --log-level LEVEL    trace, debug, info, warn or error (default info)
  -h, --help           show this

The same can be said by the environment: CAUSEWAY_JOIN, CAUSEWAY_CONTROLLER (comma-separated), CAUSEWAY_HOST, …

Examples:
  causeway agent --join cwj_… --controller https://10.0.0.5:7480
  causeway agent --underlay eth1
`;

const options = {
  join: { type: 'string' },
  controller: { type: 'string', multiple: true },
  host: { type: 'string' },
  underlay: { type: 'string' },
  engine: { type: 'string' },
  flannel: { type: 'string' },
  kubernetes: { type: 'string' },
  'pod-cidr': { type: 'string', multiple: true },
  model: { type: 'string' },
  carry: { type: 'string' },
  'cni-conf': { type: 'string' },
  cri: { type: 'string' },
  'lost-seconds': { type: 'string' },
  'keep-connections': { type: 'boolean' },
  'log-denied': { type: 'boolean' },
  plugin: { type: 'string' },
  driver: { type: 'string' },
  scope: { type: 'string' },
  state: { type: 'string' },
  run: { type: 'string' },
  'wireguard-starter': { type: 'string' },
  port: { type: 'string' },
  recover: { type: 'boolean' },
  uninstall: { type: 'boolean' },
  'no-fast-path': { type: 'boolean' },
  'leak-seconds': { type: 'string' },
  'log-level': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];

function parse(argv: readonly string[]): Values {
  try {
    return parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new Fault('invalid', error instanceof Error ? error.message : 'Cannot read the options', {
      hint: 'See causeway agent --help',
      cause: error,
    });
  }
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) throw new Fault('invalid', `Not a port: ${text}`, { field: '--port' });
  return port;
}

const logLevels = ['trace', 'debug', 'info', 'warn', 'error'];
function logLevelOf(text: string): string {
  if (logLevels.includes(text)) return text;
  throw new Fault('invalid', `Not a log level: ${text}`, { field: '--log-level', hint: `Use one of: ${logLevels.join(', ')}` });
}

function controllerOf(text: string): string {
  if (URL.parse(text)?.protocol === 'https:') return text;
  throw new Fault('invalid', `Not the address of a controller: ${text}`, { field: '--controller', hint: 'Write it as https://HOST:7480' });
}

function leakOf(text: string | undefined): { leakMs?: number } {
  if (text === undefined) return {};
  const seconds = Number(text);
  if (!(seconds > 0)) throw new Fault('invalid', `Not a number of seconds: ${text}`, { field: '--leak-seconds' });
  return { leakMs: seconds * 1000 };
}

function scopeOf(text: string): Options['scope'] {
  if (text !== 'local' && text !== 'global')
    throw new Fault('invalid', `Not a scope: ${text}`, { field: '--scope', hint: 'Use local or global' });
  return text;
}

function flannelOf(text: string | undefined, isNode: boolean): string | undefined {
  if (text === undefined) return undefined;
  const hint = 'As etcd:http://10.0.0.5:2379';
  if (isNode) throw new Fault('invalid', 'A node of Kubernetes reads flannel from its Nodes, not from etcd', { field: '--flannel' });
  if (!text.startsWith('etcd:')) throw new Fault('invalid', `Not a URL of etcd: ${text.slice(0, 80)}`, { field: '--flannel', hint });
  return text;
}

const optional = <K extends string>(key: K, value: string | undefined): { readonly [P in K]?: string } =>
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a record of one known key
  (value === undefined || value === '' ? {} : { [key]: value }) as { [P in K]?: string };

/** An empty variable says nothing. */
const said = (variable: string | undefined): string | undefined => (variable === '' ? undefined : variable);

/** Of an option without a value: given, or anything in the environment. */
const isSet = (option: boolean | undefined, variable: string | undefined): boolean => option ?? (variable ?? '') !== '';

const defaults = {
  state: '/var/lib/causeway',
  run: '/run/causeway',
  plugin: '/run/docker/plugins/causeway.sock',
  driver: 'causeway',
  scope: 'local',
  port: String(agentPort),
  'cni-conf': '/etc/cni/net.d/10-causeway.conflist',
  'log-level': 'info',
} as const;

/** Arguments win over the environment, the environment over defaults. 'help' when help is asked for. Fault `invalid`. */
export function readOptions(argv: readonly string[], environment: Readonly<Record<string, string | undefined>>): Options | 'help' {
  const values = parse(argv);
  if (values.help === true) return 'help';
  const either = (
    name: Exclude<
      keyof typeof options,
      'controller' | 'pod-cidr' | 'recover' | 'uninstall' | 'no-fast-path' | 'keep-connections' | 'log-denied' | 'help'
    >,
  ): string | undefined => values[name] ?? said(environment[`CAUSEWAY_${name.toUpperCase().replaceAll('-', '_')}`]);
  const or = (name: keyof typeof defaults): string => either(name) ?? defaults[name];
  const uninstall = values.uninstall ?? false;
  const node = readNodeOptions({
    // Without an agent there is no cluster to follow, whatever the environment says of one.
    kubernetes: uninstall ? undefined : either('kubernetes'),
    podCidr: values['pod-cidr'] ?? environment['CAUSEWAY_POD_CIDR'],
    model: either('model'),
    carry: either('carry'),
    cniConf: or('cni-conf'),
    logDenied: isSet(values['log-denied'], environment['CAUSEWAY_LOG_DENIED']),
    keepConnections: isSet(values['keep-connections'], environment['CAUSEWAY_KEEP_CONNECTIONS']),
  });
  const engine = either('engine') ?? (node === undefined ? '/var/run/docker.sock' : 'none');
  return {
    ...optional('join', either('join')),
    controllers: (values.controller ?? (environment['CAUSEWAY_CONTROLLER'] ?? '').split(',').filter((url) => url !== '')).map(controllerOf),
    host: either('host') ?? hostname(),
    state: or('state'),
    run: or('run'),
    ...optional('wireguardStarter', either('wireguard-starter')),
    ...optional('underlay', either('underlay')),
    ...optional('engine', engine === 'none' ? undefined : engine),
    ...(node === undefined ? {} : { node }),
    ...optional('flannel', flannelOf(uninstall ? undefined : either('flannel'), node !== undefined)),
    ...readCriOptions({ cri: either('cri'), lostSeconds: either('lost-seconds'), isNode: node !== undefined }),
    plugin: or('plugin'),
    driver: or('driver'),
    scope: scopeOf(or('scope')),
    recover: values.recover ?? false,
    uninstall,
    ...optional('leaving', uninstall ? either('kubernetes') : undefined),
    cniConf: or('cni-conf'),
    fastPath: !isSet(values['no-fast-path'], environment['CAUSEWAY_NO_FAST_PATH']),
    port: portOf(or('port')),
    logLevel: logLevelOf(or('log-level')),
    ...leakOf(either('leak-seconds')),
  };
}

// A real dockerd for tests, in the network and mount namespace that the test runs in, with a plugin server on a FakeAgent and
// the least real wire: one namespace per network, one veth pair per endpoint. Needs root and private mount propagation.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { hostPrefix } from '#model/ip.ts';
import { endpointLink, endpointPeerLink, gatewayMac } from '#model/numbers.ts';
import { Engine } from './engine.ts';
import { FakeAgent, type Wire } from './fake-agent.ts';
import { Ipam } from './ipam.ts';
import type { Log } from './log.ts';
import { type DockerRecords, dockerRecords } from './records.ts';
import { createPlugin, listenPlugin, type Plugin } from './server.ts';

const ip = (lines: readonly string[], netns?: string): void => {
  execFileSync('ip', [...(netns === undefined ? [] : ['-n', netns]), '-force', '-batch', '-'], {
    input: lines.join('\n'),
    stdio: ['pipe', 'ignore', 'ignore'],
  });
};

const ipQuietly = (lines: readonly string[], netns?: string): void => {
  spawnSync('ip', [...(netns === undefined ? [] : ['-n', netns]), '-force', '-batch', '-'], { input: lines.join('\n') });
};

export const wire: Wire = {
  join(endpoint, network, gateways, mtu) {
    const netns = `dk-${network.id}`;
    if (!existsSync(`/run/netns/${netns}`)) {
      ip([`netns add ${netns}`]);
      ip(['link set lo up'], netns);
      execFileSync('ip', ['netns', 'exec', netns, 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
    }
    const ours = endpointLink(endpoint.id);
    ipQuietly([
      `link add ${endpointPeerLink(endpoint.id)} mtu ${mtu} address ${endpoint.mac} type veth peer name ${ours} netns ${netns} mtu ${mtu} address ${gatewayMac}`,
    ]);
    ipQuietly(
      [
        `link set ${ours} up`,
        ...Object.values(gateways).map((gateway) =>
          gateway.includes(':') ? `addr add ${gateway}/64 dev ${ours} nodad` : `addr add ${gateway}/32 dev ${ours}`,
        ),
        ...endpoint.addresses.map((address) => `route replace ${hostPrefix(address)} dev ${ours}`),
        ...endpoint.addresses.map((address) => `neigh replace ${address} lladdr ${endpoint.mac} dev ${ours} nud permanent`),
      ],
      netns,
    );
  },
  leave(endpoint) {
    ipQuietly([`link del ${endpointLink(endpoint.id)}`], `dk-${endpoint.network}`);
  },
};

export interface Call {
  readonly method: string;
  readonly request: string;
  readonly answer: unknown;
}

export interface Bed extends AsyncDisposable {
  /** A scratch folder that goes with the bed. */
  readonly folder: string;
  readonly agent: FakeAgent;
  readonly records: DockerRecords;
  readonly plugin: Plugin;
  readonly engine: Engine;
  readonly calls: Call[];
  /** Runs the docker client; its output, or an Error with what it wrote to standard error. */
  docker(...words: string[]): Promise<string>;
  /** What it says when it fails; an Error if it succeeds. */
  dockerFails(...words: string[]): Promise<string>;
  startEngine(): Promise<void>;
  stopEngine(signal?: NodeJS.Signals): Promise<void>;
  /** For good, as when the agent is stopped. */
  stopPlugin(): Promise<void>;
}

/** Whether this machine and process can run it: a reason why not, or undefined. */
export function missing(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  if (spawnSync('dockerd', ['--version']).status !== 0) return 'no dockerd';
  const links = execFileSync('ip', ['-br', 'link'], { encoding: 'utf8' }).trim().split('\n');
  return links.length > 1 ? 'not in a network namespace of its own' : undefined;
}

export async function startBed({ liveRestore }: { readonly liveRestore: boolean } = { liveRestore: true }): Promise<Bed> {
  const folder = mkdtempSync('/tmp/causeway-docker-');
  for (const path of ['/run/docker', '/run/netns']) {
    mkdirSync(path, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', path]);
  }
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  const agent = new FakeAgent('host-a', wire);
  const records = dockerRecords(agent.journal);
  const calls: Call[] = [];
  const log = recorder(calls);
  const ipam = new Ipam({ agent, records, log });
  const plugin = createPlugin({ agent, records, ipam, log, scope: 'local' });
  const server = await listenPlugin(plugin, '/run/docker/plugins/causeway.sock');
  const socket = `${folder}/docker.sock`;
  const engine = new Engine(socket);
  let child: ChildProcess | undefined;

  // Asynchronous, because the engine asks this very process while the client waits.
  const run = async (words: readonly string[]): Promise<{ status: number | null; stdout: string; stderr: string }> => {
    const env = { PATH: '/usr/bin:/bin:/usr/sbin:/sbin', HOME: folder, DOCKER_HOST: `unix://${socket}` };
    const client = spawn('docker', [...words], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const [stdout, stderr, status] = await Promise.all([
      text(client.stdout),
      text(client.stderr),
      new Promise<number | null>((resolve) => client.once('exit', resolve)),
    ]);
    return { status, stdout, stderr };
  };

  const stopEngine = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
    const stopping = child;
    child = undefined;
    if (stopping === undefined || stopping.exitCode !== null) return;
    const exited = new Promise((resolve) => stopping.once('exit', resolve));
    stopping.kill(signal);
    await exited;
  };

  const startEngine = async (): Promise<void> => {
    const output = openSync(`${folder}/dockerd.log`, 'a');
    const places = ['--data-root', `${folder}/data`, '--exec-root', `${folder}/exec`, '--pidfile', `${folder}/dockerd.pid`];
    child = spawn(
      'dockerd',
      [...places, '-H', `unix://${socket}`, '--storage-driver', 'overlay2', ...(liveRestore ? ['--live-restore'] : []), '-D'],
      {
        stdio: ['ignore', output, output],
      },
    );
    const started = child;
    for (let tries = 0; tries < 900; tries++) {
      if (started.exitCode !== null) break;
      if (existsSync(socket) && (await run(['version'])).status === 0) return;
      await sleep(100);
    }
    throw new Error(`dockerd does not start:\n${readFileSync(`${folder}/dockerd.log`, 'utf8').slice(-4000)}`);
  };

  const bed: Bed = {
    folder,
    agent,
    records,
    plugin,
    engine,
    calls,
    startEngine,
    stopEngine,
    stopPlugin: () => server[Symbol.asyncDispose](),
    async docker(...words) {
      const { status, stdout, stderr } = await run(words);
      if (status !== 0)
        throw new Error(
          `docker ${words.join(' ')}: ${stderr}\n${calls
            .slice(-3)
            .map((call) => JSON.stringify(call))
            .join('\n')}`,
        );
      return stdout.trim();
    },
    async dockerFails(...words) {
      const { status, stderr } = await run(words);
      if (status === 0) throw new Error(`docker ${words.join(' ')} succeeded`);
      return stderr.trim();
    },
    async [Symbol.asyncDispose]() {
      const ids = (await run(['ps', '-aq'])).stdout.split('\n').filter(Boolean);
      if (ids.length > 0) await run(['rm', '-f', ...ids]);
      await stopEngine();
      await engine[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      for (const path of ['/run/docker', '/run/netns']) spawnSync('umount', ['-l', path]);
      spawnSync('sh', ['-c', `grep -o '${folder}[^ ]*' /proc/self/mounts | sort -r | xargs -r -n1 umount -l`]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await startEngine();
  importImage(socket, folder);
  return bed;
}

/** `cw/box`: Debian's static busybox with links for its applets. */
function importImage(socket: string, folder: string): void {
  const script = `set -e; mkdir -p ${folder}/box/bin ${folder}/box/etc ${folder}/box/tmp; cp /bin/busybox ${folder}/box/bin/
    for name in $(/bin/busybox --list); do [ $name = busybox ] || ln -s busybox ${folder}/box/bin/$name; done
    tar -C ${folder}/box -c . | docker -H unix://${socket} import - cw/box`;
  execFileSync('sh', ['-c', script], { stdio: ['ignore', 'ignore', 'pipe'] });
}

function recorder(calls: Call[]): Log {
  const record = (fields: object): void => {
    const { method, request, answer, error }: Record<string, unknown> = { ...fields };
    if (typeof method === 'string' && typeof request === 'string') calls.push({ method, request, answer: answer ?? error });
  };
  return { debug: record, info() {}, warn: record, error: record };
}

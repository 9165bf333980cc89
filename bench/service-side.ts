// One side of the benchmark of services, in a network namespace of its own, where every endpoint's address is the machine's own:
//   service-side.ts causeway|kube-proxy SERVICES FOLDER PATIENCE
// Prints what it measured as a line of JSON, without what took longer than PATIENCE, in milliseconds; then, for each line it reads, the
// rate of another batch of connections. Ends with its input.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { environment, programOf } from '#lab/causeway.ts';
import { pathOf } from '#lab/kubernetes-programs.ts';
import { endpointRange, nodeAddress, port, probe, probeEndpoint, ServiceCluster } from './service-cluster.ts';
import { median } from './report.ts';

const [side = '', services = '', folder = '', patience = ''] = process.argv.slice(2);
const changes = 5;
const batch = 1000;
/** On one machine an answer comes at once, and what comes too late is asked for again: it is known this closely when packets follow. */
const answerMs = 40;
let tries = 0;
const patienceMs = Number(patience);
/** A hundred thousand rules take the newer interface many minutes, and the older one a fraction of that. */
const olderInterface = '/usr/sbin/xtables-legacy-multi';

function ip(...words: readonly string[]): void {
  const { status, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${words.join(' ')}: ${stderr}`);
}

/** Connects to the probe, asks, and answers which endpoint said so; undefined when nobody did in time. */
function ask(timeoutMs: number, localPort?: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const from = localPort === undefined ? {} : { localPort };
    const socket = connect({ host: probe.ip, port: 80, timeout: timeoutMs, ...from });
    const end = (answer: string | undefined): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.on('connect', () => socket.write('?'));
    socket.on('data', (bytes) => end(bytes.toString()));
    socket.on('error', () => end(undefined));
    socket.on('timeout', () => end(undefined));
  });
}

/**
 * Milliseconds since `began` until the endpoint answers; undefined when it has not in time. What is asked before it does is tracked as what it was for two minutes, so
 * these connections have ports of their own, below those that the system chooses.
 */
async function until(endpoint: string, began: number, end = began + patienceMs): Promise<number | undefined> {
  while (performance.now() < end) {
    tries = (tries + 1) % 20_000;
    if ((await ask(answerMs, 10_000 + tries)) === endpoint) return performance.now() - began;
    await sleep(2);
  }
  return undefined;
}

/** KiB that the kernel keeps for itself but for what it would rather forget, names of files above all; the rest of the machine shall be quiet. */
function kernelKib(): number {
  writeFileSync('/proc/sys/vm/drop_caches', '2');
  return ['Slab', 'VmallocUsed', 'Percpu'].reduce(
    (sum, name) => sum + Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]),
    0,
  );
}

/** Milliseconds of the processor that a process has used, and those it waited for: proc_pid_stat(5), in hundredths of a second. */
function processorMs(pid: number | undefined): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * 10, 0);
}

/** A folder in which iptables and what belongs to it are those of the older interface, where there are such. */
function olderPrograms(): string {
  const programs = join(folder, 'iptables');
  mkdirSync(programs, { recursive: true });
  if (existsSync(olderInterface))
    for (const family of ['iptables', 'ip6tables'])
      for (const verb of ['', '-save', '-restore']) symlinkSync(olderInterface, join(programs, `${family}${verb}`));
  return programs;
}

function start(api: string): ChildProcess {
  const config = join(folder, 'kubeconfig.json');
  const named = {
    clusters: [{ name: 'c', cluster: { server: api, 'certificate-authority': join(folder, 'api.crt') } }],
    users: [{ name: 'u', user: {} }],
  };
  const contexts = [{ name: 'x', context: { cluster: 'c', user: 'u' } }];
  writeFileSync(config, JSON.stringify({ apiVersion: 'v1', kind: 'Config', ...named, contexts, 'current-context': 'x' }));
  const words =
    side === 'causeway'
      ? [
          ...programOf('agent'),
          '--kubernetes',
          config,
          '--pod-cidr',
          endpointRange,
          '--host',
          'node',
          '--engine',
          'none',
          '--port',
          '0',
          '--state',
          join(folder, 'state'),
          '--run',
          join(folder, 'run'),
          '--cni-conf',
          join(folder, 'cni.conflist'),
        ]
      : [
          pathOf('kube-proxy'),
          '--kubeconfig',
          config,
          '--kube-api-content-type=application/json',
          '--proxy-mode=iptables',
          '--hostname-override=node',
          // As quick as it can be: its default waits for a second between changes.
          '--iptables-min-sync-period=0',
          '--iptables-sync-period=1h',
          `--cluster-cidr=${endpointRange}`,
          '--conntrack-max-per-core=0',
          '--conntrack-tcp-timeout-established=0',
          '--conntrack-tcp-timeout-close-wait=0',
          '--healthz-bind-address=',
          '--metrics-bind-address=127.0.0.1:10249',
        ];
  const [program = '', ...argv] = words;
  const env = { ...process.env, ...(side === 'kube-proxy' ? { PATH: `${olderPrograms()}:${process.env['PATH'] ?? ''}` } : environment) };
  return spawn(program, argv, {
    env,
    stdio: ['ignore', 'ignore', process.env['BENCH_LOG'] === undefined ? 'ignore' : 'inherit'],
  });
}

async function batchRate(): Promise<number> {
  const began = performance.now();
  for (let count = 0; count < batch; count++) if ((await ask(5_000)) === undefined) throw new Error('The probe does not answer');
  return (batch / (performance.now() - began)) * 1000;
}

mkdirSync(folder, { recursive: true });
ip('link', 'set', 'lo', 'up');
ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'far0');
ip('addr', 'add', `${nodeAddress}/24`, 'dev', 'eth0');
ip('link', 'set', 'eth0', 'up');
ip('link', 'set', 'far0', 'up');
ip('route', 'add', 'default', 'via', '172.31.213.254');
ip('route', 'add', 'local', endpointRange, 'dev', 'lo');
const listener = createServer((socket) => {
  socket.on('data', () => socket.end(socket.localAddress ?? ''));
  socket.on('error', () => undefined);
});
listener.listen(port, '0.0.0.0');
const [key, cert] = [join(folder, 'api.key'), join(folder, 'api.crt')];
const made = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=api'];
const asked = spawnSync('openssl', ['req', ...made, '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert], {
  encoding: 'utf8',
});
if (asked.status !== 0) throw new Error(`openssl: ${asked.stderr}`);
using cluster = new ServiceCluster(Number(services), { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') });
const api = await cluster.listen();
const before = kernelKib();
const began = performance.now();
const child = start(api);
try {
  const programmedMs = await until(probeEndpoint(0), began);
  const processor = processorMs(child.pid);
  const changedMs: number[] = [];
  const end = performance.now() + patienceMs;
  for (let change = 1; change <= (programmedMs === undefined ? 0 : changes) && performance.now() < end; change++) {
    await sleep(500);
    const changedAt = performance.now();
    cluster.change(change);
    const took = await until(probeEndpoint(change), changedAt, end);
    if (took !== undefined) changedMs.push(took);
  }
  // What it leaves in the kernel, without itself. The kernel frees what a process had after a moment.
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
  await sleep(2_000);
  const memoryKib = kernelKib() - before;
  const changed = changedMs.length === 0 ? {} : { changedMs: median(changedMs) };
  process.stdout.write(`${JSON.stringify({ programmedMs, processorMs: processor, memoryKib, ...changed })}\n`);
  for await (const _ of createInterface({ input: process.stdin })) process.stdout.write(`${await batchRate()}\n`);
} finally {
  child.kill('SIGKILL');
  listener.close();
}

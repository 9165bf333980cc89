// Real etcd members for tests, on the loopback of the namespace the test runs in (brought up, as a fresh one has it down).
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface EtcdMember {
  readonly endpoint: string;
  /** Waits until the process runs, or with `healthy` until it serves requests. */
  start(): Promise<void>;
  /** SIGKILL unless told otherwise; SIGSTOP and SIGCONT only pause it. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export interface EtcdCluster extends AsyncDisposable {
  readonly folder: string;
  readonly members: readonly EtcdMember[];
}

export const hasEtcd = (): boolean => spawnSync('etcd', ['--version']).status === 0;

/** Whether no thread answers any more: those on other processors run on for a moment after the signal. */
function isPaused(pid = 0): boolean {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.every((thread) => /\) [Tt] /.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8')));
}

/** The namespace is the test's own. Below those that connections begin from: a member that is started again finds its port free. */
let lastPort = 12_000;
const nextPort = (): number => (lastPort += 1);

/** `flags` may say FOLDER for the cluster's folder. Members are started; wait for one call to succeed before use. */
export async function startCluster(
  size: number,
  { flags = [], scheme = 'http' }: { flags?: string[]; scheme?: string } = {},
): Promise<EtcdCluster> {
  spawnSync('ip', ['link', 'set', 'lo', 'up']);
  const folder = await mkdtemp(join(tmpdir(), 'causeway-etcd-'));
  const ports = Array.from({ length: size }, () => ({ client: nextPort(), peer: nextPort() }));
  const initial = ports.map(({ peer }, index) => `m${index}=http://127.0.0.1:${peer}`).join(',');
  const members = ports.map(({ client, peer }, index): EtcdMember => {
    const endpoint = `${scheme}://127.0.0.1:${client}`;
    let child: ChildProcess | undefined;
    const settings = {
      name: `m${index}`,
      'data-dir': join(folder, `m${index}`),
      'listen-client-urls': endpoint,
      'advertise-client-urls': endpoint,
      'listen-peer-urls': `http://127.0.0.1:${peer}`,
      'initial-advertise-peer-urls': `http://127.0.0.1:${peer}`,
      'initial-cluster': initial,
      'log-level': 'error',
      // A test survives no power cut.
      'unsafe-no-fsync': 'true',
    };
    const args = [
      ...Object.entries(settings).map(([name, value]) => `--${name}=${value}`),
      ...flags.map((flag) => flag.replace('FOLDER', folder)),
    ];
    return {
      endpoint,
      async start() {
        if (child !== undefined) return;
        const started = spawn('etcd', args, { stdio: 'ignore' });
        child = started;
        await new Promise((resolve, reject) => {
          started.once('spawn', resolve);
          started.once('error', reject);
        });
      },
      async stop(signal = 'SIGKILL') {
        const running = child;
        if (running === undefined) return;
        running.kill(signal);
        if (signal === 'SIGSTOP') while (!isPaused(running.pid)) await sleep(5);
        if (signal === 'SIGSTOP' || signal === 'SIGCONT') return;
        child = undefined;
        if (running.exitCode === null && running.signalCode === null) await new Promise((resolve) => running.once('exit', resolve));
      },
    };
  });
  return {
    folder,
    members,
    async [Symbol.asyncDispose]() {
      await Promise.all(members.map((member) => member.stop()));
      await rm(folder, { recursive: true });
    },
  };
}

/** Repeats `work` until it succeeds. */
export async function eventually<T>(work: () => Promise<T>, patienceMs = 60_000): Promise<T> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    await sleep(50);
  }
}

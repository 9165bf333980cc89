// For kernel tests: the real program, the real agent following a real controller, the real kernel; containers are network
// namespaces, as a runtime would have made them.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import * as v from 'valibot';
import { eventually } from '#agent/namespaces.fixture.ts';
import { type Controller, openController } from '#controller/controller.ts';
import { silentLog } from '#controller/log.ts';
import { createNetwork } from '#controller/networks.ts';
import { type RunningServer, startServer } from '#controller/server.ts';
import { createToken } from '#controller/tokens.ts';
import { buildCni } from '#lab/cni.ts';
import { parseCidr } from '#model/ip.ts';
import { MemoryStore } from '#store/memory.ts';

const program = join(import.meta.dirname, '..', 'src', 'bin', 'agent.ts');
const admin = { type: 'role', role: 'admin', token: 'test' } as const;

export function ip(...words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  assert.equal(status, 0, `ip ${words.join(' ')}: ${stderr}`);
  return stdout;
}

const reply = v.object({
  cniVersion: v.optional(v.string()),
  code: v.optional(v.number()),
  msg: v.optional(v.string(), ''),
  ips: v.optional(v.array(v.object({ address: v.string(), version: v.optional(v.string()) })), []),
});

export interface Execution {
  readonly command: string;
  readonly container: string;
  readonly netns?: string;
  readonly conf?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly status: unknown;
  readonly json: unknown;
  readonly code: number | undefined;
  readonly msg: string;
  readonly cniVersion: string | undefined;
  readonly ips: readonly { readonly address: string; readonly version?: string | undefined }[];
  /** Without prefix lengths. */
  readonly addresses: readonly string[];
}

/** Asks until one is answered, for some seconds: the first packets after a link was made may be lost. */
const patiently = ['ping', '-n', '-c', '1', '-i', '0.2', '-w', '3'];
/** Whether `target` answers from the test's own namespace. */
export const pings = (target: string | undefined): boolean => spawnSync('env', [...patiently, target ?? '']).status === 0;
export const ownLinks = (): string[] => ip('-br', 'link').match(/^cwe\w+/gm) ?? [];

/** An empty network namespace that stands for a container. */
export interface Box {
  readonly add: (conf?: Execution['conf']) => Promise<Answer>;
  readonly pings: (target: string | undefined) => boolean;
  readonly links: () => string[];
}

/** One host with the networks `flat` (10.244.0.0/16 and fd44::/64), `apart` (10.77.0.0/24) and `small` (10.78.0.0/29). */
export class CniBed implements AsyncDisposable {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'causeway-cni-'));
  readonly #plugin: string;
  readonly #controller: Controller;
  readonly #server: RunningServer;
  #agent: ChildProcess | undefined;

  private constructor(plugin: string, controller: Controller, server: RunningServer) {
    this.#plugin = plugin;
    this.#controller = controller;
    this.#server = server;
  }

  static async start(): Promise<CniBed> {
    const plugin = await buildCni();
    ip('link', 'add', 'eth0', 'type', 'bridge');
    ip('addr', 'add', '10.213.0.1/16', 'dev', 'eth0');
    ip('link', 'set', 'eth0', 'up');
    const controller = await openController({ store: new MemoryStore(), log: silentLog, version: '0.0.0' });
    const server = await startServer(controller, { host: '127.0.0.1', port: 0, names: [] });
    const pools = [
      { family: 4 as const, cidr: parseCidr('10.244.0.0/16') },
      { family: 6 as const, cidr: parseCidr('fd44::/64') },
    ];
    await createNetwork(controller.control, admin, { name: 'flat', model: 'flannel', pools });
    await createNetwork(controller.control, admin, { name: 'apart', pools: [{ family: 4, cidr: parseCidr('10.77.0.0/24') }] });
    await createNetwork(controller.control, admin, { name: 'small', pools: [{ family: 4, cidr: parseCidr('10.78.0.0/29') }] });
    const { token } = await createToken(controller.control, { type: 'join' });
    const bed = new CniBed(plugin, controller, server);
    try {
      await bed.startAgent('--join', token, '--controller', `https://127.0.0.1:${server.port}`);
    } catch (error) {
      // What is left running would keep the test from ending.
      await bed[Symbol.asyncDispose]();
      throw error;
    }
    return bed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopAgent('SIGKILL');
    await this.#server[Symbol.asyncDispose]();
    await this.#controller[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Starts an agent, and waits until it follows the controller. */
  async startAgent(...more: readonly string[]): Promise<void> {
    const words = ['--state', this.folder, '--engine', 'none', '--port', '0', '--host', 'a', ...more];
    let said = '';
    const agent = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#agent = agent;
    agent.stderr.on('data', (bytes) => (said += String(bytes)));
    await eventually(() => said.includes('agent is running') && said.includes('following the controller'), 'the agent to run');
  }

  /** What the agent says of itself on its socket. */
  status(): { readonly desired: number; readonly kernelWrites: number; readonly addresses: number } {
    const { stdout } = spawnSync('curl', ['-s', '--unix-socket', '/run/causeway/agent.sock', 'http://agent/status']);
    return v.parse(v.object({ desired: v.number(), kernelWrites: v.number(), addresses: v.number() }), JSON.parse(String(stdout)));
  }

  /** `SIGSTOP`: it answers nobody until `SIGCONT`. */
  signalAgent(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#agent?.kill(signal);
  }

  async stopAgent(signal: NodeJS.Signals): Promise<void> {
    if (this.#agent === undefined) return;
    const gone = once(this.#agent, 'close');
    this.#agent.kill(signal);
    await gone;
    this.#agent = undefined;
  }

  /** Executes the plugin as a runtime does. */
  async execute({ command, container, netns = `/run/netns/${container}`, conf, env }: Execution): Promise<Answer> {
    const own = { CNI_COMMAND: command, CNI_CONTAINERID: container, CNI_IFNAME: 'eth0', CNI_NETNS: netns, CNI_PATH: '/opt/cni/bin' };
    const child = spawn(this.#plugin, { env: { ...own, ...env }, stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = once(child, 'close');
    child.stdin.end(JSON.stringify({ cniVersion: '1.1.0', name: 'flat', type: 'causeway', ...conf }));
    const output = await text(child.stdout);
    const [status]: unknown[] = await ended;
    const json: unknown = output === '' ? {} : JSON.parse(output);
    const { code, msg, ips, cniVersion } = v.parse(reply, json);
    return { status, json, code, msg, cniVersion, ips, addresses: ips.map(({ address }) => address.replace(/\/.*/, '')) };
  }

  /** Gone with the test, and what of it. */
  box(t: TestContext, name: string): Box {
    ip('netns', 'add', name);
    ip('-n', name, 'link', 'set', 'lo', 'up');
    t.after(async () => {
      await this.execute({ command: 'DEL', container: name });
      spawnSync('ip', ['netns', 'del', name]);
    });
    return {
      add: (conf) => this.execute({ command: 'ADD', container: name, ...(conf === undefined ? {} : { conf }) }),
      pings: (target) => spawnSync('ip', ['netns', 'exec', name, ...patiently, target ?? '']).status === 0,
      links: () => v.parse(v.array(v.object({ ifname: v.string() })), JSON.parse(ip('-n', name, '-j', 'link'))).map(({ ifname }) => ifname),
    };
  }
}

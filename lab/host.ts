// One host of a lab: net, mount, pid, uts and ipc namespaces and a control group, held by a small first process (boot.sh).
// Ending that process is pulling the plug: the kernel then ends everything in the pid namespace and drops every mount and
// link. Its disk stays, so the host can be powered on again. Namespaces are entered with nsenter and never with
// `ip netns exec`, which mounts a new /sys and so hides the control groups from an engine.
import type { ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { cgroup2Root, killCgroup, makeCgroup, removeCgroup } from './cgroup.ts';
import { type CommandOptions, type Ending, ending, lastLines, type Output, run, start } from './command.ts';
import { childrenOf, isAlive, type ProcessRef, refOf, signalProcess } from './process.ts';
import {
  isRunning,
  listServices,
  logPath,
  type ServicePlace,
  type ServiceSpec,
  signalService,
  startService,
  stopService,
} from './service.ts';
import { type HostRecord, hostDisk, hostFolder, hostGroup, readJson, writeJson } from './state.ts';

/** How a host is started. */
export interface Boot {
  /** Becomes the first process; called with lab, host, disk and name server, then with `arguments`. */
  readonly script: string;
  readonly arguments: readonly string[];
  /** The control group of the first process, below the host's. */
  readonly group: string;
  /** Further namespaces, as options of unshare(1). */
  readonly namespaces: readonly string[];
}

/** Longer than programs of hosts take: one that never ends is named then. */
const programMs = 600_000;
const plainBoot: Boot = { script: join(import.meta.dirname, 'boot.sh'), arguments: [], group: 'run', namespaces: [] };
/** Address of the name server that every lab host is configured with; the outside host owns it. */
export const outsideResolver = '192.0.2.53';

export interface EnterOptions extends CommandOptions {
  /** Enter the network namespace only; files and process numbers stay the machine's. */
  readonly netOnly?: boolean;
}

/** A running program inside a host. */
export interface LabProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<Ending>;
  /** Signals the program itself, not the process that entered the namespaces for it. */
  kill(signal?: NodeJS.Signals): void;
}

export class Host implements ServicePlace {
  readonly lab: string;
  readonly name: string;
  readonly address: string;
  readonly address6: string;
  readonly record: HostRecord;
  readonly folder: string;

  constructor(lab: string, record: HostRecord) {
    this.lab = lab;
    this.record = record;
    this.name = record.name;
    this.address = record.address;
    this.address6 = record.address6;
    this.folder = hostFolder(lab, record.name);
  }

  /** The host's first process as the machine counts. Fault `unavailable` while the host is off. */
  get pid(): number {
    const ref = readJson(this.#initPath) as ProcessRef | undefined;
    if (ref === undefined || !isAlive(ref)) throw new Fault('unavailable', `Cannot enter lab host ${this.name}: it is powered off`);
    return ref.pid;
  }

  get isOn(): boolean {
    const ref = readJson(this.#initPath) as ProcessRef | undefined;
    return ref !== undefined && isAlive(ref);
  }

  /** Path by which the machine sees a file of this host, sockets included. */
  file(path: string): string {
    return `/proc/${this.pid}/root${path}`;
  }

  /** Path of the host's network namespace, for setns(2). */
  get netns(): string {
    return `/proc/${this.pid}/ns/net`;
  }

  /** Directory of the host's control group in cgroup2. */
  get cgroup(): string {
    return join(cgroup2Root(), hostGroup(this.lab, this.name));
  }

  get #initPath(): string {
    return join(this.folder, 'init.json');
  }

  /** The command line that runs `argv` in this host and in its control group. */
  enter(argv: readonly string[], _environment: Readonly<Record<string, string>> = {}, cwd = '/'): string[] {
    const target = ['nsenter', `--target=${this.pid}`, '--net', '--mount', '--uts', '--ipc', '--pid', `--wdns=${cwd}`, '--'];
    return [...this.#grouped('run'), ...target, ...argv];
  }

  #grouped(group: string): string[] {
    return ['sh', '-c', 'echo 0 >"$0/cgroup.procs" && exec "$@"', join(this.cgroup, group)];
  }

  /** Runs a program in the host to its end, for ten minutes unless said. Faults as `run`. */
  exec(argv: readonly string[], options: EnterOptions = {}): Promise<Output> {
    const { cwd, netOnly = false, ...rest } = options;
    const line = netOnly ? ['nsenter', `--net=${this.netns}`, '--', ...argv] : this.enter(argv, {}, cwd);
    return run(line, { timeoutMs: programMs, ...rest });
  }

  /** As `exec`, and answers the trimmed output. */
  async ask(argv: readonly string[], options: EnterOptions = {}): Promise<string> {
    const { stdout } = await this.exec(argv, options);
    return stdout.trim();
  }

  /** Starts a program in the host with pipes, for the life of the caller. */
  spawn(argv: readonly string[], options: { readonly env?: Readonly<Record<string, string>>; readonly cwd?: string } = {}): LabProcess {
    const line = this.enter(argv, {}, options.cwd);
    const child = start(line, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...options.env } });
    return {
      child,
      ended: ending(child, argv),
      kill: (signal = 'SIGTERM') => {
        const inner = child.pid === undefined ? [] : childrenOf(child.pid);
        if (inner.length === 0) child.kill(signal);
        for (const pid of inner) {
          const ref = refOf(pid);
          if (ref !== undefined) signalProcess(ref, signal);
        }
      },
    };
  }

  startService(spec: ServiceSpec, timeoutMs?: number): Promise<void> {
    return startService(this, spec, timeoutMs);
  }

  stopService(name: string, signal?: NodeJS.Signals, timeoutMs?: number): Promise<void> {
    return stopService(this, name, signal, timeoutMs);
  }

  signalService(name: string, signal: NodeJS.Signals): void {
    signalService(this, name, signal);
  }

  isRunning(name: string): boolean {
    return isRunning(this, name);
  }

  /** What a service has printed since the lab was made. */
  log(name: string): string {
    try {
      return readFileSync(logPath(this, name), 'utf8');
    } catch {
      return ''; // never started
    }
  }

  /** Starts the first process and waits until the host's namespaces are ready; its link is joined by the lab. */
  async powerOn(boot: Boot = plainBoot): Promise<void> {
    if (this.isOn) return;
    const own = hostGroup(this.lab, this.name);
    // In groups that were ended once the kernel ends what systemd starts there again (cgroup.kill, CLONE_INTO_CGROUP).
    if (boot !== plainBoot) await removeCgroup(`${own}/${boot.group}`);
    for (const group of new Set(['run', boot.group])) makeCgroup(`${own}/${group}`);
    const disk = hostDisk(this.lab, this.name);
    mkdirSync(disk, { recursive: true });
    mkdirSync(join(this.folder, 'logs'), { recursive: true });
    const errorsPath = join(this.folder, 'logs', 'boot.log');
    const errors = openSync(errorsPath, 'w');
    const namespaces = ['--net', '--mount', '--uts', '--ipc', '--pid', ...boot.namespaces, '--fork', '--propagation=private', '--'];
    const script = [boot.script, this.lab, this.name, disk, outsideResolver, ...boot.arguments];
    const argv = [...this.#grouped(boot.group), 'unshare', ...namespaces, ...script];
    const child = start(argv, { detached: true, stdio: ['ignore', 'pipe', errors] });
    closeSync(errors);
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const pid = /^(\d+) ready$/m.exec(said)?.[1];
      if (pid !== undefined) resolve(Number(pid));
    });
    const fail = (): void =>
      reject(new Fault('internal', `Cannot power on lab host ${this.name}: ${lastLines(readFileSync(errorsPath, 'utf8'))}`));
    child.once('error', fail);
    child.once('exit', fail);
    const ref = refOf(await promise);
    child.stdout?.destroy();
    child.unref();
    if (ref === undefined) throw new Fault('internal', `Cannot power on lab host ${this.name}: its first process ended`);
    writeJson(this.#initPath, ref);
  }

  /** Ends everything of the host at once, as a power cut does. Off already is success. */
  async powerOff(): Promise<void> {
    await killCgroup(hostGroup(this.lab, this.name));
    rmSync(this.#initPath, { force: true });
  }

  /** Services that were started and not stopped, in the order of their start. */
  services(): ServiceSpec[] {
    return listServices(this);
  }
}

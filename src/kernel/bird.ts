// The host's BGP speaker: a BIRD process of the agent's own, beside whatever else the machine runs. Facts relied on (BIRD 2):
// - It lives on when the agent ends, and is found again by its control socket; configured anew over it, sessions and routes
//   that do not change are not touched.
// - `persist`: routes stay in the kernel when the process ends, by whatever way. `-R` and `graceful restart`: one that starts
//   after that leaves them until its peers have told it theirs again (held-routes.ts has the exception).
// - With a metric that all its routes have it replaces them in the kernel at one go, and takes routes of other metrics for somebody
//   else's, also those that it wrote itself before.
// - It takes every route of protocol 12 in the main table for its own: there can be no second one on a host that does so.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { BirdConfig } from '#model/desired.ts';
import { Fault, isFault } from '#model/fault.ts';
import { byItem } from './batch.ts';
import { hasHeldRoutes, holdRoutes, releaseRoutes } from './held-routes.ts';
import type { Kind } from './kind.ts';
import { kernelFault } from './libc.ts';
import { encodeRoute, type RouteMessage } from './netlink/rtnl.ts';
import { RTM_DELROUTE, RTPROT_BIRD } from './netlink/uapi.ts';
import { dumpRoutes } from './route.ts';
import type { Sockets } from './sockets.ts';
import { talk } from './unix-talk.ts';
import { waitFor } from './wait.ts';

const programs = ['/usr/sbin/bird', '/usr/local/sbin/bird'];
const startMs = 5000;
const stopMs = 5000;
const watchMs = 1000;
/** Recovery takes 30 s at most (`graceful restart wait`), and a peer's may begin when ours ends. */
const holdMs = 60_000;

/** Where BIRD is; undefined when it is not installed. */
export const findBird = (): string | undefined => programs.find((path) => existsSync(path));

export interface BirdOptions {
  readonly sockets: Sockets;
  /** The agent's own directory for configuration, socket and log; made when missing. */
  readonly directory: string;
  /** findBird(). */
  readonly program: string | undefined;
  /** The process has ended although it was wanted. */
  readonly ended: () => void;
}

/** Replies have a number; a line with a space behind it ends one. The greeting is the first (doc/reply_codes of BIRD). */
const isReply = (answer: string): boolean => answer.endsWith('\n') && (answer.match(/^\d{4} /gm)?.length ?? 0) >= 2;

/** What all routes have; 0: each its own. */
const metricIn = (text: string): number => Number(/^ *metric (\d+);$/m.exec(text)?.[1] ?? 0);

const read = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '');

const missing = (): Fault =>
  new Fault('unsupported', 'Cannot speak BGP: BIRD is not installed', { hint: 'Install Debian’s package bird2; it need not be started' });

export interface BirdKind extends Kind<BirdConfig>, Disposable {
  /** It has been started anew with the routes of the one before, and its peers have not all told it theirs again; known to a second. */
  readonly isRecovering: boolean;
}

export function createBirdKind({ sockets, directory, program, ended }: BirdOptions): BirdKind {
  const file = (name: string): string => `${directory}/${name}`;
  const [config, secrets, control, log] = [file('bird.conf'), file('secrets.conf'), file('bird.ctl'), file('bird.log')];
  let watch: NodeJS.Timeout | undefined;
  let release: NodeJS.Timeout | undefined;
  let hasLooked = false;
  let isRecovering = false;

  const ask = (request: string): string => talk(control, `${request}\n`, `ask bird to ${request}`, isReply);

  function isRunning(): boolean {
    if (!existsSync(control)) return (isRecovering = false);
    try {
      isRecovering = /Graceful restart recovery in progress/.test(ask('show status'));
      return true;
    } catch (error) {
      // Busy is not gone.
      return !(isFault(error) && (error.errno === 'ECONNREFUSED' || error.errno === 'ENOENT'));
    }
  }

  /** An agent that took the process over is not its parent, so it has to look. */
  function keepWatch(): void {
    watch ??= setInterval(() => {
      if (!isRunning()) ended();
    }, watchMs).unref();
  }

  function stopWatch(): void {
    clearInterval(watch);
    watch = undefined;
  }

  /** Copies of an agent that ended before their time was over are released in time too. */
  function releaseLater(): void {
    clearTimeout(release);
    release = setTimeout(() => {
      dropOthers(metricIn(read(config)));
      releaseRoutes(sockets.of(''));
    }, holdMs).unref();
  }

  function hold(): void {
    holdRoutes(sockets.of(''));
    releaseLater();
  }

  function lookForHeld(): void {
    if (!hasLooked && hasHeldRoutes(sockets.of(''))) releaseLater();
    hasLooked = true;
  }

  function list(netns: string): BirdConfig[] {
    if (netns !== '' || !existsSync(config)) return [];
    lookForHeld();
    if (!isRunning()) return [{ netns, text: '', secrets: '' }];
    keepWatch();
    return [{ netns, text: read(config), secrets: read(secrets) }];
  }

  const learned = (): RouteMessage[] => ([4, 6] as const).flatMap((family) => dumpRoutes(sockets.of(''), family, RTPROT_BIRD));

  function removeLearned(routes: readonly RouteMessage[]): void {
    const requests = routes.map(({ destination, metric }) => ({
      type: RTM_DELROUTE,
      body: encodeRoute({ destination, metric, protocol: RTPROT_BIRD }),
      action: `remove route ${destination} of bird`,
    }));
    for (const { fault } of sockets.of('').batch(requests)) if (fault !== undefined && fault.errno !== 'ESRCH') throw fault;
  }

  /** Routes of an earlier configuration, which would be preferred for ever; their copies stay for as long as it takes. */
  function dropOthers(metric: number): void {
    if (metric !== 0) removeLearned(learned().filter((route) => route.metric !== metric));
  }

  function start(path: string): void {
    rmSync(control, { force: true });
    const output = openSync(log, 'w', 0o600);
    try {
      const recovers = learned().length > 0;
      if (recovers) hold();
      const words = ['-f', '-c', config, '-s', control, '-P', file('bird.pid'), ...(recovers ? ['-R'] : [])];
      const child = spawn(path, words, { detached: true, stdio: ['ignore', output, output], cwd: '/', env: {} });
      child.on('error', () => undefined); // Told below: nobody listens.
      child.on('exit', () => {
        if (watch !== undefined) ended();
      });
      child.unref();
    } finally {
      closeSync(output);
    }
    if (waitFor(isRunning, startMs)) return;
    const said = readFileSync(log, 'utf8').trim().slice(-500);
    throw new Fault('kernel', `Cannot start bird: ${said === '' ? 'it does not listen' : said}`, {
      errno: 'ETIMEDOUT',
      hint: `See ${log}`,
    });
  }

  function write(item: BirdConfig, name: string): string {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeFileSync(`${secrets}.new`, item.secrets, { mode: 0o600 });
    renameSync(`${secrets}.new`, secrets);
    writeFileSync(file(name), item.text, { mode: 0o600 });
    return file(name);
  }

  function add(item: BirdConfig): void {
    if (program === undefined) throw missing();
    const next = write(item, 'next.conf');
    const running = isRunning();
    const metric = metricIn(item.text);
    const isNew = metric !== metricIn(read(config));
    if (running) {
      if (isNew) hold();
      const answer = ask(`configure "${next}"`);
      // 3 done, 4 begun, 5 queued behind one that is under way, 20 nothing to do (doc/reply_codes).
      if (!/^00(03|04|05|20) /m.test(answer)) throw kernelFault('configure bird', 'EINVAL', answer.split('\n').at(-2) ?? '');
    }
    renameSync(next, config);
    if (!running) start(program);
    if (isNew || !running) dropOthers(metric);
    keepWatch();
  }

  /** The process and all that it wrote. */
  function remove(): void {
    stopWatch();
    if (isRunning()) {
      ask('down');
      if (!waitFor(() => !isRunning(), stopMs)) throw kernelFault('stop bird', 'EBUSY', 'it does not end');
    }
    clearTimeout(release);
    releaseRoutes(sockets.of(''));
    removeLearned(learned());
    rmSync(directory, { recursive: true, force: true });
  }

  return {
    name: 'bird',
    key: ({ netns }) => `${netns} bird`,
    same: (wanted, found) => wanted.text === found.text && wanted.secrets === found.secrets,
    list,
    add: (items) => byItem(items, add),
    remove: (items) => byItem(items, remove),
    get isRecovering() {
      return isRecovering;
    },
    [Symbol.dispose]() {
      stopWatch();
      clearTimeout(release);
    },
  };
}

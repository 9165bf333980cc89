// WireGuard devices where the kernel has none: each is a wireguard-go process with a tun device. The process and its UDP
// socket stay in the host's namespace; the device moves to its domain, which the process notices by itself. The agent starts it and
// leaves it behind; where it would end with the agent, as in a pod, somebody else is asked to (packaging/image/wireguard). Facts
// relied on:
// - The process ends when its socket file is removed, and the tun device ends with the process: so device, process and
//   socket live and die together, and the device alone tells which processes run. One that died shows as a missing link,
//   which the loop makes again; an agent that comes back finds the devices and touches none.
// - The directory of socket files is compiled in (/var/run/wireguard). Each process sees the agent's own directory there, by
//   a mount namespace, so several agents on one machine do not meet. Whoever is asked has it mounted there.
// - Packets wait for a processor, as they do not in the kernel: a process that gets none for half a second loses what its device's queue
//   has no room for. So it goes before others of its control group (setpriority(2)), or, where these do not count, before other
//   sessions (autogroup in sched(7)). Where either is refused, or nice(1) is not there, as in the engine's plugin, it starts all the same.
// - It learns of MTU changes from its own namespace only, and pads packets to 16 bytes up to the MTU it knows. So the MTU is
//   set before the device moves, and MTUs of plans are multiples of 16.
import { spawn } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import type { Netns, WireguardLink } from '#model/desired.ts';
import { Fault } from '#model/fault.ts';
import { dumpLinks, place } from './batch.ts';
import { kernelFault } from './libc.ts';
import { encodeLink, type FoundLink } from './netlink/rtnl.ts';
import { RTM_SETLINK } from './netlink/uapi.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';
import { pause, waitFor } from './wait.ts';
import type { WireguardBackend } from './wireguard-config.ts';
import { exchange, getRequest, setRequest } from './wireguard-uapi.ts';

const programs = ['/usr/bin/wireguard-go', '/usr/local/bin/wireguard-go', '/usr/sbin/wireguard-go', '/usr/local/sbin/wireguard-go'];
const startMs = 5000;
const stopMs = 3000;
/** How long the process has to take note of a new MTU; a netlink message to a waiting reader takes microseconds. */
const noticeMs = 20;

const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LOG_LEVEL: 'error' };
const script = `mkdir -p /var/run/wireguard && mount --bind "$1" /var/run/wireguard || exit
(echo -20 > /proc/self/autogroup) 2>/dev/null
command -v nice >/dev/null && exec nice -n -20 "$2" -f "$3"
exec "$2" -f "$3"`;

/** Who starts the processes: the agent itself with this program, or whoever reads their devices' names from this pipe, a line each. */
export type Starter = { readonly program: string } | { readonly pipe: string };

/** The agent itself; undefined when wireguard-go is not installed or there are no tun devices. */
export function findWireguardGo(): Starter | undefined {
  const program = existsSync('/dev/net/tun') ? programs.find(isExecutable) : undefined;
  return program === undefined ? undefined : { program };
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // Not there, or not for us: the next place is tried.
  }
}

/** Of a child, which stays as a zombie until Node's loop has taken note of it. */
function hasEnded(pid: number | undefined): boolean {
  try {
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true; // Nothing is left of it.
  }
}

export interface UserspaceOptions {
  readonly sockets: Sockets;
  /** The agent's own directory for the processes' sockets and logs, at most 80 bytes long; made when missing. */
  readonly directory: string;
  readonly starter: Starter;
}

/** The caller closes it. Fault `unsupported` where nobody reads it. */
function openPipe(pipe: string, name: string): number {
  try {
    // Without a reader there is no opening it for writing (fifo(7)).
    return openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new Fault('unsupported', `Cannot add link ${name} type wireguard: the kernel has none, and nobody starts wireguard-go here`, {
      hint: 'With agents in pods that is the DaemonSet causeway-wireguard: see docs/kubernetes.md',
      cause,
    });
  }
}

export function createUserspaceWireguard({ sockets, directory, starter }: UserspaceOptions): WireguardBackend {
  const socketPath = (name: string) => `${directory}/${name}.sock`;
  const logPath = (name: string) => `${directory}/${name}.log`;

  const tuns = (netns: Netns): FoundLink[] => {
    const socket = sockets.find(netns);
    return socket === undefined ? [] : dumpLinks(socket).filter(({ kind, name }) => kind === 'tun' && isOurLinkName(name));
  };
  const found = (netns: Netns) => tuns(netns).filter(({ name }) => existsSync(socketPath(name)));
  const find = (netns: Netns, name: string) => found(netns).find((link) => link.name === name);

  const list = (netns: Netns): WireguardLink[] =>
    // A link that is down is not the one that is wanted: it shows with an MTU that nobody asks for.
    found(netns).map(({ name, mtu, alias, up }) => ({ type: 'wireguard', netns, name, mtu: up ? mtu : 0, alias }));

  const isListening = (name: string): boolean => {
    if (!existsSync(socketPath(name))) return false;
    try {
      exchange(socketPath(name), getRequest, `ask wireguard-go for ${name}`);
      return true;
    } catch {
      return false; // Refused or not yet: the file is left over, or the process is just starting.
    }
  };

  /** Ends the process, wherever its device is. */
  const dismiss = (name: string) => rmSync(socketPath(name), { force: true });

  /** Answers how to see that its process has ended. */
  function leaveBehind(program: string, name: string): () => boolean {
    dismiss(name);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const log = openSync(logPath(name), 'w', 0o600);
    try {
      const words = ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', directory, program, name];
      const child = spawn('unshare', words, { detached: true, stdio: ['ignore', log, log], cwd: '/', env: environment });
      child.on('error', () => undefined); // Told below: it has no number, and has ended.
      child.unref();
      return () => hasEnded(child.pid);
    } finally {
      closeSync(log);
    }
  }

  /** Whoever reads the pipe, and is not there at the moment, starts what has left its socket by himself. Whether it has ended is not told. */
  function ask(pipe: string, name: string): () => boolean {
    const fd = openPipe(pipe, name);
    try {
      dismiss(name);
      writeSync(fd, `${name}\n`);
      return () => false;
    } finally {
      closeSync(fd);
    }
  }

  function start(name: string): void {
    const isOver = 'pipe' in starter ? ask(starter.pipe, name) : leaveBehind(starter.program, name);
    const isThere = (): boolean => isListening(name) && find('', name) !== undefined;
    if (waitFor(() => isThere() || isOver(), startMs) && !isOver()) return;
    const [errno, why] = isOver() ? ['ECHILD', 'it has ended'] : ['ETIMEDOUT', `no device after ${startMs} ms`];
    throw new Fault('kernel', `Cannot start wireguard-go for ${name}: ${why}`, {
      errno,
      ...('pipe' in starter
        ? { hint: "See the log of the node's pod of the DaemonSet causeway-wireguard" }
        : { hint: `See ${logPath(name)}`, cause: readFileSync(logPath(name), 'utf8').slice(-1000) }),
    });
  }

  function move({ netns, name, mtu, alias }: WireguardLink): void {
    const action = `move link ${name}${place(netns)}`;
    sockets.of('').request({ type: RTM_SETLINK, body: encodeLink({ name, mtu }), action });
    pause(noticeMs);
    sockets.withFd(netns, (netnsFd) =>
      sockets.of('').request({ type: RTM_SETLINK, body: encodeLink({ name, mtu, alias, up: true, netnsFd }), action }),
    );
  }

  function add(link: WireguardLink): void {
    const { netns, name, mtu, alias } = link;
    const here = netns === '' ? undefined : find(netns, name);
    if (here?.mtu === mtu) {
      sockets.of(netns).request({ type: RTM_SETLINK, body: encodeLink({ name, alias, up: true }), action: `set link ${name}` });
      return;
    }
    // With another MTU the device is made anew, as the process would not notice a change.
    if (here !== undefined) remove(link);
    if (find('', name) === undefined) start(name);
    move(link);
  }

  function remove({ netns, name }: WireguardLink): void {
    if (find(netns, name) === undefined) return;
    dismiss(name);
    const gone = () => tuns(netns).every((link) => link.name !== name);
    if (!waitFor(gone, stopMs)) throw kernelFault(`remove link ${name}`, 'EBUSY', 'wireguard-go does not end');
    rmSync(logPath(name), { force: true });
  }

  return {
    devices: { list, add, remove },
    names: (netns) => found(netns).map(({ name }) => name),
    read: (netns, link) => exchange(socketPath(link), getRequest, `read wireguard device ${link}${place(netns)}`),
    write: (netns, link, change) =>
      void exchange(socketPath(link), setRequest(change), `configure wireguard device ${link}${place(netns)}`),
  };
}

// Compares what is attached with the sandboxes that the runtime of this host has, every now and then.
import { existsSync } from 'node:fs';
import { listSandboxes } from '#cni/cri.ts';
import { type LostOptions, LostSandboxes } from '#cni/lost-sandboxes.ts';
import { Fault } from '#model/fault.ts';

export interface CriOptions {
  /** Files of sockets. */
  readonly sockets: readonly string[];
  /** Nobody has said which: those count that exist. */
  readonly areUsual: boolean;
  /** How long a sandbox has to be missing. */
  readonly missingMs: number;
}

export interface CriWords {
  readonly cri: string | undefined;
  readonly lostSeconds: string | undefined;
  readonly isNode: boolean;
}

/** A runtime may take minutes to start a pod, whose sandbox it lists only then; kubelet gives up after four. */
const usualMissingMs = 5 * 60_000;
const mostLookMs = 60_000;
const usualSockets = ['/run/containerd/containerd.sock', '/run/crio/crio.sock'];

/** Fault `invalid`. */
export function readCriOptions({ cri, lostSeconds, isNode }: CriWords): { readonly cri?: CriOptions } {
  const seconds = Number(lostSeconds ?? usualMissingMs / 1000);
  if (!(seconds > 0)) throw new Fault('invalid', `Not a number of seconds: ${lostSeconds}`, { field: '--lost-seconds' });
  if (cri === 'none' || (cri === undefined && !isNode)) return {};
  const file = cri?.replace(/^unix:\/\//, '');
  if (file !== undefined && !file.startsWith('/'))
    throw new Fault('invalid', `Not a socket: ${cri}`, { field: '--cri', hint: 'Write it as unix:///run/containerd/containerd.sock' });
  return { cri: { sockets: file === undefined ? usualSockets : [file], areUsual: file === undefined, missingMs: seconds * 1000 } };
}

interface WatchLog {
  warn(fields: object, message: string): void;
}

/** Until disposed of. */
export function watchSandboxes(options: CriOptions, attached: Pick<LostOptions, 'records' | 'remove'>, log: WatchLog): Disposable {
  const { sockets, areUsual, missingMs } = options;
  const lost = new LostSandboxes({
    ...attached,
    listed: async () => {
      const lists = await Promise.all(sockets.filter((socket) => !areUsual || existsSync(socket)).map(listSandboxes));
      return new Set(lists.flatMap((list) => [...(list ?? [])]));
    },
    now: () => performance.now(),
    missingMs,
    log: (fields, message) => log.warn(fields, message),
  });
  const timer = setInterval(() => void lost.look(), Math.min(mostLookMs, missingMs / 2));
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

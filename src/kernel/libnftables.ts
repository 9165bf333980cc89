// The nft language, run inside the process by libnftables(3): 0.05 ms for one element, where starting the nft program takes
// 4 ms. Without the library the program of the same name serves, with the same answers. The library's context holds a
// netlink socket of the namespace it was made in; what it caches of that namespace it checks against the kernel's
// generation number at every call. Beside libc.ts the only file that uses FFI.
import { spawnSync } from 'node:child_process';
import koffi from 'koffi';
import { Fault } from '#model/fault.ts';
import { Lingering } from './lingering.ts';

export interface NftOptions {
  /** `json`: output as libnftables-json(5); `terse`: that without the elements of sets. */
  readonly format?: 'text' | 'json' | 'terse';
  /** Let the kernel judge the commands, and change nothing. */
  readonly check?: boolean;
}

export interface NftAnswer {
  readonly output: string;
  /** What nft printed about its failure; undefined on success. One call is one transaction: failed, it changed nothing. */
  readonly error: string | undefined;
}

export type RunNft = (commands: string, options?: NftOptions) => NftAnswer;

// enum nft_ctx_output_flags, nftables/libnftables.h.
const NFT_CTX_OUTPUT_JSON = 1 << 4;
const NFT_CTX_OUTPUT_TERSE = 1 << 11;

function loadLibrary(): RunNft | undefined {
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load('libnftables.so.1');
  } catch {
    return undefined; // Not installed, or another major version: the program is asked instead.
  }
  const open = library.func('void *nft_ctx_new(uint32_t)');
  const free = library.func('void nft_ctx_free(void *)');
  const setFlags = library.func('void nft_ctx_output_set_flags(void *, uint32_t)');
  const setDryRun = library.func('void nft_ctx_set_dry_run(void *, bool)');
  const bufferOutput = library.func('int nft_ctx_buffer_output(void *)');
  const bufferError = library.func('int nft_ctx_buffer_error(void *)');
  const run = library.func('int nft_run_cmd_from_buffer(void *, const char *)');
  const output = library.func('const char *nft_ctx_get_output_buffer(void *)');
  const errors = library.func('const char *nft_ctx_get_error_buffer(void *)');
  const contexts = new Lingering<unknown>(
    () => {
      const context: unknown = open(0);
      if (context === null) throw new Fault('kernel', 'Cannot open an nft context: ENOMEM', { errno: 'ENOMEM' });
      bufferOutput(context);
      bufferError(context);
      return context;
    },
    (context) => void free(context),
  );
  return (commands, { format = 'text', check = false } = {}) =>
    contexts.use((context) => {
      setFlags(context, format === 'text' ? 0 : NFT_CTX_OUTPUT_JSON | (format === 'terse' ? NFT_CTX_OUTPUT_TERSE : 0));
      setDryRun(context, check);
      const failed = run(context, commands) !== 0;
      // Reading a buffer also empties it.
      const [printed, refused] = [String(output(context)), String(errors(context))];
      return { output: printed, error: failed ? refused : undefined };
    });
}

const programEnvironment = { LC_ALL: 'C', PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

/** The same by the nft program. Fault `unsupported` when it is not installed. */
export const runNftProgram: RunNft = (commands, { format = 'text', check = false } = {}) => {
  const flags = [...(format === 'text' ? [] : ['-j']), ...(format === 'terse' ? ['-t'] : []), ...(check ? ['-c'] : [])];
  const child = spawnSync('nft', [...flags, '-f', '-'], { input: commands, encoding: 'utf8', maxBuffer: 1 << 28, env: programEnvironment });
  if (child.error !== undefined) {
    throw new Fault('unsupported', 'Cannot run nft', { hint: 'Install the package nftables', cause: child.error });
  }
  return { output: child.stdout, error: child.status === 0 ? undefined : child.stderr };
};

let chosen: RunNft | undefined;
let changes = 0;

/** How many calls of this process have changed, or may have changed, rules or elements: each is at most one transaction. */
export const ownChanges = (): number => changes;
/** By another way than runNft(). */
export const countChange = (): void => {
  changes += 1;
};

/** Runs commands in the network namespace the calling thread is in. Synchronous; one call is one transaction. */
export const runNft: RunNft = (commands, options) => {
  chosen ??= loadLibrary() ?? runNftProgram;
  const answer = chosen(commands, options);
  const mayChange = (options?.format ?? 'text') === 'text' && options?.check !== true;
  if (mayChange && answer.error === undefined) countChange();
  return answer;
};

// What strerror(3) prints in the C locale for the refusals nf_tables gives.
const errnoTexts: readonly (readonly [string, string])[] = [
  ['No such file or directory', 'ENOENT'],
  ['File exists', 'EEXIST'],
  ['interval overlaps', 'EEXIST'],
  ['conflicting intervals', 'EEXIST'],
  ['Device or resource busy', 'EBUSY'],
  ['Operation not permitted', 'EPERM'],
  ['Permission denied', 'EACCES'],
  ['Operation not supported', 'EOPNOTSUPP'],
  ['Numerical result out of range', 'ERANGE'],
  ['No buffer space available', 'ENOBUFS'],
  ['Message too long', 'EMSGSIZE'],
  ['Cannot allocate memory', 'ENOMEM'],
  ['No space left on device', 'ENOSPC'],
  ['Too many open files in system', 'ENFILE'],
  ['Too many levels of symbolic links', 'ELOOP'],
  ['Interrupted system call', 'EINTR'],
  ['Invalid argument', 'EINVAL'],
];

/** errno name in what nft printed; EINVAL for what nft itself refused, such as a syntax error. */
export const nftErrno = (error: string): string => errnoTexts.find(([text]) => error.includes(text))?.[1] ?? 'EINVAL';

/** `Cannot load table inet causeway: EEXIST (interval overlaps with an existing one)`, code `kernel`. */
export function nftFault(action: string, error: string): Fault {
  const errno = nftErrno(error);
  const [first = ''] = error.split('\n').filter((line) => line.includes('Error: '));
  const text = first.replace(/^.*?Error: (Could not process rule: )?/, '').slice(0, 300);
  return new Fault('kernel', `Cannot ${action}: ${errno}${text === '' ? '' : ` (${text})`}`, { errno, cause: error.slice(0, 2000) });
}

// The one error class. A Fault carries a permanent code (what programs and tests decide by), a sentence for people, and
// where possible what to do about it. Messages may change; codes may not. Borders translate codes: api/faults.ts to HTTP
// status, cli/faults.ts to exit status, docker/faults.ts to the plugin protocol's error text.

export const faultCodes = [
  'invalid', // input does not fit its schema, or contradicts itself; `field` names the place
  'not-found',
  'exists', // a name, address, VNI or link is taken
  'conflict', // compare-and-swap lost: re-read and try again
  'in-use', // cannot be removed while others depend on it
  'exhausted', // no address, block, VNI or port left
  'overlap', // a range overlaps another one, the underlay or a host route
  'unauthenticated',
  'forbidden',
  'unavailable', // a peer (controller, engine, store) cannot be reached now
  'timeout',
  'compacted', // a watch asked for a revision the store no longer has: list again
  'unsupported', // this host, kernel or version cannot do it
  'kernel', // the kernel refused; `errno` says how
  'corrupt', // a file or record of ours cannot be read
  'stale', // an older generation of this host, or an older sequence, tried to write
  'version', // the other side speaks a version that we do not
  'internal',
] as const;

export type FaultCode = (typeof faultCodes)[number];

export interface FaultDetail {
  /** What the operator can do, one sentence. */
  readonly hint?: string | undefined;
  /** JSON-pointer-like path of the offending input field, for example `spec.pools[0].cidr`. */
  readonly field?: string | undefined;
  /** Kernel errno name, for example `EEXIST`. */
  readonly errno?: string | undefined;
  readonly cause?: unknown;
}

export class Fault extends Error {
  readonly code: FaultCode;
  readonly hint: string | undefined;
  readonly field: string | undefined;
  readonly errno: string | undefined;

  constructor(code: FaultCode, message: string, detail: FaultDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.name = 'Fault';
    this.code = code;
    this.hint = detail.hint;
    this.field = detail.field;
    this.errno = detail.errno;
  }
}

/** Whether `error` is a Fault, and, when a code is given, one with that code. */
export function isFault(error: unknown, code?: FaultCode): error is Fault {
  return error instanceof Fault && (code === undefined || error.code === code);
}

/** Words about what a cloud has refused, the same for each try: its services give every request an id. For who tells what is new. */
export const withoutRequests = (text: string): string => text.replaceAll(/ \(request [^()]*\)/g, '');

/** For the default branch of an exhaustive switch: reaching it is a programming error and ends the process. */
export function assertNever(value: never): never {
  throw new TypeError(`Unexpected value ${JSON.stringify(value)}`);
}

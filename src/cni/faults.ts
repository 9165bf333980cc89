// Faults as a CNI runtime reads them: an object on standard output with a number. Numbers below 100 are the specification's
// (CNI 1.1.0, "Error"), 100 and above are ours and permanent, as fault codes are.
import { type Fault, type FaultCode, isFault } from '#model/fault.ts';

export interface ErrorAnswer {
  readonly cniVersion: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

/** The plugin cannot serve an ADD now. */
export const notAvailable = 50;
const environmentInvalid = 4;
const undecodable = 6;
/** Field of a Fault about standard input as a whole. */
export const inputField = 'stdin';

const numbers: Readonly<Record<FaultCode, number>> = {
  version: 1,
  unsupported: 2,
  'not-found': 3,
  kernel: 5,
  invalid: 7,
  unavailable: 11,
  timeout: 11,
  conflict: 11,
  compacted: 11,
  stale: 11,
  exists: 100,
  exhausted: 101,
  overlap: 102,
  'in-use': 103,
  forbidden: 104,
  unauthenticated: 105,
  corrupt: 106,
  internal: 107,
};

function numberOf(code: FaultCode, field: string | undefined): number {
  if (code !== 'invalid') return numbers[code];
  if (field === inputField) return undecodable;
  return field?.startsWith('CNI_') === true ? environmentInvalid : numbers.invalid;
}

/** What the runtime shows in a pod's events. Unknown errors are not shown, they are in the log. */
export function errorAnswer(error: unknown, cniVersion: string, code?: number): ErrorAnswer {
  if (!isFault(error)) {
    return { cniVersion, code: code ?? numbers.internal, msg: 'Causeway failed unexpectedly', details: 'See the log of causeway agent' };
  }
  return {
    cniVersion,
    code: code ?? numberOf(error.code, error.field),
    msg: error.message,
    ...detailsOf(error),
  };
}

/** What lies behind it explains better than what to do, where the kernel or a peer has refused something. */
function detailsOf({ hint, cause }: Fault): { readonly details?: string } {
  const details = isFault(cause) ? cause.message : hint;
  return details === undefined ? {} : { details };
}

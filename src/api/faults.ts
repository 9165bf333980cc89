// The border between Faults and HTTP: a code becomes a status and a problem document (RFC 9457), and back. The code decides;
// the status is for proxies and people.
import { Fault, type FaultCode, faultCodes } from '#model/fault.ts';
import type { Problem } from './answers.ts';

export const statusOf: Readonly<Record<FaultCode, number>> = {
  invalid: 400,
  'not-found': 404,
  exists: 409,
  conflict: 412,
  'in-use': 409,
  exhausted: 409,
  overlap: 409,
  unauthenticated: 401,
  forbidden: 403,
  unavailable: 503,
  timeout: 504,
  compacted: 410,
  unsupported: 501,
  kernel: 500,
  corrupt: 500,
  stale: 409,
  version: 426,
  internal: 500,
};

const titles: Readonly<Record<FaultCode, string>> = {
  invalid: 'The request does not fit',
  'not-found': 'Not found',
  exists: 'It exists already',
  conflict: 'It has changed meanwhile',
  'in-use': 'It is in use',
  exhausted: 'None left',
  overlap: 'Ranges overlap',
  unauthenticated: 'Not known who asks',
  forbidden: 'Not allowed',
  unavailable: 'Not available now',
  timeout: 'It took too long',
  compacted: 'Too old',
  unsupported: 'Not possible here',
  kernel: 'The kernel refused',
  corrupt: 'A record cannot be read',
  stale: 'Superseded by a newer one',
  version: 'Versions do not fit',
  internal: 'A fault of the program',
};

/** A Fault that HTTP has a more exact status for than its code's own: 405, 413, 415, 428. */
export class Refusal extends Fault {
  readonly status: number;

  constructor(status: number, ...rest: ConstructorParameters<typeof Fault>) {
    super(...rest);
    this.status = status;
  }
}

/** Anything that is not a Fault is `internal`, and its text stays here: it may hold what the asker must not see. */
export function problemOf(error: unknown): Problem {
  const fault = error instanceof Fault ? error : new Fault('internal', 'The controller has met an error of its own; its log says more');
  return {
    type: `urn:causeway:fault:${fault.code}`,
    title: titles[fault.code],
    status: fault instanceof Refusal ? fault.status : statusOf[fault.code],
    detail: fault.message,
    code: fault.code,
    ...(fault.field === undefined ? {} : { field: fault.field }),
    ...(fault.hint === undefined ? {} : { hint: fault.hint }),
  };
}

const isCode = (code: string): code is FaultCode => faultCodes.some((known) => known === code);

/** The Fault that a problem document came from; an unknown code of a newer controller becomes `internal`. */
export const faultOf = ({ code, detail, field, hint }: Problem): Fault =>
  new Fault(isCode(code) ? code : 'internal', detail, { field, hint });

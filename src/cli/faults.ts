// The border between Fault codes and a terminal: one row per code with its exit status, what it means and what to do.
// The printed error, the exit status and docs/errors.md all come from this table.
import { Fault, type FaultCode } from '#model/fault.ts';
import { plain } from './table.ts';

interface Row {
  readonly exit: number;
  readonly meaning: string;
  readonly advice: string;
}

export const faultTable: Readonly<Record<FaultCode, Row>> = {
  invalid: {
    exit: 2,
    meaning: 'The command or the input does not have the form it must have, or contradicts itself.',
    advice: 'Correct the field that the error names; --help shows what a command takes.',
  },
  'not-found': {
    exit: 3,
    meaning: 'Nothing has that name or id.',
    advice: 'List what exists with the ls subcommand and check the context with "causeway context ls".',
  },
  exists: {
    exit: 4,
    meaning: 'The name, address, VNI or port is taken.',
    advice: 'Choose another one, or remove what holds it.',
  },
  conflict: {
    exit: 4,
    meaning: 'Somebody else changed the same record after you read it. Nothing was written.',
    advice: 'Look at the record again and repeat the command.',
  },
  'in-use': {
    exit: 4,
    meaning: 'It cannot be removed while something depends on it.',
    advice: 'Remove what depends on it first; for a network that is its endpoints ("causeway endpoint ls --network NAME").',
  },
  exhausted: {
    exit: 8,
    meaning: 'No address, block, VNI or port is left in the range it must come from.',
    advice: 'Add a pool to the network ("causeway pool add"), or remove endpoints that are no longer needed.',
  },
  overlap: {
    exit: 4,
    meaning: 'A range overlaps another one, the network between the hosts, or a route of a host.',
    advice: 'Choose another range, or leave the range out and let the controller propose one.',
  },
  unauthenticated: {
    exit: 5,
    meaning: 'The controller does not know who you are: no token, or one that is unknown, expired or removed.',
    advice: 'Put a valid token into the context: "causeway context add NAME --url URL --token TOKEN".',
  },
  forbidden: {
    exit: 5,
    meaning: 'The token or certificate is valid but its role does not allow this.',
    advice: 'Use a context whose token has a wider role, or ask an administrator.',
  },
  unavailable: {
    exit: 6,
    meaning: 'The controller, the agent, the Docker engine or the store cannot be reached now.',
    advice: 'Check that it is running and that the address in "causeway context ls" is right, then repeat the command.',
  },
  timeout: {
    exit: 6,
    meaning: 'No answer came in time. The request may or may not have been carried out.',
    advice: 'Look at the state first, then repeat the command; repeating is safe.',
  },
  compacted: {
    exit: 6,
    meaning: 'A watch asked for history that the store has already forgotten.',
    advice: 'List again and watch from the revision of that list. Agents do this by themselves.',
  },
  unsupported: {
    exit: 7,
    meaning: 'This host, kernel or version cannot do it.',
    advice: 'The message says what is missing. "causeway host show NAME" lists what a host can do.',
  },
  kernel: {
    exit: 9,
    meaning: 'The kernel of a host refused an operation; the message names it and the error number.',
    advice: 'The agent tries again by itself. If it stays, "causeway explain network NAME" shows the objects to look at.',
  },
  corrupt: {
    exit: 9,
    meaning: 'A file or record of Causeway cannot be read.',
    advice: 'Restore it from a backup (docs/operate.md), or move the file away if the message says that it can be rebuilt.',
  },
  stale: {
    exit: 4,
    meaning: 'An older incarnation of a host, or an older version of an endpoint, tried to write.',
    advice: 'Make sure that no second host runs with this name; join the host again if it was rebuilt.',
  },
  version: {
    exit: 7,
    meaning: 'The other side speaks a version of the protocol that this side does not.',
    advice: 'Compare with "causeway version" and bring both sides to the same version.',
  },
  internal: {
    exit: 1,
    meaning: 'An error in Causeway itself.',
    advice: 'Repeat with CAUSEWAY_DEBUG=1 to get the stack and report it.',
  },
};

/** Exit status of `causeway status` when the controller answers but something in the installation is failing. */
export const degradedExit = 10;
/** Exit status when a question was answered with no, or the command was interrupted. */
export const cancelledExit = 130;

export const exitOf = (fault: Fault): number => faultTable[fault.code].exit;

/** Any thrown value as a Fault; what is not one already is an error of ours: `internal`. */
export function toFault(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new Fault('internal', message, { cause: error });
}

/** The two to four lines that a person reads. Control characters from the other side are shown as `?`. */
export function faultText(fault: Fault): string {
  const lines = [`Error (${fault.code}): ${fault.message}`];
  if (fault.field !== undefined) lines.push(`Field: ${fault.field}`);
  if (fault.errno !== undefined && !fault.message.includes(fault.errno)) lines.push(`Kernel: ${fault.errno}`);
  lines.push(`Try: ${fault.hint ?? faultTable[fault.code].advice}`);
  return lines.map((line) => `${plain(line)}\n`).join('');
}

/** The same as one JSON document, for --output json. */
export function faultJson(fault: Fault): string {
  const { code, message, field, errno } = fault;
  const hint = fault.hint ?? faultTable[code].advice;
  return `${JSON.stringify({ error: { code, message, field, errno, hint, exit: exitOf(fault) } })}\n`;
}

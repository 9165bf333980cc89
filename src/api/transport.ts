// Between the client and undici: what went wrong on the way as Faults, and bodies as JSON or lines.
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import { problem } from './answers.ts';
import { clockAdvice, skewText, toleratedSkewMs } from './clock.ts';
import { faultOf } from './faults.ts';

const coded = v.object({ code: v.string() });
const codeOf = (error: unknown): string => {
  const read = v.safeParse(coded, error);
  return read.success ? read.output.code : '';
};

/** Before a byte of the request was sent: repeating can do no harm. */
const neverSent = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT']);
const timeouts = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT']);

export const isNeverSent = (error: unknown): boolean =>
  error instanceof Fault && error.code === 'unavailable' && neverSent.has(codeOf(error.cause));

/** The certificate would be good at another time. */
export const isUntimely = (error: unknown): boolean =>
  error instanceof Fault && error.code === 'unauthenticated' && ['CERT_NOT_YET_VALID', 'CERT_HAS_EXPIRED'].includes(codeOf(error.cause));

/** `skewMs`: by how much this machine's clock is ahead, where that could be found out. */
export function clockFault(fault: Fault, skewMs: number | undefined): Fault {
  const clock =
    skewMs === undefined || Math.abs(skewMs) < toleratedSkewMs ? undefined : `this machine's clock is ${skewText(skewMs)} the controller's`;
  if (clock === undefined) return fault;
  return new Fault('unauthenticated', `${fault.message}: ${clock}`, { hint: clockAdvice, cause: fault.cause });
}

const isUntrusted = (code: string): boolean =>
  code === 'ERR_TLS_CERT_ALTNAME_INVALID' || /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_)/.test(code);

/** Faults: `timeout`, `unauthenticated` (the controller's certificate is not to be trusted), otherwise `unavailable`. */
export function transportFault(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const code = codeOf(error);
  const text = error instanceof Error ? error.message : String(error);
  if (isUntrusted(code)) {
    return new Fault('unauthenticated', `The controller's certificate is not to be trusted: ${text}`, {
      hint:
        code === 'ERR_TLS_CERT_ALTNAME_INVALID'
          ? 'Check the address; the controller names its addresses with --san'
          : 'Check address and CA. If the controller was set up anew or its store replaced, restore its store, or join the hosts again with new tokens and make the contexts anew',
      cause: error,
    });
  }
  if (timeouts.has(code)) {
    return new Fault('timeout', 'The controller has not answered in time', {
      hint: 'It may go on with what it was asked for: try again, and what is done by then is found',
      cause: error,
    });
  }
  return new Fault('unavailable', `The controller cannot be reached: ${text}`, {
    hint: 'Is it running, and is its port open?',
    cause: error,
  });
}

/** The empty text is undefined. Fault `corrupt` for anything that is not JSON. */
export function parseJson(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Fault('corrupt', 'The controller has not answered with JSON', { cause: error });
  }
}

/** A problem document as the Fault it came from; something else in between (a proxy) by its status. */
export function problemFault(status: number, text: string): Fault {
  try {
    const read = v.safeParse(problem, JSON.parse(text));
    if (read.success) return faultOf(read.output);
  } catch {
    // Not JSON: the status is all there is.
  }
  return new Fault(
    status >= 502 && status <= 504 ? 'unavailable' : 'internal',
    `The answer has status ${status} and is not of a controller`,
  );
}

/** `?a=1&b=2` without what is undefined; '' when nothing is left. */
export function toQuery(values: Readonly<Record<string, string | number | undefined>>): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) if (value !== undefined) query.set(key, String(value));
  return query.size === 0 ? '' : `?${query.toString()}`;
}

/** Lines without their end; an unfinished last line is dropped, because it was cut off. */
export async function* linesOf(chunks: AsyncIterable<unknown>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder();
  let rest: string[] = [];
  for await (const chunk of chunks) {
    const pieces = (chunk instanceof Uint8Array ? decoder.decode(chunk, { stream: true }) : String(chunk)).split('\n');
    const last = pieces.pop() ?? '';
    for (const piece of pieces) {
      yield rest.length === 0 ? piece : rest.join('') + piece;
      rest = [];
    }
    if (last !== '') rest.push(last);
  }
}

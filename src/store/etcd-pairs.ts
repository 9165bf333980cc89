// Keys and values as etcd's JSON gateway writes them: base64, numbers as strings, zero left out.
import { Fault } from '#model/fault.ts';
import { type Answer, isAnswer } from './etcd-gateway.ts';

export interface Pair {
  readonly key: string;
  readonly text: string;
  /** Of the last change. */
  readonly revision: number;
  /** Of the etcd lease by which the key ends, in decimal digits; `0` for a key that stays. */
  readonly lease: string;
}

export const encode = (text: string): string => Buffer.from(text).toString('base64');

const decode = (text: unknown): string => Buffer.from(typeof text === 'string' ? text : '', 'base64').toString('utf8');

export function pairOf(raw: Answer): Pair {
  const lease = raw['lease'];
  return {
    key: decode(raw['key']),
    text: decode(raw['value']),
    revision: Number(raw['mod_revision']),
    lease: typeof lease === 'string' ? lease : '0',
  };
}

/** Of the answer to a range. */
export const pairsOf = (answer: Answer): Pair[] => (Array.isArray(answer['kvs']) ? answer['kvs'].filter(isAnswer).map(pairOf) : []);

/** Of the store when it answered. Fault `unavailable` for an answer without one. */
export function headRevision(answer: Answer): number {
  const header = answer['header'];
  const revision = isAnswer(header) ? Number(header['revision'] ?? 0) : Number.NaN;
  if (Number.isNaN(revision)) throw new Fault('unavailable', 'An answer of etcd has no revision');
  return revision;
}

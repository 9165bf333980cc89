// CNI_ARGS: pairs `KEY=VALUE` joined by semicolons, by which runtimes say whose attachment it is. Kubernetes runtimes pass
// IgnoreUnknown and K8S_*; IP and MAC are the conventional ones of older plugins (CNI CONVENTIONS.md, "CNI_ARGS").
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { parse } from '#api/parse.ts';
import { Fault } from '#model/fault.ts';
import type { Ip, Mac } from '#model/ip.ts';

export interface Arguments {
  /** Of the pod, when the runtime is Kubernetes'. */
  readonly namespace?: string;
  readonly pod?: string;
  /** Only runtimes of Kubernetes say it. */
  readonly podUid?: string;
  readonly ip?: Ip;
  readonly mac?: Mac;
}

const variable = 'CNI_ARGS';
const mostBytes = 16_384;
const ignored = new Set(['IgnoreUnknown', 'K8S_POD_INFRA_CONTAINER_ID']);

const flags: Readonly<Record<string, boolean>> = { '': false, '0': false, false: false, '1': true, true: true };

const wrong = (message: string): Fault => new Fault('invalid', `${variable}: ${message}`, { field: variable });
const shown = (text: string): string => JSON.stringify(text.slice(0, 80));

function pairs(text: string): Map<string, string> {
  if (text.length > mostBytes) throw wrong(`longer than ${mostBytes} characters`);
  const found = new Map<string, string>();
  for (const pair of text.split(';')) {
    if (pair === '') continue;
    const [, key, value] = /^([^=]+)=(.*)$/s.exec(pair) ?? [];
    if (key === undefined || value === undefined) throw wrong(`${shown(pair)} is not KEY=VALUE`);
    if (found.has(key)) throw wrong(`${shown(key)} is given twice`);
    found.set(key, value);
  }
  return found;
}

function ignoresUnknown(text: string): boolean {
  const flag = Object.hasOwn(flags, text.toLowerCase()) ? flags[text.toLowerCase()] : undefined;
  if (flag === undefined) throw wrong(`IgnoreUnknown is ${shown(text)}, expected 1 or 0`);
  return flag;
}

const schema = v.object({
  K8S_POD_NAMESPACE: v.exactOptional(field.alias),
  K8S_POD_NAME: v.exactOptional(field.alias),
  K8S_POD_UID: v.exactOptional(v.string()),
  IP: v.exactOptional(field.ip),
  MAC: v.exactOptional(field.mac),
});

/** Fault `invalid` with field `CNI_ARGS`: not pairs, a key twice, a value that cannot be, or an unknown key without IgnoreUnknown. */
export function parseArguments(text: string): Arguments {
  const found = pairs(text);
  const lax = ignoresUnknown(found.get('IgnoreUnknown') ?? '');
  const unknown = [...found.keys()].find((key) => !ignored.has(key) && !Object.hasOwn(schema.entries, key));
  if (unknown !== undefined && !lax) throw wrong(`unknown key ${shown(unknown)}; IgnoreUnknown=1 would permit it`);
  const given = Object.fromEntries([...found].filter(([, value]) => value !== ''));
  try {
    const { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: pod, K8S_POD_UID: podUid, IP: ip, MAC: mac } = parse(schema, given, variable);
    return {
      ...(namespace === undefined ? {} : { namespace }),
      ...(pod === undefined ? {} : { pod }),
      ...(podUid === undefined ? {} : { podUid }),
      ...(ip === undefined ? {} : { ip }),
      ...(mac === undefined ? {} : { mac }),
    };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw wrong(error.message);
  }
}

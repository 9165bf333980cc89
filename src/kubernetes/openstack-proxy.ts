// What of a Service's annotations only load balancers can do that take connections themselves (model/cloud-services.ts, ProxyWish), and
// what is said of them where one passes packets on as they are. Pure.
import type { ProxyWish } from '#model/cloud-services.ts';
import { Fault } from '#model/fault.ts';

export const prefix = 'loadbalancer.openstack.org/';
/** What an annotation says, by its name without the prefix. */
export type Said = (name: string) => string | undefined;

export const refused = (message: string): Fault => new Fault('unsupported', message);

/** Fault `unsupported`. */
export function isTrue(value: string | undefined, name: string): boolean {
  if (value === undefined || value === 'false') return false;
  if (value === 'true') return true;
  throw refused(`${name}: ${JSON.stringify(value.slice(0, 60))} is neither true nor false`);
}

const headers: Readonly<Record<string, ProxyWish['header']>> = { true: 'PROXY', v1: 'PROXY', v2: 'PROXYV2', false: undefined };
const algorithms: readonly NonNullable<ProxyWish['algorithm']>[] = ['ROUND_ROBIN', 'LEAST_CONNECTIONS', 'SOURCE_IP'];
const timeouts = {
  clientData: 'timeout-client-data',
  memberConnect: 'timeout-member-connect',
  memberData: 'timeout-member-data',
  tcpInspect: 'timeout-tcp-inspect',
} as const;
/** Octavia's own (octavia/common/constants.py): a year. */
const mostMs = 31_536_000_000;

export interface Further {
  readonly isSticky: boolean;
  /** 0: none. */
  readonly healthPort: number;
}

/** Undefined: nothing of it is asked for. Fault `unsupported` with the annotation's name. */
export function proxyOf(said: Said, { isSticky, healthPort }: Further): ProxyWish | undefined {
  const header = headerOf(said);
  const isForwardedFor = isTrue(said('x-forwarded-for'), `${prefix}x-forwarded-for`);
  if (header !== undefined && isForwardedFor)
    throw refused(`${prefix}x-forwarded-for: not together with proxy-protocol, as each says who the client is in a way of its own`);
  const certificate = certificateOf(said);
  const algorithm = algorithmOf(said);
  const limit = numberOf(said, 'connection-limit', { least: -1, most: 2_147_483_647 });
  const times = Object.fromEntries(
    Object.entries(timeouts).flatMap(([key, name]) => {
      const value = numberOf(said, name, { least: 0, most: mostMs });
      return value === undefined ? [] : [[key, value]];
    }),
  );
  const [flavor, zone] = [said('flavor-id'), said('availability-zone')];
  const wish: ProxyWish = {
    ...(header === undefined ? {} : { header }),
    ...(isForwardedFor ? { isForwardedFor } : {}),
    ...(certificate === undefined ? {} : { certificate }),
    ...(algorithm === undefined ? {} : { algorithm }),
    ...(isSticky ? { isSticky } : {}),
    ...(limit === undefined || limit === -1 ? {} : { connectionLimit: limit }),
    ...(Object.keys(times).length === 0 ? {} : { timeouts: times }),
    ...(flavor === undefined ? {} : { flavor }),
    ...(zone === undefined ? {} : { zone }),
    ...(healthPort > 0 ? { healthPort } : {}),
  };
  return Object.keys(wish).length === 0 ? undefined : wish;
}

function headerOf(said: Said): ProxyWish['header'] {
  const value = said('proxy-protocol') ?? 'false';
  if (Object.hasOwn(headers, value)) return headers[value];
  throw refused(`${prefix}proxy-protocol: ${JSON.stringify(value.slice(0, 60))} is none of true, v1, v2 and false`);
}

/** A secret or container of Barbican's by its address, as the cloud provider has it, or an id in whatever else Octavia keeps them. */
function certificateOf(said: Said): string | undefined {
  const name = 'default-tls-container-ref';
  const value = said(name);
  if (value === undefined || (value.length < 256 && /^(https?:\/\/[^\s?#]+\/(secrets|containers)\/)?[\w-]+$/.test(value))) return value;
  throw refused(
    `${prefix}${name}: ${JSON.stringify(value.slice(0, 60))} is no certificate's reference, as in https://HOST/v1/secrets/ID or containers/ID`,
  );
}

function algorithmOf(said: Said): ProxyWish['algorithm'] {
  const value = said('lb-method');
  const algorithm = algorithms.find((one) => one === value);
  if (value !== undefined && algorithm === undefined && value !== 'SOURCE_IP_PORT')
    throw refused(`${prefix}lb-method: ${JSON.stringify(value.slice(0, 60))} is none of ${algorithms.join(', ')} and SOURCE_IP_PORT`);
  return algorithm;
}

function numberOf(said: Said, name: string, { least, most }: { readonly least: number; readonly most: number }): number | undefined {
  const value = said(name);
  if (value === undefined) return undefined;
  const number = /^-?\d{1,12}$/.test(value) ? Number(value) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw refused(`${prefix}${name}: ${JSON.stringify(value.slice(0, 60))} is no number from ${least} to ${most}`);
}

const onlyByProxy = ['availability-zone', 'connection-limit', 'flavor-id', 'x-forwarded-for', ...Object.values(timeouts)] as const;

/** What is said where the load balancer passes packets on as they are, one sentence each. */
export function notPassedOf(said: Said, { isSticky, isForFew }: { readonly isSticky: boolean; readonly isForFew: boolean }): string[] {
  const method = said('lb-method') ?? 'SOURCE_IP_PORT';
  return [
    ...[...onlyByProxy, ...(method === 'SOURCE_IP_PORT' ? [] : ['lb-method'])]
      .filter((name) => said(name) !== undefined && said(name) !== 'false')
      .map((name) => `${prefix}${name} is not followed by provider ovn`),
    ...(isForFew && said('enable-health-monitor') === 'true'
      ? [`${prefix}enable-health-monitor: hosts let in the source ranges only, not probes`]
      : []),
    ...(isSticky ? ['sessionAffinity holds on each node for itself'] : []),
  ];
}

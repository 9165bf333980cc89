// Services and EndpointSlices of a cluster as services in our words: one for each cluster address and port, in front of the
// addresses that are ready. The slices say the ports, so named ports and a pod's own choice of number need no look at pods.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { protocol } from '#api/schemas.ts';
import { familyOf, type Ip } from '#model/ip.ts';
import type { Backend, Protocol, Service } from '#model/resources.ts';

const text = v.optional(v.nullable(v.string()));
const metadata = v.object({ namespace: v.string(), name: v.string(), labels: v.optional(v.record(v.string(), v.string()), {}) });
const service = v.object({
  metadata,
  spec: v.object({
    type: text,
    clusterIP: text,
    clusterIPs: v.optional(v.array(v.string())),
    ports: v.optional(v.array(v.object({ name: text, protocol: v.optional(protocol, 'tcp'), port: field.port })), []),
  }),
});
const slice = v.object({
  metadata,
  addressType: v.string(),
  endpoints: v.nullish(
    v.array(
      v.object({
        addresses: v.array(v.string()),
        conditions: v.optional(v.object({ ready: v.optional(v.nullable(v.boolean())) }), {}),
      }),
    ),
    [],
  ),
  ports: v.nullish(v.array(v.object({ name: text, protocol: v.optional(protocol, 'tcp'), port: v.optional(v.nullable(field.port)) })), []),
});

/** Somebody else serves services with this label. */
const proxyLabel = 'service.kubernetes.io/service-proxy-name';
const serviceLabel = 'kubernetes.io/service-name';

export interface ServiceFacts {
  readonly key: string;
  readonly ips: readonly Ip[];
  readonly ports: readonly { readonly name: string; readonly protocol: Protocol; readonly port: number }[];
}
export interface SliceFacts {
  /** Of the service it belongs to. */
  readonly service: string;
  readonly ips: readonly Ip[];
  readonly ports: readonly { readonly name: string; readonly protocol: Protocol; readonly port: number }[];
}

/** Kubernetes writes protocols in capitals. */
function lowered(item: unknown): unknown {
  if (Array.isArray(item)) return item.map(lowered);
  if (typeof item !== 'object' || item === null) return item;
  return Object.fromEntries(
    Object.entries(item).map(([key, value]): [string, unknown] => [
      key,
      key === 'protocol' && typeof value === 'string' ? value.toLowerCase() : lowered(value),
    ]),
  );
}

const ipsOf = (texts: readonly string[]): Ip[] =>
  texts.flatMap((one) => {
    const read = v.safeParse(field.ip, one);
    return read.success ? [read.output] : [];
  });

/** Undefined: it has no address of the cluster (headless, a name elsewhere), is served by somebody else, or cannot be read. */
export function readService(item: unknown): ServiceFacts | undefined {
  const read = v.safeParse(service, lowered(item));
  if (!read.success) return undefined;
  const { metadata: of, spec } = read.output;
  if (of.labels[proxyLabel] !== undefined || spec.type === 'ExternalName') return undefined;
  const ips = ipsOf(spec.clusterIPs ?? [spec.clusterIP ?? '']);
  if (ips.length === 0) return undefined;
  const ports = spec.ports.map(({ name, protocol: by, port }) => ({ name: name ?? '', protocol: by, port }));
  return { key: `${of.namespace}/${of.name}`, ips, ports };
}

/** Undefined: it belongs to no service, has no addresses of ours, or cannot be read. Absent readiness counts as ready. */
export function readSlice(item: unknown): SliceFacts | undefined {
  const read = v.safeParse(slice, lowered(item));
  if (!read.success) return undefined;
  const { metadata: of, addressType, endpoints, ports } = read.output;
  const name = of.labels[serviceLabel];
  if (name === undefined || (addressType !== 'IPv4' && addressType !== 'IPv6')) return undefined;
  return {
    service: `${of.namespace}/${name}`,
    // All addresses of one endpoint lead to the same place (EndpointSlice v1, "addresses"): the first is enough.
    ips: (endpoints ?? []).flatMap(({ addresses, conditions }) => (conditions.ready === false ? [] : ipsOf(addresses.slice(0, 1)))),
    ports: (ports ?? []).flatMap(({ name: of2, protocol: by, port }) =>
      typeof port === 'number' ? [{ name: of2 ?? '', protocol: by, port }] : [],
    ),
  };
}

/** One for each address and port of the service; backends sorted, each once. */
export function joinService({ key, ips, ports }: ServiceFacts, slices: readonly SliceFacts[]): Service[] {
  return ips.flatMap((ip) =>
    ports.map(({ name, protocol: by, port }): Service => {
      const backends = new Map<string, Backend>();
      for (const { ips: targets, ports: open } of slices) {
        const target = open.find((candidate) => candidate.name === name && candidate.protocol === by);
        if (target === undefined) continue;
        for (const one of targets)
          if (familyOf(one) === familyOf(ip)) backends.set(`${one} ${target.port}`, { ip: one, port: target.port });
      }
      const sorted = [...backends].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, backend]) => backend);
      return { key: `${key} ${ip} ${by} ${port}`, ip, protocol: by, port, backends: sorted };
    }),
  );
}

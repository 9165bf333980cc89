// Objects of a cluster in a cloud, as servers write them.
import type { Serving } from './openstack-service.ts';

export const plainServing: Serving = { isDefault: false, classes: {} };

export interface Item {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [field: string]: unknown };
  readonly [field: string]: unknown;
}

export const nodeOf = (
  index: number,
  changes: { readonly annotations?: object; readonly labels?: object; readonly ready?: string } = {},
): Item => ({
  metadata: {
    name: `node${index}`,
    resourceVersion: '7',
    creationTimestamp: '2026-01-01T00:00:00Z',
    labels: changes.labels ?? {},
    annotations: changes.annotations ?? { 'causeway.dev/carry': 'vxlan', 'causeway.dev/pod-cidrs': '10.244.0.0/16' },
  },
  spec: { podCIDR: `10.244.${index}.0/24`, podCIDRs: [`10.244.${index}.0/24`] },
  status: {
    addresses: [{ type: 'InternalIP', address: `10.20.0.1${index}` }],
    conditions: [{ type: 'Ready', status: changes.ready ?? 'True' }],
  },
});

const prefix = 'loadbalancer.openstack.org/';

/** Of type LoadBalancer and Octavia's unless said; `annotations` without their prefix where they have none. */
export const serviceOf = (
  name: string,
  spec: object = {},
  annotations: Readonly<Record<string, string>> = {},
  status: object = {},
): Item => ({
  metadata: {
    namespace: 'shop',
    name,
    uid: `0000-1111-2222-${name}`,
    resourceVersion: '9',
    annotations: Object.fromEntries(Object.entries(annotations).map(([key, value]) => [key.includes('/') ? key : prefix + key, value])),
  },
  spec: {
    type: 'LoadBalancer',
    loadBalancerClass: 'causeway.dev/octavia',
    clusterIP: '10.96.0.7',
    clusterIPs: ['10.96.0.7'],
    ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080, nodePort: 30080 }],
    ...spec,
  },
  status,
});

export const sliceOf = (service: string, nodes: Readonly<Record<string, boolean>>): Item => ({
  metadata: { namespace: 'shop', name: `${service}-1`, labels: { 'kubernetes.io/service-name': service } },
  addressType: 'IPv4',
  ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
  endpoints: Object.entries(nodes).map(([nodeName, ready], index) => ({
    addresses: [`10.244.9.${index + 1}`],
    conditions: { ready },
    nodeName,
  })),
});

export const keyed = (...items: readonly Item[]): Map<string, unknown> =>
  new Map(
    items.map((item) => [`${item.metadata.namespace === undefined ? '' : `${item.metadata.namespace}/`}${item.metadata.name}`, item]),
  );

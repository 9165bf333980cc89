// An API server of nothing but many services, for benchmarks: it lists and watches what the two sides read, so that neither has to
// share the machine with a whole control plane. Both sides get the same answers, in the version that both know.
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { text } from 'node:stream/consumers';

export const endpointsPerService = 10;
/** All of these are answered by the machine itself. */
export const endpointRange = '10.128.0.0/9';
export const port = 8080;
/** Of the machine itself, outside of the range of pods. */
export const nodeAddress = '172.31.213.1';
/** The last in every order: when it is served all are. */
export const probe = { name: 'zz-probe', ip: '10.96.255.254' } as const;

const address = (base: number, offset: number): string => {
  const value = base + offset;
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
};
const endpointBase = 10 * 2 ** 24 + 128 * 2 ** 16 + 256;
const serviceBase = 10 * 2 ** 24 + 96 * 2 ** 16 + 16;
/** Where the probe's only endpoint is after the change of that number. */
export const probeEndpoint = (change: number): string => address(10 * 2 ** 24 + 250 * 2 ** 16 + 1, change);

const endpoints = (index: number): string[] =>
  Array.from({ length: endpointsPerService }, (_, offset) => address(endpointBase, index * endpointsPerService + offset));

const slicePath = '/apis/discovery.k8s.io/v1beta1/endpointslices';
const kinds: Readonly<Record<string, { readonly kind: string; readonly apiVersion: string }>> = {
  '/api/v1/nodes': { kind: 'NodeList', apiVersion: 'v1' },
  '/api/v1/services': { kind: 'ServiceList', apiVersion: 'v1' },
  [slicePath]: { kind: 'EndpointSliceList', apiVersion: 'discovery.k8s.io/v1beta1' },
  // There are none of these.
  '/api/v1/pods': { kind: 'PodList', apiVersion: 'v1' },
  '/api/v1/namespaces': { kind: 'NamespaceList', apiVersion: 'v1' },
  '/apis/networking.k8s.io/v1/networkpolicies': { kind: 'NetworkPolicyList', apiVersion: 'networking.k8s.io/v1' },
};

const meta = (name: string, more: object = {}): object => ({
  name,
  namespace: 'default',
  uid: name,
  resourceVersion: '5',
  creationTimestamp: '2026-01-01T00:00:00Z',
  ...more,
});
const service = (name: string, ip: string): object => ({
  kind: 'Service',
  apiVersion: 'v1',
  metadata: meta(name),
  spec: {
    type: 'ClusterIP',
    clusterIP: ip,
    clusterIPs: [ip],
    ports: [{ protocol: 'TCP', port: 80, targetPort: port }],
    sessionAffinity: 'None',
  },
  status: { loadBalancer: {} },
});
const slice = (of: string, ips: readonly string[], resourceVersion = '5'): object => ({
  kind: 'EndpointSlice',
  apiVersion: 'discovery.k8s.io/v1beta1',
  metadata: meta(`${of}-1`, { resourceVersion, labels: { 'kubernetes.io/service-name': of } }),
  addressType: 'IPv4',
  endpoints: ips.map((ip) => ({ addresses: [ip], conditions: { ready: true }, topology: { 'kubernetes.io/hostname': 'other' } })),
  ports: [{ name: '', protocol: 'TCP', port }],
});
const node = {
  kind: 'Node',
  apiVersion: 'v1',
  metadata: {
    ...meta('node'),
    namespace: undefined,
    labels: { 'kubernetes.io/hostname': 'node' },
    annotations: {} as Readonly<Record<string, string>>,
  },
  spec: { podCIDR: '10.128.0.0/24', podCIDRs: ['10.128.0.0/24'] },
  status: { addresses: [{ type: 'InternalIP', address: nodeAddress }], conditions: [{ type: 'Ready', status: 'True' }] },
};

export class ServiceCluster implements Disposable {
  readonly #items: ReadonlyMap<string, readonly object[]>;
  readonly #watches: { readonly path: string; readonly response: ServerResponse }[] = [];
  readonly #server: Server;
  #node = node;
  #version = 10;
  /** As the watches were told. */
  #changed = '';

  /** `tls`: PEM of a key and a certificate for 127.0.0.1. */
  constructor(services: number, tls: { readonly key: string; readonly cert: string }) {
    const names = Array.from({ length: services }, (_, index) => `s${String(index).padStart(6, '0')}`);
    this.#items = new Map<string, readonly object[]>([
      ['/api/v1/nodes', [node]],
      ['/api/v1/services', [...names.map((name, index) => service(name, address(serviceBase, index))), service(probe.name, probe.ip)]],
      [slicePath, [...names.map((name, index) => slice(name, endpoints(index))), slice(probe.name, [probeEndpoint(0)])]],
    ]);
    this.#server = createServer(tls, (request, response) => {
      const url = new URL(request.url ?? '', 'http://api');
      const path = url.pathname;
      const kind = kinds[path];
      response.setHeader('content-type', 'application/json');
      if (path.startsWith('/api/v1/nodes/node')) void this.#answerNode(request, response);
      else if (request.method !== 'GET') void text(request).then((body) => response.writeHead(201).end(body));
      else if (kind === undefined) response.writeHead(404).end('{}');
      else if (url.searchParams.has('watch')) {
        response.writeHead(200).flushHeaders();
        this.#watches.push({ path, response });
        // Changed since the listing.
        if (path === slicePath && Number(url.searchParams.get('resourceVersion')) < this.#version) response.write(this.#changed);
      } else response.end(JSON.stringify({ ...kind, ...this.#page(path, url.searchParams) }));
    });
  }

  /** In pages for who asks for them, but not of version 0: that is answered from the server's cache, whole (apiserver, cacher.go). */
  #page(path: string, query: URLSearchParams): object {
    const items = this.#items.get(path) ?? [];
    const from = Number(query.get('continue') ?? 0);
    const end = query.get('resourceVersion') === '0' ? items.length : from + Number(query.get('limit') ?? items.length);
    const rest = items.length - end;
    const more = rest > 0 ? { continue: String(end), remainingItemCount: rest } : {};
    return { metadata: { resourceVersion: '10', ...more }, items: items.slice(from, end) };
  }

  /** A node keeps the annotations and conditions that somebody writes. */
  async #answerNode(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    if (request.method === 'PATCH') {
      const { metadata, status } = JSON.parse(body) as Pick<Partial<typeof node>, 'metadata' | 'status'>;
      this.#node = {
        ...this.#node,
        metadata: { ...this.#node.metadata, annotations: { ...this.#node.metadata.annotations, ...metadata?.annotations } },
        status: { ...this.#node.status, conditions: [...this.#node.status.conditions, ...(status?.conditions ?? [])] },
      };
    }
    response.end(JSON.stringify(this.#node));
  }

  /** Where it listens on localhost. */
  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    const where = this.#server.address();
    return `https://127.0.0.1:${typeof where === 'object' && where !== null ? where.port : 0}`;
  }

  /** Gives the probe another endpoint. */
  change(number: number): void {
    const object = slice(probe.name, [probeEndpoint(number)], String((this.#version += 1)));
    this.#changed = `${JSON.stringify({ type: 'MODIFIED', object })}\n`;
    for (const { path, response } of this.#watches) if (path === slicePath) response.write(this.#changed);
  }

  [Symbol.dispose](): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

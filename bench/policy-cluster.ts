// A large cluster as its API server tells of it, for the bench of policy: lists, and one watch of pods that changes are told by.
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';

export const namespaces = 100;
export const perNamespace = 100;
export const policiesPer = 10;

/** Pod `index` is in namespace `index % namespaces`. */
export const ownerOf = (index: number): string => `space-${index % namespaces}/pod-${index}`;
export type Labels = Readonly<Record<string, string>>;
export const labelsOf = (pod: number): Labels => ({ app: `app-${Math.floor(pod / namespaces) % policiesPer}` });

/** Ten policies in each namespace, one for each application, that let in its ten pods and whoever is called a friend anywhere. */
export function policySpecs(): { readonly namespace: string; readonly name: string; readonly spec: object }[] {
  return Array.from({ length: namespaces * policiesPer }, (_, index) => {
    const [space, number] = [Math.floor(index / policiesPer), index % policiesPer];
    const app = { matchLabels: { app: `app-${number}` } };
    const friends = { namespaceSelector: {}, podSelector: { matchLabels: { friend: `of-${space}` } } };
    const spec = { podSelector: app, ingress: [{ from: [{ podSelector: app }, friends] }] };
    return { namespace: `space-${space}`, name: `allow-${number}`, spec };
  });
}

export class ClusterApi implements AsyncDisposable {
  readonly #addressOf: (pod: number) => string;
  #revision = 1000;
  #pods: ServerResponse | undefined;
  readonly #server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://api');
    response.writeHead(200).flushHeaders();
    if (!searchParams.has('watch')) response.end(JSON.stringify(this.#list(pathname)));
    else if (pathname.endsWith('/pods')) this.#pods = response;
  });

  constructor(addressOf: (pod: number) => string) {
    this.#addressOf = addressOf;
  }

  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  get isWatched(): boolean {
    return this.#pods !== undefined;
  }

  /** Tells whoever watches pods that this one has other labels. */
  tell(pod: number, labels: Labels): void {
    this.#revision += 1;
    this.#pods?.write(`${JSON.stringify({ type: 'MODIFIED', object: this.#pod(pod, labels) })}\n`);
  }

  #pod(index: number, labels: Labels): object {
    const [namespace, name] = ownerOf(index).split('/');
    return {
      metadata: { namespace, name, labels, resourceVersion: String(this.#revision) },
      spec: { containers: [{ name: 'box' }] },
      status: { phase: 'Running', podIP: this.#addressOf(index), podIPs: [{ ip: this.#addressOf(index) }] },
    };
  }

  #list(path: string): object {
    const metadata = { resourceVersion: String(this.#revision) };
    const count = { '/api/v1/pods': namespaces * perNamespace, '/api/v1/namespaces': namespaces }[path] ?? 0;
    const all = Array.from({ length: count }, (_, index) => index);
    if (path.endsWith('/pods')) return { metadata, items: all.map((index) => this.#pod(index, labelsOf(index))) };
    if (path.endsWith('/namespaces'))
      return {
        metadata,
        items: all.map((index) => ({ metadata: { ...metadata, name: `space-${index}`, labels: { team: `team-${index % 7}` } } })),
      };
    if (path !== '/apis/networking.k8s.io/v1/networkpolicies') return { metadata, items: [] };
    const items = policySpecs().map(({ spec, ...names }) => ({ metadata: { ...metadata, ...names, generation: 1 }, spec }));
    return { metadata, items };
  }
}

// For tests: a server that keeps Blocks and their versions as that of the Kubernetes API does.
import { createServer, type Server } from 'node:http';
import { text } from 'node:stream/consumers';
import * as v from 'valibot';
import { listening } from './api.fixture.ts';

export interface Kept {
  readonly metadata: { readonly name: string; readonly resourceVersion: string; readonly creationTimestamp: string };
  readonly spec: unknown;
}

const versioned = v.object({ name: v.optional(v.string()), resourceVersion: v.optional(v.string()) });
const request = v.object({ metadata: v.optional(versioned, {}), spec: v.optional(v.unknown()), preconditions: v.optional(versioned, {}) });

/** Blocks by name, each with the version of its last change (Kubernetes API concepts, "Resource versions"). */
export class BlocksApi {
  objects: Map<string, Kept> = new Map();
  revision = 1000;
  /** Names of Nodes. */
  readonly nodes: Set<string> = new Set();
  /** Names of Nodes that pods are bound to. */
  readonly pods: Set<string> = new Set();
  readonly #server: Server = createServer((asked, response) => {
    void this.#answer(asked.method ?? '', asked.url ?? '', asked).then(({ status, body }) =>
      response.writeHead(status).end(JSON.stringify(body)),
    );
  });

  listen(): Promise<string> {
    return listening(this.#server);
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(method: string, url: string, body: NodeJS.ReadableStream): Promise<{ status: number; body: unknown }> {
    const { pathname, searchParams } = new URL(url, 'http://api');
    if (pathname === '/api/v1/pods') {
      const bound = [...this.pods].filter((one) => searchParams.get('fieldSelector') === `spec.nodeName=${one}`);
      return { status: 200, body: { metadata: { resourceVersion: '1' }, items: bound.map(() => ({ status: { phase: 'Running' } })) } };
    }
    const [, node] = /^\/api\/v1\/nodes\/(.+)$/.exec(pathname) ?? [];
    if (node !== undefined) return { status: this.nodes.has(node) ? 200 : 404, body: {} };
    const name = pathname.split('/')[5] ?? '';
    const said = v.parse(request, JSON.parse((await text(body)) || '{}'));
    const found = this.objects.get(name);
    if (method === 'GET' && name === '')
      return { status: 200, body: { metadata: { resourceVersion: String(this.revision) }, items: [...this.objects.values()] } };
    const { name: created = '' } = said.metadata;
    if (method === 'POST') return this.#put(created, said.spec, this.objects.has(created));
    if (found === undefined) return { status: 404, body: { message: 'not found' } };
    if (method === 'GET') return { status: 200, body: found };
    const { resourceVersion: version } = found.metadata;
    if (method === 'PUT') return this.#put(name, said.spec, said.metadata.resourceVersion !== version);
    if (said.preconditions.resourceVersion !== version) return { status: 409, body: { message: 'changed' } };
    this.revision += 1;
    this.objects.delete(name);
    return { status: 200, body: {} };
  }

  #put(name: string, spec: unknown, refused: boolean): { status: number; body: unknown } {
    if (refused) return { status: 409, body: { message: 'is there, or changed' } };
    this.revision += 1;
    const kept: Kept = { metadata: { name, resourceVersion: String(this.revision), creationTimestamp: '2026-01-01T00:00:00Z' }, spec };
    this.objects.set(name, kept);
    return { status: 200, body: kept };
  }
}

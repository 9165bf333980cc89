// What the commands use of the API's client. Only its type: the client itself is loaded when a command connects, and tests
// stand in for it.
import type { Client as ApiClient, CreateRequests, ListOptions } from '#api/client.ts';
import type { ResourceKind, Resources } from '#model/resources.ts';

export type Bodies = CreateRequests;

export type Client = Pick<
  ApiClient,
  | 'all'
  | 'get'
  | 'create'
  | 'replace'
  | 'remove'
  | 'putBgp'
  | 'putSecret'
  | 'createToken'
  | 'tokens'
  | 'removeToken'
  | 'certificates'
  | 'revokeCertificate'
  | 'cloud'
  | 'version'
>;

const order = new Intl.Collator('en', { numeric: true });

/** Everything of a kind by name, `node-2` before `node-10`; the API's own order is that of random ids. */
export async function all<K extends ResourceKind>(client: Client, kind: K, options: ListOptions = {}): Promise<readonly Resources[K][]> {
  return (await client.all(kind, options)).toSorted((a, b) => order.compare(a.name, b.name));
}

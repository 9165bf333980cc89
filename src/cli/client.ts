// What the commands need of the controller's API. Only types; api/client.ts has one that speaks HTTP.
import type { NewToken, TokenRecord, VersionAnswer } from '#api/answers.ts';
import type { NetworkRequest } from '#api/local.ts';
import type { AddPoolRequest, ExposureRequest, TenantRequest, TokenRequest } from '#api/requests.ts';
import type { ResourceKind, Resources } from '#model/resources.ts';

export interface Bodies {
  readonly tenants: TenantRequest;
  readonly networks: NetworkRequest;
  readonly pools: AddPoolRequest;
  readonly exposures: ExposureRequest;
}

export interface Client {
  list<K extends ResourceKind>(kind: K, filter?: Readonly<Record<string, string>>): Promise<readonly Resources[K][]>;
  get<K extends ResourceKind>(kind: K, idOrName: string): Promise<Resources[K]>;
  create<K extends keyof Bodies>(kind: K, body: Bodies[K]): Promise<Resources[K]>;
  /** With the record's revision as condition: Fault `conflict` when it has changed since it was read. */
  replace<K extends ResourceKind>(kind: K, body: Resources[K]): Promise<Resources[K]>;
  remove(kind: ResourceKind, idOrName: string): Promise<void>;
  createToken(request: TokenRequest): Promise<NewToken>;
  tokens(): Promise<readonly TokenRecord[]>;
  removeToken(id: string): Promise<void>;
  version(): Promise<VersionAnswer>;
}

// What the commands use of the API's client. Only a type: the client itself is loaded when a command connects, and tests
// stand in for it.
import type { Client as ApiClient, CreateRequests, ReplaceableKind } from '#api/client.ts';
import type { ResourceKind } from '#model/resources.ts';

export type Bodies = CreateRequests;
export type Replaceable = ReplaceableKind;
export type Removable = Exclude<ResourceKind, 'blocks' | 'endpoints'>;

export type Client = Pick<
  ApiClient,
  | 'all'
  | 'get'
  | 'create'
  | 'replace'
  | 'remove'
  | 'createToken'
  | 'tokens'
  | 'removeToken'
  | 'certificates'
  | 'revokeCertificate'
  | 'version'
>;

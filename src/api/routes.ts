// The table of everything that can be asked of the controller: method, path, who may, what goes in and what comes out. The
// server's routes, the OpenAPI document and the tests of who may do what are all read from it.
import * as v from 'valibot';
import type { Cidr } from '#model/ip.ts';
import type { Endpoint, Exposure, Host, Network, Pool, ResourceKind, Resources, Tenant } from '#model/resources.ts';
import * as answers from './answers.ts';
import * as field from './fields.ts';
import type { NetworkRequest } from './local.ts';
import type { Schema } from './parse.ts';
import * as requests from './requests.ts';
import { schemas } from './schemas.ts';

/** `anyone` needs no credentials; `tenant` is a token bound to one tenant; `host` a host's certificate. */
export type Access = 'anyone' | 'admin' | 'operator' | 'viewer' | 'tenant' | 'host';

export interface Route<Query, Body> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** With OpenAPI's `{parameters}`. */
  readonly path: string;
  readonly summary: string;
  readonly access: readonly Access[];
  readonly query: Schema<Query>;
  /** `noBody` where there is none. */
  readonly body: Schema<Body>;
  /** Absent: 204, nothing comes back. */
  readonly answer?: Schema<unknown>;
  readonly status: 200 | 201 | 204;
  /** `required`: without If-Match 428; `optional`: looked at when there is one. */
  readonly ifMatch?: 'required' | 'optional';
  /** The answer is NDJSON without end. */
  readonly stream?: true;
}

export interface ListQuery {
  readonly limit: number;
  readonly after?: string;
  readonly network?: string;
  readonly host?: string;
}
const digits = (most: number): Schema<number> =>
  v.pipe(v.string(), v.regex(/^[0-9]{1,16}$/, 'expected a number'), v.transform(Number), v.maxValue(most, `expected at most ${most}`));
const listQuery: Schema<ListQuery> = v.strictObject({
  limit: v.optional(v.pipe(digits(1000), v.minValue(1, 'expected 1 to 1000')), '100'),
  after: v.exactOptional(field.anyId),
  network: v.exactOptional(field.anyId),
  host: v.exactOptional(field.name),
});
export interface WatchQuery {
  readonly host?: string;
  readonly since?: number;
  readonly epoch?: string;
}
const watchQuery: Schema<WatchQuery> = v.strictObject({
  host: v.exactOptional(field.name),
  since: v.exactOptional(digits(Number.MAX_SAFE_INTEGER)),
  epoch: v.exactOptional(field.anyId),
});
export type NoQuery = Readonly<Record<string, never>>;
const none: Schema<NoQuery> = v.pipe(
  v.strictObject({}),
  v.transform((): NoQuery => ({})),
);
export const noBody: Schema<unknown> = v.unknown();

const writers: readonly Access[] = ['admin', 'operator', 'tenant'];
const staff: readonly Access[] = ['admin', 'operator'];
const readers: readonly Access[] = ['admin', 'operator', 'viewer', 'tenant', 'host'];

type ReadRoutes = {
  readonly [K in ResourceKind as `list-${K}`]: Route<ListQuery, unknown>;
} & { readonly [K in ResourceKind as `get-${K}`]: Route<NoQuery, unknown> };

/** Of the installation as a whole, not of a tenant. */
const installation: readonly Access[] = ['admin', 'operator', 'viewer', 'host'];

const list = (kind: ResourceKind, access = readers): Route<ListQuery, unknown> => ({
  method: 'GET',
  path: `/v1/${kind}`,
  summary: `List ${kind}, a page at a time`,
  access,
  query: listQuery,
  body: noBody,
  answer: answers.pageOf<Resources[ResourceKind]>(schemas[kind]),
  status: 200,
});
const get = (kind: ResourceKind, access = readers): Route<NoQuery, unknown> => ({
  method: 'GET',
  path: `/v1/${kind}/{id}`,
  summary: `One of ${kind} by id or name; ETag is its revision`,
  access,
  query: none,
  body: noBody,
  answer: schemas[kind],
  status: 200,
});
const change = <Body>(
  method: 'POST' | 'PUT',
  path: string,
  {
    summary,
    access,
    body,
    answer,
    ...rest
  }: Pick<Route<NoQuery, Body>, 'summary' | 'access' | 'ifMatch'> & {
    body: Schema<Body>;
    answer: Schema<unknown>;
  },
): Route<NoQuery, Body> => ({ method, path, summary, access, query: none, body, answer, status: method === 'POST' ? 201 : 200, ...rest });
const remove = (path: string, summary: string, access: readonly Access[]): Route<NoQuery, unknown> => ({
  method: 'DELETE',
  path,
  summary,
  access,
  query: none,
  body: noBody,
  status: 204,
  ifMatch: 'optional',
});

export interface Routes extends ReadRoutes {
  readonly 'create-network': Route<NoQuery, NetworkRequest>;
  readonly 'replace-network': Route<NoQuery, Network>;
  readonly 'delete-network': Route<NoQuery, unknown>;
  readonly 'add-pool': Route<NoQuery, requests.AddPoolRequest>;
  readonly 'propose-pool': Route<NoQuery, requests.ProposeRequest>;
  readonly 'replace-pool': Route<NoQuery, Pool>;
  readonly 'delete-pool': Route<NoQuery, unknown>;
  readonly 'claim-block': Route<NoQuery, requests.ClaimRequest>;
  readonly 'release-block': Route<NoQuery, unknown>;
  readonly 'set-port-groups': Route<NoQuery, requests.PortGroupsRequest>;
  readonly 'ask-loan': Route<NoQuery, requests.LoanRequest>;
  readonly 'settle-loan': Route<NoQuery, requests.LoanSettlement>;
  readonly 'forget-loan': Route<NoQuery, unknown>;
  readonly 'put-endpoint': Route<NoQuery, requests.EndpointRequest>;
  readonly 'delete-endpoint': Route<{ readonly sequence?: number }, unknown>;
  readonly 'batch-endpoints': Route<NoQuery, { puts: unknown[]; deletes: { id: string; sequence?: number }[] }>;
  readonly 'create-exposure': Route<NoQuery, requests.ExposureRequest>;
  readonly 'replace-exposure': Route<NoQuery, Exposure>;
  readonly 'delete-exposure': Route<NoQuery, unknown>;
  readonly 'put-bgp': Route<NoQuery, requests.BgpRequest>;
  readonly 'delete-bgp': Route<NoQuery, unknown>;
  readonly 'put-secret': Route<NoQuery, requests.SecretRequest>;
  readonly 'delete-secret': Route<NoQuery, unknown>;
  readonly 'read-secret': Route<NoQuery, unknown>;
  readonly 'create-tenant': Route<NoQuery, requests.TenantRequest>;
  readonly 'replace-tenant': Route<NoQuery, Tenant>;
  readonly 'delete-tenant': Route<NoQuery, unknown>;
  readonly 'replace-host': Route<NoQuery, Host>;
  readonly 'delete-host': Route<NoQuery, unknown>;
  readonly 'report-host': Route<NoQuery, requests.Report>;
  readonly 'rotate-certificate': Route<NoQuery, requests.RotateRequest>;
  readonly join: Route<NoQuery, requests.JoinRequest>;
  readonly 'create-token': Route<NoQuery, requests.TokenRequest>;
  readonly 'list-tokens': Route<NoQuery, unknown>;
  readonly 'delete-token': Route<NoQuery, unknown>;
  readonly 'list-certificates': Route<NoQuery, unknown>;
  readonly 'revoke-certificate': Route<NoQuery, unknown>;
  readonly watch: Route<WatchQuery, unknown>;
  readonly 'read-cloud': Route<NoQuery, unknown>;
  readonly version: Route<NoQuery, unknown>;
}
export type Operation = keyof Routes;

const sequenceQuery: Schema<{ readonly sequence?: number }> = v.strictObject({
  sequence: v.exactOptional(digits(Number.MAX_SAFE_INTEGER)),
});
const hostToo = (access: readonly Access[]): readonly Access[] => [...access, 'host'];
const proposal: Schema<{ cidr: Cidr }> = answers.proposal;
const endpoint: Schema<Endpoint> = schemas.endpoints;

export const routes: Routes = {
  'list-tenants': list('tenants'),
  'list-hosts': list('hosts'),
  'list-networks': list('networks'),
  'list-pools': list('pools'),
  'list-blocks': list('blocks'),
  'list-endpoints': list('endpoints'),
  'list-exposures': list('exposures'),
  'list-bgp': list('bgp', installation),
  'list-secrets': list('secrets', installation),
  'get-tenants': get('tenants'),
  'get-hosts': get('hosts'),
  'get-networks': get('networks'),
  'get-pools': get('pools'),
  'get-blocks': get('blocks'),
  'get-endpoints': get('endpoints'),
  'get-exposures': get('exposures'),
  'get-bgp': get('bgp', installation),
  'get-secrets': get('secrets', installation),
  'create-network': change('POST', '/v1/networks', {
    summary: 'Create a network and its pools in one step; what is left out is chosen',
    access: hostToo(writers),
    body: requests.networkRequest,
    answer: schemas.networks,
  }),
  'replace-network': change('PUT', '/v1/networks/{id}', {
    summary: 'Change name, labels, mtu or attachable',
    access: hostToo(writers),
    body: schemas.networks,
    answer: schemas.networks,
    ifMatch: 'required',
  }),
  'delete-network': remove(
    '/v1/networks/{id}',
    'Delete a network without endpoints, with its pools, blocks and exposures',
    hostToo(writers),
  ),
  'add-pool': change('POST', '/v1/pools', {
    summary: 'Add a pool to a network',
    access: hostToo(writers),
    body: requests.addPoolRequest,
    answer: schemas.pools,
  }),
  'propose-pool': {
    ...change('POST', '/v1/pools:propose', {
      summary: 'A free subnet, not reserved by asking',
      access: hostToo(writers),
      body: requests.proposeRequest,
      answer: proposal,
    }),
    status: 200,
  },
  'replace-pool': change('PUT', '/v1/pools/{id}', {
    summary: 'Change name, labels, range, gateway or reserved',
    access: writers,
    body: schemas.pools,
    answer: schemas.pools,
    ifMatch: 'required',
  }),
  'delete-pool': remove('/v1/pools/{id}', 'Delete a pool without blocks and endpoints', writers),
  'claim-block': change('POST', '/v1/blocks', {
    summary: 'Claim a free block of a pool for the host that asks',
    access: ['host'],
    body: requests.claimRequest,
    answer: schemas.blocks,
  }),
  'release-block': remove('/v1/blocks/{id}', 'Give a block without endpoints and loans back', ['host']),
  'set-port-groups': change('PUT', '/v1/blocks/{id}/groups', {
    summary: "Choose the security groups of one address's port in the cloud, or give it back those of the network",
    access: ['host'],
    body: requests.portGroupsRequest,
    answer: schemas.blocks,
  }),
  'ask-loan': change('POST', '/v1/blocks/{id}/loans', {
    summary: "Ask the block's host for one address",
    access: ['host'],
    body: requests.loanRequest,
    answer: schemas.blocks,
  }),
  'settle-loan': {
    ...change('POST', '/v1/blocks/{id}/loans/{loan}', {
      summary: "Grant or refuse (the block's host), or return (the borrower)",
      access: ['host'],
      body: requests.loanSettlement,
      answer: schemas.blocks,
    }),
    status: 200,
  },
  'forget-loan': remove('/v1/blocks/{id}/loans/{loan}', 'Remove a refused or returned loan', ['host']),
  'put-endpoint': change('PUT', '/v1/endpoints/{id}', {
    summary: 'Publish an endpoint of the host that asks',
    access: ['host'],
    body: requests.endpointRequest,
    answer: endpoint,
    ifMatch: 'optional',
  }),
  'delete-endpoint': {
    ...remove('/v1/endpoints/{id}', 'Remove an endpoint; absent already is success', ['host', ...staff]),
    query: sequenceQuery,
  },
  'batch-endpoints': {
    ...change('POST', '/v1/endpoints:batch', {
      summary: 'Publish and remove up to 500 endpoints of the host that asks; a result for each',
      access: ['host'],
      body: requests.batchRequest,
      answer: answers.batchAnswer,
    }),
    status: 200,
  },
  'create-exposure': change('POST', '/v1/exposures', {
    summary: 'Open a port of an endpoint to the outside',
    access: writers,
    body: requests.exposureRequest,
    answer: schemas.exposures,
  }),
  'replace-exposure': change('PUT', '/v1/exposures/{id}', {
    summary: 'Change an exposure',
    access: writers,
    body: schemas.exposures,
    answer: schemas.exposures,
    ifMatch: 'required',
  }),
  'delete-exposure': remove('/v1/exposures/{id}', 'Close an exposure', writers),
  'put-bgp': change('PUT', '/v1/bgp/{id}', {
    summary: "Make or replace one of Calico's resources of BGP; its id is the sort in lower case, a point and the name",
    access: staff,
    body: requests.bgpRequest,
    answer: schemas.bgp,
    ifMatch: 'optional',
  }),
  'delete-bgp': remove('/v1/bgp/{id}', "Remove one of Calico's resources of BGP", staff),
  'put-secret': change('PUT', '/v1/secrets/{id}', {
    summary: 'Make or replace the texts of a secret, which are shown to nobody but the hosts that need them',
    access: staff,
    body: requests.secretRequest,
    answer: schemas.secrets,
    ifMatch: 'optional',
  }),
  'delete-secret': remove('/v1/secrets/{id}', 'Remove a secret', staff),
  'read-secret': {
    method: 'GET',
    path: '/v1/secrets/{id}/texts',
    summary: 'The texts of a secret that the host which asks needs',
    access: ['host'],
    query: none,
    body: noBody,
    answer: answers.secretTexts,
    status: 200,
  },
  'create-tenant': change('POST', '/v1/tenants', {
    summary: 'Create a tenant',
    access: staff,
    body: requests.tenantRequest,
    answer: schemas.tenants,
  }),
  'replace-tenant': change('PUT', '/v1/tenants/{id}', {
    summary: 'Change description or labels',
    access: staff,
    body: schemas.tenants,
    answer: schemas.tenants,
    ifMatch: 'required',
  }),
  'delete-tenant': remove('/v1/tenants/{id}', 'Delete a tenant without networks', staff),
  'replace-host': change('PUT', '/v1/hosts/{id}', {
    summary: "Change a host's labels",
    access: staff,
    body: schemas.hosts,
    answer: schemas.hosts,
    ifMatch: 'required',
  }),
  'delete-host': remove('/v1/hosts/{id}', 'Remove a host that does not return: its certificates, endpoints and blocks', staff),
  'report-host': change('PUT', '/v1/hosts/{id}/report', {
    summary: 'What a host says of itself',
    access: ['host'],
    body: requests.report,
    answer: schemas.hosts,
  }),
  'rotate-certificate': change('POST', '/v1/hosts/{id}/certificate', {
    summary: 'A new certificate for the host that asks',
    access: ['host'],
    body: requests.rotateRequest,
    answer: answers.certificateAnswer,
  }),
  join: change('POST', '/v1/join', {
    summary: 'Become a host, with a one-time token',
    access: ['anyone'],
    body: requests.joinRequest,
    answer: answers.certificateAnswer,
  }),
  'create-token': change('POST', '/v1/tokens', {
    summary: 'Create a join token or an API token; the secret is shown this once',
    access: ['admin'],
    body: requests.tokenRequest,
    answer: answers.newToken,
  }),
  'list-tokens': {
    method: 'GET',
    path: '/v1/tokens',
    summary: 'List tokens, without their secrets',
    access: ['admin'],
    query: none,
    body: noBody,
    answer: answers.pageOf(answers.tokenRecord),
    status: 200,
  },
  'delete-token': { ...remove('/v1/tokens/{id}', 'Delete a token; it is refused from now on', ['admin']) },
  'list-certificates': {
    method: 'GET',
    path: '/v1/certificates',
    summary: 'List certificates issued to hosts',
    access: ['admin'],
    query: none,
    body: noBody,
    answer: answers.pageOf(answers.certificateRecord),
    status: 200,
  },
  'revoke-certificate': remove('/v1/certificates/{id}', 'Revoke a certificate; connections that use it are cut', ['admin']),
  watch: {
    method: 'GET',
    path: '/v1/watch',
    summary: 'Everything, then every change; with host only what that host needs',
    access: readers,
    query: watchQuery,
    body: noBody,
    status: 200,
    stream: true,
  },
  'read-cloud': {
    method: 'GET',
    path: '/v1/cloud',
    summary: 'What the controller that keeps the cloud last knew of it; 404 while none does',
    access: ['admin', 'operator', 'viewer'],
    query: none,
    body: noBody,
    answer: answers.cloudReport,
    status: 200,
  },
  version: {
    method: 'GET',
    path: '/version',
    summary: 'Versions of the program and of the protocol',
    access: ['anyone'],
    query: none,
    body: noBody,
    answer: answers.versionAnswer,
    status: 200,
  },
};

// Who we are to a cloud and where its services are: Keystone's Identity API v3 (docs.openstack.org/api-ref/identity/v3,
// "Authentication and token management"). One call gives a token, what it is for, and the catalogue of services.
import * as v from 'valibot';
import { assertNever, Fault, isFault } from '#model/fault.ts';
import { type CloudHttp, readAnswer } from './http.ts';

/** By id, or by a name that is unique in its domain. */
export type Named = { readonly id: string } | { readonly name: string; readonly domain: Domain };
export type Domain = { readonly id: string } | { readonly name: string };

export type Login =
  | { readonly type: 'password'; readonly user: Named; readonly password: string; readonly project: Named }
  | { readonly type: 'token'; readonly token: string; readonly project: Named | undefined }
  /** The project is the one that it was made in. */
  | { readonly type: 'application-credential'; readonly credential: Named | CredentialOfUser; readonly secret: string };
export interface CredentialOfUser {
  readonly name: string;
  readonly user: Named;
}

export type Interface = 'public' | 'internal' | 'admin';

export interface Token {
  readonly value: string;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
  readonly project: { readonly id: string; readonly name: string };
  readonly roles: readonly string[];
  readonly catalogue: readonly CatalogueService[];
}

export interface CatalogueService {
  readonly type: string;
  readonly endpoints: readonly { readonly interface: string; readonly region: string; readonly url: string }[];
}

const answer = v.object({
  token: v.object({
    expires_at: v.string(),
    project: v.optional(v.object({ id: v.string(), name: v.string() })),
    roles: v.optional(v.array(v.object({ name: v.string() })), []),
    catalog: v.optional(
      v.array(
        v.object({
          type: v.string(),
          endpoints: v.array(
            v.object({
              interface: v.string(),
              region_id: v.nullish(v.string()),
              region: v.nullish(v.string()),
              url: v.string(),
            }),
          ),
        }),
      ),
    ),
  }),
});

/** The address of version 3, whatever of it was given. Fault `invalid` for another version, or no address. */
export function identityUrl(given: string): string {
  if (!URL.canParse(given) || !/^https?:$/.test(new URL(given).protocol)) {
    throw new Fault('invalid', `Not an address of Keystone: ${given}`, { field: 'auth_url', hint: 'Use https://HOST:5000/v3' });
  }
  const url = given.replace(/\/+$/, '');
  if (/\/v2(\.0)?$/.test(url)) {
    throw new Fault('unsupported', `Version 2 of Keystone's API is gone since OpenStack Queens: ${given}`, {
      field: 'auth_url',
      hint: `Use ${url.replace(/\/v2(\.0)?$/, '/v3')}`,
    });
  }
  return url.endsWith('/v3') ? url : `${url}/v3`;
}

function requestOf(login: Login): object {
  switch (login.type) {
    case 'password':
      return {
        identity: { methods: ['password'], password: { user: { ...login.user, password: login.password } } },
        scope: { project: login.project },
      };
    case 'token':
      return {
        identity: { methods: ['token'], token: { id: login.token } },
        ...(login.project === undefined ? {} : { scope: { project: login.project } }),
      };
    case 'application-credential':
      return {
        identity: { methods: ['application_credential'], application_credential: { ...login.credential, secret: login.secret } },
      };
    default:
      return assertNever(login);
  }
}

/** Faults: `unauthenticated`, `invalid` (the token is for no project), and as CloudHttp.ask. */
export async function logIn(http: CloudHttp, authUrl: string, login: Login): Promise<Token> {
  const url = `${identityUrl(authUrl)}/auth/tokens`;
  const asked = http.ask({ service: 'Keystone', method: 'POST', url, body: { auth: requestOf(login) }, isRepeatable: true });
  const reply = await asked.catch((error: unknown) => {
    throw isFault(error, 'not-found') ? nobodyThere(url, error) : error;
  });
  const value = reply.headers['x-subject-token'];
  if (value === undefined)
    throw new Fault('corrupt', 'The answer of Keystone lacks the header X-Subject-Token', { hint: `Is ${url} Keystone?` });
  const { token } = readAnswer(answer, reply.body, 'Keystone');
  if (token.project === undefined || token.catalog === undefined) {
    throw new Fault('invalid', 'The login is for no project', {
      field: 'project_name',
      hint: 'Name a project in clouds.yaml or OS_PROJECT_NAME',
    });
  }
  return {
    value,
    expiresAt: expiry(token.expires_at),
    project: token.project,
    roles: token.roles.map(({ name }) => name),
    catalogue: token.catalog.map(({ type, endpoints }) => ({
      type,
      endpoints: endpoints.map((one) => ({ interface: one.interface, region: one.region_id ?? one.region ?? '', url: one.url })),
    })),
  };
}

/** Keystone says 401 to whomever it does not know; 404 is said by something else. */
const nobodyThere = (url: string, cause: Fault): Fault =>
  new Fault('not-found', `There is no Keystone at ${url}`, {
    field: 'auth_url',
    hint: 'Check auth_url in clouds.yaml or OS_AUTH_URL',
    cause,
  });

function expiry(text: string): number {
  const moment = Date.parse(text);
  if (Number.isNaN(moment)) throw new Fault('corrupt', `The answer of Keystone: token.expires_at is no moment: ${text.slice(0, 40)}`);
  return moment;
}

export interface Place {
  readonly interface: Interface;
  /** Absent: the cloud must have one only. */
  readonly region: string | undefined;
}

const listed = (values: readonly string[]): string => [...new Set(values)].toSorted().join(', ');

/**
 * Address of a service. Faults: `not-found` when the catalogue has no such service, region or interface, with what it has;
 * `invalid` when it has several regions and none was named.
 */
export function endpointOf(catalogue: readonly CatalogueService[], type: string, { interface: wanted, region }: Place): string {
  const endpoints = catalogue.filter((service) => service.type === type).flatMap((service) => service.endpoints);
  if (endpoints.length === 0) {
    const types = listed(catalogue.map((service) => service.type));
    throw new Fault('not-found', `The cloud's catalogue has no service of type ${type}; it has ${types || 'none'}`, { field: 'catalog' });
  }
  const regions = [...new Set(endpoints.map((one) => one.region))];
  if (region === undefined && regions.length > 1) {
    throw new Fault('invalid', `The cloud has several regions: ${listed(regions)}`, {
      field: 'region_name',
      hint: 'Name one: OS_REGION_NAME',
    });
  }
  const here = endpoints.filter((one) => region === undefined || one.region === region);
  if (here.length === 0) {
    throw new Fault('not-found', `The cloud has no region ${region} with a service of type ${type}; it has ${listed(regions)}`, {
      field: 'region_name',
    });
  }
  const found = here.find((one) => one.interface === wanted);
  if (found !== undefined) return found.url.replace(/\/+$/, '');
  throw new Fault(
    'not-found',
    `The service of type ${type} has no ${wanted} endpoint; it has ${listed(here.map((one) => one.interface))}`,
    {
      field: 'interface',
    },
  );
}

// A Client over plain arrays, for tests of the commands: it finds, adds and removes as the controller does, and records every
// request. What the controller decides (proposed ranges, checks) is tested with the real one in controller.test.ts.
import { Fault } from '#model/fault.ts';
import { parseCidr } from '#model/ip.ts';
import { choicesFor } from '#drivers/models.ts';
import type { ResourceKind, Resources } from '#model/resources.ts';
import { bgpId } from '#api/requests.ts';
import type { CertificateRecord, NewToken, TokenRecord } from '#api/answers.ts';
import type { Bodies, Client } from './client.ts';

export type Records = { [K in ResourceKind]: Resources[K][] };

export const noRecords = (): Records => ({
  tenants: [],
  hosts: [],
  networks: [],
  pools: [],
  blocks: [],
  endpoints: [],
  exposures: [],
  bgp: [],
  secrets: [],
});

export interface FakeClient extends Client {
  readonly records: Records;
  /** `POST networks {…}` and so on, in order; reads are not kept. */
  readonly requests: string[];
}

const createdAt = '2026-01-01T00:00:00Z';

export function fakeClient(records: Records = noRecords(), version = '0.1.0'): FakeClient {
  const requests: string[] = [];
  const issued: TokenRecord[] = [];
  let count = 0;
  const meta = (name: string) => ({ id: `fake${String(++count).padStart(8, '0')}`, name, revision: count, createdAt, labels: {} });
  const rows = <K extends ResourceKind>(kind: K): Records[K] => records[kind];
  const find = <K extends ResourceKind>(kind: K, idOrName: string): Resources[K] => {
    const found = records[kind].find(({ id, name }) => id === idOrName || name === idOrName);
    if (found === undefined) throw new Fault('not-found', `No ${kind} ${JSON.stringify(idOrName)}`);
    return found;
  };
  const made: { [K in keyof Bodies]: (body: Bodies[K]) => Resources[K] } = {
    tenants: (body) => ({ description: '', ...meta(body.name), ...body }),
    networks: ({
      pools = [{ family: 4, cidr: parseCidr('10.0.0.0/24') }],
      name,
      model = 'overlay',
      carry,
      encrypted = false,
      neutron,
      ...body
    }) => {
      const network = {
        ...meta(name),
        model,
        tenant: 'default',
        choices: choicesFor(model, { carry, encrypted }),
        encrypted,
        internal: false,
        vni: 4096 + count,
        attachable: false,
        addressing: 'blocks' as const,
        ...body,
        ...(neutron === undefined ? {} : { neutron: { network: neutron.network, subnet: neutron.subnet ?? 'subnet' } }),
      };
      const range = parseCidr('10.0.0.0/24');
      for (const { cidr = range, reserved = {} } of pools) {
        records.pools.push({ ...meta(`${name}-${cidr}`), network: network.id, cidr, reserved, blockLength: 27 });
      }
      return network;
    },
    pools: ({ cidr = parseCidr('10.9.0.0/24'), reserved = {}, network }) => ({ ...meta(cidr), network, cidr, reserved, blockLength: 27 }),
    exposures: ({ name, sources = [], virtualIp, ...body }) => ({
      ...meta(name ?? `${body.endpoint}-${body.hostPort}-${body.protocol}`),
      sources,
      ...body,
      ...(virtualIp === undefined ? {} : { virtualIp: { hosts: [] } }),
      network: find('networks', body.network).id,
    }),
  };
  return {
    records,
    requests,
    all: async (kind) => records[kind],
    get: async (kind, idOrName) => find(kind, idOrName),
    async create(kind, body) {
      requests.push(`POST ${kind} ${JSON.stringify(body)}`);
      const item = made[kind](body);
      rows(kind).push(item);
      return item;
    },
    async replace(kind, body) {
      requests.push(`PUT ${kind}/${body.id} ${JSON.stringify(body)}`);
      rows(kind).splice(rows(kind).indexOf(find(kind, body.id)), 1, body);
      return body;
    },
    async remove(kind, idOrName) {
      requests.push(`DELETE ${kind}/${idOrName}`);
      const { id } = find(kind, idOrName);
      rows(kind).splice(
        rows(kind).findIndex((one) => one.id === id),
        1,
      );
    },
    async putBgp({ sort, name, labels = {}, spec }) {
      requests.push(`PUT bgp/${bgpId({ sort, name })} ${JSON.stringify(spec)}`);
      const item = { ...meta(name), id: bgpId({ sort, name }), labels, sort, spec };
      const known = records.bgp.find(({ id }) => id === item.id);
      if (known !== undefined && JSON.stringify(known.spec) === JSON.stringify(spec)) return known;
      records.bgp = [...records.bgp.filter(({ id }) => id !== item.id), item];
      return item;
    },
    async putSecret(name, { texts }) {
      requests.push(`PUT secrets/${name}`);
      const item = { ...meta(name), id: name, keys: Object.keys(texts) };
      records.secrets = [...records.secrets.filter(({ id }) => id !== name), item];
      return item;
    },
    async createToken({ type, role, host, name = '' }) {
      const record: TokenRecord = {
        id: `token${++count}`,
        type,
        name,
        createdAt,
        ...(role === undefined ? {} : { role }),
        ...(host === undefined ? {} : { host }),
      };
      issued.push(record);
      const answer: NewToken = { ...record, token: `secret-${record.id}` };
      return answer;
    },
    tokens: async () => issued,
    async removeToken(id) {
      requests.push(`DELETE tokens/${id}`);
      issued.splice(0, issued.length, ...issued.filter((one) => one.id !== id));
    },
    certificates: async (): Promise<CertificateRecord[]> => [
      { serial: '0a1b', host: 'host-1', generation: 1, issuedAt: createdAt, expiresAt: '2026-01-31T00:00:00Z' },
    ],
    async revokeCertificate(serial) {
      requests.push(`DELETE certificates/${serial}`);
    },
    cloud: async () => {
      throw new Fault('not-found', 'No controller keeps a cloud');
    },
    version: async () => ({ version, api: '1' }),
  };
}

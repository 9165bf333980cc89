// A Neutron for tests that a real one cannot be had for: one that fails in the middle. It keeps groups, rules, ports and tags over HTTP as
// the real one does (what that one does is shown in test/openstack-clients.e2e.ts), and fails when a test says so.
import type { IncomingMessage } from 'node:http';
import * as v from 'valibot';
import { makeHost } from '#drivers/cluster.fixture.ts';
import { type Answer, json, keystone, serving } from './server.fixture.ts';

type Fields = Record<string, unknown>;
interface Rule extends Fields {
  readonly id: string;
}
interface Group {
  readonly id: string;
  readonly fields: Fields;
  tags: string[];
  rules: Rule[];
}
interface Port {
  readonly id: string;
  readonly fields: Fields;
  groups: string[];
  pairs: readonly Fields[];
  tags: string[];
  revision: number;
}

/** What befalls a request: an answer instead of it, or after it was done all the same, or when a half of it was. */
export interface Trouble {
  readonly status: number;
  readonly when: 'before' | 'after' | 'half';
}
export interface Asked {
  readonly method: string;
  readonly path: string;
}

const record = v.record(v.string(), v.unknown());
/** The only member of a body. */
const memberOf = (body: string): readonly [string, unknown] => Object.entries(v.parse(record, JSON.parse(body)))[0] ?? ['', undefined];
const oneOf = (body: string): Fields => v.parse(record, memberOf(body)[1]);
const texts = (value: unknown): string[] => v.parse(v.array(v.string()), value);
const records = (value: unknown): Fields[] => v.parse(v.array(record), value);
const needed = ['security-group', 'allowed-address-pairs', 'standard-attr-tag', 'quota_details'];

export class FakeNeutron {
  readonly groups: Group[] = [];
  readonly ports: Port[];
  /** In order, without queries. */
  readonly asked: Asked[] = [];
  /** Whether the login may write address pairs. */
  mayPair = true;
  /** Pairs that a port takes. */
  mostPairs = 10;
  quotas: object = { security_group: { limit: 100, used: 1 }, security_group_rule: { limit: 1000, used: 4 } };
  trouble: (asked: Asked) => Trouble | undefined = () => undefined;
  #ids = 0;

  constructor(hosts: number) {
    this.ports = Array.from({ length: hosts }, (_, index) => ({
      id: `port-${index + 1}`,
      fields: {
        name: `node-${index + 1}`,
        network_id: 'net',
        project_id: 'p',
        mac_address: 'fa:16:3e:00:00:01',
        fixed_ips: [{ subnet_id: 'subnet', ip_address: makeHost(index + 1).underlay[0]?.ip }],
      },
      groups: ['theirs'],
      pairs: [],
      tags: [],
      revision: 1,
    }));
  }

  /** Its ports as it answers them. */
  get shown(): readonly object[] {
    return this.ports.map(shownPort);
  }

  /** Everything that a plan makes or changes, for comparisons. */
  get state(): object {
    return structuredClone({ groups: this.groups, ports: this.ports.map(({ id, groups, pairs, tags }) => ({ id, groups, pairs, tags })) });
  }

  /** What is open in it: for every port what its groups let pass, and its pairs. */
  openings(): Set<string> {
    return new Set(
      this.ports.flatMap(({ id, groups, pairs }) => [
        ...this.groups
          .filter((group) => groups.includes(group.id))
          .flatMap(({ rules }) =>
            rules.map((rule) => `${id} ${String(rule['direction'])} ${String(rule['protocol'])} ${String(rule['port_range_min'])}`),
          ),
        ...pairs.map((pair) => `${id} pair ${String(pair['ip_address'])}`),
      ]),
    );
  }

  answer: Answer = (request, response, body) => {
    const path = new URL(request.url ?? '', 'http://cloud').pathname.replace('/network/v2.0/', '');
    const asked = { method: request.method ?? '', path: decodeURIComponent(path) };
    this.asked.push(asked);
    const trouble = this.trouble(asked);
    if (trouble?.when === 'before') return json(response, trouble.status, { message: 'trouble' });
    const half = trouble?.when === 'half' && asked.path === 'security-group-rules' ? halfOf(body) : body;
    const [status, answer] = this.#do(request, asked, half);
    return trouble === undefined ? json(response, status, answer) : json(response, trouble.status, { message: 'trouble' });
  };

  #do(request: IncomingMessage, { method, path }: Asked, body: string): readonly [number, object] {
    const [kind = '', id, sub, tag] = path.split('/');
    if (method === 'GET' && id === undefined) return [200, this.#list(kind)];
    if (kind === 'quotas') return [200, { quota: this.quotas }];
    const found = (kind === 'ports' ? this.ports : this.groups).find((one) => one.id === id);
    if (sub === 'tags' && found !== undefined) return this.#tag(found, method, { tag, body });
    if (kind === 'ports')
      return this.#port(
        this.ports.find((port) => port.id === id),
        request,
        body,
      );
    if (kind === 'security-group-rules') return method === 'POST' ? this.#addRules(body) : this.#removeRule(id);
    return this.#group(
      this.groups.find((group) => group.id === id),
      method,
      body,
    );
  }

  #list(kind: string): object {
    switch (kind) {
      case 'extensions':
        return { extensions: needed.map((alias) => ({ alias })) };
      case 'ports':
        return { ports: this.ports.map(shownPort) };
      case 'security-groups':
        return { security_groups: this.groups.map(shownGroup) };
      default:
        return { [kind]: [] };
    }
  }

  #tag(found: Group | Port, method: string, { tag, body }: { tag: string | undefined; body: string }): readonly [number, object] {
    if (tag === undefined) found.tags = texts(memberOf(body)[1]);
    else found.tags = method === 'PUT' ? [...new Set([...found.tags, tag])] : found.tags.filter((one) => one !== tag);
    return [200, {}];
  }

  #port(port: Port | undefined, request: IncomingMessage, body: string): readonly [number, object] {
    if (port === undefined) return [404, { message: 'no such port' }];
    if (request.method === 'PUT') {
      const fields = oneOf(body);
      const match = request.headers['if-match'];
      if (!this.mayPair && fields['allowed_address_pairs'] !== undefined) return [403, { message: 'policy' }];
      if (match !== undefined && match !== `revision_number=${port.revision}`) return [412, { message: 'revision' }];
      if (fields['security_groups'] !== undefined) port.groups = texts(fields['security_groups']);
      const pairs = fields['allowed_address_pairs'] === undefined ? port.pairs : records(fields['allowed_address_pairs']);
      if (pairs.length > this.mostPairs) return [400, tooManyPairs(this.mostPairs)];
      port.pairs = pairs;
      port.revision += 1;
    }
    return [200, { port: shownPort(port) }];
  }

  #addRules(body: string): readonly [number, object] {
    const rules = records(memberOf(body)[1]).map((fields): Rule => ({ ...fields, id: this.#id('rule') }));
    for (const rule of rules) this.groups.find(({ id }) => id === rule['security_group_id'])?.rules.push(rule);
    return [201, { security_group_rules: rules }];
  }

  #removeRule(id: string | undefined): readonly [number, object] {
    const group = this.groups.find(({ rules }) => rules.some((rule) => rule.id === id));
    if (group === undefined) return [404, { message: 'no such rule' }];
    group.rules = group.rules.filter((rule) => rule.id !== id);
    return [204, {}];
  }

  #group(group: Group | undefined, method: string, body: string): readonly [number, object] {
    if (method === 'POST') {
      const id = this.#id('group');
      const out = { id: this.#id('rule'), security_group_id: id, direction: 'egress', ethertype: 'IPv4' };
      const made: Group = { id, fields: oneOf(body), tags: [], rules: [out] };
      this.groups.push(made);
      return [201, { security_group: shownGroup(made) }];
    }
    if (group === undefined) return [404, { message: 'no such group' }];
    if (method === 'DELETE') {
      if (this.ports.some(({ groups }) => groups.includes(group.id))) return [409, { message: 'in use' }];
      this.groups.splice(this.groups.indexOf(group), 1);
      return [204, {}];
    }
    Object.assign(group.fields, oneOf(body));
    return [200, { security_group: shownGroup(group) }];
  }

  #id(what: string): string {
    this.#ids += 1;
    return `${what}-${String(this.#ids).padStart(4, '0')}`;
  }
}

/** As neutron_lib/exceptions/allowedaddresspairs.py. */
const tooManyPairs = (most: number): object => ({
  NeutronError: {
    type: 'AllowedAddressPairExhausted',
    message: `The number of allowed address pair exceeds the maximum ${most}.`,
    detail: '',
  },
});

/** The first half of what a bulk call is to make. */
function halfOf(body: string): string {
  const [name, value] = memberOf(body);
  const items = records(value);
  return JSON.stringify({ [name]: items.slice(0, items.length >> 1) });
}

const shownPort = ({ id, fields, groups, pairs, tags, revision }: Port): object => ({
  ...fields,
  id,
  security_groups: groups,
  allowed_address_pairs: pairs,
  tags,
  revision_number: revision,
});
const shownGroup = ({ id, fields, tags, rules }: Group): object => ({ ...fields, id, tags, security_group_rules: rules });

export interface Served extends AsyncDisposable {
  readonly url: string;
  readonly logins: () => number;
}

/** Keystone and it at one address. */
export async function servingNeutron(fake: FakeNeutron): Promise<Served> {
  let url = '';
  const { answer, logins } = keystone(() => url);
  const server = await serving((request, response, body) =>
    request.url === '/v3/auth/tokens' ? answer(request, response, body) : fake.answer(request, response, body),
  );
  ({ url } = server);
  return { url, logins, [Symbol.asyncDispose]: (): Promise<void> => Promise.resolve(server[Symbol.asyncDispose]()) };
}

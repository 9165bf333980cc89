// The adapter against a server that speaks the API's list and watch, with Nodes as real servers write them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { WatchLine } from '#api/answers.ts';
import { parseAnswer } from '#api/parse.ts';
import { schemas } from '#api/schemas.ts';
import { isFault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName } from '#model/resources.ts';
import { Api, listOf as list } from './api.fixture.ts';
import { KubernetesClient } from './client.ts';
import { kubernetesController } from './controller.ts';

interface Shape {
  readonly podCidrs?: readonly string[];
  readonly addresses?: readonly { type: string; address: string }[];
}
const node = (name: string, version: number, { podCidrs = [], addresses = [] }: Shape = {}): object => ({
  kind: 'Node',
  metadata: { name, resourceVersion: String(version), creationTimestamp: '2026-01-01T00:00:00Z', uid: 'x', labels: { a: 'b' } },
  spec: podCidrs.length === 0 ? {} : { podCIDR: podCidrs[0], podCIDRs: podCidrs, taints: [] },
  status: { addresses, conditions: [{ type: 'Ready', status: 'True' }] },
});
const internal = (address: string) => [
  { type: 'InternalIP', address },
  { type: 'Hostname', address: 'x' },
];

const api = new Api();
let client: KubernetesClient;
before(async () => {
  client = new KubernetesClient({ server: await api.listen(), token: () => 'secret' });
});
after(async () => {
  await client[Symbol.asyncDispose]();
  api.close();
});

/** What a watch says until it has nothing more to say, or fails. */
async function said(warnings: string[] = [], carry?: CarryName): Promise<{ readonly lines: WatchLine[]; readonly error: unknown }> {
  const log = { warn: (fields: object) => void warnings.push(JSON.stringify(fields)) };
  const podCidrs = [parseCidr('10.244.0.0/16'), parseCidr('fd44::/48')];
  const controller = kubernetesController(client, { host: 'a', podCidrs, ...(carry === undefined ? {} : { carry }), log });
  const lines: WatchLine[] = [];
  try {
    for await (const line of controller.watch({ signal: AbortSignal.timeout(10_000) })) lines.push(line);
    return { lines, error: undefined };
  } catch (error) {
    return { lines, error };
  }
}
/** Short, for comparison. */
const short = (line: WatchLine): string => {
  if (line.type === 'put') return `${line.revision} put ${line.kind} ${'cidr' in line.item ? line.item.cidr : line.item.name}`;
  return line.type === 'delete'
    ? `${line.revision} delete ${line.kind} ${line.id.replace(/^podcidr.*/, 'block')}`
    : `${line.revision} ${line.type}`;
};

test('nodes become hosts with their blocks, in pages, and then by what changes', async () => {
  const one = { podCidrs: ['10.244.1.0/24', 'fd44:0:0:1::/64'], addresses: internal('10.213.0.11') };
  // The last is looked at between the watches: has the server come as far as before?
  api.lists = [list(20, [node('a', 11, one)], 'more'), list(20, [node('b', 12)]), list(30, [])];
  const two = { podCidrs: ['10.244.2.0/24'], addresses: internal('10.213.0.12') };
  api.watches = [
    [
      { type: 'MODIFIED', object: node('a', 21, one) },
      { type: 'MODIFIED', object: node('b', 22, two) },
      { type: 'BOOKMARK', object: { kind: 'Node', metadata: { resourceVersion: '30' } } },
    ],
    [
      { type: 'MODIFIED', object: node('b', 31, { ...two, podCidrs: ['10.244.3.0/24'] }) },
      { type: 'DELETED', object: node('a', 32, one) },
      { type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old' } },
    ],
  ];
  const { lines, error } = await said();
  assert.deepEqual(lines.map(short), [
    '20 put networks pods',
    '20 put pools 10.244.0.0/16',
    '20 put pools fd44::/48',
    '20 put hosts a',
    '20 put blocks 10.244.1.0/24',
    '20 put blocks fd44:0:0:1::/64',
    '20 synced',
    '21 bookmark',
    '22 put hosts b',
    '22 put blocks 10.244.2.0/24',
    '22 bookmark',
    '30 bookmark',
    '31 delete blocks block',
    '31 put hosts b',
    '31 put blocks 10.244.3.0/24',
    '31 bookmark',
    '32 delete blocks block',
    '32 delete blocks block',
    '32 delete hosts a',
    '32 bookmark',
  ]);
  assert.ok(isFault(error, 'compacted'));
  // As the agent keeps it in its journal, and reads it while the API server is away.
  for (const line of lines)
    if (line.type === 'put') assert.deepEqual(parseAnswer<unknown>(schemas[line.kind], line.item, 'a record'), line.item);
  const hosts = lines.flatMap((line) => (line.type === 'put' && line.kind === 'hosts' ? [line.item] : []));
  assert.deepEqual(
    hosts.map(({ index, underlay }) => [index, underlay.map(({ ip }) => ip)]),
    [
      [0xf401, ['10.213.0.11']],
      [0xf402, ['10.213.0.12']],
      [0xf403, ['10.213.0.12']],
    ],
  );
  assert.deepEqual(
    api.asked.map(({ searchParams: query }) => query.get('continue') ?? query.get('resourceVersion')),
    [null, 'more', '20', null, '30'],
  );
});

test('a node that cannot be used is told, and keeps no other from being used', async () => {
  api.lists = [
    list(5, [
      node('a', 1, { podCidrs: ['10.244.1.0/24'] }),
      node('outside', 2, { podCidrs: ['192.168.0.0/24'] }),
      node('half', 2, { podCidrs: ['10.244.9.0/24', 'fd99::/64'] }),
      node('x'.repeat(100), 3, { podCidrs: ['10.244.4.0/24'] }),
      node('odd', 4, { podCidrs: ['nonsense'] }),
      { metadata: {} },
    ]),
  ];
  api.watches = [410];
  const warnings: string[] = [];
  const { lines } = await said(warnings);
  assert.deepEqual(lines.map(short).slice(3), [
    '5 put hosts a',
    '5 put blocks 10.244.1.0/24',
    '5 put hosts half',
    '5 put blocks 10.244.9.0/24',
    '5 synced',
  ]);
  assert.equal(warnings.length, 4);
});

const answers: readonly (readonly [string, number, string])[] = [
  ['is not permitted', 403, 'forbidden'],
  ['is not known', 401, 'unauthenticated'],
  ['finds no such thing', 404, 'not-found'],
  ['finds the server busy', 503, 'unavailable'],
];
for (const [what, status, code] of answers) {
  test(`who ${what} is told so`, async () => {
    api.lists = [status];
    assert.equal(isFault((await said()).error) && code, code);
  });
}

test('an answer that is none, and versions that are no numbers', async () => {
  api.lists = [{ items: 5 }];
  assert.ok(isFault((await said()).error, 'corrupt'));
  api.lists = [{ metadata: { resourceVersion: 'abc' }, items: [] }];
  assert.ok(isFault((await said()).error, 'unsupported'));
});

test('what Kubernetes decides is not decided here', async () => {
  const controller = kubernetesController(client, { host: 'a', podCidrs: [], log: { warn: () => undefined } });
  await assert.rejects(controller.networks.create({ name: 'x' }), (error) => isFault(error, 'unsupported'));
  await assert.rejects(controller.addresses.claimBlock({ network: 'x', pool: 'y' }), (error) => isFault(error, 'exhausted'));
  await assert.rejects(controller.addresses.releaseBlock({ id: 'x', revision: 1 }), (error) => isFault(error, 'in-use'));
});

test('a node keeps the first address of its range, and those that others have given there', async () => {
  const one = { podCidrs: ['10.244.1.0/24'], addresses: internal('10.213.0.11') };
  const taken = [parseIp('10.244.1.7')];
  const log = { warn: () => undefined };
  const controller = kubernetesController(client, { host: 'a', podCidrs: [parseCidr('10.244.0.0/16')], log, taken: () => taken });
  api.lists = [list(20, [node('a', 11, one), node('b', 12, { podCidrs: ['10.244.2.0/24'] })])];
  api.watches = [
    [
      { type: 'MODIFIED', object: node('a', 21, one) },
      { type: 'ERROR', object: { kind: 'Status', code: 410 } },
    ],
  ];
  const reserved: object[] = [];
  const watching = (async () => {
    for await (const line of controller.watch({ signal: AbortSignal.timeout(10_000) })) {
      if (line.type === 'put' && line.kind === 'pools') reserved.push(line.item.reserved);
      if (line.type === 'synced') taken.push(parseIp('10.244.1.9'), parseIp('10.244.2.9'));
    }
  })();
  await assert.rejects(watching, { code: 'compacted' });
  const first = { node: '10.244.1.0', 'taken-10.244.1.7': '10.244.1.7' };
  assert.deepEqual(reserved, [first, { ...first, 'taken-10.244.1.9': '10.244.1.9' }]);
});

test('of its own node it is told why it cannot be used, until it can', async () => {
  const at = (address: string) => node('a', 11, { podCidrs: ['10.244.1.0/24'], addresses: internal(address) });
  const told: (string | undefined)[] = [];
  const saw = (_: unknown, problem?: string): unknown => told.push(problem);
  const controller = kubernetesController(client, {
    host: 'a',
    podCidrs: [parseCidr('10.244.0.0/16')],
    log: { warn: () => undefined },
    saw,
  });
  api.lists = [list(20, [at('10.244.9.9'), node('b', 12, { podCidrs: ['10.244.2.0/24'], addresses: internal('10.244.9.8') })])];
  api.watches = [
    [
      { type: 'MODIFIED', object: node('a', 21, { podCidrs: ['10.99.0.0/24'], addresses: internal('10.213.0.11') }) },
      { type: 'MODIFIED', object: node('a', 22) },
      { type: 'MODIFIED', object: at('10.213.0.11') },
      { type: 'ERROR', object: { kind: 'Status', code: 410 } },
    ],
  ];
  await assert.rejects(Array.fromAsync(controller.watch({ signal: AbortSignal.timeout(10_000) })), { code: 'compacted' });
  assert.deepEqual(told, [
    "The node's address 10.244.9.9 is in the range of pods, --pod-cidr 10.244.0.0/16",
    'podCIDR 10.99.0.0/24 is outside of --pod-cidr 10.244.0.0/16',
    undefined,
    undefined,
  ]);
});

test('a range that another node has, and an address of a node among those of pods, are told and left out', async () => {
  const one = { podCidrs: ['10.244.1.0/24'], addresses: internal('10.213.0.11') };
  const three = { podCidrs: ['10.244.3.0/24'], addresses: internal('10.244.9.9') };
  api.lists = [list(20, [node('a', 11, one), node('b', 12, { ...one, addresses: internal('10.213.0.12') }), node('c', 13, three)])];
  api.watches = [
    [
      { type: 'DELETED', object: node('a', 21, one) },
      { type: 'MODIFIED', object: node('b', 22, one) },
      { type: 'ERROR', object: { kind: 'Status', code: 410 } },
    ],
  ];
  const warnings: string[] = [];
  const { lines } = await said(warnings);
  const hosts = lines.map(short).filter((line) => line.includes('hosts'));
  assert.deepEqual(hosts, ['20 put hosts a', '21 delete hosts a', '22 put hosts b']);
  assert.deepEqual(
    warnings.map((text) => /"node":"(.)"/.exec(text)?.[1]),
    ['b', 'c'],
  );
});

test('what its cloud does not let be a node does not want, and its networks are carried by VXLAN meanwhile', async () => {
  const own = { podCidrs: ['10.244.1.0/24'], addresses: internal('10.213.0.11') };
  const refusing = (version: number, refused?: string): object => {
    const item = node('a', version, own);
    const annotations = { 'causeway.dev/carry': 'host-gateway', ...(refused && { 'causeway.dev/not-allowed': refused }) };
    return { ...item, metadata: { ...Object(item).metadata, annotations } };
  };
  api.lists = [list(20, [refusing(11)])];
  api.watches = [
    [
      { type: 'MODIFIED', object: refusing(21, 'host-gateway: it may not be') },
      { type: 'MODIFIED', object: refusing(22) },
      { type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old' } },
    ],
  ];
  const { lines } = await said([], 'host-gateway');
  const wants = lines.flatMap((line) => {
    if (line.type !== 'put') return [];
    if (line.kind === 'networks') return [`network ${line.item.choices.carry}`];
    return line.kind === 'hosts' ? [`host ${line.item.carrying?.wants} ${line.item.carrying?.insteadOf}`] : [];
  });
  const [plain, fallen] = [
    ['network host-gateway', 'host host-gateway undefined'],
    ['host vxlan host-gateway', 'network vxlan'],
  ];
  assert.deepEqual(wants, [...plain, ...fallen, ...plain.toReversed()]);
  for (const line of lines)
    if (line.type === 'put') assert.deepEqual(parseAnswer<unknown>(schemas[line.kind], line.item, 'a record'), line.item);
});

// Services and slices as servers of several ages write them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinService } from './backends.ts';
import { readService, readSlice } from './services.ts';

const service = (spec: object, labels: object = {}): object => ({ metadata: { namespace: 'shop', name: 'web', uid: 'x', labels }, spec });
const slice = (more: object): object => ({
  metadata: { namespace: 'shop', name: 'web-abc', labels: { 'kubernetes.io/service-name': 'web' } },
  addressType: 'IPv4',
  ports: [{ name: 'page', protocol: 'TCP', port: 8080 }],
  endpoints: [{ addresses: ['10.244.1.2'], conditions: { ready: true } }],
  ...more,
});
const here = { node: 'one' };
const ports = [{ name: 'page', protocol: 'TCP', port: 80, targetPort: 'http' }];

test('a service of both families, with slices of both', () => {
  const facts = readService(service({ clusterIP: '10.96.0.5', clusterIPs: ['10.96.0.5', 'FD96::5'], ports, type: 'NodePort' }));
  const slices = [
    slice({
      endpoints: [
        { addresses: ['10.244.2.9', '10.244.2.10'], conditions: {} },
        { addresses: ['10.244.1.2'], conditions: { ready: true, serving: true } },
        { addresses: ['10.244.1.3'], conditions: { ready: false } },
        { addresses: ['10.244.1.4'], conditions: { ready: null } },
      ],
    }),
    slice({ addressType: 'IPv6', endpoints: [{ addresses: ['fd44::2'] }] }),
    slice({ endpoints: [{ addresses: ['10.244.1.2'] }] }),
    slice({ ports: [{ name: 'other', port: 1 }], endpoints: [{ addresses: ['10.244.7.7'] }] }),
  ].flatMap((item) => readSlice(item) ?? []);
  assert.ok(facts);
  assert.deepEqual(joinService(facts, slices, here), [
    {
      key: 'shop/web 10.96.0.5 tcp 80',
      ip: '10.96.0.5',
      protocol: 'tcp',
      port: 80,
      backends: [
        { ip: '10.244.1.2', port: 8080 },
        { ip: '10.244.1.4', port: 8080 },
        { ip: '10.244.2.9', port: 8080 },
      ],
      refusesOthers: true,
    },
    {
      key: 'shop/web fd96::5 tcp 80',
      ip: 'fd96::5',
      protocol: 'tcp',
      port: 80,
      backends: [{ ip: 'fd44::2', port: 8080 }],
      refusesOthers: true,
    },
  ]);
});

test('a service of one port without a name, by UDP, that nobody serves', () => {
  const facts = readService(service({ clusterIP: '10.96.0.10', ports: [{ protocol: 'UDP', port: 53 }] }));
  assert.ok(facts);
  const [only] = joinService(facts, [], here);
  assert.deepEqual([only?.protocol, only?.port, only?.backends], ['udp', 53, []]);
});

const passed: readonly (readonly [string, unknown])[] = [
  ['a headless one', service({ clusterIP: 'None', clusterIPs: ['None'], ports })],
  ['one without an address yet', service({ clusterIP: '', ports })],
  ['a name elsewhere', service({ type: 'ExternalName', externalName: 'x' })],
  ["somebody else's", service({ clusterIP: '10.96.0.5', ports }, { 'service.kubernetes.io/service-proxy-name': 'other' })],
  ['one that says it is headless', service({ clusterIP: '10.96.0.5', ports }, { 'service.kubernetes.io/headless': '' })],
  ['one with a port of 0', service({ clusterIP: '10.96.0.5', ports: [{ port: 0 }] })],
  ['no object', 5],
];
for (const [what, item] of passed) {
  test(`of services, ${what} is passed over`, () => {
    assert.equal(readService(item), undefined);
  });
}

test('a service without ports has an address and nothing behind it', () => {
  const facts = readService(service({ clusterIP: '10.96.0.5' }));
  assert.deepEqual(facts === undefined ? undefined : joinService(facts, [], here), []);
});

const odd: readonly (readonly [string, unknown])[] = [
  ['one of no service', slice({ metadata: { namespace: 'shop', name: 'x' } })],
  ['one of names', slice({ addressType: 'FQDN', endpoints: [{ addresses: ['example.org'] }] })],
  ['one with half an endpoint', slice({ endpoints: [{}] })],
  ['no object', null],
];
for (const [what, item] of odd) {
  test(`of slices, ${what} is passed over`, () => {
    assert.equal(readSlice(item), undefined);
  });
}

test('slices without endpoints or ports, as Go writes empty lists', () => {
  assert.deepEqual(readSlice(slice({ endpoints: null, ports: null })), { service: 'shop/web', endpoints: [], ports: [] });
  assert.deepEqual(readSlice(slice({ ports: [{ name: '', port: null }] }))?.ports, []);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Mac } from '#model/ip.ts';
import type { VethLink } from '#model/desired.ts';
import { kindContract, type Foreign } from './contract.ts';
import { createFakeKinds, type FakeKinds } from './fake.ts';

let current: FakeKinds;
const put = new Set<Foreign>();
kindContract('fake', {
  open: () => (current = createFakeKinds()),
  put(foreign) {
    put.add(foreign);
    if (foreign.what === 'link') current.putForeign({ netns: foreign.netns, link: foreign.name });
    if (foreign.what === 'route') current.putForeign(foreign);
  },
  // Foreign objects live outside what the kinds can reach.
  has: (foreign) => put.has(foreign),
});

const pair: VethLink = {
  type: 'veth',
  netns: '',
  name: 'cwe1',
  mtu: 1400,
  mac: '02:63:77:ff:ff:01' as Mac,
  alias: 'causeway test',
  peer: { netns: '/run/docker/netns/one', name: 'eth0', mac: '0a:63:0a:00:00:01' as Mac, mtu: 1400, up: true },
};

test('a sandbox that ends takes both ends of its links with it', () => {
  const kinds = createFakeKinds();
  assert.deepEqual(kinds.link.add([pair]), []);
  kinds.addr.add([{ netns: '', link: 'cwe1', address: '169.254.1.1/32' }]);
  kinds.endSandbox(pair.peer.netns);
  assert.deepEqual([...kinds.link.list(''), ...kinds.addr.list('')], []);
  assert.deepEqual(
    kinds.link.add([pair]).map(({ fault }) => fault.errno),
    ['ENOENT'],
  );
});

test('what is lost behind the back of the kinds takes with it what hangs on it', () => {
  const kinds = createFakeKinds();
  kinds.link.add([pair]);
  kinds.addr.add([{ netns: '', link: 'cwe1', address: '169.254.1.1/32' }]);
  kinds.lose('link', ' cwe1');
  assert.deepEqual([...kinds.link.list(''), ...kinds.addr.list('')], []);
});

test('a refusal that was asked for happens once', () => {
  const kinds = createFakeKinds();
  kinds.refuseNext('link', ' cwe1', 'ENOMEM');
  assert.deepEqual(
    [kinds.link.add([pair]), kinds.link.add([pair])].map((failures) => failures.map(({ fault }) => fault.errno)),
    [['ENOMEM'], []],
  );
  assert.equal(kinds.writes, 2);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Host } from '#model/resources.ts';
import { makeHost, makeNetwork } from './cluster.fixture.ts';
import { mtuSum } from './mtu.ts';
import { tunnelsOf, wayTo } from './tunnels.ts';

const self = makeHost(1);
const peerWith = (mtu: number): Host => makeHost(2, { underlay: makeHost(2).underlay.map((one) => ({ ...one, mtu })) });

const rows: readonly (readonly [string, bound: number | undefined, theirs: number, told: number | undefined])[] = [
  ['as large as its own', undefined, 1450, undefined],
  ['a smaller one', undefined, 1350, 1300],
  ["a smaller one that still takes more than the user's bound", 1280, 1350, undefined],
  ["a smaller one that takes less than the user's bound", 1280, 1300, 1250],
];
for (const [what, bound, theirs, told] of rows) {
  test(`the way to a host whose interface takes ${what}`, () => {
    const network = { ...makeNetwork('flat', { model: 'flannel' }), ...(bound === undefined ? {} : { mtu: bound }) };
    const { mtu } = mtuSum(network, self);
    const peer = peerWith(theirs);
    const tunnels = tunnelsOf({ network, self, mtu, remotes: [{ host: peer, blocks: [], exceptions: [] }] });
    assert.equal(wayTo(tunnels, peer, 4)?.mtu, told);
  });
}

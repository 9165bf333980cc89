// The Node is brought to what is wished by as few writes as possible, whenever the API answers.
import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { test } from 'node:test';
import { Fault } from '#model/fault.ts';
import { NodeTeller, type NodeWish } from './node-teller.ts';

const now = new Date('2026-01-02T03:04:05.678Z');
const available = { isAvailable: true, reason: 'CausewayIsUp', message: 'Pods can be attached' } as const;
const wish = (annotations: NodeWish['annotations'], network: NodeWish['network'] = available): NodeWish => ({ annotations, network });

/** A server that applies what it is sent, as far as it matters here. */
function bed() {
  const node = {
    metadata: { annotations: { theirs: 'kept' } as Record<string, string> },
    status: { conditions: [] as { type: string; status: string; reason?: string; message?: string }[] },
  };
  const sent: object[] = [];
  const state = { fault: undefined as Fault | undefined };
  const patch = (path: string, change: { metadata?: { annotations: Record<string, string | null> }; status?: typeof node.status }) => {
    assert.equal(path, '/api/v1/nodes/a/status');
    sent.push(change);
    if (state.fault !== undefined) return Promise.reject(state.fault);
    for (const [key, value] of Object.entries(change.metadata?.annotations ?? {})) {
      if (value === null) delete node.metadata.annotations[key];
      else node.metadata.annotations[key] = value;
    }
    const said = new Map([...node.status.conditions, ...(change.status?.conditions ?? [])].map((one) => [one.type, one]));
    node.status.conditions = [...said.values()];
    return Promise.resolve(structuredClone(node));
  };
  const teller = new NodeTeller({ client: { patch }, node: 'a', log: { warn: () => undefined }, now: () => now });
  return { node, sent, state, teller };
}
const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await setImmediate();
};

test('where others are to send to is what somebody has written by hand, as with flannel', async () => {
  const key = 'flannel.alpha.coreos.com/public-ip';
  const { node, teller } = bed();
  node.metadata.annotations[`${key}-overwrite`] = '203.0.113.9';
  teller.wish(wish({ [key]: '10.0.0.1', other: '1' }));
  teller.saw(node);
  await settled();
  assert.deepEqual(node.metadata.annotations, { theirs: 'kept', [`${key}-overwrite`]: '203.0.113.9', [key]: '203.0.113.9', other: '1' });
  node.metadata.annotations[`${key}-overwrite`] = '';
  teller.saw(node);
  await settled();
  assert.equal(node.metadata.annotations[key], '10.0.0.1');
});

test('what differs is written once, and what others have written stays', async () => {
  const { node, sent, teller } = bed();
  teller.wish(wish({ one: '1', gone: null }));
  await settled();
  assert.equal(sent.length, 0, 'the Node has not been seen yet');
  teller.saw(node);
  await settled();
  assert.deepEqual(node.metadata.annotations, { theirs: 'kept', one: '1' });
  assert.deepEqual(node.status.conditions, [
    {
      type: 'NetworkUnavailable',
      status: 'False',
      reason: 'CausewayIsUp',
      message: 'Pods can be attached',
      lastTransitionTime: '2026-01-02T03:04:05Z',
      lastHeartbeatTime: '2026-01-02T03:04:05Z',
    },
  ]);
  teller.wish(wish({ one: '1', gone: null }));
  teller.saw(node);
  await settled();
  assert.equal(sent.length, 1);
  teller[Symbol.dispose]();
});

test('a wish that comes while another is being written is written next, and what somebody undoes is done again', async () => {
  const { node, sent, teller } = bed();
  teller.saw(node);
  teller.wish(wish({ one: '1' }));
  teller.wish(wish({ one: '2' }, { isAvailable: false, reason: 'NoFreeAddresses', message: 'No address is free' }));
  await settled();
  assert.deepEqual([node.metadata.annotations['one'], node.status.conditions[0]?.status, sent.length], ['2', 'True', 2]);
  delete node.metadata.annotations['one'];
  teller.saw(structuredClone(node));
  await settled();
  assert.equal(node.metadata.annotations['one'], '2');
  teller[Symbol.dispose]();
});

test('a reason in other words is written, too', async () => {
  const { node, sent, teller } = bed();
  teller.saw(node);
  for (const message of ['it is full', 'it is full', 'it is away']) {
    teller.wish(wish({}, { isAvailable: false, reason: 'NoRouteCreated', message }));
    await settled();
  }
  assert.equal(sent.length, 2);
  teller[Symbol.dispose]();
});

test('what is said of the ways to other nodes stands beside it, and only what is news is written', async () => {
  const { node, sent, teller } = bed();
  teller.saw(node);
  teller.wish(wish({}));
  await settled();
  const texts = (): string[] => node.status.conditions.map(({ type, status, reason }) => `${type} ${status} ${reason}`);
  const network = 'NetworkUnavailable False CausewayIsUp';
  assert.deepEqual(texts(), [network]);
  for (const isGood of [true, false, false]) {
    teller.paths({ isGood, reason: isGood ? 'PacketsPass' : 'PacketsLost', message: 'why' });
    await settled();
  }
  assert.deepEqual(texts(), [network, 'causeway.dev/Paths False PacketsLost']);
  assert.equal(sent.length, 3);
  teller[Symbol.dispose]();
});

test('what the server refuses is tried again until it succeeds', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { node, sent, state, teller } = bed();
  state.fault = new Fault('unavailable', 'away');
  teller.saw(node);
  teller.wish(wish({ one: '1' }));
  await settled();
  state.fault = undefined;
  t.mock.timers.tick(60_000);
  await settled();
  assert.deepEqual([node.metadata.annotations['one'], sent.length], ['1', 2]);
  teller[Symbol.dispose]();
});

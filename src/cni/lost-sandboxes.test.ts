import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { LostSandboxes } from './lost-sandboxes.ts';
import type { AttachmentRecord } from './records.ts';

const missingMs = 300;
type Attached = Map<string, AttachmentRecord>;

const podOf = (containerId: string, podUid?: string): AttachmentRecord => ({
  name: 'pods',
  containerId,
  ifname: 'eth0',
  netns: '/run/netns/x',
  ...(podUid === undefined ? {} : { podUid }),
});

function bed(attached: Attached) {
  const state = { now: 0, listed: new Set<string>() as ReadonlySet<string> | Error, removed: [] as string[], said: [] as string[] };
  const lost = new LostSandboxes({
    records: () => [...attached].map(([endpoint, record]) => ({ endpoint, record })),
    listed: () => (state.listed instanceof Error ? Promise.reject(state.listed) : Promise.resolve(state.listed)),
    remove: (endpoint) => {
      attached.delete(endpoint);
      state.removed.push(endpoint);
      return Promise.resolve();
    },
    now: () => state.now,
    missingMs,
    log: (_, message) => state.said.push(message),
  });
  const look = async (now: number, listed: readonly string[] | Error): Promise<readonly string[]> => {
    state.now = now;
    state.listed = listed instanceof Error ? listed : new Set(listed);
    await lost.look();
    return state.removed;
  };
  return { state, look };
}

const three = (): Attached =>
  new Map([
    ['one', podOf('a', 'u1')],
    ['two', podOf('b', 'u2')],
    ['other', podOf('c')],
  ]);

test('what the runtime has lost is removed once it has been missing for long enough', async () => {
  const { look } = bed(three());
  assert.deepEqual(await look(0, ['a']), []);
  assert.deepEqual(await look(299, ['a']), []);
  assert.deepEqual(await look(300, ['a']), ['two'], 'and never what is no pod of a Kubernetes runtime');
});

test('a list without any of ours, a look that fails and a sandbox that is back begin the wait anew', async () => {
  for (const between of [['x'], new Error('away'), ['a', 'b']]) {
    const { look } = bed(three());
    await look(0, ['a']);
    await look(200, between);
    assert.deepEqual(await look(400, ['a']), []);
    assert.deepEqual(await look(700, ['a']), ['two']);
  }
});

test('a runtime that stays away is complained of once', async () => {
  const { look, state } = bed(three());
  for (const now of [0, 100, 200]) await look(now, new Error('away'));
  assert.equal(state.said.length, 1);
});

test('never is a listed sandbox removed, nor one that was not missing at every look for long enough', async () => {
  const ids = ['a', 'b', 'c', 'd'];
  const event = fc.record({ ms: fc.integer({ min: 1, max: 200 }), listed: fc.option(fc.subarray(ids)) });
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 15 }), async (events) => {
      const attached: Attached = new Map(ids.map((id) => [`e-${id}`, podOf(id, id === 'd' ? undefined : `u-${id}`)]));
      const { look } = bed(attached);
      const history: { readonly now: number; readonly listed: readonly string[] | null }[] = [];
      let now = 0;
      for (const { ms, listed } of events) {
        now += ms;
        history.push({ now, listed });
        const before = new Set(attached.keys());
        await look(now, listed ?? new Error('away'));
        for (const endpoint of [...before].filter((one) => !attached.has(one))) {
          const id = endpoint.slice(2);
          assert.notEqual(id, 'd');
          const recent = history.filter((one) => now - one.now <= missingMs);
          assert.ok(recent.every((one) => one.listed !== null && !one.listed.includes(id)));
          assert.ok(history.some((one) => now - one.now >= missingMs && one.listed?.includes(id) === false));
        }
      }
    }),
  );
});

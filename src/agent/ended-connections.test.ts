// When connections of endpoints that have gone are forgotten.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { NftElement } from '#model/desired.ts';
import { EndedConnections } from './ended-connections.ts';

const member = (ip: string, more: Partial<NftElement> = {}): NftElement => ({
  netns: '',
  table: 'causeway',
  set: ip.includes(':') ? 'members6' : 'members4',
  key: `"cwe1" . 0a:63:0a:00:00:05 . ${ip}`,
  ...more,
});
const both = (ip: string): object[] => [{ source: ip }, { replySource: ip }];

test('of both directions, a while later, together; and at once where the address is given out again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const forgotten: unknown[] = [];
  const aside: { readonly selections: unknown; readonly done: () => void }[] = [];
  const ended = new EndedConnections({
    forget: (selections) => forgotten.push(selections),
    forgetAside: (selections) => new Promise((done) => aside.push({ selections, done })),
  });
  ended.changed(
    [],
    ['10.44.0.1', 'fd44::1', '10.44.0.2'].map((ip) => member(ip)),
  );
  ended.changed(
    [member('10.44.0.1'), member('fd44::1'), { netns: '', table: 'causeway', set: 'own4', key: '10.0.0.0/8 . 10.0.0.0/8' }],
    [],
  );
  // Of networks that are apart, which are looked up elsewhere; and one that goes on by another link.
  ended.changed(
    [member('10.44.0.9', { netns: 'cw-a' }), member('10.44.0.2')],
    [member('10.44.0.2', { key: '"cwe2" . 0a:63:0a:00:00:06 . 10.44.0.2' })],
  );
  assert.deepEqual(forgotten, []);
  ended.changed([], [member('10.44.0.1')]);
  assert.deepEqual(forgotten.splice(0), [both('10.44.0.1')]);
  ended.changed([member('10.44.0.3')], []);
  t.mock.timers.tick(5_000);
  const [first] = aside.splice(0);
  assert.deepEqual(first?.selections, [...both('fd44::1'), ...both('10.44.0.3')]);
  ended.changed([], [member('fd44::1')]);
  assert.deepEqual(forgotten.splice(0), [both('fd44::1')], 'while that is looked for');
  ended.changed([member('fd44::1')], []);
  first.done();
  await setImmediate();
  ended.changed([], [member('10.44.0.3')]);
  assert.deepEqual(forgotten, [], 'all of that one has gone');
  t.mock.timers.tick(5_000);
  assert.deepEqual(
    aside.splice(0).map(({ selections }) => selections),
    [both('fd44::1')],
    'it has gone once more since',
  );
  t.mock.timers.tick(60_000);
  assert.deepEqual([forgotten, aside], [[], []]);
});

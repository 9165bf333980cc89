import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr } from '#model/ip.ts';
import { markWaysBack, planWaysBack } from './ways-back.ts';

const rule = (source: string, table: number, priority = 32_000) => ({ source: parseCidr(source), table, priority });

test('each table has a bit of the mark, and the first rule that leads to it stands for the others', () => {
  const rules = [
    rule('203.0.113.11/32', 102, 100),
    rule('203.0.113.0/24', 102, 200),
    rule('198.51.100.5/32', 101, 300),
    rule('fd03::11/128', 102, 400),
  ];
  assert.deepEqual(planWaysBack({ rules, links: ['eth0', 'eth1'] }), {
    rule: [
      { netns: '', family: 4, mark: 0x0200_0000, table: 102, priority: 100 },
      { netns: '', family: 4, mark: 0x0100_0000, table: 101, priority: 300 },
      { netns: '', family: 6, mark: 0x0200_0000, table: 102, priority: 400 },
    ],
  });
  const text = markWaysBack({ rules, links: ['eth0', 'eth1'] });
  assert.match(text, /fib daddr oifname \{ "eth0", "eth1" \} goto way_back/);
  assert.deepEqual(text.match(/ct original .*/g), [
    'ct original ip daddr 203.0.113.11/32 meta mark set meta mark | 0x2000000 accept',
    'ct original ip daddr 203.0.113.0/24 meta mark set meta mark | 0x2000000 accept',
    'ct original ip daddr 198.51.100.5/32 meta mark set meta mark | 0x1000000 accept',
    'ct original ip6 daddr fd03::11/128 meta mark set meta mark | 0x2000000 accept',
  ]);
});

test('without such rules there is nothing, and what leads to a fifth table is left to the main one', () => {
  assert.deepEqual([planWaysBack({ rules: [], links: [] }), markWaysBack({ rules: [], links: [] })], [{ rule: [] }, '']);
  const rules = [5, 4, 3, 2, 1].map((table) => rule(`203.0.113.${table}/32`, table));
  const planned = planWaysBack({ rules, links: ['eth0'] }).rule ?? [];
  assert.deepEqual(
    planned.map(({ table }) => table),
    [4, 3, 2, 1],
  );
  assert.doesNotMatch(markWaysBack({ rules, links: ['eth0'] }), /203\.0\.113\.5/);
});

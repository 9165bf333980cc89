import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readChains } from './forwarding.ts';

test('rules belong into the chains that can let our links through, and nowhere when nothing stops them', () => {
  const cases: [string, ReturnType<typeof readChains>['places']][] = [
    ['', []],
    ['-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n', []],
    ['-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n', [{ chain: 'FORWARD' }]],
    [
      '-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n',
      [{ chain: 'DOCKER-USER' }, { chain: 'FORWARD', isLast: true }],
    ],
    ['-P FORWARD DROP\n-N DOCKER-USER\n', [{ chain: 'FORWARD' }]],
  ];
  for (const [listing, places] of cases) assert.deepEqual(readChains(listing).places, places, listing);
});

test('rules of ours are known by their comment alone', () => {
  const listing = [
    '-P FORWARD DROP',
    '-A FORWARD -i cw+ -m comment --comment causeway -j ACCEPT',
    '-A FORWARD -i cw+ -j ACCEPT',
    '-A FORWARD -m comment --comment "causeway of mine" -j ACCEPT',
    '-A OTHER -o cw+ -m comment --comment "causeway" -j ACCEPT',
  ].join('\n');
  assert.deepEqual(readChains(listing).rules, [
    { chain: 'FORWARD', rule: '-i cw+ -m comment --comment causeway -j ACCEPT' },
    { chain: 'OTHER', rule: '-o cw+ -m comment --comment "causeway" -j ACCEPT' },
  ]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyDesired, type Desired } from '#model/desired.ts';
import { frontsOf, isNotedStale, isOfFronts, mayNoteStale, staleConnections } from './stale-connections.ts';

/** `set key`, `set key = value` or, of a row, `set key = value, value`, as in the plan. */
const desired = (...lines: readonly string[]): Desired => ({
  ...emptyDesired,
  element: lines.map((line) => {
    const [, set = '', key = '', value] = /^(\S+) (.*?)(?: = (.*))?$/.exec(line) ?? [];
    const named = { netns: '', table: 'causeway', set, key };
    if (value === undefined) return named;
    return set.includes('backends') ? { ...named, values: value.split(', ') } : { ...named, value };
  }),
});
const front = (protocol: string, ...backends: readonly string[]): string[] => [
  `fronts4 10.96.0.5 . ${protocol} . 53`,
  ...(backends.length === 0 ? [] : [`backends4 10.96.0.5 . ${protocol} . 53 = ${backends.map((ip) => `${ip} . 5353`).join(', ')}`]),
];
const sticky = (...backends: readonly string[]): string[] => [
  ...front('tcp', ...backends),
  'stays4 10.96.0.5 . tcp . 53 = goto remember_60',
];
const change = (before: readonly string[] | undefined, now: readonly string[]) =>
  staleConnections(before === undefined ? undefined : frontsOf(desired(...before)), frontsOf(desired(...now)));
const selected = { destination: '10.96.0.5', destinationPort: 53 };

const rows: readonly (readonly [string, readonly string[] | undefined, readonly string[], readonly object[]])[] = [
  ['no change cuts nothing', front('udp', '10.0.0.1'), front('udp', '10.0.0.1'), []],
  [
    'of UDP what is answered by anybody but the backends',
    front('udp', '10.0.0.1', '10.0.0.2'),
    front('udp', '10.0.0.2'),
    [{ protocol: 'udp', ...selected, except: new Set(['10.0.0.2 . 5353']) }],
  ],
  ['of SCTP as well', front('sctp', '10.0.0.1'), front('sctp'), [{ protocol: 'sctp', ...selected, except: new Set() }]],
  ['of TCP nothing', front('tcp', '10.0.0.1', '10.0.0.2'), front('tcp', '10.0.0.2'), []],
  [
    'where there was no backend before, what was never translated',
    front('udp'),
    front('udp', '10.0.0.1'),
    [{ protocol: 'udp', ...selected, except: new Set(['10.0.0.1 . 5353']) }],
  ],
  ['or no service', [], front('udp', '10.0.0.1'), [{ protocol: 'udp', ...selected, except: new Set(['10.0.0.1 . 5353']) }]],
  [
    'at the start all that is wrong',
    undefined,
    front('udp', '10.0.0.1'),
    [{ protocol: 'udp', ...selected, except: new Set(['10.0.0.1 . 5353']) }],
  ],
  [
    'of a service that is gone what was translated',
    front('udp', '10.0.0.1'),
    [],
    [{ protocol: 'udp', ...selected, replySource: '10.0.0.1', replySourcePort: 5353 }],
  ],
  [
    'backends for others count as well',
    front('udp', '10.0.0.1'),
    [...front('udp', '10.0.0.1'), 'outer_backends4 10.96.0.5 . udp . 53 = 10.0.0.9 . 5353'],
    [{ protocol: 'udp', ...selected, except: new Set(['10.0.0.1 . 5353', '10.0.0.9 . 5353']) }],
  ],
];
for (const [what, before, now, expected] of rows) {
  test(what, () => assert.deepEqual(change(before, now), expected));
}

test('noted clients are looked through when a backend of theirs may have gone', () => {
  const may = (before: readonly string[] | undefined, now: readonly string[]): boolean =>
    mayNoteStale(before === undefined ? undefined : frontsOf(desired(...before)), frontsOf(desired(...now)));
  const both = sticky('10.0.0.1', '10.0.0.2');
  assert.deepEqual(
    [may(undefined, both), may(both, both), may(both, sticky('10.0.0.1')), may(sticky('10.0.0.1'), both), may(both, []), may([], both)],
    [true, false, true, false, true, true],
  );
  assert.equal(may(undefined, front('tcp', '10.0.0.1')), false);
  const fronts = frontsOf(desired(...both));
  const noted = (client: string, place: string, value: string): boolean => isNotedStale(fronts, { key: `${client} . ${place}`, value });
  assert.deepEqual(
    [
      noted('10.9.9.9', '10.96.0.5 . tcp . 53', '10.0.0.2 . 5353'),
      noted('10.9.9.9', '10.96.0.5 . tcp . 53', '10.0.0.3 . 5353'),
      noted('10.9.9.9', '10.96.0.9 . tcp . 53', '10.0.0.2 . 5353'),
    ],
    [false, true, true],
  );
});

test('only what anything is remembered of has a say', () => {
  const before = frontsOf(desired(...front('udp', '10.0.0.1'), ...sticky('10.0.0.1')));
  const concerns = (...lines: readonly string[]): boolean => desired(...lines).element.some((one) => isOfFronts(one, before));
  assert.deepEqual(
    [
      concerns(...front('udp', '10.0.0.9')),
      concerns(...front('tcp', '10.0.0.9')),
      concerns('stays4 10.96.0.7 . tcp . 53 = goto remember_60'),
      concerns('fronts4 10.96.0.6 . tcp . 53', 'backends4 10.96.0.6 . tcp . 53 = 10.0.0.9 . 53'),
      concerns('members4 "cwe1" . 0a:00:00:00:00:01 . 10.0.0.1'),
    ],
    [true, true, true, false, false],
  );
});

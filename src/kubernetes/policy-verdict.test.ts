// What has become of a policy, by what hosts have told.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HostReport } from './host-policies.ts';
import { HostReports, type JudgedPolicy } from './policy-verdict.ts';

const policy: JudgedPolicy = {
  key: 'NetworkPolicy shop/web',
  kind: 'np',
  generation: 2,
  since: 100,
  problems: [],
  isServed: true,
  isStaged: false,
};
const told = (at: number, generation?: number, problem?: string): HostReport => ({
  inForce: generation === undefined ? {} : { [policy.key]: generation },
  known: { np: at },
  hostEndpoints: {},
  ...(problem === undefined ? {} : { problem }),
});

/** `inForce/needed reasons: message of the second condition`. */
function verdictOf(reports: Readonly<Record<string, HostReport>>, more: Partial<JudgedPolicy> = {}): string {
  const hosts = new HostReports(['a', 'b', 'c'], new Map(Object.entries(reports)));
  const { inForce, needed, conditions } = hosts.verdict({ ...policy, ...more });
  const said = conditions.map(({ type, status, reason }) => `${type}=${status},${reason}`).join(' ');
  return `${inForce}/${needed} ${said}: ${conditions[1]?.message}`;
}

const fine = 'Accepted=True,Accepted';
const rows: readonly (readonly [string, Readonly<Record<string, HostReport>>, string])[] = [
  [
    'hosts that have read it and do not name it do not need it',
    { a: told(100, 2), b: told(150, 2), c: told(100) },
    `2/2 ${fine} InForce=True,InForce: It is in force wherever it selects somebody`,
  ],
  [
    'where it selects nobody',
    { a: told(100), b: told(150), c: told(100) },
    `0/0 ${fine} InForce=True,SelectsNothing: Every host has read it, and it selects nothing on any`,
  ],
  [
    'a host that has not read so far may need it, and one of an earlier generation does not have it',
    { a: told(100, 2), b: told(99), c: told(99, 1) },
    `1/3 ${fine} InForce=False,Pending: Not yet confirmed by b, c`,
  ],
  [
    'hosts that have told nothing have confirmed nothing; those that are no nodes do not count',
    { gone: told(100, 2) },
    `0/3 ${fine} InForce=False,Pending: Not yet confirmed by a, b, c`,
  ],
  [
    'what a kernel refuses is said',
    { a: told(100, 2), b: told(99, 1, 'Cannot load'), c: told(100) },
    `1/2 ${fine} InForce=False,Refused: b: Cannot load`,
  ],
  [
    'a host that has read another sort only',
    { a: told(100, 2), b: told(100), c: { inForce: {}, known: { cnp: 500 }, hostEndpoints: {} } },
    `1/2 ${fine} InForce=False,Pending: Not yet confirmed by c`,
  ],
];
for (const [what, reports, expected] of rows) test(what, () => assert.equal(verdictOf(reports), expected));

test('many hosts that are behind are counted, not named', () => {
  const hosts = new HostReports(
    Array.from({ length: 9 }, (_, index) => `h${index}`),
    new Map(),
  );
  assert.equal(hosts.verdict(policy).conditions[1]?.message, 'Not yet confirmed by h0, h1, h2 and 6 more');
});

test('what is wrong with it is told by its fields', () => {
  const problems = [
    { field: 'spec.a', reason: 'Unsupported', message: 'This is new' },
    { field: 'spec.b', reason: 'Invalid', message: 'This is odd' },
  ] as const;
  const reports = { a: told(100), b: told(100), c: told(100) };
  assert.match(verdictOf(reports, { problems: problems.slice(0, 1) }), /^0\/0 Accepted=False,Unsupported InForce=True/);
  assert.match(verdictOf(reports, { problems, isServed: false }), /^0\/0 Accepted=False,Invalid InForce=False,NotAccepted/);
  assert.match(verdictOf({ ...reports, a: told(100, 2) }, { isStaged: true }), /^1\/1 Accepted=True,Accepted InForce=False,Staged/);
  const hosts = new HostReports([], new Map());
  assert.equal(hosts.verdict({ ...policy, problems }).conditions[0]?.message, 'spec.a: This is new. spec.b: This is odd');
});

test('a thousand policies over a thousand hosts are judged in a moment', () => {
  const keys = Array.from({ length: 1000 }, (_, index) => `NetworkPolicy n/p${index}`);
  const report = (index: number): HostReport => ({
    inForce: Object.fromEntries(keys.filter((_, number) => number % 50 === index % 50).map((key) => [key, 1])),
    known: { np: 5 },
    hostEndpoints: {},
  });
  const all = new Map(Array.from({ length: 1000 }, (_, index): [string, HostReport] => [`h${index}`, report(index)]));
  const hosts = new HostReports(all.keys(), all);
  const verdicts = keys.map((key) => hosts.verdict({ ...policy, key, generation: 1, since: 5 }));
  assert.ok(verdicts.every(({ inForce, needed }) => inForce === 20 && needed === 20));
});

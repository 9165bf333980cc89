import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type JudgedPacket, Ruleset } from './filter-verdict.ts';

const out: JudgedPacket = { hook: 'forward', family: 4, iifname: 'cwu1', oifname: 'eth0', protocol: 'tcp', isTranslated: false };
const place = { family: 'inet', table: 'filter' };
const meta = (key: string, right: string) => ({ match: { op: '==', left: { meta: { key } }, right } });
const ct = (key: string, right: string) => ({ match: { op: 'in', left: { ct: { key } }, right } });
const field = (protocol: string, name: string, right: number | string) => ({
  match: { op: '==', left: { payload: { protocol, field: name } }, right },
});
const accept = { accept: null };
const reject = { reject: { type: 'icmpx', expr: 'admin-prohibited' } };

type Statement = ConstructorParameters<typeof Ruleset>[0][number];
const rule = (chain: string, ...expr: Statement[]): Statement => ({ rule: { ...place, chain, expr } });

function drops(packet: JudgedPacket, policy: string, ...rules: Statement[]): boolean {
  const chain = { chain: { ...place, name: 'forward', type: 'filter', hook: packet.hook, prio: 0, policy } };
  return new Ruleset([chain, ...rules]).chainsThatDrop(packet).length > 0;
}

const cases: readonly (readonly [what: string, isDropped: boolean, packet: JudgedPacket, policy: string, ...rules: Statement[]])[] = [
  ['a policy of accept', false, out, 'accept'],
  ['a policy of drop', true, out, 'drop'],
  ['what is established passes', true, out, 'drop', rule('forward', ct('state', 'established'), accept)],
  ['our links pass', false, out, 'drop', rule('forward', meta('iifname', 'cw*'), accept)],
  ['other links pass', true, out, 'drop', rule('forward', meta('iifname', 'br0'), accept)],
  ['addresses pass, which are not known', false, out, 'drop', rule('forward', field('ip', 'saddr', '10.0.0.1'), accept)],
  ['addresses of the other family pass', true, out, 'drop', rule('forward', field('ip6', 'saddr', '2001:db8::1'), accept)],
  ['a port of the other protocol passes', true, out, 'drop', rule('forward', field('udp', 'dport', 53), accept)],
  ['what iptables keeps in its own form passes', false, out, 'drop', rule('forward', { xt: { type: 'match', name: 'comment' } }, accept)],
  ['what is published passes', false, { ...out, isTranslated: true }, 'drop', rule('forward', ct('status', 'dnat'), accept)],
  ['the last rule rejects', true, out, 'accept', rule('forward', reject)],
  ['a chain that is called rejects', true, out, 'accept', rule('forward', { jump: { target: 'zone' } }), rule('zone', reject)],
  [
    'a chain returns from what it is told of',
    false,
    out,
    'accept',
    rule('forward', { jump: { target: 'zone' } }),
    rule('zone', { return: null }),
  ],
  [
    'a map knows the link',
    false,
    out,
    'drop',
    rule('forward', { vmap: { key: { meta: { key: 'iifname' } }, data: { set: [['cwu1', accept]] } } }),
  ],
];

test('what the rules of others are certain to drop is told, and nothing else', () => {
  for (const [what, isDropped, packet, policy, ...rules] of cases) assert.equal(drops(packet, policy, ...rules), isDropped, what);
});

const input = (policy: string, ...rules: Statement[]): readonly Statement[] => [
  { chain: { ...place, name: 'input', type: 'filter', hook: 'input', prio: 0, policy } },
  ...rules,
];
const loopback = {
  match: { op: '==', left: { payload: { protocol: 'ip', field: 'daddr' } }, right: { prefix: { addr: '127.0.0.0', len: 8 } } },
};
const marked = { match: { op: '==', left: { '&': [{ meta: { key: 'mark' } }, 32_768] }, right: 32_768 } };

test('whether what comes in by a link may be dropped is not asked of rules for other links, loopback addresses and marks', () => {
  const may: readonly (readonly [what: string, is: boolean, policy: string, ...rules: Statement[]])[] = [
    ['no rules', false, 'accept'],
    ['a policy of drop', true, 'drop', rule('input', accept)],
    ['another link', false, 'accept', rule('input', meta('iifname', 'eth1'), { drop: null })],
    ['a port', true, 'accept', rule('input', meta('iifname', 'eth0'), field('udp', 'dport', 8472), { drop: null })],
    ['what is invalid', false, 'accept', rule('input', ct('state', 'invalid'), { drop: null })],
    [
      "kubelet's",
      false,
      'accept',
      rule('input', { jump: { target: 'own' } }),
      rule('own', loopback, { drop: null }),
      rule('own', marked, { drop: null }),
    ],
    ['a chain that is called', true, 'accept', rule('input', { jump: { target: 'own' } }), rule('own', reject)],
    [
      'a chain that a map calls',
      true,
      'accept',
      rule('input', { vmap: { key: { meta: { key: 'iifname' } }, data: { set: [['eth0', { goto: { target: 'own' } }]] } } }),
      rule('own', reject),
    ],
  ];
  for (const [what, is, policy, ...rules] of may)
    assert.deepEqual(new Ruleset(input(policy, ...rules)).chainsThatMayDrop('eth0'), is ? ['inet filter input'] : [], what);
});

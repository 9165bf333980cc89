import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { commandOf, ensureForwarding, listForwarding, removeForwarding } from './forwarding.ts';

mustBeIsolated();

const programs = ['iptables', 'ip6tables'];
const skip = programs.some((program) => spawnSync(program, ['-S']).status !== 0) ? 'no iptables here' : false;

function run(program: string, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

test('nothing is added where nothing stops us', { skip }, () => {
  assert.deepEqual(ensureForwarding(), []);
  assert.deepEqual(listForwarding(), []);
});

test('a policy of DROP is opened for our links, once, and closed again', { skip }, () => {
  for (const program of programs) run(program, '-P', 'FORWARD', 'DROP');
  assert.equal(ensureForwarding().length, 4);
  assert.deepEqual(ensureForwarding(), []);
  assert.equal(listForwarding().length, 4);
  assert.match(run('iptables', '-S', 'FORWARD'), /-A FORWARD -i cw\+ -m comment --comment causeway -j ACCEPT/);
  run('iptables', '-D', 'FORWARD', '1');
  assert.equal(ensureForwarding().length, 1, 'what somebody took away comes back');
  removeForwarding();
  assert.deepEqual(listForwarding(), []);
  assert.equal(run('ip6tables', '-S', 'FORWARD').trim(), '-P FORWARD DROP');
});

test("with Docker's chains the rules go where Docker leaves them alone", { skip }, () => {
  for (const program of programs) {
    run(program, '-N', 'DOCKER-USER');
    run(program, '-A', 'DOCKER-USER', '-j', 'RETURN');
    run(program, '-I', 'FORWARD', '-j', 'DOCKER-USER');
  }
  assert.deepEqual([...new Set(ensureForwarding().map(({ chain }) => chain))], ['DOCKER-USER', 'FORWARD']);
  assert.match(run('iptables', '-S', 'DOCKER-USER'), /causeway -j ACCEPT\n-A DOCKER-USER -j RETURN/, 'before what is there');
  assert.match(run('iptables', '-S', 'FORWARD'), /-A FORWARD -j DOCKER-USER\n.*causeway -j ACCEPT\n.*causeway -j ACCEPT\n$/, 'behind it');
  // As dockerd does whenever it makes a network.
  run('iptables', '-D', 'FORWARD', '-j', 'DOCKER-USER');
  assert.deepEqual(ensureForwarding(), []);
  run('iptables', '-I', 'FORWARD', '-j', 'DOCKER-USER');
  assert.deepEqual(ensureForwarding(), []);
  removeForwarding();
  assert.deepEqual(listForwarding(), []);
});

test('among many rules of others ours are found', { skip }, () => {
  const rules = Array.from(
    { length: 20_000 },
    (_, number) => `-A OTHERS -s 10.${number >> 8}.${number & 255}.1/32 -m comment --comment ${'x'.repeat(60)} -j RETURN`,
  );
  const input = ['*filter', ':OTHERS - [0:0]', ...rules, 'COMMIT', ''].join('\n');
  assert.equal(spawnSync('iptables-restore', ['--noflush'], { input }).status, 0);
  assert.equal(ensureForwarding().length, 8);
  assert.deepEqual(ensureForwarding(), []);
});

/** What it prints. */
const nft = (text: string): string => {
  const { status, stdout, stderr } = spawnSync('nft', ['-f', '-'], { encoding: 'utf8', input: text });
  assert.equal(status, 0, stderr);
  return stdout;
};

const chainOf = (family: string, policy: string): string => `
table ${family} docker-bridges {
  map filter-forward-in-jumps { type ifname : verdict; }
  chain filter-FORWARD {
    type filter hook forward priority filter; policy ${policy};
    oifname vmap @filter-forward-in-jumps
  }
}
`;

const ours = (): string[] => ensureForwarding().flatMap((rule) => (rule.program === 'nft' ? [commandOf(rule)] : []));

test('in the chain that dockerd makes when it speaks nftables itself, with that policy and no other', () => {
  removeForwarding();
  nft(chainOf('ip', 'drop') + chainOf('ip6', 'accept'));
  assert.deepEqual(ours(), [
    'nft insert rule ip docker-bridges filter-FORWARD iifname "cw*" accept comment "causeway"',
    'nft insert rule ip docker-bridges filter-FORWARD oifname "cw*" accept comment "causeway"',
  ]);
  assert.deepEqual(ours(), []);
  assert.match(
    nft('list chain ip docker-bridges filter-FORWARD'),
    /policy drop;\s+oifname "cw\*" accept comment "causeway"\s+iifname "cw\*" accept comment "causeway"\s+oifname vmap/,
  );
  // dockerd makes its table anew when it starts.
  nft(`delete table ip docker-bridges\n${chainOf('ip', 'drop')}`);
  assert.equal(ours().length, 2);
  assert.equal(listForwarding().filter(({ program }) => program === 'nft').length, 2);
  removeForwarding();
  assert.deepEqual(listForwarding(), []);
});

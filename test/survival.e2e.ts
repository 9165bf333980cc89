// What containers notice when parts of the system stop, crash or stay away: nothing, or as little as the kernel allows. Traffic
// is a stream of one packet a millisecond between two hosts, and every one of them is counted.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { killAgent, killController, stopAgent, stopController } from '#lab/causeway.ts';
import { docker, killDockerd, startDockerd, stopDockerd } from '#lab/engine.ts';
import { until } from '#lab/until.ts';
import type { Counted } from './answered.ts';
import { type Bed, entering, healthy, makeBed, pings, reaches } from './bed.ts';
import { pingingFrom } from './carriage-streams.ts';

let bed: Bed;
const patience = { timeoutMs: 120_000, intervalMs: 200 };
const networks = { plain: [], secret: ['--encrypted'] } as const;
const names = ['plain', 'secret'] as const;

const addressOf = (index: number, container: string): Promise<string> =>
  bed.docker(index, ['inspect', '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', container]);

const isReached = (from: string, to: string): Promise<boolean> => pings(bed.host(1), from, to);

before(async () => {
  bed = await makeBed({ name: 'e2e-survival', hosts: 3 });
  for (const name of names) {
    await bed.network(name, ...networks[name]);
    await bed.run(1, `${name}1`, name, '--restart=always');
    await bed.run(2, `${name}2`, name, '--restart=always');
    const there = await addressOf(2, `${name}2`);
    await until(`${name} to carry packets`, () => isReached(`${name}1`, there), patience);
  }
});
after(() => bed[Symbol.asyncDispose]());

/** What a stream from host1 to host2 loses while `work` goes on. */
async function during(name: string, work: () => Promise<void>): Promise<Counted> {
  const enter = await entering(bed.host(1), `${name}1`);
  const stop = pingingFrom(bed.host(1), (line) => [...enter, 'sh', '-c', line], await addressOf(2, `${name}2`));
  await work();
  return await stop();
}

for (const name of names) {
  test(`no packet of ${name} is lost while both agents and the controller stop, are killed, and come back`, async () => {
    const { sent, lost } = await during(name, async () => {
      for (const stop of [stopAgent, killAgent]) {
        await Promise.all([stop(bed.host(1)), stop(bed.host(2))]);
        await Promise.all([bed.startAgent(bed.host(1)), bed.startAgent(bed.host(2))]);
      }
      await killController(bed.lab.controller);
      await bed.startController();
    });
    await Promise.all([healthy(bed.host(1)), healthy(bed.host(2))]);
    assert.equal(lost, 0);
    assert.ok(sent > 1000, `only ${sent} packets were sent`);
  });
}

test('without a controller containers come, talk, resolve names on their host and go; it is told when it is back', async () => {
  await stopController(bed.lab.controller);
  await bed.run(1, 'lonely', 'plain');
  const there = await addressOf(2, 'plain2');
  await until('a new container to reach an old one on its own host', () => isReached('lonely', 'plain1'), patience);
  await reaches(bed.host(1), 'plain1', there);
  await bed.docker(1, ['rm', '--force', 'lonely']);
  await bed.run(1, 'late', 'plain');
  await bed.startController();
  await until('the new container to be known', async () => (await bed.causeway('endpoint', 'ls')).includes('late') || undefined, patience);
  await until('the new container to reach the other host', () => isReached('late', there), patience);
  assert.equal((await bed.causeway('endpoint', 'ls')).includes('lonely'), false);
  await bed.docker(1, ['rm', '--force', 'late']);
});

for (const [how, end] of [
  ['stops', stopDockerd],
  ['crashes', killDockerd],
] as const) {
  test(`an engine that ${how} and comes back has its containers on their networks again`, async () => {
    await end(bed.host(2));
    await startDockerd(bed.host(2));
    await until(
      'the container to run again',
      async () => (await docker(bed.host(2), ['ps', '--quiet', '--filter', 'name=plain2'])) || undefined,
      patience,
    );
    for (const name of names) {
      await until(`${name} to carry packets again`, async () => isReached(`${name}1`, await addressOf(2, `${name}2`)), patience);
    }
    const listed = JSON.parse(await bed.causeway('endpoint', 'ls', '--output', 'json')) as { host: string }[];
    await until(
      'two endpoints on the host, and no more',
      async () => {
        const now = JSON.parse(await bed.causeway('endpoint', 'ls', '--output', 'json')) as { host: string }[];
        return now.filter(({ host }) => host === 'host2').length === 2 || undefined;
      },
      { timeoutMs: 120_000, intervalMs: 1000 },
    );
    assert.ok(listed.length >= 2);
  });
}

test('a host that was switched off and on has its containers on their networks again', async () => {
  await bed.lab.reboot(bed.host(2));
  await healthy(bed.host(2));
  for (const name of names) {
    await until(
      `${name} to carry packets again`,
      async () => isReached(`${name}1`, await addressOf(2, `${name}2`).catch(() => '192.0.2.1')),
      patience,
    );
  }
});

test('a host that never returns is removed, and what it held is free', async () => {
  await bed.run(3, 'gone', 'plain');
  const address = await addressOf(3, 'gone');
  await until('it to be reached', () => isReached('plain1', address), patience);
  await bed.lab.host('host3').powerOff();
  await bed.causeway('host', 'remove', 'host3', '--yes');
  await until('its block to be free', async () => !(await bed.causeway('pool', 'ls')).includes('host3') || undefined, patience);
  await until(
    'the others to have forgotten it',
    async () => {
      const { stdout } = await bed.host(1).exec(['sh', '-c', 'for n in $(ls /run/netns); do ip netns exec $n ip route; done'], {});
      return !stdout.includes('via 100.126.0.3 ') || undefined;
    },
    patience,
  );
  await until('what it had to be gone', async () => !(await bed.causeway('endpoint', 'ls')).includes('gone'), patience);
});

// Two machines with one identity, or one name: the first goes on untouched, the second is told what to do.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { makeIdentity } from '#api/identity.ts';
import { schemas } from '#api/schemas.ts';
import { type Answer, type Bed, endpointBody, type HostAsker, openBed, reportBody } from './bed.ts';
import { silenceMs } from './speakers.ts';
import { createToken } from './tokens.ts';

const failing = v.object({ status: v.object({ failing: v.array(v.string()) }) });

/** A clock that only moves when told. */
class Scene {
  readonly clock = { ms: Date.parse('2026-01-01T00:00:00Z') };
  readonly bed: Bed;
  readonly a: HostAsker;
  constructor(bed: Bed, a: HostAsker, clock: { ms: number }) {
    this.bed = bed;
    this.a = a;
    this.clock = clock;
  }

  pass(ms: number): void {
    this.clock.ms += ms;
  }

  async ask(line: string, boot: string | undefined, body?: unknown): Promise<Answer> {
    await this.bed.settled();
    return this.bed.ask(boot === undefined ? this.a : { ...this.a, boot }, line, { body });
  }

  report(boot?: string): Promise<Answer> {
    return this.ask('PUT /v1/hosts/a/report', boot, reportBody());
  }
}

async function openScene(): Promise<Scene> {
  const clock = { ms: Date.parse('2026-01-01T00:00:00Z') };
  const bed = await openBed({ now: () => new Date(clock.ms) });
  const scene = new Scene(bed, await bed.host('a'), clock);
  scene.pass(silenceMs + 1);
  return scene;
}

test('a second machine with the certificate is refused everything while the first reports, and the first is told', async () => {
  const scene = await openScene();
  await using bed = scene.bed;
  assert.equal((await scene.report('one')).code, '');
  const network = await bed.must(await bed.role('admin'), 'POST /v1/networks', schemas.networks, { body: { name: 'red' } });
  scene.pass(10_000);
  for (const boot of ['two', undefined]) {
    for (const [line, body] of [
      ['PUT /v1/hosts/a/report', reportBody()],
      ['PUT /v1/endpoints/endpoint0001', endpointBody('a', network.id)],
      ['GET /v1/watch', undefined],
      ['GET /v1/networks', undefined],
    ] as const) {
      const { code, body: problem } = await scene.ask(line, boot, body);
      assert.equal(code, 'stale', `${boot}: ${line}`);
      assert.match(JSON.stringify(problem), /two machines have one identity.*empty its state directory/);
    }
  }
  const told = await scene.report('one');
  assert.match(v.parse(failing, told.body).status.failing.join(), /Another machine has shown the certificate/);
  scene.pass(600_001);
  assert.deepEqual(v.parse(failing, (await scene.report('one')).body).status.failing, []);
});

test('a machine that was started anew waits until the old one has fallen silent, and then has the host to itself', async () => {
  const scene = await openScene();
  await using bed = scene.bed;
  await scene.report('one');
  await bed.settled();
  await using watching = await bed.watch({ ...scene.a, boot: 'one' });
  scene.pass(silenceMs - 1);
  assert.equal((await scene.report('two')).code, 'stale');
  scene.pass(2);
  assert.equal((await scene.report('two')).code, '');
  await watching.ended;
  assert.equal((await scene.report('one')).code, 'stale');
});

test('a controller that has just started lets nobody take over before the right one could come back', async () => {
  const scene = await openScene();
  await using bed = scene.bed;
  await scene.report('one');
  scene.pass(3_600_000);
  await using later = await openBed({ store: bed.store, now: () => new Date(scene.clock.ms) });
  const report = async (boot: string): Promise<string> =>
    (await later.ask({ ...scene.a, boot }, 'PUT /v1/hosts/a/report', { body: reportBody() })).code;
  assert.deepEqual([await report('two'), await report('one'), await report('two')], ['stale', '', 'stale']);
});

const joinAs = async (bed: Bed, host: string, machine: string, named?: string): Promise<Answer> => {
  const { token } = await createToken(bed.controller.control, { type: 'join', ...(named === undefined ? {} : { host: named }) });
  const { csr } = await makeIdentity(host);
  return bed.ask({}, 'POST /v1/join', { body: { token, csr, host, version: '0.0.0', machine } });
};

test('a name that another machine has is not given away while that one is heard', async () => {
  const clock = { ms: Date.parse('2026-01-01T00:00:00Z') };
  await using bed = await openBed({ now: () => new Date(clock.ms) });
  assert.equal((await joinAs(bed, 'a', 'first')).code, '');
  const refused = await joinAs(bed, 'a', 'second');
  assert.deepEqual([refused.code, refused.field], ['exists', 'host']);
  assert.match(JSON.stringify(refused.body), /another name: causeway agent --host NAME/);
  assert.equal((await joinAs(bed, 'a', 'first')).code, '', 'the same machine joins again');
  assert.equal((await joinAs(bed, 'a', 'second', 'a')).code, '', 'a token for the name means it');
  clock.ms += silenceMs + 1;
  assert.equal((await joinAs(bed, 'a', 'third')).code, '', 'a host that is silent is replaced');
});

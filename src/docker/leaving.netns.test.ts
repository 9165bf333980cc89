// A real dockerd from whose host the agent is taken: its list has none of our networks after that, and nobody else lost one.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { missing, startBed } from './bed.ts';
import { leaveEngine } from './leaving.ts';

mustBeIsolated();

const reason = missing();
const plugin = '/run/docker/plugins/causeway.sock';

describe('a real dockerd', { skip: reason ?? false, timeout: 800_000 }, () => {
  test('that loses its agent for good keeps none of its networks', async () => {
    await using bed = await startBed({ liveRestore: false });
    const leaving = { engine: `${bed.folder}/docker.sock`, plugin, driver: 'causeway' };
    const listed = async (): Promise<string[]> => (await bed.docker('network', 'ls', '--format', '{{.Name}}')).split('\n').toSorted();
    for (const name of ['red', 'blue']) await bed.docker('network', 'create', '-d', 'causeway', '--ipam-driver', 'causeway', name);
    await bed.docker('network', 'create', '-d', 'causeway', '--subnet', '10.9.0.0/24', 'others-addresses');
    await bed.docker('network', 'create', 'bridged');
    await bed.docker('run', '-d', '--name', 'user', '--network', 'blue', 'cw/box', 'sleep', '1000');
    const known = bed.agent.networks().map(({ id }) => id);
    assert.equal(known.length, 3);
    const all = await listed();
    await assert.rejects(leaveEngine(leaving), (error) => isFault(error, 'in-use') && /blue.*user/.test(error.message));
    assert.deepEqual(await listed(), all);

    await bed.docker('rm', '-f', 'user');
    await bed.stopPlugin();
    assert.deepEqual(await leaveEngine(leaving).then((names) => names.toSorted()), ['blue', 'others-addresses', 'red']);
    assert.deepEqual(await listed(), ['bridge', 'bridged', 'host', 'none']);
    assert.deepEqual(
      bed.agent.networks().map(({ id }) => id),
      known,
    );
    assert.equal(existsSync(plugin), false);
    assert.deepEqual(await leaveEngine(leaving), []);
    await bed.stopEngine();
    await bed.startEngine();
    assert.deepEqual(await listed(), ['bridge', 'bridged', 'host', 'none']);
  });

  test('that was restarted without its agent, so that it cannot remove networks by itself, does not keep them either', async () => {
    await using bed = await startBed({ liveRestore: false });
    const leaving = { engine: `${bed.folder}/docker.sock`, plugin, driver: 'causeway' };
    for (const name of ['red', 'blue']) await bed.docker('network', 'create', '-d', 'causeway', '--ipam-driver', 'causeway', name);
    await bed.stopPlugin();
    await bed.stopEngine();
    await bed.startEngine();
    assert.match(await bed.dockerFails('network', 'rm', 'red'), /failed deleting Network/);
    assert.deepEqual(await leaveEngine(leaving), ['blue']);
    assert.equal(await bed.docker('network', 'ls', '--quiet', '--filter', 'driver=causeway'), '');
    assert.equal(bed.agent.networks().length, 2);
  });

  test('that does not answer is told, where there is one', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'causeway-leaving-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const leaving = { engine: join(folder, 'docker.sock'), plugin: join(folder, 'causeway.sock'), driver: 'causeway' };
    assert.deepEqual(await leaveEngine(leaving), []);
    writeFileSync(leaving.engine, '');
    await assert.rejects(leaveEngine(leaving), (error) => isFault(error, 'unavailable') && /--engine none/.test(error.hint ?? ''));
  });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Magnum } from '#cloud/magnum.ts';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { Fault } from '#model/fault.ts';
import { gone } from './magnum-session.ts';
import type { Session } from './session.ts';

const cluster = (status: string): MagnumCluster => ({ status, name: 'web', reason: 'a volume is in use' }) as unknown as MagnumCluster;
const absent = new Fault('not-found', 'Cluster web could not be found.');
const invalid = new Fault('invalid', "Invalid input for field/attribute master_count. Value: '0'.");

/** What Magnum answers to one question after the other, the last one for ever; and what the user is told. */
async function waited(timeout: string, ...answers: readonly (MagnumCluster | Fault)[]): Promise<string> {
  let told = '';
  const session = { surroundings: { stderr: { write: (text: string) => (told += text) } } } as unknown as Session;
  const rest = [...answers];
  const magnum: Pick<Magnum, 'cluster'> = {
    cluster: () => {
      const answer = rest.length > 1 ? rest.shift() : rest[0];
      return answer instanceof Fault || answer === undefined ? Promise.reject(answer ?? absent) : Promise.resolve(answer);
    },
  };
  await gone(session, magnum, { id: 'web', timeout, intervalMs: 1 });
  return told;
}

test('a cluster that Magnum takes apart is waited for, also while Magnum says that it is invalid', async () => {
  assert.equal(await waited('10s', cluster('DELETE_IN_PROGRESS'), invalid, absent), 'status: DELETE_IN_PROGRESS\n');
  await assert.rejects(waited('1s', cluster('DELETE_IN_PROGRESS'), invalid), { code: 'timeout' });
  await assert.rejects(waited('10s', cluster('DELETE_FAILED')), { code: 'unavailable', message: /a volume is in use/ });
  await assert.rejects(waited('10s', new Fault('forbidden', 'no')), { code: 'forbidden' });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import type { CloudReport } from '#api/answers.ts';
import { Fault } from '#model/fault.ts';
import type { Network } from '#model/resources.ts';
import { Keeper } from './keeper.ts';
import { Neutron } from './neutron.ts';
import { CloudSession } from './session.ts';
import { cloudOf } from './server.fixture.ts';

/** A cloud without anything, or away; it counts how often somebody begins to look at it. */
class Away extends Neutron {
  looks = 0;
  fault: Fault | undefined = new Fault('unavailable', 'Neutron cannot be reached');

  override list(): Promise<never[]> {
    this.looks++;
    return Promise.reject(this.fault ?? new Fault('unsupported', 'no extensions'));
  }
}

async function keeping(work: (bed: { keeper: Keeper; neutron: Away; reports: CloudReport[]; networks: Network[] }) => Promise<void>) {
  await using session = new CloudSession(cloudOf('http://127.0.0.1:1'));
  const neutron = new Away(session);
  const reports: CloudReport[] = [];
  const networks: Network[] = [];
  const stop = new AbortController();
  const keeper = new Keeper({
    neutron,
    name: 'cw',
    scope: {},
    facts: () => ({ hosts: [makeHost(1)], networks, pools: [], blocks: [], endpoints: [], exposures: [] }),
    isLeading: () => true,
    tell: async (report) => void reports.push(report),
    carryInstead: async () => undefined,
    carryAsWanted: async () => undefined,
    place: async () => undefined,
    where: async () => 'here',
    intervalMs: 3_600_000,
    log: { info: () => undefined, warn: () => undefined },
    random: () => 0,
  });
  const running = keeper.run(stop.signal);
  try {
    await work({ keeper, neutron, reports, networks });
  } finally {
    stop.abort();
    await running;
  }
}

const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 10));
};

test('a cloud that is away is told, and changes do not hurry the next try', async () => {
  await keeping(async ({ keeper, neutron, reports, networks }) => {
    await until(() => reports.length === 1);
    assert.equal(reports[0]?.failure?.code, 'unavailable');
    for (let index = 0; index < 50; index++) {
      networks.push(makeNetwork(`n${index}`));
      keeper.kick();
    }
    await until(() => reports.length === 2);
    assert.equal(neutron.looks, 2);
    assert.equal(reports[1]?.failure?.since, reports[0]?.failure?.since);
  });
});

test('what is wrong with the wish or the rights is tried again as soon as something else is wished for', async () => {
  await keeping(async ({ keeper, neutron, reports, networks }) => {
    neutron.fault = undefined;
    await until(() => reports.length === 1);
    networks.push(makeNetwork('one'));
    keeper.kick();
    await until(() => reports.length === 2);
    assert.equal(reports[1]?.failure?.code, 'unsupported');
  });
});

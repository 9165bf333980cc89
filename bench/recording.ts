// What the programs record-*.ts share: the cloud of a lab that is up, as its demo project's member sees it, and where answers are kept.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLab } from '#lab/lab.ts';
import { demo, OpenStack } from '#lab/openstack.ts';
import type { Operator } from '#lab/openstack-operator.ts';

/** Of the lab that the command line names. */
export function labMember(): Operator {
  const [name = ''] = process.argv.slice(2);
  const lab = openLab(name);
  if (lab === undefined) throw new Error(`There is no lab ${name}`);
  return new OpenStack(lab).operator.as(demo);
}

export function keep(name: string, recorded: object): void {
  writeFileSync(join(import.meta.dirname, 'recorded', `${name}.json`), `${JSON.stringify(recorded, undefined, 2)}\n`);
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { choicesFor } from '#drivers/models.ts';
import { parseCidr } from '#model/ip.ts';
import type { ModelName } from '#model/resources.ts';
import { blockLengthFor } from './subnets.ts';

const rows: readonly [cidr: string, range: string | undefined, model: ModelName, chosen: number | undefined, length: number][] = [
  ['10.0.0.0/16', undefined, 'overlay', undefined, 27],
  ['10.0.0.0/24', undefined, 'overlay', undefined, 27],
  ['10.0.0.0/25', undefined, 'overlay', undefined, 28],
  ['10.0.0.0/28', undefined, 'overlay', undefined, 31],
  ['10.0.0.0/29', undefined, 'overlay', undefined, 32],
  ['10.0.0.0/32', undefined, 'overlay', undefined, 32],
  ['10.0.0.0/16', '10.0.0.64/29', 'overlay', undefined, 32],
  ['10.0.0.0/16', '10.0.0.0/17', 'overlay', undefined, 27],
  ['10.0.0.0/16', undefined, 'flannel', undefined, 24],
  ['10.0.0.0/24', undefined, 'flannel', undefined, 27],
  // Who chooses a length gets it, as far as it fits.
  ['10.0.0.0/24', undefined, 'overlay', 25, 25],
  ['10.0.0.0/26', undefined, 'overlay', 25, 26],
  ['fd00::/64', undefined, 'overlay', undefined, 120],
  ['fd00::/120', undefined, 'overlay', undefined, 123],
  ['fd00::/127', undefined, 'overlay', undefined, 128],
];
for (const [cidr, range, model, chosen, length] of rows) {
  test(`blocks of ${cidr}${range === undefined ? '' : ` from ${range}`}, ${model}${chosen === undefined ? '' : `, asked to be /${chosen}`}: /${length}`, () => {
    const choices = choicesFor(model, { blockLength4: chosen });
    assert.equal(blockLengthFor({ model, choices }, parseCidr(cidr), range === undefined ? undefined : parseCidr(range)), length);
  });
}

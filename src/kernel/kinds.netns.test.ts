// The contract against the kernel, with ip(8) as the second opinion, and what only the real kinds promise.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Foreign, kindContract } from './contract.ts';
import { createKinds, type RealKinds } from './kinds.ts';

const netnsDirectory = mkdtempSync(join(tmpdir(), 'causeway-netns-'));
let current: RealKinds | undefined;

function clean(): void {
  if (current === undefined) return;
  current.netns.remove(current.netns.list(''));
  current.link.remove(current.link.list(''));
  current[Symbol.dispose]();
  current = undefined;
}
after(clean);

function open(): RealKinds {
  clean();
  current = createKinds({ netnsDirectory });
  return current;
}

/** Runs a program inside a namespace. */
const within = (netns: string, ...words: string[]): string =>
  execFileSync('nsenter', [netns === '' ? '--net' : `--net=${netnsDirectory}/${netns}`, ...words], { encoding: 'utf8', stdio: 'pipe' });

kindContract('kernel', {
  open,
  put(foreign: Foreign) {
    if (foreign.what === 'link') {
      within(foreign.netns, 'ip', 'link', 'add', foreign.name, 'up', 'type', 'bridge');
    } else if (foreign.what === 'addr') {
      within(foreign.netns, 'ip', 'addr', 'add', foreign.address, 'dev', foreign.link);
    } else {
      within(foreign.netns, 'ip', 'route', 'add', foreign.destination, 'dev', foreign.link);
    }
  },
  has(foreign: Foreign) {
    if (foreign.what === 'link') return within(foreign.netns, 'ip', '-o', 'link').includes(`${foreign.name}:`);
    if (foreign.what === 'addr') return within(foreign.netns, 'ip', '-o', 'addr').includes(foreign.address);
    return within(foreign.netns, 'ip', 'route').includes(`${foreign.destination} dev ${foreign.link}`);
  },
});
void spawnSync;
void assert;
void test;

// Every driver on the real kernel.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { findBird } from '#kernel/bird.ts';
import { createKinds, type RealKinds } from '#kernel/kinds.ts';
import { probeWireguard } from '#kernel/wireguard.ts';
import { generateKeyPair } from '#kernel/wireguard-keys.ts';
import { driverContract } from './contract.ts';

mustBeIsolated();

const folder = mkdtempSync(join(tmpdir(), 'causeway-drivers-'));
const { privateKey } = generateKeyPair();
const wireguard = probeWireguard();
let current: RealKinds | undefined;

const ip = (...words: string[]): void => void execFileSync('ip', words);
ip('link', 'add', 'eth0', 'mtu', '1450', 'type', 'veth', 'peer', 'name', 'wire0', 'mtu', '1450');
ip('addr', 'add', '10.213.0.1/16', 'dev', 'eth0');
ip('addr', 'add', 'fd00:213::1/64', 'dev', 'eth0', 'nodad');
ip('link', 'set', 'eth0', 'up');
ip('link', 'set', 'wire0', 'up');

function reopen(): RealKinds {
  current?.[Symbol.dispose]();
  current = createKinds({
    netnsDirectory: join(folder, 'netns'),
    birdDirectory: join(folder, 'bird'),
    wireguard: { directory: join(folder, 'wireguard'), privateKey },
  });
  return current;
}

/** As an agent that has left every network, and without settings of the one before. */
function open(): RealKinds {
  const kinds = reopen();
  for (const name of ['bird', 'element', 'route', 'fdb', 'neigh', 'addr', 'link', 'table'] as const) {
    const kind = kinds[name] as { list(netns: string): unknown[]; remove(items: readonly unknown[]): unknown };
    kind.remove(['', ...kinds.netns.list('').map((item) => item.name)].flatMap((netns) => kind.list(netns)));
  }
  kinds.netns.remove(kinds.netns.list(''));
  return reopen();
}

after(() => {
  open()[Symbol.dispose]();
  execFileSync('umount', ['-l', join(folder, 'netns')], { stdio: 'ignore' });
  rmSync(folder, { recursive: true, force: true });
});

driverContract('kernel', {
  open,
  reopen,
  skip({ carry }) {
    if (carry === 'wireguard' && wireguard === 'none') return 'neither WireGuard in this kernel nor wireguard-go';
    return carry.startsWith('bgp') && findBird() === undefined ? 'missing: bird' : false;
  },
  shuffles: 1,
  every: 5,
});

// Addresses of services told by BGP, with real speakers: two hosts as the plan configures them, and a router of the fabric that is FRR.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Frr, hasFrr } from '#agent/frr.fixture.ts';
import { eventually as within, type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { findBird } from '#kernel/bird.ts';
import { defaultBgp } from '#model/bgp.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Service } from '#model/resources.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeFlatCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';
import { everyAddress } from './services.ts';

mustBeIsolated();

const skip = findBird() === undefined ? 'missing: bird' : hasFrr() ? false : 'missing: frr';
const options = { skip, timeout: 600_000 };
const network = { ...makeNetwork('aaaaaaaaaa', { model: 'calico' }), present: 'always' as const };
const hosts = [makeHost(1), makeHost(2)];
const {
  local: [a, b, c],
  snapshot,
} = makeFlatCluster(network, hosts, '/run/told');
const folder = mkdtempSync(join(tmpdir(), 'causeway-told-'));
chmodSync(folder, 0o755);
const [bound, alone, free] = ['203.0.113.7', '198.51.100.9', '203.0.113.8'].map((text) => parseIp(text));
const ranges = ['203.0.113.0/24', '198.51.100.9/32'].map((text) => parseCidr(text));
const everywhere = [a, c].map(({ endpoint: { addresses } }) => ({ ip: addresses[0] ?? assert.fail(), port: 7000 }));

let wire: Wire;
let places: NetnsHost[] = [];
let router: Place;
let frr: Frr;

const eventually = <T>(look: () => T | undefined | false, what: string): Promise<T> => within(look, what, 120_000);
const front = (ip = free, outer?: Service['outer']): Service => ({
  key: `${ip}`,
  ip: ip ?? assert.fail(),
  protocol: 'udp',
  port: 80,
  backends: everywhere,
  ...(outer === undefined ? {} : { outer }),
});

/** `here`: whether each of the hosts has an endpoint of the services that are bound to hosts with some. */
function apply(...here: readonly boolean[]): void {
  const peering = { of: {}, with: { ip: parseIp('10.213.9.9'), port: 179, asn: 65_001 }, fromHostAddress: true, nextHop: 'auto' as const };
  const bgp = { ...defaultBgp, services: ranges, peerings: [{ name: 'fabric', filters: [], ...peering }] };
  for (const [index, place] of places.entries()) {
    const outer = here[index] === true ? everywhere.slice(index, index + 1) : [];
    const services = [front(), front(bound, outer), front(alone, outer), { ...front(everyAddress[4], outer), port: 30_080 }];
    place.apply(plan(snapshot, index === 0 ? [a, b] : [c], hosts[index] ?? assert.fail(), { services, bgp }));
  }
}

/** By which hosts each destination is reached, as the router's kernel has it. */
function ways(): Record<string, string[]> {
  const text = router.run('ip', '-json', 'route', 'show', 'proto', 'bgp');
  const routes = JSON.parse(text) as { dst: string; gateway?: string; nexthops?: { gateway: string }[] }[];
  return Object.fromEntries(
    routes
      .filter(({ dst }) => !dst.startsWith('10.44.'))
      .map(({ dst, gateway, nexthops = [] }) => [dst, [gateway ?? [], nexthops.map((hop) => hop.gateway)].flat(2).toSorted()]),
  );
}
const [one, two] = ['10.213.0.1', '10.213.0.2'];
const text = (some: Record<string, string[]>): string =>
  Object.entries(some)
    .map((way) => JSON.stringify(way))
    .toSorted()
    .join(' ');
const until = (wanted: Record<string, string[]>): Promise<boolean> => {
  return eventually(() => text(ways()) === text(wanted), `${text(wanted)}, not ${text(ways())}`);
};

before(() => {
  if (skip !== false) return;
  wire = new Wire();
  places = [1, 2].map((index) => wire.host(`host-${index}`, [`10.213.0.${index}/16`]));
  router = wire.place('fabric', ['10.213.9.9/16', '192.0.2.1/24']);
  router.run('sysctl', '-qw', 'net.ipv4.ip_forward=1');
  for (const place of places) place.ip('route', 'add', 'default', 'via', '10.213.9.9');
  const neighbours = [one, two].map((ip) => `neighbor ${ip} remote-as 64512`).join('\n');
  const config = `router bgp 65001\nbgp router-id 10.213.9.9\nno bgp ebgp-requires-policy\n${neighbours}\n`;
  frr = new Frr(router, join(folder, 'fabric'), config);
  apply(true, false);
});
after(async () => {
  if (skip === false) {
    await frr[Symbol.asyncDispose]();
    wire[Symbol.dispose]();
  }
  rmSync(folder, { recursive: true, force: true });
});

test('ranges are told by every host, addresses that are bound to endpoints by those that have some', options, async () => {
  await until({ '203.0.113.0/24': [one, two], '203.0.113.7': [one], '198.51.100.9': [one] });
  apply(false, true);
  await until({ '203.0.113.0/24': [one, two], '203.0.113.7': [two], '198.51.100.9': [two] });
  apply(true, true);
  await until({ '203.0.113.0/24': [one, two], '203.0.113.7': [one, two], '198.51.100.9': [one, two] });
  apply(false, false);
  await until({ '203.0.113.0/24': [one, two] });
});

const stopped = (): number => places.reduce((sum, place) => sum + place.count('drained'), 0);

test('what comes for an address of a range, but for no service, does not go round', options, async () => {
  const earlier = stopped();
  using sender = await router.udp('192.0.2.1');
  await sender.send('round and round', { ip: free ?? '', port: 9 });
  await eventually(() => stopped() > earlier, 'it to be dropped');
  assert.equal(stopped(), earlier + 1);
});

// Leases in a real etcd: hosts of ours among themselves, and beside a host of flannel whose lease is written with etcdctl as flannel
// writes it, and which follows flannel's data path by what it reads of ours there. Pods and hosts reach each other both ways.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createServer, connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { follow } from '#agent/follower.ts';
import { MemoryJournal } from '#agent/journal.ts';
import { eventually, Wire } from '#agent/namespaces.fixture.ts';
import { View } from '#agent/view.ts';
import { makeEndpoint } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { probeWireguard } from '#kernel/wireguard.ts';
import { generateKeyPair } from '#kernel/wireguard-keys.ts';
import { isFault } from '#model/fault.ts';
import { type Cidr, cidrBase, cidrOf, familyOf, ipAdd, parseInterface, parseIp } from '#model/ip.ts';
import type { Host, LocalEndpoint } from '#model/resources.ts';
import { type EtcdCluster, eventually as eventuallyDone, hasEtcd, startCluster } from '#store/testdata/etcd-process.ts';
import { addPeer, makeHost, makeTunnel, type Numbers, tells, type Told } from '#agent/flannel.fixture.ts';
import { flannelController } from './controller.ts';
import { flannelNetwork } from './facts.ts';
import { Registry, type RegistryOptions } from './registry.ts';

mustBeIsolated();

const skip = hasEtcd() ? false : 'no etcd on this machine';
const theirs: Numbers = {
  ip: '10.213.0.2',
  subnet: '10.5.2.0/24',
  base: '10.5.2.0',
  bridge: '10.5.2.1',
  pod: '10.5.2.7',
  mac: '6a:01:02:03:04:05',
};
const theirs6: Numbers = {
  ip: 'fd00:213::2',
  subnet: 'fc00:5:0:2::/64',
  base: 'fc00:5:0:2::',
  bridge: 'fc00:5:0:2::1',
  pod: 'fc00:5:0:2::7',
  mac: '6a:01:02:03:04:06',
};
const ourIp = '10.213.0.1';
const ourIp6 = 'fd00:213::1';
const keys = generateKeyPair();
const leasesPrefix = '/coreos.com/network/subnets/';
const day = 86_400;

let cluster: EtcdCluster;
const endpoint = (): string => cluster.members[0]?.endpoint ?? '';

function etcdctl(...words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('etcdctl', ['--endpoints', endpoint(), ...words], {
    encoding: 'utf8',
    env: { ...process.env, ETCDCTL_API: '3' },
  });
  assert.equal(status, 0, `${words.join(' ')}: ${stderr}`);
  return stdout.trim();
}

const setConfig = (config: object): string => etcdctl('put', '/coreos.com/network/config', JSON.stringify(config));

const fresh = (config: object): void => {
  etcdctl('del', '--prefix', '/coreos.com/network/');
  setConfig(config);
};

/** As flannel does: an etcd lease of a day, and the key under it. */
function writeLease(name: string, value: object): void {
  const granted = /lease ([0-9a-f]+) granted/.exec(etcdctl('lease', 'grant', String(day)))?.[1] ?? '';
  etcdctl('put', `--lease=${granted}`, leasesPrefix + name, JSON.stringify(value));
}

const ofVxlan = (publicIp: string): object => ({
  PublicIP: publicIp,
  PublicIPv6: null,
  BackendType: 'vxlan',
  BackendData: { VNI: 1, VtepMAC: theirs.mac },
});

interface Stored {
  readonly name: string;
  readonly value: {
    readonly PublicIP: string;
    readonly PublicIPv6?: string | null;
    readonly BackendType: string;
    readonly BackendData?: Told['data'];
    readonly BackendV6Data?: Told['data'];
  };
  readonly lease: string;
  readonly created: number;
  readonly seconds: number;
}

/** What etcd has of the host with that address. */
function stored(publicIp: string): Stored | undefined {
  const { kvs = [] } = JSON.parse(etcdctl('get', '--prefix', leasesPrefix, '-w', 'json')) as {
    kvs?: { key: string; value: string; lease: bigint; create_revision: number }[];
  };
  for (const { key, value, create_revision: created } of kvs) {
    const name = Buffer.from(key, 'base64').toString().slice(leasesPrefix.length);
    const text = Buffer.from(value, 'base64').toString();
    if (!text.startsWith('{')) continue;
    const parsed = JSON.parse(text) as Stored['value'];
    if (parsed.PublicIP !== publicIp) continue;
    // The number of a lease is larger than JSON's in JavaScript: by its hexadecimal form.
    const lease = etcdctl('lease', 'list')
      .split('\n')
      .find((id) => /^[0-9a-f]+$/.test(id) && etcdctl('lease', 'timetolive', '--keys', id).includes(`[${leasesPrefix}${name}]`));
    const seconds = lease === undefined ? 0 : Number(/remaining\((\d+)s\)/.exec(etcdctl('lease', 'timetolive', lease))?.[1]);
    return { name, value: parsed, lease: lease ?? '', created, seconds };
  }
  return undefined;
}

/** What an agent has of the cluster: it follows etcd until it is disposed of. */
class Following implements AsyncDisposable {
  readonly view: View;
  readonly journal: MemoryJournal;
  readonly warnings: string[] = [];
  reason: unknown;
  readonly #stop = new AbortController();
  readonly #registry: Registry;
  readonly #done: Promise<void>;

  constructor(options: Partial<RegistryOptions> & { readonly ip?: string; readonly ip6?: string; readonly journal?: MemoryJournal } = {}) {
    const { ip = ourIp, ip6, journal = new MemoryJournal(), ...rest } = options;
    this.journal = journal;
    this.#registry = new Registry({ endpoints: [endpoint()], ...rest });
    this.view = new View({ journal: new MemoryJournal(), changed: () => undefined });
    const warn = (fields: object, message: string): void => void this.warnings.push(`${message} ${JSON.stringify(fields)}`);
    const controller = flannelController({
      registry: this.#registry,
      host: 'ours',
      journal,
      log: { info: () => undefined, warn },
      underlay: () => [ip, ip6].flatMap((text) => (text === undefined ? [] : [parseIp(text)])),
      publicKey: () => keys.publicKey,
      taken: () => [],
    });
    this.#done = follow({
      view: this.view,
      watch: (watching) => controller.watch(watching),
      signal: this.#stop.signal,
      state: (_connected, reason) => (this.reason = reason),
      saved: () => undefined,
    });
  }

  get self(): Host | undefined {
    return this.view.snapshot.hosts.get('ours');
  }

  /** First the IPv4 one. */
  get subnets(): Cidr[] {
    const own = [...this.view.snapshot.blocks.values()].filter(({ host }) => host === 'ours');
    return own.map(({ cidr }) => cidr).toSorted((a, b) => familyOf(a) - familyOf(b));
  }

  get subnet(): Cidr | undefined {
    return this.subnets[0];
  }

  /** As soon as it has a lease and knows so many others. */
  async knows(others: number): Promise<string> {
    return eventually(
      () => this.view.isSynced && this.view.snapshot.hosts.size === others + 1 && this.subnet,
      `one of ours and ${others} others`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
    await this.#registry[Symbol.asyncDispose]();
  }
}

describe('leases of flannel', { skip, concurrency: false }, () => {
  before(async () => {
    cluster = await startCluster(1);
    await Promise.all(cluster.members.map((member) => member.start()));
    await eventuallyDone(async () => void etcdctl('endpoint', 'health'));
  });
  after(() => cluster[Symbol.asyncDispose]());

  for (const [backend, families] of [
    ['vxlan', [4]],
    ['vxlan', [4, 6]],
    ['host-gateway', [4, 6]],
    ['wireguard', [4]],
  ] as const) {
    const without = backend === 'wireguard' && probeWireguard() === 'none' ? 'neither WireGuard in this kernel nor wireguard-go' : false;
    const what = families.map((family) => `IPv${family}`).join(' and ');
    test(`by ${backend} one of ours and one of flannel's exchange ${what}`, { skip: without }, async (t) => {
      using wire = new Wire();
      const isDual = families.length === 2;
      const all = isDual ? [theirs, theirs6] : [theirs];
      const { type, data } = tells(backend, theirs);
      fresh({ Network: '10.5.0.0/16', ...(isDual ? { EnableIPv6: true, IPv6Network: 'fc00:5::/48' } : {}), Backend: { Type: type } });
      writeLease(all.map(({ base, subnet }) => `${base}-${subnet.replace(/.*\//, '')}`).join('&'), {
        PublicIP: theirs.ip,
        PublicIPv6: isDual ? theirs6.ip : null,
        BackendType: type,
        ...(data === null ? {} : { BackendData: data }),
        ...(data === null || !isDual ? {} : { BackendV6Data: tells(backend, theirs6).data }),
      });
      await using following = new Following(isDual ? { ip6: ourIp6 } : {});
      await following.knows(1);
      const addresses = [`${ourIp}/16`, ...(isDual ? [`${ourIp6}/64`] : [])];
      const our = wire.host('ours', addresses, backend === 'wireguard' ? keys : undefined);
      const their = makeHost(wire, 'theirs', all);
      const { self, subnets } = following;
      assert.ok(self !== undefined);
      const pods = subnets.map((subnet) => ipAdd(cidrBase(subnet), 9));
      const local: LocalEndpoint = { endpoint: makeEndpoint(flannelNetwork.id, 'ours', 1, pods), slot: 1, sandbox: '/run/pod', order: 1 };
      const underlay = addresses.map((text) => {
        const { ip, length } = parseInterface(text);
        return { interface: 'eth0', ip, subnet: cidrOf(ip, length), mtu: 1450 };
      });
      const { snapshot } = following.view;
      our.apply(plan(snapshot, [local], { ...self, underlay }));
      const box = wire.container(our, local);
      for (const numbers of all) await makeTunnel(t, wire, { ...numbers, host: their.host, backend });
      const told = stored(ourIp);
      assert.ok(told !== undefined && told.value.BackendType === type && told.seconds > day - 600, JSON.stringify(told));
      const { PublicIP, PublicIPv6, BackendData = null, BackendV6Data = null } = told.value;
      for (const name of told.name.split('&')) {
        const subnet = name.replace('-', '/');
        const peer = name.includes(':') ? { publicIp: PublicIPv6 ?? '', data: BackendV6Data } : { publicIp: PublicIP, data: BackendData };
        addPeer(their.host, backend, { subnet, ...peer });
      }
      for (const [index, { pod: there }] of all.entries()) {
        const here = pods[index] ?? '';
        await eventually(() => box.ping(there), `${there} from ours`);
        assert.deepEqual(
          {
            'our pod from theirs': their.pod.ping(here),
            'their pod from our host': our.ping(there),
            'our pod from their host': their.host.ping(here),
            'full packets': box.ping(there, { size: 1360 }),
          },
          { 'our pod from theirs': true, 'their pod from our host': true, 'our pod from their host': true, 'full packets': true },
        );
      }
      our.apply(plan({ ...snapshot, blocks: new Map() }, [], { ...self, underlay }));
    });
  }

  test('a host that comes again has its subnet again, also after its lease has ended', async () => {
    fresh({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    const journal = new MemoryJournal();
    const first = new Following({ journal });
    const subnet = await first.knows(0);
    await first[Symbol.asyncDispose]();
    const had = stored(ourIp);
    await using again = new Following();
    assert.equal(await again.knows(0), subnet, 'by its address');
    assert.notEqual(stored(ourIp)?.lease, had?.lease, 'its time begins anew');
    await again[Symbol.asyncDispose]();
    etcdctl('lease', 'revoke', stored(ourIp)?.lease ?? '');
    await using last = new Following({ journal });
    assert.equal(await last.knows(0), subnet, 'by what it remembers');
  });

  test('a tunnel that a host of flannel had before keeps its MAC, which others send to', async () => {
    fresh({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    writeLease('10.5.9.0-24', ofVxlan(ourIp));
    await using following = new Following();
    assert.equal(await following.knows(0), '10.5.9.0/24');
    assert.equal(following.self?.carrying?.vtepMac, theirs.mac);
    assert.equal(stored(ourIp)?.value.BackendData?.VtepMAC, theirs.mac);
  });

  test('a lease is renewed before it ends, and one that has no end keeps having none', async () => {
    fresh({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    await using following = new Following({ ttlSeconds: 600, renewAfterMs: 100 });
    await following.knows(0);
    const first = stored(ourIp);
    await eventually(() => stored(ourIp)?.lease !== first?.lease, 'another time');
    assert.equal(stored(ourIp)?.created, first?.created, 'the key was never away');
    await following[Symbol.asyncDispose]();
    etcdctl('put', leasesPrefix + (first?.name ?? ''), JSON.stringify(first?.value));
    await using reserved = new Following({ renewAfterMs: 100 });
    await reserved.knows(0);
    assert.equal(stored(ourIp)?.lease, '');
  });

  test('a lease that is taken away is taken again; the subnet too unless another host has it', async () => {
    fresh({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    await using following = new Following();
    const subnet = await following.knows(0);
    const { created, name = '' } = stored(ourIp) ?? {};
    etcdctl('del', leasesPrefix + name);
    await eventually(() => (stored(ourIp)?.created ?? created) !== created, 'the lease again');
    await eventually(() => following.subnet === subnet, 'it to be known again');
    writeLease(name, ofVxlan(theirs.ip));
    assert.notEqual(
      await eventually(() => following.view.snapshot.hosts.size === 2 && following.subnet !== subnet && following.subnet, 'another subnet'),
      subnet,
    );
    const block = [...following.view.snapshot.blocks.values()].find(({ cidr }) => cidr === subnet);
    assert.notEqual(block?.host, 'ours');
  });

  test('of hosts that come at once each has a subnet of its own, and one too many is told so', async () => {
    fresh({ Network: '10.6.0.0/22', SubnetLen: 25, SubnetMin: '10.6.1.0', SubnetMax: '10.6.3.0', Backend: { Type: 'host-gw' } });
    const hosts = ['10.213.0.11', '10.213.0.12', '10.213.0.13', '10.213.0.14', '10.213.0.15'].map((ip) => new Following({ ip }));
    try {
      const had = await Promise.all(hosts.map((host) => host.knows(4)));
      assert.deepEqual(had.toSorted(), ['10.6.1.0/25', '10.6.1.128/25', '10.6.2.0/25', '10.6.2.128/25', '10.6.3.0/25']);
      await using late = new Following({ ip: '10.213.0.16' });
      await eventually(() => isFault(late.reason, 'exhausted'), 'that no subnet is left');
    } finally {
      await Promise.all(hosts.map((host) => host[Symbol.asyncDispose]()));
    }
  });

  test('what happened behind a cut connection is known afterwards, also when etcd has forgotten it', async () => {
    fresh({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    writeLease('10.5.2.0-24', ofVxlan('10.213.0.2'));
    await using cable = await Cable.to(endpoint());
    await using following = new Following({ endpoints: [cable.endpoint] });
    await following.knows(1);
    cable.cut();
    etcdctl('del', `${leasesPrefix}10.5.2.0-24`);
    writeLease('10.5.3.0-24', ofVxlan('10.213.0.3'));
    writeLease('10.5.4.0-24', ofVxlan('10.213.0.4'));
    const { header } = JSON.parse(etcdctl('get', 'x', '-w', 'json')) as { header: { revision: number } };
    etcdctl('compact', String(header.revision));
    cable.mend();
    await eventually(
      () => following.view.snapshot.hosts.has('10.5.4.0-24') && !following.view.snapshot.hosts.has('10.5.2.0-24'),
      'what has changed',
    );
    assert.equal((await following.knows(2)).length > 0, true);
  });

  test('what is no usable lease keeps no other from being used, and a configuration that is changed is followed', async () => {
    fresh({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    writeLease('10.5.2.0-24', ofVxlan(theirs.ip));
    writeLease('10.5.2.128-25', { PublicIP: '10.213.0.3', BackendType: 'vxlan', BackendData: { VNI: 1, VtepMAC: theirs.mac } });
    writeLease('10.5.3.0-24', { PublicIP: '10.213.0.4', BackendType: 'ipip' });
    writeLease('10.9.3.0-24', { PublicIP: '10.213.0.5', BackendType: 'vxlan' });
    etcdctl('put', `${leasesPrefix}10.5.4.0-24`, 'nonsense');
    etcdctl('put', `${leasesPrefix}elsewhere`, '{}');
    etcdctl('put', `${leasesPrefix}10.5.5.0-24`, '{"PublicIP":"10.213.0.6\\u0000"}');
    await using following = new Following();
    await following.knows(1);
    assert.deepEqual(following.warnings.map((text) => /"lease":"([^"]*)"/.exec(text)?.[1] ?? '').toSorted(), [
      '10.5.2.128-25',
      '10.5.3.0-24',
      '10.5.4.0-24',
      '10.5.5.0-24',
      '10.9.3.0-24',
      'elsewhere',
    ]);
    assert.equal(following.view.snapshot.networks.get(flannelNetwork.id)?.choices.carry, 'vxlan');
    setConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan', DirectRouting: true, VNI: 7 } });
    await eventually(() => following.view.snapshot.networks.get(flannelNetwork.id)?.vni === 7, 'the other VNI');
    assert.equal(following.self?.carrying?.wants, 'direct-routing');
    etcdctl('del', '/coreos.com/network/config');
    await eventually(() => isFault(following.reason, 'not-found'), 'that there is no configuration');
    assert.ok(following.self !== undefined, 'what was known stays');
  });
});

/** A way to etcd that can be cut. */
class Cable implements AsyncDisposable {
  readonly #server;
  readonly #sockets = new Set<Socket>();
  readonly #port: number;
  #isCut = false;

  private constructor(target: URL) {
    this.#port = Number(target.port);
    this.#server = createServer((near) => {
      if (this.#isCut) {
        near.destroy();
        return;
      }
      const far = connect(this.#port, '127.0.0.1');
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.on('error', () => undefined);
        one.on('close', () => other.destroy());
        one.pipe(other);
      }
    });
  }

  static async to(target: string): Promise<Cable> {
    const cable = new Cable(new URL(target));
    cable.#server.listen(0, '127.0.0.1');
    await once(cable.#server, 'listening');
    return cable;
  }

  get endpoint(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  }

  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  mend(): void {
    this.#isCut = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

// A whole installation on one machine: hosts with real engines on an underlay of their own, the outside world behind a
// gateway, a host for the controller. Every part that the product would meet is the real program; only the cables are ours.
import { Fault } from '#model/fault.ts';
import { cgroupExists, killCgroup, removeCgroup } from './cgroup.ts';
import { Host } from './host.ts';
import { startOutside } from './outside.ts';
import { checkLabName, type HostRecord, labGroup, readLab, removeLabFiles, writeLab, type LabRecord, withLabLock } from './state.ts';
import { controllerPlace, hostPlace, layWire, outsidePlace, plugIn, setCable, underlayPlace } from './underlay.ts';

export interface LabOptions {
  /** Names the lab on this machine; labs of different names live side by side. */
  readonly name: string;
  /** Number of Docker hosts, 1 to 200. */
  readonly hosts?: number;
  /** So many of the hosts, the last ones, lie in a subnet of their own, with the outside host as the router between. */
  readonly beyond?: number;
  /** MTU of the underlay. 1450 is what an OpenStack tenant network over VXLAN leaves. */
  readonly mtu?: number;
}

export class Lab {
  readonly name: string;
  readonly record: LabRecord;
  /** The Docker hosts host1, host2 and so on. */
  readonly hosts: readonly Host[];
  readonly controller: Host;
  readonly outside: Host;
  readonly underlay: Host;

  constructor(record: LabRecord) {
    const host = (part: HostRecord): Host => new Host(record.name, part);
    this.name = record.name;
    this.record = record;
    this.hosts = record.hosts.map(host);
    this.controller = host(record.controller);
    this.outside = host(record.outside);
    this.underlay = host(record.underlay);
  }

  /** Of the cloud in the lab, as written down. */
  get instances(): readonly Host[] {
    return (readLab(this.name)?.instances ?? []).map((record) => new Host(this.name, record));
  }

  /** So that other processes find it, too. One of the same name is replaced. */
  addInstance({ record }: Host): void {
    const written = readLab(this.name) ?? this.record;
    const others = (written.instances ?? []).filter(({ name }) => name !== record.name);
    writeLab({ ...written, instances: [...others, record] });
  }

  /** Host by name. Fault `not-found`. */
  host(name: string): Host {
    const all = [...this.hosts, this.controller, this.outside, this.underlay, ...this.instances];
    const found = all.find((host) => host.name === name);
    if (found === undefined) throw new Fault('not-found', `Cannot find host ${name} in lab ${this.name}`);
    return found;
  }

  /** Starts a host's namespaces, plugs it in and starts again the services that ran on it. On already is success. */
  async powerOn(host: Host): Promise<void> {
    if (host.isOn) return;
    await host.powerOn();
    await plugIn(this.underlay, host);
    for (const service of host.services()) await host.startService(service);
  }

  /** A power cut and a new start: nothing of the host's kernel state or processes is left, its disk is. */
  async reboot(host: Host): Promise<void> {
    await host.powerOff();
    await this.powerOn(host);
  }

  pullCable(host: Host): Promise<void> {
    return setCable(this.underlay, host, 'pulled');
  }

  plugCable(host: Host): Promise<void> {
    return setCable(this.underlay, host, 'plugged');
  }
}

/**
 * Builds a lab. A half-built one of that name is removed first. Faults: `exists` (a complete one is there: `openLab`),
 * `in-use` (another process is building it), `invalid`, `unsupported` (not root, no cgroup2, a tool is absent).
 */
export async function createLab(options: LabOptions): Promise<Lab> {
  const { name, hosts = 3, mtu = 1450, beyond = 0 } = options;
  checkLabName(name);
  if (process.getuid?.() !== 0) throw new Fault('unsupported', 'Cannot build a lab: namespaces need root', { hint: 'Run it as root.' });
  if (!Number.isInteger(hosts) || hosts < 1 || hosts > 200)
    throw new Fault('invalid', `Cannot build ${hosts} hosts: 1 to 200`, { field: 'hosts' });
  if (!Number.isInteger(mtu) || mtu < 1280 || mtu > 65_535)
    throw new Fault('invalid', `Cannot build an underlay with an MTU of ${mtu}: 1280 to 65535`, { field: 'mtu' });
  return withLabLock(name, async () => {
    if (readLab(name)?.status === 'ready') {
      throw new Fault('exists', `Cannot build lab ${name}: it is there already`, { hint: `./causeway lab destroy ${name}` });
    }
    await removeLab(name);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => removeLab(name));
    const places = Array.from({ length: hosts }, (_, index) => hostPlace(index + 1, mtu, index < hosts - beyond ? 'near' : 'beyond'));
    const record = await buildLab(name, places, mtu);
    undo.move();
    return new Lab(record);
  });
}

async function buildLab(name: string, hosts: readonly HostRecord[], mtu: number): Promise<LabRecord> {
  const record: LabRecord = {
    name,
    status: 'building',
    hosts,
    underlay: underlayPlace(mtu),
    outside: outsidePlace(mtu),
    controller: controllerPlace(mtu),
  };
  writeLab(record);
  const lab = new Lab(record);
  await lab.underlay.powerOn();
  await layWire(lab.underlay, hosts);
  await together([lab.outside, lab.controller, ...lab.hosts].map((host) => lab.powerOn(host)));
  await startOutside(lab.outside);
  const ready: LabRecord = { ...record, status: 'ready' };
  writeLab(ready);
  return ready;
}

/** Waits for all, also when one fails, so that nothing is still being built while the failure is cleaned up. */
async function together(tasks: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(tasks);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** The complete lab of that name, or undefined. */
export function openLab(name: string): Lab | undefined {
  checkLabName(name);
  const record = readLab(name);
  return record?.status === 'ready' ? new Lab(record) : undefined;
}

/** Removes a lab with all its processes, namespaces, mounts, groups and files, whatever state it is in. Absent is success. */
export async function destroyLab(name: string): Promise<void> {
  checkLabName(name);
  await withLabLock(name, () => removeLab(name));
}

async function removeLab(name: string): Promise<void> {
  const group = labGroup(name);
  if (cgroupExists(group)) {
    await killCgroup(group);
    await removeCgroup(group);
  }
  removeLabFiles(name);
}

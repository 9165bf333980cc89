// Addresses from an IPAM plugin of others (host-local, dhcp, static …). What it gives is asked of our own address book by name,
// so an address is never given twice here, and it must be of the network: nobody would find the way to another. What a plugin has given
// is noted before it is asked, so that it is told of the end of the container whatever happens in between.
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import { type Ip, parseInterface } from '#model/ip.ts';
import { type Delegation, execute } from './delegate.ts';
import type { AttachmentName } from './request.ts';
import { result } from './result.ts';

/** What the plugin has to be told, the same from the first to the last time. */
export interface Ipam {
  readonly type: string;
  readonly path: string;
  readonly args: string;
  readonly netns: string;
  /** The whole configuration, as it came. */
  readonly configuration: Readonly<Record<string, unknown>>;
}
export const ipam: v.GenericSchema<unknown, Ipam> = v.object({
  type: v.string(),
  path: v.string(),
  args: v.string(),
  netns: v.string(),
  configuration: v.record(v.string(), v.unknown()),
});

const run = ({ type, path, args, netns, configuration }: Ipam, command: Delegation['command'], { containerId, ifname }: AttachmentName) =>
  execute({ type, command, containerId, ifname, netns, args, path, configuration });

/** Addresses for the container. Faults as execute, and `unsupported` for an answer without an address. */
export async function askAddresses(of: Ipam, attachment: AttachmentName): Promise<Ip[]> {
  const read = v.safeParse(result, await run(of, 'ADD', attachment));
  const addresses = read.success ? read.output.ips.map(({ address }) => parseInterface(address).ip) : [];
  if (addresses.length > 0) return addresses;
  throw new Fault('unsupported', `IPAM plugin ${of.type} gives no address`, { field: 'ipam' });
}

/** Absent already is success, as of every DEL. */
export async function giveBack(of: Ipam, attachment: AttachmentName): Promise<void> {
  await run(of, 'DEL', attachment);
}

export async function checkAddresses(of: Ipam, attachment: AttachmentName): Promise<void> {
  await run(of, 'CHECK', attachment);
}

const nobody: AttachmentName = { name: '', containerId: '', ifname: '' };

/** Whether it could give addresses now, which is of no attachment. Faults as execute. */
export async function checkReadiness(of: Ipam): Promise<void> {
  await run(of, 'STATUS', nobody);
}

const spoken = v.object({ supportedVersions: v.array(v.string()) });

/** Has it forget whatever its configuration does not name, also what we know nothing of; one of before CNI 1.1 cannot. Faults as execute. */
export async function collectAddresses(of: Ipam): Promise<void> {
  const { cniVersion } = of.configuration;
  const read = v.safeParse(spoken, await run({ ...of, configuration: { cniVersion } }, 'VERSION', nobody));
  if (read.success && read.output.supportedVersions.some((version) => version === cniVersion)) await run(of, 'GC', nobody);
}

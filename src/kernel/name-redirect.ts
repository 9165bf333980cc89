// A container whose engine does not forward its name questions through us (internal networks; a default route over somebody
// else's network; an engine that asks the host's servers from the host's namespace) has them redirected inside its own
// namespace, by a table of ours there. The embedded resolver of Docker is at 127.0.0.11 and translated by Docker in `output`
// at priority -100; the first translation of a connection wins. A question that came from 127.0.0.1 can only leave when the
// link allows loopback addresses (route_localnet). What is asked from 127.0.0.12 is the agent's own question to that resolver.
import { writeFileSync } from 'node:fs';
import { type Ip, parseIp } from '#model/ip.ts';
import { tableName } from '#model/numbers.ts';
import { kernelFault } from './libc.ts';
import { runNftProgram, nftFault } from './libnftables.ts';
import { bindUdpInNetns, inNetns } from './netns.ts';

export const embeddedResolver: Ip = parseIp('127.0.0.11');
const agentInside: Ip = parseIp('127.0.0.12');

export interface NameRedirect {
  /** The container's link that leads to our gateway. */
  readonly link: string;
  readonly gateway: Ip;
  /** What is asked of the engine's resolver goes to the gateway too. */
  readonly embedded: boolean;
}

const port53 = 'meta l4proto { tcp, udp } th dport 53';

function tableText({ embedded, gateway }: NameRedirect): string {
  const rules = [
    ...(embedded ? [`ip saddr != ${agentInside} ip daddr ${embeddedResolver} ${port53} dnat ip to ${gateway}`] : []),
    `ip daddr != 127.0.0.0/8 ${port53} dnat ip to ${gateway}`,
  ];
  return `table inet ${tableName} {}
delete table inet ${tableName}
table inet ${tableName} {
  chain questions { type nat hook output priority dstnat - 1; policy accept; ${rules.map((rule) => `\n    ${rule}`).join('')}
  }
  chain sources { type nat hook postrouting priority srcnat - 1; policy accept;
    ip daddr ${gateway} ${port53} masquerade
  }
}
`;
}

function allowLoopback(path: string, link: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv4/conf/${link}/route_localnet`, '1');
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    throw kernelFault(`let loopback addresses over ${link} in ${path}`, errno);
  }
}

/** Idempotent. Goes with the container's namespace. Fault `kernel`; ENOENT when the namespace or the link is gone. */
export function redirectNames(path: string, redirect: NameRedirect): void {
  inNetns(path, () => {
    allowLoopback(path, redirect.link);
    load(path, tableText(redirect));
  });
}

/** Absent already is success. Faults as redirectNames. */
export function undoRedirect(path: string): void {
  inNetns(path, () => load(path, `table inet ${tableName} {}\ndelete table inet ${tableName}\n`));
}

function load(path: string, text: string): void {
  // The program and not the library: a library context would keep a container's namespace alive.
  const { error } = runNftProgram(text);
  if (error !== undefined) throw nftFault(`redirect name questions in ${path}`, error);
}

/** A socket inside the container from which its engine's resolver is asked, past the redirection. The caller owns it. */
export const openInsideForNames = (path: string): number => bindUdpInNetns(path, { ip: agentInside, port: 0 });

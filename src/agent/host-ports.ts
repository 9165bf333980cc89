// Published ports as the rest of the host sees them. Translation happens before any socket is looked for, so without more ado
// a port could be taken from a program that listens there, and another program could believe that it listens where we
// publish. A bound socket for each port makes both an error that everybody knows: address already in use.
import { closeSync } from 'node:fs';
import { familyOf, type Ip } from '#model/ip.ts';
import { Fault, isFault } from '#model/fault.ts';
import { clashes, everyAddress } from '#model/published-ports.ts';
import type { Endpoint, PublishedPort } from '#model/resources.ts';
import { holdPort } from '#kernel/libc.ts';

export type HostPort = Omit<PublishedPort, 'port'>;

export interface HostPortsOptions {
  /** Takes a port and answers a descriptor. Fault `kernel`. */
  readonly hold?: typeof holdPort;
  readonly log: (fields: object, message: string) => void;
}

const keyOf = ({ protocol, hostIp, hostPort }: HostPort): string => `${protocol} ${hostIp ?? '*'} ${hostPort}`;

export class HostPorts implements Disposable {
  readonly #hold: typeof holdPort;
  readonly #log: HostPortsOptions['log'];
  readonly #held = new Map<string, readonly number[]>();

  constructor(options: HostPortsOptions) {
    this.#hold = options.hold ?? holdPort;
    this.#log = options.log;
  }

  /** Whether it is ours already or could be had now. */
  isFree(port: HostPort): boolean {
    if (this.#held.has(keyOf(port))) return true;
    try {
      for (const fd of this.#open(port)) closeSync(fd);
      return true;
    } catch (error) {
      if (!isFault(error)) throw error;
      return false;
    }
  }

  /** All of them, or none. Faults: `exists` (a program of this host has it), `invalid` (an address that is not this host's). */
  take(ports: readonly HostPort[]): void {
    const taken: HostPort[] = [];
    try {
      for (const port of ports) {
        if (this.#held.has(keyOf(port))) continue;
        this.#held.set(keyOf(port), this.#open(port));
        taken.push(port);
      }
    } catch (error) {
      for (const port of taken) this.#close(keyOf(port));
      throw error;
    }
  }

  /** Of all but these. */
  letGo(ports: readonly HostPort[]): void {
    const wanted = new Set(ports.map(keyOf));
    for (const key of this.#held.keys()) if (!wanted.has(key)) this.#close(key);
  }

  /** Lets go of all others, and takes what is missing where that is possible: containers that run have their ports anyway. */
  keep(ports: readonly HostPort[]): void {
    this.letGo(ports);
    for (const port of ports) {
      try {
        this.take([port]);
      } catch (error) {
        if (!isFault(error)) throw error;
        this.#log({ port, error: error.message }, 'a published port is used by another program, too');
      }
    }
  }

  [Symbol.dispose](): void {
    for (const key of this.#held.keys()) this.#close(key);
  }

  #close(key: string): void {
    for (const fd of this.#held.get(key) ?? []) closeSync(fd);
    this.#held.delete(key);
  }

  #open({ protocol, hostIp, hostPort: port }: HostPort): number[] {
    // Few kernels speak SCTP, and nothing else would collide there.
    if (protocol === 'sctp') return [];
    const fds: number[] = [];
    try {
      for (const ip of hostIp === undefined ? Object.values(everyAddress) : [hostIp]) {
        const fd = this.#one(protocol, { ip, port });
        if (fd !== undefined) fds.push(fd);
      }
      return fds;
    } catch (error) {
      for (const fd of fds) closeSync(fd);
      throw error;
    }
  }

  #one(protocol: 'tcp' | 'udp', binding: { readonly ip: Ip; readonly port: number }): number | undefined {
    try {
      return this.#hold(protocol, binding);
    } catch (error) {
      if (!isFault(error, 'kernel')) throw error;
      const { ip, port } = binding;
      if (error.errno === 'EADDRINUSE') {
        throw new Fault('exists', `Port ${port}/${protocol} of this host is used by another program`, {
          field: 'ports',
          hint: 'Choose another host port; ss -lnp, docker ps and causeway exposure ls show who has it',
          cause: error,
        });
      }
      if (error.errno === 'EADDRNOTAVAIL' && ip !== everyAddress[familyOf(ip)])
        throw new Fault('invalid', `${ip} is no address of this host`, { field: 'ports', cause: error });
      // A host without IPv6 has no such ports.
      if (familyOf(ip) === 6) return undefined;
      throw error;
    }
  }
}

/** Fault `exists` when another endpoint publishes one of the ports. */
export function mustNotClash({ id, ports }: Pick<Endpoint, 'id' | 'ports'>, all: readonly Endpoint[]): void {
  for (const port of ports) {
    const holder = all.find((other) => other.id !== id && other.ports.some((taken) => clashes(taken, port)));
    if (holder === undefined) continue;
    throw new Fault('exists', `Port ${port.hostPort}/${port.protocol} of this host is published by ${holder.owner}`, {
      field: 'ports',
      hint: 'Choose another host port, or remove the other container',
    });
  }
}

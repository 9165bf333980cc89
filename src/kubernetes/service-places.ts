// Where services are, as far as their endpoint slices say: for policies that name services.
import type { Ip } from '#model/ip.ts';
import { type NamedPort, protocols } from '#model/policy.ts';
import type { SliceFacts } from './services.ts';

const numbers = { tcp: protocols.tcp, udp: protocols.udp, sctp: protocols.sctp } as const;

export class ServicePlaces {
  readonly #slices = new Map<string, SliceFacts>();
  readonly #slicesOf = new Map<string, Set<string>>();

  /** Whose places may be others now. */
  put(key: string, slice: SliceFacts): readonly string[] {
    const before = this.delete(key);
    this.#slices.set(key, slice);
    this.#slicesOf.set(slice.service, (this.#slicesOf.get(slice.service) ?? new Set()).add(key));
    return [...new Set([...before, slice.service])];
  }

  /** As put. */
  delete(key: string): readonly string[] {
    const before = this.#slices.get(key);
    if (before === undefined) return [];
    this.#slices.delete(key);
    this.#slicesOf.get(before.service)?.delete(key);
    return [before.service];
  }

  ips(service: string): Ip[] {
    return this.#of(service).flatMap(({ endpoints }) => endpoints.map(({ ip }) => ip));
  }

  ports(service: string, protocol: number): NamedPort[] {
    return this.#of(service).flatMap(({ endpoints, ports }) =>
      ports.filter((one) => numbers[one.protocol] === protocol).flatMap(({ port }) => endpoints.map(({ ip }) => ({ ip, port }))),
    );
  }

  #of(service: string): SliceFacts[] {
    return [...(this.#slicesOf.get(service) ?? [])].flatMap((key) => this.#slices.get(key) ?? []);
  }
}

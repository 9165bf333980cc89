// Endpoints as small as they can be kept. A host remembers every endpoint of its networks, ten thousand and more, and as they
// are parsed each has its own copy of its network's and host's names, and room in its lists for more than is in them.
import type { Endpoint } from '#model/resources.ts';

const none: readonly never[] = Object.freeze([]);
const noLabels: Endpoint['labels'] = Object.freeze({});

const exact = <T>(list: readonly T[]): readonly T[] => (list.length === 0 ? none : [...list]);

export class LeanRecords {
  /** One copy of each text that many endpoints have. */
  readonly #texts = new Map<string, string>();

  /** The same endpoint. */
  endpoint({ id, name, owner, labels, revision, createdAt, network, host, addresses, mac, names, ports, sequence }: Endpoint): Endpoint {
    return {
      id,
      name: name === id ? id : name,
      revision,
      createdAt,
      labels: Object.keys(labels).length === 0 ? noLabels : labels,
      network: this.#shared(network),
      host: this.#shared(host),
      owner: owner === id ? id : owner === name ? name : owner,
      addresses: exact(addresses),
      mac,
      names: exact(names),
      ports: exact(ports),
      sequence,
    };
  }

  #shared(text: string): string {
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    this.#texts.set(text, text);
    return text;
  }
}

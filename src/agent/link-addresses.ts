import { networkInterfaces } from 'node:os';
import { type Ip, parseIp } from '#model/ip.ts';

/** Addresses in the network namespace of the process; of link-local ones without what follows the `%`. */
export const linkAddresses = (): { readonly link: string; readonly ip: Ip }[] =>
  Object.entries(networkInterfaces()).flatMap(([link, some]) =>
    (some ?? []).map(({ address }) => ({ link, ip: parseIp(address.replace(/%.*/, '')) })),
  );

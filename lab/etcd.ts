// A real etcd of one member on a host of the lab, without a disk's care: what it keeps is as short-lived as the lab.
import type { Host } from './host.ts';

const port = 2379;
/** For programs on the same host. */
export const etcdUrl: string = `http://127.0.0.1:${port}`;
/** For those elsewhere. */
export const etcdUrlOf = ({ address }: Host): string => `http://${address}:${port}`;

/** Running already is success. */
export function startEtcd(host: Host): Promise<void> {
  const urls = `${etcdUrlOf(host)},${etcdUrl}`;
  const argv = [
    'etcd',
    '--data-dir=/var/lib/etcd',
    `--listen-client-urls=${urls}`,
    `--advertise-client-urls=${urls}`,
    '--unsafe-no-fsync',
    '--log-level=warn',
  ];
  return host.startService({ name: 'etcd', argv, env: {} });
}

// flannel's records in etcd, as one of whose hosts this one is.
import { flannelController } from '#flannel/controller.ts';
import { Registry } from '#flannel/registry.ts';
import { readEtcdUrl } from '#store/open.ts';
import { bridgesOf, type Cluster, type ClusterContext, foreignAddresses, takeOverWireguard } from './cluster.ts';

/** This host as one of flannel's, whose leases are in etcd. Faults: `invalid` for a URL that is none, or a file that cannot be read. */
export async function followFlannel(host: string, url: string, context: ClusterContext): Promise<Cluster> {
  const { journal, log, closing, publicKey, underlay } = context;
  const predecessor = takeOverWireguard(context);
  const registry = closing.use(new Registry(await readEtcdUrl(url)));
  const controller = flannelController({
    registry,
    host,
    journal,
    log: log.child({ part: 'flannel' }),
    underlay: () => underlay().map(({ ip }) => ip),
    publicKey,
    taken: () => foreignAddresses().map(({ ip }) => ip),
  });
  return { host, generation: 0, controller: () => controller, bridges: bridgesOf(host), renew: () => undefined, predecessor };
}

// Calico's resources of hosts' own links as an agent follows them.
import { readFailsafes, readHostEndpoint } from './calico-host-endpoint.ts';
import { type HostEndpoints, networkSetOf } from './host-endpoints.ts';
import { calicoGroup, type FactKind, keptWhole, type Tell } from './policy-facts.ts';
import type { PolicyIndex } from './policy-index.ts';
import { problemText } from './policy-parts.ts';

/** Host endpoints of every node, as rules may speak of any; failsafe ports. */
export function hostKinds(hosts: HostEndpoints, index: PolicyIndex, tell: Tell): readonly FactKind[] {
  const [endpoints, settings] = ['hostendpoints', 'felixconfigurations'];
  const drop = (key: string): void => {
    hosts.delete(key);
    index.deleteNetworkSet(`${endpoints} ${key}`);
  };
  return [
    {
      name: endpoints,
      paths: [`${calicoGroup}/${endpoints}`],
      absent: 'empty',
      take: (key, item) => {
        const { endpoint, problems } = readHostEndpoint(item);
        const put = (): void => {
          if (problems.length > 0) tell(endpoints, key, problems.map(problemText));
          if (endpoint === undefined) return drop(key);
          hosts.put(endpoint);
          return index.putNetworkSet(`${endpoints} ${key}`, networkSetOf(endpoint));
        };
        return { kept: keptWhole(item), put };
      },
      drop,
    },
    {
      name: settings,
      paths: [`${calicoGroup}/${settings}`],
      absent: 'empty',
      take: (key, item) => {
        const { failsafes, problems } = readFailsafes(item);
        const put = (): void => {
          if (problems.length > 0) tell(settings, key, problems.map(problemText));
          hosts.putFailsafes(key, failsafes);
        };
        return { kept: keptWhole(item), put };
      },
      drop: (key) => hosts.deleteFailsafes(key),
    },
  ];
}

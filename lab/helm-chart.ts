// Files for kubectl, made from the chart and from nothing else.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chartFolder, renderChart } from '#cli/helm-chart.ts';

export const manifestsFolder: string = join(import.meta.dirname, '..', 'packaging', 'kubernetes');

/** In the place of the address that everybody replaces. */
export const placeholder = 'https://API-SERVER:6443';

const file = (first: string, documents: readonly string[]): string =>
  `# ${first}\n# Made from packaging/helm/causeway by "npm run manifests": change it there.\n${documents.join('\n---\n')}\n`;

/** Files for kubectl: name → content. */
export function manifests(): Readonly<Record<string, string>> {
  return {
    'causeway.yaml': file(
      'Causeway as the network of a cluster. The address of the API server is to be replaced, see docs/kubernetes.md.',
      renderChart({ apiServer: placeholder }),
    ),
    'causeway-calico.yaml': file(
      'Causeway as the network of a cluster by the model calico. The address of the API server is to be replaced, see docs/bgp.md.',
      renderChart({ apiServer: placeholder, model: 'calico' }),
    ),
    'network-attachment-definitions.yaml': file('Definitions of further networks of pods, where nobody has brought them yet.', [
      readFileSync(join(chartFolder, 'crds', 'network-attachment-definitions.yaml'), 'utf8').trim(),
    ]),
    'causeway-wireguard.yaml': file(
      'Beside causeway.yaml or causeway-calico.yaml, for nodes that carry by wireguard without having it in the kernel. See docs/kubernetes.md.',
      renderChart({ apiServer: placeholder, userspaceWireguard: true }).filter((document) =>
        /^ {2}name: causeway-wireguard$/m.test(document),
      ),
    ),
    'causeway-uninstall.yaml': file(
      'Takes Causeway off every node of a cluster. See docs/kubernetes.md.',
      renderChart({ uninstall: true }),
    ),
  };
}

// `npm run manifests`: writes the files for kubectl from the Helm chart.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { manifests, manifestsFolder } from './helm-chart.ts';

for (const [name, content] of Object.entries(manifests())) writeFileSync(join(manifestsFolder, name), content);

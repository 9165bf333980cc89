// The node's CNI configuration. A kubelet calls its node ready as soon as there is one, so it is written when pods can be
// attached and not before; it stays when the agent ends, since a node whose agent restarts is still a node.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { podNetwork } from './nodes.ts';

// Annotations say which further networks a pod asks for; the runtime tells of them without the API's being there.
const capabilities = { portMappings: true, bandwidth: true, 'io.kubernetes.cri.pod-annotations': true };
const conflist = {
  // Runtimes that know no choice of versions take this one.
  cniVersion: '1.0.0',
  cniVersions: ['0.3.1', '0.4.0', '1.0.0', '1.1.0'],
  name: podNetwork.name,
  plugins: [{ type: 'causeway', capabilities }],
};

/** Replaces the file in one step under a name that runtimes do not read; the same content is left alone. */
export function installConflist(path: string): void {
  const content = `${JSON.stringify(conflist, undefined, 2)}\n`;
  if (contentOf(path) === content) return;
  const folder = dirname(path);
  const unfinished = join(folder, '.causeway.new');
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  writeFileSync(unfinished, content, { mode: 0o644 });
  renameSync(unfinished, path);
}

function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // not there yet
  }
}

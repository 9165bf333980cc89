// `causeway magnum cluster kubeconfig`: the key is made here and leaves this machine never; Magnum has the cluster's authority sign
// a request for it, and what came back is believed only when it is for that key.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { makeIdentity } from '#api/identity.ts';
import type { Magnum } from '#cloud/magnum.ts';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { Fault } from '#model/fault.ts';
import { stringify } from 'yaml';
import { done } from './command.ts';
import { type CloudOptions, inMagnum } from './magnum-session.ts';
import type { Answer, Session } from './session.ts';

export interface KubeconfigOptions extends CloudOptions {
  readonly file?: string;
  readonly user: string;
  readonly group: string;
  readonly force?: true;
}

export const makeKubeconfig = (session: Session, [name = '']: readonly string[], options: KubeconfigOptions): Promise<Answer> =>
  inMagnum(session, options, async (magnum) => {
    const cluster = await magnum.cluster(name);
    const file = resolve(options.file ?? `${cluster.name}.kubeconfig`);
    const { text, until } = await kubeconfigOf(magnum, cluster, options);
    writeSecret(file, text, options.force === true);
    return done(
      { cluster: cluster.name, file, api: cluster.api, user: options.user, until },
      file,
      `${file} is for ${options.user} of cluster ${cluster.name} until ${until.slice(0, 10)}: export KUBECONFIG=${file}`,
    );
  });

const base64 = (pem: string): string => Buffer.from(`${pem.trimEnd()}\n`).toString('base64');

/**
 * Text of a kubeconfig and when it ceases to be valid: with the authority, as Magnum signs for longer than that. Faults: `unavailable` (no
 * API yet, an authority that has ended), `corrupt` (Magnum's answer), as Magnum.
 */
export async function kubeconfigOf(
  magnum: Pick<Magnum, 'authority' | 'sign'>,
  cluster: MagnumCluster,
  { user, group }: Pick<KubeconfigOptions, 'user' | 'group'>,
): Promise<{ readonly text: string; readonly until: string }> {
  if (cluster.api === undefined) {
    throw new Fault('unavailable', `Cluster ${cluster.name} has no Kubernetes API yet: ${cluster.status}`, {
      hint: `Wait for it: causeway magnum cluster show ${cluster.name}`,
    });
  }
  const { key, csr } = await makeIdentity(user, group);
  const [authority, signed] = await Promise.all([magnum.authority(cluster.id), magnum.sign(cluster.id, csr)]);
  const end = new X509Certificate(authority.pem).validToDate;
  if (end.getTime() <= Date.now())
    throw new Fault(
      'unavailable',
      `The authority of cluster ${cluster.name} has ended on ${end.toISOString().slice(0, 10)}, and all that it has signed`,
      {
        hint: `Where Magnum's driver can: openstack coe ca rotate ${cluster.name}`,
      },
    );
  const certificate = new X509Certificate(signed.pem);
  if (!certificate.checkPrivateKey(createPrivateKey(key)))
    throw new Fault('corrupt', `Magnum has signed another key than the one it was given for cluster ${cluster.name}`);
  const id = `${user}@${cluster.name}`;
  const text = stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': id,
    clusters: [{ name: cluster.name, cluster: { server: cluster.api, 'certificate-authority-data': base64(authority.pem) } }],
    users: [{ name: id, user: { 'client-certificate-data': base64(signed.pem), 'client-key-data': base64(key) } }],
    contexts: [{ name: id, context: { cluster: cluster.name, user: id } }],
  });
  return { text, until: new Date(Math.min(end.getTime(), certificate.validToDate.getTime())).toISOString() };
}

/** Of its owner only, whole or not at all. Fault `exists` without `isReplaced` where there is such a file. */
function writeSecret(file: string, text: string, isReplaced: boolean): void {
  const path = isReplaced ? `${file}.new` : file;
  if (isReplaced) rmSync(path, { force: true });
  try {
    writeFileSync(path, text, { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    const isThere = cause instanceof Error && 'code' in cause && cause.code === 'EEXIST';
    if (!isThere) throw new Fault('unavailable', `Cannot write ${path}`, { field: '--file', cause });
    throw new Fault('exists', `There is a file ${file}`, { field: '--file', hint: 'Name another one, or replace it with --force', cause });
  }
  if (isReplaced) renameSync(path, file);
}

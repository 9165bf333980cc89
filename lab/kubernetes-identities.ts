// Certificates of a cluster's members, made as an administrator would with openssl, and their kubeconfigs.
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';

/** PEM texts. */
export interface Authority {
  readonly certificate: string;
  readonly key: string;
}

export class Identities {
  readonly folder: string;
  readonly #server: string;

  /** `server`: the API's address, for kubeconfigs. */
  constructor(folder: string, server: string) {
    this.folder = folder;
    this.#server = server;
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  /** The authority, unless somebody else has made it, and the key that service accounts' tokens are signed with. */
  async make(authority?: Authority): Promise<void> {
    mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    const [key, certificate] = [this.file('ca.key'), this.file('ca.crt')];
    if (authority === undefined) {
      await this.#openssl('req', '-x509', ...curve, '-keyout', key, '-out', certificate, '-days', '365', '-subj', '/CN=lab');
    } else {
      writeFileSync(key, authority.key, { mode: 0o600 });
      writeFileSync(certificate, authority.certificate);
    }
    await this.#openssl('genrsa', '-out', this.file('sa.key'), '2048');
    await this.#openssl('rsa', '-in', this.file('sa.key'), '-pubout', '-out', this.file('sa.pub'));
  }

  /** `NAME.crt` and `NAME.key`; the subject is `/O=GROUP/CN=USER`, `names` as openssl writes alternative names. */
  async certificate(name: string, subject: string, names: readonly string[] = []): Promise<void> {
    const [key, request, extensions] = [this.file(`${name}.key`), this.file(`${name}.csr`), this.file(`${name}.ext`)];
    const alternatives = names.length === 0 ? '' : `subjectAltName=${names.join(',')}\n`;
    writeFileSync(extensions, `extendedKeyUsage=clientAuth,serverAuth\n${alternatives}`);
    await this.#openssl('req', '-new', ...curve, '-keyout', key, '-subj', subject, '-out', request);
    const signer = [
      '-CA',
      this.file('ca.crt'),
      '-CAkey',
      this.file('ca.key'),
      '-days',
      '365',
      '-set_serial',
      `0x${randomBytes(16).toString('hex')}`,
    ];
    await this.#openssl('x509', '-req', '-in', request, ...signer, '-extfile', extensions, '-out', this.file(`${name}.crt`));
  }

  /** A certificate and the kubeconfig that uses it; answers the kubeconfig's path. */
  async user(name: string, subject: string, names?: readonly string[]): Promise<string> {
    await this.certificate(name, subject, names);
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'lab',
      clusters: [{ name: 'lab', cluster: { server: this.#server, 'certificate-authority': this.file('ca.crt') } }],
      users: [{ name: 'me', user: { 'client-certificate': this.file(`${name}.crt`), 'client-key': this.file(`${name}.key`) } }],
      contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'me' } }],
    };
    const path = this.file(`${name}.kubeconfig`);
    writeFileSync(path, JSON.stringify(config));
    return path;
  }

  async #openssl(...words: readonly string[]): Promise<void> {
    await run(['openssl', ...words]);
  }
}

const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

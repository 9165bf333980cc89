// Octavia's provider `amphora` in a lab's cloud: its worker makes load balancers out of machines by Octavia's own flows, network driver and
// REST driver, with certificates for both ends. The one part of the lab's own is the compute driver, which the worker loads by Octavia's
// contract (octavia-driver/): it hands out lab hosts.
import { randomUUID } from 'node:crypto';
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './host.ts';
import { brokerUrl } from './openstack-conductor.ts';
import { folder, password } from './openstack-services.ts';
import type { Need } from './packages.ts';
import { until } from './until.ts';

export const amphoraNeeds: readonly Need[] = [
  { program: '/usr/bin/amphora-agent', package: 'python3-octavia', why: 'the agent of a load balancer’s machine' },
  { program: 'haproxy', package: 'haproxy', why: 'what the machine of a load balancer runs' },
  { program: 'keepalived', package: 'keepalived', why: 'what the agent of a load balancer’s machine tells of' },
  { program: 'ipvsadm', package: 'ipvsadm', why: 'datagrams in the machine of a load balancer' },
  { program: 'curl', package: 'curl', why: 'to ask the agent of a load balancer’s machine' },
  { program: 'systemctl', package: 'systemd', why: 'to boot the machine of a load balancer' },
];

export interface ApiOptions {
  readonly transport: string;
  readonly providers: string;
  /** How much of a list it tells at once. */
  readonly pageLength: number;
}
/** Whoever keeps such a cloud lists everything every few seconds, which would be most of the API's work in short pages. */
export const amphoraApi: ApiOptions = { transport: brokerUrl, providers: 'ovn:OVN,amphora:amphora', pageLength: 100 };

const driverFolder = `${folder}/octavia-driver`;
/** For whoever loads drivers: the API asks them as well. */
export const driverEnvironment: Readonly<Record<string, string>> = { PYTHONPATH: driverFolder, XDG_CACHE_HOME: `${folder}/cache` };
const certificates = `${folder}/octavia-certificates`;
/** Of users; in place of Barbican. */
const kept = `${certificates}/kept`;

/** Sections that the API and the worker read; makes what they name. */
export async function amphoraConfig(host: Host): Promise<string[]> {
  cpSync(join(import.meta.dirname, 'octavia-driver'), host.file(driverFolder), { recursive: true });
  mkdirSync(host.file(kept), { recursive: true, mode: 0o700 });
  await host.exec(['sh', '-euc', authority], { cwd: certificates });
  return [
    '[certificates]',
    'cert_manager = local_cert_manager',
    `storage_path = ${kept}`,
    'cert_generator = local_cert_generator',
    `ca_certificate = ${certificates}/ca.pem`,
    `ca_private_key = ${certificates}/ca.key`,
    `ca_private_key_passphrase = ${password}`,
    'server_certs_key_passphrase = insecure-key-do-not-use-this-key',
    '[haproxy_amphora]',
    `client_cert = ${certificates}/client.pem`,
    `server_ca = ${certificates}/ca.pem`,
    'connection_retry_interval = 1',
    // As many files may not be open here as it would have for the usual one.
    'default_connection_limit = 1000',
    '[controller_worker]',
    'workers = 1',
    `client_ca = ${certificates}/ca.pem`,
    'amphora_driver = amphora_haproxy_rest_driver',
    'compute_driver = causeway_lab_amphorae',
    'network_driver = allowed_address_pairs_driver',
    'loadbalancer_topology = SINGLE',
    'amp_active_wait_sec = 1',
    'amp_active_retries = 120',
    'event_notifications = false',
    '[oslo_messaging]',
    'topic = octavia',
    '[health_manager]',
    'heartbeat_key = insecure',
  ];
}

export interface KeptCertificate {
  /** As users tell it Octavia. */
  readonly reference: string;
  readonly name: string;
  /** Path in this machine. */
  readonly file: string;
}

/** A certificate of a server by that name, with its key, where Octavia looks for it (octavia/certificates/manager/local.py). */
export async function keepCertificate(host: Host, name: string): Promise<KeptCertificate> {
  const reference = randomUUID();
  const files = ['-keyout', `${reference}.key`, '-out', `${reference}.crt`];
  const whose = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
  await host.exec(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '30', ...whose, ...files], { cwd: kept });
  return { reference, name, file: host.file(`${kept}/${reference}.crt`) };
}

export interface Details {
  /** KiB. */
  readonly memory: { readonly total: number; readonly free: number };
}
/** What the agent in a load balancer's machine says of that, as it tells Octavia's worker. */
export async function detailsOf(host: Host, address: string): Promise<Details> {
  const client = ['--cert', `${certificates}/client.pem`, '--insecure'];
  return JSON.parse(await host.ask(['curl', '--silent', '--show-error', ...client, `https://${address}:9443/1.0/details`])) as Details;
}

/** One authority for both ends, and the worker's own certificate. */
const authority = [
  `openssl req -x509 -newkey rsa:2048 -days 30 -subj /CN=octavia -addext keyUsage=critical,keyCertSign,cRLSign -passout pass:${password} -keyout ca.key -out ca.pem`,
  "printf 'authorityKeyIdentifier=keyid\\nsubjectKeyIdentifier=hash\\n' >client.ext",
  'openssl req -newkey rsa:2048 -nodes -subj /CN=worker -keyout client.key -out client.csr',
  `openssl x509 -req -days 30 -in client.csr -CA ca.pem -CAkey ca.key -passin pass:${password} -CAcreateserial -extfile client.ext -out client.crt`,
  'cat client.crt client.key >client.pem',
].join(' 2>>openssl.log\n');

/** Returns when it takes what the API hands over. */
export async function startWorker(host: Host, config: string): Promise<void> {
  await host.startService({ name: 'octavia-worker', argv: ['/usr/bin/octavia-worker', '--config-file', config], env: driverEnvironment });
  const queues = ['/usr/lib/rabbitmq/bin/rabbitmqctl', '--node=rabbit@localhost', '--quiet', 'list_consumers'];
  const env = { HOME: '/var/lib/causeway-rabbitmq', ERL_EPMD_ADDRESS: '127.0.0.1' };
  const isListening = async (): Promise<boolean> => (await host.exec(queues, { env, anyStatus: true })).stdout.includes('octavia');
  await until('Octavia’s worker to listen', isListening, { timeoutMs: 300_000, intervalMs: 2_000 });
}

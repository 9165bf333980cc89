// The cluster's name server, on the controller's host: Debian has no CoreDNS, and pods of upstream's tests ask for services
// by name. Knows services and the pods behind headless ones below svc.cluster.local, and nothing else.
//   kubernetes-names.ts KUBECONFIG ADDRESS
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { addressRecord, type AnswerRecord, rcode, readQuestion, recordType, type Question, udpLimit, writeReply } from '#agent/dns-wire.ts';
import { KubernetesClient } from '#kubernetes/client.ts';
import { followKind } from '#kubernetes/follow.ts';
import { readKubeconfig } from '#kubernetes/kubeconfig.ts';
import type { Ip } from '#model/ip.ts';

/** As far as names need it. */
interface Service {
  readonly spec: {
    readonly clusterIP?: string;
    readonly clusterIPs?: readonly string[];
    readonly externalName?: string;
    readonly publishNotReadyAddresses?: boolean;
  };
}
interface Address {
  readonly ip: string;
  readonly hostname?: string;
}
interface Endpoints {
  readonly subsets?: readonly { readonly addresses?: readonly Address[]; readonly notReadyAddresses?: readonly Address[] }[];
}

const [kubeconfig = '', address = ''] = process.argv.slice(2);
const client = new KubernetesClient(readKubeconfig(kubeconfig));
const services = new Map<string, Service>();
const endpoints = new Map<string, Endpoints>();
const suffix = '.svc.cluster.local';

function follow<T>(name: string, path: string, known: Map<string, T>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const log = { warn: (fields: object, message: string) => console.error(message, fields) };
  void followKind(
    {
      name,
      paths: [path],
      keys: () => [...known.keys()],
      put: (key, item) => known.set(key, item as T),
      delete: (key) => known.delete(key),
      listed: resolve,
    },
    { client, signal: new AbortController().signal, log },
  );
  return promise;
}

const backends = (key: string, withUnready: boolean): Address[] =>
  (endpoints.get(key)?.subsets ?? []).flatMap(({ addresses = [], notReadyAddresses = [] }) => [
    ...addresses,
    ...(withUnready ? notReadyAddresses : []),
  ]);

/** Addresses of a name; undefined when there is no such name. An external name is followed where it leads into the cluster. */
function lookUp(name: string): readonly string[] | undefined {
  if (!name.endsWith(suffix)) return undefined;
  const [namespace = '', service = '', host, ...more] = name.slice(0, -suffix.length).split('.').toReversed();
  const key = `${namespace}/${service}`;
  const spec = services.get(key)?.spec;
  if (spec === undefined || more.length > 0) return undefined;
  if (spec.externalName !== undefined && spec.externalName !== '') return host === undefined ? lookUp(spec.externalName) : undefined;
  const those = backends(key, spec.publishNotReadyAddresses === true);
  if (host !== undefined) {
    const found = those.filter(({ ip, hostname }) => (hostname ?? ip.replaceAll('.', '-')) === host);
    return found.length === 0 ? undefined : found.map(({ ip }) => ip);
  }
  return spec.clusterIP === 'None' ? those.map(({ ip }) => ip) : (spec.clusterIPs ?? [spec.clusterIP ?? '']);
}

const recordsFor = (question: Question, addresses: readonly string[]): readonly AnswerRecord[] =>
  addresses.map((ip) => addressRecord(ip as Ip)).filter(({ type }) => type === question.type || question.type === recordType.ANY);

function reply(packet: Buffer, limit?: number): Buffer | undefined {
  const reading = readQuestion(packet);
  if (reading.kind === 'ignore') return undefined;
  if (reading.kind === 'answer') return reading.reply;
  const { question } = reading;
  const addresses = lookUp(question.name);
  const code = addresses === undefined ? rcode.noSuchName : rcode.ok;
  const records = recordsFor(question, addresses ?? []);
  return writeReply(question, { code, records, isAuthoritative: true, ttlSeconds: 1 }, limit ?? udpLimit(question));
}

await Promise.all([follow('services', '/api/v1/services', services), follow('endpoints', '/api/v1/endpoints', endpoints)]);
const udp = createSocket('udp4');
udp.on('message', (packet, from) => {
  const answer = reply(packet);
  if (answer !== undefined) udp.send(answer, from.port, from.address, () => {});
});
udp.bind(53, address);
await once(udp, 'listening');
const tcp = createServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.once('data', (chunk) => {
    const answer = reply(chunk.subarray(2), 65_535);
    if (answer === undefined) {
      socket.destroy();
      return;
    }
    const length = Buffer.alloc(2);
    length.writeUInt16BE(answer.length);
    socket.end(Buffer.concat([length, answer]));
  });
});
tcp.listen(53, address);
await once(tcp, 'listening');
createServer((asking) => asking.destroy()).listen('/run/cluster-names.sock');

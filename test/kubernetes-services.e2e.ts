// Services of a real cluster, translated by Causeway alone: who is reached by which address, from where, and as whom.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Host } from '#lab/host.ts';
import { sctpImage, sctpLine } from '#lab/images.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { until } from '#lab/until.ts';
import { agentStatus } from './bed.ts';
import { KubernetesBed, podOf, type PodObject, serviceOf, stay } from './kubernetes-bed.ts';

const name = 'services-test';
const balanced = '198.51.100.7';
const sctpPodImage = 'localhost/causeway/sctp:1';
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;

/** Answers every question with its own name and the address that it is asked from. */
const server = `mkdir -p /www/cgi-bin
printf '%s\\n' '#!/bin/sh' 'echo; echo "$(hostname) $REMOTE_ADDR"' >/www/cgi-bin/who
chmod +x /www/cgi-bin/who
exec httpd -f -p 8080 -h /www`;

const pod = (
  podName: string,
  node: string,
  more: { readonly labels?: Readonly<Record<string, string>>; readonly ready?: readonly string[] } = {},
): PodObject =>
  podOf(podName, {
    node,
    labels: more.labels ?? { app: 'web' },
    command: server,
    container: {
      ports: [{ name: 'page', containerPort: 8080 }],
      readinessProbe: {
        periodSeconds: 1,
        ...(more.ready === undefined ? { tcpSocket: { port: 8080 } } : { exec: { command: more.ready } }),
      },
    },
  });
const service = (serviceName: string, spec: object = {}): object =>
  serviceOf(serviceName, { app: 'web' }, { ports: [{ name: 'page', port: 80, targetPort: 'page' }], ...spec });

/** One end of SCTP. */
const associate = (podName: string, node: string, command: string, more: object = {}): PodObject =>
  podOf(podName, { node, labels: { app: podName }, command, container: { image: sctpPodImage, ...more } });
const specOf = (serviceName: string, path: string): Promise<string> =>
  cluster.kubectl('get', 'service', serviceName, `--output=jsonpath={.spec.${path}}`);
/** Of three endpoints one is left out by chance in less than one of a million. */
const questions = (place: string): string => `for i in $(seq 40); do wget -qO- -T 15 http://${place}/cgi-bin/who || echo lost; done`;
const askFrom = async (host: Host, place: string): Promise<Answer[]> => answers(await host.ask(['busybox', 'sh', '-c', questions(place)]));
const askIn = async (podName: string, place: string): Promise<Answer[]> => answers(await bed.inPod(podName, 'sh', '-c', questions(place)));

interface Answer {
  readonly who: string;
  readonly from: string;
}
const answers = (output: string): Answer[] =>
  output
    .trim()
    .split('\n')
    .map((line) => {
      const [who = '', from = ''] = line.replaceAll(/\[|\]|::ffff:/g, '').split(' ');
      return { who, from };
    });
const who = (given: readonly Answer[]): string => [...new Set(given.map((answer) => answer.who))].toSorted().join(' ');
/** As whom each of them sees the client. */
const seen = (given: readonly Answer[]): Record<string, string> => Object.fromEntries(given.map((answer) => [answer.who, answer.from]));

/** One question after the other until one is answered: packets to addresses that nobody serves yet are lost without a word. */
const answered = (host: Host, place: string): Promise<true> =>
  until(`${place} to answer`, async () => (await status(host, `http://${place}/`)) !== '000');
const status = (host: Host, url: string): Promise<string> =>
  host.exec(['curl', '-s', '-m', '5', '-o', '/dev/null', '-w', '%{http_code}', url], { anyStatus: true }).then(({ stdout }) => stdout);

before(async () => {
  bed = await KubernetesBed.start(name, { images: [{ name: sctpPodImage, recipe: sctpImage, command: ['echo_server'] }] });
  ({ lab, cluster } = bed);
  await bed.run(pod('one', 'host1'), pod('two', 'host2'), pod('three', 'host2'));
  // Whoever is outside finds a load balancer's address at the first node, as a router would have it.
  await lab.controller.exec(['ip', 'route', 'add', balanced, 'via', lab.host('host1').address]);
});
after(() => destroyLab(name));

test('a service is reached from pods, its own among them, and from nodes; each backend gets its share', async () => {
  await cluster.apply(service('web'));
  const ip = await specOf('web', 'clusterIP');
  await until('the service to be served everywhere', async () => {
    const heard = await Promise.all(lab.hosts.map((host) => askFrom(host, ip)));
    return heard.every((given) => who(given) === 'one three two');
  });
  for (const client of ['one', 'two']) await until(`all to answer ${client}`, async () => who(await askIn(client, ip)) === 'one three two');
});

test('the API server is reached by its service, and a service that nobody serves refuses at once', async () => {
  await until('the API server to be reached', () => bed.inPod('one', 'sh', '-c', 'nc -w 5 10.96.0.1 443 </dev/null').then(() => true));
  await cluster.apply(service('nobody', { selector: { app: 'nobody' } }));
  const ip = await specOf('nobody', 'clusterIP');
  await until('connections to be refused', async () => {
    const { stdout } = await cluster.tryKubectl(['exec', 'one', '--', 'sh', '-c', `wget -qO- -T 5 http://${ip}/ 2>&1; true`]);
    return stdout.includes('refused');
  });
});

test('a node port is reached from outside, from pods and from nodes by every node; external addresses are, too', async () => {
  const [first, second] = [lab.host('host1'), lab.host('host2')];
  const { controller } = lab;
  await cluster.apply(service('open', { type: 'NodePort', externalIPs: [balanced] }));
  const port = await specOf('open', 'ports[0].nodePort');
  const [atFirst, atSecond] = [`${first.address}:${port}`, `${second.address}:${port}`];
  for (const place of [atFirst, atSecond, balanced]) {
    await answered(controller, place);
    await until(`all to answer at ${place}`, async () => who(await askFrom(controller, place)) === 'one three two');
  }
  // Endpoints on the node see the client; those on the other the node, to which they have to answer by the tunnel.
  const inside = '10.244.1.0';
  assert.deepEqual(seen(await askFrom(controller, atFirst)), { one: controller.address, two: inside, three: inside });
  for (const place of [atFirst, atSecond, balanced])
    await until(`all to answer a pod at ${place}`, async () => who(await askIn('one', place)) === 'one three two');
  for (const host of lab.hosts)
    await until(`all to answer ${host.name}`, async () => who(await askFrom(host, atFirst)) === 'one three two');
  await cluster.kubectl('delete', 'service', 'open');
  await until('the port to be closed', async () => (await status(controller, `http://${atFirst}/`)) === '000');
});

test('a load balancer with externalTrafficPolicy Local leads to endpoints of the node, which see the client', async () => {
  const [first, second] = [lab.host('host1'), lab.host('host2')];
  const { controller } = lab;
  const ranges = [`${controller.address}/32`, '10.244.0.0/16'];
  await cluster.apply(service('edge', { type: 'LoadBalancer', externalTrafficPolicy: 'Local', loadBalancerSourceRanges: ranges }));
  const ingress = { status: { loadBalancer: { ingress: [{ ip: balanced }] } } };
  await cluster.kubectl('patch', 'service', 'edge', '--subresource=status', '--type=merge', '--patch', JSON.stringify(ingress));
  await answered(controller, balanced);
  assert.deepEqual(seen(await askFrom(controller, balanced)), { one: controller.address });
  const port = await specOf('edge', 'ports[0].nodePort');
  await answered(controller, `${second.address}:${port}`);
  assert.deepEqual(seen(await askFrom(controller, `${second.address}:${port}`)), { two: controller.address, three: controller.address });
  await until('all to answer a pod', async () => who(await askIn('one', balanced)) === 'one three two');
  // Not in the ranges: the node itself.
  assert.equal(await status(first, `http://${balanced}/`), '000');

  const healthPort = await specOf('edge', 'healthCheckNodePort');
  const health = (host: Host): string => `http://${host.address}:${healthPort}/healthz`;
  await until('its health to be told', async () => {
    const told = JSON.parse(await controller.ask(['curl', '-s', '-m', '5', health(second)])) as unknown;
    assert.deepEqual(told, { service: { namespace: 'default', name: 'edge' }, localEndpoints: 2, serviceProxyHealthy: true });
    return true;
  });
  await cluster.kubectl('label', 'pod', 'one', 'app=other', '--overwrite');
  await until('the first node to say that it has none', async () => (await status(controller, health(first))) === '503');
  await until('the second to have some', async () => (await status(controller, health(second))) === '200');
  await until('what comes to it to be dropped', async () => (await status(controller, `http://${first.address}:${port}/`)) === '000');
  await until('the others to answer', async () => who(await askIn('one', balanced)) === 'three two');
  await cluster.kubectl('label', 'pod', 'one', 'app=web', '--overwrite');
  await cluster.kubectl('delete', 'service', 'edge');
  await until('the health-check port to be closed', async () => (await status(controller, health(second))) === '000');
});

test('load balancers hear by the port of kube-proxy that a node is going to leave', async () => {
  const { controller } = lab;
  const health = `http://${lab.host('host2').address}:10256/healthz`;
  const taint = 'ToBeDeletedByClusterAutoscaler';
  await until('the node to be well', async () => (await status(controller, health)) === '200');
  await cluster.kubectl('taint', 'node', 'host2', `${taint}=1:NoSchedule`);
  await until('the node to say so', async () => (await status(controller, health)) === '503');
  await cluster.kubectl('taint', 'node', 'host2', `${taint}-`);
  await until('it to stay', async () => (await status(controller, health)) === '200');
});

test('a client that is to stay comes to one endpoint, also after the agent has been restarted, until that leaves', async () => {
  await cluster.apply(service('sticky', { sessionAffinity: 'ClientIP' }));
  const ip = await specOf('sticky', 'clusterIP');
  await until('the service to be served', async () => ['one', 'two', 'three'].includes(who(await askIn('one', ip))));
  const chosen = who(await askIn('one', ip));
  const host = lab.host('host1');
  await host.stopService('agent', 'SIGKILL');
  await cluster.startAgent(host);
  await until('the agent to have planned', async () => (await agentStatus(host)).desired > 0);
  assert.equal(who(await askIn('one', ip)), chosen);
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  await cluster.kubectl('label', 'pod', chosen, 'app=other', '--overwrite');
  await until('another to answer', async () => {
    const now = who(await askIn('one', ip));
    return now !== chosen && now !== 'lost' && !now.includes(' ');
  });
  await cluster.kubectl('label', 'pod', chosen, 'app=web', '--overwrite');
});

test('addresses that are not ready are published where a service wants it, and by the name of their port', async () => {
  await cluster.apply(
    pod('unready', 'host2', { labels: { app: 'unready' }, ready: ['false'] }),
    service('early', { selector: { app: 'unready' }, publishNotReadyAddresses: true }),
  );
  const ip = await specOf('early', 'clusterIP');
  await until('it to answer', async () => who(await askIn('one', ip)) === 'unready');
});

test('SCTP reaches services by their address and by node ports, and pods by host ports', async () => {
  const ports = [{ containerPort: 7, hostPort: 3868, protocol: 'SCTP' }];
  await bed.run(associate('echo', 'host2', 'exec echo_server', { ports }), associate('caller', 'host1', stay));
  await cluster.apply(serviceOf('signals', { app: 'echo' }, { type: 'NodePort', ports: [{ port: 80, targetPort: 7, protocol: 'SCTP' }] }));
  const [ip, nodePort] = await Promise.all(['clusterIP', 'ports[0].nodePort'].map((path) => specOf('signals', path)));
  const [first, second] = lab.hosts.map(({ address }) => address);
  const places = { service: `${ip} 80`, near: `${first} ${nodePort}`, far: `${second} ${nodePort}`, host: `${second} 3868` };
  for (const place of Object.values(places))
    await until(`${place} to answer a pod`, async () => (await bed.inPod('caller', 'sh', '-c', sctpLine(place))).includes('word'));
  for (const place of [places.near, places.far, places.host]) {
    const asked = ['sh', '-c', sctpLine(place, '/usr/lib/usrsctp/client')];
    await until(`${place} to answer outside`, async () => (await lab.controller.exec(asked, { anyStatus: true })).stdout.includes('word'));
  }
});

test('who leaves a service gets no more of its connections, and a service that is deleted is gone', async () => {
  const ip = await specOf('web', 'clusterIP');
  await until('all to be there', async () => who(await askIn('one', ip)) === 'one three two');
  await cluster.kubectl('label', 'pod', 'three', 'app=other', '--overwrite');
  await until('three to be left out', async () => who(await askIn('one', ip)) === 'one two');
  await cluster.kubectl('delete', 'service', 'web');
  const rules = ['nft', 'list', 'table', 'inet', 'causeway'];
  await until('the service to be gone', async () => !(await lab.host('host1').ask(rules)).includes(ip));
});

// What is made of Nova's answers, as a real one gives them (test/openstack-clients.e2e.ts) and as others do.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FaultCode, isFault } from '#model/fault.ts';
import { Nova } from './nova.ts';
import { type Answer, cloudOf, json, keystone, serving } from './server.fixture.ts';
import { CloudSession } from './session.ts';

const project = '0123456789abcdef0123456789abcdef';

/** `behind`: of the address in the catalogue. */
async function asking<T>(answer: Answer, work: (nova: Nova) => Promise<T>, behind = '/v2.1'): Promise<T> {
  let url = '';
  const identity = keystone(() => url, { catalog: [{ type: 'compute', endpoints: [] }] });
  await using server = await serving((request, ...rest) =>
    (request.url === '/v3/auth/tokens' ? identity.answer : answer)(request, ...rest),
  );
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url, { overrides: { compute: `${url}${behind}` } }), { retries: 0 });
  const nova = await Nova.of(session);
  return await work(nova ?? assert.fail('Nova is in the catalogue'));
}

/** As Nova 31 gives it. */
const recorded = (id: string, name: string): object => ({
  id,
  name,
  links: [
    { rel: 'self', href: `http://cloud:8774/v2.1/servers/${id}` },
    { rel: 'bookmark', href: `http://cloud:8774/servers/${id}` },
  ],
});

test('servers come in pages, with the version of the API that they are asked for by, wherever the catalogue ends', async () => {
  const names = ['one', 'two', 'two'];
  for (const behind of ['', '/v2.1', `/v2.1/${project}`]) {
    const asked: string[] = [];
    const servers = await asking(
      (request, response) => {
        asked.push(`${request.url} ${String(request.headers['openstack-api-version'])}`);
        const { searchParams } = new URL(request.url ?? '', 'http://cloud');
        const at = searchParams.has('marker') ? Number(searchParams.get('marker')) + 1 : 0;
        const links = at + 1 < names.length ? { servers_links: [{ rel: 'next', href: 'http://cloud/elsewhere' }] } : {};
        json(response, 200, { servers: [recorded(String(at), names[at] ?? '')], ...links });
      },
      (nova) => nova.servers(),
      behind,
    );
    assert.deepEqual(servers, [
      { id: '0', name: 'one' },
      { id: '1', name: 'two' },
      { id: '2', name: 'two' },
    ]);
    assert.deepEqual(
      asked,
      ['', '&marker=0', '&marker=1'].map((more) => `/v2.1/servers?limit=500${more} compute 2.27`),
    );
  }
});

test('the ports of a server are those of its interfaces', async () => {
  const attachment = {
    net_id: 'net',
    port_id: 'port',
    mac_addr: 'fa:16:3e:00:00:01',
    port_state: 'ACTIVE',
    fixed_ips: [{ subnet_id: 'subnet', ip_address: '10.0.0.5' }],
  };
  const ports = await asking(
    (request, response) =>
      json(response, 200, { interfaceAttachments: request.url === '/v2.1/servers/a%2Fb/os-interface' ? [attachment] : [] }),
    (nova) => nova.ports('a/b'),
  );
  assert.deepEqual(ports, ['port']);
});

const id = { 'x-openstack-request-id': 'req-1' };
const cases: readonly (readonly [string, Answer, FaultCode, RegExp])[] = [
  [
    'a server that is not there',
    (_, response) => json(response, 404, { itemNotFound: { code: 404, message: 'Instance x could not be found.' } }, id),
    'not-found',
    /Nova refuses GET \/v2\.1\/servers\/x\/os-interface: Instance x could not be found \(request req-1\)/,
  ],
  [
    'a right that is missing',
    (_, response) =>
      json(response, 403, { forbidden: { code: 403, message: "Policy doesn't allow os_compute_api:os-attach-interfaces:list" } }, id),
    'forbidden',
    /os-attach-interfaces:list.*\(request req-1\)/,
  ],
  [
    'a version that it does not know',
    (_, response) => json(response, 406, { computeFault: { code: 406, message: 'Version 2.27 is not supported by the API.' } }),
    'internal',
    /Version 2\.27 is not supported/,
  ],
  [
    'HTML',
    (_, response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Dashboard</html>'),
    'corrupt',
    /Nova at .* text\/html, not with JSON/,
  ],
  ['no list', (_, response) => json(response, 200, {}), 'corrupt', /lacks interfaceAttachments/],
  [
    'an interface without a port',
    (_, response) => json(response, 200, { interfaceAttachments: [{ net_id: 'net' }] }),
    'corrupt',
    /interfaceAttachments\[0\]\.port_id/,
  ],
];
for (const [name, answer, code, words] of cases) {
  test(`told of Nova: ${name}`, () =>
    assert.rejects(
      asking(answer, (nova) => nova.ports('x')),
      (error) => {
        assert.ok(isFault(error, code), String(error));
        assert.match(error.message, words);
        return true;
      },
    ));
}

test('a server without a name is none that Causeway knows', () =>
  assert.rejects(
    asking(
      (_, response) => json(response, 200, { servers: [{ id: 'x' }] }),
      (nova) => nova.servers(),
    ),
    (error) => isFault(error, 'corrupt') && /servers\[0\]\.name/.test(error.message),
  ));

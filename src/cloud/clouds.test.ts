import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type FaultCode, isFault } from '#model/fault.ts';
import { type CloudSurroundings, findCloud } from './clouds.ts';

const folder = mkdtempSync(join(tmpdir(), 'causeway-clouds-'));
after(() => rmSync(folder, { recursive: true }));

let files = 0;
function written(text: string): string {
  files++;
  const path = join(folder, `${files}.yaml`);
  writeFileSync(path, text);
  return path;
}
const inFiles = (clouds: string, secure?: string): CloudSurroundings => ({
  environment: {},
  configFiles: [join(folder, 'absent.yaml'), written(clouds)],
  secureFiles: secure === undefined ? [] : [written(secure)],
});
const inEnvironment = (environment: CloudSurroundings['environment']): CloudSurroundings => ({
  environment,
  configFiles: [],
  secureFiles: [],
});

const base = { OS_AUTH_URL: 'https://cloud.test:5000', OS_USERNAME: 'demo', OS_PASSWORD: 'secret', OS_PROJECT_NAME: 'shop' };

test('OS_* variables: password, with names in domains', async () => {
  const cloud = await findCloud(
    inEnvironment({
      ...base,
      OS_USER_DOMAIN_NAME: 'People',
      OS_PROJECT_DOMAIN_ID: 'd1',
      OS_REGION_NAME: 'north',
      OS_INTERFACE: 'internal',
    }),
  );
  assert.deepEqual(cloud, {
    name: 'environment',
    authUrl: 'https://cloud.test:5000/v3',
    login: {
      type: 'password',
      user: { name: 'demo', domain: { name: 'People' } },
      password: 'secret',
      project: { name: 'shop', domain: { id: 'd1' } },
    },
    place: { interface: 'internal', region: 'north' },
    ca: undefined,
    verify: true,
    overrides: {},
  });
});

test('clouds.yaml with secure.yaml over it, an application credential, an address of its own', async () => {
  const surroundings = inFiles(
    `clouds:
  mine:
    auth_type: v3applicationcredential
    auth: {auth_url: "https://cloud.test/identity/v3/", application_credential_id: abc}
    region_name: north
    verify: false
    network_endpoint_override: http://10.0.0.1:9696
  other: {}`,
    'clouds: {mine: {auth: {application_credential_secret: s3cret}}}',
  );
  const cloud = await findCloud({ ...surroundings, environment: { OS_CLOUD: 'other' } }, 'mine');
  assert.deepEqual(cloud.login, { type: 'application-credential', credential: { id: 'abc' }, secret: 's3cret' });
  assert.equal(cloud.authUrl, 'https://cloud.test/identity/v3');
  assert.deepEqual([cloud.verify, cloud.overrides], [false, { network: 'http://10.0.0.1:9696' }]);
});

test('credentials by name, tokens, ids; the only cloud of a file needs no name', async () => {
  const auth = 'auth_url: https://cloud.test/v3';
  const login = async (rest: string) => (await findCloud(inFiles(`clouds: {a: {auth: {${auth}, ${rest}}}}`))).login;
  assert.deepEqual(await login('application_credential_name: cw, username: demo, application_credential_secret: s'), {
    type: 'application-credential',
    credential: { name: 'cw', user: { name: 'demo', domain: { id: 'default' } } },
    secret: 's',
  });
  assert.deepEqual(await login('token: t, project_id: p1'), { type: 'token', token: 't', project: { id: 'p1' } });
  assert.deepEqual(await login('user_id: u1, password: 12345, project_id: p1'), {
    type: 'password',
    user: { id: 'u1' },
    password: '12345',
    project: { id: 'p1' },
  });
});

test('a relative cacert counts from the file', async () => {
  writeFileSync(join(folder, 'ca.pem'), '-----BEGIN CERTIFICATE-----\n');
  const text = 'clouds: {a: {auth: {auth_url: "https://x/v3", token: t}, cacert: ca.pem}}';
  assert.match((await findCloud(inFiles(text))).ca ?? '', /BEGIN/);
});

test('what is missing or wrong is named', async () => {
  const cases: readonly (readonly [CloudSurroundings, string | undefined, FaultCode, RegExp])[] = [
    [inEnvironment({}), undefined, 'not-found', /Nothing says which cloud/],
    [inFiles('clouds: {a: {}, b: {}}'), undefined, 'not-found', /several clouds: a, b/],
    [inFiles('clouds: {a: {}}'), 'c', 'not-found', /No cloud "c" in/],
    [inFiles('clouds: {a: {}}'), 'a', 'invalid', /auth\.auth_url of cloud a is missing/],
    [inFiles('clouds: 1'), 'a', 'corrupt', /is not a clouds file/],
    [inFiles('clouds: {a: {auth: nothing}}'), 'a', 'corrupt', /Cloud a in/],
    [inEnvironment({ ...base, OS_PASSWORD: '' }), undefined, 'invalid', /OS_PASSWORD is missing/],
    [inEnvironment({ ...base, OS_PROJECT_NAME: undefined }), undefined, 'invalid', /OS_PROJECT_NAME is missing/],
    [inEnvironment({ ...base, OS_AUTH_URL: 'https://cloud.test:5000/v2.0' }), undefined, 'unsupported', /Version 2/],
    [inEnvironment({ ...base, OS_AUTH_URL: 'cloud.test' }), undefined, 'invalid', /Not an address/],
    [inEnvironment({ ...base, OS_AUTH_TYPE: 'v3oidcpassword' }), undefined, 'unsupported', /v3oidcpassword/],
    [inEnvironment({ ...base, OS_INTERFACE: 'secret' }), undefined, 'invalid', /Not an interface/],
    [inEnvironment({ ...base, OS_CACERT: join(folder, 'none.pem') }), undefined, 'invalid', /No certificate/],
  ];
  for (const [surroundings, name, code, words] of cases) {
    await assert.rejects(findCloud(surroundings, name), (error) => {
      assert.ok(isFault(error, code), String(error));
      assert.match(error.message, words);
      return true;
    });
  }
});

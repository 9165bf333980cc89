import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { readKubeconfig } from './kubeconfig.ts';

const folder = mkdtempSync(join(tmpdir(), 'causeway-kubeconfig-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, 'config');

const config = (user: object, cluster: object = { server: 'https://10.0.0.1:6443/' }): string =>
  JSON.stringify({
    apiVersion: 'v1',
    'current-context': 'main',
    contexts: [{ name: 'main', context: { cluster: 'c', user: 'u', namespace: 'x' } }],
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user }],
  });
const base64 = (text: string): string => Buffer.from(text).toString('base64');

test('certificates inside and beside the file', () => {
  writeFileSync(join(folder, 'ca.crt'), 'CA');
  const user = { 'client-certificate-data': base64('CERT'), 'client-key-data': base64('KEY') };
  writeFileSync(file, config(user, { server: 'https://10.0.0.1:6443/', 'certificate-authority': 'ca.crt' }));
  assert.deepEqual(readKubeconfig(file), { server: 'https://10.0.0.1:6443', ca: 'CA', certificate: { certificate: 'CERT', key: 'KEY' } });
});

test('YAML, as people and programs write it', () => {
  writeFileSync(
    file,
    `apiVersion: v1
kind: Config
clusters:
- name: c # the only one
  cluster: {server: 'https://10.0.0.1:6443'}
users:
- {name: u, user: {token: "secret"}}
contexts:
- name: main
  context: {cluster: c, user: u}
current-context: main
`,
  );
  const { server, token } = readKubeconfig(file);
  assert.deepEqual([server, token?.()], ['https://10.0.0.1:6443', 'secret']);
});

test('a token, also one in a file that is replaced', () => {
  writeFileSync(file, config({ token: 'secret' }));
  assert.equal(readKubeconfig(file).token?.(), 'secret');
  writeFileSync(file, config({ tokenFile: 'token' }));
  const { token } = readKubeconfig(file);
  const read = ['first', 'second'].map((text) => {
    writeFileSync(join(folder, 'token'), `${text}\n`);
    return token?.();
  });
  assert.deepEqual(read, ['first', 'second']);
});

test('another context than the current one, which then need not be', () => {
  const two = { ...(JSON.parse(config({ token: 'a' })) as { contexts: object[]; users: object[] }), 'current-context': undefined };
  two.contexts.push({ name: 'other', context: { cluster: 'c', user: 'v' } });
  two.users.push({ name: 'v', user: { token: 'b' } });
  writeFileSync(file, JSON.stringify(two));
  assert.equal(readKubeconfig(file, 'other').token?.(), 'b');
  assert.throws(
    () => readKubeconfig(file, 'third'),
    (error) => isFault(error, 'not-found') && /has no context third; it has main, other/.test(error.message),
  );
  assert.throws(
    () => readKubeconfig(file),
    (error) => isFault(error, 'invalid'),
  );
});

const bad: readonly (readonly [string, string, string])[] = [
  ['no YAML', '{', 'invalid'],
  ['another document', '[1]', 'invalid'],
  ['no such user', config({}).replace('"u","user"', '"v","user"'), 'invalid'],
  ['no https', config({}, { server: 'http://10.0.0.1' }), 'invalid'],
  ['no address', config({}, { server: 'nonsense' }), 'invalid'],
  ['a certificate that is not there', config({ 'client-certificate': 'none.crt' }), 'not-found'],
];
for (const [what, text, code] of bad) {
  test(`a file with ${what} is ${code}`, () => {
    writeFileSync(file, text);
    assert.throws(
      () => readKubeconfig(file),
      (error) => isFault(error) && error.code === code,
    );
  });
}

test('a file that is not there', () => {
  assert.throws(
    () => readKubeconfig(join(folder, 'none')),
    (error) => isFault(error, 'not-found'),
  );
});

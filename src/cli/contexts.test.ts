import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { isFault } from '#model/fault.ts';
import { readContexts, resolveTarget, writeContexts } from './contexts.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'causeway-contexts-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

const pem = '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n';

function files(t: TestContext): readonly [string, string] {
  const path = folder(t);
  const own = join(path, 'own', 'contexts.yaml');
  const system = join(path, 'system.yaml');
  writeContexts(own, {
    current: 'own',
    contexts: { own: { url: 'https://own:7480', token: 'a' }, both: { url: 'https://both-own:7480' } },
  });
  writeContexts(system, {
    current: 'system',
    contexts: { system: { url: 'https://system:7480', token: 'b', ca: pem }, both: { url: 'https://both-system:7480' } },
  });
  return [own, system];
}

test('which context is used: option, then environment, then files', async (t) => {
  const both = files(t);
  const urlOf = async (context: string | undefined, environment: Record<string, string>, from: readonly string[] = both): Promise<string> =>
    (await resolveTarget(from, { context, environment })).url;
  const rows: readonly (readonly [string | undefined, Record<string, string>, string])[] = [
    [undefined, {}, 'https://own:7480'],
    [undefined, { context: 'system' }, 'https://system:7480'],
    ['both', { context: 'system' }, 'https://both-own:7480'],
    ['system', { url: 'https://env:1' }, 'https://system:7480'],
    [undefined, { url: 'https://env:1' }, 'https://env:1'],
    [undefined, { url: 'https://env:1', context: 'system' }, 'https://env:1'],
  ];
  for (const [context, environment, url] of rows) assert.equal(await urlOf(context, environment), url);
  assert.equal(await urlOf(undefined, {}, [both[1]]), 'https://system:7480');
});

test('the environment replaces single fields of the context', async (t) => {
  const target = await resolveTarget(files(t), { environment: { context: 'system', token: 'other' } });
  assert.deepEqual(target, { name: 'system', url: 'https://system:7480', token: 'other', ca: pem });
});

test('blanks and line ends around a token are left out, and what is inside of it is told', async (t) => {
  const tokenOf = (token: string) => resolveTarget(files(t), { environment: { context: 'system', token } }).then((target) => target.token);
  assert.equal(await tokenOf(' cwa_0123456789_abc\r\n'), 'cwa_0123456789_abc');
  for (const text of ['cwa_0123456789\n_abc', 'cwa_0123456789 _abc', '“cwa_0123456789_abc”'])
    await assert.rejects(tokenOf(text), (error) => isFault(error, 'invalid') && error.field === 'token', text);
});

test('a context of any name is found again', async (t) => {
  const file = join(folder(t), 'contexts.yaml');
  writeContexts(file, { current: 'prototype', contexts: { prototype: { url: 'https://p:1' } } });
  assert.equal((await resolveTarget([file], { environment: {} })).url, 'https://p:1');
});

test('a context and the environment may name several controllers; the first is asked first', async (t) => {
  const file = join(folder(t), 'contexts.yaml');
  writeContexts(file, { contexts: { only: { url: 'https://a:1', urls: ['https://b:1', 'https://a:1'], token: 'x' } } });
  const fromFile = await resolveTarget([file], { environment: {} });
  assert.deepEqual([fromFile.url, fromFile.others], ['https://a:1', ['https://b:1']]);
  for (const context of [undefined, 'only']) {
    const replaced = await resolveTarget([file], { environment: { url: 'https://c:1,https://d:1', context } });
    assert.deepEqual([replaced.url, replaced.others], ['https://c:1', ['https://d:1']]);
  }
  const one = await resolveTarget([file], { environment: { url: 'https://c:1', context: 'only' } });
  assert.equal(one.others, undefined);
  writeContexts(file, { contexts: { only: { url: 'https://a:1', urls: ['b'] } } });
  await assert.rejects(resolveTarget([file], { environment: {} }), (error) => isFault(error, 'invalid') && error.field === 'url');
});

test('a CA may be a file, relative to the contexts file', async (t) => {
  const path = folder(t);
  const file = join(path, 'contexts.yaml');
  writeFileSync(join(path, 'ca.pem'), pem);
  writeContexts(file, { contexts: { only: { url: 'https://h:7480', ca: 'ca.pem' } } });
  assert.equal((await resolveTarget([file], { environment: {} })).ca, pem);
  writeContexts(file, { contexts: { only: { url: 'https://h:7480', ca: 'absent.pem' } } });
  await assert.rejects(resolveTarget([file], { environment: {} }), (error) => isFault(error, 'not-found') && error.field === 'ca');
});

test('without any context the error says how to get one', async (t) => {
  await assert.rejects(
    resolveTarget([join(folder(t), 'absent.yaml')], { environment: {} }),
    (error) => isFault(error, 'not-found') && error.hint?.includes('causeway context add') === true,
  );
});

test('an unknown context is refused with the known names', async (t) => {
  const all = files(t);
  await assert.rejects(
    resolveTarget(all, { context: 'nope', environment: {} }),
    (error) => isFault(error, 'not-found') && error.hint === 'Use one of: own, both, system',
  );
});

test('a broken file is corrupt, a wrong address invalid', async (t) => {
  const file = join(folder(t), 'contexts.yaml');
  for (const text of ['contexts: [1]', 'contexts: {a: {token: x}}', '{', 'contexts: {a: {url: 5}}']) {
    writeFileSync(file, text);
    await assert.rejects(readContexts(file), (error) => isFault(error, 'corrupt'), text);
  }
  await assert.rejects(resolveTarget([], { environment: { url: 'controller' } }), (error) => isFault(error, 'invalid'));
  await assert.rejects(resolveTarget([], { environment: { url: 'ftp://x' } }), (error) => isFault(error, 'invalid'));
});

test('the file is for its owner only, and an empty one is no error', async (t) => {
  const [own] = files(t);
  assert.equal(statSync(own).mode & 0o777, 0o600);
  writeFileSync(own, '');
  assert.deepEqual(await readContexts(own), { contexts: {} });
  writeFileSync(own, 'contexts:\n  # by hand\n  a: {url: "https://a:1"}\n');
  assert.deepEqual(await readContexts(own), { contexts: { a: { url: 'https://a:1' } } });
});

test('on a host its own identity serves where there is no context', async (t) => {
  const path = folder(t);
  const identityFile = join(path, 'identity.json');
  const identity = { host: 'a', generation: 1, controllers: ['https://c1:7480', 'https://c2:7480'], key: 'K', certificate: 'C', ca: pem };
  writeFileSync(identityFile, JSON.stringify(identity));
  assert.deepEqual(await resolveTarget([], { environment: {}, identityFile }), {
    name: 'host a',
    url: 'https://c1:7480',
    others: ['https://c2:7480'],
    ca: pem,
    certificate: { certificate: 'C', key: 'K' },
  });
  assert.equal((await resolveTarget(files(t), { environment: {}, identityFile })).name, 'own');
  writeFileSync(identityFile, '{}');
  await assert.rejects(resolveTarget([], { environment: {}, identityFile }), (error) => isFault(error, 'not-found'));
});

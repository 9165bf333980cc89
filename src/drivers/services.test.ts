import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '#model/ip.ts';
import type { Backend, Service } from '#model/resources.ts';
import { hostTable } from './guard.ts';
import { planServices, serviceRules } from './services.ts';

const backend = (ip: string, port = 8080): Backend => ({ ip: parseIp(ip), port });
const service = (key: string, ip: string, backends: readonly Backend[]): Service => ({
  key,
  ip: parseIp(ip),
  protocol: 'tcp',
  port: 80,
  backends,
});
const lines = (services: readonly Service[]): string[] =>
  planServices(services).map(({ set, key, value }) => `${set}: ${key}${value === undefined ? '' : ` = ${value}`}`);

test('a service is an element for itself and one for each backend', () => {
  const web = service('web', '10.96.0.5', [backend('10.244.2.3'), backend('10.244.1.2'), backend('10.244.1.2')]);
  assert.deepEqual(lines([web, service('none', 'fd96::1', [])]), [
    'unserved6: fd96::1 . tcp . 80',
    'services4: 10.96.0.5 . tcp . 80 = goto backends_2',
    'backends4: 10.96.0.5 . tcp . 80 . 0 = 10.244.1.2 . 8080',
    'backends4: 10.96.0.5 . tcp . 80 . 1 = 10.244.2.3 . 8080',
    'loops4: 10.244.1.2 . 10.244.1.2',
    'loops4: 10.244.2.3 . 10.244.2.3',
    'virtual4: 10.96.0.5',
    'virtual6: fd96::1',
  ]);
});

test('the order of services does not matter, and of two with one address the first by key is served', () => {
  const [first, second] = [service('a', '10.96.0.5', [backend('10.0.0.1')]), service('b', '10.96.0.5', [backend('10.0.0.2')])];
  assert.deepEqual(lines([second, first]), lines([first]));
});

const text = (count: number): string => {
  const backends = Array.from({ length: count }, (_, index) => backend(`10.0.0.${index + 1}`));
  return hostTable(serviceRules([service('a', '10.96.0.5', backends)])).text;
};

test('the rules do not change with the services, until one has more backends than any had before', () => {
  assert.equal(text(0), text(8));
  assert.notEqual(text(8), text(9));
  assert.equal(hostTable(serviceRules([])).text, hostTable().text);
});

test('many services cost elements and no rules', () => {
  const many = Array.from({ length: 1000 }, (_, index) =>
    service(`s${index}`, `10.96.${index >> 8}.${index & 255}`, [backend('10.0.0.1')]),
  );
  assert.equal(hostTable(serviceRules(many)).text, hostTable(serviceRules(many.slice(0, 1))).text);
  assert.equal(planServices(many).length, 3 * 1000 + 1);
});

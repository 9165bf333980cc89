// How BGP is set, as Calico's users write it, and the passwords that go with it. A secret's record says only that it is there;
// its texts lie beside it, are in no list and no watch, and are told to hosts that speak with a peer of that password.
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { checkBgp, secretsFor, secretsIn } from '#api/calico-bgp.ts';
import type { SecretTexts } from '#api/answers.ts';
import { bgpId, type BgpRequest, type SecretRequest } from '#api/requests.ts';
import { Fault } from '#model/fault.ts';
import type { BgpResource, Secret } from '#model/resources.ts';
import type { Principal } from './access.ts';
import { type Control, transact } from './control.ts';
import { find } from './find.ts';
import { keys, notFound, putResource, readResource } from './records.ts';
import { checkMatch } from './replace.ts';

const texts: v.GenericSchema<unknown, Record<string, string>> = v.record(v.string(), v.string());

/** What is so already is not written again. Faults: `invalid`, naming the field; `conflict`. */
export function putBgp(control: Control, id: string, request: BgpRequest, match?: number): Promise<BgpResource> {
  const { sort, name, spec, labels = {} } = request;
  if (id !== bgpId(request)) throw new Fault('invalid', `id is ${bgpId(request)} but the path leads to ${id}`, { field: 'name' });
  checkBgp(request);
  return transact(control, async () => {
    const found = await readResource(control.store, 'bgp', id);
    checkMatch(found, match);
    const createdAt = found?.createdAt ?? control.now().toISOString();
    const next: BgpResource = { id, name, revision: found?.revision ?? 0, createdAt, labels, sort, spec };
    if (isDeepStrictEqual(found, next)) return { operations: [], answer: () => next };
    return { operations: [putResource('bgp', next, next.revision)], answer: (revision) => ({ ...next, revision }) };
  });
}

/** Faults: `not-found`, `conflict`. */
export function deleteBgp(control: Control, principal: Principal, id: string, match?: number): Promise<void> {
  return transact(control, async () => {
    const found = await find(control, principal, 'bgp', id);
    checkMatch(found, match);
    return { operations: [{ type: 'delete', key: keys.resource('bgp', found.id), expect: found.revision }], answer: () => undefined };
  });
}

/** Every change is told to hosts by the record's revision. Faults: `invalid` (name), `conflict`. */
export function putSecret(control: Control, name: string, request: SecretRequest, match?: number): Promise<Secret> {
  return transact(control, async () => {
    const found = await readResource(control.store, 'secrets', name);
    checkMatch(found, match);
    const before = await control.store.get(keys.secretTexts(name));
    if (found !== undefined && isDeepStrictEqual(before?.value, request.texts)) return { operations: [], answer: () => found };
    const secret: Secret = {
      id: name,
      name,
      revision: found?.revision ?? 0,
      createdAt: found?.createdAt ?? control.now().toISOString(),
      labels: found?.labels ?? {},
      keys: Object.keys(request.texts).toSorted(),
    };
    return {
      operations: [
        putResource('secrets', secret, secret.revision),
        { type: 'put', key: keys.secretTexts(name), value: { ...request.texts } },
      ],
      answer: (revision) => ({ ...secret, revision }),
    };
  });
}

/** Faults: `not-found`; `in-use` while a resource of BGP names it. */
export function deleteSecret(control: Control, principal: Principal, name: string, match?: number): Promise<void> {
  return transact(control, async () => {
    const found = await find(control, principal, 'secrets', name);
    checkMatch(found, match);
    const user = [...control.mirror.all('bgp').values()].find(({ spec }) => secretsIn(spec).some((one) => one.name === found.id));
    if (user !== undefined)
      throw new Fault('in-use', `${user.sort} ${user.name} names secret ${found.id}`, { hint: 'Change or remove it first' });
    return {
      operations: [
        { type: 'delete', key: keys.resource('secrets', found.id), expect: found.revision },
        { type: 'delete', key: keys.secretTexts(found.id) },
      ],
      answer: () => undefined,
    };
  });
}

/** For the host that asks. Fault `not-found`, also when none of its peers has that password. */
export async function readSecret(control: Control, principal: Principal, name: string): Promise<SecretTexts> {
  const host = principal.type === 'host' ? await readResource(control.store, 'hosts', principal.host) : undefined;
  if (host === undefined || !secretsFor(host, control.mirror.all('bgp').values()).has(name))
    throw new Fault('not-found', `No secret ${name} for the peers of this host`);
  const { success, output } = v.safeParse(texts, (await control.store.get(keys.secretTexts(name)))?.value);
  if (!success) throw notFound('secrets', name);
  return { texts: output };
}

// Becoming a host: a one-time token and a certificate request go in, a certificate comes out. Joining under a name that exists
// begins a new generation of that host; what the older one still holds is refused from that moment on. Another machine takes
// the name only of a host that has fallen silent, or with a token that was made for that name.
import { Fault } from '#model/fault.ts';
import type { Host } from '#model/resources.ts';
import type { Operation } from '#store/store.ts';
import type { CertificateAnswer } from '#api/answers.ts';
import type { JoinRequest } from '#api/requests.ts';
import { type Incarnation, incarnationOf } from './authentication.ts';
import { fingerprintOfRequest } from './ca.ts';
import { listCertificates, recordCertificate, revokeAllOf } from './certificates.ts';
import { commitAll, type Control, transact } from './control.ts';
import { keys, listAll, putResource, readResource } from './records.ts';
import { silenceMs } from './speakers.ts';
import { checkToken, type StoredToken, tokenValue } from './tokens.ts';

const highestIndex = 65535;

async function freeIndex(control: Control): Promise<number> {
  const prefix = keys.hostIndex(0).slice(0, -1);
  const used = new Set((await listAll(control.store, prefix)).map(({ key }) => Number(key.slice(prefix.length))));
  for (let index = 1; index <= highestIndex; index++) if (!used.has(index)) return index;
  throw new Fault('exhausted', `There are ${highestIndex} hosts already`);
}

/**
 * What the lost answer said must still be so: neither has another joined under the name since, nor has its certificate been
 * revoked. Fault `unauthenticated`.
 */
function checkRepeated(control: Control, host: Host, generation: number | undefined): void {
  const isRevoked = listCertificates(control).some(
    (one) => one.host === host.id && one.generation === host.generation && one.revokedAt !== undefined,
  );
  if (!isRevoked && (generation === undefined || generation === host.generation)) return;
  const why = isRevoked ? 'its certificate has been revoked' : 'another has joined under its name';
  throw new Fault('unauthenticated', `The token was used by host ${host.id}, and ${why} since`, { hint: 'Use a new token' });
}

/** Whether this very request has been answered before and the answer got lost. Fault `unauthenticated` when it is another's. */
function isRepeated({ record, usedKey }: StoredToken, host: string, key: string): boolean {
  if (record.usedAt === undefined) return false;
  if (record.usedBy === host && usedKey === key) return true;
  throw new Fault('unauthenticated', `The token was used at ${record.usedAt} by host ${record.usedBy ?? 'unknown'}`, {
    hint: 'Create another one: causeway token create --join',
  });
}

async function newHost(control: Control, { host, version }: JoinRequest, generation: number): Promise<Host> {
  const now = control.now().toISOString();
  const status = { ready: false, seenAt: now, desired: 0, applied: 0, failing: [], features: {} };
  const index = await freeIndex(control);
  return { id: host, name: host, revision: 0, createdAt: now, labels: {}, index, generation, underlay: [], agentVersion: version, status };
}

/** Fault `exists` when another machine has the name and speaks: two of one name would take each other's addresses. */
function checkName(
  control: Control,
  { host: name, machine }: JoinRequest,
  { found, before }: { found: Host; before?: Incarnation | undefined },
): void {
  if (machine === undefined || before?.machine === undefined || before.machine === machine) return;
  const silent = control.now().getTime() - Date.parse(found.status.seenAt);
  if (silent > silenceMs) return;
  throw new Fault('exists', `Host name ${name} is taken by another machine, which was heard ${Math.round(silent / 1000)} s ago`, {
    field: 'host',
    hint: `Give this machine another name: causeway agent --host NAME. If it replaces the other, stop that one first, or make the token for it: causeway token create --join --host ${name}`,
  });
}

async function nextHost(
  control: Control,
  request: JoinRequest,
  { isAgain, isMeant, generation: used }: { isAgain: boolean; isMeant: boolean; generation: number | undefined },
): Promise<{ host: Host; operations: Operation[] }> {
  const found = await readResource(control.store, 'hosts', request.host);
  if (isAgain) {
    if (found === undefined) throw new Fault('unauthenticated', `Host ${request.host} has been removed since`, { hint: 'Use a new token' });
    checkRepeated(control, found, used);
    return { host: found, operations: [] };
  }
  const before = await incarnationOf(control, request.host);
  if (found !== undefined && !isMeant) checkName(control, request, { found, before });
  const generation = (before?.generation ?? 0) + 1;
  const host = found === undefined ? await newHost(control, request, generation) : { ...found, generation, agentVersion: request.version };
  const { index } = host;
  const { machine } = request;
  const operations: Operation[] = [
    putResource('hosts', host, found?.revision ?? 0),
    {
      type: 'put',
      key: keys.incarnation(host.id),
      value: { generation, removed: false, ...(machine === undefined ? {} : { machine }) },
      expect: before?.revision ?? 0,
    },
  ];
  if (found === undefined) operations.push({ type: 'put', key: keys.hostIndex(index), value: host.id, expect: 0 });
  return { host, operations };
}

/**
 * Asking again with the same token and key, because the answer got lost, gives another certificate of the same generation.
 * Faults: `unauthenticated` (unknown, used, expired token), `forbidden` (token of another host), `exists` (another
 * machine has the name and speaks), `invalid` (`csr`).
 */
export async function join(control: Control, request: JoinRequest): Promise<CertificateAnswer> {
  const key = await fingerprintOfRequest(request.csr);
  const joined = await control.serially('join', () =>
    transact(control, async () => {
      const token = await checkToken(control, request.token, 'join');
      const { record, hash } = token;
      if (record.host !== undefined && record.host !== request.host) {
        throw new Fault('forbidden', `The token is for host ${record.host}, not ${request.host}`, { field: 'host' });
      }
      const isAgain = isRepeated(token, request.host, key);
      const earlier = { isAgain, isMeant: record.host !== undefined, generation: token.usedGeneration };
      const { host, operations } = await nextHost(control, request, earlier);
      const now = control.now();
      const issued = await control.authority.issueHost(request.csr, { host: host.id, generation: host.generation, now });
      const used: Operation = {
        type: 'put',
        key: keys.token(record.id),
        value: tokenValue(
          { ...record, usedAt: record.usedAt ?? now.toISOString(), usedBy: host.id },
          { hash, usedKey: key, usedGeneration: host.generation },
        ),
        expect: token.revision,
      };
      return {
        operations: [used, ...operations, recordCertificate(issued, host.id, host.generation)],
        answer: (revision) => ({ issued, host: { ...host, revision }, isAgain }),
      };
    }),
  );
  // The older generation is refused by its number already; the list says it to people too.
  if (!joined.isAgain) await revokeOlder(control, joined.host);
  control.log.info({ host: joined.host.id, generation: joined.host.generation }, 'A host has joined');
  return { certificate: joined.issued.certificate, ca: control.authority.certificate, host: joined.host };
}

async function revokeOlder(control: Control, host: Host): Promise<void> {
  await control.mirror.reached(host.revision);
  await commitAll(control.store, revokeAllOf(control, host.id, host.generation));
}

// Hosts after they have joined: what they report, new certificates, and removal of one that does not return.
import { isDeepStrictEqual } from 'node:util';
import { Fault } from '#model/fault.ts';
import type { Block, Host } from '#model/resources.ts';
import type { Operation } from '#store/store.ts';
import type { CertificateAnswer } from '#api/answers.ts';
import type { Report } from '#api/requests.ts';
import { asHost, type Principal } from './access.ts';
import { incarnationCheck } from './blocks.ts';
import { recordCertificate, revokeAllOf } from './certificates.ts';
import { commitAll, type Control, transact } from './control.ts';
import { find } from './find.ts';
import { keys, notFound, putResource, readResource, toJson } from './records.ts';
import { judgePaths } from './judged-paths.ts';
import { checkMatch, checkUnchanged } from './replace.ts';

/** What other hosts need of a host; the rest of a report changes all the time and is for people. */
export const hostFacts = ({ index, generation, underlay, wireguard, talkKey, labels, agentVersion }: Host): unknown => ({
  index,
  generation,
  underlay,
  wireguard,
  talkKey,
  labels,
  agentVersion,
});

/** Faults: `forbidden` for another host's, `stale` for an older generation. */
export function reportHost(control: Control, principal: Principal, name: string, report: Report): Promise<Host> {
  const self = asHost(principal, name, 'Reports');
  if (report.generation < self.generation) {
    throw new Fault('stale', `Host ${name} is at generation ${self.generation}, the report is of ${report.generation}`, {
      field: 'generation',
    });
  }
  if (report.generation > self.generation) {
    throw new Fault('invalid', `The certificate is of generation ${self.generation}, the report of ${report.generation}`, {
      field: 'generation',
    });
  }
  return transact(control, async () => {
    const found = await readResource(control.store, 'hosts', name);
    if (found === undefined) throw notFound('hosts', name);
    const speaker = control.speakers.takeOver(control, self, { entry: await control.store.get(keys.speaker(name)), host: found });
    const double = control.speakers.double(control.now(), name);
    const judged = judgePaths(control, report.status.paths);
    const { wireguard: _, talkKey: _talkKey, ...rest } = found;
    const next: Host = {
      ...rest,
      underlay: report.underlay,
      ...(report.wireguard === undefined ? {} : { wireguard: report.wireguard }),
      ...(report.talkKey === undefined ? {} : { talkKey: report.talkKey }),
      agentVersion: report.agentVersion,
      status: {
        ...report.status,
        ready: report.status.ready && judged.isReady,
        failing: [...report.status.failing, ...(double === undefined ? [] : [double]), ...judged.failing],
        seenAt: control.now().toISOString(),
      },
    };
    const routes = control.mirror.entry(keys.routes(name));
    const told = { routes: report.routes, bridges: report.bridges ?? [] };
    const hasNewRoutes = !isDeepStrictEqual(routes?.value, told);
    return {
      operations: [
        putResource('hosts', next, found.revision),
        incarnationCheck(self),
        ...speaker,
        ...(hasNewRoutes ? [{ type: 'put', key: keys.routes(name), value: toJson(told) } as const] : []),
      ],
      answer: (revision) => ({ ...next, revision }),
    };
  });
}

/** Only labels may change. Faults: `invalid`, `conflict`. */
export function replaceHost(control: Control, principal: Principal, wanted: Host, match: number | undefined): Promise<Host> {
  return transact(control, async () => {
    const found = await find(control, principal, 'hosts', wanted.id);
    checkMatch(found, match);
    const next: Host = { ...found, labels: wanted.labels };
    checkUnchanged('hosts', wanted, next);
    return { operations: [putResource('hosts', next, found.revision)], answer: (revision) => ({ ...next, revision }) };
  });
}

/** The old certificate stays good until it expires, so an answer that gets lost does no harm. Faults: `forbidden`, `invalid` (`csr`). */
export async function rotateCertificate(control: Control, principal: Principal, name: string, csr: string): Promise<CertificateAnswer> {
  const self = asHost(principal, name, 'Certificates');
  const issued = await control.authority.issueHost(csr, { host: name, generation: self.generation, now: control.now() });
  return transact(control, async () => {
    const host = await readResource(control.store, 'hosts', name);
    if (host === undefined) throw notFound('hosts', name);
    return {
      operations: [recordCertificate(issued, name, self.generation), incarnationCheck(self)],
      answer: () => ({ certificate: issued.certificate, ca: control.authority.certificate, host }),
    };
  });
}

/**
 * First the host loses its certificates and its record in one commit, so that it can write nothing any more; then what it
 * left goes. Interrupted between, the sweep finishes. Fault `not-found`.
 */
export async function removeHost(control: Control, principal: Principal, name: string, match?: number): Promise<void> {
  const revision = await transact(control, async () => {
    const found = await find(control, principal, 'hosts', name);
    checkMatch(found, match);
    return {
      operations: [
        { type: 'delete', key: keys.resource('hosts', found.id), expect: found.revision },
        { type: 'delete', key: keys.hostIndex(found.index) },
        { type: 'delete', key: keys.routes(found.id) },
        { type: 'delete', key: keys.speaker(found.id) },
        { type: 'put', key: keys.incarnation(found.id), value: { generation: found.generation, removed: true } },
      ],
      answer: (at) => at,
    };
  });
  await control.mirror.reached(revision);
  await commitAll(control.store, revokeAllOf(control, name));
  await removeLeftovers(control, name);
}

const without = (block: Block, host: string): Block => ({
  ...block,
  loans: block.loans.map((loan) => (loan.host === host && loan.state !== 'returned' ? { ...loan, state: 'returned' } : loan)),
});

/** Endpoints, blocks and claims of a host that exists no more; what it has borrowed counts as returned. */
export async function removeLeftovers(control: Control, name: string): Promise<void> {
  const { mirror, store } = control;
  const operations: Operation[] = [];
  for (const endpoint of mirror.all('endpoints').values()) {
    if (endpoint.host !== name) continue;
    operations.push({ type: 'delete', key: keys.resource('endpoints', endpoint.id) });
    for (const ip of endpoint.addresses) operations.push({ type: 'delete', key: keys.address(endpoint.network, ip) });
  }
  for (const block of mirror.all('blocks').values()) {
    if (block.host === name) {
      operations.push(
        { type: 'delete', key: keys.resource('blocks', block.id) },
        { type: 'delete', key: keys.claim(block.pool, block.cidr) },
      );
    }
  }
  await commitAll(store, operations);
  for (const { id, host, loans } of mirror.all('blocks').values()) {
    if (host === name || !loans.some((loan) => loan.host === name && loan.state !== 'returned')) continue;
    await transact(control, async () => {
      const found = await readResource(store, 'blocks', id);
      if (found === undefined) return { operations: [], answer: () => undefined };
      return { operations: [putResource('blocks', without(found, name), found.revision)], answer: () => undefined };
    });
  }
}

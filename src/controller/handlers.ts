// Which function answers which route. One line each where that is possible.
import { type ResourceKind, resourceKinds } from '#model/resources.ts';
import { routes } from '#api/routes.ts';
import { shownTo } from './access.ts';
import type { Bind, Reply, Surroundings } from './app.ts';
import { deleteBgp, deleteSecret, putBgp, putSecret, readSecret } from './bgp.ts';
import { askLoan, claimBlock, forgetLoan, releaseBlock, setPortGroups, settleLoan } from './blocks.ts';
import { listCertificates, revokeCertificate } from './certificates.ts';
import { readCloudReport } from './cloud.ts';
import { batchEndpoints, deleteEndpoint, putEndpoint } from './endpoints.ts';
import { createExposure, deleteExposure, replaceExposure } from './exposures.ts';
import { find } from './find.ts';
import { removeHost, replaceHost, reportHost, rotateCertificate } from './hosts.ts';
import { join } from './join.ts';
import { listPage } from './lists.ts';
import { addPool, createNetwork, deleteNetwork, replaceNetwork } from './networks.ts';
import { deletePool, proposePool, replacePool } from './pools.ts';
import { sameId } from './replace.ts';
import { createTenant, deleteTenant, replaceTenant } from './tenants.ts';
import { createToken, deleteToken, listTokens } from './tokens.ts';
import { answerWatch } from './watch.ts';
import { apiVersion } from '#api/protocol.ts';

const stored = (item: { readonly revision: number }): Reply => ({ body: item, etag: item.revision });
const done: Reply = {};
const page = (items: readonly unknown[], revision: number): Reply => ({ body: { items, revision } });
const idOf = (params: Readonly<Record<string, string>>): string => params['id'] ?? '';

function bindReads(bind: Bind, { control }: Surroundings, kind: ResourceKind): void {
  bind(routes[`list-${kind}`], async ({ principal, query }) => ({ body: await listPage(control, { principal, kind, query }) }));
  bind(routes[`get-${kind}`], async ({ principal, params }) =>
    stored(shownTo(principal, await find(control, principal, kind, idOf(params)))),
  );
}

function bindNetworks(bind: Bind, { control }: Surroundings): void {
  bind(routes['create-network'], async ({ principal, body }) => stored(await createNetwork(control, principal, body)));
  bind(routes['replace-network'], async ({ principal, params, body, match }) => {
    await sameId(control, principal, 'networks', { path: idOf(params), body: body.id });
    return stored(await replaceNetwork(control, principal, body, match));
  });
  bind(routes['delete-network'], async ({ principal, params, match }) => {
    await deleteNetwork(control, principal, idOf(params), match);
    return done;
  });
  bind(routes['add-pool'], async ({ principal, body }) => stored(await addPool(control, principal, body)));
  bind(routes['propose-pool'], async ({ body }) => ({ body: { cidr: proposePool(control, body.family, body.besides ?? []) } }));
  bind(routes['replace-pool'], async ({ principal, params, body, match }) => {
    await sameId(control, principal, 'pools', { path: idOf(params), body: body.id });
    return stored(await replacePool(control, principal, body, match));
  });
  bind(routes['delete-pool'], async ({ principal, params, match }) => {
    await deletePool(control, principal, idOf(params), match);
    return done;
  });
}

function bindBlocks(bind: Bind, { control }: Surroundings): void {
  bind(routes['claim-block'], async ({ principal, body }) => stored(await claimBlock(control, principal, body)));
  bind(routes['release-block'], async ({ principal, params, match }) => {
    await releaseBlock(control, principal, idOf(params), match);
    return done;
  });
  bind(routes['set-port-groups'], async ({ principal, params, body }) =>
    stored(await setPortGroups(control, principal, idOf(params), body)),
  );
  bind(routes['ask-loan'], async ({ principal, params, body }) => stored(await askLoan(control, principal, idOf(params), body)));
  bind(routes['settle-loan'], async ({ principal, params, body }) =>
    stored(await settleLoan(control, principal, { block: idOf(params), loan: params['loan'] ?? '', settlement: body })),
  );
  bind(routes['forget-loan'], async ({ principal, params }) => {
    await forgetLoan(control, principal, idOf(params), params['loan'] ?? '');
    return done;
  });
}

function bindEndpoints(bind: Bind, { control }: Surroundings): void {
  bind(routes['put-endpoint'], async ({ principal, params, body, match }) =>
    stored(await putEndpoint(control, principal, { id: idOf(params), request: body, match })),
  );
  bind(routes['delete-endpoint'], async ({ principal, params, query }) => {
    await deleteEndpoint(control, principal, { id: idOf(params), ...query });
    return done;
  });
  bind(routes['batch-endpoints'], async ({ principal, body }) => ({ body: { results: await batchEndpoints(control, principal, body) } }));
  bind(routes['create-exposure'], async ({ principal, body }) => stored(await createExposure(control, principal, body)));
  bind(routes['replace-exposure'], async ({ principal, params, body, match }) => {
    await sameId(control, principal, 'exposures', { path: idOf(params), body: body.id });
    return stored(await replaceExposure(control, principal, body, match));
  });
  bind(routes['delete-exposure'], async ({ principal, params, match }) => {
    await deleteExposure(control, principal, idOf(params), match);
    return done;
  });
}

function bindTenants(bind: Bind, { control }: Surroundings): void {
  bind(routes['create-tenant'], async ({ body }) => stored(await createTenant(control, body)));
  bind(routes['replace-tenant'], async ({ principal, params, body, match }) => {
    await sameId(control, principal, 'tenants', { path: idOf(params), body: body.id });
    return stored(await replaceTenant(control, principal, body, match));
  });
  bind(routes['delete-tenant'], async ({ principal, params, match }) => {
    await deleteTenant(control, principal, idOf(params), match);
    return done;
  });
}

function bindBgp(bind: Bind, { control }: Surroundings): void {
  bind(routes['put-bgp'], async ({ params, body, match }) => stored(await putBgp(control, idOf(params), body, match)));
  bind(routes['delete-bgp'], async ({ principal, params, match }) => {
    await deleteBgp(control, principal, idOf(params), match);
    return done;
  });
  bind(routes['put-secret'], async ({ params, body, match }) => stored(await putSecret(control, idOf(params), body, match)));
  bind(routes['delete-secret'], async ({ principal, params, match }) => {
    await deleteSecret(control, principal, idOf(params), match);
    return done;
  });
  bind(routes['read-secret'], async ({ principal, params }) => ({ body: await readSecret(control, principal, idOf(params)) }));
}

function bindHosts(bind: Bind, { control }: Surroundings): void {
  bind(routes['replace-host'], async ({ principal, params, body, match }) => {
    await sameId(control, principal, 'hosts', { path: idOf(params), body: body.id });
    return stored(await replaceHost(control, principal, body, match));
  });
  bind(routes['delete-host'], async ({ principal, params, match }) => {
    await removeHost(control, principal, idOf(params), match);
    return done;
  });
  bind(routes['report-host'], async ({ principal, params, body }) => stored(await reportHost(control, principal, idOf(params), body)));
  bind(routes['rotate-certificate'], async ({ principal, params, body }) => ({
    body: await rotateCertificate(control, principal, idOf(params), body.csr),
  }));
  bind(routes.join, async ({ body }) => ({ body: await join(control, body) }));
}

function bindTokens(bind: Bind, { control }: Surroundings): void {
  bind(routes['create-token'], async ({ body }) => ({ body: await createToken(control, body) }));
  bind(routes['list-tokens'], async () => page(listTokens(control), control.mirror.revision));
  bind(routes['delete-token'], async ({ params }) => {
    await deleteToken(control, idOf(params));
    return done;
  });
  bind(routes['list-certificates'], async () => page(listCertificates(control), control.mirror.revision));
  bind(routes['revoke-certificate'], async ({ params }) => {
    await revokeCertificate(control, idOf(params));
    return done;
  });
}

/** Every route of the table; buildApp checks that none is missing. */
export function bindAll(bind: Bind, surroundings: Surroundings): void {
  for (const kind of resourceKinds) bindReads(bind, surroundings, kind);
  for (const some of [bindNetworks, bindBlocks, bindEndpoints, bindTenants, bindBgp, bindHosts, bindTokens]) some(bind, surroundings);
  bind(routes.watch, (call) => answerWatch(surroundings, call));
  bind(routes['read-cloud'], async () => ({ body: await readCloudReport(surroundings.control) }));
  bind(routes.version, async () => ({ body: { version: surroundings.control.version, api: apiVersion } }));
}

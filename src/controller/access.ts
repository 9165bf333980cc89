// Who asks, and what of the resources they may see and change. Whether a role may use a route at all stands in the route
// table (api/routes.ts); here is what remains: tenants see their own, hosts what they take part in.
import { assertNever, Fault } from '#model/fault.ts';
import type { Change } from './mirror.ts';
import type { Network, ResourceKind } from '#model/resources.ts';
import type { Access } from '#api/routes.ts';
import type { Control } from './control.ts';
import { networkOf } from './contents.ts';
import { notFound } from './records.ts';

export type Principal =
  | { readonly type: 'anyone' }
  | { readonly type: 'role'; readonly role: 'admin' | 'operator' | 'viewer'; readonly token: string }
  | { readonly type: 'tenant'; readonly tenant: string; readonly token: string }
  | {
      readonly type: 'host';
      readonly host: string;
      readonly generation: number;
      readonly serial: string;
      /** Of the record `incarnations/<host>`; a commit that checks it cannot come after the host's removal or another join. */
      readonly incarnation: number;
      /** Boot id of the machine that asks, where it says so. */
      readonly boot?: string | undefined;
      /** Where the request comes from. */
      readonly address?: string | undefined;
      /** Milliseconds. */
      readonly expiresAt: number;
    };
export type HostPrincipal = Extract<Principal, { type: 'host' }>;

const accessOf = (principal: Principal): Access => (principal.type === 'role' ? principal.role : principal.type);

/** For logs and messages. */
export function describePrincipal(principal: Principal): string {
  switch (principal.type) {
    case 'anyone':
      return 'nobody in particular';
    case 'role':
      return `a token with role ${principal.role}`;
    case 'tenant':
      return `a token of tenant ${principal.tenant}`;
    case 'host':
      return `host ${principal.host}`;
    default:
      return assertNever(principal);
  }
}

/** Faults: `unauthenticated` without credentials, `forbidden` with the wrong ones. */
export function checkAccess(principal: Principal, access: readonly Access[]): void {
  if (access.includes('anyone') || access.includes(accessOf(principal))) return;
  const needed = access.join(', ');
  if (principal.type === 'anyone') {
    throw new Fault('unauthenticated', 'This needs a token or a certificate', { hint: `Needed: ${needed}` });
  }
  throw new Fault('forbidden', `Not allowed for ${describePrincipal(principal)}`, { hint: `Allowed for: ${needed}` });
}

/** The asker as the host `name`. Fault `forbidden` for everybody else. */
export function asHost(principal: Principal, name: string, what: string): HostPrincipal {
  if (principal.type === 'host' && principal.host === name) return principal;
  throw new Fault('forbidden', `${what} of host ${name} are written by that host only, not by ${describePrincipal(principal)}`);
}

type Item = Exclude<Change['after'], undefined>;

/** The tenant that owns a resource; undefined for those that belong to all (hosts) or whose network has gone. */
export function tenantOf(control: Pick<Control, 'mirror'>, kind: ResourceKind, item: Item): string | undefined {
  if (kind === 'tenants') return item.id;
  if ('tenant' in item) return item.tenant;
  const network = networkOf(item);
  return network === undefined ? undefined : control.mirror.get('networks', network)?.tenant;
}

/**
 * Hosts see all hosts, networks, pools, tenants and blocks (a borrower must find whom to ask), and the endpoints and exposures
 * of networks in which they take part. Tenants see what is theirs, and no hosts' workings beside the record itself.
 */
export function mayRead(control: Pick<Control, 'mirror' | 'contents'>, principal: Principal, kind: ResourceKind, item: Item): boolean {
  switch (principal.type) {
    case 'anyone':
      return false;
    case 'role':
      return true;
    case 'tenant':
      return kind === 'hosts' || tenantOf(control, kind, item) === principal.tenant;
    case 'host': {
      if (kind !== 'endpoints' && kind !== 'exposures') return true;
      const network = networkOf(item);
      if (network !== undefined && control.contents.takesPart(principal.host, network)) return true;
      return 'host' in item && item.host === principal.host;
    }
    default:
      return assertNever(principal);
  }
}

const untold = 'Something does not work on this host; what it is, those are told who run the installation';

/**
 * The item as the asker sees it. What does not work on a host is told in sentences that name whatever it is about, also what is of
 * other tenants: a tenant learns only that there is something.
 */
export function shownTo<T extends Item>(principal: Principal, item: T): T {
  if (principal.type !== 'tenant' || !('status' in item)) return item;
  const { status } = item;
  const { paths } = status;
  return {
    ...item,
    status: {
      ...status,
      failing: status.failing.length === 0 ? [] : [untold],
      ...(paths === undefined ? {} : { paths: { ...paths, lost: paths.lost.map((way) => ({ ...way, networks: [] })) } }),
    },
  };
}

/** For a change of something that exists. What may not even be seen is `not-found`. */
export function mustOwn(control: Pick<Control, 'mirror' | 'contents'>, principal: Principal, kind: ResourceKind, item: Item): void {
  if (principal.type === 'tenant' && !mayRead(control, principal, kind, item)) throw notFound(kind, item.id);
}

/** What an asker is told that a network is: its name, if they may see it. */
export function callFor(control: Pick<Control, 'mirror' | 'contents'>, principal: Principal, network: Network | undefined): string {
  if (network !== undefined && mayRead(control, principal, 'networks', network)) return `network ${network.name}`;
  return "another tenant's network";
}

/** The tenant for something new: a tenant's token makes things only for itself. Fault `forbidden` otherwise. */
export function tenantFor(principal: Principal, asked: string | undefined): string {
  if (principal.type !== 'tenant') return asked ?? 'default';
  if (asked !== undefined && asked !== principal.tenant) {
    throw new Fault('forbidden', `A token of tenant ${principal.tenant} cannot act for tenant ${asked}`, { field: 'tenant' });
  }
  return principal.tenant;
}

// What a plan takes of the project's quotas, and for how long that of ports lasts. Pure.
import type { Quota } from './neutron-schemas.ts';
import type { Step } from './plan.ts';

export interface QuotaUse {
  readonly name: string;
  readonly limit: number;
  readonly before: number;
  readonly after: number;
  /** In between, as things are added before others are removed. */
  readonly most: number;
}

export const isShort = ({ limit, most }: QuotaUse): boolean => limit >= 0 && most > limit;
const names: Readonly<Record<string, string>> = { floatingip: 'floating IP' };
/** For people. */
export const quotaName = ({ name }: Pick<QuotaUse, 'name'>): string => names[name] ?? name.replaceAll('_', ' ');

/** For how many more pools the quota of ports lasts; for networks whose containers have ports. */
export interface PortForecast {
  readonly left: number;
  /** Ports of one pool, of the network with the largest. */
  readonly poolSize: number;
  readonly pools: number;
}

export function forecastOf(quotas: readonly QuotaUse[], poolSize: number): PortForecast | undefined {
  const ports = quotas.find(({ name }) => name === 'port');
  if (ports === undefined || ports.limit < 0 || poolSize === 0) return undefined;
  const left = Math.max(0, ports.limit - ports.after);
  return { left, poolSize, pools: Math.floor(left / poolSize) };
}

export function quotasOf(steps: readonly Step[], quotas: Readonly<Record<string, Quota>>, hasPools: boolean): QuotaUse[] {
  const added = { security_group: 0, security_group_rule: 0, floatingip: 0, port: 0 };
  const removed = { security_group: 0, security_group_rule: 0, floatingip: 0, port: 0 };
  // A new group is born with two rules, which go before ours come.
  const born = steps.some(({ type }) => type === 'make-group') ? 2 : 0;
  for (const step of steps) {
    if (step.type === 'make-virtual-port') {
      added.port++;
      if (step.isFloating) added.floatingip++;
    }
    if (step.type === 'remove-virtual-port') removed.port++;
    if (step.type === 'make-ports') added.port += step.ports.length;
    if (step.type === 'remove-ports') removed.port += step.ports.length;
    if (step.type === 'make-group') added.security_group++;
    if (step.type === 'add-rules') added.security_group_rule += step.rules.length;
    if (step.type === 'remove-rules') removed.security_group_rule += step.rules.length;
    if (step.type === 'make-floating-ip') added.floatingip++;
    if (step.type === 'release-floating-ip' && step.isMade) removed.floatingip++;
    if (step.type === 'remove-group') {
      removed.security_group++;
      removed.security_group_rule += step.group.rules.length;
    }
  }
  const counted = (['security_group', 'security_group_rule', 'floatingip', 'port'] as const).filter(
    (name) => name !== 'port' || hasPools || added.port + removed.port > 0,
  );
  return counted.flatMap((name): QuotaUse[] => {
    const quota = quotas[name];
    if (quota === undefined) return [];
    const { limit, used: before } = quota;
    const most = before + Math.max(added[name], name === 'security_group_rule' ? born : 0);
    return [{ name, limit, before, after: before + added[name] - removed[name], most }];
  });
}

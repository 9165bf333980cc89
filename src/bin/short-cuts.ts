// What of the host short cuts depend on (drivers/fast.ts).
import { isPlainlyRouted } from '#drivers/fast.ts';
import { hasIpsecPolicies } from '#kernel/ipsec.ts';
import type { Snapshot } from '#model/resources.ts';

/** Whether IPsec has a say in what short cuts would lead past. Asked at every plan: the kernel is not where none of the networks is concerned. */
export const ipsecFor = (networks: Snapshot['networks']): boolean => [...networks.values()].some(isPlainlyRouted) && hasIpsecPolicies();

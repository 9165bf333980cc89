import type { Journal } from '#api/local.ts';

const bootKey = 'boot';

/** Does `then` when the machine has been switched on anew since this was called last, and again where it did not come to its end. */
export function afterReboot(
  { journal, boot }: { readonly journal: Pick<Journal, 'get' | 'put'>; readonly boot: string },
  then: () => void,
): void {
  const last = journal.get(bootKey);
  if (last === boot) return;
  if (last !== undefined) then();
  journal.put(bootKey, boot);
}

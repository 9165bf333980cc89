// What an agent tells of itself when it is asked.
import { isFault } from '#model/fault.ts';

export interface AgentStatus {
  readonly host: string;
  readonly connected: boolean;
  readonly reason?: string;
  readonly synced: boolean;
  /** All that is known of the cluster was put into the kernel once, as far as that takes it. */
  readonly inForce: boolean;
  readonly revision: number;
  readonly runs: number;
  readonly desired: number;
  readonly failing: readonly string[];
  readonly refused: readonly string[];
  /** Addresses that are held on this host, by endpoints or by an engine that is about to make one. */
  readonly addresses: number;
}

/** Why the controllers cannot be followed, with what to do about it. */
export const reasonText = (reason: unknown): string =>
  reason instanceof Error ? `${reason.message}${isFault(reason) && reason.hint !== undefined ? `. ${reason.hint}` : ''}` : 'unknown';

// A host with more than one interface to the outside: by which of them answers leave.
import type { Cidr } from './ip.ts';

/** What has such a sender leaves by that table. */
export interface SourceRule {
  readonly source: Cidr;
  readonly table: number;
  /** Its place among the host's rules: lower ones are asked first. */
  readonly priority: number;
}

export interface WaysOut {
  /** By priority. */
  readonly rules: readonly SourceRule[];
  /** Links that lead to the outside, by these tables or the main one. */
  readonly links: readonly string[];
}

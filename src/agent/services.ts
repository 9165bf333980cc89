// Where an agent has the services from that its host translates.
import type { Service } from '#model/resources.ts';

export interface ServiceSource {
  /** The same array for as long as nothing has changed. */
  current(): readonly Service[];
  /** Whether that is all there is, as a listing has said. */
  isSynced(): boolean;
}

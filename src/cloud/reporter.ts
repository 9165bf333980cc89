// What a keeper has seen of its cloud, for people to see wherever they ask. It goes on from what was told last, by this controller
// before it was started anew or by the one that kept the cloud before: since when the cloud is not as it should be, and by which
// addresses exposures are reached, is known also while nobody can ask it.
import type { CloudReport } from '#api/answers.ts';
import { type Fault, isFault } from '#model/fault.ts';
import type { CloudPlan, Step } from './plan.ts';
import { sentence } from './sentences.ts';

export interface ReporterLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface ReporterOptions {
  readonly tell: (report: CloudReport) => Promise<void>;
  /** What was told last, by whomever. Absent where nobody remembers it. Fault `not-found` while nothing was. */
  readonly told?: () => Promise<CloudReport>;
  /** Project and cloud, in words. */
  readonly where: () => Promise<string>;
  readonly log: ReporterLog;
  readonly now?: () => Date;
}

const mostChanges = 20;

export class Reporter {
  readonly #options: ReporterOptions;
  #seen: Omit<CloudReport, 'place' | 'problems' | 'failure'> = { changes: [] };
  #failingSince: string | undefined;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  /** When it becomes this one's turn. Not to know what was told is no reason not to begin. */
  async takeOver(): Promise<void> {
    const { told, log } = this.#options;
    try {
      const { place: _, problems: __, failure, ...seen } = (await told?.()) ?? { place: '', changes: [], problems: [] };
      this.#seen = seen;
      this.#failingSince = failure?.since;
    } catch (error) {
      if (!isFault(error)) throw error;
      if (!isFault(error, 'not-found')) log.warn({ error }, 'What was told of the cloud before is not known');
    }
  }

  /** The cloud was looked at, and these steps taken. */
  looked(steps: readonly Step[]): void {
    const lookedAt = this.#time();
    this.#seen = { ...this.#seen, lookedAt };
    if (steps.length === 0) return;
    const changes = steps.map(sentence).slice(0, mostChanges);
    this.#seen = { ...this.#seen, changes, changedAt: lookedAt };
    this.#options.log.info({ steps: changes }, 'The cloud was changed');
  }

  reached(reached: CloudPlan['reached']): void {
    const known = reached.flatMap(({ exposure, address }) => (address === undefined ? [] : [[exposure, address]]));
    this.#seen = { ...this.#seen, addresses: Object.fromEntries(known) };
  }

  /** It is as it should be, as far as these problems let it be. */
  async well(problems: readonly string[]): Promise<void> {
    if (this.#failingSince !== undefined) this.#options.log.info({}, 'The cloud is as it should be again');
    this.#failingSince = undefined;
    await this.#tell({ problems });
  }

  async failed({ code, message, hint }: Fault): Promise<void> {
    this.#failingSince ??= this.#time();
    const failure = { code, message, since: this.#failingSince, ...(hint === undefined ? {} : { hint }) };
    await this.#tell({ problems: [], failure });
  }

  /** Not to be able to tell is no reason to stop. */
  async #tell(said: Pick<CloudReport, 'problems' | 'failure'>): Promise<void> {
    const { tell, where, log } = this.#options;
    try {
      await tell({ place: await where(), ...this.#seen, ...said });
    } catch (error) {
      if (!isFault(error)) throw error;
      log.warn({ error }, 'The state of the cloud cannot be told');
    }
  }

  #time(): string {
    return (this.#options.now?.() ?? new Date()).toISOString();
  }
}

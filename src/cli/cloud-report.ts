// What the controller that keeps a cloud tells of it, in `causeway status`.
import type { CloudReport } from '#api/answers.ts';
import type { Client } from './client.ts';
import { isFault } from '#model/fault.ts';
import type { Problem } from './problems.ts';

/** Undefined where no controller keeps a cloud, where that is not for the asker to know, and from older controllers. */
export async function cloudReportOf(client: Client): Promise<CloudReport | undefined> {
  try {
    return await client.cloud();
  } catch (error) {
    if (isFault(error, 'not-found') || isFault(error, 'forbidden')) return undefined;
    throw error;
  }
}

export function cloudProblems({ place, problems, failure }: CloudReport): readonly Problem[] {
  const told =
    failure === undefined ? [] : [`${failure.message}, since ${failure.since}${failure.hint === undefined ? '' : `. ${failure.hint}`}`];
  return [...told, ...problems].map((problem) => ({ what: 'cloud', where: place, problem }));
}

export const cloudText = ({ place, lookedAt, failure }: CloudReport): string =>
  failure === undefined
    ? `${place}, kept as the networks need it, last looked at ${lookedAt}`
    : `${place}, not as it should be since ${failure.since}`;

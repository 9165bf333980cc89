// A process that commits pairs in a loop and says so, for tests that kill it or watch it: committer.ts FILE COUNT [PREFIX].
// The number is printed only after the commit was acknowledged.
import { writeSync } from 'node:fs';
import { openSqliteStore } from '#store/sqlite.ts';

const [path = '', count = '0', prefix = ''] = process.argv.slice(2);
await using store = await openSqliteStore(path);
const commitOne = async (index: number): Promise<void> => {
  await store.commit([
    { type: 'put', key: `pair/a/${prefix}${index}`, value: index },
    { type: 'put', key: `pair/b/${prefix}${index}`, value: index },
  ]);
  writeSync(1, `${index}\n`);
};
for (let index = 0; index < Number(count); index += 3) {
  await Promise.all([index, index + 1, index + 2].filter((each) => each < Number(count)).map(commitOne));
}

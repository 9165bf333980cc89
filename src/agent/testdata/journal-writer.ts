// A process that writes pairs to a journal in a loop, for the test that kills it: journal-writer.ts FILE FROM. The number is
// printed only after the transaction has returned.
import { writeSync } from 'node:fs';
import { openJournal } from '#agent/journal.ts';

const [path = '', from = '0'] = process.argv.slice(2);
using journal = openJournal(path);
for (let index = Number(from); ; index += 1) {
  journal.transaction(() => {
    journal.put(`pair/a/${index}`, index);
    journal.put(`pair/b/${index}`, index);
    journal.put('last', index);
  });
  writeSync(1, `${index}\n`);
}

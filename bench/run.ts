// npm run bench [name…]: every figure of the product, each against its peer in the same run. Prints one table; a missed
// target does not fail the run, a broken measurement does.
import { print, type Row } from './report.ts';
import { planBench } from './plan.ts';

const benches: Readonly<Record<string, () => Row[] | Promise<Row[]>>> = {
  plan: planBench,
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => benches[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(`No benchmark ${unknown.join(', ')}. There are: ${Object.keys(benches).join(', ')}\n`);
  process.exit(2);
}
const rows: Row[] = [];
for (const [name, bench] of Object.entries(benches)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  process.stderr.write(`bench: ${name} …\n`);
  rows.push(...(await bench()));
}
print(rows);

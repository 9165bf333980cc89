// Keeps other work of the machine out of the figures: what a benchmark starts gets a hundred times the processor weight of
// everything else. Nice values would not do: with autogroups they count only inside one session (sched(7)). Containers live
// in the lab's group below the engines' parent, all else in the one this process starts in.
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { labGroup } from '#lab/state.ts';

const usual = '1024';
const raised = '102400';

/** Where the cpu controller of version 1 is mounted. */
function cpuMount(): string | undefined {
  const line = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((text) => / - cgroup \S+ \S*\bcpu\b/.test(text));
  return line?.split(' ')[4];
}

/**
 * Raises this process, all that it starts from now on, and the containers of the lab of that name, which need not exist yet.
 * Disposing takes it back; the lab must be gone by then. Fault `unsupported` without a cpu controller.
 */
export function raise(lab: string): Disposable {
  const mount = cpuMount();
  if (mount === undefined) throw new Fault('unsupported', 'Cannot keep other work away: no cpu controller of version 1 is mounted');
  const own = join(mount, `causeway-bench-${process.pid}`);
  const ofLab = join(mount, labGroup(lab));
  const ofLabs = dirname(ofLab);
  for (const path of [own, ofLabs, ofLab]) {
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'cpu.shares'), raised);
  }
  writeFileSync(join(own, 'cgroup.procs'), String(process.pid));
  return {
    [Symbol.dispose]: () => {
      writeFileSync(join(mount, 'cgroup.procs'), String(process.pid));
      for (const path of [own, ofLab]) if (existsSync(path)) rmdirSync(path);
      if (existsSync(ofLabs)) writeFileSync(join(ofLabs, 'cpu.shares'), usual);
    },
  };
}

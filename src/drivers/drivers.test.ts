// Every driver on the kernel in memory.
import { createFakeKinds, type FakeKinds } from '#kernel/fake.ts';
import { driverContract } from './contract.ts';

let current: FakeKinds;
driverContract('in memory', {
  open() {
    current = createFakeKinds();
    current.putForeign({ netns: '', link: 'eth0' });
    return current;
  },
  reopen: () => current,
  skip: () => false,
  shuffles: 3,
  every: 1,
});

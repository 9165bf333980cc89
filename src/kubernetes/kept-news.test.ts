import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { MemoryJournal } from '#agent/journal.ts';
import { Fault } from '#model/fault.ts';
import { KeptNews } from './kept-news.ts';

class Journal extends MemoryJournal {
  isFull = false;
  override put(key: string, value: unknown): void {
    if (this.isFull) throw new Fault('unavailable', 'The disk is full');
    super.put(key, value);
  }
}

test('what is heard in a turn is settled once, and what the disk has no room for is kept with the next', async () => {
  const journal = new Journal();
  const warnings: string[] = [];
  const log = { warn: (_: object, message: string) => void warnings.push(message) };
  const state = { settled: 0, may: false };
  const settle = (): void => {
    state.settled += 1;
    news.keep();
  };
  const news = new KeptNews({ journal, prefix: 'a/', log, what: 'things', settle, maySettle: () => state.may });
  news.note('one', 1);
  news.kick();
  await turn();
  assert.deepEqual([state.settled, journal.list('')], [0, []], 'not before it may');
  Object.assign(state, { may: true });
  journal.isFull = true;
  news.kick();
  news.kick();
  await turn();
  assert.deepEqual([state.settled, warnings], [1, []], 'written afterwards');
  await sleep(100);
  assert.deepEqual([state.settled, journal.list(''), warnings], [1, [], ['cannot keep what is known of things']]);
  journal.isFull = false;
  news.note('two', 2);
  news.kick();
  await sleep(100);
  assert.deepEqual(journal.keys(''), ['a/one', 'a/two']);
  news.note('one', undefined);
  news.keep();
  news[Symbol.dispose]();
  assert.deepEqual([journal.keys(''), state.settled], [['a/two'], 2]);
});

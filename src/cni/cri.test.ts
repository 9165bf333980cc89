import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isFault } from '#model/fault.ts';
import { sandboxIds } from './cri.ts';

/** One sandbox of what containerd 1.7.24 answered to ListPodSandbox of runtime.v1 on a node of a cluster. */
const captured = Buffer.from(
  `CoUDCkBjNThjNDVkODdlYTM5YTcxMGJkM2MwODJjZDA3NzJmYmFmM2M3MzhhZTk3NDg5YzQ2ZGUxNGIyNmI5MGRmOTVkEkIKCnBvZC1jbGllbnQSJDkxOWQ0MWQ4LTFkMDgtNDE4Ny1h
MWE1LTQyYTQwOTAyODBjYRoOY29ubnRyYWNrLTM3NjYg7uafqMuEyPUYKi0KG2lvLmt1YmVybmV0ZXMucG9kLm5hbWVzcGFjZRIOY29ubnRyYWNrLTM3NjYqPQoVaW8ua3ViZXJuZXRl
cy5wb2QudWlkEiQ5MTlkNDFkOC0xZDA4LTQxODctYTFhNS00MmE0MDkwMjgwY2EqJAoWaW8ua3ViZXJuZXRlcy5wb2QubmFtZRIKcG9kLWNsaWVudDIiChtrdWJlcm5ldGVzLmlvL2Nv
bmZpZy5zb3VyY2USA2FwaTI7ChlrdWJlcm5ldGVzLmlvL2NvbmZpZy5zZWVuEh4yMDI2LTExLTI0VDIzOjUwOjE4LjE0OTY3MTAxM1o=`,
  'base64',
);
const id = 'c58c45d87ea39a710bd3c082cd0772fbaf3c738ae97489c46de14b26b90df95d';

test("ids are read from containerd's own answer, one or many", () => {
  assert.deepEqual([...sandboxIds(captured)], [id]);
  const other = Buffer.from(captured.toString('latin1').replace(id, id.toUpperCase()), 'latin1');
  assert.deepEqual([...sandboxIds(Buffer.concat([captured, other]))], [id, id.toUpperCase()]);
  assert.deepEqual([...sandboxIds(Buffer.alloc(0))], []);
});

test('an answer that is cut anywhere is refused, never read as fewer sandboxes', () => {
  const two = Buffer.concat([captured, captured]);
  for (let length = 1; length < two.length; length++) {
    if (length === captured.length) continue;
    assert.throws(
      () => sandboxIds(two.subarray(0, length)),
      (error) => isFault(error, 'unsupported'),
    );
  }
});

test('whatever comes is read or refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      try {
        sandboxIds(Buffer.from(bytes));
      } catch (error) {
        assert.ok(isFault(error, 'unsupported'));
      }
    }),
  );
});

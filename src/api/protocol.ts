// The protocol's version and limits, which both sides must agree on.

/** Carries the protocol's version in requests; a controller refuses what it does not speak with `version`. */
export const versionHeader = 'causeway-version';
/** Names the time since the asking machine was switched on (boot id): tells two machines with one certificate apart. */
export const bootHeader = 'causeway-boot';
export const apiVersion = '1';
/** Bytes of one request's body. */
export const bodyLimit: number = 1024 * 1024;
/** A watch says something at least this often, if only a bookmark; a reader may take longer silence for a broken connection. */
export const bookmarkMs = 10_000;

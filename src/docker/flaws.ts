// What is wrong with versions of the engine itself, as its release notes tell.

/** A sentence for the operator; undefined where nothing is known. */
export function flawOf(version: string): string | undefined {
  // https://docs.docker.com/engine/release-notes/29/#2903 (moby#51558)
  if (/^29\.0\.[0-2]($|[^0-9])/.test(version))
    return `Version ${version} of the engine crashes when a container leaves a network of a driver that is a plugin. Upgrade it to 29.0.3 or later`;
  return undefined;
}

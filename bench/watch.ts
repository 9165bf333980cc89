export async function watchBench(): Promise<never[]> {
  return [];
}

export async function memoryBench(): Promise<never[]> {
  return [];
}

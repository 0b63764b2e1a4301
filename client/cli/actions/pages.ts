/** One page of a listing. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly nextPageToken: string;
  /** How many there are in all. */
  readonly totalSize: number;
}

/** The largest page that listings offer. */
const MAX_PAGE_SIZE = 1000;

/** Reads pages until `limit` items are there or none are left. */
export async function readPages<T>(
  limit: number,
  read: (pageSize: number, pageToken: string) => Promise<Page<T>>,
): Promise<{ items: T[]; totalSize: number }> {
  const items: T[] = [];
  let pageToken = "";
  let totalSize = 0;
  do {
    const page = await read(Math.min(limit - items.length, MAX_PAGE_SIZE), pageToken);
    items.push(...page.items);
    pageToken = page.nextPageToken;
    totalSize = page.totalSize;
  } while (pageToken !== "" && items.length < limit);
  return { items, totalSize };
}

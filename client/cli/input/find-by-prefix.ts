import { Code, ConnectError } from "@connectrpc/connect";
import { UsageError } from "../usage-error.ts";

/** Among how many of the newest runs one is found by the beginning of its id. */
const PAGE_SIZE = 1000;
const MAX_PAGES = 5;

/** The id of the one run whose id begins so. `list` returns a page of runs, the newest first. */
export async function findByPrefix(
  prefix: string,
  list: (
    pageSize: number,
    pageToken: string,
  ) => Promise<{ readonly runs: readonly { readonly id: string }[]; readonly nextPageToken: string }>,
  words: { readonly noun: string; readonly listCommand: string },
): Promise<string> {
  let pageToken = "";
  for (let page = 0; page < MAX_PAGES; page++) {
    const { runs, nextPageToken } = await list(PAGE_SIZE, pageToken);
    const [first, second] = runs.filter(({ id }) => id.startsWith(prefix));
    if (first !== undefined && second !== undefined) {
      throw new UsageError(`"${prefix}" is the beginning of several runs: ${first.id}, ${second.id}`);
    }
    if (first !== undefined) return first.id;
    if (nextPageToken === "") break;
    pageToken = nextPageToken;
  }
  throw new ConnectError(
    `no ${words.noun} has an id that begins with "${prefix}"; list runs: ${words.listCommand}`,
    Code.NotFound,
  );
}

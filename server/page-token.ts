import { createHash } from "node:crypto";
import { type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { invalidArgument } from "@toolplane/framework";

/**
 * Page tokens say where the next page begins, and which question they belong to. They are opaque to callers, but not
 * secret: what comes back is checked like any other input.
 */
export interface PageTokens {
  /** `position` is the last thing on the page. */
  write(position: readonly string[]): string;
  /** Undefined: the first page. Throws INVALID_ARGUMENT. */
  read(token: string): readonly string[] | undefined;
}

/** Tokens for lists with this filter; one of another list or filter is refused. */
export function pageTokens<Desc extends DescMessage>(
  list: string,
  parts: number,
  schema: Desc,
  filter: MessageShape<Desc> | undefined,
): PageTokens {
  const question = createHash("sha256")
    .update(list)
    .update("\0")
    .update(filter ? toBinary(schema, filter) : "")
    .digest("base64url")
    .slice(0, 12);
  return {
    write: (position) => Buffer.from(JSON.stringify([question, ...position])).toString("base64url"),
    read(token) {
      if (token === "") {
        return undefined;
      }
      const [asked, ...position] = decode(token);
      if (asked !== question || position.length !== parts) {
        throw invalidPageToken();
      }
      return position;
    },
  };
}

export function invalidPageToken(): Error {
  return invalidArgument([
    {
      field: "page_token",
      description: "use the `next_page_token` of a page of the same list with the same filter",
      reason: "INVALID_PAGE_TOKEN",
    },
  ]);
}

/** What the token holds; nothing for a token that is not ours. */
function decode(token: string): string[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, "base64url").toString("utf8"));
    return Array.isArray(value) && value.every(isText) ? value : [];
  } catch {
    return [];
  }
}

/** What is looked for in a database, which has neither NUL in a text nor half of a surrogate pair. */
function isText(value: unknown): value is string {
  return typeof value === "string" && value.isWellFormed() && !value.includes("\0");
}

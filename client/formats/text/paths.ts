import { boundedName } from "../../runners/bounded-text.ts";
import { readableText } from "../report-sink.ts";

const MAX_FILE = 1024;

/** Makes paths of a report relative to `root`, with `/` between folders. Those outside of it stay as they are. */
export function createPathRule(root: string | undefined): (path: string) => string {
  const prefix = root === undefined || root === "" ? undefined : `${slashed(root).replace(/\/+$/, "")}/`;
  return (path) => {
    const file = slashed(path);
    const relative = prefix !== undefined && file.startsWith(prefix) ? file.slice(prefix.length) : file;
    return boundedName(readableText(relative.replace(/^(?:\.\/+)+/, "")), MAX_FILE);
  };
}

function slashed(path: string): string {
  return path.replace(/^file:\/\/(?=\/)/, "").replaceAll("\\", "/");
}

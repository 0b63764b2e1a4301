import { boundedText } from "./bounded-text.ts";

/** Whether a piece of a test's output is `go test`'s own word on how tests go. */
export function testFramed(text: string): boolean {
  return /^\s*(?:=== (?:RUN|PAUSE|CONT|NAME|ATTR|ARTIFACTS)\s|--- (?:PASS|FAIL|SKIP|BENCH): )/.test(text);
}

/** The same for what a package writes outside of tests. */
export function packageFramed(text: string): boolean {
  return /^(?:PASS|FAIL)\r?\n?$|^(?:ok {2}|FAIL|\? {3})\t|^coverage: /.test(text);
}

/** What `go test` also writes without `-v`, so that people know which test failed, and how each package did. */
export function isVerdict(text: string): boolean {
  return /^\s*--- FAIL: |^(?:ok {2}|FAIL|\? {3})\t/.test(text);
}

/**
 * Why something failed, from all that it wrote.
 *
 * @param otherwise the message of what wrote nothing
 */
export function goFailure(output: string, otherwise: string) {
  const crash = /^(panic|fatal error): (.*(?:\n(?!\n|goroutine |\t).*)*)/m.exec(output);
  if (crash) {
    const message = crash[2] ?? "";
    const timedOut = message.startsWith("test timed out after ");
    return {
      message: boundedText(message),
      type: timedOut ? "timeout" : (crash[1] ?? ""),
      stack: boundedText(output.slice(crash.index + crash[0].length).trim()),
    };
  }
  const example = /^got:\n([\s\S]*?)\n?want:\n([\s\S]*?)\n?$/.exec(output);
  if (example) {
    return {
      message: boundedText(output.trim()),
      actual: boundedText(example[1] ?? ""),
      expected: boundedText(example[2] ?? ""),
    };
  }
  const message = said(output).join("\n") || output.trim();
  return { message: boundedText(message === "" ? otherwise : message) };
}

/** Why a test was skipped. */
export function goSkipReason(output: string): string {
  return boundedText((said(output).at(-1) ?? "").replace(/^\S+\.go:\d+: /, ""));
}

/** What a test said with `t.Log`, `t.Error` and the like: lines with their place, and those that belong to them. */
function said(output: string): string[] {
  const logs: string[] = [];
  let indentation: string | undefined;
  for (const line of output.split("\n")) {
    const [, before] = /^(\s+)\S+\.go:\d+: /.exec(line) ?? [];
    if (before !== undefined) {
      indentation = before;
      logs.push(line.trim());
    } else if (indentation !== undefined && line.startsWith(`${indentation}    `)) {
      logs.push(`${logs.pop()}\n${line.slice(indentation.length + 4)}`);
    } else {
      indentation = undefined;
    }
  }
  return logs.map((log) => log.trimEnd());
}

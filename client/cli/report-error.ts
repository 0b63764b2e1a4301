import type { DomainError } from "@toolplane/framework";
import { ExitCode } from "./exit-code.ts";
import type { ErrorReport } from "./output/error-report.ts";
import { printable, textWidth, wrap } from "./output/text-width.ts";
import type { Terminal } from "./terminal.ts";
import { UsageError } from "./usage-error.ts";

/** Says on stderr what went wrong and what to try next; returns the code to exit with. */
export async function reportError(
  terminal: Terminal,
  url: string | undefined,
  reason: unknown,
): Promise<number> {
  if (terminal.io.signal.aborted) return ExitCode.interrupted;
  if (terminal.io.env["TOOLPLANE_DEBUG"]) await terminal.note(terminal.paintErr.dim(debugText(reason)));
  const report = await describe(terminal, url, reason);
  await terminal.note(
    terminal.json ? JSON.stringify({ error: toJsonReport(report) }) : formatReport(terminal, report),
  );
  return report.exitCode;
}

async function describe(terminal: Terminal, url: string | undefined, reason: unknown): Promise<ErrorReport> {
  if (reason instanceof UsageError) {
    const help = `Help: ${commandPath(terminal.command)} --help`;
    return {
      exitCode: ExitCode.usage,
      code: "usage",
      message: reason.message,
      violations: [],
      notes: [],
      hints: reason.hint === undefined ? [help] : [reason.hint, help],
    };
  }
  const { ConnectError } = await import("@connectrpc/connect");
  if (reason instanceof ConnectError && url !== undefined) {
    const { describeError } = await import("./output/error-report.ts");
    return describeError(reason, url);
  }
  if (isDomainError(reason)) {
    const { describeDomainError } = await import("./output/error-report.ts");
    return describeDomainError(reason);
  }
  const message = printable(reason instanceof Error ? reason.message : String(reason));
  return { exitCode: ExitCode.failure, code: "failure", message, violations: [], notes: [], hints: [] };
}

/** A bundled server brings a class of its own, so it is known by its name. */
function isDomainError(reason: unknown): reason is DomainError {
  return reason instanceof Error && reason.name === "DomainError" && "init" in reason;
}

function formatReport({ paintErr, io }: Terminal, report: ErrorReport): string {
  const width = io.stderr.isTTY === true ? Math.max(io.stderr.columns ?? 80, 40) : Number.POSITIVE_INFINITY;
  const fieldWidth = Math.max(0, ...report.violations.map(({ field }) => textWidth(field)));
  const [first = "", ...rest] = wrap(report.message, width - 2);
  return [
    `${paintErr.red("✗")} ${paintErr.bold(first)}`,
    ...rest.map((line) => `  ${paintErr.bold(line)}`),
    ...report.violations.map(({ field, description }) =>
      field === ""
        ? `  ${description}`
        : `  ${paintErr.yellow(field)}${" ".repeat(fieldWidth - textWidth(field))}  ${description}`,
    ),
    ...report.notes.map((note) => `  ${note}`),
    ...report.hints.flatMap((hint) => wrap(hint, width - 2)).map((line) => `  ${paintErr.dim(line)}`),
  ].join("\n");
}

/** Without what is empty. */
function toJsonReport(report: ErrorReport) {
  return Object.fromEntries(
    Object.entries(report).filter(([, value]) => !(Array.isArray(value) && value.length === 0)),
  );
}

/** Such as `toolplane tools show`. */
function commandPath(command: Terminal["command"]): string {
  const names: string[] = [];
  for (let each: Terminal["command"] | null = command; each !== null; each = each.parent) {
    names.unshift(each.name());
  }
  return names.join(" ");
}

function debugText(reason: unknown): string {
  return reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
}

import {
  type WorkflowProblem,
  WorkflowProblemSeverity,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import type { Colors } from "picocolors/types.js";
import { oneLine } from "../output/text-width.ts";

/** Problems as editors and CI systems read them, in the order of the file: `file:line:column: severity reason: message`. */
export function renderProblems(paint: Colors, file: string, problems: readonly WorkflowProblem[]): string[] {
  return problems
    .toSorted((a, b) => a.line - b.line || a.column - b.column)
    .map(({ line, column, severity, reason, field, message }) => {
      const place = [file === "-" ? "stdin" : file, ...(line === 0 ? [] : [line, Math.max(column, 1)])].join(
        ":",
      );
      // Where there is no line, the field says where to look.
      const where = line === 0 && field !== "" ? `${oneLine(field)}: ` : "";
      return `${paint.bold(`${oneLine(place)}:`)} ${severityWord(severity, paint)} ${oneLine(reason)}: ${where}${oneLine(message)}`;
    });
}

export function isError({ severity }: WorkflowProblem): boolean {
  return severity !== WorkflowProblemSeverity.WARNING;
}

function severityWord(severity: WorkflowProblemSeverity, paint: Colors): string {
  switch (severity) {
    case WorkflowProblemSeverity.WARNING:
      return paint.yellow("warning");
    case WorkflowProblemSeverity.ERROR:
    case WorkflowProblemSeverity.UNSPECIFIED:
      return paint.red("error");
  }
}

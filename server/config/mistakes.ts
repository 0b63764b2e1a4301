import { type FieldViolation, invalidArgument } from "@toolplane/framework";

/** Told of what is wrong with a field beyond what its own rules say, such as a minimum above its maximum. */
export type ReportMistake = (field: string, description: string) => void;

/** What `resolve` returns, unless it reports mistakes: then throws INVALID_ARGUMENT with all of them. */
export function withoutMistakes<T>(resolve: (report: ReportMistake) => T): T {
  const mistakes: FieldViolation[] = [];
  const resolved = resolve((field, description) => {
    mistakes.push({ field, description, reason: "INCONSISTENT" });
  });
  if (mistakes.length > 0) {
    throw invalidArgument(mistakes);
  }
  return resolved;
}

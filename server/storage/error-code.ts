/** The `code` that Node gives to errors of the system, and PostgreSQL to its own (there it is the SQLSTATE). */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
